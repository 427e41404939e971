"""HiGHS through scipy: simplex or interior point for the Lipschitz LP."""

from __future__ import annotations

from dataclasses import dataclass

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import LipschitzProblem, Problem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import LinearProgram

_STATUS = {
    0: Status.OPTIMAL,
    1: Status.ITERATION_LIMIT,
    2: Status.INFEASIBLE,
    3: Status.UNBOUNDED,
    4: Status.FAILED,
}


@dataclass(frozen=True)
class Highs(Backend):
    """HiGHS, as shipped with scipy.

    Parameters
    ----------
    method : {"highs", "highs-ds", "highs-ipm"}
        Choose automatically, dual simplex, or interior point with crossover.
    time_limit : float, optional
        Seconds.
    tolerance : float
        Primal and dual feasibility tolerance, at least 1e-10.
    """

    name = "highs"
    requires = ("scipy",)
    solves = ("linear program",)

    method: str = "highs"
    time_limit: float | None = None
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        if self.method not in ("highs", "highs-ds", "highs-ipm"):
            raise ValueError(
                f"got method {self.method!r}, expected 'highs', 'highs-ds' or 'highs-ipm'."
            )

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, LipschitzProblem)
        from scipy.optimize import linprog

        form = LinearProgram.of(problem)
        n, q = len(problem.b), len(problem.d)
        options = {
            "primal_feasibility_tolerance": self.tolerance,
            "dual_feasibility_tolerance": self.tolerance,
        }
        if self.time_limit is not None:
            options["time_limit"] = self.time_limit
        result = linprog(
            form.c,
            form.G[: n + q],
            form.h[: n + q],
            bounds=[(0, None)] * n + [(None, None)],
            method=self.method,
            options=options,
        )
        status = _STATUS[result.status]
        if status is Status.ITERATION_LIMIT and "time limit" in result.message.lower():
            status = Status.TIME_LIMIT
        if result.x is None:
            return Solution(problem, self.name, status, iterations=int(result.nit or 0))
        multipliers = -result.ineqlin.marginals
        return Solution(
            problem,
            self.name,
            status,
            result.x[:n],
            multipliers[:n],
            multipliers[n:],
            iterations=int(result.nit),
        )
