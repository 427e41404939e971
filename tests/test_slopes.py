"""Bounds over all slopes against the enumeration of {0, 1}ⁿ in rational arithmetic."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contraction_nets import (
    ImplicitWeights,
    NotWellPosedError,
    lipschitz_bounds,
    lipschitz_certificate,
)
from contraction_nets.certificates import branching, multipliers, reduction, sectors
from contraction_nets.certificates.multipliers import MultiplierSearch
from contraction_nets.certificates.reduction import FREE, ScaledNetwork

seeds = st.integers(0, 2**32 - 1)
KINDS = ("dense", "sparse", "triangular", "layers", "diagonal", "units", "critical", "positive")


def network(rng, kind, n=None, p=None, q=None):
    """A, B, C, D of a well-posed network of one kind."""
    n, p, q = n or rng.integers(1, 6), p or rng.integers(1, 4), q or rng.integers(1, 4)
    A = rng.normal(size=(n, n))
    B, C, D = rng.normal(size=(n, p)), rng.normal(size=(q, n)), rng.normal(size=(q, p))
    if kind == "sparse":
        A, B, C = (X * (rng.uniform(size=X.shape) < 0.4) for X in (A, B, C))
    elif kind == "triangular":
        A = np.triu(A)
    elif kind == "layers":
        layer = rng.integers(0, 3, n)
        A, B, C = A * (layer[:, None] == layer + 1), B * (layer == 0)[:, None], C * (layer > 0)
    elif kind == "positive":
        A, B, C, D = np.abs(A), np.abs(B), np.abs(C), np.abs(D)
    if kind != "layers":
        diagonal = rng.uniform(-1, 0.9, n)
        if kind == "diagonal":
            diagonal *= 10.0 ** rng.integers(0, 7, n) * np.where(diagonal > 0, 0, 1)
        np.fill_diagonal(A, 0.0)
        gamma = 1.0 - 10.0 ** rng.uniform(-10, -5) if kind == "critical" else 0.95
        room = np.where(np.abs(A).any(axis=1), gamma - diagonal, 0.0)
        A *= (room / np.maximum(np.abs(A).sum(axis=1), 1e-9))[:, None]
        np.fill_diagonal(A, diagonal)
    if kind == "units":
        scale = 10.0 ** rng.uniform(-30, 30, n)
        A, B, C = A * scale[:, None] / scale, B * scale[:, None], C / scale
    units = 10.0 ** rng.choice([0, -30, 30], 2) if kind == "units" else np.ones(2)
    D = D * rng.choice([0.0, 1.0, 1e-3])
    return A, B * units[0], C * units[1], D * units[0] * units[1]


def row(A, B, C, D, slopes, output):
    """Row `output` of C (I − SA)⁻¹ S B + D as fractions, by elimination."""
    n, p = B.shape
    S = [Fraction(float(s)) for s in slopes]
    lines = [
        [Fraction(i == j) - S[i] * Fraction(float(A[i, j])) for j in range(n)]
        + [S[i] * Fraction(float(B[i, j])) for j in range(p)]
        for i in range(n)
    ]
    for k in range(n):
        lines[k] = [x / lines[k][k] for x in lines[k]]
        for i in range(n):
            if i != k and lines[i][k]:
                factor = lines[i][k]
                lines[i] = [x - factor * y for x, y in zip(lines[i], lines[k], strict=True)]
    C, D = ([Fraction(float(v)) for v in X[output]] for X in (C, D))
    return [D[j] + sum(C[i] * lines[i][n + j] for i in range(n)) for j in range(p)]


def gain(*arguments):
    return sum(map(abs, row(*arguments)))


def exact_maximum(A, B, C, D):
    corners = product([0, 1], repeat=len(A))
    return max(gain(A, B, C, D, S, k) for S in corners for k in range(len(C)))


def check(weights, bounds, maximum):
    """Everything that a result says, in exact arithmetic."""
    assert 0 <= Fraction(bounds.lower) <= maximum <= Fraction(bounds.upper)
    assert bounds.upper <= bounds.lp == lipschitz_certificate(*weights).bound
    attained = row(*weights, bounds.slopes, bounds.output)
    assert set(bounds.slopes) <= {0.0, 1.0}
    assert set(bounds.inputs) <= {-1.0, 1.0}
    moved = sum(Fraction(sign) * value for sign, value in zip(bounds.inputs, attained, strict=True))
    assert moved >= Fraction(bounds.lower)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(KINDS), seeds)
def test_the_exact_value_is_between_the_bounds(kind, seed):
    rng = np.random.default_rng(seed)
    weights = network(rng, kind)
    bounds, maximum = lipschitz_bounds(*weights), exact_maximum(*weights)
    check(weights, bounds, maximum)
    if kind != "critical":
        assert bounds.exact
    if bounds.exact:
        # Where no gain is left at all, rounding is all there is.
        nothing = Fraction(bounds.lp * 1e-250) + Fraction(1e-300)
        limit = Fraction(bounds.lower) * (1 + Fraction(1, 10**6)) + nothing
        assert Fraction(bounds.upper) <= limit
    interior = rng.uniform(size=len(weights[0]))
    assert all(gain(*weights, interior, k) <= bounds.upper for k in range(len(weights[2])))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), seeds, st.integers(0, 8))
def test_bounds_hold_wherever_the_search_ends(kind, seed, max_nodes):
    weights = network(np.random.default_rng(seed), kind, n=4)
    bounds = lipschitz_bounds(*weights, max_nodes=max_nodes)
    assert bounds.nodes <= max_nodes
    check(weights, bounds, exact_maximum(*weights))


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(KINDS), seeds)
def test_more_nodes_never_loosen_a_bound(kind, seed):
    weights = network(np.random.default_rng(seed), kind, n=6, q=2)
    found = [lipschitz_bounds(*weights, max_nodes=m, tol=1e-9) for m in (0, 1, 2, 4, 8, 16, 64)]
    assert (np.diff([bounds.upper for bounds in found]) <= 0).all()
    assert (np.diff([bounds.lower for bounds in found]) >= 0).all()
    assert (np.diff([bounds.nodes for bounds in found]) >= 0).all()


def linear_bound(reduced, k):
    """|c′| (I − M′)⁻¹ |B′| 1 + |d′| 1 of network k of a batch, in float64."""
    free = reduced.free[k]
    n = len(free)
    A, B = reduced.states[k][free][:, :n][:, free], reduced.states[k][free][:, n:]
    K = np.eye(len(A)) - np.where(np.eye(len(A), dtype=bool), A, np.abs(A))
    z = np.linalg.solve(K, np.abs(B).sum(axis=1))
    return np.abs(reduced.output[k, :n][free]) @ z + np.abs(reduced.output[k, n:]).sum()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), seeds, st.sampled_from([1e-9, 1e-6, 1e-2]))
@example("dense", 1156340, 1e-2)  # inputs that hardly arrive
@example("diagonal", 98, 1e-2)  # a state a million times as stiff as the others
@example("diagonal", 105, 1e-9)  # multipliers that rounding puts outside the cone
def test_sectors_hold_and_are_no_worse_than_the_linear_program(kind, seed, accuracy):
    rng = np.random.default_rng(seed)
    weights = network(rng, kind, n=5, q=1)
    scaled = ScaledNetwork.of(lipschitz_certificate(*weights))
    patterns = rng.integers(FREE, 2, (6, 5)).astype(np.int8)
    patterns[0] = FREE
    reduced = scaled.reduce(patterns, np.zeros(6, dtype=np.intp))
    bounds, guesses, scores = sectors.sector_bounds(reduced, scaled.z, accuracy)
    assert ((guesses >= 0) & (guesses <= 1)).all()
    assert ((scores >= 0) == reduced.free).all()
    for k, pattern in enumerate(patterns):
        if kind != "critical":
            assert bounds[k] <= linear_bound(reduced, k) * (1 + 2 * accuracy + 1e-8) + 1e-6
        elif np.isinf(bounds[k]):
            continue
        parts = product(*([0, 1] if s == FREE else [s] for s in pattern))
        largest = max(gain(*weights, S, 0) for S in parts)
        assert largest <= Fraction(bounds[k]) * Fraction(2) ** scaled.exponent


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), seeds)
def test_a_reduced_network_contains_the_exact_one(kind, seed):
    rng = np.random.default_rng(seed)
    weights = network(rng, kind, n=4, q=2)
    scaled = ScaledNetwork.of(lipschitz_certificate(*weights))
    pattern = rng.integers(0, 2, 4).astype(np.int8)
    reduced = scaled.reduce(pattern[None], np.array([1]))
    unit = Fraction(2) ** scaled.exponent
    exact = row(*weights, pattern, 1)
    for value, middle, radius in zip(
        exact, reduced.output[0, 4:], reduced.output_radius[0, 4:], strict=True
    ):
        assert abs(value / unit - Fraction(middle)) <= Fraction(radius)


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from(["states", "output"]), st.booleans())
def test_sectors_cover_every_network_within_the_radii(seed, where, positive):
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    states, output = rng.normal(size=(n, n + p)), rng.normal(size=n + p)
    states[:, :n] *= 0.6 / np.abs(states[:, :n]).sum(axis=1)[:, None]
    if positive:  # where the bound of the middle is attained, and no radius can hide
        states, output = np.abs(states), np.abs(output)
    radii = {"states": np.zeros_like(states), "output": np.zeros_like(output)}
    radii[where] += 0.1 / n
    largest = np.abs(states) + radii["states"]
    z = np.linalg.solve(np.eye(n) - largest[:, :n], largest[:, n:].sum(axis=1)) * (1 + 1e-9)
    free = np.ones((1, n), dtype=bool)
    batch = (X[None] for X in (states, radii["states"], output, radii["output"]))
    bound = sectors.sector_bounds(reduction.Reduced(free, *batch), z, 1e-9)[0][0]
    for _ in range(8):
        other = states + radii["states"] * (1 if positive else rng.choice([-1, 1], states.shape))
        direct = output + radii["output"] * (1 if positive else rng.choice([-1, 1], output.shape))
        weights = other[:, :n], other[:, n:], direct[None, :n], direct[None, n:]
        assert exact_maximum(*weights) <= Fraction(bound)


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from([1 - 1e-3, 1 - 1e-9, 1 - 1e-14]))
@example(7, 1 - 2.0**-50)
def test_the_inverse_is_bounded_from_above(seed, gamma):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.6)
    A *= gamma / np.maximum(np.abs(A).sum(axis=1), 1e-9)[:, None]
    N = reduction._inverse_bound(A, A != 0)
    if N is None:
        assert gamma > 1 - 1e-12
        return
    M = np.where(np.eye(n, dtype=bool), A, np.abs(A))
    for i, j in product(range(n), repeat=2):
        product_ = sum(Fraction(M[i, k]) * Fraction(N[k, j]) for k in range(n))
        assert Fraction(N[i, j]) - product_ >= (i == j)


def test_twenty_states_to_the_last_digit():
    weights = network(np.random.default_rng(3), "dense", 20, 4, 3)
    bounds = lipschitz_bounds(*weights)
    assert bounds.exact
    assert bounds.upper <= bounds.lower * (1 + 1e-6)
    assert bounds.lower <= float(gain(*weights, bounds.slopes, bounds.output))
    polynomial = lipschitz_bounds(*weights, max_nodes=3)
    assert bounds.upper <= polynomial.upper < bounds.lp / 10


@pytest.mark.parametrize("broken", ["nothing", "multipliers", "search", "inverse"])
def test_a_search_that_fails_costs_tightness_only(monkeypatch, broken):
    weights = network(np.random.default_rng(4), "dense", 4, 2, 2)
    maximum = exact_maximum(*weights)
    if broken == "multipliers":
        rng = np.random.default_rng(0)

        def run(search, accuracy, goal):
            search.theta = search.theta * rng.uniform(-0.2, 1.5, search.theta.shape)

        monkeypatch.setattr(MultiplierSearch, "run", run)
    elif broken == "search":

        def fail(*_):
            raise np.linalg.LinAlgError

        monkeypatch.setattr(multipliers, "_solve", fail)
    elif broken == "inverse":
        monkeypatch.setattr(reduction, "eliminate", lambda K: None)
    bounds = lipschitz_bounds(*weights, max_nodes=12)
    check(weights, bounds, maximum)
    assert bounds.exact == (broken == "nothing")
    # Once every slope is decided, nothing has to be searched for.
    bounds = lipschitz_bounds(*weights)
    check(weights, bounds, maximum)
    assert bounds.exact == (broken != "inverse")


def test_a_solver_that_errs_widens_the_radii(monkeypatch):
    weights = network(np.random.default_rng(5), "dense", 4, 2, 2)
    exact, honest = exact_maximum(*weights), np.linalg.solve
    noise = np.random.default_rng(0)

    def rough(matrices, right):
        return honest(matrices, right) * noise.uniform(1 - 1e-3, 1 + 1e-3, right.shape)

    monkeypatch.setattr(np.linalg, "solve", rough)
    check(weights, lipschitz_bounds(*weights), exact)

    def singular(matrices, right):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(np.linalg, "solve", singular)
    check(weights, lipschitz_bounds(*weights), exact)


def test_it_can_be_interrupted_and_watched():
    weights = network(np.random.default_rng(6), "dense", 14, 3, 2)
    maximum = lipschitz_bounds(*weights)
    seen = []

    def interrupt(bounds):
        seen.append(bounds)
        if len(seen) == 2:
            raise KeyboardInterrupt

    bounds = lipschitz_bounds(*weights, tol=1e-9, on_progress=interrupt)
    assert bounds.nodes == seen[1].nodes < maximum.nodes + 50
    assert bounds.lower <= maximum.upper
    assert maximum.lower <= bounds.upper <= seen[0].upper <= bounds.lp
    now = lipschitz_bounds(*weights, time_limit=0)
    assert now.nodes == 0
    assert now.lower <= maximum.upper
    assert maximum.lower <= now.upper == now.lp


def test_an_interruption_anywhere_leaves_valid_bounds(monkeypatch):
    weights = network(np.random.default_rng(8), "dense", 5, 2, 2)
    maximum = exact_maximum(*weights)
    for moment in range(0, 12, 2):
        calls = []
        honest = sectors.sector_bounds

        def interrupted(*arguments, calls=calls, moment=moment, honest=honest, **options):
            calls.append(None)
            if len(calls) > moment:
                raise KeyboardInterrupt
            return honest(*arguments, **options)

        monkeypatch.setattr(branching, "sector_bounds", interrupted)
        check(weights, lipschitz_bounds(*weights, tol=1e-9), maximum)
        monkeypatch.setattr(branching, "sector_bounds", honest)


def test_what_is_known_in_closed_form():
    one = lipschitz_bounds([[-3.0]], [[2.0]], [[4.0]], [[-1.0]])
    # Slope 0 gives |−1|, slope 1 gives |8/4 − 1|.
    assert (one.lower, one.upper) == (pytest.approx(1.0), pytest.approx(1.0, rel=1e-6))
    assert lipschitz_certificate([[-3.0]], [[2.0]], [[4.0]], [[-1.0]]).bound == pytest.approx(3.0)
    zero = lipschitz_bounds(np.zeros((2, 2)), np.zeros((2, 1)), np.ones((1, 2)))
    assert zero.lower == 0.0
    assert zero.upper < 1e-250
    assert zero.exact
    cancelled = lipschitz_bounds(0.5 * np.eye(2), np.ones((2, 1)), [[1.0, -1.0]])
    assert cancelled.upper == pytest.approx(2.0, rel=1e-6)
    assert cancelled.lp == pytest.approx(4.0)


def test_arguments_and_refusals():
    one = np.ones((1, 1))
    weights = ImplicitWeights(0.5 * one, one, one, activation="tanh")
    assert lipschitz_bounds(weights).upper == lipschitz_bounds(0.5 * one, one, one).upper
    with pytest.raises(NotWellPosedError):
        lipschitz_bounds(2 * one, one, one)
    with pytest.raises(ValueError, match="max_nodes = -1"):
        lipschitz_bounds(weights, max_nodes=-1)
    with pytest.raises(ValueError, match="time_limit"):
        lipschitz_bounds(weights, time_limit=float("nan"))
    with pytest.raises(ValueError, match="tol = 0"):
        lipschitz_bounds(weights, tol=0)
    with pytest.raises(ValueError, match="without B or C"):
        lipschitz_bounds(one)
