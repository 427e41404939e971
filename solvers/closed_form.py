"""The projection that a set itself knows, for rows that of THEORY §3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status


@dataclass(frozen=True)
class ClosedForm(Backend):
    """Projection onto any set that has one in closed form; no options."""

    name = "closed_form"
    solves = ("projection",)

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, ProjectionProblem)
        x = np.asarray(problem.set.project(problem.point))
        return Solution(problem, self.name, Status.OPTIMAL, x)
