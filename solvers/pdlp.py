"""PDLP, the primal-dual hybrid gradient method of HiGHS, through highspy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import LipschitzProblem, Problem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import LinearProgram
from solvers.highs_qp import HIGHS_STATUS, quiet_highs


@dataclass(frozen=True)
class Pdlp(Backend):
    """A first-order method for the Lipschitz LP: no factorization, limited accuracy.

    Parameters
    ----------
    tolerance : float
        Relative residuals and gap.
    max_iterations : int
    time_limit : float, optional
        Seconds.
    presolve : bool
        Let HiGHS reduce the program first.
    """

    name = "pdlp"
    requires = ("highspy",)
    solves = ("linear program",)

    tolerance: float = 1e-9
    max_iterations: int = 1_000_000
    time_limit: float | None = None
    presolve: bool = True

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, LipschitzProblem)
        import highspy

        form = LinearProgram.of(problem)
        n, q = len(problem.b), len(problem.d)
        G = form.G[: n + q]
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = n + 1, n + q
        program.col_cost_ = form.c
        program.col_lower_ = np.append(np.zeros(n), -np.inf)
        program.col_upper_ = np.full(n + 1, np.inf)
        program.row_lower_ = np.full(n + q, -np.inf)
        program.row_upper_ = form.h[: n + q]
        program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        program.a_matrix_.start_ = G.indptr
        program.a_matrix_.index_ = G.indices
        program.a_matrix_.value_ = G.data
        solver = quiet_highs()
        solver.setOptionValue("solver", "pdlp")
        solver.setOptionValue("run_crossover", "off")
        solver.setOptionValue("presolve", "on" if self.presolve else "off")
        solver.setOptionValue("pdlp_iteration_limit", self.max_iterations)
        solver.setOptionValue("pdlp_optimality_tolerance", self.tolerance)
        solver.setOptionValue("kkt_tolerance", self.tolerance)
        if self.time_limit is not None:
            solver.setOptionValue("time_limit", self.time_limit)
        solver.passModel(program)
        solver.run()
        status = HIGHS_STATUS.get(solver.getModelStatus().name, Status.FAILED)
        iterations = max(int(solver.getInfo().pdlp_iteration_count), 0)
        answer = solver.getSolution()
        x, multipliers = np.asarray(answer.col_value), -np.asarray(answer.row_dual)
        complete = x.shape == (n + 1,) and multipliers.shape == (n + q,)
        if not (complete and np.isfinite(x).all() and np.isfinite(multipliers).all()):
            return Solution(problem, self.name, status, iterations=iterations)
        return Solution(
            problem,
            self.name,
            status,
            x[:n],
            multipliers[:n],
            multipliers[n:],
            iterations=iterations,
        )
