"""Every way to project onto {A : μ∞(A) ≤ γ}, at the accuracy asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.comparison.backends import LADDER, BackendTrial, polishes, rungs
from contraction_nets.comparison.race import Method, Progress, Result, race
from contraction_nets.comparison.timing import Trial
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.rows import feasible_rows
from contraction_nets.geometry.sets import measure_set
from contraction_nets.solving.problems import ProjectionProblem
from contraction_nets.solving.registry import available_solvers
from contraction_nets.solving.solution import Solution, Status

Array = NDArray[np.float64]

WHOLE, BY_ROWS = "cvxpy as written", "cvxpy row by row"
"""cvxpy as one writes it without this library: all at once, and a model for one row."""
_RAW = ", not polished"


def compare_projections(
    sizes: Iterable[int],
    *,
    gamma: float = 0.95,
    accuracy: float = 1e-6,
    repetitions: int = 5,
    limit: float = 30.0,
    solvers: Sequence[str] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure every projection backend on random matrices, and cvxpy as users write it.

    Each method is run at the loosest tolerance at which all of its answers are accurate.
    Backends that can polish take part twice, polished and not.

    Parameters
    ----------
    sizes : iterable of int
        n; entries of the (n, n) matrices are standard normal, one matrix per repetition.
    gamma : float
        Bound on μ∞.
    accuracy : float
        Largest distance to the exact projection, relative to the largest entry of the matrix.
    repetitions : int
    limit : float
        Seconds for one projection; a method that takes longer is not tried at larger sizes.
    solvers : sequence of str, optional
        Names of methods, all by default: ``available_solvers("projection")`` and
        "cvxpy as written", "cvxpy row by row".
    threads : int
        Of linear algebra.
    progress : callable, optional
        Called with a sentence before each step.

    Returns
    -------
    list of dict
        One per size and method: `n`, `solver`, `polished` (None where it cannot), `outcome`
        ("reached", "not reached", "timed out" or "failed"), `reason`, `tolerance` (None where
        there is no such option), `options`, `repetitions`; `seconds` (the median),
        `seconds_min`, `seconds_lower_quartile`, `seconds_upper_quartile` and, of backends,
        `seconds_setup`, None where the accuracy was not reached; the worst of all repetitions of
        `distance` (to the exact projection, largest entry), `kkt_residual`, `duality_gap`,
        `rows_violated` (of the answer, in exact arithmetic); `rows_projected` of the matrix,
        `iterations`.

    Raises
    ------
    UnknownSolverError
        No method has such a name.
    """
    names = list(solvers) if solvers is not None else [*registered(), WHOLE, BY_ROWS]

    def methods_at(n: int) -> list[Method]:
        return [method for name in names for method in _methods(name, n, gamma, limit)]

    results = race(
        methods_at,
        sizes,
        accuracy=accuracy,
        repetitions=repetitions,
        limit=limit,
        threads=threads,
        progress=progress,
    )
    return [_row(result) for result in results]


def registered() -> list[str]:
    """The projection backends that are installed, the exact one first."""
    names = available_solvers("projection")
    return sorted(names, key=lambda name: (name != "closed_form", name))


def _methods(name: str, n: int, gamma: float, limit: float) -> list[Method]:
    if name in (WHOLE, BY_ROWS):
        kind = _WholeTrial if name == WHOLE else _RowTrial
        trials = [kind(n, gamma, tolerance) for tolerance in LADDER]
        return [Method(name, tuple(trials), process=name)]
    methods = []
    for polished in (True, False) if polishes(name, ProjectionProblem.kind) else (None,):
        tried = [
            ProjectionTrial(name, n, options, gamma)
            for options in rungs(name, ProjectionProblem.kind, limit, polished=polished)
        ]
        title = name + _RAW if polished is False else name
        methods.append(Method(title, tuple(tried), process=name))
    return methods


def _problem(n: int, gamma: float, repetition: int) -> ProjectionProblem:
    V = np.random.default_rng([n, repetition]).normal(size=(n, n))
    problem = ProjectionProblem(V, measure_set(gamma))
    _ = problem.rows
    return problem


def _judged(solution: Solution) -> dict[str, Any]:
    """What an answer is worth, measured from the problem data."""
    problem = solution.problem
    assert isinstance(problem, ProjectionProblem)
    found: dict[str, Any] = {
        "status": solution.status,
        "error": np.inf,
        "iterations": solution.iterations,
        "rows_projected": int((~feasible_rows(problem.point, problem.rows)).sum()),
    }
    x = solution.x
    if x is None or x.shape != problem.point.shape or not np.isfinite(x).all():
        return found
    residuals = problem.residuals(x)
    exact = project_rows(problem.point, problem.rows)
    distance = float(np.abs(x - exact).max())
    found |= {
        "distance": distance,
        "kkt_residual": max(residuals.primal, residuals.dual),
        "duality_gap": abs(residuals.gap),
        "rows_violated": int((~feasible_rows(x, problem.rows)).sum()),
    }
    if solution.found:
        found["error"] = distance / max(float(np.abs(problem.point).max()), 1e-300)
    return found


@dataclass(frozen=True)
class ProjectionTrial(BackendTrial):
    """A backend on random matrices of one size."""

    gamma: float = 0.95

    def prepare(self, repetition: int) -> ProjectionProblem:
        return _problem(self.n, self.gamma, repetition)

    def check(self, prepared: ProjectionProblem, answer: Solution) -> dict[str, Any]:
        return _judged(answer)


@dataclass(frozen=True)
class _WrittenTrial(Trial):
    """cvxpy without this library, with Clarabel at a tolerance."""

    n: int
    gamma: float
    tolerance: float

    @property
    def settings(self) -> dict[str, float]:
        """The tolerance by the names that Clarabel gives it."""
        return dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), self.tolerance)

    def warm(self) -> None:
        import cvxpy as _  # noqa: F401

    def prepare(self, repetition: int) -> ProjectionProblem:
        return _problem(self.n, self.gamma, repetition)

    def check(self, prepared: ProjectionProblem, answer: Array | None) -> dict[str, Any]:
        status = Status.FAILED if answer is None else Status.OPTIMAL
        return _judged(Solution(prepared, "cvxpy", status, answer))


class _WholeTrial(_WrittenTrial):
    """The problem written down for the whole matrix, and solved."""

    def solve(self, prepared: ProjectionProblem) -> Array | None:
        import cvxpy as cp

        A = prepared.point
        X, off = cp.Variable(A.shape), 1 - np.eye(len(A))
        sums = cp.diag(X) + cp.sum(cp.abs(cp.multiply(off, X)), axis=1)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(X - A)), [sums <= self.gamma])
        problem.solve(solver=cp.CLARABEL, **self.settings)
        answer: Array | None = X.value
        return answer


class _RowTrial(_WrittenTrial):
    """One model of a row, its diagonal entry first, solved for each row that violates the bound."""

    def solve(self, prepared: ProjectionProblem) -> Array | None:
        import cvxpy as cp

        A, n = prepared.point, self.n
        x, row = cp.Variable(n), cp.Parameter(n)
        total = x[0] + (cp.norm1(x[1:]) if n > 1 else 0)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - row)), [total <= self.gamma])
        X = A.copy()
        sums = np.diag(A) + np.abs(A).sum(axis=1) - np.abs(np.diag(A))
        for i in np.nonzero(sums > self.gamma)[0]:
            row.value = np.append(A[i, i], np.delete(A[i], i))
            problem.solve(solver=cp.CLARABEL, **self.settings)
            if x.value is None:
                return None
            X[i, i], X[i, np.arange(n) != i] = x.value[0], x.value[1:]
        return X


def _row(result: Result) -> dict[str, Any]:
    trial, name = result.trial, result.method.name
    options = dict(getattr(trial, "options", ())) if result.tried else {}
    tolerance = getattr(trial, "tolerance", None) if result.tried else None
    raw = name.endswith(_RAW)
    can_polish = isinstance(trial, BackendTrial) and polishes(trial.solver, ProjectionProblem.kind)
    return {
        "n": result.n,
        "solver": name.removesuffix(_RAW),
        "polished": (not raw) if raw or can_polish else None,
        "outcome": result.outcome,
        "reason": result.reason,
        "tolerance": options.get("tolerance", tolerance),
        "options": options,
        "repetitions": len(result.measurements),
        **result.times(),
        "seconds_setup": result.seconds_setup if isinstance(trial, BackendTrial) else None,
        **{
            key: result.worst(key)
            for key in (
                "distance",
                "kkt_residual",
                "duality_gap",
                "rows_violated",
                "rows_projected",
                "iterations",
            )
        },
    }
