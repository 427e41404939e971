"""The quick road for float32 rows with weights of one, against the general kernel in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import gammas, seeds

from contraction_nets.geometry import projection
from contraction_nets.geometry.projection import project_rows, project_violating
from contraction_nets.geometry.rows import Rows, feasible_rows
from contraction_nets.geometry.single import evaluate, project_single

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).smallest_subnormal)


@pytest.fixture(autouse=True, scope="module")
def small_matrices_take_it_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "_BLOCK", 1)
        patch.setattr(projection, "_SINGLE_BLOCK", 200)
        patch.setattr(projection, "_FIRST", 2)
        yield


def excesses(X, rows):
    """Left-hand side minus right-hand side, correctly rounded: the sign is exact."""
    V = np.abs(X.astype(np.float64))
    if rows.signed is not None:
        here = np.arange(len(X)), rows.signed
        V[here] = X[here]
    return np.array([math.fsum([*row, -rows.level]) for row in V.tolist()])


@st.composite
def cases(draw):
    """float32 rows of one scale or many, with ties, zeros and few entries, and their polytopes."""
    m, n = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 5, 17, 64, 300]))
    rng = np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from([1e-44, 1e-40, 1e-30, 1e-12, 1e-3, 1.0, 1e6, 1e30, 1e38]))
    V = rng.normal(size=(m, n))
    kind = draw(st.sampled_from(["plain", "ties", "sparse", "rows", "entries", "slight"]))
    gamma = draw(gammas) * draw(st.sampled_from([1.0, scale]))
    if kind == "ties":
        V = np.sign(V)
    elif kind == "sparse":
        V = V * (rng.uniform(size=V.shape) < 0.1)
    elif kind == "rows":
        V = V * 10.0 ** rng.integers(-30, 6, size=(m, 1))
    elif kind == "entries":
        V = V * 10.0 ** rng.integers(-12, 3, size=V.shape)
    elif kind == "slight":
        V *= (abs(gamma) / scale) * rng.uniform(0.99, 1.1, (m, 1)) / np.abs(V).sum(1)[:, None]
    V = np.clip(scale * V, -1e38, 1e38).astype(np.float32)
    if draw(st.booleans()):
        return V, Rows(np.ones(n), abs(gamma), np.ones(m))
    return V, Rows(np.ones(n), gamma, np.ones(m), rng.integers(0, n, m))


@given(cases())
@settings(max_examples=600, deadline=None)
def test_result_is_exactly_inside_and_within_roundings_of_the_projection(case):
    V, rows = case
    X = project_rows(V, rows)
    feasible = excesses(V, rows) <= 0
    assert (X.dtype, X.shape) == (V.dtype, V.shape)
    assert (excesses(X, rows) <= 0).all()
    assert X[feasible].tobytes() == V[feasible].tobytes()
    assert project_rows(X, rows).tobytes() == X.tobytes()
    index, projected = project_violating(V, rows)
    assert index.tolist() == np.flatnonzero(~feasible).tolist()
    assert projected.tobytes() == X[index].tobytes()
    exact = project_rows(V.astype(np.float64), rows)
    largest = np.abs(V).max(axis=1, initial=0.0).astype(np.float64) + abs(rows.level)
    assert (np.abs(X - exact).max(axis=1) <= 4 * EPS * largest + 64 * TINY).all()


@given(cases())
@settings(max_examples=100, deadline=None)
def test_torch_gives_what_numpy_gives(case):
    V, rows = case
    X = project_rows(torch.from_numpy(V.copy()), rows)
    assert X.dtype == torch.float32
    assert X.numpy().tobytes() == project_rows(V, rows).tobytes()


@given(cases(), seeds)
@settings(max_examples=200, deadline=None)
def test_rows_a_rounding_from_the_boundary_are_decided_exactly(case, seed):
    V, rows = case
    X, rng = project_rows(V, rows), np.random.default_rng(seed)
    here = np.arange(len(X)), rng.integers(0, X.shape[1], len(X))
    X[here] = np.nextafter(X[here], rng.choice(np.float32([-np.inf, np.inf]), len(X)))
    inside = excesses(X, rows) <= 0
    assert feasible_rows(X, rows).tolist() == inside.tolist()
    index, _ = project_violating(X, rows)
    assert index.tolist() == np.flatnonzero(~inside).tolist()


def test_a_doubled_entry_that_overflows_decides_nothing():
    V = np.full((3, 1), np.nextafter(np.float32(-3e38), np.float32(0)))
    index, _ = project_violating(V, Rows(np.ones(1), -3e38, np.ones(3), np.zeros(3, int)))
    assert index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("scale", [0.003, 0.01, 1.0])
def test_hardly_any_row_is_left_to_the_general_kernel(scale):
    V = scale * np.random.default_rng(0).normal(size=(200, 500)).astype(np.float32)
    rows = Rows(np.ones(500), 0.95, np.ones(200), np.arange(200))
    sizes, excess, _ = evaluate(V, rows.beside(V))
    right, ratio = project_single(V, sizes, rows.beside(V), excess, 1.0, np.empty_like(V))
    assert (excess > 0).all()
    assert right.mean() > 0.98
    again, _ = project_single(V, sizes, rows.beside(V), excess, ratio, np.empty_like(V))
    assert again.mean() > 0.98


def test_any_layout_and_gradients():
    V = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32)
    rows = Rows(np.ones(60), 0.5, np.ones(40), np.arange(40))
    X = project_rows(V, rows)
    V.setflags(write=False)
    for other in (np.asfortranarray(V), np.repeat(V, 2, axis=1)[:, ::2], V):
        assert project_rows(other, rows).tobytes() == X.tobytes()
    tensor = torch.from_numpy(V.copy())
    assert project_rows(tensor.T.contiguous().T, rows).numpy().tobytes() == X.tobytes()
    tracked = project_rows(tensor.requires_grad_(), rows)
    assert tracked.requires_grad
    assert np.abs(tracked.detach().numpy() - X).max() <= 4 * EPS * np.abs(V).max()


@pytest.mark.parametrize("entry", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (0, 3), (39, 20)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e38])
def test_entries_that_are_not_finite_are_refused(entry, place, size):
    V = np.full((40, 60), size, np.float32)
    V[place] = entry
    rows = Rows(np.ones(60), 0.5, np.ones(40), np.arange(40))
    for array in (V, torch.from_numpy(V)):
        with pytest.raises(ValueError, match="NaN or Inf"):
            project_rows(array, rows)


def test_an_overflowing_projection_is_refused():
    V = np.full((5, 3), 3e38, np.float32)
    with pytest.raises(ValueError, match="does not fit"):
        project_rows(V, Rows(np.ones(3), -1e39, np.ones(5), np.zeros(5, int)))
