"""PIQP: proximal interior point, set up once per set and updated with each matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any

import numpy as np
from scipy import sparse

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.polish import polish
from contraction_nets.solving.problems import Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import Key, RowQuadraticProgram, row_constraints

_STATUS = {
    "PIQP_SOLVED": Status.OPTIMAL,
    "PIQP_PRIMAL_INFEASIBLE": Status.INFEASIBLE,
    "PIQP_DUAL_INFEASIBLE": Status.UNBOUNDED,
    "PIQP_MAX_ITER_REACHED": Status.ITERATION_LIMIT,
}


@dataclass(frozen=True)
class Piqp(Backend):
    """PIQP through its own interface. It knows no time limit; `max_iterations` bounds its work.

    Parameters
    ----------
    tolerance : float
        Absolute and relative residuals and gap.
    max_iterations : int
    polish : bool
        Finish a projection by one solve on the active set that was found.
    """

    name = "piqp"
    requires = ("piqp",)
    solves = ("projection",)

    tolerance: float = 1e-10
    max_iterations: int = 200
    polish: bool = True

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, ProjectionProblem)
        form = RowQuadraticProgram(problem)
        solver = _row_solver(self, form.key, get_ident())
        solver.update(c=-form.p, h_u=form.beta)
        status = _STATUS.get(solver.solve().name, Status.FAILED)
        iterations = int(solver.result.info.iter)
        x = form.restore(np.asarray(solver.result.x))
        if not np.isfinite(x).all():
            return Solution(problem, self.name, status, iterations=iterations)
        if self.polish:
            x = polish(problem, x)
        return Solution(problem, self.name, status, x, iterations=iterations)


@lru_cache(maxsize=8)
def _row_solver(options: Piqp, key: Key, thread: int) -> Any:
    import piqp

    W, S = row_constraints(key)
    rows, size = W.shape
    solver = piqp.SparseSolver()
    solver.settings.verbose = False
    solver.settings.max_iter = options.max_iterations
    solver.settings.eps_abs = solver.settings.eps_rel = options.tolerance
    solver.settings.eps_duality_gap_abs = options.tolerance
    solver.settings.eps_duality_gap_rel = options.tolerance
    solver.setup(
        sparse.csc_matrix(sparse.eye(size)),
        np.zeros(size),
        G=W,
        h_u=np.ones(rows),
        x_l=np.where(S.T @ np.ones(S.shape[0]) > 0, 0.0, -np.inf),
    )
    return solver
