"""Activations: slopes in [0, 1], and resolvents that solve x = φ(a x + s)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from contraction_nets.certificates.weights import parse_activation
from contraction_nets.nn.activations import Activation, get_activation

SPECS = ["relu", "leaky_relu", "leaky_relu(0.3)", "tanh", "sigmoid", "softplus", "elu", "elu(0.5)"]
specs = st.sampled_from(SPECS)


def draw(seed, shape, scale, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


@pytest.mark.parametrize("spec", SPECS)
def test_specs_are_those_of_certificates_and_round_trip(spec):
    activation = get_activation(spec)
    assert get_activation(str(activation)) == activation
    assert get_activation(activation) is activation
    assert parse_activation(str(activation)) == parse_activation(spec)


def test_every_activation_is_tested():
    assert {spec.partition("(")[0] for spec in SPECS} == set(Activation.known())


@pytest.mark.parametrize(
    "spec", ["swish", "relu(1)", "leaky_relu(2)", "elu(-1)", "elu(nan)", "elu(x)", "", None, 3]
)
def test_others_are_refused(spec):
    with pytest.raises(ValueError, match="expected"):
        get_activation(spec)


@given(specs, seeds, st.sampled_from([1e-3, 1.0, 30.0, 1e6]))
@settings(max_examples=150, deadline=None)
def test_slope_is_the_derivative_and_in_the_unit_interval(spec, seed, scale):
    activation = get_activation(spec)
    y = draw(seed, 50, scale).requires_grad_()
    (derivative,) = torch.autograd.grad(activation(y).sum(), y)
    slope = activation.slope(y.detach())
    assert bool(((slope >= 0) & (slope <= 1)).all())
    torch.testing.assert_close(slope, derivative, rtol=1e-9, atol=1e-12)
    increasing = activation(y.detach().sort().values).diff()
    assert float(increasing.min()) >= 0


@given(specs, seeds, st.sampled_from([1e-6, 1.0, 1e3, 1e8]), st.sampled_from([1e-3, 1.0, 1e4]))
@settings(max_examples=200, deadline=None)
def test_resolvent_solves_its_equation(spec, seed, scale, spread):
    activation = get_activation(spec)
    for dtype in (torch.float64, torch.float32):
        s, a = draw(seed, 40, scale, dtype), 1 - draw(seed + 1, 40, spread, dtype).abs() - 1e-2
        x = activation.resolvent(s, a)
        size = s.abs() + (a * x).abs() + x.abs()
        residual = (x - activation(a * x + s)).abs()
        # Rounding x alone moves φ(a x + s) by |a x| times the unit of the dtype.
        assert bool((residual <= 16 * torch.finfo(dtype).eps * size + 1e-30).all())


@pytest.mark.parametrize("spec", SPECS)
def test_resolvent_needs_a_below_one(spec):
    with pytest.raises(ValueError, match="below one"):
        get_activation(spec).resolvent(torch.zeros(2), torch.tensor([0.5, 1.0]))
