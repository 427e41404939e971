"""The command `compare`: its tables, JSON, CSV and pictures, and what it refuses."""

import csv
import json

import pytest

from contraction_nets.cli.comparison_table import time_text


def test_projections_as_table_json_csv_and_picture(command, tmp_path):
    out_csv, out_svg = tmp_path / "rows.csv", tmp_path / "picture.svg"
    arguments = ["compare", "projections", "--sizes", "5,8", "--repetitions", 2]
    methods = ["--method", "closed_form", "--method", "clarabel"]
    code, out, err = command(
        *arguments, *methods, "--csv", out_csv, "--plot", out_svg, "--json"
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    assert report["subject"] == "projections"
    assert report["machine"]["threads"] == 1
    rows = report["rows"]
    assert [(row["n"], row["solver"], row["polished"]) for row in rows] == [
        (n, *method)
        for n in (5, 8)
        for method in (("closed_form", None), ("clarabel", True), ("clarabel", False))
    ]
    assert all(row["outcome"] == "reached" and row["distance"] < 1e-5 for row in rows)
    with open(out_csv, newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [float(line["seconds"]) for line in table] == [row["seconds"] for row in rows]
    assert out_svg.read_text().lstrip().startswith("<?xml")


def test_certificates_as_table(command):
    code, out, _ = command(
        "compare", "certificates", "--sizes", "6", "--repetitions", 1, "--method", "m_matrix",
        "--method", "highs",
    )  # fmt: skip
    assert code == 0
    assert "certificates: n = 6" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "yes" in lines["m_matrix"]
    assert "yes" in lines["highs"]


def test_iterations(command, tmp_path):
    code, out, _ = command(
        "compare", "iterations", "--sizes", "10", "--batches", "1,3", "--family", "positive 0.99",
        "--family", "diagonally heavy", "--method", "auto", "--method", "picard", "--json",
        "--repetitions", 1, "--plot", tmp_path / "iterations.svg",
    )  # fmt: skip
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [(row["family"], row["batch"], row["iteration"]) for row in rows] == [
        (family, batch, name)
        for family in ("positive 0.99", "diagonally heavy")
        for batch in (1, 3)
        for name in ("auto", "picard")
    ]
    for row in rows:
        diverges = row["family"] == "diagonally heavy" and row["iteration"] == "picard"
        assert row["outcome"] == ("not reached" if diverges else "reached")
        assert diverges or row["residual"] <= 1.01e-5
        assert row["outcome_backward"] == row["outcome"]
        assert diverges or (row["steps_backward"] > 0 and row["seconds_backward"] > 0)
    assert (tmp_path / "iterations.svg").exists()


def test_sets(command, tmp_path):
    code, out, _ = command(
        "compare", "sets", "--sizes", "5", "--epochs", 1, "--data", "function", "--json",
        "--plot", tmp_path / "sets.png",
    )  # fmt: skip
    assert code == 0
    report = json.loads(out)
    assert [row["set"] for row in report["rows"]] == [
        "norm_ball", "measure", "adaptive", "monotone",
    ]  # fmt: skip
    assert all(row["test_accuracy"] is None for row in report["rows"])
    assert (tmp_path / "sets.png").read_bytes().startswith(b"\x89PNG")
    assert {row["shift"] for row in report["cloud"]} == {0, 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ["projections", "--sizes", "5,x"],
        ["projections", "--sizes", "0"],
        ["projections", "--method", "newton"],
        ["projections", "--method", "m_matrix"],
        ["certificates", "--method", "closed_form"],
        ["projections", "--accuracy", "2"],
        ["projections", "--time-limit", "0"],
        ["certificates", "--repetitions", "0"],
        ["certificates", "--threads", "0"],
        ["iterations", "--family", "nobody's"],
        ["iterations", "--method", "closed_form"],
        ["sets", "--method", "ball"],
        ["sets", "--gamma", "1.5"],
        ["sets", "--data", "nothing"],
        ["sets", "--plot", "picture.txt"],
        ["sets", "--csv", "no/such/folder/rows.csv"],
        ["everything"],
    ],
)
def test_bad_input_is_one_sentence(command, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("compare", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"), [(1234.5, "1230 s"), (0.5, "500 ms"), (3e-4, "300 µs"), (1e-9, "0.001 µs")]
)
def test_times_have_units(seconds, text):
    assert time_text(seconds) == text
