"""Matrix measure, weights and abscissa against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contraction_nets import matrix_measure, optimal_weights
from contraction_nets.geometry.measures import metzler_majorant, spectral_abscissa


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_measure_is_the_one_sided_derivative_of_the_induced_norm(n, seed):
    rng = np.random.default_rng(seed)
    A, eta = rng.normal(size=(n, n)), rng.uniform(0.5, 2.0, n)
    step = 1e-7
    scaled = np.abs((np.eye(n) + step * A) * eta / eta[:, None]).sum(axis=1).max()
    assert matrix_measure(A, eta) == pytest.approx((scaled - 1) / step, abs=1e-5)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_optimal_weights_attain_what_they_say(n, seed, reducible):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    if reducible:
        A = np.triu(A)
    found = optimal_weights(A)
    assert (found.eta > 0).all()
    assert found.measure == matrix_measure(A, found.eta)
    assert found.measure <= matrix_measure(A) + 1e-12
    assert found.measure >= found.abscissa - 1e-9
    assert found.measure <= found.abscissa + 1e-2


def test_majorant_keeps_the_diagonal_sign():
    assert metzler_majorant([[-1.0, -2.0], [3.0, 4.0]]).tolist() == [[-1.0, 2.0], [3.0, 4.0]]
    assert spectral_abscissa([[-1.0]]) == -1.0


@pytest.mark.parametrize("A", [[[np.nan]], [[1.0, 2.0]], [1.0], np.zeros((0, 0)), [[1j]]])
def test_bad_matrices_are_refused(A):
    with pytest.raises(ValueError, match="expected"):
        matrix_measure(A)


@pytest.mark.parametrize("eta", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.inf]])
def test_bad_weights_are_refused(eta):
    with pytest.raises(ValueError, match="expected"):
        matrix_measure(np.eye(2), eta)
