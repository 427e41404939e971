"""The closed-form projection: the properties that define it, in the stored dtype."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import gammas, matrices, points_and_sets, seeds

from contraction_nets import project
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.rows import Rows
from contraction_nets.geometry.sets import MatrixMeasureSet, NormBall

dtypes = st.sampled_from([np.float32, np.float64])
QUANTA = 64 * 5e-324  # what rounding to subnormal numbers, and staying inside, can move


def exactly_inside(X, rows):
    """The row inequality in rational arithmetic, written out from THEORY §3."""
    flat = np.asarray(X).reshape(rows.shape)
    for i, row in enumerate(flat.tolist()):
        total = Fraction(0)
        for j, (w, v) in enumerate(zip(rows.weights.tolist(), row, strict=True)):
            signed = rows.signed is not None and j == rows.signed[i]
            total += Fraction(w) * (Fraction(v) if signed else abs(Fraction(v)))
        if total > Fraction(rows.level) * Fraction(float(rows.scale[i])):
            return False
    return True


@given(points_and_sets(), dtypes)
@settings(max_examples=400, deadline=None)
def test_result_is_inside_as_stored_and_stays_there(case, dtype):
    V, constraint = case
    V = V.astype(dtype)
    rows = constraint.rows(V.shape)
    X = project_rows(V, rows)
    assert (X.dtype, X.shape) == (dtype, V.shape)
    assert exactly_inside(X, rows)
    assert constraint.contains(X)
    assert np.array_equal(project_rows(X, rows), X)


@given(points_and_sets(), dtypes)
@settings(max_examples=200, deadline=None)
def test_membership_is_decided_exactly_and_feasible_rows_keep_their_bits(case, dtype):
    V, constraint = case
    V = V.astype(dtype)
    rows = constraint.rows(V.shape)
    assert constraint.contains(V) == exactly_inside(V, rows)
    X = project_rows(V, rows)
    for i in range(len(V)):
        alone = type(rows)(
            rows.weights,
            rows.level,
            rows.scale[i : i + 1],
            None if rows.signed is None else rows.signed[i : i + 1],
        )
        if exactly_inside(V[i], alone):
            assert X[i].tobytes() == V[i].tobytes()


@given(points_and_sets(), seeds)
@settings(max_examples=200, deadline=None)
def test_variational_inequality(case, seed):
    """⟨V − X, Y − X⟩ ≤ 0 for every Y of the set: the definition of a projection."""
    V, constraint = case
    rows = constraint.rows(V.shape)
    X = project_rows(V, rows)
    other = np.random.default_rng(seed).normal(size=V.shape) * (np.abs(V).max() or 1.0)
    Y = project_rows(other, rows)
    size = np.linalg.norm(V - X) * sum(map(np.linalg.norm, (V, X, Y)))
    assert np.sum((V - X) * (Y - X)) <= 1e-12 * size + 1e-300


@given(points_and_sets(), seeds)
@settings(max_examples=100, deadline=None)
def test_nonexpansive(case, seed):
    V, constraint = case
    rows = constraint.rows(V.shape)
    W = V + np.random.default_rng(seed).normal(size=V.shape) * np.abs(V).max()
    apart = np.linalg.norm(project_rows(V, rows) - project_rows(W, rows))
    assert apart <= np.linalg.norm(V - W) + 1e-12 * (np.abs(V).max() + np.abs(W).max()) + QUANTA


@given(st.integers(1, 6).flatmap(lambda n: matrices((n, n))), gammas, seeds)
@settings(max_examples=100, deadline=None)
def test_permutation_equivariant(V, gamma, seed):
    order = np.random.default_rng(seed).permutation(len(V))
    swapped = project(V[np.ix_(order, order)], gamma)
    bound = 1e-13 * (np.abs(V).max() + abs(gamma)) + QUANTA
    assert np.abs(swapped - project(V, gamma)[np.ix_(order, order)]).max() <= bound


@given(points_and_sets(), dtypes)
@settings(max_examples=100, deadline=None)
def test_torch_gives_what_numpy_gives(case, dtype):
    V, constraint = case
    V = V.astype(dtype)
    rows = constraint.rows(V.shape)
    X = project_rows(torch.from_numpy(V.copy()), rows)
    assert exactly_inside(X.numpy(), rows)
    size = max(1e-300, float(np.abs(V).max()))
    tolerance = 4 * np.finfo(dtype).eps * size + np.finfo(dtype).smallest_subnormal
    assert np.abs(X.numpy() - project_rows(V, rows)).max() <= tolerance


@pytest.mark.parametrize("largest", [1e308, 1.7e308])
def test_huge_entries(largest):
    V = np.full((3, 3), largest) * np.array([[1.0, -1.0, 1.0], [1.0] * 3, [-1.0, 1.0, 1.0]])
    rows = MatrixMeasureSet(0.5).rows(V.shape)
    assert exactly_inside(project_rows(V, rows), rows)


@pytest.mark.parametrize("gamma", [1e300, -1e300])
@pytest.mark.parametrize("entry", [0.0, 5e-324, 1e-40])
def test_enormous_bounds_on_tiny_entries(entry, gamma):
    V = np.full((3, 3), entry)
    rows = MatrixMeasureSet(gamma).rows(V.shape)
    X = project_rows(V, rows)
    assert exactly_inside(X, rows)
    expected = V if gamma > 0 else gamma * np.eye(3)
    assert np.allclose(X, expected, rtol=1e-12, atol=0)


def test_a_signed_coordinate_of_hardly_any_weight():
    # The exact root clips nothing but is a rounding away from the ratio of the first entry.
    rows = Rows(np.array([0.7, 1e-64]), 1e-20, np.ones(1), np.array([1]))
    X = project_rows(np.array([[-2e-4, -1e-10]]), rows)
    assert np.allclose(X, [[-1e-20 / 0.7, -1e-10]], rtol=1e-9, atol=0)


def test_a_bound_beyond_float64_is_refused():
    with pytest.raises(ValueError, match="rescale"):
        Rows(np.ones(2), 1e300, np.array([1.0, 1e10]))


def test_wide_matrices_are_worked_in_blocks():
    V = np.random.default_rng(0).normal(size=(300, 300))
    rows = MatrixMeasureSet(0.95).rows(V.shape)
    whole = project_rows(V, rows)
    for i in (0, 137, 299):
        alone = type(rows)(rows.weights, rows.level, rows.scale[i : i + 1], rows.signed[i : i + 1])
        assert np.allclose(project_rows(V[i : i + 1], alone), whole[i], rtol=0, atol=1e-14)


def test_by_hand():
    close = {"rtol": 0, "atol": 1e-13}
    assert np.allclose(project([[3.0]], 1.0), [[1.0]], **close)
    # λ = 3: the diagonal moves by 3, the neighbour loses 3 of its magnitude 4.
    assert np.allclose(project([[3.0, -4.0], [0, 0]], 1.0), [[0.0, -1.0], [0, 0]], **close)
    assert np.allclose(project(np.zeros((2, 2)), -1.0), [[-1.0, 0.0], [0.0, -1.0]], **close)
    assert project_rows(np.ones((1, 2)), NormBall(0.0).rows((1, 2))).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("A", "gamma", "eta"),
    [
        ([[np.nan]], 1.0, None),
        ([[np.inf, 0.0], [0.0, 0.0]], 1.0, None),
        ([[1.0, 2.0]], 1.0, None),
        ([1.0], 1.0, None),
        (np.zeros((0, 0)), 1.0, None),
        ([[1j]], 1.0, None),
        ([["a"]], 1.0, None),
        ([[1.0]], np.nan, None),
        ([[1.0]], np.inf, None),
        ([[1.0]], 1.0, [0.0]),
        ([[1.0]], 1.0, [1.0, 1.0]),
        (np.ones((1, 1), np.float16), 1.0, None),
        (np.ones((2, 2)), 1.0, [1e-300, 1.0]),
    ],
)
def test_bad_input_is_refused(A, gamma, eta):
    with pytest.raises(ValueError, match="expected"):
        project(A, gamma, eta)


def test_an_overflowing_projection_is_refused():
    V = np.full((1, 1), 3e38, np.float32)
    with pytest.raises(ValueError, match="does not fit"):
        project_rows(V, MatrixMeasureSet(-1e39).rows((1, 1)))


def test_empty_sets_are_refused():
    with pytest.raises(ValueError, match="no matrix satisfies"):
        NormBall(-1.0).rows((2, 2))
