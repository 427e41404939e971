"""The matrix measure μ_{∞,η} and the Metzler majorant of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, issparse

Array = NDArray[np.float64]


def as_square(A: Any) -> Any:
    """Return A as a finite square float64 matrix, sparse by rows if it is, or raise ValueError."""
    if issparse(A):
        matrix = csr_array(A)
        matrix = csr_array(
            (as_finite(matrix.data, "A"), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        matrix.sum_duplicates()
    else:
        matrix = as_finite(A, "A")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(
            f"A has shape {matrix.shape}, expected a square (n, n) matrix with n ≥ 1; "
            "pass the state matrix of x = φ(Ax + Bu + b)."
        )
    return matrix


def as_finite(values: ArrayLike, name: str) -> Array:
    """Return values as a float64 array, or raise ValueError naming them."""
    raw: NDArray[Any] = np.asarray(values)
    if raw.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} has dtype {raw.dtype}, expected real numbers; convert it to float first."
        )
    array = raw.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or Inf, expected finite entries; clean it first.")
    return array


def as_weights(eta: ArrayLike | None, n: int) -> Array:
    """Return η as n positive float64 weights (ones when eta is None), or raise ValueError."""
    if eta is None:
        return np.ones(n)
    weights = as_finite(eta, "eta")
    if weights.shape != (n,) or not (weights > 0).all():
        raise ValueError(
            f"eta has shape {weights.shape} and minimum {weights.min(initial=np.inf):.3g}, "
            f"expected {n} positive weights; use optimal_weights(A).eta or None for all ones."
        )
    return weights


def metzler_majorant(A: Any) -> Any:
    """Metzler majorant M(A): the diagonal of A, absolute values elsewhere (THEORY §2).

    Parameters
    ----------
    A : (n, n) array or scipy.sparse matrix

    Returns
    -------
    (n, n) array, or csr_array where A is sparse
    """
    matrix = as_square(A)
    if issparse(matrix):
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        matrix.data = np.where(rows == matrix.indices, matrix.data, np.abs(matrix.data))
        return matrix
    majorant = np.abs(matrix)
    np.fill_diagonal(majorant, np.diagonal(matrix))
    return majorant


def matrix_measure(A: Any, eta: ArrayLike | None = None) -> float:
    """Matrix measure μ_{∞,η}(A) = max_i [A_ii + Σ_{j≠i} (η_j/η_i) |A_ij|] (THEORY §2).

    Parameters
    ----------
    A : (n, n) array or scipy.sparse matrix
    eta : (n,) array, optional
        Positive weights of ‖x‖_{∞,η} = max_i |x_i| / η_i; all ones by default.

    Returns
    -------
    float
        Any value below one makes x = φ(Ax + s) well-posed. Inf beyond the largest float64.

    Raises
    ------
    ValueError
        A is not a finite square matrix, or eta is not n positive weights.

    Examples
    --------
    >>> matrix_measure([[-1.0, 0.5], [2.0, 0.0]])
    2.0
    >>> matrix_measure([[-1.0, 0.5], [2.0, 0.0]], eta=[1.0, 4.0])
    1.0
    """
    majorant = metzler_majorant(A)
    weights = as_weights(eta, majorant.shape[0])
    with np.errstate(over="ignore"):
        return float((majorant @ weights / weights).max())
