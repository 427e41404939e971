"""Equilibria: every iteration finds the same one, says how well, and its gradient is right."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds

from contraction_nets import ConvergenceWarning, ImplicitConv2d, project, project_
from contraction_nets.comparison.cases import Case
from contraction_nets.nn.activations import ELU, LeakyReLU, get_activation
from contraction_nets.nn.equilibrium import equilibrium, solve_equilibrium
from contraction_nets.nn.implicit import Scaling
from contraction_nets.nn.iterations import (
    Anderson,
    Average,
    Broyden,
    DiagonalResolvent,
    ForwardBackward,
    get_iteration,
    long_way,
)
from contraction_nets.nn.iterations import auto as auto_module
from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.costs import Costs
from contraction_nets.nn.iterations.loop import run
from contraction_nets.nn.operators import Convolution, Dense, Sparse

SPECS = ["relu", "leaky_relu(0.2)", "tanh", "sigmoid", "softplus", "elu"]
ITERATIONS = [
    "diagonal_resolvent", "average", "forward_backward", "peaceman_rachford", "anderson", "broyden",
    "newton", "reduced_rank", "auto", "picard",
]  # fmt: skip
GLOBAL = ITERATIONS[:-1]
"""Those that converge for every well-posed A."""


class Large(Dense):
    """A matrix that claims to have so many entries that no iteration copies it."""

    @property
    def entries(self):
        return 2**30


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
@example(23691509, "tanh", 10.0)  # its errors turn by a right angle a step, and die out slowly
@settings(max_examples=60, deadline=None)
def test_iterations_agree_with_newton(seed, spec, scale):
    activation = get_activation(spec)
    for names in (GLOBAL, ["picard"]):
        A, s = problem(seed, scale=scale, contractive=names == ["picard"])
        expected = reference(A, s, activation)
        defect = float((expected - activation(expected @ A.T + s)).abs().max())
        for name in names:
            # No residual stays below the rounding of A x, which grows with A.
            tol = 1e-13 * max(1.0, 0.3 * scale)
            result = solve_equilibrium(A, s, spec, iteration=name, tol=tol, max_steps=20_000)
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


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        *itertools.product(SPECS, ["diagonal_resolvent", "average", "picard"]),
        *itertools.product(["relu", "tanh"], GLOBAL[2:]),
    ],
)
def test_gradcheck(spec, name):
    A, s = problem(
        3, batch=4 if name in ITERATIONS[:2] else 2, contractive=name == "picard", gamma=0.6
    )
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


@pytest.mark.parametrize("kind", [Average, Anderson, Broyden, ForwardBackward, LeakyReLU, ELU])
@pytest.mark.parametrize("value", ["1", True, [1.0], 1j])
def test_parameters_of_another_type_are_refused(kind, value):
    with pytest.raises(ValueError, match=rf"got {kind.name}\(.*, expected"):
        kind(value)


def test_specs_round_trip():
    for spec in [
        *ITERATIONS, "average(0.25)", "anderson(3.0)", "broyden(7.0)", "reduced_rank(2.0)",
        "forward_backward(0.5)", "peaceman_rachford(2.0)",
    ]:  # fmt: skip
        assert str(get_iteration(spec)) == spec


ACCELERATED = ["anderson", "broyden", "newton", "reduced_rank", "auto"]


def scaled(seed, n, dtype=torch.float64):
    """A with μ∞(A) ≥ 1 that only weights far from ones show to be well-posed."""
    rng = np.random.default_rng(seed)
    eta = 10.0 ** rng.uniform(-1.5, 1.5, n)
    A = project(3 * rng.normal(size=(n, n)), 0.9, eta)
    return torch.from_numpy(A).to(dtype), torch.from_numpy(rng.normal(size=(3, n))).to(dtype)


@given(seeds, st.sampled_from(SPECS), st.sampled_from(GLOBAL), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_equilibria_of_scaled_networks_are_the_same(seed, spec, name, n):
    A, s = scaled(seed, n)
    expected = solve_equilibrium(A, s, spec, tol=1e-13, max_steps=100_000).x
    result = solve_equilibrium(A, s, spec, iteration=name, tol=1e-12, max_steps=100_000)
    # ‖x − x*‖ ≤ spread · residual / 0.1 with a spread of at most 1000.
    bound = 1e4 * (result.residual + 1e-13 * float(expected.abs().max()))
    torch.testing.assert_close(result.x, expected, rtol=0, atol=bound)


@given(seeds, st.sampled_from(SPECS), st.sampled_from(GLOBAL))
@example(180128, "softplus", "forward_backward")  # small steps, which feel rounding most
@settings(max_examples=60, deadline=None)
def test_single_precision_reaches_its_tolerance(seed, spec, name):
    A, s = (part.float() for part in problem(seed, n=8, batch=5, scale=3.0))
    result = solve_equilibrium(A, s, spec, iteration=name, tol=1e-5, max_steps=20_000)
    assert result.converged
    assert result.x.dtype == torch.float32


@given(seeds, st.sampled_from(SPECS), st.sampled_from(GLOBAL))
@settings(max_examples=60, deadline=None)
def test_gradients_of_all_iterations_agree(seed, spec, name):
    A, s = scaled(seed, 5) if seed % 2 else problem(seed, n=5)
    cotangent = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=s.shape))
    x = solve_equilibrium(A, s, spec, tol=1e-13, max_steps=100_000).x
    slope = get_activation(spec).slope(x @ A.T + s)
    jacobian = torch.eye(5, dtype=A.dtype) - slope[:, :, None] * A
    w = slope * torch.linalg.solve(jacobian.mT, cotangent[:, :, None])[:, :, 0]
    leaves = (A.clone().requires_grad_(), s.clone().requires_grad_())
    y = equilibrium(*leaves, spec, iteration=name, tol=1e-13, backward_tol=1e-13, max_steps=100_000)
    # A relu at its kink has two slopes, and the iterations may end on either side of it.
    if spec in ("relu", "leaky_relu(0.2)") and bool(((x @ A.T + s).abs() < 1e-9).any()):
        return
    gradients = torch.autograd.grad((cotangent * y).sum(), leaves)
    for left, right in zip(gradients, (w.T @ x, w), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", GLOBAL)
def test_samples_of_different_difficulty_in_one_batch(name):
    rng = np.random.default_rng(0)
    A = np.zeros((12, 12))
    A[:6, :6] = 0.99 * (P := rng.uniform(size=(6, 6))) / P.sum(axis=1, keepdims=True)
    A[6:, 6:] = project(rng.normal(size=(6, 6)), 0.3)
    s = rng.normal(size=(40, 12))
    s[:30, :6] = -1.0  # the slow block rests in these samples
    s[7] = 0.0
    A, s = torch.from_numpy(A), torch.from_numpy(s)
    expected = solve_equilibrium(A, s, tol=1e-14, max_steps=20_000).x
    result = solve_equilibrium(A, s, iteration=name, tol=1e-9, max_steps=20_000)
    defect = (result.x - torch.relu(result.x @ A.T + s)).abs().amax(dim=1)
    assert bool((defect <= 1.001e-9 * result.x.abs().max()).all())
    assert float((result.x - expected).abs().max()) <= 100 * result.residual + 1e-10
    assert not bool(result.x[7].any())


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("A", [torch.zeros(3, 3), -torch.eye(3), torch.full((3, 3), 0.3)])
def test_zeros_and_empty_batches(name, A):
    for s in (torch.zeros(0, 3), torch.zeros(2, 3)):
        result = solve_equilibrium(A, s, iteration=name)
        assert result.converged
        assert not bool(result.x.any())
    leaves = A.clone().requires_grad_(), torch.ones(2, 3, requires_grad=True)
    equilibrium(*leaves, iteration=name).mul(0).sum().backward()
    assert not bool(leaves[0].grad.any())


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_input_that_is_not_finite_is_said(name, value):
    s = torch.ones(3, 4)
    s[1, 2] = value
    with pytest.warns(ConvergenceWarning):
        assert not solve_equilibrium(torch.full((4, 4), 0.2), s, iteration=name).converged


@pytest.mark.parametrize("proposal", ["zero", "far", "nan", "random", "stale"])
@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_safeguards_overcome_any_proposal(proposal, gamma):
    rng = torch.Generator().manual_seed(0)

    class Misled(Accelerated):
        def propose(self, x, g, f, failed):
            return {
                "zero": torch.zeros_like(g),
                "far": 1e6 * torch.ones_like(g),
                "nan": torch.full_like(g, math.nan),
                "random": torch.randn(g.shape, generator=rng, dtype=g.dtype),
                "stale": x,
            }[proposal]

    P = torch.rand(5, 5, generator=rng, dtype=torch.float64)
    A = gamma * P / P.sum(dim=1, keepdim=True)
    s = torch.randn(7, 5, generator=rng, dtype=torch.float64)
    base = DiagonalResolvent().prepare(Dense(A), get_activation("relu"), s)
    end = run(Misled(base, patience=3), 1e-8, 200_000)
    assert end.converged
    expected = solve_equilibrium(A, s, tol=1e-13, max_steps=100_000).x
    torch.testing.assert_close(end.x, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["peaceman_rachford", "newton"])
def test_factorizations_of_a_convolution_are_refused(name):
    with pytest.raises(ValueError, match="convolution state matrix, expected a dense one"):
        ImplicitConv2d(1, 2, iteration=name)
    kernel = torch.zeros(1, 1, 3, 3)
    with pytest.raises(ValueError, match="expected a dense one"):
        solve_equilibrium(Convolution(kernel), torch.ones(1, 1, 4, 4), iteration=name)


@pytest.mark.parametrize("name", sorted(set(GLOBAL) - {"peaceman_rachford", "newton"}))
def test_convolutions_and_sparse_matrices(name):
    torch.manual_seed(0)
    layer = ImplicitConv2d(2, 3, dtype=torch.float64, gamma=0.99)
    with torch.no_grad():
        layer.A.copy_(torch.rand_like(layer.A))
    project_(layer)
    u = torch.rand(4, 2, 6, 5, dtype=torch.float64)
    best = layer.solve(u, tol=1e-12, max_steps=20_000).x
    found = layer.solve(u, tol=1e-10, max_steps=20_000, iteration=name).x
    torch.testing.assert_close(found, best, rtol=1e-6, atol=1e-7)
    A, s = problem(0, n=9, scale=3.0)
    sparse = Sparse(A.to_sparse_coo().coalesce())
    found = solve_equilibrium(sparse, s, iteration=name, tol=1e-10, max_steps=20_000).x
    torch.testing.assert_close(found, solve_equilibrium(A, s, tol=1e-12).x, rtol=0, atol=1e-8)


@given(
    seeds,
    st.sampled_from(SPECS),
    st.sampled_from(["diagonal_resolvent", *ACCELERATED]),
)
@settings(deadline=None, max_examples=60)
def test_a_large_matrix_is_not_copied(seed, spec, name):
    """What is left of A and the diagonal's part of A x takes the same way to the same point."""
    A, s = problem(seed, n=7, gamma=0.95, scale=3.0)
    A.diagonal().sub_(torch.arange(7) ** 2)
    operators = {"copied": Dense(A), "whole": Large(A)}
    for phi in (get_activation(spec), Scaling(torch.rand_like(s))):
        ends = {
            how: solve_equilibrium(A, s, phi, iteration=name, tol=1e-10)
            for how, A in operators.items()
        }
        assert torch.allclose(ends["whole"].x, ends["copied"].x, rtol=0, atol=1e-8)
        assert ends["whole"].converged == ends["copied"].converged


@pytest.mark.parametrize("spec", SPECS)
def test_newton_takes_no_more_steps_without_a_copy(spec):
    """Its right-hand side is that of A x + s, not of what the plain step makes of it."""
    rng = np.random.default_rng(0)
    A = torch.from_numpy(rng.uniform(size=(60, 60)))
    A *= 0.99 / A.sum(dim=1, keepdim=True)
    A.diagonal().sub_(torch.from_numpy(rng.uniform(0, 5, 60)))
    s = torch.from_numpy(rng.normal(size=(1, 60)))
    copied, whole = (
        solve_equilibrium(operator, s, spec, iteration="newton", tol=1e-10)
        for operator in (Dense(A), Large(A))
    )
    assert (whole.steps, whole.factorizations) == (copied.steps, copied.factorizations)


def test_no_sample_leaves_where_all_seem_done():
    """A residual may be above its target, and yet not where that is rounded as samples are."""
    problem = Case("projected", 20, 5).build()
    base = DiagonalResolvent().prepare(Dense(problem.A), get_activation("relu"), problem.s)
    way = long_way.LongWay(base, problem.A, Costs(20, 400), 1e-4, 100, 8)
    x, y = base.s.clone(), base.s.clone()
    assert way._leave_out(torch.zeros(5, dtype=torch.bool), x, y, 1e6) == (x, y)
    assert way.rows is None


@pytest.mark.parametrize("tol", [math.nan, math.inf, -1e-3, "0.1", None])
def test_tolerances_that_are_none_are_refused(tol):
    A, s = problem(0)
    with pytest.raises(ValueError, match="tol"):
        solve_equilibrium(A, s, tol=tol)
    with pytest.raises(ValueError, match="tol"):
        equilibrium(A, s, backward_tol=tol)


def test_weights_of_the_norm_may_be_in_single_precision():
    A, s = problem(0)
    eta = torch.linspace(1, 1.0625, 6)
    single, double = (solve_equilibrium(A, s, eta=e).error_bound for e in (eta, eta.double()))
    assert single == double < math.inf


def test_newton_ends_exactly_and_counts_what_it_factors():
    A, s = problem(1, n=20, batch=10)
    result = solve_equilibrium(A, s, iteration="newton", tol=1e-14)
    assert result.converged
    assert result.steps <= 8
    assert result.steps - 1 <= result.factorizations <= 10 * result.steps
    alone = solve_equilibrium(A, 100 + s.abs(), "leaky_relu(1)", iteration="newton", tol=1e-12)
    assert alone.factorizations <= 2  # one slope for all samples


@pytest.mark.parametrize("gamma", [0.99, 0.999])
def test_auto_needs_a_tenth_of_the_plain_steps_near_criticality(gamma):
    problem = Case(f"positive {gamma}", 60, 50).build(torch.float64)
    plain = solve_equilibrium(problem.A, problem.s, tol=1e-8, max_steps=100_000)
    auto = solve_equilibrium(problem.A, problem.s, tol=1e-8, iteration="auto", max_steps=100_000)
    assert auto.converged
    assert auto.steps <= plain.steps / 10


def test_auto_is_the_plain_iteration_where_the_way_is_short():
    A, s = problem(0, n=30, batch=20, scale=0.3)
    plain, auto = (solve_equilibrium(A, s, iteration=i) for i in ("diagonal_resolvent", "auto"))
    assert auto.steps == plain.steps
    assert torch.equal(auto.x, plain.x)


def test_a_sample_that_was_done_is_taken_up_again():
    """The largest state rises far before it falls: what met the tolerance then no longer does."""
    n = 40
    A = torch.diag(torch.full((n - 1,), 0.999, dtype=torch.float64), -1)
    A[1::2] *= -1
    s = torch.zeros(60, n, dtype=torch.float64)
    s[0, 0], s[1:, 5] = 1.0, 1e-3
    for name in ACCELERATED:
        result = solve_equilibrium(A, s, "leaky_relu(0.9)", iteration=name, tol=1e-6)
        assert result.converged
        defect = result.x - torch.nn.functional.leaky_relu(result.x @ A.T + s, 0.9)
        assert float(defect.abs().max()) <= 1.001e-6 * float(result.x.abs().max())


def test_auto_solves_a_gradient_by_one_factorization_where_the_samples_share_it():
    problem = Case("positive 0.99", 30, 500).build(torch.float64)
    equation = Scaling(torch.ones_like(problem.s))
    end = solve_equilibrium(problem.A, problem.s, equation, iteration="auto", tol=1e-10)
    assert (end.steps, end.factorizations, end.converged) == (1, 1, True)
    exact = torch.linalg.solve(torch.eye(30) - problem.A, problem.s.T).T
    assert torch.allclose(end.x, exact, rtol=1e-9)


@pytest.mark.parametrize("batch", [1, 30])
def test_auto_ends_a_long_gradient_by_one_factorization(batch):
    problem = Case("positive 0.999", 40, batch).build(torch.float64)
    equation = Scaling(torch.ones_like(problem.s))
    end = solve_equilibrium(problem.A, problem.s, equation, iteration="auto", tol=1e-10)
    assert (end.factorizations, end.converged) == (1, True)
    exact = torch.linalg.solve(torch.eye(40) - problem.A, problem.s.T).T
    assert torch.allclose(end.x, exact, rtol=1e-9)


@pytest.mark.parametrize("batch", [1, 3, 200])
@pytest.mark.parametrize("found", ["far", "nan"])
def test_auto_does_without_a_solution_that_is_none(monkeypatch, batch, found):
    """An elimination that has lost all digits costs a step, not the equilibrium."""
    calls = []

    def eliminated(A, factor, s):
        calls.append(len(s))
        return torch.full_like(s, {"far": 1e30, "nan": math.nan}[found])

    monkeypatch.setattr(auto_module, "eliminated", eliminated)
    monkeypatch.setattr(long_way, "eliminated", eliminated)
    problem = Case("positive 0.999", 40, batch).build(torch.float64)
    equation = Scaling(torch.ones_like(problem.s))
    end = solve_equilibrium(problem.A, problem.s, equation, iteration="auto", tol=1e-10)
    assert calls
    assert end.converged
    exact = torch.linalg.solve(torch.eye(40) - problem.A, problem.s.T).T
    assert torch.allclose(end.x, exact, rtol=1e-6)
    for steps in (1, 2, 4):
        with pytest.warns(ConvergenceWarning):
            end = solve_equilibrium(
                problem.A, problem.s, equation, iteration="auto", tol=1e-10, max_steps=steps
            )
        assert end.steps <= steps


@pytest.mark.parametrize("batch", [1, 30])
def test_auto_stays_with_the_plain_iteration_where_it_turns(batch):
    # One cycle through all states: what has no trace of slow directions gains by no jumps.
    problem = Case("cyclic 0.999", 100, batch).build(torch.float64)
    plain, auto = (
        solve_equilibrium(problem.A, problem.s, iteration=i) for i in ("diagonal_resolvent", "auto")
    )
    assert auto.converged
    assert auto.factorizations == 0
    assert auto.steps <= plain.steps


def test_auto_leaves_a_way_that_turns_for_too_long():
    A = torch.zeros(40, 40, dtype=torch.float64)
    A[torch.arange(40), torch.arange(40) - 1] = 0.99999
    s = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 40)))
    auto = solve_equilibrium(A, s, "leaky_relu(0.99999)", iteration="auto", tol=1e-10)
    assert auto.converged
    assert auto.factorizations > 0
