"""The one row form shared by every polytope the library trains on (THEORY §3).

A row v belongs to its polytope when ``w_s v_s + Σ_{j≠s} w_j |v_j| ≤ level · scale``: one
*signed* coordinate s (or none), positive weights w. Membership is decided in exact
arithmetic: floating point with a rigorous error bound settles almost every row, integers
settle the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = Any
"""A numpy array or a torch tensor: whatever array-api-compat can name a namespace for."""

EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).smallest_subnormal)
_LARGEST_EXPONENT = 900  # beyond 2**900 a sum of weighted entries could overflow
_WEIGHT_SPAN = 2.0**400


@dataclass(frozen=True, eq=False)
class Rows:
    """m rows of n coordinates, ``w_s v_s + Σ_{j≠s} w_j |v_j| ≤ level · scale_i``.

    Parameters
    ----------
    weights : (n,) array
        Positive weights w, shared by all rows.
    level : float
        Right-hand side shared by all rows (γ, κ or a Lipschitz budget L).
    scale : (m,) array
        Positive factor of the right-hand side of each row.
    signed : (m,) integer array, optional
        Column of the signed coordinate of each row; None when every coordinate counts
        with its absolute value.

    Raises
    ------
    ValueError
        Weights or scales that are not positive and finite, or an empty polytope
        (no signed coordinate and level < 0).
    """

    weights: NDArray[np.float64]
    level: float
    scale: NDArray[np.float64]
    signed: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        weights, scale = _positive(self.weights, "weights"), _positive(self.scale, "scale")
        if not math.isfinite(self.level):
            raise ValueError(f"got the bound {self.level}, expected a finite number.")
        if self.signed is None and self.level < 0:
            raise ValueError(
                f"got the bound {self.level:g} on a sum of absolute values, expected at least 0: "
                "no matrix satisfies it."
            )
        if weights.max() / weights.min() > _WEIGHT_SPAN:
            raise ValueError(
                f"weights span {weights.min():.3g} to {weights.max():.3g}, expected a ratio "
                "below 2**400; rescale the state variables."
            )
        # A power of two changes no bit of the inequality and keeps products in range.
        shift = -int(np.frexp(weights.max())[1])
        object.__setattr__(self, "weights", np.ldexp(weights, shift))
        object.__setattr__(self, "scale", np.ldexp(scale, shift))
        object.__setattr__(self, "level", float(self.level))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): number of rows, coordinates in each."""
        return self.scale.shape[0], self.weights.shape[0]

    def beside(self, V: Array) -> RowBatch:
        """These rows as arrays of the kind and device of V, ready to be evaluated."""
        xp, device = array_api_compat.array_namespace(V), array_api_compat.device(V)
        return RowBatch(
            xp=xp,
            rows=self,
            index=xp.arange(self.shape[0], device=device),
            weights=xp.asarray(self.weights, device=device),
            bound=xp.asarray(self.level * self.scale, device=device),
            signed=None if self.signed is None else xp.asarray(self.signed, device=device),
        )


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Some rows of a `Rows`, their numbers (`index`) and data on the device of a matrix.

    `xp` is the namespace of its arrays, looked up once: that takes longer than a small sum.
    """

    xp: Any
    rows: Rows
    index: Array
    weights: Array
    bound: Array
    signed: Array | None

    def __getitem__(self, chosen: Any) -> RowBatch:
        signed = None if self.signed is None else self.signed[chosen]
        return RowBatch(
            self.xp, self.rows, self.index[chosen], self.weights, self.bound[chosen], signed
        )

    def place(self) -> tuple[Array, Array] | None:
        """Index of the signed coordinates in a matrix that holds just these rows."""
        if self.signed is None:
            return None
        device = array_api_compat.device(self.index)
        return self.xp.arange(self.index.shape[0], device=device), self.signed

    def excess(self, V: Array, factor: float = 1.0) -> tuple[Array, Array]:
        """Left-hand side minus right-hand side per row, times factor, and a bound on its error.

        Both are float64 arrays of shape (m,), whatever the dtype of V. The error bound covers
        any order of summation (n roundings in the sum, one per product) and underflow.
        """
        values = self.xp.astype(V, self.xp.float64, copy=False)
        if factor != 1.0:
            values = values * factor
        total = abs(values) @ self.weights
        left = total
        if self.signed is not None:
            terms = values[self.place()] * self.weights[self.signed]
            left = total - (abs(terms) - terms)
        right = self.bound * factor
        return left - right, self.error(total, right)

    def error(self, total: Array, right: Array) -> Array:
        """Bound on the rounding error of an excess whose absolute terms sum to `total`."""
        return (self.rows.shape[1] + 8) * (EPS * (total + abs(right)) + TINY)

    def feasible(self, V: Array, factor: float = 1.0) -> Array:
        """Which rows of V satisfy their inequality, in exact arithmetic."""
        excess, error = self.excess(V, factor)
        feasible = excess <= -error
        unclear = abs(excess) < error
        if bool(unclear.any()):
            for i in self.xp.nonzero(unclear)[0].tolist():
                feasible[i] = _exactly_feasible(V[i].tolist(), self.rows, int(self.index[i]))
        return feasible


def _positive(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"{name} have shape {array.shape} and minimum {array.min(initial=np.inf):.3g}, "
            "expected a vector of positive finite numbers."
        )
    return array


def as_rows(V: Array, rows: Rows) -> Array:
    """Check dtype and shape of V, flatten each of its rows; ValueError otherwise."""
    xp = array_api_compat.array_namespace(V)
    if V.dtype not in (xp.float32, xp.float64):
        raise ValueError(
            f"got dtype {V.dtype}, expected float32 or float64; "
            "keep the trained weights in float32 and cast for the forward pass only."
        )
    m, n = rows.shape
    if V.ndim < 2 or V.shape[0] != m or math.prod(V.shape[1:]) != n:
        raise ValueError(
            f"got shape {tuple(V.shape)}, expected {m} rows of {n} entries; "
            "pass the matrix the set was made for."
        )
    return xp.reshape(V, (m, n))


def safe_factor(V: Array, rows: Rows) -> float:
    """Power of two that keeps weighted sums over entries of V from overflowing.

    Raises
    ------
    ValueError
        V holds NaN or Inf.
    """
    xp = array_api_compat.array_namespace(V)
    largest = float(xp.max(xp.abs(V)))  # NaN and Inf survive the maximum
    if not math.isfinite(largest):
        raise ValueError(
            "the matrix contains NaN or Inf, expected finite entries; "
            "lower the learning rate or clean the input."
        )
    exponent = math.frexp(largest)[1] - math.frexp(float(rows.weights.min()))[1]
    return 1.0 if exponent <= _LARGEST_EXPONENT else 2.0 ** (_LARGEST_EXPONENT - exponent)


def feasible_rows(V: Array, rows: Rows) -> Array:
    """Which rows satisfy their inequality, decided in exact arithmetic.

    Parameters
    ----------
    V : (m, ...) array of float32 or float64, numpy or torch
    rows : Rows

    Returns
    -------
    (m,) boolean array

    Raises
    ------
    ValueError
        Wrong shape or dtype, NaN or Inf.
    """
    flat = as_rows(V, rows)
    return rows.beside(V).feasible(flat, safe_factor(flat, rows))


def _exactly_feasible(row: list[float], rows: Rows, i: int) -> bool:
    terms = [abs(v) for v in row]
    if rows.signed is not None:
        s = int(rows.signed[i])
        terms[s] = row[s]
    scale = float(rows.scale[i])
    if (rows.weights == scale).all() and max(map(abs, terms)) < 2.0**_LARGEST_EXPONENT:
        # fsum is correctly rounded, so its sign is the sign of the exact sum.
        return math.fsum([*terms, -rows.level]) <= 0
    products = (
        Fraction(weight) * Fraction(term)
        for weight, term in zip(rows.weights.tolist(), terms, strict=True)
        if term
    )
    return sum(products, Fraction(0)) <= Fraction(rows.level) * Fraction(scale)
