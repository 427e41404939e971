"""The Lipschitz certificate against enumeration, rational arithmetic, HiGHS and the network."""

import contextlib
import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from contraction_nets import (
    ImplicitWeights,
    NotWellPosedError,
    SolverError,
    UnknownSolverError,
    available_solvers,
    lipschitz_certificate,
    matrix_measure,
)
from contraction_nets.certificates import lipschitz, well_posed
from contraction_nets.certificates.document import load_certificate, verify_document
from contraction_nets.certificates.elimination import eliminate, solve_factored
from contraction_nets.solving.solution import Solution, Status

seeds = st.integers(0, 2**32 - 1)


def majorant(A):
    return np.where(np.eye(len(A), dtype=bool), A, np.abs(A))


def contracting(rng, n, gamma, *, spread=1.0):
    """A with M(A) η ≤ γ η for random weights η, rows on the boundary or inside."""
    eta = np.exp(spread * rng.normal(size=n))
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < rng.choice([0.4, 1.0]))
    d = rng.choice([0.0, 0.3, -0.5, -5.0], n) * rng.uniform(size=n)
    off = (np.abs(A) @ eta - np.abs(np.diag(A)) * eta) / eta
    A *= ((gamma - d) * rng.choice([0.5, 1.0], n) / np.maximum(off, 1e-9))[:, None]
    np.fill_diagonal(A, np.minimum(d, gamma))
    return A


def network(rng, n=None, p=None, q=None, *, gamma=None, spread=1.0):
    """A, B, C, D of a well-posed network with varied signs, scales and diagonals."""
    n, p, q = n or rng.integers(1, 7), p or rng.integers(1, 4), q or rng.integers(1, 4)
    A = contracting(rng, n, rng.uniform(0.1, 0.98) if gamma is None else gamma, spread=spread)
    B, C, D = (rng.normal(size=s) * 10.0 ** rng.integers(-2, 3) for s in ((n, p), (q, n), (q, p)))
    return A, B * (rng.uniform(size=(n, 1)) < 0.8), C, D * rng.integers(0, 2)


def enumerated_bound(A, B, C, D):
    """Largest ‖C (I − SA)⁻¹ S B + D‖∞ over all diagonal S with entries 0 or 1."""
    n = len(A)
    slopes = (np.arange(2**n)[:, None] >> np.arange(n) & 1)[:, :, None].astype(float)
    states = np.linalg.solve(np.eye(n) - slopes * A, slopes * B)
    return float(np.abs(C @ states + D).sum(axis=2).max())


def exact_optimum(A, B, C, D):
    """The optimum as a fraction, by elimination; None where I − M is no M-matrix."""
    n = len(A)
    b = [sum((abs(Fraction(v)) for v in row), Fraction(0)) for row in B.tolist()]
    rows = [[Fraction(i == j) - Fraction(majorant(A)[i, j]) for j in range(n)] for i in range(n)]
    for k in range(n):
        if rows[k][k] <= 0:
            return None
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
            b[i] -= factor * b[k]
    z = [Fraction(0)] * n
    for i in reversed(range(n)):
        z[i] = (b[i] - sum(rows[i][j] * z[j] for j in range(i + 1, n))) / rows[i][i]
    return max(
        sum(abs(Fraction(c)) * x for c, x in zip(row, z, strict=True))
        + sum(abs(Fraction(v)) for v in feed)
        for row, feed in zip(C.tolist(), D.tolist(), strict=True)
    )


@pytest.mark.parametrize("block", range(10))
def test_never_below_the_enumeration_of_all_slopes(block):
    rng = np.random.default_rng(block)
    for trial in range(100):
        weights = network(rng, n=8 if trial % 20 == 0 else None)
        certificate = lipschitz_certificate(*weights)
        assert certificate.verify()
        assert certificate.bound >= enumerated_bound(*weights) * (1 - 1e-12)
        assert certificate.bound <= certificate.norm_product_bound * (1 + 1e-12) + 1e-250


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_attained_where_no_sign_can_help(seed):
    A, B, C, D = network(np.random.default_rng(seed))
    positive = majorant(A), np.abs(B), np.abs(C), np.abs(D)
    bound = lipschitz_certificate(A, B, C, D).bound
    assert enumerated_bound(*positive) == pytest.approx(bound, rel=1e-10)


def nearly_critical(rng, abscissa):
    """A whose M(A) has this spectral abscissa up to rounding, some reducible, of any units."""
    n = int(rng.integers(1, 7))
    v = np.exp(rng.choice([0.0, 1.0, 8.0]) * rng.normal(size=n))
    off = rng.uniform(size=(n, n)) * (rng.uniform(size=(n, n)) < rng.choice([0.3, 0.7, 1.0]))
    if rng.uniform() < 0.3:
        off = np.triu(off)
    off *= v[:, None] / v * 10.0 ** rng.integers(-3, 2)
    np.fill_diagonal(off, 0.0)
    A = off * rng.choice([-1, 1], (n, n))
    np.fill_diagonal(A, abscissa - off @ v / v)
    # Blocks that nothing couples to the rest may lie anywhere below.
    return A if rng.uniform() < 0.7 else A - np.diag(rng.uniform(size=n) < 0.5) * 0.5


@pytest.mark.parametrize("block", range(10))
def test_ten_thousand_nets_around_the_limit(block):
    rng = np.random.default_rng(1000 + block)
    proved = 0
    for _ in range(1000):
        distance = float(rng.choice([-1e-2, -1e-6, -1e-9, -1e-12, -1e-15, 0.0, 1e-12, 1e-9]))
        A = nearly_critical(rng, 1.0 + distance)
        n = len(A)
        B = rng.normal(size=(n, 2)) * (rng.uniform(size=(n, 1)) < 0.7) * 10.0 ** rng.integers(-9, 9)
        C, D = rng.normal(size=(2, n)), np.zeros((2, 2))
        try:
            certificate = lipschitz_certificate(A, B, C)
        except (NotWellPosedError, SolverError):
            assert distance > -1e-9
            continue
        proved += 1
        optimum = exact_optimum(A, B, C, D)
        assert optimum is not None
        assert Fraction(certificate.bound) >= optimum
    assert proved > 300


@settings(deadline=None, max_examples=120)
@given(seeds, st.sampled_from([0.5, 0.99, 1 - 1e-5, 1 - 1e-9, 1.0, 1 + 1e-9, 1.2]))
@example(9743, 1 - 1e-9)  # nearly critical states that no input reaches
def test_agrees_with_the_rational_optimum(seed, gamma):
    rng = np.random.default_rng(seed)
    weights = network(rng, gamma=gamma, spread=rng.choice([0.0, 1.0, 8.0]))
    optimum = exact_optimum(*weights)
    if optimum is None:
        with pytest.raises(NotWellPosedError):
            lipschitz_certificate(*weights)
        return
    try:
        certificate = lipschitz_certificate(*weights)
    except (NotWellPosedError, SolverError):
        assert gamma >= 1.0  # well-posed by no more than rounding
        return
    assert certificate.verify()
    assert Fraction(certificate.bound) >= optimum
    if gamma < 1.0:
        # The witness of the optimum, plus the first inflation of witness.py and as much again
        # for the rounding of I − M: a few roundings, amplified by the network itself.
        A, B, C, D = weights
        K = np.eye(len(A)) - majorant(A)
        scale = np.abs(K) @ certificate.witness + np.abs(B).sum(axis=1)
        inflated = np.abs(C) @ np.linalg.solve(K, scale) + np.abs(D).sum(axis=1)
        loss = Fraction(certificate.bound) - optimum
        assert loss <= Fraction(2.0**-49 * inflated.max()) + Fraction(1e-250)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 7),
    seeds,
    st.sampled_from([1 - 1e-6, 1 - 1e-9, 1.0, 1 + 2.0**-52, 1 + 1e-9, 3.0]),
    st.booleans(),
)
def test_the_limit_of_well_posedness(n, seed, abscissa, reducible):
    # A cycle through all states, its weights powers of two: the abscissa is exact.
    rng = np.random.default_rng(seed)
    order, scale = rng.permutation(n), rng.integers(-60, 60, n)
    A = np.zeros((n, n))
    for i, j in zip(order, np.roll(order, 1), strict=True):
        A[i, j] = abscissa * 2.0 ** (scale[i] - scale[j]) * (1 if i == j else rng.choice([-1, 1]))
    if reducible:
        A = np.block([[A, np.zeros((n, n))], [rng.normal(size=(n, n)), 0.5 * np.eye(n)]])
    B, C = rng.normal(size=(len(A), 2)), rng.normal(size=(2, len(A)))
    if abscissa >= 1:
        with pytest.raises(NotWellPosedError) as caught:
            lipschitz_certificate(A, B, C)
        assert caught.value.measure == matrix_measure(A)
        assert caught.value.abscissa == pytest.approx(abscissa, rel=1e-6)
        assert "expected below 1" in str(caught.value) or abscissa < 1 + 1e-6
    else:
        certificate = lipschitz_certificate(A, B, C)
        assert certificate.verify()
        assert certificate.measure_weighted < 1
        assert certificate.abscissa == pytest.approx(abscissa, rel=1e-6)


def test_feed_forward_chains_in_any_order():
    # Nilpotent, and a condition number of 1e130: pivoting would lose every digit.
    rng = np.random.default_rng(3)
    order = rng.permutation(50)
    A = (np.triu(rng.uniform(1, 2, (50, 50)), 1) * 1e2)[np.ix_(order, order)]
    certificate = lipschitz_certificate(A, rng.normal(size=(50, 2)), rng.normal(size=(2, 50)))
    assert certificate.verify()
    optimum = exact_optimum(A, certificate.weights.B, certificate.weights.C, np.zeros((2, 1)))
    assert 0 <= Fraction(certificate.bound) / optimum - 1 < Fraction(1, 10**12)
    assert certificate.measure_weighted < 1
    assert certificate.measure > 1e3
    assert certificate.norm_product_bound == math.inf


@pytest.mark.parametrize(("n", "p", "q"), [(1, 1, 1), (20, 5, 3), (40, 10, 10)])
def test_same_value_as_highs_and_weak_duality(n, p, q):
    rng = np.random.default_rng(n)
    A, B, C, D = network(rng, n, p, q, gamma=0.9)
    certificate = lipschitz_certificate(A, B, C, D)
    K, b = np.eye(n) - majorant(A), np.abs(B).sum(axis=1)
    left = np.block([[-K, np.zeros((n, 1))], [np.abs(C), -np.ones((q, 1))]])
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    result = linprog(
        np.append(np.zeros(n), 1.0),
        left,
        np.append(-b, -np.abs(D).sum(axis=1)),
        bounds=[(0, None)] * n + [(None, None)],
        options=tight,
    )
    assert certificate.bound == pytest.approx(result.fun, rel=1e-9)
    assert abs(certificate.primal_dual_gap) < 1e-12
    assert (K.T @ certificate.dual <= np.abs(C).T @ certificate.output_dual + 1e-9).all()
    value = b @ certificate.dual + np.abs(D).sum(axis=1) @ certificate.output_dual
    assert value == pytest.approx(certificate.dual_value, rel=1e-12)
    for _ in range(20):
        z = np.linalg.solve(K, b + rng.exponential(size=n))
        assert (np.abs(C) @ z + np.abs(D).sum(axis=1)).max() >= certificate.bound * (1 - 1e-12)
    np.testing.assert_allclose(
        certificate.gains, np.abs(C) @ np.linalg.solve(K, np.abs(B)) + np.abs(D), rtol=1e-9
    )
    assert certificate.gains.sum(axis=1).max() == pytest.approx(certificate.bound, rel=1e-12)


@pytest.mark.parametrize("solver", available_solvers("linear program"))
def test_every_backend_ends_at_the_same_proof(solver):
    weights = ImplicitWeights(*network(np.random.default_rng(5), 12, 4, 3, gamma=0.8))
    reference, certificate = (
        lipschitz_certificate(weights, solver=s) for s in ("m_matrix", solver)
    )
    assert certificate.solver == solver
    assert certificate.verify()
    assert certificate.bound == pytest.approx(reference.bound, rel=1e-12)
    assert abs(certificate.primal_dual_gap) < 1e-5


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 1 + 1e-3, 1e6])
@pytest.mark.parametrize("with_dual", [True, False])
def test_an_inaccurate_solver_costs_nothing_but_its_time(monkeypatch, factor, with_dual):
    weights = network(np.random.default_rng(6), 9, 3, 2)
    reference = lipschitz_certificate(*weights)

    def inaccurate(problem, solver):
        z = factor * np.linalg.solve(np.eye(9) - problem.M, problem.b)
        duals = (np.zeros(9), np.array([1.0, 0.0])) if with_dual else (None, None)
        return Solution(problem, solver, Status.OPTIMAL_INACCURATE, z, *duals)

    monkeypatch.setattr("contraction_nets.solving.registry.solve", inaccurate)
    certificate = lipschitz_certificate(*weights, solver="anything")
    assert certificate.verify()
    assert certificate.bound == pytest.approx(reference.bound, rel=1e-12)
    # A useless dual is seen in the gap; a missing one is computed.
    assert (certificate.primal_dual_gap > 0.01) == with_dual


@pytest.mark.parametrize(
    ("status", "z"),
    [
        (Status.TIME_LIMIT, np.ones(3)),
        (Status.INFEASIBLE, None),
        (Status.OPTIMAL, np.ones(4)),
        (Status.OPTIMAL, np.full(3, np.nan)),
    ],
)
def test_a_solver_that_fails_is_an_error(monkeypatch, status, z):
    monkeypatch.setattr(
        "contraction_nets.solving.registry.solve",
        lambda problem, solver: Solution(problem, solver, status, z),
    )
    with pytest.raises(SolverError, match="expected"):
        lipschitz_certificate(0.1 * np.eye(3), np.ones((3, 1)), np.ones((1, 3)))


def test_the_exact_check_decides_and_not_the_proposal(monkeypatch):
    weights = network(np.random.default_rng(7), 5, 2, 2)
    reference = lipschitz_certificate(*weights)
    short = np.nextafter(reference.witness * (1 - 1e-12), 0.0)
    proposals = [short, reference.witness]
    monkeypatch.setattr(lipschitz.ScaledProgram, "witnesses", lambda *_: iter(proposals))
    assert lipschitz_certificate(*weights).bound == reference.bound
    proposals[1] = short
    with pytest.raises(SolverError, match="no witness in float64 proves"):
        lipschitz_certificate(*weights)
    monkeypatch.setattr(well_posed, "well_posed_witnesses", lambda *_: iter([-np.ones(5)]))
    with pytest.raises(NotWellPosedError, match="for a proof in float64"):
        lipschitz_certificate(*weights)


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_verification_sees_every_change(seed):
    rng = np.random.default_rng(seed)
    A, B, C, D = network(rng)
    B[rng.integers(len(B))] += 1.0
    certificate = lipschitz_certificate(A, B, C, D)
    bound, z = certificate.bound, certificate.witness
    assert not replace(certificate, bound=math.nextafter(bound, 0.0)).verify()
    assert replace(certificate, bound=math.nextafter(bound, math.inf)).verify()
    assert not replace(certificate, witness=z * (1 - 1e-6)).verify()
    assert not replace(certificate, witness=-z).verify()
    i, k = int(np.abs(B).sum(axis=1).argmax()), int((np.abs(C) @ z + np.abs(D).sum(1)).argmax())
    louder = B.copy()
    louder[i] *= 1 + 1e-6
    steeper = A.copy()
    steeper[i, i] = 1.0
    for changed in ((A, louder, C, D), (steeper, B, C, D)):
        assert not replace(certificate, weights=ImplicitWeights(*changed)).verify()
    larger, fed = C.copy(), D.copy()
    larger[k] *= 1 + 1e-6
    fed[k] += np.where(fed[k] < 0, -1.0, 1.0) * 1e-6 * bound
    assert not replace(certificate, weights=ImplicitWeights(A, B, C, fed)).verify()
    if np.abs(C[k]) @ z > 1e-6 * bound:
        assert not replace(certificate, weights=ImplicitWeights(A, B, larger, D)).verify()


@settings(deadline=None, max_examples=60)
@given(
    seeds, st.sampled_from([np.float32, np.float64]), st.sampled_from([1.0, 1e-322, 1e-300, 1e150])
)
def test_pairwise_gains_are_upper_roundings(seed, dtype, scale):
    if dtype is np.float32:
        scale = min(scale, 1.0) if scale >= 1.0 else 1e-30
    rng = np.random.default_rng(seed)
    A, B, C, D = (x.astype(dtype) for x in network(rng, q=3))
    weights = ImplicitWeights(A, B, C * dtype(scale), D * dtype(scale))
    certificate = lipschitz_certificate(weights)
    gains, z = certificate.pairwise_gains(), [Fraction(v) for v in certificate.witness.tolist()]
    c, d = weights.C.tolist(), weights.D.tolist()
    for i in range(3):
        for j in range(3):
            exact = sum(
                abs(Fraction(u) - Fraction(v)) * t for u, v, t in zip(c[i], c[j], z, strict=True)
            ) + sum(abs(Fraction(u) - Fraction(v)) for u, v in zip(d[i], d[j], strict=True))
            assert Fraction(gains[i, j]) >= exact
            assert gains[i, j] <= float(exact) * (1 + 1e-12) + 1e-303 * (1 + float(max(z)))
    assert (np.diag(gains) == 0).all()
    assert (gains == gains.T).all()
    # What a flushed product may lose is in units of z, as above.
    assert (gains <= 2 * certificate.bound * (1 + 1e-12) + 1e-303 * (1 + float(max(z)))).all()


def test_pairwise_gains_count_what_underflows():
    n = 40
    C = np.array([[1e-323] * n, [0.0] * n])  # times 1.2 this rounds down, forty times
    certificate = lipschitz_certificate(np.zeros((n, n)), np.full((n, 1), 1.2), C)
    exact = sum(Fraction(1e-323) * Fraction(v) for v in certificate.witness.tolist())
    assert Fraction(certificate.pairwise_gains()[0, 1]) >= exact
    assert Fraction(certificate.bound) >= exact


def equilibrium(A, s, phi):
    """x = φ(Ax + s) by the average iteration of THEORY §6."""
    step = 1 / (1 - min(np.diag(A).min(), 0.0))
    x = np.zeros_like(s)
    for _ in range(700):
        x = (1 - step) * x + step * phi(x @ A.T + s)
    np.testing.assert_allclose(x, phi(x @ A.T + s), atol=1e-11)
    return x


ACTIVATIONS = {
    "relu": lambda y: np.maximum(y, 0.0),
    "leaky_relu(0.2)": lambda y: np.where(y > 0, y, 0.2 * y),
    "tanh": np.tanh,
    "elu": lambda y: np.where(y > 0, y, np.expm1(np.minimum(y, 0.0))),
    "softplus": lambda y: np.logaddexp(0.0, y),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_network_itself_never_changes_more(activation):
    rng = np.random.default_rng(8)
    A, (n, p, q) = contracting(rng, 6, 0.8), (6, 3, 4)
    B, C, D = rng.normal(size=(n, p)), rng.normal(size=(q, n)), rng.normal(size=(q, p))
    certificate = lipschitz_certificate(
        ImplicitWeights(
            A, B, C, D, b=rng.normal(size=n), c=rng.normal(size=q), activation=activation
        )
    )
    b, phi = certificate.weights.b, ACTIVATIONS[activation]
    u = rng.normal(size=(2000, p)) * 10.0 ** rng.uniform(-1, 2, (2000, 1))
    v = u + rng.choice([-1.0, 1.0], u.shape) * 10.0 ** rng.uniform(-3, 2, (2000, 1))

    def outputs(u):
        return equilibrium(A, u @ B.T + b, phi) @ C.T + u @ D.T

    change, distance = outputs(u) - outputs(v), np.abs(u - v).max(axis=1)
    slack = 1 + 1e-6
    quotient = np.abs(change) / distance[:, None]
    assert quotient.max() <= certificate.bound * slack
    assert quotient.max() >= 0.05 * certificate.bound  # the samples do test something
    per_input = np.abs(change) <= (np.abs(u - v) @ certificate.gains.T) * slack
    assert per_input.all()
    differences = np.abs(change[:, :, None] - change[:, None, :]) / distance[:, None, None]
    assert (differences.max(axis=0) <= certificate.pairwise_gains() * slack + 1e-9).all()


@pytest.mark.parametrize("exponent", [-300, -150, 0, 150, 300])
def test_scales_of_inputs_outputs_and_states(exponent):
    A, B, C, D = network(np.random.default_rng(9), 5, 2, 3, gamma=0.9)
    B[:] = np.where(B == 0, 1.0, B)
    reference = lipschitz_certificate(A, B, C, D)
    s = 2.0**exponent
    np.testing.assert_allclose(lipschitz_certificate(A, B * s, C, D * s).bound / s, reference.bound)
    np.testing.assert_allclose(lipschitz_certificate(A, B, C * s, D * s).bound / s, reference.bound)
    opposite = lipschitz_certificate(A, B * s, C / s, D)
    np.testing.assert_allclose(opposite.bound, reference.bound)
    t = 2.0 ** np.round(np.linspace(-abs(exponent), abs(exponent), 5))
    scaled = lipschitz_certificate(A * t[:, None] / t, B * t[:, None], C / t, D)
    np.testing.assert_allclose(scaled.bound, reference.bound, rtol=1e-12)
    np.testing.assert_allclose(scaled.gains, reference.gains, rtol=1e-10)
    assert opposite.verify()
    assert scaled.verify()


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_extreme_numbers_are_proved_or_refused(seed):
    rng = np.random.default_rng(seed)
    n, order = 4, rng.permutation(4)
    values = [0.0, 5e-324, 1e-300, 1e-30, 1.0, 1e30, 1e300]
    A = np.triu(rng.choice(values, (n, n)), 1)[np.ix_(order, order)] * rng.choice([-1, 1], (n, n))
    np.fill_diagonal(A, rng.choice([0.0, -5e-324, -1e300, 1 - 1e-15, 0.5], n))
    B, C = rng.choice(values, (n, 2)), rng.choice(values, (2, n))
    optimum = exact_optimum(A, B, C, np.zeros((2, 1)))
    try:
        certificate = lipschitz_certificate(A, B, C)
    except (NotWellPosedError, SolverError, ValueError) as error:
        message = str(error)
        assert "expected" in message or "proof in float64" in message
    else:
        assert Fraction(certificate.bound) >= optimum
        assert certificate.verify()
        json.loads(certificate.to_json())


def test_zero_matrices():
    zero = np.zeros((3, 2))
    A, C, D = 0.3 * np.ones((3, 3)), np.ones((2, 3)), np.array([[0.5, -0.25], [0.0, 0.0]])
    assert lipschitz_certificate(A, zero, C, D).bound == pytest.approx(0.75, rel=1e-15)
    assert lipschitz_certificate(A, zero, C).bound < 1e-250
    assert lipschitz_certificate(A, zero, 0 * C).bound == 0.0
    silent = lipschitz_certificate(A, np.ones((3, 2)), 0 * C)
    assert (silent.bound, silent.norm_product_bound, silent.primal_dual_gap) == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(silent.pairwise_gains()[0, 0], 0.0)
    one = lipschitz_certificate([[-3.0]], [[2.0]], [[4.0]], [[1.0]])
    assert one.bound == pytest.approx(3.0, rel=1e-14)
    assert one.norm_product_bound == pytest.approx(9.0, rel=1e-14)


def test_what_leaves_the_range_of_float64_is_refused():
    with pytest.raises(ValueError, match="exceeds the largest float64"):
        lipschitz_certificate([[0.0]], [[1e200]], [[1e200]])
    with pytest.raises(SolverError, match="range"):
        lipschitz_certificate([[0.99]], [[1.7e308]], [[1e-300]])
    assert lipschitz_certificate([[0.9]], [[1e-200]], [[1e-200]]).bound <= 1e-300


def test_the_norm_product_bound_is_rounded_up():
    rng = np.random.default_rng(10)
    for _ in range(50):
        A, B, C, D = network(rng, spread=0.0)
        rows = [[Fraction(v) for v in row] for row in majorant(A).tolist()]
        slack = 1 - max(max(map(sum, rows)), 0)
        certificate = lipschitz_certificate(A, B, C, D)
        if slack <= 0:
            assert certificate.norm_product_bound == math.inf
            continue
        b, c, d = (max(sum(abs(Fraction(v)) for v in row) for row in X.tolist()) for X in (B, C, D))
        assert Fraction(certificate.norm_product_bound) >= b * c / slack + d
        expected = float(b * c / slack + d)
        assert certificate.norm_product_bound == pytest.approx(expected, rel=1e-12)


def test_weights_of_the_measure():
    rng = np.random.default_rng(11)
    for _ in range(20):
        A, B, C, D = network(rng, 6, spread=2.0)
        certificate = lipschitz_certificate(A, B, C, D)
        abscissa = np.linalg.eigvals(majorant(A)).real.max()
        assert certificate.measure_weighted == matrix_measure(A, certificate.eta) < 1
        assert abscissa - 1e-9 <= certificate.abscissa <= certificate.measure_weighted
        assert certificate.measure == matrix_measure(A)
    with pytest.raises(NotWellPosedError, match="spectral abscissa") as caught:
        lipschitz_certificate(np.eye(3) + 1, np.ones((3, 1)), np.ones((1, 3)))
    assert caught.value.abscissa == pytest.approx(4.0)


@pytest.fixture
def certified():
    weights = ImplicitWeights(*network(np.random.default_rng(12), 5, 2, 3), activation="tanh")
    return lipschitz_certificate(weights)


def test_the_reported_object(certified):
    report = json.loads(certified.to_json())
    assert report == certified.as_dict()
    assert set(report) == {
        *("well_posed", "mu_inf", "mu_weighted", "eta", "abscissa"),
        *("lipschitz", "shapes", "weights_sha256"),
    }
    assert set(report["lipschitz"]) == {
        *("bound", "norm_product_bound", "solver", "primal_dual_gap", "verified")
    }
    assert report["well_posed"] is report["lipschitz"]["verified"] is True
    assert report["lipschitz"]["bound"] == certified.bound
    assert report["shapes"] == {"A": [5, 5], "B": [5, 2], "C": [3, 5], "D": [3, 2]}
    infinite = lipschitz_certificate([[0.0, 2.0], [0.0, 0.0]], np.eye(2), np.eye(2))
    assert infinite.as_dict()["lipschitz"]["norm_product_bound"] is None
    wrong = replace(certified, bound=certified.bound / 2).as_dict()
    assert wrong["lipschitz"]["verified"] is False


def test_what_is_proved_is_proved_anew(certified):
    assert certified.verified
    assert certified.verify()
    for array in (certified.witness, *certified.weights.arrays().values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
    # Whoever owns an array can make it writable; then only `verify` counts.
    certified.weights.A.setflags(write=True)
    certified.weights.A[0, 0] = 2.0
    assert not certified.verify()
    other = replace(certified, weights=ImplicitWeights(**certified.weights.arrays()))
    assert not other.verified
    assert other.as_dict()["lipschitz"]["verified"] is other.as_dict()["well_posed"] is False


def test_a_document_proves_its_statement_for_its_weights_only(tmp_path, certified):
    path, weights = tmp_path / "certificate.json", certified.weights
    certified.save(path)
    document = load_certificate(path)
    assert document.statement.bound == certified.bound
    np.testing.assert_array_equal(document.statement.z, certified.witness)
    assert verify_document(path, weights)
    arrays = weights.arrays()
    for other in (
        {**arrays, "D": None},
        {**arrays, "A": arrays["A"].astype(np.float32)},
        {**arrays, "b": np.zeros(5)},
        {name: x[:1] if name in "CD" else x for name, x in arrays.items()},
    ):
        assert not verify_document(path, ImplicitWeights(**other, activation="tanh"))
    assert not verify_document(path, ImplicitWeights(**arrays, activation="relu"))


def test_a_forged_document_is_not_proved(tmp_path, certified):
    path = tmp_path / "certificate.json"
    certified.save(path)
    good = json.loads(path.read_text())

    def verdict(bound=certified.bound, **changes):
        content = json.loads(json.dumps({**good, **changes}))
        content["statement"].update(bound=bound.hex(), bound_decimal=bound)
        content["report"]["lipschitz"]["bound"] = bound
        path.write_text(json.dumps(content))
        return verify_document(path, certified.weights)

    assert verdict()
    assert not verdict(bound=math.nextafter(certified.bound, 0.0))
    assert not verdict(bound=-certified.bound)
    assert not verdict(weights_sha256="0" * 64)
    assert not verdict(shapes={**good["shapes"], "A": [4, 4]})
    assert not verdict(witness=good["witness"][:-1])
    assert not verdict(witness=[(v * 0.99).hex() for v in certified.witness.tolist()])
    assert not verdict(assumptions={**good["assumptions"], "activation": "relu"})


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["format"], "x"),
        (["version"], 2),
        (["version"], True),
        (["statement"], None),
        (["statement", "norms"], "l2->l2"),
        (["statement", "text"], "anything"),
        (["statement", "bound"], "inf"),
        (["statement", "bound"], "1.5"),
        (["statement", "bound"], "0x1.8p+9999"),
        (["statement", "bound"], 3.0),
        (["statement", "bound_decimal"], 1e-3),
        (["statement", "bound_decimal"], True),
        (["assumptions"], []),
        (["assumptions", "slopes"], "[0, 2]"),
        (["assumptions", "units"], "none"),
        (["assumptions", "activation"], 1),
        (["witness"], []),
        (["witness"], [1.0] * 5),
        (["witness"], ["nan"] * 5),
        (["witness"], "0x1p+0"),
        (["weights_sha256"], 1),
        (["shapes"], []),
        (["report"], None),
        (["report", "lipschitz"], None),
        (["report", "lipschitz", "bound"], 1e-3),
    ],
)
def test_malformed_documents_are_refused(tmp_path, certified, keys, value):
    path = tmp_path / "certificate.json"
    certified.save(path)
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not a certificate") as caught:
        verify_document(path, certified.weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"NaN",
        b"[" * 10**5,
        b'{"version": 1, "version": 1}',
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path, certified, data):
    path = tmp_path / "certificate.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"expected a certificate|is not a certificate"):
        verify_document(path, certified.weights)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_certificate(tmp_path / "none.json")
    with pytest.raises(ValueError, match="cannot be read"):
        load_certificate(tmp_path)


def test_bad_arguments():
    one = np.ones((1, 1))
    weights = ImplicitWeights(0.5 * one, one, one)
    assert lipschitz_certificate(weights).bound == lipschitz_certificate(0.5 * one, one, one).bound
    with pytest.raises(ValueError, match="without B or C"):
        lipschitz_certificate(one)
    with pytest.raises(ValueError, match="weights alone"):
        lipschitz_certificate(weights, one, one)
    with pytest.raises(ValueError, match="NaN"):
        lipschitz_certificate(np.nan * one, one, one)
    with pytest.raises(UnknownSolverError):
        lipschitz_certificate(weights, solver="nonexistent")
    with pytest.raises(ValueError, match="no option"):
        lipschitz_certificate(weights, tolerances=1e-3)
    with pytest.raises(SolverError, match="does not solve"):
        lipschitz_certificate(weights, solver="closed_form")


def test_the_caller_keeps_its_floating_point_settings():
    before = np.geterr()
    with pytest.raises(ValueError, match="exceeds"):
        lipschitz_certificate([[0.0]], [[1e200]], [[1e200]])
    lipschitz_certificate([[0.5]], [[1.0]], [[1.0]])
    assert np.geterr() == before


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([1, 2, 47, 48, 49, 100]), seeds)
def test_elimination_solves_and_recognizes_m_matrices(n, seed):
    rng = np.random.default_rng(seed)
    K = np.eye(n) - majorant(contracting(rng, n, 0.9))
    factors, right = eliminate(K), rng.uniform(size=(n, 2))
    lower, upper = np.tril(factors, -1) + np.eye(n), np.triu(factors)
    np.testing.assert_allclose(lower @ upper, K, atol=1e-12 * np.abs(K).max())
    for matrix, transposed in ((K, False), (K.T, True)):
        x = solve_factored(factors, right, transposed=transposed)
        np.testing.assert_allclose(matrix @ x, right, atol=1e-10)
        assert (x >= 0).all()
    assert eliminate(np.eye(n) - 1.1 * np.roll(np.eye(n), 1, axis=0)) is None


def test_gains_that_float64_cannot_prove_are_refused():
    """A bound may have a witness, and a gain matrix none: |C|(I − M)⁻¹ is beyond float64 here."""
    A, B, C = (np.array([[x]]) for x in (1 - 2.0**-20, 2.0**-20, 2.0**1015))
    certificate = lipschitz_certificate(A, B, C)
    assert certificate.verify()
    assert certificate.bound == pytest.approx(2.0**1015)
    with pytest.raises(SolverError, match="proves the gains"):
        certificate.statement("gains")


def test_next_to_the_limit_what_is_not_refused_is_proved():
    """1e-16 from it, and it depends on the processor's roundings what has a witness."""
    A = [
        ["-0x1.14fd59d43a660p+5", "-0x1.bfba129415119p+20"],
        ["0x1.4fb4bf3c363e0p-13", "-0x1.cf675b6566e27p+2"],
    ]
    A = [[float.fromhex(entry) for entry in row] for row in A]
    with contextlib.suppress(SolverError):
        certificate = lipschitz_certificate(A, np.eye(2), np.eye(2))
        assert certificate.verify()
        assert certificate.statement("gains").prove(certificate.weights)
