"""Methods compared at equal accuracy: each at the loosest options with which it gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from contraction_nets.comparison.timing import Bench, Measurement, Trial, spread, take_turns
from contraction_nets.comparison.worker import TimedOut, Worker
from contraction_nets.errors import SolverError
from contraction_nets.solving.solution import Status

Progress = Callable[[str], None]

_PATIENCE = 1.0
"""Seconds that a solver has beyond its own time limit, to end by itself."""
_UNTIMED = 600.0
"""Seconds for what is not timed: imports, inputs and checks."""


@dataclass(frozen=True)
class Method:
    """A way to the answer: its name, and trials from the loosest options to the tightest.

    Methods with the same `process` share one.
    """

    name: str
    rungs: tuple[Trial, ...]
    process: str


@dataclass
class Result:
    """How a method did at one size.

    Attributes
    ----------
    outcome : {"reached", "not reached", "timed out", "failed"}
        Whether the accuracy was reached, and why not.
    rung : int
        Of the loosest trial that reached the accuracy on every input, else of the last tried.
    tried : bool
        False where the method has timed out at a smaller size.
    measurements : list of Measurement
        Of the timed repetitions; empty unless the accuracy was reached.
    check : dict
        The last check, also where the accuracy was not reached.
    seconds_setup : float or None
        What the first solve took beyond the median: what is done once a set, not imports.
    reason : str
        Why there is no time.
    """

    n: int
    method: Method
    outcome: str = "not reached"
    rung: int = 0
    tried: bool = False
    measurements: list[Measurement] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)
    first_seconds: float | None = None
    reason: str = ""

    @property
    def trial(self) -> Trial:
        """The trial of that rung."""
        return self.method.rungs[self.rung]

    @property
    def seconds_setup(self) -> float | None:
        if not self.measurements or self.first_seconds is None:
            return None
        return max(self.first_seconds - float(self.times()["seconds"]), 0.0)

    def times(self) -> dict[str, Any]:
        """Median and spread of the seconds; None where there are none."""
        if self.measurements:
            return spread([measurement.seconds for measurement in self.measurements])
        return dict.fromkeys(spread([0.0]))

    def worst(self, name: str) -> Any:
        """The largest value that the checks of the timed repetitions have under this name."""
        checks = [measurement.check for measurement in self.measurements] or [self.check]
        values = [check[name] for check in checks if check.get(name) is not None]
        return max(values, default=None)

    def fail(self, error: SolverError) -> None:
        """Note why there is no answer."""
        self.outcome = "timed out" if isinstance(error, TimedOut) else "failed"
        self.measurements, self.reason = [], str(error)


def race(
    methods_at: Callable[[int], Sequence[Method]],
    sizes: Iterable[int],
    *,
    accuracy: float,
    repetitions: int,
    limit: float,
    threads: int = 1,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Run every method at every size, each in a process of its own.

    A method climbs its ladder until all inputs are solved to the accuracy asked for; only then
    is it timed, on the same inputs in turn with the others. What takes longer than the limit
    once is stopped, and at larger sizes not tried again.

    Parameters
    ----------
    methods_at : callable
        From a size to the methods.
    sizes : iterable of int
    accuracy : float
        What `error` of a check may be at most.
    repetitions : int
        Inputs per size, at least one.
    limit : float
        Seconds for one solve.
    threads : int
        Of linear algebra.
    progress : callable, optional
        Called with a sentence before each step.

    Yields
    ------
    Result
        By size, in the order of the methods.
    """
    if repetitions < 1:
        raise ValueError(f"got {repetitions} repetitions, expected at least one.")
    terms = _Terms(accuracy, repetitions, limit, progress or (lambda text: None))
    dropped: dict[str, int] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for n in sorted(sizes):
            results = [Result(n, method) for method in methods_at(n)]
            for result in results:
                if (name := result.method.name) in dropped:
                    result.outcome = "timed out"
                    result.reason = f"took more than {limit:g} seconds at n = {dropped[name]}."
                    continue
                if (process := result.method.process) not in workers:
                    workers[process] = stack.enter_context(Worker(threads))
                terms.tell(f"n = {n}: accuracy of {name}")
                _climb(result, workers[process], terms)
            running = [result for result in results if result.outcome == "reached"]
            while running:
                turns = {
                    result.method.name: _turn(result, workers[result.method.process], terms)
                    for result in running
                }
                take_turns(turns, repetitions)
                running = [
                    result
                    for result in running
                    if _climbs_on(result, workers[result.method.process], terms)
                ]
            for result in results:
                if result.outcome == "timed out":
                    dropped.setdefault(result.method.name, n)
            yield from results


@dataclass(frozen=True)
class _Terms:
    """What holds for all methods of a race."""

    accuracy: float
    repetitions: int
    limit: float
    tell: Progress


def _climb(result: Result, worker: Worker, terms: _Terms) -> None:
    """Find the loosest trial that is accurate on every input, from `result.rung` upwards."""
    result.outcome, result.measurements = "not reached", []
    for rung in range(result.rung, len(result.method.rungs)):
        result.rung, result.tried = rung, True
        try:
            for repetition in range(terms.repetitions):
                done = _attempt(worker, result.trial, repetition, terms.limit)
                result.check = done.check
                if repetition == 0:
                    result.first_seconds = done.seconds
                if not done.check["error"] <= terms.accuracy:
                    break
            else:
                result.outcome = "reached"
                return
        except SolverError as error:
            result.fail(error)
            return
    result.reason = (
        f"error {result.check['error']:.1e}, status '{result.check.get('status')}' at the "
        "tightest options."
    )


def _climbs_on(result: Result, worker: Worker, terms: _Terms) -> bool:
    """Whether a method that was less accurate when it was timed has found tighter options.

    Solvers that keep something from solve to solve answer the same question differently.
    """
    if result.outcome != "reached" or result.worst("error") <= terms.accuracy:
        return False
    result.check = max(result.measurements, key=lambda done: float(done.check["error"])).check
    if result.rung + 1 == len(result.method.rungs):
        result.outcome, result.measurements = "not reached", []
        result.reason = f"error {result.check['error']:.1e} at the tightest options."
        return False
    result.rung += 1
    _climb(result, worker, terms)
    return result.outcome == "reached"


def _turn(result: Result, worker: Worker, terms: _Terms) -> Callable[[int], None]:
    """A function that times one repetition of the trial that was found."""

    def run(repetition: int) -> None:
        if result.outcome != "reached":
            return
        terms.tell(f"n = {result.n}: time of {result.method.name}, repetition {repetition + 1}")
        try:
            done = _attempt(worker, result.trial, repetition, terms.limit)
        except SolverError as error:
            result.fail(error)
        else:
            result.measurements.append(done)

    return run


def _attempt(worker: Worker, trial: Trial, repetition: int, limit: float) -> Measurement:
    """One measurement; TimedOut where the solve takes too long, by whoever's clock."""
    worker.call(prepare, trial, repetition, limit=_UNTIMED)
    late = TimedOut(f"took more than {limit:g} seconds.")
    try:
        seconds = worker.call(solve, limit=limit + _PATIENCE)
    except TimedOut:
        raise late from None
    found = worker.call(check, limit=_UNTIMED)
    if seconds > limit or found.get("status") == Status.TIME_LIMIT:
        raise late
    return Measurement(seconds, found)


_BENCH = Bench()
"""Of the process that runs the trials; the functions below are called there."""


def prepare(trial: Trial, repetition: int) -> None:
    """Make the input of a trial."""
    _BENCH.prepare(trial, repetition)


def solve() -> float:
    """Solve the trial that was prepared, and return the seconds."""
    return _BENCH.solve()


def check() -> dict[str, Any]:
    """Judge its answer."""
    return _BENCH.check()
