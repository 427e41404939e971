"""The Lipschitz LP in one linear solve and its transpose (THEORY §4).

I − M is an M-matrix for every well-posed network, so z = (I − M)⁻¹ b is the least feasible
point and (I − M)⁻ᵀ C_kᵀ, for the largest output k, the dual optimum: no LP iterations.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning, lu_factor, lu_solve

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import LipschitzProblem, Problem
from contraction_nets.solving.solution import Solution, Status

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MMatrix(Backend):
    """Direct solve of the Lipschitz LP.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement of both solves.
    """

    name = "m_matrix"
    solves = ("linear program",)

    refinements: int = 1

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, LipschitzProblem)
        matrix = np.eye(len(problem.b)) - problem.M
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", LinAlgWarning)
            factors = lu_factor(matrix, check_finite=False)
            z = self._solved(factors, matrix, problem.b, transposed=False)
            output_dual = np.zeros(len(problem.d))
            output_dual[np.argmax(problem.C @ z + problem.d)] = 1.0
            right = problem.C.T @ output_dual
            dual = self._solved(factors, matrix, right, transposed=True)
        if _nonnegative(z) and _nonnegative(dual):
            return Solution(
                problem, self.name, Status.OPTIMAL, z.clip(0.0), dual.clip(0.0), output_dual
            )
        # A feasible z for a positive b would make I − M an M-matrix, and this z nonnegative.
        positive = bool((problem.b > 0).all())
        return Solution(problem, self.name, Status.INFEASIBLE if positive else Status.FAILED)

    def _solved(self, factors: Any, matrix: Array, right: Array, *, transposed: bool) -> Array:
        system, trans = matrix.T if transposed else matrix, int(transposed)
        x: Array = lu_solve(factors, right, trans=trans, check_finite=False)
        for _ in range(self.refinements):
            x = x + lu_solve(factors, right - system @ x, trans=trans, check_finite=False)
        return x


def _nonnegative(x: Array) -> bool:
    largest = float(np.abs(x).max())
    return np.isfinite(largest) and bool(x.min() >= -1e-10 * largest)
