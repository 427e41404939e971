"""The command `robustness`: what it prints and writes, how it goes on, what it refuses."""

import csv
import json

import numpy as np
import pytest

from contraction_nets import verify_robustness
from contraction_nets.cli import verdicts
from contraction_nets.training.checkpoint import load_network
from contraction_nets.training.data import load_data

ARGUMENTS = ("--epsilon", "0.01,0.03", "--samples", 40)


def rows_of(path):
    """Everything but the seconds."""
    if path.suffix == ".json":
        rows = json.loads(path.read_text())["verdicts"]
    else:
        with open(path, newline="") as stream:
            rows = list(csv.DictReader(stream))
    # Products of other batches are rounded otherwise.
    return [
        {key: str(value) for key, value in row.items() if key not in ("seconds", "margin")}
        | {"margin": pytest.approx(float(row["margin"]), rel=1e-6)}
        for row in rows
    ]


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The file of an uninterrupted run, and what the library says."""
    data, network = load_data("digits"), load_network(run)
    found = verify_robustness(network, data.test_inputs[:40], data.test_targets[:40], 0.03)
    return tmp_path_factory.mktemp("verdicts") / "whole.csv", found


def test_verdicts_are_those_of_the_library(command, run, whole):
    out, library = whole
    code, text, err = command("robustness", run, *ARGUMENTS, "--out", out)
    assert code == 0, err
    for part in ("certified", "falsified", "unknown", "ε = 0.03", "[run]", "digits", "[0,1]"):
        assert part in text
    assert "100 %" in err
    rows = rows_of(out)
    assert [(row["epsilon"], row["sample"]) for row in rows] == [
        (epsilon, str(i)) for epsilon in ("0.01", "0.03") for i in range(40)
    ]
    for row, verdict in zip(rows[40:], library.verdicts, strict=True):
        assert (row["status"], row["rung"]) == (verdict.status, verdict.rung)
        assert row["margin"] == verdict.margin
    assert {row["status"] for row in rows} >= {"certified", "falsified"}
    code, text, err = command("robustness", run, *ARGUMENTS, "--json")
    report = json.loads(text)
    large = report["results"][1]
    assert (code, report["samples"], large["epsilon"]) == (0, 40, 0.03)
    assert {key: large[key] for key in library.counts()} == library.counts()
    assert large["decided_by"] == {
        status: {rung: found[rung] for rung in sorted(found, key=list(found).index)}
        for status, found in library.decided_by().items()
    }


CUTS = {
    "in a row": lambda line: line[: len(line) // 2],
    "in quotes": lambda line: line[: line.index('"') + 2],
    "in the weights": lambda line: line[:-9],
}


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("cut", ["half", "in a row", "in quotes", "in the weights", "unknown"])
def test_what_goes_on_equals_what_was_whole(command, run, whole, tmp_path, suffix, cut):
    complete, _ = whole
    if not complete.exists():
        command("robustness", run, *ARGUMENTS, "--out", complete)
    part = tmp_path / f"part{suffix}"
    lines = complete.read_text().splitlines(keepends=True)
    kept = lines[:50]
    if cut == "unknown":
        kept = [line.replace(",certified,lp,", ",unknown,lp,") for line in kept]
    elif cut in CUTS and suffix == ".csv":
        kept.append(CUTS[cut](lines[50]))
    if suffix == ".csv":
        part.write_text("".join(kept))
    else:
        listed = list(csv.DictReader(kept))
        for row in listed:
            row |= {key: float(row[key]) for key in ("epsilon", "margin", "seconds")}
            row |= {key: int(row[key]) for key in ("sample", "label")}
        part.write_text(json.dumps({"verdicts": listed}))
    code, _, err = command("robustness", run, *ARGUMENTS, "--out", part, "--resume")
    assert code == 0, err
    assert rows_of(part) == rows_of(complete)


def test_a_killed_run_leaves_what_was_decided(command, run, tmp_path, monkeypatch):
    out = tmp_path / "part.csv"
    add, calls = verdicts.VerdictFile.add, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > 30:
            raise KeyboardInterrupt
        add(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(verdicts.VerdictFile, "add", interrupted)
        patch.setattr(verdicts, "_EVERY", 0.0)
        assert command("robustness", run, *ARGUMENTS, "--out", out)[0] == 130
    assert len(rows_of(out)) == 30
    seen = []
    monkeypatch.setattr(verdicts.VerdictFile, "add", lambda *a: (seen.append(a[2]), add(*a)))
    assert command("robustness", run, *ARGUMENTS, "--out", out, "--resume")[0] == 0
    assert len(seen) == 50
    assert len(rows_of(out)) == 80


def edited(line, column, value):
    fields = next(csv.reader([line]))
    fields[verdicts.COLUMNS.index(column)] = value
    return ",".join(f'"{field}"' for field in fields) + "\n"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "proved"),
        ("rung", "luck"),
        ("epsilon", "x"),
        ("epsilon", "nan"),
        ("sample", "-1"),
        ("sample", "1"),  # twice
        ("label", "0.5"),
        ("label", "0_5"),
        ("epsilon", "0.0_1"),
        ("margin", "-1.0"),
        ("margin", "nan"),
        ("margin", ""),
        ("weights", "0" * 64),
        ("method", "lp"),
        ("domain", "none"),
        ("label", "11"),
        ("input", "0" * 16),
    ],
)
def test_damaged_rows_are_refused(command, run, whole, tmp_path, column, value):
    complete, _ = whole
    if not complete.exists():
        command("robustness", run, *ARGUMENTS, "--out", complete)
    lines = complete.read_text().splitlines(keepends=True)
    k = [",certified," in line for line in lines].index(True)
    value = "0" if (column, value, k) == ("sample", "1", 2) else value
    path = tmp_path / "damaged.csv"
    path.write_text("".join([*lines[:k], edited(lines[k], column, value), *lines[k + 1 :]]))
    before = path.read_bytes()
    code, _, err = command("robustness", run, *ARGUMENTS, "--out", path, "--resume")
    assert code == 2, err
    assert "expected" in err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sample", 1.5),
        ("sample", True),
        ("label", "3_0"),
        ("seconds", False),
        ("reason", 5),
        ("reason", ["time"]),
    ],
)
def test_values_of_another_kind_are_refused(command, run, tmp_path, column, value):
    path = tmp_path / "verdicts.json"
    arguments = ("robustness", run, "--epsilon", 0.01, "--samples", 2, "--out", path)
    assert command(*arguments)[0] == 0
    report = json.loads(path.read_text())
    report["verdicts"][1][column] = value
    path.write_text(json.dumps(report))
    code, _, err = command(*arguments, "--resume")
    assert code == 2
    assert ("reason is no text" if column == "reason" else repr(value)) in err
    assert json.loads(path.read_text()) == report


@pytest.mark.parametrize("text", ["", "epsilon,sample\n0.1,2\n", "\x00\xff", '"', "a\n" * 3])
def test_other_files_are_refused_or_empty(command, run, tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text)
    code, _, err = command("robustness", run, *ARGUMENTS, "--out", path, "--resume")
    assert code == (2 if text else 0), err
    if text:
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--epsilon", "-1"), "radii"),
        (("--epsilon", "0.1,"), "radii"),
        (("--epsilon", "nan"), "radii"),
        (("--epsilon", "0.0_5"), "radii"),
        (("--epsilon", 0.1, "--method", "exact"), "method"),
        (("--epsilon", 0.1, "--jobs", 0), "n_jobs"),
        (("--epsilon", 0.1, "--time-limit", 0), "time_limit"),
        (("--epsilon", 0.1, "--time-limit", "nan"), "time_limit"),
        (("--epsilon", 0.1, "--samples", 0), "samples"),
        (("--epsilon", 0.1, "--domain", "1,0"), "domain"),
        (("--epsilon", 0.1, "--domain", "0"), "domain"),
        (("--epsilon", 0.1, "--domain", "0,1_0"), "domain"),
        (("--epsilon", 0.1, "--domain", "0.4,0.6"), "domain"),
        (("--epsilon", 0.1, "--domain", "0.4,0.6", "--out", "verdicts.csv"), "domain"),
        (("--epsilon", 0.1, "--out", "verdicts.txt"), ".csv or a .json"),
        (("--epsilon", 0.1, "--out", "nowhere/verdicts.csv"), "folder"),
        (("--epsilon", 0.1, "--resume"), "--out"),
    ],
)
def test_bad_input_is_one_sentence(command, run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("robustness", run, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_not_overwritten(command, run, tmp_path):
    out = tmp_path / "verdicts.csv"
    out.write_text("precious")
    code, _, err = command("robustness", run, *ARGUMENTS, "--out", out)
    assert code == 2
    assert "--resume" in err
    assert out.read_text() == "precious"
    assert command("robustness", tmp_path / "none", "--epsilon", 0.1)[0] == 2


def test_without_a_domain_more_is_in_reach(command, run):
    reports = [
        json.loads(command("robustness", run, *ARGUMENTS, "--domain", domain, "--json")[1])
        for domain in ("0,1", "none")
    ]
    inside, outside = ([r["certified"] for r in report["results"]] for report in reports)
    assert reports[1]["domain"] == "none"
    assert (np.array(inside) >= outside).all()


@pytest.mark.parametrize("domain", ["0,1.0000001", "-1e-9,1"])
def test_verdicts_are_not_taken_over_to_a_domain_a_little_larger(command, run, tmp_path, domain):
    out = tmp_path / "verdicts.csv"
    arguments = ("robustness", run, "--epsilon", 0.01, "--samples", 2, "--out", out, "--domain")
    assert command(*arguments, "0,1.0")[0] == 0
    before = out.read_bytes()
    code, _, err = command(*arguments, domain, "--resume")
    assert code == 2, err
    assert out.read_bytes() == before
    assert command(*arguments, "0,1", "--resume")[0] == 0
