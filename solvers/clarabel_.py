"""Clarabel, native: interior point, set up once per set and updated with each matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any

import numpy as np
from scipy import sparse

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.polish import polish
from contraction_nets.solving.problems import LipschitzProblem, Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import (
    Key,
    LinearProgram,
    RowQuadraticProgram,
    row_constraints,
)

_STATUS = {
    "Solved": Status.OPTIMAL,
    "AlmostSolved": Status.OPTIMAL_INACCURATE,
    "PrimalInfeasible": Status.INFEASIBLE,
    "AlmostPrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
    "AlmostDualInfeasible": Status.UNBOUNDED,
    "MaxIterations": Status.ITERATION_LIMIT,
    "MaxTime": Status.TIME_LIMIT,
    # The tolerances asked for are at the limit of float64: the residuals judge the point.
    "InsufficientProgress": Status.OPTIMAL_INACCURATE,
}


@dataclass(frozen=True)
class Clarabel(Backend):
    """Clarabel through its own interface.

    Parameters
    ----------
    tolerance : float
        Absolute and relative gap and feasibility.
    max_iterations : int
    time_limit : float, optional
        Seconds.
    polish : bool
        Finish a projection by one solve on the active set that was found.
    """

    name = "clarabel"
    requires = ("clarabel",)
    solves = ("projection", "linear program")

    tolerance: float = 1e-12
    max_iterations: int = 200
    time_limit: float | None = None
    polish: bool = True

    def solve(self, problem: Problem) -> Solution:
        if isinstance(problem, ProjectionProblem):
            return self._project(problem)
        assert isinstance(problem, LipschitzProblem)
        return self._bound(problem)

    def settings(self) -> Any:
        """The options as Clarabel's settings object."""
        import clarabel

        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.presolve_enable = False  # data of a presolved problem cannot be updated
        settings.max_iter = self.max_iterations
        if self.time_limit is not None:
            settings.time_limit = self.time_limit
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = self.tolerance
        return settings

    def _project(self, problem: ProjectionProblem) -> Solution:
        form = RowQuadraticProgram(problem)
        solver = _row_solver(self, form.key, get_ident())
        solver.update(q=-form.p, b=np.concatenate([form.beta, np.zeros(form.magnitudes)]))
        answer = solver.solve()
        status = _STATUS.get(str(answer.status), Status.FAILED)
        x = form.restore(np.asarray(answer.x))
        if self.polish and np.isfinite(x).all():
            x = polish(problem, x)
        return Solution(problem, self.name, status, x, iterations=int(answer.iterations))

    def _bound(self, problem: LipschitzProblem) -> Solution:
        import clarabel

        form = LinearProgram.of(problem)
        n, q = len(problem.b), len(problem.d)
        quadratic = sparse.csc_matrix((n + 1, n + 1))
        cones = [clarabel.NonnegativeConeT(len(form.h))]
        solver = clarabel.DefaultSolver(quadratic, form.c, form.G, form.h, cones, self.settings())
        answer = solver.solve()
        status = _STATUS.get(str(answer.status), Status.FAILED)
        x, multipliers = np.asarray(answer.x), np.asarray(answer.z)
        return Solution(
            problem,
            self.name,
            status,
            x[:n],
            multipliers[:n],
            multipliers[n : n + q],
            iterations=int(answer.iterations),
        )


@lru_cache(maxsize=8)
def _row_solver(options: Clarabel, key: Key, thread: int) -> Any:
    import clarabel

    W, S = row_constraints(key)
    G = sparse.csc_matrix(sparse.vstack([W, -S]))
    size = W.shape[1]
    return clarabel.DefaultSolver(
        sparse.csc_matrix(sparse.eye(size)),
        np.zeros(size),
        G,
        np.zeros(G.shape[0]),
        [clarabel.NonnegativeConeT(G.shape[0])],
        options.settings(),
    )
