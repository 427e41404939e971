"""The diagnosis of networks that have no certificate."""

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import seeds

from contraction_nets import ImplicitWeights, NotWellPosedError, lipschitz_certificate
from contraction_nets.certificates.diagnosis import diagnose


def test_the_block_that_breaks_it_is_named():
    # States 1 and 3 amplify each other; 0, 2 and 4 only pass on.
    A = np.triu(np.full((5, 5), 0.3), 1)
    A[[1, 3], [3, 1]] = 2.0, -1.0
    found = diagnose(ImplicitWeights(A, np.ones((5, 1)), np.ones((1, 5))))
    assert set(found.states) == {1, 2, 3}  # 2 is on a path from 1 to 3, and 3 leads back to 1
    assert found.abscissa > 1
    A[1, 2] = 0.0
    found = diagnose(ImplicitWeights(A, np.ones((5, 1)), np.ones((1, 5))))
    assert found.states.tolist() == [1, 3]
    assert found.abscissa == pytest.approx(np.sqrt(2.0))


def test_a_monotone_network_without_a_certificate():
    # A rotation: nothing for ℓ∞, but its symmetric part is zero.
    A, B, C, D = (
        [[0.0, -2.0], [2.0, 0.0]],
        np.eye(2),
        np.array([[3.0, 4.0]]),
        np.array([[0.0, 1.0]]),
    )
    weights = ImplicitWeights(A, B, C, D)
    with pytest.raises(NotWellPosedError):
        lipschitz_certificate(weights)
    found = diagnose(weights)
    assert found.states.tolist() == [0, 1]
    assert found.abscissa == pytest.approx(2.0)
    assert found.euclidean_measure == pytest.approx(0.0)
    assert found.euclidean_bound == pytest.approx(5.0 + 1.0)


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_the_euclidean_bound_holds_for_all_slopes(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    A = rng.normal(size=(n, n)) * 3
    symmetric = (A + A.T) / 2
    A += (rng.uniform(-1, 0.99) - np.linalg.eigvalsh(symmetric)[-1]) * np.eye(n)
    B, C = rng.normal(size=(n, 2)), rng.normal(size=(2, n))
    bound = diagnose(ImplicitWeights(A, B, C)).euclidean_bound
    for _ in range(50):
        S = np.diag(rng.choice([0.0, 1.0, rng.uniform()], n))
        gain = C @ np.linalg.solve(np.eye(n) - S @ A, S @ B)
        assert np.linalg.norm(gain, 2) <= bound * (1 + 1e-9)


def test_no_bound_where_neither_norm_contracts():
    found = diagnose(ImplicitWeights([[1.5]], [[1.0]], [[1.0]]))
    assert (found.euclidean_measure, found.euclidean_bound) == (1.5, np.inf)
