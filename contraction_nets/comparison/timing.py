"""Measurements: an untimed set-up, a timed solve, an untimed check; methods take turns."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Trial(ABC):
    """One method with its options on inputs of one size, to be measured again and again.

    Subclasses are frozen dataclasses of plain values: a trial is sent to another process.
    """

    @abstractmethod
    def warm(self) -> None:
        """Import what solving needs; not timed."""

    @abstractmethod
    def prepare(self, repetition: int) -> Any:
        """The input of a repetition, the same for every method; not timed."""

    @abstractmethod
    def solve(self, prepared: Any) -> Any:
        """The answer; timed."""

    @abstractmethod
    def check(self, prepared: Any, answer: Any) -> dict[str, Any]:
        """What the answer is worth; not timed. `error` is compared with the accuracy asked for."""


class Bench:
    """A trial step by step: a limit can then be set on the step that is timed."""

    def __init__(self) -> None:
        self._trial: Trial | None = None
        self._prepared: Any = None
        self._answer: Any = None

    def prepare(self, trial: Trial, repetition: int) -> None:
        """Make the input."""
        trial.warm()
        self._trial, self._prepared, self._answer = trial, trial.prepare(repetition), None

    def solve(self) -> float:
        """Solve, and return the seconds."""
        trial = self._trial
        assert trial is not None
        seconds, self._answer = clocked(lambda: trial.solve(self._prepared))
        return seconds

    def check(self) -> dict[str, Any]:
        """Judge the answer."""
        assert self._trial is not None
        return self._trial.check(self._prepared, self._answer)


@dataclass(frozen=True)
class Measurement:
    """Seconds of one solve, and what its check found."""

    seconds: float
    check: dict[str, Any]


def clocked(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, and its result."""
    start = time.perf_counter()
    answer = run()
    return time.perf_counter() - start, answer


def take_turns(
    contenders: Mapping[str, Callable[[int], T]], repetitions: int
) -> dict[str, list[T]]:
    """What every contender returned for repetitions 0, 1, …

    Every contender has its first turn before any has its second, so that a slow spell of the
    machine hits all of them.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for repetition in range(repetitions):
        for name, run in contenders.items():
            results[name].append(run(repetition))
    return results


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, minimum and quartiles, by the names that rows give them."""
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return {
        "seconds": middle,
        "seconds_min": min(seconds),
        "seconds_lower_quartile": low,
        "seconds_upper_quartile": high,
    }
