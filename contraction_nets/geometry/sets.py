"""The constraint sets (THEORY §3, §10): membership, violation, rows, cvxpy constraints.

A new set is one class. With rows it is projected in closed form; without, as its own `project`
does or, where it has none, through cvxpy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.geometry.measures import as_finite, as_weights
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.rows import Rows, feasible_rows, namespace

Array = Any


class ConstraintSet(ABC):
    """A closed convex set of matrices."""

    @abstractmethod
    def violation(self, V: Array) -> float:
        """How far V is outside: zero or less inside, in the units of the defining inequality."""

    @abstractmethod
    def constraints(self, X: Any) -> list[Any]:
        """The set as cvxpy constraints on the expression X, of the shape of V."""

    def contains(self, V: Array) -> bool:
        """Whether V is in the set."""
        return self.violation(V) <= 0

    def project(self, V: Array) -> Array:
        """Euclidean projection in closed form.

        Parameters
        ----------
        V : array of float32 or float64, numpy or torch, of the shape that the set is made for

        Returns
        -------
        array of the shape, dtype and device of V

        Raises
        ------
        ValueError
            Malformed V, or no closed form is known.
        """
        raise ValueError(
            f"{type(self).__name__} has no projection in closed form, expected a set that has "
            "one; use solver='cvxpy'."
        )


class RowSet(ConstraintSet):
    """A product of row polytopes; projects in closed form."""

    @abstractmethod
    def rows(self, shape: tuple[int, ...]) -> Rows:
        """The polytopes of an array of this shape, one per entry of its first axis."""

    def cached_rows(self, shape: tuple[int, ...]) -> Rows:
        """The same, made once for the sets and shapes asked for last."""
        return _cached_rows(self, shape)

    def project(self, V: Array) -> Array:
        return project_rows(V, self.cached_rows(tuple(V.shape)))

    def violation(self, V: Array) -> float:
        """Largest left-hand side minus right-hand side over the rows, in floating point."""
        rows = self.rows(tuple(V.shape))
        batch = rows.beside(V)
        excess, _ = batch.excess(*batch.terms(V.reshape(rows.shape)))
        return float((excess / batch.weights.max()).max())

    def contains(self, V: Array) -> bool:
        """Whether V, as stored, satisfies every inequality in exact arithmetic."""
        return bool(feasible_rows(V, self.rows(tuple(V.shape))).all())

    def constraints(self, X: Any) -> list[Any]:
        import cvxpy as cp

        rows = self.rows(X.shape)
        flat = cp.reshape(X, rows.shape, order="C")
        signed = None if rows.signed is None else rows.signed.tolist()
        return [row_inequality(flat, rows.weights, rows.level * rows.scale, signed)]


@lru_cache(maxsize=32)
def _cached_rows(constraint: RowSet, shape: tuple[int, ...]) -> Rows:
    return constraint.rows(shape)


def row_inequality(X: Any, weights: Any, bound: Any, signed: Sequence[int] | None) -> Any:
    """The cvxpy constraint of `Rows` on an (m, n) expression.

    Weights and bound may be cvxpy parameters: the inequality is then a disciplined
    parametrized one.
    """
    import cvxpy as cp

    if signed is None:
        return cp.abs(X) @ weights <= bound
    selected = np.zeros(X.shape)
    selected[np.arange(X.shape[0]), signed] = 1.0
    absolute = cp.abs(cp.multiply(1.0 - selected, X))
    return absolute @ weights + cp.multiply(selected, X) @ weights <= bound


def _check_square(shape: tuple[int, ...]) -> int:
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(
            f"got shape {tuple(shape)}, expected a square (n, n) matrix with n ≥ 1; "
            "pass the state matrix of x = φ(Ax + Bu + b)."
        )
    return shape[0]


@dataclass(frozen=True, eq=False)
class MatrixMeasureSet(RowSet):
    """{A : μ_{∞,η}(A) ≤ γ} [NEMON], a polyhedron unbounded towards −∞ on the diagonal.

    Parameters
    ----------
    gamma : float
        Bound on the matrix measure; below one, every A in the set is well-posed.
    eta : (n,) array, optional
        Positive weights, ones by default.
    """

    gamma: float
    eta: NDArray[np.float64] | None = None

    def rows(self, shape: tuple[int, ...]) -> Rows:
        n = _check_square(shape)
        eta = as_weights(self.eta, n)
        return Rows(weights=eta, level=float(self.gamma), scale=eta, signed=np.arange(n))


@lru_cache(maxsize=32)
def measure_set(gamma: float, eta: bytes | None = None) -> MatrixMeasureSet:
    """The set of γ and the bytes of a float64 η, one object for equal values.

    Training projects onto the same set at every step.
    """
    return MatrixMeasureSet(gamma, None if eta is None else np.frombuffer(eta))


@dataclass(frozen=True, eq=False)
class NormBall(RowSet):
    """{A : ‖A‖∞ ≤ κ} [IDL], the bounded subset of {μ∞(A) ≤ κ}."""

    kappa: float

    def rows(self, shape: tuple[int, ...]) -> Rows:
        return Rows(np.ones(int(np.prod(shape[1:]))), float(self.kappa), np.ones(shape[0]))


@dataclass(frozen=True)
class MonotoneSet(ConstraintSet):
    """{A : (A + Aᵀ)/2 ⪯ γI} [MON], spectrahedral; below γ = 1 every A in it is ℓ2 well-posed.

    Membership and projection are those of floating point: a projected matrix may violate the
    inequality by rounding.
    """

    gamma: float

    def violation(self, V: Array) -> float:
        values, _ = self._spectrum(V)
        return float(values[-1]) - self.gamma

    def project(self, V: Array) -> Array:
        # The symmetric part is projected by clipping its eigenvalues; the other is free.
        xp = namespace(V)
        if xp is not np and str(V.device) == "cpu":
            # torch may bring a LAPACK of its own, which ends in other last bits.
            return xp.asarray(self.project(np.asarray(V)))
        values, vectors = self._spectrum(V)
        above = xp.clip(values - self.gamma, 0.0, None)
        if not xp.count_nonzero(above):
            return xp.asarray(V, copy=True)
        whole = xp.astype(V, xp.float64) - (vectors * above) @ vectors.T
        return xp.astype(whole, V.dtype)

    def constraints(self, X: Any) -> list[Any]:
        import cvxpy as cp

        _check_square(X.shape)
        return [cp.lambda_max((X + X.T) / 2) <= self.gamma]

    def _spectrum(self, V: Array) -> tuple[Array, Array]:
        """Eigenvalues, the largest last, and eigenvectors of the symmetric part, in float64."""
        _check_square(tuple(V.shape))
        xp = namespace(V)
        A = xp.astype(V, xp.float64)
        if not xp.count_nonzero(xp.isfinite(A)) == A.shape[0] ** 2:
            raise ValueError("the matrix contains NaN or Inf, expected finite entries.")
        values, vectors = xp.linalg.eigh(A / 2 + A.T / 2)
        return values, vectors


@dataclass(frozen=True, eq=False)
class LipschitzStateSet(RowSet):
    """{[A, B] : (I − M(A)) z ≥ |B| 1 + slack · z} for a fixed witness z > 0 (THEORY §5).

    Of shape (n, n + p). With a slack above zero every A in the set is well-posed, also where a
    row of B is zero: μ_{∞,z}(A) ≤ 1 − slack.
    """

    z: NDArray[np.float64]
    slack: float = 0.0

    def rows(self, shape: tuple[int, ...]) -> Rows:
        z = as_weights(self.z, shape[0])
        weights = np.concatenate([z, np.ones(shape[1] - len(z))])
        return Rows(weights, 1.0 - self.slack, z, signed=np.arange(len(z)))


@dataclass(frozen=True, eq=False)
class LipschitzOutputSet(RowSet):
    """{[C, D] : |C| z + |D| 1 ≤ L} for a fixed witness z > 0 (THEORY §5), shape (q, n + p).

    L is in output units per input unit (pixels in [0, 1]), ℓ∞ to ℓ∞.
    """

    z: NDArray[np.float64]
    bound: float

    def rows(self, shape: tuple[int, ...]) -> Rows:
        z = as_finite(self.z, "z")
        weights = np.concatenate([z, np.ones(shape[1] - len(z))])
        return Rows(weights, float(self.bound), np.ones(shape[0]))


@dataclass(frozen=True)
class ConvolutionSet(RowSet):
    """Kernels (c, c, k, k) whose zero-padded, stride-1 convolution has μ∞ ≤ γ (THEORY §9)."""

    gamma: float

    def rows(self, shape: tuple[int, ...]) -> Rows:
        if len(shape) != 4 or shape[0] != shape[1] or shape[2] % 2 == 0 or shape[3] % 2 == 0:
            raise ValueError(
                f"got kernel shape {tuple(shape)}, expected (c, c, k, k) with odd k; "
                "use padding k // 2 so that the state keeps its size."
            )
        channels, taps = shape[0], shape[2] * shape[3]
        centre = np.arange(channels) * taps + taps // 2
        return Rows(np.ones(channels * taps), float(self.gamma), np.ones(channels), centre)
