"""What the benchmarks share: interleaved medians, the machine, the result file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(
    contenders: dict[str, Callable[[], Any]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of every repetition; the contenders take turns, so that a slow spell hits all."""
    for run in contenders.values():
        run()  # untimed: caches, models built once, lazy imports
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


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
