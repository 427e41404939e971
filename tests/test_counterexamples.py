"""Files of counterexamples: true as they are stored, whole, merged, and refused when damaged."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from contraction_nets import ImplicitNetwork, ImplicitWeights
from contraction_nets.cli import verdicts
from contraction_nets.cli.counterexamples import TENSORS, CounterexampleFile
from contraction_nets.cli.held_out import Samples
from contraction_nets.robustness.result import Verdict
from contraction_nets.training.checkpoint import load_network
from contraction_nets.training.data import load_data

ARGUMENTS = ("--epsilon", "0.02,0.08", "--samples", 40)
VISIBLE = 0.02
"""Difference of outputs that a forward pass of the network `run` shows, at its tolerance."""


def read(path):
    with safe_open(path, framework="pt") as opened:
        about = json.loads(opened.metadata()["contraction_nets"])
        return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118


def keys_of(path):
    tensors, _ = read(path)
    return list(zip(tensors["epsilon"].tolist(), tensors["samples"].tolist(), strict=True))


def falsified(path, margin=0.0):
    """The rows that are falsified by more than a margin."""
    with open(path, encoding="utf-8") as stream:
        rows = [row for row in json.load(stream)["verdicts"] if row["status"] == "falsified"]
    return [(row["epsilon"], row["sample"]) for row in rows if row["margin"] < -margin]


def check_keys(found, out):
    """All that is falsified, but what equilibria to four digits may not show."""
    keys, rows = keys_of(found), falsified(out)
    assert keys == [row for row in rows if row in set(keys)]
    assert set(falsified(out, margin=VISIBLE)) <= set(keys)
    return keys


def check(path, run):
    """Everything that the file promises, from the file, the run and the data alone."""
    tensors, about = read(path)
    data, network = load_data("digits"), load_network(run).eval()
    assert set(tensors) == set(TENSORS)
    assert about["weights_sha256"] == ImplicitWeights.load(run).sha256
    assert (about["data"], about["domain"]) == ("digits", [0.0, 1.0])
    inputs, epsilon, samples, labels, found = (tensors[name] for name in TENSORS)
    assert inputs.dtype == data.test_inputs.dtype
    assert torch.equal(labels, data.test_targets[samples])
    assert ((inputs >= 0) & (inputs <= 1)).all()
    for v, u, radius in zip(inputs, data.test_inputs[samples], epsilon.tolist(), strict=True):
        for a, b in zip(v.tolist(), u.tolist(), strict=True):
            assert abs(Fraction(a) - Fraction(b)) <= Fraction(radius)
    with torch.no_grad():
        if len(inputs):
            assert torch.equal(network(inputs).argmax(dim=1), found)
        alone = [int(network(u[None]).argmax(dim=1)) for u in inputs]
    assert (found != labels).all()
    assert all(label != right for label, right in zip(alone, labels.tolist(), strict=True))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_falsified_sample_has_a_counterexample_that_holds(command, run, tmp_path, jobs):
    out, found = tmp_path / "verdicts.json", tmp_path / "found.safetensors"
    arguments = ("robustness", run, *ARGUMENTS, "--jobs", jobs, "--out", out)
    code, text, err = command(*arguments, "--counterexamples", found)
    assert code == 0, err
    check(found, run)
    keys, expected = check_keys(found, out), falsified(out)
    assert {epsilon for epsilon, _ in keys} == {0.02, 0.08}
    assert f"{len(keys)} of {len(expected)} in" in text
    results = json.loads(out.read_text())["results"]
    assert sum(result["falsified"] for result in results) == len(expected)
    assert [result["counterexamples"] for result in results] == [
        sum(epsilon == result["epsilon"] for epsilon, _ in keys) for result in results
    ]


def test_attacks_write_what_they_found(command, run, tmp_path):
    found = tmp_path / "found.safetensors"
    arguments = ("attack", run, *ARGUMENTS, "--steps", 5, "--json", "--counterexamples", found)
    code, text, err = command(*arguments)
    assert code == 0, err
    check(found, run)
    results = json.loads(text)["results"]
    lost = [round(40 * (1 - result["accuracy"])) for result in results]
    assert [result["counterexamples"] for result in results] == lost
    assert len(keys_of(found)) == sum(lost) > 0
    code, _, err = command(*arguments)
    assert code == 2
    assert "there already" in err


def test_a_file_without_counterexamples_is_a_file(command, run, tmp_path):
    found = tmp_path / "none.safetensors"
    arguments = ("--epsilon", 1e-6, "--samples", 1, "--counterexamples", found)
    for name in ("robustness", "attack"):
        code, text, err = command(name, run, *arguments)
        assert code == 0, err
        assert "counterexamples" in text
        check(found, run)
        assert read(found)[0]["inputs"].shape == (0, 64)
        found.unlink()


def test_a_killed_run_goes_on_with_its_counterexamples(command, run, tmp_path, monkeypatch):
    out, found = tmp_path / "verdicts.json", tmp_path / "found.safetensors"
    arguments = ("robustness", run, *ARGUMENTS, "--out", out, "--counterexamples", found)
    add, calls = verdicts.VerdictFile.add, []

    def interrupted(*values):
        calls.append(values)
        if len(calls) > 60:
            raise KeyboardInterrupt
        add(*values)

    with monkeypatch.context() as patch:
        patch.setattr(verdicts.VerdictFile, "add", interrupted)
        assert command(*arguments)[0] == 130
    check(found, run)
    part, tensors = check_keys(found, out), read(found)[0]
    assert command(*arguments, "--resume")[0] == 0
    check(found, run)
    check_keys(found, out)
    assert set(part) < set(keys_of(found))
    # What was there is there, to the bit.
    again, _ = read(found)
    rows = [keys_of(found).index(key) for key in part]
    assert torch.equal(again["inputs"][rows], tensors["inputs"])


def test_counterexamples_of_an_earlier_run_are_found_again(command, run, tmp_path):
    out, found = tmp_path / "verdicts.json", tmp_path / "found.safetensors"
    arguments = ("robustness", run, *ARGUMENTS, "--out", out)
    assert command(*arguments)[0] == 0
    expected = falsified(out)
    assert command(*arguments, "--resume", "--counterexamples", found)[0] == 0
    check(found, run)
    assert falsified(out) == expected
    keys = check_keys(found, out)
    # A part of the samples leaves the others in the file.
    part = ("--epsilon", "0.02", "--samples", 5, "--out", out, "--resume")
    assert command("robustness", run, *part, "--counterexamples", found)[0] == 0
    assert keys_of(found) == keys


def test_what_was_proved_stays_when_it_is_unknown_another_time(tmp_path):
    file = verdicts.VerdictFile(None, {}, dict)
    file.add(0.1, 3, {"label": 1, "input": "0"}, Verdict("falsified", "milp", -0.1, 1.0))
    file.add(0.1, 3, {"label": 1, "input": "0"}, Verdict("unknown", "lp", -0.2, 1.0, "time limit"))
    assert file.rows[0.1, 3]["status"] == "falsified"
    file.add(0.1, 4, {"label": 1, "input": "0"}, Verdict("unknown", "lp", -0.2, 1.0, "time limit"))
    file.add(
        0.1, 4, {"label": 1, "input": "0"}, Verdict("unknown", "milp", -0.1, 1.0, "time limit")
    )
    assert file.rows[0.1, 4]["rung"] == "milp"


def test_verdicts_that_a_counterexample_refutes_are_refused(command, run, tmp_path):
    out, found = tmp_path / "verdicts.json", tmp_path / "found.safetensors"
    arguments = ("robustness", run, *ARGUMENTS, "--out", out)
    assert command(*arguments, "--counterexamples", found)[0] == 0
    report = json.loads(out.read_text())
    small = {sample for epsilon, sample in keys_of(found) if epsilon == 0.02}
    for row in report["verdicts"]:  # at the larger radius alone
        if row["epsilon"] == 0.08 and row["sample"] in small:
            row |= {"status": "certified", "margin": 1.0}
    out.write_text(json.dumps(report))
    for more in ((), ("--counterexamples", found)):
        code, _, err = command(*arguments, "--resume", *more)
        assert code == 2
        assert "certified at ε = 0.08 and falsified at ε = 0.02" in err
    report["verdicts"] = [row for row in report["verdicts"] if row["status"] == "certified"]
    out.write_text(json.dumps(report))
    part = ("--epsilon", "0.08", "--samples", 1, "--out", out, "--resume")
    assert command("robustness", run, *part, "--counterexamples", found)[0] == 2


def test_what_only_a_loose_forward_pass_finds_refutes_nothing(tmp_path):
    network, tested = toy([0.5, 0.4], 1)
    file = CounterexampleFile(tmp_path / "toy.safetensors", network, tested, (0.0, 1.0), "0")
    proved = verdicts.VerdictFile(None, {}, dict, file)
    proved.add(0.2, 0, {"label": 1, "input": "0"}, Verdict("certified", "lp", 1e-9, 1.0))
    file.rows[0.1, 0] = torch.tensor([0.45, 0.4]), 1  # as if its equilibrium had been far off
    proved.check()
    file.rows[0.1, 0] = torch.tensor([0.45, 0.5]), 1
    with pytest.raises(ValueError, match="sample 0 is certified"):
        proved.check()


def test_those_of_attacks_are_taken_over(command, run, tmp_path):
    out, found = tmp_path / "verdicts.csv", tmp_path / "found.safetensors"
    arguments = (run, *ARGUMENTS, "--counterexamples", found)
    assert command("attack", *arguments, "--steps", 5)[0] == 0
    more = ("--method", "interval", "--out", out, "--resume", "--json")
    code, text, err = command("robustness", *arguments, *more)
    assert code == 0, err
    check(found, run)
    results = json.loads(text)["results"]
    # Intervals falsify what is lost as it is, and leave open what the attack found.
    falsified = [result["falsified"] for result in results]
    assert [result["counterexamples"] for result in results] == falsified
    assert sum(falsified) < len(keys_of(found))


DAMAGE = {
    "a tensor less": lambda t: t.pop("found"),
    "half": lambda t: t.update(inputs=t["inputs"].half()),
    "shorter": lambda t: t.update(labels=t["labels"][1:]),
    "twice": lambda t: t.update(samples=t["samples"] * 0, epsilon=t["epsilon"] * 0),
    "out of reach": lambda t: t["inputs"][0].fill_(0.5),
    "just out of reach": lambda t: t["epsilon"].mul_(0.5),
    "NaN": lambda t: t["inputs"][0].fill_(torch.nan),
    "a radius that is none": lambda t: t["epsilon"].fill_(torch.inf),
    "a radius that is none, of a sample not asked for": lambda t: (
        t["epsilon"][-1].fill_(torch.nan),
        t["samples"][-1].fill_(300),
    ),
    "a negative sample": lambda t: t["samples"].fill_(-1),
    "another label": lambda t: t["labels"].copy_((t["labels"] + 1) % 10),
    "another sample": lambda t: t["samples"].copy_(t["samples"].flip(0)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(command, run, tmp_path, damage):
    out, found = tmp_path / "verdicts.csv", tmp_path / "found.safetensors"
    arguments = ("robustness", run, "--epsilon", 0.1, "--samples", 12, "--method", "lp")
    arguments += ("--time-limit", 1e-9, "--out", out, "--counterexamples", found)
    assert command(*arguments)[0] == 0
    tensors, about = read(found)
    assert len(tensors["samples"]) > 2
    DAMAGE[damage](tensors)
    save_file(tensors, found, {"contraction_nets": json.dumps(about)})
    before = found.read_bytes(), out.read_bytes()
    code, _, err = command(*arguments, "--resume")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected" in err
    assert (found.read_bytes(), out.read_bytes()) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"half a file"),
        lambda path: path.mkdir(),
        lambda path: save_file({"inputs": torch.zeros(1, 64)}, path),
        lambda path: save_file({}, path, {"contraction_nets": json.dumps({"version": 1})}),
    ],
)
def test_other_files_are_refused(command, run, tmp_path, write):
    out, found = tmp_path / "verdicts.csv", tmp_path / "found.safetensors"
    write(found)
    arguments = ("robustness", run, "--epsilon", 0.1, "--samples", 2, "--out", out)
    for more in ((), ("--resume",)):
        code, _, err = command(*arguments, *more, "--counterexamples", found)
        assert (code, err.count("\n")) == (2, 1)
        assert "expected" in err
        assert not out.exists()


@pytest.mark.parametrize("name", ["found.pt", "nowhere/found.safetensors"])
@pytest.mark.parametrize("kind", ["robustness", "attack"])
def test_bad_paths_are_refused(command, run, tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    code, text, err = command(kind, run, "--epsilon", 0.1, "--counterexamples", name)
    assert (code, text, err.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["robustness", "attack"])
def test_one_file_cannot_be_both(command, run, tmp_path, kind):
    out, found = tmp_path / "verdicts.csv", tmp_path / "found.safetensors"
    out.symlink_to(found)
    arguments = (kind, run, "--epsilon", 0.1, "--samples", 2, "--out", out)
    code, _, err = command(*arguments, "--counterexamples", found)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected another file" in err
    assert not found.exists()


def toy(u, label, domain=(0.0, 1.0)):
    """A network of which the label is 1 where the first input is larger than the second."""
    network = ImplicitNetwork(2, 2, 2, tol=1e-6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layer.B.copy_(torch.eye(2))
        network.C.copy_(torch.eye(2).flip(0))
    tested = Samples("toy", torch.tensor([u]), torch.tensor([label]), domain)
    return network.eval(), tested


units = st.floats(0.0, 1.0, width=32)


@settings(deadline=None, max_examples=60)
@given(u=st.tuples(units, units), epsilon=st.floats(0.0, 0.5))
def test_points_on_the_edge_are_stored_within_reach(tmp_path_factory, u, epsilon):
    network, tested = toy(list(u), 0)
    edge = np.array([min(u[0] + epsilon, 1.0), max(u[1] - epsilon, 0.0)])  # rounded anyhow
    file = CounterexampleFile(
        tmp_path_factory.getbasetemp() / "toy.safetensors", network, tested, (0.0, 1.0), "0"
    )
    file.add(epsilon, 0, edge)
    file.save()
    inputs = read(file.path)[0]["inputs"]
    stored = tested.inputs[0].double().numpy()
    # The label is lost if and only if the first number is larger, and then it is written.
    if edge[0] > edge[1] + 1e-6:
        assert len(inputs) == 1
    if stored[0] + epsilon < stored[1] - epsilon - 1e-6:
        assert len(inputs) == 0
    for row in inputs.tolist():
        assert row[0] > row[1]
        for a, b in zip(row, stored.tolist(), strict=True):
            assert 0 <= a <= 1
            assert abs(Fraction(a) - Fraction(b)) <= Fraction(epsilon)


def test_what_only_holds_alone_is_left_out(tmp_path, monkeypatch):
    network, tested = toy([0.5, 0.4], 0)
    file = CounterexampleFile(tmp_path / "toy.safetensors", network, tested, (0.0, 1.0), "0")
    file.add(0.1, 0, np.array([0.55, 0.4]))
    file.add(0.2, 0, np.array([0.55, 0.4]))
    assert len(file.rows) == 2
    found = CounterexampleFile._found

    def loose(self, inputs):
        """In a batch of two the first keeps its label."""
        labels = found(self, inputs)
        return labels if len(inputs) < 2 else labels * torch.tensor([0, 1])

    monkeypatch.setattr(CounterexampleFile, "_found", loose)
    file.save()
    assert keys_of(file.path) == [(0.2, 0)]
    assert (file.count(0.1, 1), file.count(0.2, 1)) == (0, 1)
