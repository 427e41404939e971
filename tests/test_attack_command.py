"""The command `attack`: what it prints and writes, and what it refuses."""

import csv
import json

import pytest

from contraction_nets import attack
from contraction_nets.robustness.attacks import Pgd
from contraction_nets.training.checkpoint import load_network
from contraction_nets.training.data import load_data


def test_accuracy_before_and_under_attack(command, run, tmp_path):
    out = tmp_path / "found.csv"
    arguments = ("attack", run, "--epsilon", "0,0.05,0.2", "--samples", 60, "--steps", 5)
    code, text, err = command(*arguments, "--out", out)
    assert code == 0, err
    for part in ("accuracy before", "accuracy at ε = 0.05", "[run]", "steps 5", "targets all"):
        assert part in text
    assert "100 %" in err
    code, text, _ = command(*arguments, "--json")
    report = json.loads(text)
    assert (code, report["samples"], report["data"]) == (0, 60, "digits")
    none, small, large = (result["accuracy"] for result in report["results"])
    assert none == report["clean_accuracy"] > 0.8
    assert none > small > large
    data, network = load_data("digits"), load_network(run)
    found = attack(
        network, data.test_inputs[:60], data.test_targets[:60], 0.05, method=Pgd(steps=5)
    )
    assert small == 1 - found.success.double().mean().item()
    with open(out, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 180
    held = [row["label"] == row["attacked_label"] for row in rows]
    assert sum(held[60:120]) / 60 == small
    assert all(float(row["distance"]) <= float(row["epsilon"]) for row in rows)


@pytest.mark.parametrize("method", ["fgsm", "inversion", "noise", "noise(2)"])
def test_every_attack_has_a_name(command, run, tmp_path, method):
    out = tmp_path / "found.json"
    arguments = ("--samples", 30, "--epsilon", 0.3, "--attack", method, "--out", out, "--json")
    code, text, err = command("attack", run, *arguments)
    assert code == 0, err
    report = json.loads(text)
    assert report["attack"]["name"] == method.partition("(")[0]
    assert report["results"][0]["accuracy"] < report["clean_accuracy"]
    assert json.loads(out.read_text())["results"][0]["lost"] == report["results"][0]["lost"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--epsilon": "a"}, "separated by commas"),
        ({"--epsilon": "0.1,-0.1"}, "separated by commas"),
        ({"--epsilon": "0.1,"}, "separated by commas"),
        ({"--attack": "deepfool"}, "expected one of"),
        ({"--attack": "fgsm", "--steps": "5"}, "with pgd only"),
        ({"--steps": "0"}, "got steps = 0"),
        ({"--samples": "0"}, "at least 1"),
        ({"--seed": "-1"}, "got the seed"),
        ({"--out": "found.txt"}, "a .csv or a .json"),
        ({"--out": "nowhere/found.csv"}, "no such folder"),
        ({"RUN": "nowhere"}, "expected that of a run"),
    ],
)
def test_bad_arguments_are_refused(command, run, tmp_path, monkeypatch, change, reason):
    monkeypatch.chdir(tmp_path)
    given = {"--epsilon": "0.1"} | change
    folder = given.pop("RUN", run)
    code, text, err = command("attack", folder, *(part for pair in given.items() for part in pair))
    assert (code, text) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert reason in err
    assert not list(tmp_path.iterdir())
