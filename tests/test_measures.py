"""Matrix measure, weights and abscissa against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from contraction_nets import matrix_measure
from contraction_nets.geometry.measures import metzler_majorant


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_measure_is_the_one_sided_derivative_of_the_induced_norm(n, seed):
    rng = np.random.default_rng(seed)
    A, eta = rng.normal(size=(n, n)), rng.uniform(0.5, 2.0, n)
    step = 1e-7
    scaled = np.abs((np.eye(n) + step * A) * eta / eta[:, None]).sum(axis=1).max()
    assert matrix_measure(A, eta) == pytest.approx((scaled - 1) / step, abs=1e-5)


def test_majorant_keeps_the_diagonal_sign():
    assert metzler_majorant([[-1.0, -2.0], [3.0, 4.0]]).tolist() == [[-1.0, 2.0], [3.0, 4.0]]


def test_sparse_matrices_have_the_same_measure():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 6)) * (rng.uniform(size=(6, 6)) < 0.4)
    A[0, 0], eta = -1.7e308, rng.uniform(0.5, 2.0, 6)
    for convert in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array, sparse.lil_matrix):
        majorant = metzler_majorant(convert(A))
        np.testing.assert_array_equal(majorant.toarray(), metzler_majorant(A))
        assert matrix_measure(convert(A), eta) == pytest.approx(matrix_measure(A, eta), rel=1e-14)
    with pytest.raises(ValueError, match="expected"):
        matrix_measure(sparse.csr_array([[np.nan]]))
    with pytest.raises(ValueError, match="expected"):
        matrix_measure(sparse.csr_array([[1.0, 2.0]]))


@pytest.mark.parametrize("A", [[[np.nan]], [[1.0, 2.0]], [1.0], np.zeros((0, 0)), [[1j]]])
def test_bad_matrices_are_refused(A):
    with pytest.raises(ValueError, match="expected"):
        matrix_measure(A)


@pytest.mark.parametrize("eta", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.inf]])
def test_bad_weights_are_refused(eta):
    with pytest.raises(ValueError, match="expected"):
        matrix_measure(np.eye(2), eta)
