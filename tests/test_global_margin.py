"""Training for global certificates: gains of class pairs, and the loss that counts them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from torch.nn.functional import cross_entropy

from contraction_nets import (
    ImplicitNetwork,
    ImplicitWeights,
    NotWellPosedError,
    certified_radii,
    fit,
    lipschitz_certificate,
    project_,
)
from contraction_nets.nn.penalty import pairwise_gains
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.global_margin import GlobalMargin


def make(seed=0, feedthrough=True):
    torch.manual_seed(seed)
    network = ImplicitNetwork(4, 7, 3, feedthrough=feedthrough, dtype=torch.float64, tol=1e-12)
    with torch.no_grad():
        network.layer.A.add_(torch.randn(7, 7, dtype=torch.float64))
    project_(network)
    return network


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_pairwise_gains_are_the_certified_ones_and_their_gradient_is_right(seed, feedthrough):
    network = make(seed % 2**31, feedthrough)
    gains = pairwise_gains(network)
    proved = lipschitz_certificate(ImplicitWeights.from_module(network)).pairwise_gains()
    np.testing.assert_allclose(gains.detach().numpy(), proved, rtol=1e-9)
    factors = torch.randn_like(gains)
    (gains * factors).sum().backward()
    for parameter in network.parameters():
        if parameter.grad is None:
            continue
        direction = torch.randn_like(parameter) * (parameter != 0)
        values = []
        for step in (1e-7, -2e-7):
            with torch.no_grad():
                parameter.add_(step * direction)
                values.append(float((pairwise_gains(network) * factors).sum()))
        slope = float((parameter.grad * direction).sum())
        size = 1e-4 * float(gains.detach().max()) * 9
        assert (values[0] - values[1]) / 2e-7 == pytest.approx(slope, rel=1e-4, abs=size)


def test_gains_refuse():
    network = make()
    with pytest.raises(ValueError, match="expected an ImplicitNetwork"):
        pairwise_gains(network.layer)
    with torch.no_grad():
        network.layer.A.fill_(1.0)
    with pytest.raises(NotWellPosedError, match="not well-posed"):
        pairwise_gains(network)


@given(seeds, st.sampled_from([1e-3, 0.1, 2.0]))
@settings(max_examples=40, deadline=None)
def test_the_loss_is_that_of_the_worst_outputs(seed, epsilon):
    """What it counts as certified is what `certified_radii` certifies, sample by sample."""
    network = make(seed % 2**31)
    u, y = torch.rand(20, 4).double(), torch.randint(0, 3, (20,))
    loss = GlobalMargin(epsilon, temperature=0.5).loss(network, u, y, progress=0.9)
    found = certified_radii(ImplicitWeights.from_module(network), u.numpy())
    certified = (found.labels == y.numpy()) & (found.radii > epsilon)
    assert float(loss.metrics["global_accuracy"]) == pytest.approx(certified.mean())
    torch.testing.assert_close(loss.output, network(u))
    gains = lipschitz_certificate(ImplicitWeights.from_module(network)).pairwise_gains()
    worst = loss.output + epsilon * torch.from_numpy(gains[y.numpy()])
    torch.testing.assert_close(loss.value, cross_entropy(worst / 0.5, y))


def test_epsilon_grows_and_the_clean_loss_has_its_share():
    network = make()
    u, y = torch.rand(20, 4).double(), torch.randint(0, 3, (20,))

    def value(objective, progress):
        return objective.loss(network, u, y, progress).value

    plain = cross_entropy(network(u) / 2, y)
    options = {"temperature": 2.0}
    torch.testing.assert_close(value(GlobalMargin(0.1, ramp=0.5, **options), 0.0), plain)
    half = value(GlobalMargin(0.1, ramp=0.5, **options), 0.25)
    torch.testing.assert_close(half, value(GlobalMargin(0.05, ramp=0.0, **options), 0.0))
    whole = value(GlobalMargin(0.1, **options), 0.9)
    assert plain < half < whole
    mixed = value(GlobalMargin(0.1, clean_weight=0.25, **options), 0.9)
    torch.testing.assert_close(mixed, 0.25 * plain + 0.75 * whole)


@pytest.mark.parametrize("power", [1e-6, 0.3, 1.0])
def test_the_generalized_cross_entropy(power):
    network = make()
    u, y = torch.rand(20, 4).double(), torch.randint(0, 3, (20,))
    worst = network(u) + 0.1 * pairwise_gains(network)[y]
    p = worst.softmax(dim=1).gather(1, y[:, None])
    objective = GlobalMargin(0.1, power=power)
    value = objective.loss(network, u, y, progress=0.9).value
    torch.testing.assert_close(value, ((1 - p**power) / power).mean(), rtol=1e-8, atol=1e-8)
    plain = GlobalMargin(0.1).loss(network, u, y, progress=0.9).value
    assert value < plain
    if power < 1e-3:
        torch.testing.assert_close(value, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0.0}, {"epsilon": -1.0}, {"epsilon": float("nan")}, {"temperature": 0.0},
     {"temperature": float("inf")}, {"clean_weight": 1.1}, {"power": 2.0}, {"ramp": -0.1}],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"got {next(iter(options))} = "):
        GlobalMargin(**{"epsilon": 0.1, **options})


def test_values_are_refused():
    with pytest.raises(ValueError, match="expected class numbers"):
        fit(ImplicitNetwork(1, 3, 1), load_data("function"), objective=GlobalMargin(0.1), epochs=1)


def test_it_certifies_more_than_the_plain_loss():
    whole = load_data("digits")
    data = Dataset(
        "digits",
        whole.train_inputs[:600],
        whole.train_targets[:600],
        whole.test_inputs,
        whole.test_targets,
    )
    shares = []
    for objective in (None, GlobalMargin(0.03)):
        torch.manual_seed(0)
        options = {"epochs": 12, "learning_rate": 1e-2, "audit": False, "lipschitz_budget": 20.0}
        result = fit(ImplicitNetwork(64, 16, 10), data, objective=objective, **options)
        found = certified_radii(result.certificate, data.test_inputs.numpy())
        right = found.labels == data.test_targets.numpy()
        shares.append(float((right & (found.radii >= 0.03)).mean()))
    assert shares[1] > shares[0] + 0.1
    assert shares[1] > 0.6
