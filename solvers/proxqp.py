"""ProxQP: proximal augmented Lagrangian, set up once per set and updated with each matrix."""

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
    "PROXQP_SOLVED": Status.OPTIMAL,
    "PROXQP_PRIMAL_INFEASIBLE": Status.INFEASIBLE,
    "PROXQP_SOLVED_CLOSEST_PRIMAL_FEASIBLE": Status.INFEASIBLE,
    "PROXQP_DUAL_INFEASIBLE": Status.UNBOUNDED,
    "PROXQP_MAX_ITER_REACHED": Status.ITERATION_LIMIT,
}
_INFINITY = 1e20  # ProxQP does arithmetic with its bounds


@dataclass(frozen=True)
class ProxQP(Backend):
    """ProxQP of the package proxsuite, sparse. It knows no time limit.

    Parameters
    ----------
    tolerance : float
        Absolute residuals and gap at which the iteration stops.
    max_iterations : int
    polish : bool
        Finish a projection by one solve on the active set that was found.
    """

    name = "proxqp"
    requires = ("proxsuite",)
    solves = ("projection",)

    tolerance: float = 1e-9
    max_iterations: int = 10_000
    polish: bool = True

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, ProjectionProblem)
        form = RowQuadraticProgram(problem)
        solver = _row_solver(self, form.key, get_ident())
        solver.update(g=-form.p, u=np.concatenate([form.beta, np.full(form.magnitudes, _INFINITY)]))
        solver.solve(form.p, np.zeros(0), np.zeros(len(form.beta) + form.magnitudes))
        info = solver.results.info
        status = _STATUS.get(info.status.name, Status.FAILED)
        x = form.restore(np.array(solver.results.x))
        if not np.isfinite(x).all():
            return Solution(problem, self.name, status, iterations=int(info.iter))
        if self.polish:
            x = polish(problem, x)
        return Solution(problem, self.name, status, x, iterations=int(info.iter))


@lru_cache(maxsize=8)
def _row_solver(options: ProxQP, key: Key, thread: int) -> Any:
    from proxsuite import proxqp

    W, S = row_constraints(key)
    rows, size, magnitudes = W.shape[0], W.shape[1], S.shape[0]
    solver = proxqp.sparse.QP(size, 0, rows + magnitudes)
    solver.settings.verbose = False
    solver.settings.eps_abs, solver.settings.eps_rel = options.tolerance, 0.0
    # Small residuals alone leave an error of 1e-4 where few multipliers are large.
    solver.settings.check_duality_gap = True
    solver.settings.eps_duality_gap_abs = options.tolerance
    solver.settings.eps_duality_gap_rel = 0.0
    solver.settings.max_iter = options.max_iterations
    solver.init(
        H=sparse.csc_matrix(sparse.eye(size)),
        g=np.zeros(size),
        C=sparse.csc_matrix(sparse.vstack([W, S])),
        l=np.concatenate([np.full(rows, -_INFINITY), np.zeros(magnitudes)]),
        u=np.full(rows + magnitudes, _INFINITY),
    )
    return solver
