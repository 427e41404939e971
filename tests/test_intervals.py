"""Interval bounds contain what they bound, equal brute force, and have the right gradients."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from torch.autograd import gradcheck

from contraction_nets import ImplicitNetwork, contracting, interval_bounds, interval_margins
from contraction_nets.nn.operators import Dense
from contraction_nets.robustness.embedding import Embedded, embedded_weight

ACTIVATIONS = ["relu", "leaky_relu(0.2)", "tanh", "sigmoid", "softplus", "elu"]
activations = st.sampled_from(ACTIVATIONS)


def network(seed=0, n=6, p=3, q=4, activation="relu", feedthrough=True, gamma=0.9, **options):
    """A network in float64 that is on the boundary of its set, with a diagonal of both signs."""
    options = {"tol": 1e-13, "dtype": torch.float64, **options}
    generator = torch.Generator().manual_seed(seed)
    net = ImplicitNetwork(
        p, n, q, activation=activation, feedthrough=feedthrough, gamma=gamma, **options
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        A = net.layer.A
        off = A - torch.diag(A.diagonal())
        share = torch.rand(n, 1, generator=generator, dtype=torch.float64) * (gamma + 1) + 1e-3
        off *= share / off.abs().sum(dim=1, keepdim=True).clamp_min(1e-9)
        A.copy_(0.999 * (off + torch.diag(gamma - off.abs().sum(dim=1))))
    return net


def boxes(seed, p=3, batch=2, radius=0.4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + 1)
    centre = torch.rand(batch, p, generator=generator, dtype=dtype)
    reach = radius * torch.rand(batch, p, generator=generator, dtype=dtype)
    return centre - reach, centre + reach


def points_of(lower, upper, seed):
    """Every vertex and some points between, with the number of the box of each."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.tensor(v, dtype=lower.dtype) for v in itertools.product((0, 1), repeat=3)]
    weights += list(torch.rand(8, lower.shape[1], generator=generator, dtype=lower.dtype))
    return [lower + w * (upper - lower) for w in weights]


@settings(deadline=None, max_examples=30)
@given(seeds, activations, st.booleans())
def test_every_input_of_the_box_is_within_the_bounds(seed, activation, feedthrough):
    net = network(seed, activation=activation, feedthrough=feedthrough)
    lower, upper = boxes(seed)
    labels = torch.tensor([1, 3])
    with torch.no_grad():
        bounds = interval_bounds(net, lower, upper)
        margins = interval_margins(net, lower, upper, labels)
        for u in points_of(lower, upper, seed):
            x, y = net.layer(u), net(u)
            slack = 1e-9 * (1 + y.abs().max())
            assert (bounds.state_lower - 1e-9 <= x).all()
            assert (x <= bounds.state_upper + 1e-9).all()
            assert (bounds.lower - slack <= y).all()
            assert (y <= bounds.upper + slack).all()
            gap = y.gather(1, labels[:, None]) - y
            assert (margins <= gap + slack).all()
    assert (margins.gather(1, labels[:, None]) == 0).all()
    # The relative classifier is never worse than the difference of separate bounds.
    separate = bounds.lower.gather(1, labels[:, None]) - bounds.upper
    others = torch.ones_like(margins, dtype=torch.bool).scatter(1, labels[:, None], False)
    assert (margins >= separate - slack)[others].all()


@settings(deadline=None, max_examples=30)
@given(seeds, activations)
def test_larger_boxes_have_wider_bounds(seed, activation):
    net = network(seed, activation=activation)
    lower, upper = boxes(seed)
    with torch.no_grad():
        inner = interval_bounds(net, lower, upper)
        outer = interval_bounds(net, lower - 0.1, upper + torch.rand_like(upper))
        labels = torch.tensor([0, 2])
        tight = interval_margins(net, lower, upper, labels)
        wide = interval_margins(net, lower - 0.1, upper + 0.2, labels)
    for low, inside in zip(outer[::2], inner[::2], strict=True):
        assert (low <= inside + 1e-9 * (1 + inside.abs())).all()
    for high, inside in zip(outer[1::2], inner[1::2], strict=True):
        assert (high >= inside - 1e-9 * (1 + inside.abs())).all()
    assert (wide <= tight + 1e-9 * (1 + tight.abs())).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_box_of_one_point_is_the_forward_pass(activation, dtype):
    net = network(3, activation=activation).to(dtype)
    net.layer.tol = 1e-6 if dtype == torch.float32 else 1e-13
    u = torch.rand(5, 3, dtype=dtype)
    labels = torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        x, y = net.layer(u), net(u)
        bounds = interval_bounds(net, u, u)
        margins = interval_margins(net, u, u, labels)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-11}
    for found, expected in zip(bounds, (y, y, x, x), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(margins, y.gather(1, labels[:, None]) - y, **close)


def embedded_by_hand(net, lower, upper, steps=2000):
    """The averaged iteration of the 2n equations of THEORY §7 as they are printed."""
    A, B, b = (getattr(net.layer, name).detach().numpy() for name in ("A", "B", "b"))
    plus, minus = np.maximum(A, 0), np.maximum(-A, 0)
    d = np.diag(A)
    np.fill_diagonal(plus, 0)
    np.fill_diagonal(minus, 0)
    bottom, top = lower.numpy(), upper.numpy()
    low_drive = bottom @ np.maximum(B, 0).T - top @ np.maximum(-B, 0).T + b
    high_drive = top @ np.maximum(B, 0).T - bottom @ np.maximum(-B, 0).T + b
    low = high = np.zeros((len(bottom), len(A)))
    alpha = 1 / (1 - min(d.min(), 0))

    def phi(y):
        return net.layer.activation(torch.from_numpy(y)).numpy()

    for _ in range(steps):
        next_low = phi(low * d + low @ plus.T - high @ minus.T + low_drive)
        next_high = phi(high * d + high @ plus.T - low @ minus.T + high_drive)
        low, high = low + alpha * (next_low - low), high + alpha * (next_high - high)
    return low, high


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("iteration", ["diagonal_resolvent", "average", "newton", "auto"])
def test_bounds_solve_the_equations_of_theory(activation, iteration):
    net = network(5, activation=activation, iteration=iteration)
    lower, upper = boxes(5)
    with torch.no_grad():
        bounds = interval_bounds(net, lower, upper)
    low, high = embedded_by_hand(net, lower, upper)
    assert np.abs(bounds.state_lower.numpy() - low).max() <= 1e-9
    assert np.abs(bounds.state_upper.numpy() - high).max() <= 1e-9
    assert (high - low).max() > 0.01


@settings(deadline=None, max_examples=30)
@given(seeds, activations)
def test_without_feedback_the_bounds_of_states_are_attained(seed, activation):
    net = network(seed, activation=activation)
    with torch.no_grad():
        net.layer.A.zero_()
        lower, upper = boxes(seed)
        bounds = interval_bounds(net, lower, upper)
        vertices = torch.stack([net.layer(u) for u in points_of(lower, upper, seed)[:8]])
    torch.testing.assert_close(bounds.state_lower, vertices.amin(dim=0), rtol=0, atol=1e-12)
    torch.testing.assert_close(bounds.state_upper, vertices.amax(dim=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.2)", "tanh", "softplus"])
def test_gradients_are_those_of_finite_differences(activation):
    net = network(2, n=4, activation=activation)
    names = ["layer.A", "layer.B", "layer.b", "C", "c", "D"]
    parameters = [net.get_parameter(name).detach().clone().requires_grad_() for name in names]
    lower, upper = (corner.requires_grad_() for corner in boxes(2))
    labels = torch.tensor([2, 0])

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, lower, upper):
            bounds = interval_bounds(self.net, lower, upper)
            return *bounds, interval_margins(self.net, lower, upper, labels)

    def call(lower, upper, *values):
        given = {f"net.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Both(), given, (lower, upper))

    assert gradcheck(call, (lower, upper, *parameters), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("activation", ["leaky_relu(0.2)", "tanh"])
def test_forward_mode_and_second_derivatives(activation):
    net = network(4, n=3, activation=activation)
    lower, upper = boxes(4)
    labels = torch.tensor([1, 0])

    def total(A):
        margins = torch.func.functional_call(Margins(net), {"net.layer.A": A}, (lower, upper))
        return (margins**2).sum()

    class Margins(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, lower, upper):
            return interval_margins(self.net, lower, upper, labels)

    A = net.layer.A.detach().clone().requires_grad_()
    assert gradcheck(total, (A,), check_forward_ad=True, atol=1e-6)
    assert torch.autograd.gradgradcheck(total, (A,), atol=1e-5)


def test_parametrized_matrices_have_bounds_and_gradients():
    net = network(6)
    contracting(net.layer)
    lower, upper = boxes(6)
    interval_margins(net, lower, upper, torch.tensor([0, 1])).sum().backward()
    gradient = net.layer.parametrizations.A.original.grad
    assert gradient.abs().max() > 0
    assert torch.isfinite(gradient).all()


def explicit(A):
    """The embedded map as a matrix of size 2n."""
    d = torch.diag(A.diagonal())
    off = A - d
    same, other = off.clamp_min(0) + d, off.clamp_max(0)
    return torch.cat([torch.cat([same, other], 1), torch.cat([other, same], 1)])


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_operator_is_the_embedded_matrix(seed):
    A = network(seed).layer.A.detach()
    generator = torch.Generator().manual_seed(seed)
    x, s, w = torch.randn(3, 5, 12, generator=generator, dtype=torch.float64)
    operator, matrix = Embedded(embedded_weight(A)), Dense(explicit(A))
    eta = torch.rand(12, generator=generator, dtype=torch.float64) + 0.1
    gain = 1 / (1 - matrix.diagonal)
    close = {"rtol": 0, "atol": 1e-12}
    for left, right in (
        (operator, matrix),
        (operator.transposed(), matrix.transposed()),
        (operator.without_diagonal(), matrix.without_diagonal()),
        (operator.without_diagonal(gain), matrix.without_diagonal(gain)),
    ):
        torch.testing.assert_close(left.affine(x, s), right.affine(x, s), **close)
        torch.testing.assert_close(left.diagonal, right.diagonal, **close)
        torch.testing.assert_close(left.row_sums(eta), right.row_sums(eta), rtol=1e-12, atol=1e-12)
        one = torch.ones(1, dtype=torch.float64)
        torch.testing.assert_close(left.row_sums(one), right.row_sums(one), **close)
    torch.testing.assert_close(operator.row_sums(one), Dense(A).row_sums(one).repeat(2), **close)
    assert operator.multiplications(x) == matrix.multiplications(x) // 2
    weight = operator.weight.requires_grad_()
    (expected,) = torch.autograd.grad((w * Embedded(weight).affine(x, 0 * s)).sum(), weight)
    torch.testing.assert_close(operator.weight_gradient(w, x), expected, **close)


def test_boxes_and_labels_that_do_not_fit_are_refused():
    net = network()
    lower, upper = boxes(0)
    with pytest.raises(ValueError, match="expected an ImplicitNetwork"):
        interval_bounds(net.layer, lower, upper)
    with pytest.raises(ValueError, match=r"expected \(batch, 3\) twice"):
        interval_bounds(net, lower, upper[:1])
    with pytest.raises(ValueError, match=r"expected \(batch, 3\) twice"):
        interval_bounds(net, lower[0], upper[0])
    with pytest.raises(ValueError, match="expected lower ≤ upper"):
        interval_bounds(net, upper, lower)
    with pytest.raises(ValueError, match="expected lower ≤ upper"):
        interval_bounds(net, lower * torch.nan, upper)
    for labels in (
        torch.tensor([0]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([0, 1], dtype=torch.uint8),
        torch.tensor([False, True]),
    ):
        with pytest.raises(ValueError, match=r"expected \(2,\) class numbers"):
            interval_margins(net, lower, upper, labels)
    for labels in (torch.tensor([0, -1]), torch.tensor([0, net.out_features])):
        with pytest.raises(ValueError, match="expected them from 0 to"):
            interval_margins(net, lower, upper, labels)
    with pytest.raises(ValueError, match="tol"):
        interval_bounds(net, lower, upper, tol=0.0)
