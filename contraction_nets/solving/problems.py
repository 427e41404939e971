"""The optimization problems of this library, each with its own optimality conditions.

A problem knows how far a proposed point is from optimal, so that every backend is judged
by the same arithmetic, whoever solved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from contraction_nets.geometry.measures import as_finite
from contraction_nets.geometry.rows import Rows
from contraction_nets.geometry.sets import ConstraintSet, RowSet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Residuals:
    """How far a primal-dual point is from optimal; all are zero at an exact solution.

    Attributes
    ----------
    primal : float
        Largest violation of a constraint.
    dual : float
        Largest violation of a dual constraint (for a projection: of stationarity).
    gap : float
        Primal minus dual objective.
    """

    primal: float
    dual: float
    gap: float


class Problem(ABC):
    """A convex problem in one array x."""

    kind: ClassVar[str]
    """What a backend must list in `solves`: "projection" or "linear program"."""

    @abstractmethod
    def objective(self, x: Array) -> float:
        """The value to minimize at x."""

    @abstractmethod
    def residuals(
        self, x: Array, dual: Array | None = None, output_dual: Array | None = None
    ) -> Residuals:
        """Distance of the point from the optimality conditions; NaN where it is unknown."""


@dataclass(frozen=True, eq=False)
class ProjectionProblem(Problem):
    """``min ½‖X − V‖²_F  s.t.  X ∈ set``.

    Parameters
    ----------
    point : (m, ...) array
        V, the matrix to project.
    set : ConstraintSet

    Raises
    ------
    ValueError
        V is not finite, or does not have the shape the set is made for.
    """

    point: Array
    set: ConstraintSet
    kind = "projection"

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", as_finite(self.point, "the matrix"))
        if isinstance(self.set, RowSet):
            _ = self.rows

    @cached_property
    def rows(self) -> Rows:
        """The row polytopes of the set (sets with rows only)."""
        if not isinstance(self.set, RowSet):
            raise TypeError(f"{type(self.set).__name__} has no rows; use solver='cvxpy'.")
        return self.set.rows(self.point.shape)

    def objective(self, x: Array) -> float:
        return 0.5 * float(np.sum((x - self.point) ** 2))

    def residuals(
        self, x: Array, dual: Array | None = None, output_dual: Array | None = None
    ) -> Residuals:
        """KKT residuals of THEORY §3; the multipliers are read off x where none are given."""
        if not isinstance(self.set, RowSet):
            return Residuals(max(self.set.violation(x), 0.0), float("nan"), float("nan"))
        rows = self.rows
        V, X = self.point.reshape(rows.shape), np.asarray(x).reshape(rows.shape)
        largest, signed = rows.weights.max(), rows.signed
        w, bound = rows.weights / largest, rows.level * rows.scale / largest
        multiplier = _multipliers(V, X, w, signed) if dual is None else dual
        here = _signed_sum(X, w, signed)
        # The minimizer of the Lagrangian in closed form gives the dual objective and, by its
        # distance from X, the violation of stationarity.
        best = np.sign(V) * np.maximum(np.abs(V) - multiplier[:, None] * w, 0.0)
        if signed is not None:
            lines = np.arange(rows.shape[0])
            best[lines, signed] = V[lines, signed] - multiplier * w[signed]
        excess = _signed_sum(best, w, signed) - bound
        dual_objective = 0.5 * float(np.sum((best - V) ** 2)) + float(multiplier @ excess)
        return Residuals(
            primal=float(np.maximum(here - bound, 0.0).max()),
            dual=float(np.abs(best - X).max()),
            gap=self.objective(x) - dual_objective,
        )


def _signed_sum(X: Array, w: Array, signed: NDArray[np.intp] | None) -> Array:
    terms = np.abs(X)
    if signed is not None:
        lines = np.arange(X.shape[0])
        terms[lines, signed] = X[lines, signed]
    total: Array = terms @ w
    return total


def _multipliers(V: Array, X: Array, w: Array, signed: NDArray[np.intp] | None) -> Array:
    """λ ≥ 0 per row: what moved the signed coordinate, or the one that moved farthest."""
    if signed is not None:
        lines = np.arange(X.shape[0])
        moved: Array = (V[lines, signed] - X[lines, signed]) / w[signed]
    else:
        moved = (np.abs(V - X) / w).max(axis=1)
    return np.maximum(moved, 0.0)


@dataclass(frozen=True, eq=False)
class LipschitzProblem(Problem):
    """``min t  s.t.  (I − M) z ≥ b,  C z + d ≤ t 1,  z ≥ 0`` (THEORY §4).

    Its optimum is the ℓ∞ → ℓ∞ Lipschitz bound of the network. The dual is
    ``max bᵀy + dᵀπ  s.t.  (I − M)ᵀ y ≤ Cᵀπ,  1ᵀπ = 1,  y ≥ 0,  π ≥ 0``.

    Parameters
    ----------
    M : (n, n) array or csr_array
        Metzler majorant of A.
    b : (n,) array
        Row sums |B| 1.
    C : (q, n) array or csr_array
        |C|.
    d : (q,) array
        Row sums |D| 1.
    """

    M: Any
    b: Array
    C: Any
    d: Array
    kind = "linear program"

    def __post_init__(self) -> None:
        for name in ("M", "b", "C", "d"):
            value = getattr(self, name)
            if issparse(value):
                as_finite(value.data, name)
            else:
                object.__setattr__(self, name, as_finite(value, name))
        n, q = len(self.b), len(self.d)
        if self.M.shape != (n, n) or self.C.shape != (q, n):
            raise ValueError(
                f"got M {self.M.shape}, b {self.b.shape}, C {self.C.shape}, d {self.d.shape}, "
                "expected (n, n), (n,), (q, n) and (q,)."
            )

    def objective(self, x: Array) -> float:
        return float((self.C @ x + self.d).max())

    def residuals(
        self, x: Array, dual: Array | None = None, output_dual: Array | None = None
    ) -> Residuals:
        short = self.b - (x - self.M @ x)
        primal = max(float(short.max()), float((-x).max()), 0.0)
        if dual is None or output_dual is None:
            return Residuals(primal, float("nan"), float("nan"))
        slack = self.C.T @ output_dual - (dual - self.M.T @ dual)
        violation = max(
            float((-slack).max()),
            float((-dual).max()),
            float((-output_dual).max()),
            abs(float(output_dual.sum()) - 1.0),
            0.0,
        )
        gap = self.objective(x) - float(self.b @ dual + self.d @ output_dual)
        return Residuals(primal, violation, gap)
