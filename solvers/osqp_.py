"""OSQP: operator splitting, set up once per set and updated with each matrix, polished."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any

import numpy as np
from scipy import sparse

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import Key, RowQuadraticProgram, row_constraints

_STATUS = {
    "solved": Status.OPTIMAL,
    "solved inaccurate": Status.OPTIMAL_INACCURATE,
    "primal infeasible": Status.INFEASIBLE,
    "primal infeasible inaccurate": Status.INFEASIBLE,
    "dual infeasible": Status.UNBOUNDED,
    "dual infeasible inaccurate": Status.UNBOUNDED,
    "maximum iterations reached": Status.ITERATION_LIMIT,
    "run time limit reached": Status.TIME_LIMIT,
}


@dataclass(frozen=True)
class Osqp(Backend):
    """OSQP through its own interface.

    Parameters
    ----------
    tolerance : float
        Absolute and relative residuals at which the iteration stops.
    max_iterations : int
    time_limit : float, optional
        Seconds.
    polishing : bool
        OSQP's own solve on the active set at the end.
    """

    name = "osqp"
    requires = ("osqp",)
    solves = ("projection",)

    tolerance: float = 1e-9
    max_iterations: int = 100_000
    time_limit: float | None = None
    polishing: bool = True

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, ProjectionProblem)
        form = RowQuadraticProgram(problem)
        solver = _row_solver(self, form.key, get_ident())
        solver.update(
            q=-form.p,
            u=np.concatenate([form.beta, np.full(form.magnitudes, np.inf)]),
        )
        # With nothing to polish OSQP says so, on standard output, however quiet it was asked to be.
        active = form.excess() > 0
        solver.update_settings(polishing=self.polishing and active)
        solver.warm_start(x=form.p, y=np.zeros(len(form.beta) + form.magnitudes))
        answer = solver.solve(raise_error=False)
        status = _STATUS.get(answer.info.status, Status.FAILED)
        iterations = int(answer.info.iter)
        if answer.x is None or not np.isfinite(answer.x).all():
            return Solution(problem, self.name, status, iterations=iterations)
        return Solution(problem, self.name, status, form.restore(answer.x), iterations=iterations)


@lru_cache(maxsize=8)
def _row_solver(options: Osqp, key: Key, thread: int) -> Any:
    import osqp

    W, S = row_constraints(key)
    size, rows, magnitudes = W.shape[1], W.shape[0], S.shape[0]
    solver = osqp.OSQP()
    limit = {} if options.time_limit is None else {"time_limit": options.time_limit}
    solver.setup(
        sparse.csc_matrix(sparse.eye(size)),
        np.zeros(size),
        sparse.csc_matrix(sparse.vstack([W, S])),
        np.concatenate([np.full(rows, -np.inf), np.zeros(magnitudes)]),
        np.full(rows + magnitudes, np.inf),
        verbose=False,
        eps_abs=options.tolerance,
        eps_rel=options.tolerance,
        max_iter=options.max_iterations,
        polishing=options.polishing,
        **limit,
    )
    return solver
