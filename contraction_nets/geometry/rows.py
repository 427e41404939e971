"""The one row form shared by every polytope the library trains on (THEORY §3).

A row v belongs to its polytope when ``w_s v_s + Σ_{j≠s} w_j |v_j| ≤ level · scale``: one
*signed* coordinate s (or none), positive weights w. Membership is decided in exact
arithmetic: floating point with a rigorous error bound settles almost every row, integers
settle the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = Any
"""A numpy array or a torch tensor: whatever array-api-compat can name a namespace for."""

EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).smallest_subnormal)
_LARGEST_EXPONENT = 900
_LARGEST = 2.0**_LARGEST_EXPONENT  # beyond, a sum of weighted entries could overflow
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
        unit = _unit(weights, scale)
        if not math.isfinite(float(self.level) * float(scale.max() / unit)):
            raise ValueError(
                f"got the bound {self.level:g} beside weights from {weights.min():.3g} to "
                f"{weights.max():.3g}, expected their products within float64; rescale them."
            )
        object.__setattr__(self, "weights", weights / unit)
        object.__setattr__(self, "scale", scale / unit)
        object.__setattr__(self, "level", float(self.level))

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(m, n): number of rows, coordinates in each."""
        return self.scale.shape[0], self.weights.shape[0]

    @cached_property
    def plain(self) -> bool:
        """Whether all weights are one."""
        return bool((self.weights == 1.0).all())

    @cached_property
    def roundings(self) -> int:
        """In a left-hand side: n of its sum, in any order, some of products and differences."""
        return self.shape[1] + 8

    @cached_property
    def least_weight(self) -> float:
        """The smallest weight."""
        return float(self.weights.min())

    @cached_property
    def uneven(self) -> bool:
        """Whether the weights differ by more than a factor of a million."""
        return float(self.weights.max()) > 1e6 * self.least_weight

    @cached_property
    def sum_of_weights(self) -> float:
        """Of all coordinates."""
        return float(self.weights.sum())

    @cached_property
    def sum_of_squares(self) -> float:
        """Of the weights."""
        return float(self.weights @ self.weights)

    def beside(self, V: Array) -> RowBatch:
        """These rows as arrays of the kind and device of V, ready to be evaluated."""
        return _beside(self, namespace(V), V.device)


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Some rows of a `Rows`, their numbers (`index`) and data on the device of a matrix.

    Both sides of the inequalities are evaluated times `factor`, a power of two. `xp` is the
    namespace of the arrays, looked up once: that takes longer than a small sum.
    """

    xp: Any
    rows: Rows
    index: Array
    weights: Array
    bound: Array
    least_error: Array
    signed: Array | None
    factor: float = 1.0

    def __getitem__(self, chosen: Any) -> RowBatch:
        signed = None if self.signed is None else self.signed[chosen]
        return RowBatch(
            self.xp, self.rows, self.index[chosen], self.weights, self.bound[chosen],
            self.least_error[chosen], signed, self.factor,
        )  # fmt: skip

    def scaled(self, factor: float) -> RowBatch:
        """The same rows, both sides times this power of two."""
        bound = self.bound * factor
        error = _least_error(self.rows, bound)
        return replace(self, bound=bound, least_error=error, factor=self.factor * factor)

    @cached_property
    def place(self) -> tuple[Array, Array] | None:
        """Index of the signed coordinates in a matrix that holds just these rows."""
        if self.signed is None:
            return None
        return self.xp.arange(self.index.shape[0], device=self.index.device), self.signed

    @cached_property
    def signed_weights(self) -> Array:
        """Weights of the signed coordinates, shape (m,); only where there are some."""
        return self.weights[self.signed]

    def terms(self, V: Array) -> tuple[Array, Array | None]:
        """What the rows of V are made of, in float64 times factor.

        Returns
        -------
        (m, n) array
            The magnitudes; zero for the signed coordinates.
        (m,) array or None
            The signed coordinates.
        """
        values = self.xp.astype(V, self.xp.float64, copy=False)
        if self.factor != 1.0:
            values = values * self.factor
        sizes = abs(values)
        if self.place is None:
            return sizes, None
        signed = values[self.place]
        sizes[self.place] = 0.0
        return sizes, signed

    def error(self, total: Array) -> Array:
        """Bound on the rounding error of an excess whose absolute terms sum to `total`."""
        return total * (self.rows.roundings * EPS) + self.least_error

    def excess(self, sizes: Array, signed: Array | None) -> tuple[Array, Array]:
        """Left-hand side minus right-hand side per row, times factor, and a bound on its error.

        Both are float64 arrays of shape (m,).
        """
        total = left = sizes @ self.weights
        if signed is not None:
            term = signed if self.rows.plain else signed * self.signed_weights
            left, total = total + term, total + abs(term)
        return left - self.bound, self.error(total)

    def feasible(self, V: Array, excess: Array, error: Array) -> Array:
        """Which rows of V satisfy their inequality, in exact arithmetic."""
        feasible = excess + error <= 0
        if self.xp.count_nonzero(feasible) == feasible.shape[0]:
            return feasible
        unclear = abs(excess) < error
        if self.xp.count_nonzero(unclear):
            for i in self.xp.nonzero(unclear)[0].tolist():
                feasible[i] = _exactly_feasible(V[i].tolist(), self.rows, int(self.index[i]))
        return feasible


class Judgement(NamedTuple):
    """Rows evaluated on a matrix: see `RowBatch.terms` and `RowBatch.excess`."""

    batch: RowBatch
    sizes: Array
    signed: Array | None
    excess: Array
    feasible: Array


@lru_cache(maxsize=32)
def _beside(rows: Rows, xp: Any, device: Any) -> RowBatch:
    bound = xp.asarray(rows.level * rows.scale, device=device)
    return RowBatch(
        xp=xp,
        rows=rows,
        index=xp.arange(rows.shape[0], device=device),
        weights=xp.asarray(rows.weights, device=device),
        bound=bound,
        least_error=_least_error(rows, bound),
        signed=None if rows.signed is None else xp.asarray(rows.signed, device=device),
    )


def _least_error(rows: Rows, bound: Array) -> Array:
    """What an excess may be off by even where all entries are zero."""
    return rows.roundings * (EPS * abs(bound) + TINY)


def namespace(V: Array) -> Any:
    """The functions of the array API for arrays like V.

    numpy is its own namespace since 2.1; going through a wrapper there takes longer than a
    small sum.
    """
    return np if isinstance(V, np.ndarray) else array_api_compat.array_namespace(V)


def _unit(weights: Array, scale: Array) -> float:
    """What weights and scale can be divided by without rounding: all weights, if possible."""
    first = float(weights[0])
    if (weights == first).all() and (math.frexp(first)[0] == 0.5 or (scale == first).all()):
        return first
    return math.ldexp(1.0, math.frexp(weights.max())[1])


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
    xp = namespace(V)
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
    return V if V.ndim == 2 else xp.reshape(V, (m, n))


def judge(V: Array, batch: RowBatch) -> Judgement:
    """Evaluate the inequalities on a matrix of finite entries, (m, n).

    The rows are scaled where weighted sums over the matrix could overflow.

    Raises
    ------
    ValueError
        The matrix holds NaN or Inf.
    """
    terms = batch.terms(V)
    excess, error = batch.excess(*terms)
    # The error is never below a rounding of a weighted entry, and NaN is below nothing.
    least = batch.rows.least_weight
    if batch.xp.count_nonzero(error < _LARGEST * EPS * least * least) < V.shape[0]:
        batch = batch.scaled(_safe_factor(V, least))
        terms = batch.terms(V)
        excess, error = batch.excess(*terms)
    return Judgement(batch, *terms, excess, batch.feasible(V, excess, error))


def _safe_factor(flat: Array, least_weight: float) -> float:
    """Power of two that keeps sums over entries by a weight from overflowing."""
    largest = float(abs(flat).max())
    if not math.isfinite(largest):
        raise ValueError(
            "the matrix contains NaN or Inf, expected finite entries; "
            "lower the learning rate or clean the input."
        )
    exponent = math.frexp(largest)[1] - math.frexp(least_weight)[1]
    return 2.0 ** min(0, _LARGEST_EXPONENT - exponent)


@np.errstate(over="ignore", invalid="ignore")
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
    return judge(flat, rows.beside(flat)).feasible


def _exactly_feasible(row: list[float], rows: Rows, i: int) -> bool:
    terms = [abs(v) for v in row]
    if rows.signed is not None:
        s = int(rows.signed[i])
        terms[s] = row[s]
    scale = float(rows.scale[i])
    if (rows.weights == scale).all() and max(map(abs, terms)) < _LARGEST:
        # fsum is correctly rounded, so its sign is the sign of the exact sum.
        return math.fsum([*terms, -rows.level]) <= 0
    products = (
        Fraction(weight) * Fraction(term)
        for weight, term in zip(rows.weights.tolist(), terms, strict=True)
        if term
    )
    return sum(products, Fraction(0)) <= Fraction(rows.level) * Fraction(scale)
