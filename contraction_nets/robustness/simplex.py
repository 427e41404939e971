"""HiGHS for the programs of one sample: warm through highspy, else from scratch through scipy.

Nothing here is trusted, and whatever goes wrong is an answer without multipliers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver says.

    Attributes
    ----------
    dual : (r,) array or None
        Multipliers of rows @ z ≥ right, of the objective or, where `infeasible`, of zero.
    point : (k,) array or None
    infeasible : bool
    """

    dual: Array | None = None
    point: Array | None = None
    infeasible: bool = False


class Simplex(ABC):
    """min costs @ z subject to rows @ z ≥ right (or =) and bounds, solved again and again."""

    @abstractmethod
    def solve(
        self,
        costs: Array,
        lower: Array,
        upper: Array,
        equal: NDArray[np.bool_],
        seconds: float,
    ) -> Answer:
        """Solve with these costs and bounds, and with equality in some rows."""


def simplex(rows: Array, right: Array) -> Simplex:
    """The best solver there is."""
    return WarmHighs(rows, right) if find_spec("highspy") else ScipyHighs(rows, right)


class ScipyHighs(Simplex):
    """HiGHS as shipped with scipy: every solve starts from nothing."""

    def __init__(self, rows: Array, right: Array) -> None:
        self._rows, self._right = rows, right

    def solve(
        self,
        costs: Array,
        lower: Array,
        upper: Array,
        equal: NDArray[np.bool_],
        seconds: float,
    ) -> Answer:
        r = len(self._right)
        bounds = np.column_stack([lower, upper])
        found = self._run(costs, self._rows, bounds, equal, seconds)
        if found.status == 0:
            return Answer(self._dual(found, equal), found.x)
        if found.status != 2:
            return Answer()
        # How much has to give: its multipliers prove that there is nothing.
        slack = np.hstack([np.eye(r), -np.eye(r)[:, equal]])
        loose = np.hstack([self._rows, slack])
        bounds = np.vstack([bounds, np.tile([0.0, np.inf], (slack.shape[1], 1))])
        costs = np.concatenate([np.zeros(len(costs)), np.ones(slack.shape[1])])
        found = self._run(costs, loose, bounds, equal, seconds)
        return Answer(self._dual(found, equal) if found.status == 0 else None, infeasible=True)

    def _run(
        self, costs: Array, rows: Array, bounds: Array, equal: NDArray[np.bool_], seconds: float
    ) -> Any:
        return linprog(
            costs,
            -rows[~equal],
            -self._right[~equal],
            rows[equal] if equal.any() else None,
            self._right[equal] if equal.any() else None,
            bounds,
            method="highs-ds",
            options={"time_limit": max(seconds, 1e-3)},
        )

    def _dual(self, found: Any, equal: NDArray[np.bool_]) -> Array:
        dual = np.zeros(len(self._right))
        dual[~equal] = -found.ineqlin.marginals
        if equal.any():
            dual[equal] = found.eqlin.marginals
        return dual


class WarmHighs(Simplex):
    """HiGHS through highspy: every solve starts from the basis of the last one."""

    def __init__(self, rows: Array, right: Array) -> None:
        import highspy
        from highspy import _core

        self._status = highspy.HighsModelStatus
        self._right = right
        r, k = rows.shape
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = k, r
        program.col_cost_ = np.zeros(k)
        program.col_lower_, program.col_upper_ = np.zeros(k), np.zeros(k)
        program.row_lower_, program.row_upper_ = right, np.full(r, np.inf)
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = np.arange(r + 1) * k
        program.a_matrix_.index_ = np.tile(np.arange(k), r)
        program.a_matrix_.value_ = rows.ravel()
        # The public class announces itself on standard output, before any option can forbid it.
        self._highs: Any = _core._Highs()
        # No number of threads: HiGHS refuses to run where another part of the process has started
        # its scheduler with another one, and its dual simplex uses a single one anyhow.
        self._highs.setOptionValue("output_flag", False)
        self._highs.setOptionValue("presolve", "off")
        self._highs.passModel(program)

    def solve(
        self,
        costs: Array,
        lower: Array,
        upper: Array,
        equal: NDArray[np.bool_],
        seconds: float,
    ) -> Answer:
        highs = self._highs
        columns = np.arange(len(costs), dtype=np.int32)
        highs.changeColsCost(len(costs), columns, costs)
        highs.changeColsBounds(len(costs), columns, lower, upper)
        ends = np.where(equal, self._right, np.inf)
        rows = np.arange(len(ends), dtype=np.int32)
        highs.changeRowsBounds(len(ends), rows, self._right, ends)
        # Its clock runs on from solve to solve.
        highs.setOptionValue("time_limit", highs.getRunTime() + max(seconds, 1e-3))
        highs.run()
        status = highs.getModelStatus()
        if status == self._status.kOptimal:
            found = highs.getSolution()
            return Answer(np.array(found.row_dual), np.array(found.col_value))
        if status != self._status.kInfeasible:
            return Answer()
        _, there, ray = highs.getDualRay()
        return Answer(np.array(ray) if there else None, infeasible=True)
