"""Every iteration on the same equilibria and their gradients, to the same residual."""

from __future__ import annotations

import math
import random
import signal
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from contraction_nets.comparison.cases import Case, Problem
from contraction_nets.comparison.contenders import (
    TORCHDEQ,
    Equation,
    backward,
    contender,
    forward,
    is_installed,
    residual_of,
)
from contraction_nets.comparison.timing import clocked, spread

__all__ = ["ITERATIONS", "TORCHDEQ", "compare_iterations", "relative_residual"]

ITERATIONS = (
    "auto", "diagonal_resolvent", "reduced_rank", "anderson", "broyden", "newton", "average",
    "forward_backward", "peaceman_rachford", "picard",
)  # fmt: skip

_WAYS = {"": forward, "_backward": backward}
"""What the keys of a row end with, and the equation that is solved."""

_SHORT, _SHORT_TURNS = 0.01, 5
"""Runs of fewer seconds are repeated so many times as often as others."""

Row = dict[str, Any]
Progress = Callable[[Case, str], None]
"""Called with the case and the iteration before each first run."""
Run = Callable[[], Any]
Turns = dict[tuple[str, str], Run]
"""What takes turns, by the end of the keys and the name."""


def compare_iterations(
    problems: Iterable[Case | Problem],
    iterations: Sequence[str] = (*ITERATIONS, *TORCHDEQ),
    *,
    tol: float = 1e-5,
    repetitions: int = 5,
    time_limit: float = 30.0,
    max_steps: int = 100_000,
    progress: Progress | None = None,
) -> list[Row]:
    """Time iterations at equal accuracy: max |x − φ(A x + s)| ≤ tol · max |x|.

    Problems are built and everything is run once untimed; then the iterations, forward and
    backward, and one product ``torch.addmm`` of the same shapes, take turns in an order that
    is drawn anew every time: none always runs after the slowest, out of cold caches. Uses as
    many threads as torch is set to.

    Parameters
    ----------
    problems : iterable of Case or Problem
    iterations : sequence of str
        As for `solve_equilibrium`, and those of `TORCHDEQ`, whose own tolerance is halved,
        untimed, until this residual is met.
    tol : float
    repetitions : int
        Timed runs of each; fewer where together they would take longer than the limit, five times
        as many of those that take less than a hundredth of a second.
    time_limit : float
        Seconds for one run.
    max_steps : int
    progress : callable, optional

    Returns
    -------
    list of dict
        One for each problem and iteration, with the keys ``family``, ``states``, ``batch``,
        ``seed``, ``iteration``; ``outcome``: "reached", "not reached" or "timed out";
        ``steps``, ``factorizations``, ``residual`` (relative, measured in float64);
        ``seconds`` (the median), ``seconds_min``, ``seconds_lower_quartile``,
        ``seconds_upper_quartile`` and ``repetitions``, where the residual was reached;
        ``outcome_backward``, ``steps_backward``, ``factorizations_backward``,
        ``residual_backward`` and ``seconds_backward`` of the equation of the gradient, for
        one drawn cotangent; ``seconds_addmm`` and ``over_products``, the seconds over those of
        `steps` products. What is not known is None.
    """
    rows: list[Row] = []
    for item in problems:
        problem = item.build() if isinstance(item, Case) else item
        rows += _compare(problem, iterations, tol, repetitions, time_limit, max_steps, progress)
    return rows


def _compare(
    problem: Problem,
    iterations: Sequence[str],
    tol: float,
    repetitions: int,
    time_limit: float,
    max_steps: int,
    progress: Progress | None,
) -> list[Row]:
    case, rows = problem.case, []
    right = problem.A.T.contiguous()
    turns: Turns = {("", "addmm"): lambda: torch.addmm(problem.s, problem.s, right)}
    spent = {("", "addmm"): 0.0}
    equations = {way: make(problem) for way, make in _WAYS.items()}
    for name in filter(is_installed, iterations):
        if progress is not None:
            progress(case, name)
        row: Row = {
            "family": case.family, "states": case.states, "batch": case.batch, "seed": case.seed,
            "iteration": name, "repetitions": 0,
            **dict.fromkeys(("over_products", "seconds_addmm", "seconds_backward")),
            **dict.fromkeys(spread([0.0])),
        }  # fmt: skip
        rows.append(row)
        for way, equation in equations.items():
            found, run, seconds = _first(equation, name, tol, time_limit, max_steps)
            row |= {f"{key}{way}": value for key, value in found.items()}
            if found["outcome"] == "reached" and run is not None:
                turns[way, name], spent[way, name] = run, seconds
    timed = _interleaved(turns, spent, repetitions, time_limit)
    product = statistics.median(timed["", "addmm"])
    for row in rows:
        row["seconds_addmm"] = product
        if seconds := timed.get(("", row["iteration"])):
            row |= spread(seconds) | {"repetitions": len(seconds)}
            row["over_products"] = row["seconds"] / (product * max(1, row["steps"]))
        if seconds := timed.get(("_backward", row["iteration"])):
            row["seconds_backward"] = statistics.median(seconds)
    return rows


def _first(
    equation: Equation, name: str, tol: float, time_limit: float, max_steps: int
) -> tuple[Row, Run | None, float]:
    """How an untimed run ends; the run, and about how long it takes."""
    found: Row = {"outcome": "timed out", "steps": None, "factorizations": None, "residual": None}
    try:
        with _limited(time_limit):
            run = contender(equation, name, tol, max_steps)
        with _limited(time_limit):
            seconds, end = clocked(run)
    except TimeoutError:
        return found, None, time_limit
    residual = residual_of(equation, end.x)
    found["outcome"] = "reached" if residual <= 1.01 * tol else "not reached"
    found |= {"steps": end.steps, "factorizations": end.factorizations}
    found["residual"] = residual if math.isfinite(residual) else None
    return found, run, seconds


def relative_residual(problem: Problem, x: Tensor) -> float:
    """max |x − φ(A x + s)| / max |x| over states and samples, computed in float64."""
    return residual_of(forward(problem), x)


def _interleaved(
    turns: Turns, spent: Mapping[tuple[str, str], float], repetitions: int, time_limit: float
) -> dict[tuple[str, str], list[float]]:
    """Seconds of every run; all have a turn before any has its next, in an order drawn anew.

    Short runs depend on what the one before has left in the caches: they have more turns.
    """
    rng, order = random.Random(0), list(turns)
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in turns}
    for turn in range(_SHORT_TURNS * repetitions):
        rng.shuffle(order)
        for name in order:
            if turn and sum(seconds[name]) + spent[name] > time_limit:
                continue
            if turn < repetitions or statistics.median(seconds[name]) < _SHORT:
                seconds[name].append(clocked(turns[name])[0])
    return seconds


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after that time, where the platform and the thread permit."""
    usable = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not usable:
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError

    gradients = torch.is_grad_enabled()
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        # What is stopped while it enters no_grad does not leave it.
        torch.set_grad_enabled(gradients)
