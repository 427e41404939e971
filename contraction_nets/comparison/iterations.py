"""Every iteration on the same equilibria, to the same residual."""

from __future__ import annotations

import importlib.util
import math
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contraction_nets.comparison.cases import Case, Problem
from contraction_nets.comparison.timing import spread
from contraction_nets.errors import ConvergenceWarning
from contraction_nets.nn.activations import get_activation
from contraction_nets.nn.equilibrium import solve_equilibrium

ITERATIONS = (
    "auto", "diagonal_resolvent", "reduced_rank", "anderson", "broyden", "newton", "average",
    "forward_backward", "peaceman_rachford", "picard",
)  # fmt: skip
TORCHDEQ = ("torchdeq anderson", "torchdeq broyden")
"""Solvers of the package torchdeq on x ↦ φ(A x + s); left out where it is not installed."""

_BROYDEN_MEMORY = 2**28
_DEQ_STEPS = 100

Row = dict[str, Any]
Progress = Callable[[Case, str], None]
"""Called with the case and the iteration before each first run."""


@dataclass(frozen=True)
class _End:
    x: Tensor
    steps: int
    factorizations: int = 0


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

    Problems are built and everything is run once untimed; then the iterations, and one product
    ``torch.addmm`` of the same shapes, take turns. Uses as many threads as torch is set to.

    Parameters
    ----------
    problems : iterable of Case or Problem
    iterations : sequence of str
        As for `solve_equilibrium`, and those of `TORCHDEQ`, whose own tolerance is halved,
        untimed, until this residual is met.
    tol : float
    repetitions : int
        Timed runs of each; fewer where together they would take longer than the limit.
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
        ``seconds_addmm`` and ``over_products``, the seconds over those of `steps` products.
        What is not known is None.
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
    contenders: dict[str, Callable[[], Any]] = {
        "addmm": lambda: torch.addmm(problem.s, problem.s, right)
    }
    spent = {"addmm": 0.0}
    for name in iterations:
        if name in TORCHDEQ and importlib.util.find_spec("torchdeq") is None:
            continue
        if progress is not None:
            progress(case, name)
        row: Row = {
            "family": case.family, "states": case.states, "batch": case.batch, "seed": case.seed,
            "iteration": name, "outcome": "timed out", "repetitions": 0,
            **dict.fromkeys(("steps", "factorizations", "residual", "over_products")),
            **dict.fromkeys(("seconds_addmm", *spread([0.0]))),
        }  # fmt: skip
        rows.append(row)
        try:
            with _limited(time_limit):
                run = _torchdeq(problem, name, tol) if name in TORCHDEQ else _ours(
                    problem, name, tol, max_steps
                )  # fmt: skip
            start = time.perf_counter()
            with _limited(time_limit):
                end = run()
            spent[name] = time.perf_counter() - start
        except TimeoutError:
            continue
        residual = relative_residual(problem, end.x)
        reached = residual <= 1.01 * tol
        row |= {
            "outcome": "reached" if reached else "not reached",
            "steps": end.steps, "factorizations": end.factorizations,
            "residual": residual if math.isfinite(residual) else None,
        }  # fmt: skip
        if reached:
            contenders[name] = run
    seconds = _interleaved(contenders, spent, repetitions, time_limit)
    product = statistics.median(seconds["addmm"])
    for row in rows:
        if timed := seconds.get(row["iteration"]):
            row |= spread(timed) | {"repetitions": len(timed)}
            row["over_products"] = row["seconds"] / (product * max(1, row["steps"]))
        row["seconds_addmm"] = product
    return rows


def relative_residual(problem: Problem, x: Tensor) -> float:
    """max |x − φ(A x + s)| / max |x| over states and samples, computed in float64."""
    x, A, s = (part.to(torch.float64) for part in (x, problem.A, problem.s))
    image = get_activation(problem.activation)(torch.addmm(s, x, A.T))
    residual, scale = float((x - image).abs().max()), float(x.abs().max())
    return residual / scale if scale else math.inf if residual else 0.0


def _interleaved(
    contenders: dict[str, Callable[[], Any]],
    spent: dict[str, float],
    repetitions: int,
    time_limit: float,
) -> dict[str, list[float]]:
    """Seconds of every run; they take turns, so that a slow spell hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, run in contenders.items():
            if seconds[name] and sum(seconds[name]) + spent[name] > time_limit:
                continue
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _ours(problem: Problem, name: str, tol: float, max_steps: int) -> Callable[[], _End]:
    def run() -> _End:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = solve_equilibrium(
                problem.A, problem.s, problem.activation,
                iteration=name, tol=tol, max_steps=max_steps,
            )  # fmt: skip
        return _End(result.x, result.steps, result.factorizations)

    return run


def _torchdeq(problem: Problem, name: str, tol: float) -> Callable[[], _End]:
    """Their solver at the loosest of its tolerances tol, tol/2, tol/4, … that meets ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchdeq.solver import get_solver

    solver, phi = get_solver(name.split()[1]), get_activation(problem.activation)
    memory = max(10, min(_DEQ_STEPS, _BROYDEN_MEMORY // problem.s.numel()))
    right = problem.A.T.contiguous()

    def solve(own: float) -> _End:
        products = 0

        def image(x: Tensor) -> Tensor:
            nonlocal products
            products += 1
            return phi(torch.addmm(problem.s, x, right))

        with torch.no_grad():
            x, _, _ = solver(
                image, torch.zeros_like(problem.s),
                max_iter=_DEQ_STEPS, tol=own, stop_mode="rel", LBFGS_thres=memory,
            )  # fmt: skip
        return _End(x, products)

    own = 64 * tol
    while own > tol / 64 and relative_residual(problem, solve(own).x) > tol:
        own /= 2
    return lambda: solve(own)


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

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
