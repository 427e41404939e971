"""The scripts of examples/reproduce on the digits: whole, consistent, and not computed twice."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "reproduce"


def script(name, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PATH": "", "PYTHONUTF8": "1"},
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two runs of a sweep over λ."""
    folder = tmp_path_factory.mktemp("reproduce")
    script(
        "sweep", "--data", "digits", "--hidden", 10, "--epochs", 2, "--learning-rate", 0.02,
        "--weights", 0, 0.03, "--seeds", 0, "--out", folder,
    )  # fmt: skip
    return folder


def test_a_sweep_goes_on_where_it_was(out):
    before = json.loads((out / "sweep.json").read_text("utf-8"))
    assert before["script"] == "sweep.py"
    assert before["machine"]["threads"] == 1
    assert [row["weight"] for row in before["rows"]] == [0.0, 0.03]
    (out / "sweep.json").unlink()
    script(
        "sweep", "--data", "digits", "--hidden", 10, "--epochs", 2, "--learning-rate", 0.02,
        "--weights", 0, 0.03, "--seeds", 0, "--out", out,
    )  # fmt: skip
    assert json.loads((out / "sweep.json").read_text("utf-8"))["rows"] == before["rows"]


def test_runs_are_not_overwritten_by_others(out):
    done = script(
        "sweep", "--data", "digits", "--hidden", 11, "--epochs", 2, "--weights", 0, "--seeds", 0,
        "--out", out, code=2,
    )  # fmt: skip
    assert "error: the run in" in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluations_are_consistent_and_computed_once(out):
    arguments = (
        "evaluate", out / "sweep_0_0", out / "sweep_0.03_0", "--samples", 20, "--steps", 5,
        "--epsilon", 0.01, 0.05, "--ladder-epsilon", 0.01, "--restarts", 2, "--out", out,
    )  # fmt: skip
    done = script(*arguments)
    assert "0 fell to PGD with 2 restarts" in done.stdout
    for run in ("sweep_0_0", "sweep_0.03_0"):
        found = json.loads((out / f"evaluate_{run}.json").read_text("utf-8"))
        rows = {(row["kind"], row["epsilon"]): row for row in found["rows"]}
        clean = rows["clean", 0.0]["accuracy"]
        for epsilon in (0.01, 0.05):
            proved = rows["global", epsilon]["accuracy"]
            assert proved <= rows["interval", epsilon]["accuracy"]
            for attack in ("noise", "inversion", "fgsm", "pgd"):
                assert rows["interval", epsilon]["accuracy"] <= rows[attack, epsilon]["accuracy"]
                assert rows[attack, epsilon]["accuracy"] <= clean
        ladder = rows["ladder", 0.01]
        assert sum(ladder["counts"].values()) == 20
        assert len(ladder["certified"]) == ladder["counts"]["certified"]
        assert rows["check", 0.01]["fallen"] == []
    before = (out / "evaluate_sweep_0_0.json").read_bytes()
    assert script(*arguments).stdout == done.stdout
    assert (out / "evaluate_sweep_0_0.json").read_bytes() == before
    script("pictures", out / "sweep_0_0", out / "sweep_0.03_0", "--out", out)
    for picture in ("accuracy_curves", "sweep", "ladder"):
        assert (out / f"{picture}.svg").read_text("utf-8").startswith("<?xml")


def test_the_line_that_training_prints_evaluates_the_run(tmp_path):
    out = tmp_path / "of results"
    done = script("certified", "--data", "digits", "--hidden", 6, "--epochs", 1, "--out", out)
    python, path, *arguments = shlex.split(done.stdout.splitlines()[-1])
    assert (python, Path(path)) == ("python", FOLDER / "evaluate.py")
    script("evaluate", *arguments, "--samples", 50, "--kinds", "interval")
    found = json.loads((out / "evaluate_certified-interval.json").read_text("utf-8"))
    assert found["config"]["objective"]["name"] == "interval"
    assert {(row["kind"], row["epsilon"]) for row in found["rows"]} >= {
        ("clean", 0.0),
        ("interval", 0.05),
        ("interval", 0.2),
    }


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("certified", "threads", 0),
        ("evaluate", "kinds", "luck"),
        ("evaluate", "ladder-epsilon", -1),
        ("evaluate", "ladder-samples", 0),
        ("evaluate", "restarts", -2),
    ],
)
def test_bad_arguments_are_one_sentence_before_any_work(out, tmp_path, name, option, value):
    runs = [out / "sweep_0_0"] if name == "evaluate" else []
    data = [] if runs else ["--data", "digits"]
    done = script(name, *runs, *data, f"--{option}", value, "--out", tmp_path, code=2)
    assert re.fullmatch(r"error: got .*, expected .*\.", done.stderr.strip())
    assert not list(tmp_path.iterdir())


def test_estimation_writes_its_table_and_pictures(tmp_path):
    script(
        "estimation", "--hidden", 4, "--epochs", 1, "--gammas", 0.3, "--seeds", 0, "--out", tmp_path
    )
    found = json.loads((tmp_path / "estimation.json").read_text("utf-8"))
    for name in ("function", "function2d"):
        assert len(found[name]["table"]) == 4
        assert (tmp_path / f"estimation_{name}.svg").exists()


def test_every_script_is_in_the_table():
    text = (FOLDER / "README.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `(\w+)\.py", text, re.MULTILINE))
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"common"}
    assert scripts <= listed
