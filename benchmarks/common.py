"""What the benchmarks share: medians, commands and their memory, the machine, the result file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contraction_nets.comparison.timing import take_turns

RESULTS = Path(__file__).parent / "results"
COMMAND = """
import atexit, sys, time, common, contraction_nets.cli
atexit.register(lambda: print(time.process_time(), common.peak_memory(), file=sys.stderr))
contraction_nets.cli.main()
"""


def interleaved(
    contenders: dict[str, Callable[[], Any]],
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every repetition; the contenders take turns, so that a slow spell hits all."""
    for run in contenders.values():
        run()  # untimed: caches, models built once, lazy imports

    def timed(run: Callable[[], Any]) -> float:
        start = clock()
        run()
        return clock() - start

    turns = {name: lambda _, run=run: timed(run) for name, run in contenders.items()}
    return take_turns(turns, repetitions)


def median(values: list[float]) -> float:
    """The middle of the values."""
    return statistics.median(values)


def command(*arguments: Any, threads: int = 1) -> dict[str, Any]:
    """Exit code, seconds and peak memory of a command in a process of its own, its start included.

    The child reads its memory itself: its `ru_maxrss` would count that of the parent on Linux.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
    )
    seconds = time.perf_counter() - start
    *said, last = done.stderr.splitlines()
    if said:
        print(*said, sep="\n", file=sys.stderr)
    processor, peak = last.split()
    return {
        "code": done.returncode,
        "seconds": seconds,
        "processor_seconds": float(processor),
        "peak_bytes": int(peak),
    }


def peak_memory() -> int:
    """Bytes that this process had in memory at most (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status, expected Linux.")


def write(name: str, result: dict[str, Any]) -> None:
    """Write benchmarks/results/NAME.json and print it; every row is one line, as there are many."""
    RESULTS.mkdir(exist_ok=True)
    rows = result.get("rows", [])
    text = json.dumps(result | {"rows": []} if rows else result, indent=2)
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    text = text.replace('"rows": []', f'"rows": [\n{lines}\n  ]') if rows else text
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
