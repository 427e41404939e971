"""The pages run from top to bottom; that on certificates prints what it says it prints."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from contraction_nets import ImplicitWeights
from contraction_nets.certificates.document import load_certificate
from contraction_nets.certificates.statements import STATEMENTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGE = PAGES["certificates"]


def blocks(page):
    """Kind and text of every block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


BLOCKS = blocks(PAGE)


def in_shell(script, folder):
    """What a block of commands prints, errors among it; all succeed where no code is printed."""
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "COLUMNS": "80",
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        ["sh", "-c" if "$?" in script else "-ec", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


def in_python(script, namespace):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(script, "a page", "exec"), namespace)
    return printed.getvalue()


def lines(text):
    """Lines without trailing blanks, and no empty ones."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_every_block_is_run_or_compared():
    kinds = [kind for kind, _ in BLOCKS]
    assert set(kinds) == {"python", "sh", "text", "json"}
    assert PAGE.count("```") == 2 * len(BLOCKS)
    for before, kind in zip(["", *kinds], kinds, strict=False):
        assert kind != "text" or before in ("python", "sh")


def test_the_page_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for (kind, block), (next_kind, shown) in pairwise([*BLOCKS, ("", "")]):
        if kind in ("python", "sh"):
            printed = in_python(block, namespace) if kind == "python" else in_shell(block, tmp_path)
            if next_kind == "text":
                assert lines(printed) == lines(shown), f"{block}\nprints\n{printed}"

    # The file that is shown is the one that was written. Elsewhere the last bits may differ; what
    # is on the page is a proof all the same.
    ((_, shown),) = (block for block in BLOCKS if block[0] == "json")
    assert json.loads(shown) == json.loads(Path("small.json").read_text("utf-8"))
    Path("shown.json").write_text(shown, "utf-8")
    assert load_certificate("shown.json").objection(ImplicitWeights.load("small.npz")) is None

    # Every kind of statement was made.
    files = [path for path in Path().glob("*.json") if path.name != "broken.json"]
    assert {load_certificate(path).statement.kind for path in files} == set(STATEMENTS)


def test_the_page_on_robustness_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for kind, block in blocks(PAGES["robustness"]):
        if kind == "python":
            in_python(block, namespace)
        else:
            in_shell(block, tmp_path)
    verdicts = (tmp_path / "verdicts.csv").read_text("utf-8").splitlines()
    assert len(verdicts) == 1 + 2 * 360


@pytest.mark.parametrize("kind", STATEMENTS)
def test_every_kind_of_statement_is_explained(kind):
    assert f"| `{kind}`" in PAGE
    for name in STATEMENTS[kind].claims:
        assert f"`{name}`" in PAGE or f".{name}`" in PAGE


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_links_lead_somewhere(page):
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", page):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"`((?:tests|contraction_nets|benchmarks|docs)/[\w/.]+\.\w+)`", page):
        assert (ROOT / name).exists(), name
