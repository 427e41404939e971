"""The backends, found by listing the folder `solvers` and the installed entry points.

A backend is one file in that folder and no other edit. The name `solvers` is common, so
the folder is loaded on first use only, and a stranger's module of that name is reported
by its path instead of being run.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from functools import cache
from importlib.metadata import entry_points
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import contraction_nets
from contraction_nets.errors import UnknownSolverError
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import Problem
from contraction_nets.solving.solution import Solution

ENTRY_POINT_GROUP = "contraction_nets.solvers"
_IDENTITY = "__contraction_nets__"
_LARGEST = 2**31 - 1  # that every solver takes
_WORDS = {
    int: f"a whole number from 0 to {_LARGEST}",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "nothing",
}
"""Type of an option → what it takes."""


def available_solvers(kind: str | None = None) -> list[str]:
    """Names of the installed backends.

    Parameters
    ----------
    kind : {"projection", "linear program"}, optional
        Only backends that solve this kind of problem.

    Returns
    -------
    list of str
        Sorted names; each is a value of ``solver=``.

    Raises
    ------
    UnknownSolverError
        Another module named `solvers` shadows the folder of backends.
    """
    backends = (_load(name) for name in sorted(_homes()))
    return [
        backend.name
        for backend in backends
        if not backend.missing() and (kind is None or kind in backend.solves)
    ]


def get_backend(name: str, kind: str | None = None, /, **options: Any) -> Backend:
    """The backend of that name with these options.

    Raises
    ------
    UnknownSolverError
        No backend has that name, it does not solve this kind of problem, or a package that it
        requires is missing.
    ValueError
        An option it does not have, or a value it does not take.
    """
    if name not in _homes():
        raise UnknownSolverError(
            f"got solver {name!r}, expected one of {', '.join(available_solvers(kind))}."
        )
    backend = _load(name)
    if kind is not None and kind not in backend.solves:
        raise UnknownSolverError(
            f"solver '{name}' does not solve a {kind}, "
            f"expected one of {', '.join(available_solvers(kind))}."
        )
    if missing := backend.missing():
        raise UnknownSolverError(
            f"solver '{name}' needs the package {missing[0]!r}, which is not installed; "
            f"run: pip install {missing[0]}"
        )
    if unknown := sorted(set(options) - set(backend.options())):
        known = ", ".join(backend.options()) or "none"
        raise ValueError(f"solver '{name}' has no option {unknown[0]!r}, expected one of: {known}.")
    for option, wanted in get_type_hints(backend).items():
        kinds = get_args(wanted) or (wanted,)
        if option in options and not any(_fits(options[option], kind) for kind in kinds):
            raise ValueError(
                f"got {option} = {options[option]!r:.60} for solver '{name}', expected "
                f"{' or '.join(_WORDS.get(kind, str(kind)) for kind in kinds)}."
            )
    return backend(**options)


def solve(problem: Problem, solver: str, /, **options: Any) -> Solution:
    """Solve a problem with the named backend.

    Raises
    ------
    UnknownSolverError, ValueError
        As in `get_backend`.
    """
    return get_backend(solver, problem.kind, **options).solve(problem)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of an option; types other than these judge for themselves."""
    if kind is int:
        return _is(value, Integral) and 0 <= value <= _LARGEST
    if kind is float:
        return _is(value, Real) and (not _is(value, Integral) or abs(value) <= _LARGEST)
    return isinstance(value, kind) if kind in (bool, str, NoneType) else True


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


@cache
def _homes() -> dict[str, str]:
    """Backend name → where it is: "module" in our folder, or "module:Class" elsewhere.

    Listed once a process: reading the entry points of all installed packages takes 20 ms. A
    test, or a session that has just installed a backend, calls ``_homes.cache_clear()``.
    """
    package = _solvers_package()
    found = {
        module.name.rstrip("_"): f"{package.__name__}.{module.name}"
        for module in pkgutil.iter_modules(package.__path__)
    }
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry.name, entry.value)
    return found


def _load(name: str) -> type[Backend]:
    module_name, _, attribute = _homes()[name].partition(":")
    module = importlib.import_module(module_name)
    if attribute:
        backend: type[Backend] = getattr(module, attribute)
        return backend
    for value in vars(module).values():
        ours = isinstance(value, type) and value.__module__ == module.__name__
        if ours and issubclass(value, Backend):
            return value  # type: ignore[no-any-return]
    raise UnknownSolverError(
        f"{module.__file__} defines no subclass of Backend, expected exactly one; "
        "see 'add a backend' in CONTRIBUTING.md."
    )


def _solvers_package() -> Any:
    loaded = sys.modules.get("solvers")
    if loaded is None:
        expected = Path(str(contraction_nets.__file__)).resolve().parents[1] / "solvers"
        spec = importlib.util.find_spec("solvers")
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is None or origin.parent != expected:
            raise UnknownSolverError(_shadowed(origin, expected))
        loaded = importlib.import_module("solvers")
    if not getattr(loaded, _IDENTITY, False):
        raise UnknownSolverError(_shadowed(getattr(loaded, "__file__", None), None))
    return loaded


def _shadowed(found: object, expected: Path | None) -> str:
    where = f" in {expected}" if expected else ""
    return (
        f"the module 'solvers' on the path is {found or 'not found'}, expected the backends of "
        f"contraction-nets{where}; rename that module or start Python elsewhere."
    )
