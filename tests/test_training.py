"""Training: it learns inside the set, certifies, and resumes to the same bits."""

import json

import pytest
import torch

from contraction_nets import (
    ContractionNetsError,
    ImplicitNetwork,
    ImplicitWeights,
    SolverError,
    contracting,
    fit,
)
from contraction_nets.certificates.document import verify_document
from contraction_nets.training import checkpoint as files
from contraction_nets.training.checkpoint import CHECKPOINT, load_network, save_network
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.loop import evaluate

FIELDS = {
    "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "mu_inf", "gamma",
    "lipschitz_bound", "norm_product_bound", "rows_projected", "seconds_gradient",
    "seconds_projection", "iterations_forward", "iterations_backward", "projection_audit",
}  # fmt: skip


def digits_network(hidden=20, **options):
    torch.manual_seed(0)
    return ImplicitNetwork(64, hidden, 10, **options)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_digits_are_learnt_inside_the_set_and_certified():
    network = digits_network(40)
    result = fit(network, load_data("digits"), epochs=12, learning_rate=1e-2, lipschitz_weight=1e-3)
    last = result.metrics[-1]
    assert last["test_accuracy"] >= 0.95
    assert last["lipschitz_bound"] <= 120
    assert last["norm_product_bound"] > last["lipschitz_bound"]
    assert result.certificate.verify()
    assert network.layer.constraint().contains(network.layer.A.detach().numpy())
    assert [set(metrics) for metrics in result.metrics] == [FIELDS] * 12
    assert max(metrics["mu_inf"] for metrics in result.metrics) <= 0.95 + 1e-12
    assert sum(metrics["rows_projected"] for metrics in result.metrics) > 0
    assert max(metrics["projection_audit"] for metrics in result.metrics) <= 1e-9
    assert evaluate(network, *held_out()) == (last["test_loss"], last["test_accuracy"])


def held_out():
    data = load_data("digits")
    return data.test_inputs, data.test_targets


@pytest.mark.parametrize("solver", ["cvxpy", "clarabel", "osqp"])
def test_every_projection_trains_to_the_same_network(solver):
    networks = [digits_network(10) for _ in range(2)]
    for network, projection in zip(networks, ("closed_form", solver), strict=True):
        fit(network, small(), epochs=2, projection=projection, learning_rate=1e-2, audit=False)
    difference = (networks[0].layer.A - networks[1].layer.A).abs().max().item()
    assert difference <= 1e-4  # float32, two epochs of rounding


def small():
    data = load_data("digits")
    return Dataset("digits", data.train_inputs[:200], data.train_targets[:200], *held_out())


def test_the_penalty_lowers_the_bound():
    bounds = []
    for weight in (0.0, 1e-3, 1e-2):
        result = fit(digits_network(), small(), epochs=30, lipschitz_weight=weight, audit=False)
        bounds.append(result.certificate.bound)
    assert bounds[0] > 1.5 * bounds[1] > 3 * bounds[2]


@pytest.mark.parametrize("name", ["function", "function2d"])
def test_functions_are_estimated(name):
    data = load_data(name)
    torch.manual_seed(0)
    network = ImplicitNetwork(data.in_features, 40, 1)
    before, _ = evaluate(network, data.test_inputs, data.test_targets)
    result = fit(network, data, epochs=40, learning_rate=1e-2, audit=False)
    last = result.metrics[-1]
    assert last["test_accuracy"] is None
    assert last["test_loss"] < 0.1 * before
    assert result.certificate.verify()


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    class Killed(Exception):
        pass

    def stop(metrics):
        if metrics["epoch"] == 2:
            raise Killed

    options = {"epochs": 4, "lipschitz_weight": 1e-3, "seed": 3}
    whole = digits_network()
    expected = fit(whole, small(), run=tmp_path / "whole", **options)
    with pytest.raises(Killed):
        fit(digits_network(), small(), run=tmp_path / "parts", on_epoch=stop, **options)
    torch.manual_seed(99)
    resumed = ImplicitNetwork(64, 20, 10)
    result = fit(resumed, small(), run=tmp_path / "parts", resume=True, **options)
    assert same(weights(whole), weights(resumed))
    assert len(result.metrics) == 4
    for left, right in zip(expected.metrics, result.metrics, strict=True):
        for key in FIELDS - {"seconds_gradient", "seconds_projection"}:
            assert left[key] == right[key], key
    models = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert models[0] == models[1]
    again = fit(resumed, small(), run=tmp_path / "parts", resume=True, **options)
    assert len(again.metrics) == 4


def test_killed_in_the_middle_of_an_epoch_resumes_from_the_one_before(tmp_path):
    class Killed(Exception):
        pass

    def stop(epoch, done, steps):
        if (epoch, done) == (2, 3):
            raise Killed

    options = {"epochs": 3, "audit": False}
    whole = digits_network()
    fit(whole, small(), **options)
    with pytest.raises(Killed):
        fit(digits_network(), small(), run=tmp_path / "run", on_step=stop, **options)
    resumed = digits_network()
    fit(resumed, small(), run=tmp_path / "run", resume=True, **options)
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("name", ["save_network", "write_metrics", "save_checkpoint"])
def test_killed_between_two_files_goes_on(tmp_path, monkeypatch, epoch, name):
    class Killed(Exception):
        pass

    options = {"epochs": 2, "audit": False}
    whole = digits_network()
    fit(whole, small(), run=tmp_path / "whole", **options)
    written, calls = getattr(files, name), []

    def kill(*arguments):
        calls.append(arguments)
        if len(calls) == epoch:
            raise Killed
        written(*arguments)

    monkeypatch.setattr(files, name, kill)
    with pytest.raises(Killed):
        fit(digits_network(), small(), run=tmp_path / "run", **options)
    monkeypatch.undo()
    resume = (tmp_path / "run" / CHECKPOINT).exists()
    fit(digits_network(), small(), run=tmp_path / "run", resume=resume, **options)
    for file in ("model.safetensors", "certificate.json"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_run_folder(tmp_path):
    run = tmp_path / "läuft"
    network = digits_network()
    seen = []
    result = fit(network, small(), epochs=2, run=run, on_epoch=seen.append)
    names = {"model.safetensors", "metrics.jsonl", "certificate.json", "config.json", "checkpoint"}
    assert {path.name for path in run.iterdir()} == names
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.metrics == seen
    stored = ImplicitWeights.load(run)
    assert stored.sha256 == result.certificate.weights.sha256
    assert verify_document(run / "certificate.json", stored)
    again = load_network(run)
    u = torch.rand(5, 64)
    assert torch.equal(again(u), network(u))
    assert json.loads((run / "config.json").read_text())["network"]["hidden_features"] == 20


def test_runs_are_not_overwritten_or_mixed(tmp_path):
    fit(digits_network(), small(), epochs=1, run=tmp_path, audit=False)
    with pytest.raises(FileExistsError, match="resume"):
        fit(digits_network(), small(), epochs=1, run=tmp_path)
    with pytest.raises(ValueError, match="learning_rate"):
        fit(digits_network(), small(), epochs=1, run=tmp_path, resume=True, learning_rate=1.0)
    with pytest.raises(ValueError, match="network"):
        fit(digits_network(21), small(), epochs=1, run=tmp_path, resume=True)
    with pytest.raises(FileNotFoundError, match="no config"):
        fit(digits_network(), small(), epochs=1, run=tmp_path / "new", resume=True)
    with pytest.raises(ValueError, match="without a run"):
        fit(digits_network(), small(), epochs=1, resume=True)
    (tmp_path / "checkpoint" / "latest.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match="cannot be resumed"):
        fit(digits_network(), small(), epochs=1, run=tmp_path, resume=True)


@pytest.mark.parametrize(
    "arguments",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"lipschitz_weight": float("nan")},
     {"projection": "simplex"}],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        fit(digits_network(), small(), **arguments)


@pytest.mark.filterwarnings("ignore::contraction_nets.ConvergenceWarning")
def test_a_diverging_run_ends_with_a_sentence():
    data = small()
    data.train_inputs[3, 3] = torch.nan
    with pytest.raises(ContractionNetsError, match="loss became nan, expected"):
        fit(digits_network(), data, epochs=1)


@pytest.mark.filterwarnings("ignore::contraction_nets.ConvergenceWarning")
def test_a_run_that_ended_in_its_first_epoch_is_started_again(tmp_path):
    good, bad = small(), small()
    bad.train_inputs[3, 3] = torch.nan
    with pytest.raises(ContractionNetsError, match="loss became nan"):
        fit(digits_network(), bad, epochs=1, run=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(FileNotFoundError, match="start without resuming"):
        fit(digits_network(), bad, epochs=1, run=tmp_path, resume=True)
    fit(digits_network(), good, epochs=1, learning_rate=1e-3, run=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["learning_rate"] == 1e-3
    # Without its checkpoint and configuration it is a trained network still.
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / "config.json").unlink()
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        fit(digits_network(), good, epochs=1, run=tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_an_audit_that_fails_is_left_out(monkeypatch):
    def refuse(point, constraint, *, solver="closed_form"):
        if solver == "cvxpy":
            raise SolverError("ended with status 'infeasible'")
        return point

    monkeypatch.setattr("contraction_nets.training.loop.project_onto", refuse)
    result = fit(digits_network(), small(), epochs=1)
    assert result.metrics[0]["projection_audit"] is None


def test_parametrized_networks_are_trained_and_stored(tmp_path):
    network = digits_network()
    contracting(network.layer)
    result = fit(network, small(), epochs=2, run=tmp_path / "run")
    assert result.metrics[-1]["rows_projected"] == 0
    assert result.metrics[-1]["mu_inf"] <= 0.95
    again = load_network(tmp_path / "run")
    assert torch.equal(again.layer.A, network.layer.A)


def test_networks_are_stored_whole_or_refused(tmp_path):
    torch.manual_seed(0)
    network = ImplicitNetwork(
        3, 5, 2, feedthrough=True, activation="leaky_relu(0.2)", gamma=0.5,
        eta=[1, 2, 3, 4, 5], dtype=torch.float64,
    )  # fmt: skip
    path = tmp_path / "net.safetensors"
    save_network(network, path)
    again = load_network(path)
    assert same(weights(network), weights(again))
    assert again.config == network.config
    u = torch.rand(4, 3, dtype=torch.float64)
    assert torch.equal(again(u), network(u))
    ImplicitWeights.from_module(network).save(tmp_path / "plain.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    for bad in (path, tmp_path / "plain.safetensors"):
        with pytest.raises(ValueError, match="cannot be read as a trained network"):
            load_network(bad)
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "none.safetensors")


def test_a_network_that_cannot_be_certified_is_refused_before_training(tmp_path):
    network = digits_network()
    network.register_forward_hook(lambda module, inputs, output: 2 * output)
    before = weights(network)
    with pytest.raises(ValueError, match="of its own"):
        fit(network, load_data("digits"), epochs=1, run=tmp_path / "run")
    assert same(before, weights(network))
    assert not (tmp_path / "run").exists()
