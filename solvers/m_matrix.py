"""The Lipschitz LP in one linear solve and its transpose (THEORY §4).

I − M is an M-matrix for every well-posed network, so z = (I − M)⁻¹ b is the least feasible
point and (I − M)⁻ᵀ C_kᵀ, for the largest output k, the dual optimum: no LP iterations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning, lu_factor, lu_solve
from scipy.sparse import csr_array, eye_array, issparse

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import LipschitzProblem, Problem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.sparse_m_matrix import SparseMMatrix

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MMatrix(Backend):
    """Direct solve of the Lipschitz LP.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement of both solves; sparse ones are iterative anyway.
    """

    name = "m_matrix"
    solves = ("linear program",)

    refinements: int = 1

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, LipschitzProblem)
        solved = self._iterated(problem) if issparse(problem.M) else self._factored(problem)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", LinAlgWarning)
            z = solved(problem.b, False)
            output_dual = np.zeros(len(problem.d))
            output_dual[np.argmax(problem.C @ z + problem.d)] = 1.0
            dual = solved(problem.C.T @ output_dual, True)
        if _nonnegative(z) and _nonnegative(dual):
            return Solution(
                problem, self.name, Status.OPTIMAL, z.clip(0.0), dual.clip(0.0), output_dual
            )
        # A feasible z for a positive b would make I − M an M-matrix, and this z nonnegative.
        positive = bool((problem.b > 0).all())
        return Solution(problem, self.name, Status.INFEASIBLE if positive else Status.FAILED)

    def _factored(self, problem: LipschitzProblem) -> Callable[[Array, bool], Array]:
        """The solution for a right-hand side, or that of the transposed system, by LU."""
        matrix = np.eye(len(problem.b)) - problem.M
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", LinAlgWarning)
            factors = lu_factor(matrix, check_finite=False)

        def solved(right: Array, transposed: bool) -> Array:
            system, trans = matrix.T if transposed else matrix, int(transposed)
            x: Array = lu_solve(factors, right, trans=trans, check_finite=False)
            for _ in range(self.refinements):
                x = x + lu_solve(factors, right - system @ x, trans=trans, check_finite=False)
            return x

        return solved

    def _iterated(self, problem: LipschitzProblem) -> Callable[[Array, bool], Array]:
        """The same by an iteration on a sparse matrix."""
        matrix = csr_array(eye_array(len(problem.b)) - problem.M)
        return lambda right, transposed: SparseMMatrix(
            csr_array(matrix.T) if transposed else matrix
        ).solve(right)


def _nonnegative(x: Array) -> bool:
    largest = float(np.abs(x).max())
    return np.isfinite(largest) and bool(x.min() >= -1e-10 * largest)
