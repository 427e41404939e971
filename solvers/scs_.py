"""SCS: operator splitting with acceleration, set up once per set and updated with each matrix."""

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
    1: Status.OPTIMAL,
    2: Status.OPTIMAL_INACCURATE,
    -1: Status.UNBOUNDED,
    -2: Status.INFEASIBLE,
    -6: Status.UNBOUNDED,
    -7: Status.INFEASIBLE,
}


@dataclass(frozen=True)
class Scs(Backend):
    """SCS through its own interface.

    Parameters
    ----------
    tolerance : float
        Absolute and relative residuals at which the iteration stops.
    max_iterations : int
    time_limit : float, optional
        Seconds.
    polish : bool
        Finish a projection by one solve on the active set that was found.
    """

    name = "scs"
    requires = ("scs",)
    solves = ("projection", "linear program")

    tolerance: float = 1e-9
    max_iterations: int = 200_000
    time_limit: float | None = None
    polish: bool = True

    def solve(self, problem: Problem) -> Solution:
        if isinstance(problem, ProjectionProblem):
            return self._project(problem)
        assert isinstance(problem, LipschitzProblem)
        return self._bound(problem)

    def settings(self) -> dict[str, Any]:
        """The options by the names that SCS gives them."""
        return {
            "verbose": False,
            "eps_abs": self.tolerance,
            "eps_rel": self.tolerance,
            "max_iters": self.max_iterations,
            "time_limit_secs": self.time_limit or 0.0,
        }

    def _project(self, problem: ProjectionProblem) -> Solution:
        form = RowQuadraticProgram(problem)
        solver = _row_solver(self, form.key, get_ident())
        solver.update(b=np.concatenate([form.beta, np.zeros(form.magnitudes)]), c=-form.p)
        zeros = np.zeros(len(form.beta) + form.magnitudes)
        answer = solver.solve(x=form.p, y=zeros, s=zeros)
        status, iterations = _ended(answer["info"])
        if not np.isfinite(answer["x"]).all():
            return Solution(problem, self.name, status, iterations=iterations)
        x = form.restore(answer["x"])
        if self.polish:
            x = polish(problem, x)
        return Solution(problem, self.name, status, x, iterations=iterations)

    def _bound(self, problem: LipschitzProblem) -> Solution:
        import scs

        form = LinearProgram.of(problem)
        n, q = len(problem.b), len(problem.d)
        data = {"A": form.G, "b": form.h, "c": form.c}
        answer = scs.SCS(data, {"l": len(form.h)}, **self.settings()).solve()
        status, iterations = _ended(answer["info"])
        x, multipliers = answer["x"], answer["y"]
        if not (np.isfinite(x).all() and np.isfinite(multipliers).all()):
            return Solution(problem, self.name, status, iterations=iterations)
        return Solution(
            problem,
            self.name,
            status,
            x[:n],
            multipliers[:n],
            multipliers[n : n + q],
            iterations=iterations,
        )


def _ended(info: dict[str, Any]) -> tuple[Status, int]:
    """Status and iterations; what a limit cut short is "inaccurate" to SCS, but named here."""
    status = _STATUS.get(info["status_val"], Status.FAILED)
    if "reached time_limit" in info["status"]:
        status = Status.TIME_LIMIT
    elif "reached max_iters" in info["status"]:
        status = Status.ITERATION_LIMIT
    return status, int(info["iter"])


@lru_cache(maxsize=8)
def _row_solver(options: Scs, key: Key, thread: int) -> Any:
    import scs

    W, S = row_constraints(key)
    G = sparse.csc_matrix(sparse.vstack([W, -S]))
    size = W.shape[1]
    data = {
        "P": sparse.csc_matrix(sparse.eye(size)),
        "A": G,
        "b": np.zeros(G.shape[0]),
        "c": np.zeros(size),
    }
    return scs.SCS(data, {"l": G.shape[0]}, **options.settings())
