"""Projection by any registered backend, its answer rounded into the set as stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.rows import feasible_rows
from contraction_nets.geometry.sets import ConstraintSet, MatrixMeasureSet, RowSet, measure_set
from contraction_nets.solving.problems import ProjectionProblem
from contraction_nets.solving.registry import solve

CLOSED_FORM = "closed_form"


def project(
    A: ArrayLike,
    gamma: float,
    eta: ArrayLike | None = None,
    *,
    solver: str = CLOSED_FORM,
    **options: Any,
) -> NDArray[Any]:
    """Euclidean projection of A onto {A : μ_{∞,η}(A) ≤ γ} (THEORY §3).

    Parameters
    ----------
    A : (n, n) array of float32 or float64
        Other real dtypes are converted to float64.
    gamma : float
        Bound on the matrix measure, of any sign.
    eta : (n,) array, optional
        Positive weights, all ones by default.
    solver : str
        Any of ``available_solvers("projection")``; "closed_form" is exact and the fastest.
    **options
        Options of the backend, checked by name.

    Returns
    -------
    (n, n) array
        In the dtype of A, inside the set in exact arithmetic; feasible rows keep every bit.

    Raises
    ------
    ValueError
        A is not square and finite, γ not finite, η not positive, an unknown option.
    UnknownSolverError, SolverError
        No such backend, or it found no optimum.

    Examples
    --------
    >>> project([[2.0, 1.0], [0.0, 0.5]], gamma=1.0)
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    if eta is None:
        constraint = measure_set(float(gamma))
    else:
        constraint = MatrixMeasureSet(float(gamma), np.asarray(eta, dtype=np.float64))
    return project_onto(A, constraint, solver=solver, **options)


def project_onto(
    point: ArrayLike, set: ConstraintSet, *, solver: str = CLOSED_FORM, **options: Any
) -> NDArray[Any]:
    """Euclidean projection onto any constraint set; see `project`."""
    V = np.asarray(point)
    if V.dtype.kind in "iub":
        V = V.astype(np.float64)
    if solver == CLOSED_FORM and not options:
        return np.asarray(set.project(V))
    if not isinstance(set, RowSet):
        answer = solve(ProjectionProblem(V, set), solver, **options).point()
        return answer.astype(V.dtype)
    rows = set.rows(V.shape)
    feasible = feasible_rows(V, rows)
    answer = solve(ProjectionProblem(V, set), solver, **options).point()
    stored = np.asarray(project_rows(answer.astype(V.dtype), rows))
    stored[feasible] = V[feasible]
    return stored
