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


class RowQuadraticProgram:
    """The projection onto row polytopes as ``min ½‖y − p‖²  s.t.  W y ≤ β,  y_u ≥ 0``.

    The projection keeps the sign of every coordinate that counts with its absolute value, so
    y holds magnitudes there (the set u) and the signed coordinates as they are. W and u
    depend on the set alone: solvers factorize them once.
    """

    def __init__(self, problem: ProjectionProblem) -> None:
        rows = problem.rows
        self.shape = problem.point.shape
        V = problem.point.reshape(rows.shape)
        largest = rows.weights.max()
        self.weights, self.beta = rows.weights / largest, rows.level * rows.scale / largest
        self.sign = np.where(V < 0, -1.0, 1.0)
        if rows.signed is not None:
            self.sign[np.arange(rows.shape[0]), rows.signed] = 1.0
        self.p: Array = (self.sign * V).ravel()
        self.key = _key(rows)
        self.magnitudes = self.p.size - (0 if rows.signed is None else rows.shape[0])

    def restore(self, y: Array) -> Array:
        """The matrix X of these magnitudes."""
        X: Array = (self.sign.ravel() * y).reshape(self.shape)
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
