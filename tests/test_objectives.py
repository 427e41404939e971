"""Objectives: what they minimize, what they record, and that a killed run resumes to the bit."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from contraction_nets import ImplicitNetwork, fit, interval_margins
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.global_margin import GlobalMargin
from contraction_nets.training.interval_loss import IntervalLoss
from contraction_nets.training.methods import METHODS, certified_objective
from contraction_nets.training.objectives import Loss, Objective, PlainLoss, loss_function
from contraction_nets.training.small_boxes import SmallBoxes


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


OBJECTIVES = [
    PlainLoss(),
    Noted((0.5, 1.0)),
    IntervalLoss(0.05, tail_epsilon=0.1, tail_share=0.1),
    SmallBoxes(0.05, steps=2),
]
CERTIFIED = [IntervalLoss(0.06), SmallBoxes(0.06, fraction=0.8, steps=3)]


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


def interval_certified(network, data, epsilon):
    u, y = data.test_inputs, data.test_targets
    with torch.no_grad():
        margins = interval_margins(network, (u - epsilon).clamp(0, 1), (u + epsilon).clamp(0, 1), y)
    return float((margins.scatter(1, y[:, None], torch.inf) > 0).all(dim=1).float().mean())


@pytest.mark.parametrize("objective", CERTIFIED, ids=lambda o: o.name)
def test_certified_training_raises_certified_accuracy(objective):
    data, networks = load_data("digits"), [digits_network(30) for _ in range(2)]
    for network, chosen in zip(networks, (None, objective), strict=True):
        options = {"epochs": 10, "learning_rate": 1e-2, "audit": False}
        result = fit(network, data, objective=chosen, **options)
    plain, certified = (interval_certified(network, data, 0.06) for network in networks)
    last = result.metrics[-1]
    assert certified > 0.6 > plain + 0.3
    assert last["test_accuracy"] > 0.93
    assert last["interval_accuracy"] > 0.6
    for metrics in result.metrics:
        assert metrics["interval_accuracy"] <= metrics["train_accuracy"]


def test_the_schedule_of_the_interval_loss():
    network, data = digits_network(), digits(64)
    u, y = data.train_inputs, data.train_targets
    objective = IntervalLoss(0.1, clean_weight=0.25, ramp=0.5)

    def worst(epsilon):
        lower, upper = (u - epsilon).clamp(0, 1), (u + epsilon).clamp(0, 1)
        return loss_function(-interval_margins(network, lower, upper, y), y)

    def value(chosen, progress):
        return chosen.loss(network, u, y, progress).value

    plain = loss_function(network(u), y)
    for progress, kappa, epsilon in ((0.0, 1, 0), (0.25, 0.625, 0.05), (0.5, 0.25, 0.1)):
        expected = kappa * plain + (1 - kappa) * worst(epsilon)
        torch.testing.assert_close(value(objective, progress), expected)
    assert value(objective, 0.5) == value(objective, 0.9)
    assert worst(0.1) > worst(0.05) > plain
    # A radius of nothing is no robustness, and a quarter of 64 samples are 16.
    torch.testing.assert_close(value(IntervalLoss(0.0, ramp=0.0), 0.0), plain)
    tailed = IntervalLoss(0.1, clean_weight=0.0, ramp=0.0, tail_epsilon=0.2, tail_share=0.25)
    epsilon = torch.tensor([0.2] * 16 + [0.1] * 48)[:, None]
    torch.testing.assert_close(value(tailed, 0.0), worst(epsilon))
    outside = IntervalLoss(0.1, ramp=0.0, clean_weight=0.0, domain=None)
    assert value(outside, 0.0) > worst(0.1)


def test_small_boxes_are_a_part_of_the_ball_that_grows():
    network, data = digits_network(), digits(64)
    u, y = data.train_inputs, data.train_targets
    ball = IntervalLoss(0.1, clean_weight=0.0, ramp=0.0).loss(network, u, y, 0.0).value
    values = []
    for fraction in (0.0, 0.3, 0.6):
        boxes = SmallBoxes(0.1, fraction=fraction, clean_weight=0.0, ramp=0.0)
        values.append(boxes.loss(network, u, y, 0.0).value)
    assert loss_function(network(u), y) < values[0] < values[1] < values[2] < ball
    # The whole ball is one box around the input itself.
    whole = SmallBoxes(0.1, fraction=1.0, clean_weight=0.0, ramp=0.0)
    torch.testing.assert_close(whole.loss(network, u, y, 0.0).value, ball)
    # At the start there is neither attack nor box.
    start = SmallBoxes(0.1).loss(network, u, y, 0.0).value
    torch.testing.assert_close(start, loss_function(network(u), y))


@pytest.mark.parametrize("objective", CERTIFIED, ids=lambda o: o.name)
def test_functions_have_no_labels_to_certify(objective):
    with pytest.raises(ValueError, match="expected class numbers"):
        fit(ImplicitNetwork(1, 5, 1), load_data("function"), epochs=1, objective=objective)


@pytest.mark.parametrize(
    "options",
    [{"epsilon": -0.1}, {"epsilon": float("nan")}, {"clean_weight": 1.5}, {"ramp": -1},
     {"tail_share": 2}, {"tail_epsilon": float("inf")}, {"domain": (1.0, 0.0)}],
)  # fmt: skip
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        IntervalLoss(**{"epsilon": 0.1, **options})
    if not options.keys() & {"tail_share", "tail_epsilon"}:
        with pytest.raises(ValueError, match="expected"):
            SmallBoxes(**{"epsilon": 0.1, **options})


@pytest.mark.parametrize("options", [{"fraction": 1.1}, {"fraction": -0.1}, {"steps": 0}])
def test_options_of_small_boxes_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        SmallBoxes(0.1, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: IntervalLoss("0.1"),
        lambda: IntervalLoss(None),
        lambda: IntervalLoss(0.1, ramp="0.3"),
        lambda: IntervalLoss(0.1, clean_weight=True),
        lambda: IntervalLoss(0.1, domain="01"),
        lambda: SmallBoxes([0.1]),
        lambda: SmallBoxes(0.1, steps=2.5),
        lambda: SmallBoxes(0.1, steps="3"),
        lambda: GlobalMargin("0.1"),
        lambda: GlobalMargin(0.1, power=1j),
        lambda: fit(digits_network(), digits(), objective="interval"),
        lambda: fit(digits_network(), digits(), objective=IntervalLoss),
        lambda: fit(digits_network(), digits(), epochs="3"),
        lambda: fit(digits_network(), digits(), learning_rate="1e-3"),
        lambda: fit(digits_network(), digits(), lipschitz_budget="3"),
        lambda: fit(digits_network(), digits(), seed=1.5),
        lambda: ImplicitNetwork(64, "12", 10),
        lambda: digits_network(gamma="0.9"),
        lambda: digits_network(tol="1e-3"),
    ],
)
def test_other_types_are_refused_in_one_sentence(make):
    with pytest.raises(ValueError, match=r"^got .*, expected .*"):
        make()


def test_options_from_numpy_are_written_as_numbers():
    objective = IntervalLoss(np.float32(0.25), domain=(np.float64(0.0), np.float64(1.0)))
    assert objective.config() == IntervalLoss(0.25).config()


def test_methods_by_name():
    assert certified_objective("interval", 0.1, None) == IntervalLoss(0.1, domain=None)
    assert certified_objective("small_boxes", 0.1, (0.0, 1.0)) == SmallBoxes(0.1)
    for method, make in METHODS.items():
        assert make(0.1, None).name == method
        assert certified_objective(method, 0.0, None) is None
    with pytest.raises(ValueError, match="expected one of interval"):
        certified_objective("intervals", 0.1, None)
    with pytest.raises(ValueError, match="certified epsilon"):
        certified_objective("interval", -0.1, None)


def test_certified_training_by_the_command_line(command, tmp_path):
    run = tmp_path / "run"
    options = ("--hidden", 10, "--epochs", 2, "--out", run, "--certified-epsilon", 0.02)
    code, text, err = command("train", *options, "--json")
    assert code == 0
    assert json.loads(text)["well_posed"] is True
    recorded = json.loads((run / "config.json").read_text())["objective"]
    assert recorded == IntervalLoss(0.02).config()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["interval_accuracy"] <= last["train_accuracy"]
    assert command("train", *options, "--resume")[0] == 0
    for bad in (("--certified-method", "boxes"), ("--certified-epsilon", -1)):
        code, text, err = command("train", *options, "--resume", *bad)
        assert (code, text) == (2, "")
        assert err.startswith("error: got")
        assert err.count("\n") == 1


def test_a_radius_beyond_the_dtype_is_the_whole_domain():
    torch.manual_seed(0)
    network, u, y = ImplicitNetwork(3, 5, 3), torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
    whole, beyond = (
        IntervalLoss(epsilon, tail_epsilon=epsilon, tail_share=0.5).loss(network, u, y, 0.9)
        for epsilon in (2.0, 1e300)
    )
    assert torch.equal(whole.value, beyond.value)
