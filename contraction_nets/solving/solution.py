"""What a backend returns, and the one vocabulary of how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from contraction_nets.errors import SolverError
from contraction_nets.solving.problems import Problem, Residuals

Array = NDArray[np.float64]


class Status(StrEnum):
    """How a solve ended, the same words for every backend."""

    OPTIMAL = "optimal"
    OPTIMAL_INACCURATE = "optimal_inaccurate"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    TIME_LIMIT = "time_limit"
    ITERATION_LIMIT = "iteration_limit"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Solution:
    """A proposed optimum with residuals computed from the problem data, whoever solved.

    Attributes
    ----------
    problem : Problem
    solver : str
        Name of the backend.
    status : Status
        What the backend said; the residuals say what is true.
    x : array or None
        The primal point, None where the backend has none.
    dual : array or None
        Multipliers: one per row of a projection, (n,) of the state rows of a linear program.
    output_dual : (q,) array or None
        Multipliers of the output rows of a linear program.
    iterations : int
        Iterations of the backend; zero for direct methods.
    """

    problem: Problem
    solver: str
    status: Status
    x: Array | None = None
    dual: Array | None = None
    output_dual: Array | None = None
    iterations: int = 0

    @property
    def found(self) -> bool:
        """Whether the backend reports an optimum, accurate or not."""
        return self.x is not None and self.status in (Status.OPTIMAL, Status.OPTIMAL_INACCURATE)

    def point(self) -> Array:
        """The primal point, or SolverError with the status where there is no optimum."""
        if self.x is None or not self.found:
            raise SolverError(
                f"solver '{self.solver}' ended with status '{self.status}', expected 'optimal'; "
                "raise its time or iteration limit, or use another solver."
            )
        return self.x

    @cached_property
    def residuals(self) -> Residuals:
        """Violations and gap of the primal-dual point, from the problem data."""
        return self.problem.residuals(self.point(), self.dual, self.output_dual)

    @property
    def objective(self) -> float:
        """Objective at the primal point."""
        return self.problem.objective(self.point())

    @property
    def primal_residual(self) -> float:
        """Largest violation of a constraint."""
        return self.residuals.primal

    @property
    def dual_residual(self) -> float:
        """Largest violation of a dual constraint."""
        return self.residuals.dual

    @property
    def duality_gap(self) -> float:
        """Primal minus dual objective."""
        return self.residuals.gap
