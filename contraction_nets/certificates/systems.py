"""Linear systems with I − M(A), dense or sparse, behind one interface.

Nothing here is proved: a solution is a proposal, which exact.py then checks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, issparse

from contraction_nets.certificates.elimination import eliminate, solve_factored
from contraction_nets.geometry.measures import metzler_majorant
from contraction_nets.solving.sparse_m_matrix import SparseMMatrix

Array = NDArray[np.float64]

_DENSE = 2000
"""States up to which a sparse matrix is solved as a dense one, by elimination."""


class System(ABC):
    """K x = right for a matrix K without positive entries off its diagonal, and Kᵀ x = right."""

    K: Any
    """(n, n) array, or csr_array: what is multiplied with."""

    @abstractmethod
    def solve(self, right: Array) -> Array:
        """An approximate solution for right (n,) or (n, k); ≥ 0 for right ≥ 0 and an M-matrix K."""

    @abstractmethod
    def transposed(self) -> System:
        """The system of Kᵀ."""

    @abstractmethod
    def scaled(self, exponents: NDArray[np.int64]) -> System:
        """The system of 2**-e K 2**e: with state i in units of 2**exponents[i]."""

    def refined(self, right: Array, start: Array | None = None) -> Array:
        """A solution with a residual of rounding size, if refinement finds one."""
        with np.errstate(all="ignore"):
            x = self.solve(right) if start is None else start
            for _ in range(10):
                residual = right - self.K @ x
                rounding = 2.0**-50 * (abs(self.K) @ np.abs(x) + np.abs(right))
                if not (np.abs(residual) > rounding).any():
                    break
                x = x + self.solve(residual)
        return x


def system_of(A: Any) -> System | None:
    """The system with K = I − M(A); None where K is seen to be no M-matrix.

    Parameters
    ----------
    A : (n, n) array or csr_array
    """
    M = metzler_majorant(A)
    n = M.shape[0]
    if issparse(M) and n > _DENSE:
        K = csr_array(eye_array(n) - M)
        return SparseSystem(K) if (K.diagonal() > 0).all() else None
    K = np.eye(n) - (M.toarray() if issparse(M) else M)
    factors = eliminate(K)
    return None if factors is None else DenseSystem(K, factors)


@dataclass(frozen=True, eq=False)
class DenseSystem(System):
    """By elimination without pivoting.

    Attributes
    ----------
    K : (n, n) array
    factors : (n, n) array
        Of `eliminate`, of K or, where `is_transposed`, of Kᵀ.
    is_transposed : bool
    """

    K: Array
    factors: Array
    is_transposed: bool = False

    def solve(self, right: Array) -> Array:
        return solve_factored(self.factors, right, transposed=self.is_transposed)

    def transposed(self) -> DenseSystem:
        return DenseSystem(self.K.T, self.factors, not self.is_transposed)

    def scaled(self, exponents: NDArray[np.int64]) -> DenseSystem:
        shift = exponents - exponents[:, None]
        with np.errstate(all="ignore"):
            factors = np.ldexp(self.factors.T, -shift).T  # by columns, as they were
            return DenseSystem(np.ldexp(self.K, shift), factors)


class SparseSystem(System):
    """By an iteration on a sparse matrix."""

    def __init__(self, K: Any) -> None:
        self.K = K
        self._solver = SparseMMatrix(K)

    def solve(self, right: Array) -> Array:
        if right.ndim == 2:
            return np.stack([self._solver.solve(column) for column in right.T], axis=1)
        return self._solver.solve(right)

    def transposed(self) -> SparseSystem:
        return SparseSystem(csr_array(self.K.T))

    def scaled(self, exponents: NDArray[np.int64]) -> SparseSystem:
        rows = np.repeat(np.arange(self.K.shape[0]), np.diff(self.K.indptr))
        with np.errstate(all="ignore"):
            data = np.ldexp(self.K.data, exponents[self.K.indices] - exponents[rows])
        return SparseSystem(csr_array((data, self.K.indices, self.K.indptr), shape=self.K.shape))
