"""Equilibria: every iteration finds the same one, says how well, and its gradient is right."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from contraction_nets import ConvergenceWarning, project
from contraction_nets.nn.activations import get_activation
from contraction_nets.nn.equilibrium import equilibrium, solve_equilibrium
from contraction_nets.nn.iterations import get_iteration

SPECS = ["relu", "leaky_relu(0.2)", "tanh", "sigmoid", "softplus", "elu"]
ITERATIONS = [
    "diagonal_resolvent", "average", "forward_backward", "peaceman_rachford", "anderson", "broyden",
    "newton", "auto", "picard",
]  # fmt: skip
GLOBAL = ITERATIONS[:-1]
"""Those that converge for every well-posed A."""


def problem(seed, n=6, batch=4, gamma=0.9, scale=1.0, contractive=False):
    """A random well-posed A and s; with ‖A‖∞ < 1 when `contractive`."""
    rng = np.random.default_rng(seed)
    A = project(scale * rng.normal(size=(n, n)), gamma)
    if contractive:
        A = 0.9 * A / max(1.0, np.abs(A).sum(axis=1).max())
    return torch.from_numpy(A), torch.from_numpy(rng.normal(size=(batch, n)))


def reference(A, s, activation):
    """Newton on the whole system, with halved steps: shares no code with the iterations."""
    rows = []
    for drive in s:
        x = torch.zeros_like(drive)
        for _ in range(500):
            y = A @ x + drive
            defect = x - activation(y)
            if float(defect.abs().max()) < 1e-14:
                break
            jacobian = torch.eye(len(x), dtype=x.dtype) - activation.slope(y)[:, None] * A
            step = torch.linalg.solve(jacobian, defect)
            size = 1.0
            while size > 1e-4:
                trial = x - size * step
                if (trial - activation(A @ trial + drive)).abs().max() < defect.abs().max():
                    break
                size /= 2
            x = x - size * step
        rows.append(x)
    return torch.stack(rows)


@given(seeds, st.sampled_from(SPECS), st.sampled_from([0.3, 1.0, 10.0]))
@settings(max_examples=60, deadline=None)
def test_iterations_agree_with_newton(seed, spec, scale):
    activation = get_activation(spec)
    for names in (GLOBAL, ["picard"]):
        A, s = problem(seed, scale=scale, contractive=names == ["picard"])
        expected = reference(A, s, activation)
        defect = float((expected - activation(expected @ A.T + s)).abs().max())
        for name in names:
            result = solve_equilibrium(A, s, spec, iteration=name, tol=1e-13, max_steps=20_000)
            assert result.converged
            torch.testing.assert_close(result.x, expected, rtol=0, atol=1e-10 + 20 * defect)


@given(seeds, st.sampled_from(SPECS), st.sampled_from(GLOBAL), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
@pytest.mark.filterwarnings("ignore::contraction_nets.ConvergenceWarning")
def test_residual_is_true_and_bounds_the_error(seed, spec, name, steps):
    rng = np.random.default_rng(seed)
    eta = 10.0 ** rng.uniform(-1, 1, 6)
    A = torch.from_numpy(project(2 * rng.normal(size=(6, 6)), 0.9, eta))
    s = torch.from_numpy(rng.normal(size=(4, 6)))
    weights = torch.from_numpy(eta)
    result = solve_equilibrium(A, s, spec, iteration=name, max_steps=steps, tol=1e-12, eta=weights)
    activation = get_activation(spec)
    residual = float((result.x - activation(result.x @ A.T + s)).abs().max())
    assert result.residual == pytest.approx(residual, rel=1e-6, abs=1e-13)
    assert result.steps <= steps
    best = solve_equilibrium(A, s, spec, tol=1e-14, max_steps=20_000)
    assert float((result.x - best.x).abs().max()) <= result.error_bound * (1 + 1e-6) + 1e-12


def test_error_bound_is_infinite_where_nothing_is_known():
    result = solve_equilibrium(torch.tensor([[0.0, -3.0], [3.0, 0.0]]) * 0.2, torch.zeros(1, 2))
    assert result.error_bound == 0.0
    A = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert solve_equilibrium(A, -torch.ones(1, 2), iteration="picard").error_bound == math.inf


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("name", GLOBAL)
def test_tolerance_is_met_without_wasting_steps(name, tol):
    for seed in range(20):
        A, s = problem(seed, n=30, batch=20)
        result = solve_equilibrium(A, s, iteration=name, tol=tol)
        assert result.converged
        assert result.residual <= tol * float(result.x.abs().max())
        if result.steps > 8:
            with pytest.warns(ConvergenceWarning):
                early = solve_equilibrium(
                    A, s, iteration=name, tol=tol, max_steps=result.steps * 2 // 3
                )
            assert not early.converged


def test_resolvent_takes_no_more_steps_than_the_average_iteration():
    resolvent, average = [], []
    for seed, scale in itertools.product(range(10), (0.3, 1.0, 10.0, 100.0)):
        A, s = problem(seed, n=20, scale=scale)
        counts = [
            solve_equilibrium(A, s, iteration=name, tol=1e-8, max_steps=100_000).steps
            for name in ITERATIONS[:2]
        ]
        # The residual is measured every few steps, at most twice as late as needed.
        assert counts[0] <= 1.3 * counts[1] + 4
        resolvent.append(counts[0])
        average.append(counts[1])
    assert sum(resolvent) < sum(average) / 2


@pytest.mark.parametrize(
    ("A", "s", "options"),
    [
        (torch.full((3, 3), 0.3), torch.ones(2, 3), {"max_steps": 5, "tol": 1e-9}),
        (torch.full((3, 3), 5.0), torch.ones(2, 3), {"max_steps": 50}),
        (-3 * torch.eye(3), torch.ones(2, 3), {"iteration": "picard", "max_steps": 200}),
        (torch.eye(3), torch.ones(2, 3), {"max_steps": 50}),
        (torch.zeros(3, 3), torch.full((2, 3), torch.nan), {}),
        (torch.zeros(3, 3), torch.full((2, 3), torch.inf), {}),
    ],
    ids=["cap", "outside", "picard", "singular", "nan", "inf"],
)
def test_failure_is_said_with_the_residual(A, s, options):
    with pytest.warns(ConvergenceWarning, match=r"residual .* in torch.float32"):
        result = solve_equilibrium(A, s, **options)
    assert not result.converged
    assert not result.residual <= 1e-4 * float(result.x.abs().max())


def test_no_garbage_outside_the_set():
    """Where A is not well-posed the resolvent's formula can be wrong; its residual never is."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        A, s = (
            torch.from_numpy(3 * rng.normal(size=(4, 4))),
            torch.from_numpy(rng.normal(size=(2, 4))),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = solve_equilibrium(A, s, max_steps=200)
        defect = float((result.x - torch.relu(result.x @ A.T + s)).abs().max())
        assert not result.converged or defect <= 1.001e-4 * float(result.x.abs().max())


def test_empty_batch():
    result = solve_equilibrium(torch.zeros(3, 3), torch.zeros(0, 3))
    assert result.converged
    assert result.x.shape == (0, 3)


@pytest.mark.parametrize("name", ITERATIONS)
@pytest.mark.parametrize("spec", SPECS)
def test_gradcheck(spec, name):
    A, s = problem(3, contractive=name == "picard", gamma=0.6)
    inputs = (A.requires_grad_(), s.requires_grad_())

    def solve(A, s):
        return equilibrium(A, s, spec, iteration=name, tol=1e-13, backward_tol=1e-13)

    assert torch.autograd.gradcheck(solve, inputs)


@given(seeds, st.sampled_from(SPECS))
@settings(max_examples=15, deadline=None)
def test_gradient_is_that_of_the_unrolled_iteration(seed, spec):
    A, s = problem(seed, n=5)
    A, s = A.requires_grad_(), s.requires_grad_()
    activation = get_activation(spec)
    cotangent = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=s.shape))
    alpha = 1 / (1 - A.detach().diagonal().min().clamp_max(0))
    x = torch.zeros_like(s)
    for _ in range(3000):
        x = x + alpha * (activation(x @ A.T + s) - x)
    unrolled = torch.autograd.grad((cotangent * x).sum(), (A, s))
    implicit = torch.autograd.grad(
        (cotangent * equilibrium(A, s, spec, tol=1e-13, backward_tol=1e-13)).sum(), (A, s)
    )
    for left, right in zip(unrolled, implicit, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9)


def test_gradients_of_any_size_are_solved_to_relative_tolerance():
    A, s = problem(0, n=20)
    s = s.requires_grad_()
    gradients = []
    for scale in (1.0, 1e-12, 1e12):
        x = equilibrium(A, s, backward_tol=1e-6)
        (gradient,) = torch.autograd.grad(scale * x.sum(), s)
        gradients.append(gradient / scale)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-9, atol=1e-12)


def test_overflown_gradients_pass_without_a_warning():
    A, s = problem(0)
    A, s = A.requires_grad_(), s.requires_grad_()
    equilibrium(A, s).sum().mul(torch.inf).backward()
    assert not bool(torch.isfinite(A.grad).all())


def test_monitor_sees_both_directions():
    A, s = problem(0)
    seen = []
    x = equilibrium(A, s.requires_grad_(), monitor=lambda way, result: seen.append((way, result)))
    x.sum().backward()
    assert [way for way, _ in seen] == ["forward", "backward"]
    assert all(result.converged and result.steps > 1 for _, result in seen)


@pytest.mark.parametrize(
    "spec",
    [
        "secant",
        "average(0)",
        "average(2)",
        "picard(1)",
        "average(x)",
        "anderson(0)",
        "anderson(1.5)",
        "anderson(nan)",
        "broyden(-1)",
        "newton(1)",
        "auto(1)",
        "forward_backward(0)",
        "peaceman_rachford(inf)",
    ],
)
def test_other_iterations_are_refused(spec):
    with pytest.raises(ValueError, match="expected"):
        get_iteration(spec)


def test_specs_round_trip():
    for spec in [
        *ITERATIONS, "average(0.25)", "anderson(3.0)", "broyden(7.0)", "forward_backward(0.5)",
        "peaceman_rachford(2.0)",
    ]:  # fmt: skip
        assert str(get_iteration(spec)) == spec
