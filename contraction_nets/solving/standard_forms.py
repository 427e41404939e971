"""The problems as sparse matrices, for solvers that take nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from contraction_nets.geometry.rows import Rows
from contraction_nets.solving.problems import LipschitzProblem, ProjectionProblem

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """``min cᵀx  s.t.  G x ≤ h`` with x = (z, t): the Lipschitz LP of THEORY §4.

    The rows of G are the n state rows, the q output rows and the n bounds −z ≤ 0.
    """

    c: Array
    G: sparse.csc_matrix
    h: Array

    @classmethod
    def of(cls, problem: LipschitzProblem) -> LinearProgram:
        n, q = len(problem.b), len(problem.d)
        state = sparse.hstack(
            [sparse.csc_matrix(problem.M) - sparse.eye(n), sparse.csc_matrix((n, 1))]
        )
        output = sparse.hstack([sparse.csc_matrix(problem.C), sparse.csc_matrix(-np.ones((q, 1)))])
        bounds = sparse.hstack([-sparse.eye(n), sparse.csc_matrix((n, 1))])
        return cls(
            c=np.concatenate([np.zeros(n), [1.0]]),
            G=sparse.csc_matrix(sparse.vstack([state, output, bounds])),
            h=np.concatenate([-problem.b, -problem.d, np.zeros(n)]),
        )


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """A projection in units in which all of its numbers are about one or smaller.

    Tolerances of solvers are absolute in places, and some take numbers of 1e6 for infinity.
    The projection of V / u onto the rows with bounds β / u is that of V divided by u.

    Attributes
    ----------
    unit : float
        u, a power of two.
    point : (m, n) array
        V / u.
    weights : (n,) array
        At most one.
    bound : (m,) array
        β / u; lowered where it is above what any row of V / u can reach.
    """

    unit: float
    point: Array
    weights: Array
    bound: Array

    @classmethod
    def of(cls, problem: ProjectionProblem) -> ScaledRows:
        rows = problem.rows
        V, largest = problem.point.reshape(rows.shape), rows.weights.max()
        weights, bound = rows.weights / largest, rows.level * rows.scale / largest
        size = max(float(np.abs(V).max()), -float(bound.min()))
        unit = float(np.ldexp(1.0, np.clip(np.frexp(size)[1], -1000, 1000))) if size > 0 else 1.0
        with np.errstate(over="ignore"):
            bound = np.minimum(bound / unit, 2.0 * weights.sum())
        return cls(unit, V / unit, weights, bound)


class RowQuadraticProgram:
    """The projection onto row polytopes as ``min ½‖y − p‖²  s.t.  W y ≤ β,  y_u ≥ 0``.

    The projection keeps the sign of every coordinate that counts with its absolute value, so
    y holds magnitudes there (the set u) and the signed coordinates as they are. W and u
    depend on the set alone: solvers factorize them once. Units are those of `ScaledRows`.
    """

    def __init__(self, problem: ProjectionProblem) -> None:
        rows, scaled = problem.rows, ScaledRows.of(problem)
        self.shape, self.unit = problem.point.shape, scaled.unit
        self.weights, self.beta = scaled.weights, scaled.bound
        self.sign = np.where(scaled.point < 0, -1.0, 1.0)
        if rows.signed is not None:
            self.sign[np.arange(rows.shape[0]), rows.signed] = 1.0
        self.p: Array = (self.sign * scaled.point).ravel()
        self.key = _key(rows)
        self.magnitudes = self.p.size - (0 if rows.signed is None else rows.shape[0])

    def excess(self) -> float:
        """Largest violation of W y ≤ β at y = p."""
        return float(((self.p.reshape(self.sign.shape) @ self.weights) - self.beta).max())

    def restore(self, y: Array) -> Array:
        """The matrix X of these magnitudes."""
        X: Array = (self.sign.ravel() * y * self.unit).reshape(self.shape)
        return X


Key = tuple[int, int, bytes, bytes | None]


def _key(rows: Rows) -> Key:
    m, n = rows.shape
    signed = None if rows.signed is None else np.asarray(rows.signed, np.int64).tobytes()
    return m, n, (rows.weights / rows.weights.max()).tobytes(), signed


@lru_cache(maxsize=8)
def row_constraints(key: Key) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
    """(W, S): row sums W y and selected magnitudes S y of a `RowQuadraticProgram.key`."""
    m, n, weights, signed = key
    W = sparse.kron(sparse.eye(m), np.frombuffer(weights)[None, :])
    magnitudes = np.ones((m, n), dtype=bool)
    if signed is not None:
        magnitudes[np.arange(m), np.frombuffer(signed, np.int64)] = False
    S = sparse.eye(m * n, format="csr")[magnitudes.ravel()]
    return sparse.csc_matrix(W), sparse.csc_matrix(S)
