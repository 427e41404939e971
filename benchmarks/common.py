"""What the benchmarks share: interleaved medians, the machine, the result file."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contraction_nets.comparison.timing import clocked, take_turns

RESULTS = Path(__file__).parent / "results"


def interleaved(
    contenders: dict[str, Callable[[], Any]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of every repetition; the contenders take turns, so that a slow spell hits all."""
    for run in contenders.values():
        run()  # untimed: caches, models built once, lazy imports
    turns = {name: lambda _, run=run: clocked(run)[0] for name, run in contenders.items()}
    return take_turns(turns, repetitions)


def median(values: list[float]) -> float:
    """The middle of the values."""
    return statistics.median(values)


def machine(threads: int) -> dict[str, Any]:
    """Where and with what the figures were measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "torch", "cvxpy", "clarabel")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(name: str, result: dict[str, Any]) -> None:
    """Write benchmarks/results/NAME.json and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
