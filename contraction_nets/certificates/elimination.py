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

_BLOCK = 48


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
    n = len(K)
    factors = np.array(K, order="F")
    with np.errstate(all="ignore"):
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            panel = factors[start:, start:stop]
            for k in range(stop - start):
                if not 0 < panel[k, k] < np.inf:
                    return None
                panel[k + 1 :, k] /= panel[k, k]
                panel[k + 1 :, k + 1 :] -= np.outer(panel[k + 1 :, k], panel[k, k + 1 :])
            if stop < n:
                right = factors[start:stop, stop:]
                right[...] = _triangular(panel[: stop - start], right, lower=True)
                factors[stop:, stop:] -= factors[stop:, start:stop] @ right
    return factors


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
