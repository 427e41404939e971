"""Objectives: what they minimize, what they record, and that a killed run resumes to the bit."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.objectives import Loss, Objective, PlainLoss


def digits_network(hidden=12, **options):
    torch.manual_seed(0)
    return ImplicitNetwork(64, hidden, 10, **options)


def digits(count=120):
    data = load_data("digits")
    train = data.train_inputs[:count], data.train_targets[:count]
    return Dataset("digits", *train, data.test_inputs[:100], data.test_targets[:100])


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@dataclass(frozen=True)
class Noted(Objective):
    """Plain, with its progress as a metric and a random number in the loss."""

    shift: tuple[float, float] = (0.0, 1.0)
    name: ClassVar[str] = "noted"

    def loss(self, module, u, y, progress):
        plain = PlainLoss().loss(module, u, y, progress)
        low, high = self.shift
        value = plain.value * (low + (high - low) * torch.rand(()))
        return Loss(value, plain.output, {"progress": torch.tensor(progress), "first": y[0] * 0})


OBJECTIVES = [PlainLoss(), Noted((0.5, 1.0))]


def test_the_default_is_the_plain_loss():
    networks = [digits_network() for _ in range(2)]
    for network, objective in zip(networks, (None, PlainLoss()), strict=True):
        fit(network, digits(), epochs=2, objective=objective, audit=False)
    assert same(*networks)


def test_metrics_are_means_over_samples_and_progress_is_the_share_of_steps():
    # 120 samples in batches of 50 are 3 steps, the last of 20 samples; 2 epochs are 6 steps.
    result = fit(digits_network(), digits(), epochs=2, objective=Noted(), audit=False)
    first, second = (metrics["progress"] for metrics in result.metrics)
    assert first == pytest.approx((50 * 0 + 50 * 1 / 6 + 20 * 2 / 6) / 120)
    assert second == pytest.approx((50 * 3 / 6 + 50 * 4 / 6 + 20 * 5 / 6) / 120)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, objective):
    class Killed(Exception):
        pass

    def stop(epoch, done, steps):
        if (epoch, done) == (3, 2):
            raise Killed

    options = {"epochs": 4, "objective": objective, "audit": False, "seed": 5}
    whole, resumed = digits_network(), digits_network()
    expected = fit(whole, digits(), **options)
    torch.manual_seed(0)
    with pytest.raises(Killed):
        fit(digits_network(), digits(), run=tmp_path / "run", on_step=stop, **options)
    torch.manual_seed(99)
    result = fit(resumed, digits(), run=tmp_path / "run", resume=True, **options)
    assert same(whole, resumed)
    clocks = {"seconds_gradient", "seconds_projection"}
    for left, right in zip(expected.metrics, result.metrics, strict=True):
        assert {k: v for k, v in left.items() if k not in clocks} == {
            k: v for k, v in right.items() if k not in clocks
        }


def test_a_run_is_resumed_with_its_own_objective_only(tmp_path):
    options = {"epochs": 1, "run": tmp_path, "audit": False}
    fit(digits_network(), digits(), objective=Noted(), **options)
    recorded = json.loads((tmp_path / "config.json").read_text())["objective"]
    assert recorded == {"name": "noted", "shift": [0.0, 1.0]}
    fit(digits_network(), digits(), objective=Noted(), resume=True, **options)
    for other in (Noted((0.0, 2.0)), PlainLoss(), None):
        with pytest.raises(ValueError, match=r"objective = .*resume with the arguments"):
            fit(digits_network(), digits(), objective=other, resume=True, **options)


def test_a_run_from_before_objectives_counts_as_plain(tmp_path):
    options = {"epochs": 1, "run": tmp_path, "audit": False}
    fit(digits_network(), digits(), **options)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("objective") == {"name": "plain"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="objective"):
        fit(digits_network(), digits(), objective=Noted(), resume=True, **options)
    fit(digits_network(), digits(), resume=True, **options)
