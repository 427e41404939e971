"""No attack breaks what is certified: every kind of trained network, every rung, every attack."""

import numpy as np
import pytest
import torch

from contraction_nets import (
    ImplicitNetwork,
    ImplicitWeights,
    attack,
    certified_radii,
    contracting,
    fit,
    verify_robustness,
)
from contraction_nets.robustness.attacks import Fgsm, Inversion, Noise, Pgd
from contraction_nets.robustness.attacks.ball import ball
from contraction_nets.robustness.intervals import interval_margins
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.global_margin import GlobalMargin
from contraction_nets.training.interval_loss import IntervalLoss
from contraction_nets.training.small_boxes import SmallBoxes

RADII = (0.01, 0.04)
ATTACKS = (Fgsm(), Inversion(), Noise(), Pgd(steps=10))
ETA = np.linspace(1, 2, 16)

KINDS = {
    "plain": ({}, {}),
    "penalty": ({}, {"lipschitz_weight": 1e-2}),
    "contracting": ({"contracting": True}, {"lipschitz_weight": 1e-2}),
    "interval loss": ({}, {"objective": IntervalLoss(0.05)}),
    "small boxes": ({}, {"objective": SmallBoxes(0.05)}),
    "global margin": ({}, {"objective": GlobalMargin(0.02)}),
    "budget": ({}, {"lipschitz_budget": 20.0}),
    "budget, global margin": (
        {}, {"lipschitz_budget": 10.0, "objective": GlobalMargin(0.02)},
    ),
    "leaky relu": ({"activation": "leaky_relu(0.2)"}, {"lipschitz_weight": 1e-2}),
    "tanh": ({"activation": "tanh"}, {"lipschitz_weight": 1e-2}),
    "softplus, interval loss": ({"activation": "softplus"}, {"objective": IntervalLoss(0.05)}),
    "feedthrough": ({"feedthrough": True}, {"objective": IntervalLoss(0.05)}),
    "float64": ({"dtype": torch.float64}, {"lipschitz_weight": 1e-2}),
    "weights, negative γ": ({"eta": ETA, "gamma": -0.5}, {"lipschitz_weight": 1e-2}),
    "another iteration": ({"iteration": "anderson(4)"}, {"objective": IntervalLoss(0.05)}),
}  # fmt: skip


def trained(kind):
    """A network of the kind as it is stored, to be run to ten digits, and samples for it."""
    (made, options), data = KINDS[kind], load_data("digits")
    options, made = dict(options), dict(made)
    parametrized = made.pop("contracting", False)
    dtype = made.get("dtype", torch.float32)
    torch.manual_seed(0)
    network = ImplicitNetwork(64, 16, 10, **made)
    if parametrized:
        contracting(network.layer)
    small = Dataset(
        "digits", data.train_inputs[:500].to(dtype), data.train_targets[:500],
        data.test_inputs[:40].to(dtype), data.test_targets[:40],
    )  # fmt: skip
    fit(network, small, epochs=6, learning_rate=3e-2, batch_size=50, audit=False, **options)
    exact = ImplicitWeights.from_module(network).to_module().double()
    exact.layer.tol = exact.layer.backward_tol = 1e-10
    return exact, small.test_inputs.double(), small.test_targets


def certified(network, x, y, epsilon):
    """Rung → which samples it certifies at ε, each a mask (m,)."""
    weights = ImplicitWeights.from_module(network)
    radii = certified_radii(weights, x.numpy())
    right = torch.from_numpy(radii.labels) == y
    margins = interval_margins(network, *ball(x, epsilon, (0.0, 1.0)), y)
    margins = margins.scatter(1, y[:, None], torch.inf).amin(dim=1).detach()
    verdicts = verify_robustness(weights, x.numpy(), y.numpy(), epsilon, time_limit=5.0).verdicts
    return {
        "global radius": right & torch.from_numpy(radii.radii > epsilon),
        "interval margin": margins > 0,
        "ladder": torch.tensor([verdict.status == "certified" for verdict in verdicts]),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_certified_accuracy_never_exceeds_accuracy_under_attack(kind):
    network, x, y = trained(kind)
    lost = {}
    for epsilon in (*RADII, 0.3):
        for method in ATTACKS:
            found = attack(network, x, y, epsilon, method=method)
            lost[method, epsilon] = found.success
    for epsilon in RADII:
        for rung, mask in certified(network, x, y, epsilon).items():
            for method in ATTACKS:
                broken = (mask & lost[method, epsilon]).nonzero()
                assert not len(broken), f"{rung}, {method}, ε = {epsilon}, samples {broken}"
    # The test could fail: something is certified, and lost to the same attack further out.
    certain = certified(network, x, y, RADII[0])["ladder"]
    assert certain.any()
    assert (certain & lost[ATTACKS[-1], 0.3]).any()


@pytest.mark.parametrize("kind", ["plain", "small boxes", "leaky relu"])
def test_pgd_finds_what_the_exact_search_finds(kind):
    network, x, y = trained(kind)
    verdicts = verify_robustness(network, x.numpy(), y.numpy(), 0.08, time_limit=5.0).verdicts
    falsified = torch.tensor([verdict.status == "falsified" for verdict in verdicts])
    assert falsified.sum() > 10
    lost = attack(network, x, y, 0.08).success
    assert (falsified & ~lost).sum() <= 1
    for verdict, u in zip(verdicts, x.numpy(), strict=True):
        if verdict.counterexample is not None:
            assert abs(verdict.counterexample - u).max() <= 0.08
