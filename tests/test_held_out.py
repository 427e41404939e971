"""What commands read from a RUN folder, and how far they say they are."""

import json

import pytest
import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.cli.held_out import held_out, trained
from contraction_nets.cli.progress import ProgressBar
from contraction_nets.training.checkpoint import CONFIG, MODEL
from contraction_nets.training.data import Dataset, load_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = ImplicitNetwork(64, 5, 10, dtype=torch.float64)
    data = load_data("digits", seed=3)
    inputs = data.train_inputs.double(), data.test_inputs.double()
    data = Dataset("digits", inputs[0], data.train_targets, inputs[1], data.test_targets)
    fit(network, data, epochs=1, batch_size=500, audit=False, seed=3, run=folder)
    return folder


def test_the_test_set_is_the_one_that_training_held_out(run):
    network = trained(run)
    assert not network.training
    samples, expected = held_out(run, network), load_data("digits", seed=3)
    assert torch.equal(samples.inputs, expected.test_inputs.double())
    assert torch.equal(samples.labels, expected.test_targets)
    assert (samples.name, samples.domain, len(samples)) == ("digits", (0.0, 1.0), 360)
    assert not torch.equal(samples.labels, load_data("digits", seed=0).test_targets)
    first = held_out(run, network, samples=7)
    assert torch.equal(first.inputs, samples.inputs[:7])
    assert len(held_out(run, network, samples=10**6)) == 360
    network(first.inputs)


def test_only_pixels_have_a_domain():
    assert load_data("function").domain is load_data("function2d").domain is None
    assert load_data("digits").domain == (0.0, 1.0)


def test_what_is_no_run_is_refused(run, tmp_path):
    network = trained(run)
    with pytest.raises(FileNotFoundError, match="expected that of a run"):
        trained(tmp_path / "none")
    with pytest.raises(ValueError, match="expected the folder of a run"):
        trained(run / MODEL)
    with pytest.raises(FileNotFoundError, match="expected a trained network"):
        trained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no config"):
        held_out(tmp_path, network)
    for config, reason in [
        ({}, "names no data set"),
        ({"data": 3}, "names no data set"),
        ({"data": "digits", "seed": "0"}, "names no data set"),
        ({"data": "cifar"}, "expected one of"),
        ({"data": "function"}, "expected a classifier"),
    ]:
        (tmp_path / CONFIG).write_text(json.dumps(config))
        with pytest.raises(ValueError, match=reason):
            held_out(tmp_path, network)
    for network in (ImplicitNetwork(65, 5, 10), ImplicitNetwork(64, 5, 9)):
        with pytest.raises(ValueError, match="expected the same"):
            held_out(run, network)
    with pytest.raises(ValueError, match="at least 1"):
        held_out(run, network, samples=0)


def test_the_bar_is_on_stderr_and_only_when_something_is_done(capsys):
    with ProgressBar():
        pass
    assert capsys.readouterr() == ("", "")
    with ProgressBar() as bar:
        bar.update("epoch [1/2]", 1, 2)
        bar.say("accuracy [97 %] :smile:")
    out, err = capsys.readouterr()
    assert out == ""
    assert "accuracy [97 %] :smile:" in err
    assert "epoch [1/2]" in err
    assert "50 %" in err
