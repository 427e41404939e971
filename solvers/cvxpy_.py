"""cvxpy: the reference and the general road, with any solver that cvxpy has installed.

A model is built once per shape as a disciplined parametrized program and re-solved with new
data. Interior-point answers at default tolerances are off by 1e-5 per entry or more, so
Clarabel, the default, is asked for more and projections are polished.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any

import numpy as np
from scipy.sparse import issparse

from contraction_nets.errors import UnknownSolverError
from contraction_nets.geometry.sets import ConstraintSet, RowSet, row_inequality
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.polish import polish
from contraction_nets.solving.problems import LipschitzProblem, Problem, ProjectionProblem
from contraction_nets.solving.solution import Solution, Status
from contraction_nets.solving.standard_forms import ScaledRows

_STATUS = {
    "optimal": Status.OPTIMAL,
    "optimal_inaccurate": Status.OPTIMAL_INACCURATE,
    "infeasible": Status.INFEASIBLE,
    "infeasible_inaccurate": Status.INFEASIBLE,
    "unbounded": Status.UNBOUNDED,
    "unbounded_inaccurate": Status.UNBOUNDED,
    "user_limit": Status.ITERATION_LIMIT,
}
_ACCURATE: dict[str, tuple[dict[str, Any], ...]] = {
    "CLARABEL": tuple(
        dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tol) for tol in (1e-13, 1e-10)
    ),
    "OSQP": ({"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iter": 100_000, "polishing": True},),
    "SCS": ({"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 100_000},),
}
"""Options to try one after the other, before those of cvxpy."""


@dataclass(frozen=True)
class Cvxpy(Backend):
    """Any solver that cvxpy has installed.

    Parameters
    ----------
    cvxpy_solver : str
        Its name in cvxpy, such as "CLARABEL", "OSQP", "SCS" or "HIGHS".
    accurate : bool
        Ask for tight tolerances where we know their names; False keeps cvxpy's defaults.
    polish : bool
        Finish a projection by one solve on the active set that was found.
    """

    name = "cvxpy"
    requires = ("cvxpy",)
    solves = ("projection", "linear program")

    cvxpy_solver: str = "CLARABEL"
    accurate: bool = True
    polish: bool = True

    def __post_init__(self) -> None:
        import cvxpy

        name = str(self.cvxpy_solver).upper()
        if name not in cvxpy.installed_solvers():
            raise UnknownSolverError(
                f"got cvxpy_solver {self.cvxpy_solver!r}, expected one of "
                f"{', '.join(cvxpy.installed_solvers())}."
            )
        object.__setattr__(self, "cvxpy_solver", name)

    def solve(self, problem: Problem) -> Solution:
        if isinstance(problem, ProjectionProblem):
            return self._project(problem)
        assert isinstance(problem, LipschitzProblem)
        return self._bound(problem)

    def _project(self, problem: ProjectionProblem) -> Solution:
        unit = 1.0
        if isinstance(problem.set, RowSet):
            rows, scaled = problem.rows, ScaledRows.of(problem)
            signed = None if rows.signed is None else tuple(rows.signed.tolist())
            model = _row_model(*rows.shape, signed, get_ident())
            unit, model.point.value = scaled.unit, scaled.point
            model.weights.value, model.bound.value = scaled.weights, scaled.bound
        else:
            model = _set_model(problem.set, problem.point.shape, get_ident())
            model.point.value = problem.point
        status, iterations = self._run(model.problem)
        if model.x.value is None:
            return Solution(problem, self.name, status, iterations=iterations)
        x = unit * np.asarray(model.x.value).reshape(problem.point.shape)
        if self.polish and isinstance(problem.set, RowSet) and np.isfinite(x).all():
            x = polish(problem, x)
        return Solution(problem, self.name, status, x, iterations=iterations)

    def _bound(self, problem: LipschitzProblem) -> Solution:
        if issparse(problem.M):  # a parameter would be a full matrix
            model = _linear_program(problem.M, problem.b, problem.C, problem.d)
        else:
            model = _lipschitz_model(len(problem.b), len(problem.d), get_ident())
            model.M.value, model.b.value = problem.M, problem.b
            model.C.value, model.d.value = problem.C, problem.d
        status, iterations = self._run(model.problem)
        if model.z.value is None:
            return Solution(problem, self.name, status, iterations=iterations)
        state, output = model.problem.constraints
        return Solution(
            problem,
            self.name,
            status,
            model.z.value,
            state.dual_value,
            output.dual_value,
            iterations=iterations,
        )

    def _run(self, problem: Any) -> tuple[Status, int]:
        import cvxpy

        accurate = _ACCURATE.get(self.cvxpy_solver, ()) if self.accurate else ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the status says that a solution is inaccurate
            # A tolerance at the limit of float64 can stop a solver that its defaults do not;
            # cold, because cvxpy's warm start keeps the solver object and its tolerances.
            for attempt, options in enumerate((*accurate, {})):
                try:
                    cold = {"warm_start": False} if attempt else {}
                    problem.solve(solver=self.cvxpy_solver, **options, **cold)
                except cvxpy.error.SolverError:
                    continue
                # Stopped on the way to tight tolerances, it can be farther off than the defaults.
                if options and problem.status == "optimal_inaccurate":
                    continue
                iterations = problem.solver_stats.num_iters
                return _STATUS.get(problem.status, Status.FAILED), int(iterations or 0)
        return Status.FAILED, 0


@dataclass(frozen=True)
class _ProjectionModel:
    problem: Any
    x: Any
    point: Any
    weights: Any = None
    bound: Any = None


@lru_cache(maxsize=8)
def _row_model(m: int, n: int, signed: tuple[int, ...] | None, thread: int) -> _ProjectionModel:
    import cvxpy as cp

    x, point = cp.Variable((m, n)), cp.Parameter((m, n))
    weights, bound = cp.Parameter(n, nonneg=True), cp.Parameter(m)
    constraint = row_inequality(x, weights, bound, signed)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [constraint])
    return _ProjectionModel(problem, x, point, weights, bound)


@lru_cache(maxsize=8)
def _set_model(
    constraint_set: ConstraintSet, shape: tuple[int, ...], thread: int
) -> _ProjectionModel:
    import cvxpy as cp

    x, point = cp.Variable(shape), cp.Parameter(shape)
    objective = cp.Minimize(cp.sum_squares(x - point))
    return _ProjectionModel(cp.Problem(objective, constraint_set.constraints(x)), x, point)


@dataclass(frozen=True)
class _LipschitzModel:
    problem: Any
    z: Any
    M: Any
    b: Any
    C: Any
    d: Any


@lru_cache(maxsize=8)
def _lipschitz_model(n: int, q: int, thread: int) -> _LipschitzModel:
    import cvxpy as cp

    return _linear_program(
        cp.Parameter((n, n)), cp.Parameter(n), cp.Parameter((q, n)), cp.Parameter(q)
    )


def _linear_program(M: Any, b: Any, C: Any, d: Any) -> _LipschitzModel:
    import cvxpy as cp

    z, t = cp.Variable(M.shape[0], nonneg=True), cp.Variable()
    constraints = [z - M @ z >= b, C @ z + d <= t]
    return _LipschitzModel(cp.Problem(cp.Minimize(t), constraints), z, M, b, C, d)
