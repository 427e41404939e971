"""The matrix measure μ_{∞,η}, its Metzler majorant and the weights that minimize it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OptimalWeights:
    """Weights η with the measure they really attain.

    Attributes
    ----------
    eta : (n,) array
        Positive weights, normalized to max η = 1.
    measure : float
        μ_{∞,η}(A) at these weights.
    abscissa : float
        Spectral abscissa α(M(A)) = inf over η of μ_{∞,η}(A).
    """

    eta: Array
    measure: float
    abscissa: float


def as_square(A: ArrayLike) -> Array:
    """Return A as a finite square float64 matrix, or raise ValueError."""
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


def metzler_majorant(A: ArrayLike) -> Array:
    """Metzler majorant M(A): the diagonal of A, absolute values elsewhere (THEORY §2).

    Parameters
    ----------
    A : (n, n) array

    Returns
    -------
    (n, n) array
    """
    matrix = as_square(A)
    majorant = np.abs(matrix)
    np.fill_diagonal(majorant, np.diagonal(matrix))
    return majorant


def matrix_measure(A: ArrayLike, eta: ArrayLike | None = None) -> float:
    """Matrix measure μ_{∞,η}(A) = max_i [A_ii + Σ_{j≠i} (η_j/η_i) |A_ij|] (THEORY §2).

    Parameters
    ----------
    A : (n, n) array
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


def spectral_abscissa(A: ArrayLike) -> float:
    """Largest real part of an eigenvalue of M(A): the infimum of μ_{∞,η}(A) over η."""
    return float(np.linalg.eigvals(metzler_majorant(A)).real.max())


def optimal_weights(A: ArrayLike, *, slack: float = 1e-6) -> OptimalWeights:
    """Weights η whose measure is within `slack` of the infimum α(M(A)) (THEORY §2).

    With γ just above α(M) the vector η = (γI − M)⁻¹ 1 is positive and satisfies Mη < γη,
    for reducible matrices too, where the infimum itself need not be attained.

    Parameters
    ----------
    A : (n, n) array
    slack : float
        Distance of γ from the abscissa, relative to max(1, ‖A‖∞).

    Returns
    -------
    OptimalWeights
        The weights with the measure they really attain.

    Raises
    ------
    ValueError
        A is not a finite square matrix.
    """
    majorant = metzler_majorant(A)
    n = majorant.shape[0]
    abscissa = spectral_abscissa(A)
    scale = max(1.0, float(np.abs(majorant).sum(axis=1).max()))
    candidates: list[Array] = [np.ones(n)]
    for factor in (1.0, 1e3, 1e5):
        gamma = abscissa + factor * slack * scale
        found: Array = np.asarray(np.linalg.solve(gamma * np.eye(n) - majorant, np.ones(n)))
        if np.isfinite(found).all() and (found > 0).all():
            candidates.append(found / found.max())
            break
    eta = min(candidates, key=lambda weights: matrix_measure(A, weights))
    return OptimalWeights(eta=eta, measure=matrix_measure(A, eta), abscissa=abscissa)
