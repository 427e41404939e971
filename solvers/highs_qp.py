"""HiGHS's active-set solver for quadratic programs, through highspy.

It keeps a dense factor of the null space of its active constraints: twice the states take some
40 times as long, and matrices that are inside the set longest, so the time limit is there to be
used. Whatever its tolerances, bounds below 1e-6 of the largest entry may count as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any

import numpy as np

from contraction_nets.solving.backend import Backend
from contraction_nets.solving.polish import polish
from contraction_nets.solving.problems import Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import Key, RowQuadraticProgram, row_constraints

HIGHS_STATUS = {
    "kOptimal": Status.OPTIMAL,
    "kInfeasible": Status.INFEASIBLE,
    "kUnbounded": Status.UNBOUNDED,
    # Neither problem of this library is unbounded: projections, and max d ≥ 0 bounds the LP.
    "kUnboundedOrInfeasible": Status.INFEASIBLE,
    "kTimeLimit": Status.TIME_LIMIT,
    "kIterationLimit": Status.ITERATION_LIMIT,
}


@dataclass(frozen=True)
class HighsQP(Backend):
    """The quadratic programs of HiGHS, set up once per set and updated with each matrix.

    Parameters
    ----------
    tolerance : float
        Primal and dual feasibility, at least 1e-10.
    max_iterations : int
    time_limit : float, optional
        Seconds.
    polish : bool
        Finish a projection by one solve on the active set that was found.
    """

    name = "highs_qp"
    requires = ("highspy",)
    solves = ("projection",)

    tolerance: float = 1e-9
    max_iterations: int = 1_000_000
    time_limit: float | None = None
    polish: bool = True

    def solve(self, problem: Problem) -> Solution:
        assert isinstance(problem, ProjectionProblem)
        form = RowQuadraticProgram(problem)
        solver = _row_solver(self, form.key, get_ident())
        size = len(form.p)
        solver.changeColsCost(size, np.arange(size, dtype=np.int32), -form.p)
        for row, bound in enumerate(form.beta):
            solver.changeRowBounds(row, -np.inf, bound)
        solver.clearSolver()
        if self.time_limit is not None:  # its clock runs on from solve to solve
            solver.setOptionValue("time_limit", solver.getRunTime() + self.time_limit)
        solver.run()
        status = HIGHS_STATUS.get(solver.getModelStatus().name, Status.FAILED)
        iterations = max(int(solver.getInfo().qp_iteration_count), 0)
        y = np.asarray(solver.getSolution().col_value)
        if y.shape != (size,) or not np.isfinite(y).all():
            return Solution(problem, self.name, status, iterations=iterations)
        x = form.restore(y)
        if self.polish:
            x = polish(problem, x)
        return Solution(problem, self.name, status, x, iterations=iterations)


@lru_cache(maxsize=8)
def _row_solver(options: HighsQP, key: Key, thread: int) -> Any:
    import highspy

    W, S = row_constraints(key)
    rows, size = W.shape
    model = highspy.HighsModel()
    program = model.lp_
    program.num_col_, program.num_row_ = size, rows
    program.col_cost_ = np.zeros(size)
    program.col_lower_ = np.where(S.T @ np.ones(S.shape[0]) > 0, 0.0, -np.inf)
    program.col_upper_ = np.full(size, np.inf)
    program.row_lower_ = np.full(rows, -np.inf)
    program.row_upper_ = np.full(rows, np.inf)
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = W.indptr
    program.a_matrix_.index_ = W.indices
    program.a_matrix_.value_ = W.data
    model.hessian_.dim_ = size
    model.hessian_.format_ = highspy.HessianFormat.kTriangular
    model.hessian_.start_ = np.arange(size + 1)
    model.hessian_.index_ = np.arange(size)
    model.hessian_.value_ = np.ones(size)
    solver = quiet_highs()
    solver.setOptionValue("qp_regularization_value", 0.0)
    solver.setOptionValue("qp_iteration_limit", options.max_iterations)
    solver.setOptionValue("primal_feasibility_tolerance", options.tolerance)
    solver.setOptionValue("dual_feasibility_tolerance", options.tolerance)
    solver.passModel(model)
    return solver


def quiet_highs() -> Any:
    """A HiGHS object that never writes to standard output.

    The public class announces itself there once a process before any option can forbid it.
    """
    from highspy import _core

    solver = _core._Highs()
    solver.setOptionValue("output_flag", False)
    return solver
