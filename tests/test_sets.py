"""Sets without rows, and what the sets contain of each other (THEORY §10)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import matrices, seeds

from contraction_nets.comparison.sets import SETS, contained, set_values, train_on_sets
from contraction_nets.geometry.measures import matrix_measure
from contraction_nets.geometry.sets import MatrixMeasureSet, MonotoneSet, NormBall
from contraction_nets.solving.projection import project_onto
from contraction_nets.training.data import Dataset

QUANTA = 64 * 5e-324  # rounding to subnormal numbers
gammas = st.sampled_from([-2.0, 0.0, 0.5, 0.95])


@given(st.integers(1, 6).flatmap(lambda n: matrices((n, n))), gammas, seeds)
@settings(max_examples=200, deadline=None)
def test_monotone_projection_by_its_variational_inequality(V, gamma, seed):
    constraint = MonotoneSet(gamma)
    X = constraint.project(V)
    scale = float(np.abs(V).max()) + abs(gamma)
    assert constraint.violation(X) <= 1e-13 * scale * len(V) + QUANTA
    if constraint.contains(V):
        assert np.array_equal(X, V)
    other = np.random.default_rng(seed).normal(size=V.shape) * (np.abs(V).max() or 1.0)
    Y = constraint.project(other)
    size = np.linalg.norm(V - X) * sum(map(np.linalg.norm, (V, X, Y)))
    assert np.sum((V - X) * (Y - X)) <= 1e-12 * size + 1e-300


def test_monotone_projection_equals_cvxpy():
    V = np.random.default_rng(0).normal(size=(6, 6))
    constraint = MonotoneSet(0.5)
    ours, reference = project_onto(V, constraint), project_onto(V, constraint, solver="cvxpy")
    assert np.abs(ours - reference).max() < 1e-6
    assert np.abs(ours - V).max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_monotone_projection_of_tensors(dtype):
    V = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    X = MonotoneSet(0.3).project(V)
    assert X.dtype == dtype
    expected = MonotoneSet(0.3).project(V.double().numpy())
    assert np.allclose(X.double().numpy(), expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("V", [np.zeros((2, 3)), np.array([[np.nan]]), np.zeros((0, 0))])
def test_monotone_set_refuses_bad_input(V):
    with pytest.raises(ValueError, match="expected"):
        MonotoneSet(0.5).project(V)


@given(st.integers(1, 6).flatmap(lambda n: matrices((n, n))))
@settings(max_examples=100, deadline=None)
def test_values_are_those_of_the_sets_and_nested(V):
    V = np.clip(V, -1e30, 1e30)
    values = {name: float(found) for name, found in set_values(V).items()}
    slack = 1e-12 * max(1e-300, float(np.abs(V).sum()))
    assert abs(values["measure"] - matrix_measure(V)) <= slack
    assert abs(NormBall(1.0).violation(V) - (values["norm_ball"] - 1.0)) <= slack + 1e-12
    assert abs(MonotoneSet(0.0).violation(V) - values["monotone"]) <= slack
    # Eigenvalues of defective matrices are good to the root of the precision at best.
    assert values["adaptive"] <= values["measure"] + 1e-2 * float(np.abs(V).max(initial=0.0))
    assert values["measure"] <= values["norm_ball"] + slack


def test_the_cloud_is_contained_in_the_order_of_the_sets():
    rows = contained(10, scales=(0.05, 0.4, 0.6, 5.0), samples=200)
    assert [row["scale"] for row in rows] == [0.05, 0.4, 0.6, 5.0]
    assert all(row["norm_ball"] <= row["measure"] <= row["adaptive"] for row in rows)
    assert all(rows[0][name] == 1.0 and rows[-1][name] == 0.0 for name in SETS)
    # Counted matrix by matrix with the classes themselves.
    cloud = np.random.default_rng(0).normal(size=(200, 10, 10)) / np.sqrt(10)
    for name, constraint in (
        ("norm_ball", NormBall(0.95)),
        ("measure", MatrixMeasureSet(0.95)),
        ("monotone", MonotoneSet(0.95)),
    ):
        assert rows[1][name] == np.mean([constraint.contains(0.4 * A) for A in cloud])


def _blobs(seed=0):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, 3, 240))
    centres = torch.from_numpy(rng.uniform(size=(3, 4)).astype(np.float32))
    inputs = centres[labels] + 0.05 * torch.from_numpy(rng.normal(size=(240, 4)).astype(np.float32))
    return Dataset("blobs", inputs[:200], labels[:200], inputs[200:], labels[200:])


def test_training_keeps_every_network_in_its_set():
    calls = []
    rows = train_on_sets(
        _blobs(), hidden=8, epochs=3, learning_rate=3e-2, progress=lambda *at: calls.append(at)
    )
    assert [row["set"] for row in rows] == list(SETS)
    assert calls == [(i + 1, 48) for i in range(48)]
    for row in rows:
        assert row["values"][row["set"]] <= 0.95 + 1e-5
        assert row["test_accuracy"] > 0.5
        if row["set"] != "monotone":
            assert row["lipschitz_bound"] <= (row["norm_product_bound"] or np.inf)


def test_unknown_sets_are_refused():
    with pytest.raises(ValueError, match="expected one of norm_ball"):
        train_on_sets(_blobs(), sets=["ball"])


def test_a_negative_diagonal_helps_all_sets_but_the_ball():
    plain, shifted = (contained(10, shift=x, scales=(0.5,), samples=200)[0] for x in (0.0, 1.0))
    assert shifted["norm_ball"] == 0.0
    assert shifted["measure"] > plain["measure"]
