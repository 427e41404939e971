"""The backends of the registry as methods of a race."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from contraction_nets.comparison.timing import Trial
from contraction_nets.solving.problems import Problem
from contraction_nets.solving.registry import get_backend, solve
from contraction_nets.solving.solution import Solution

LADDER = tuple(10.0**-exponent for exponent in range(2, 15))
"""Tolerances, loosest first."""
_POLISH = ("polish", "polishing")

Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class BackendTrial(Trial):
    """A registered backend with options on problems of one size.

    Parameters
    ----------
    solver : str
    n : int
        Size of the matrix A.
    options : tuple of (name, value)
    """

    solver: str
    n: int
    options: Options = ()

    def warm(self) -> None:
        for package in get_backend(self.solver).requires:
            importlib.import_module(package)

    def solve(self, prepared: Problem) -> Solution:
        return solve(prepared, self.solver, **dict(self.options))


def rungs(solver: str, kind: str, limit: float, *, polished: bool | None = None) -> list[Options]:
    """The options to try, from the loosest to the tightest.

    Parameters
    ----------
    solver : str
    kind : str
        Of the problem, as in `get_backend`.
    limit : float
        Seconds, told to backends that take a time limit.
    polished : bool, optional
        Whether answers are polished; None leaves that to the backend.

    Raises
    ------
    UnknownSolverError
        No backend of that name solves such problems.
    """
    known = get_backend(solver, kind).options()
    fixed: Options = (("time_limit", limit),) if "time_limit" in known else ()
    if polished is not None:
        fixed += tuple((name, polished) for name in _POLISH if name in known)
    if "tolerance" in known:
        return [(("tolerance", tolerance), *fixed) for tolerance in LADDER]
    if "accurate" in known:
        return [(("accurate", accurate), *fixed) for accurate in (False, True)]
    return [fixed]


def polishes(solver: str, kind: str) -> bool:
    """Whether a backend can polish its answer to such problems; errors as in `rungs`."""
    return any(name in get_backend(solver, kind).options() for name in _POLISH)
