"""Gaussian elimination without pivoting, the right one for M-matrices.

The factors of a nonsingular M-matrix have positive pivots and no positive entry off the
diagonal, so off the pivots nothing cancels: triangular matrices, however they are permuted and
however large their inverse, are solved to full relative accuracy in every component. Partial
pivoting loses that. A pivot that is not positive says that the matrix is no M-matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtrs

Array = NDArray[np.float64]

_WIDTH = 16  # columns that are eliminated one by one


def eliminate(K: Array) -> Array | None:
    """Triangular factors of K = L U without pivoting.

    Parameters
    ----------
    K : (n, n) array
        No positive entry off the diagonal.

    Returns
    -------
    (n, n) array or None
        U on and above the diagonal, L without its unit diagonal below; None where a pivot is
        not positive and finite, so that K is (numerically) no nonsingular M-matrix.
    """
    factors = np.array(K, order="F")
    with np.errstate(all="ignore"):
        return factors if _eliminated(factors, 0, len(K)) else None


def _eliminated(factors: Array, start: int, stop: int) -> bool:
    """Eliminate these columns in place, below and above; False where a pivot is not positive.

    By halves: nearly all arithmetic is in products of large matrices.
    """
    if stop - start > _WIDTH:
        middle = (start + stop) // 2
        if not _eliminated(factors, start, middle):
            return False
        right = factors[start:middle, middle:stop]
        right[...] = _triangular(factors[start:middle, start:middle], right, lower=True)
        factors[middle:, middle:stop] -= factors[middle:, start:middle] @ right
        return _eliminated(factors, middle, stop)
    for k in range(start, stop):
        pivot = factors[k, k]
        if not 0 < pivot < np.inf:
            return False
        below = factors[k + 1 :, k]
        below /= pivot
        for j in range(k + 1, stop):  # columns are contiguous
            factors[k + 1 :, j] -= below * factors[k, j]
    return True


def solve_factored(factors: Array, right: Array, *, transposed: bool = False) -> Array:
    """Solution x of K x = right, or of Kᵀ x = right, from the factors of `eliminate`.

    Parameters
    ----------
    factors : (n, n) array
    right : (n,) or (n, k) array

    Returns
    -------
    array of the shape of right
        Where right ≥ 0 the solution is ≥ 0, exactly. Overflow gives Inf or NaN.
    """
    with np.errstate(all="ignore"):
        if transposed:
            half = _triangular(factors, right, lower=False, transposed=True)
            return _triangular(factors, half, lower=True, transposed=True)
        return _triangular(factors, _triangular(factors, right, lower=True), lower=False)


def _triangular(factors: Array, right: Array, *, lower: bool, transposed: bool = False) -> Array:
    solution: Array
    solution, _ = dtrtrs(
        factors, right, lower=int(lower), trans=int(transposed), unitdiag=int(lower)
    )
    return solution
