"""The exact projection of THEORY §3: Newton on a piecewise-linear equation per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contraction_nets.geometry.projection import project_rows
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status


@dataclass(frozen=True)
class ClosedForm(Backend):
    """Projection onto any set with rows; no options."""

    name = "closed_form"
    solves = ("projection",)

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, ProjectionProblem)
        x = np.asarray(project_rows(problem.point, problem.rows))
        return Solution(problem, self.name, Status.OPTIMAL, x)
