"""Optimal weights against eigenvalues, and their proof from both sides."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import seeds

from contraction_nets import SolverError, available_solvers, matrix_measure, optimal_weights
from contraction_nets.certificates.exact import prove_abscissa, prove_measure
from contraction_nets.certificates.optimal import attained, dominant_block
from contraction_nets.geometry.measures import metzler_majorant


def random_matrix(rng, n):
    """Irreducible or not, of one scale or many, with a diagonal of either sign."""
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < rng.choice([0.2, 0.5, 1.0]))
    if rng.uniform() < 0.3:
        A = np.triu(A)
    scale = 2.0 ** rng.integers(-40, 40, n) if rng.uniform() < 0.3 else np.ones(n)
    A = A * scale[:, None] / scale
    order = rng.permutation(n)
    return (A - np.diag(rng.uniform(0, 5, n)))[np.ix_(order, order)], scale[order]


@settings(deadline=None, max_examples=150)
@given(seeds, st.integers(1, 9))
def test_optimal_within_the_tolerance_and_proved_from_both_sides(seed, n):
    A, scale = random_matrix(np.random.default_rng(seed), n)
    found = optimal_weights(A)
    size = max(1.0, abs(found.abscissa))
    assert (found.eta > 0).all()
    assert found.eta.max() == 1
    assert found.measure == matrix_measure(A, found.eta) <= matrix_measure(A)
    abscissa = np.linalg.eigvals(metzler_majorant(A) / scale[:, None] * scale).real.max()
    # Eigenvalues of defective matrices are known to eps**(1/n) only.
    assert found.abscissa == pytest.approx(abscissa, abs=1e-3 * size)
    assert found.lower <= found.abscissa + 1e-15 * size
    assert -1e-15 * size <= found.gap <= 2e-6 * size
    assert prove_abscissa(A, found.lower, found.x)
    gamma = attained(A, found.eta)
    assert prove_measure(A, gamma, found.eta)
    assert gamma == pytest.approx(found.measure, rel=1e-12)
    assert (found.x[np.setdiff1d(np.arange(n), found.block)] == 0).all()
    assert (found.x[found.block] > 0).all()


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 6))
def test_no_weights_attain_less_than_the_lower_bound(seed, n):
    rng = np.random.default_rng(seed)
    A, _ = random_matrix(rng, n)
    lower = Fraction(optimal_weights(A).lower)
    M = [[Fraction(v) for v in row] for row in metzler_majorant(A).tolist()]
    for _ in range(20):
        eta = [Fraction(float(v)) for v in 2.0 ** rng.uniform(-50, 50, n)]
        measure = max(sum(M[i][j] * eta[j] for j in range(n)) / eta[i] for i in range(n))
        assert measure >= lower


FIRST_ORDER = ("pdlp", "scs")


@pytest.mark.parametrize("solver", available_solvers("linear program"))
@pytest.mark.parametrize("reducible", [False, True])
def test_linear_programs_find_the_same_weights(solver, reducible):
    A = np.random.default_rng(3).normal(size=(6, 6))
    if reducible:
        A = np.triu(A)
    by_perron = optimal_weights(A)
    try:
        by_program = optimal_weights(A, solver=solver, tol=1e-4)
    except SolverError as error:
        # Bisection ends at programs that are hardly feasible; a wrong answer there would be worse.
        if solver not in FIRST_ORDER or "iteration_limit" not in str(error):
            raise
        pytest.skip(f"'{solver}' cannot decide next to the spectral abscissa, and says so")
    assert by_program.measure == matrix_measure(A, by_program.eta)
    assert by_program.measure == pytest.approx(by_perron.measure, abs=2e-4)
    assert by_program.lower == by_perron.lower <= by_program.measure


def test_the_dominant_block_of_a_reducible_matrix():
    A = np.array([[0.1, 9.0, 0.0], [0.0, -1.0, 2.0], [0.0, 2.0, -1.0]])
    found = optimal_weights(A)
    assert found.block.tolist() == [1, 2]
    assert (found.abscissa, found.lower) == (1.0, 1.0)
    assert found.x.tolist() == [0.0, 1.0, 1.0]
    assert 1.0 < found.measure <= 1.0 + 2e-6  # not attained: state 0 needs ever larger weights
    assert dominant_block(np.diag([1.0, 3.0, 2.0])).block.tolist() == [1]


def test_sparse_matrices_of_many_states():
    rng = np.random.default_rng(4)
    n = 3000
    A = sparse.random_array((n, n), density=4 / n, rng=rng, data_sampler=rng.normal)
    A = A - 2 * sparse.eye_array(n)
    found = optimal_weights(A)
    assert found.gap <= 1e-5
    assert prove_abscissa(sparse.csr_array(A), found.lower, found.x)
    assert prove_measure(sparse.csr_array(A), attained(A.tocsr(), found.eta), found.eta)


@pytest.mark.parametrize("abscissa", [0.95, 1 - 1e-12])
def test_nothing_is_factored_where_power_steps_converge(monkeypatch, abscissa):
    # The factors of these matrices fill up: with 20 000 states they take a minute.
    monkeypatch.setattr("contraction_nets.solving.sparse_m_matrix.spilu", pytest.fail)
    rng = np.random.default_rng(5)
    n = 2500
    values = rng.uniform(0.5, 1.0, (n, 10))
    values *= abscissa / values.sum(axis=1, keepdims=True)
    units = rng.integers(-20, 21, n)
    columns = np.array([rng.choice(n, 10, replace=False) for _ in range(n)])
    rows = np.repeat(np.arange(n), 10)
    values = np.ldexp(values.ravel(), units[rows] - units[columns.ravel()])
    A = sparse.csr_array(sparse.coo_array((values, (rows, columns.ravel())), (n, n)))
    found = optimal_weights(A)
    assert found.abscissa == pytest.approx(abscissa, abs=1e-13)
    assert found.lower <= abscissa + 1e-15
    assert abscissa - found.lower < 1e-13
    assert found.measure < 1
    assert prove_abscissa(A, found.lower, found.x)


def test_bad_arguments():
    with pytest.raises(ValueError, match="expected"):
        optimal_weights([[1.0, 2.0]])
    with pytest.raises(ValueError, match="expected one of"):
        optimal_weights(np.eye(2), solver="magic")
