"""How the cost of every method grows with the size: seconds, fitted exponents, pictures.

Projections and certificates by every backend, iterations on every family of cases, and the sets,
as the command ``compare`` measures them. The exponent is the slope of log(seconds) over log(n),
fitted to the sizes a method finished:

    python benchmarks/scaling.py [projections certificates iterations sets]

Half an hour for all four; pictures go to docs/images.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from common import write

from contraction_nets.comparison.cases import cases
from contraction_nets.comparison.certificates import compare_certificates
from contraction_nets.comparison.iterations import compare_iterations
from contraction_nets.comparison.machine import machine
from contraction_nets.comparison.projections import compare_projections
from contraction_nets.comparison.sets import contained, train_on_sets
from contraction_nets.training.data import load_data
from contraction_nets.viz.comparison import (
    plot_certificates,
    plot_compared_iterations,
    plot_projections,
    plot_sets,
    seconds_by_case,
    seconds_by_size,
)

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PROJECTED = (25, 50, 100, 200)
CERTIFIED = (30, 100, 300, 1000)
ITERATED = ((100, (1, 100, 1000)), (500, (1, 100)), (2000, (1,)))
"""States, and batches of them."""

Row = dict[str, Any]


def say(text: object) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr)


def exponents(rows: list[Row]) -> dict[str, float]:
    """Method → fitted exponent of its seconds in n, for methods with at least three sizes."""
    return {
        name: round(float(np.polyfit(*np.log(np.array(list(found.items()))).T, 1)[0]), 2)
        for name, found in seconds_by_size(rows).items()
        if len(found) > 2
    }


def projections() -> tuple[dict[str, Any], Any]:
    rows = compare_projections(PROJECTED, repetitions=3, limit=20.0, progress=say)
    return {"rows": rows, "exponents": exponents(rows)}, plot_projections(rows)


def certificates() -> tuple[dict[str, Any], Any]:
    rows = compare_certificates(CERTIFIED, repetitions=3, limit=60.0, progress=say)
    return {"rows": rows, "exponents": exponents(rows)}, plot_certificates(rows)


def iterations() -> tuple[dict[str, Any], Any]:
    rows = compare_iterations(
        itertools.chain(*(cases(None, (n,), batches) for n, batches in ITERATED)),
        repetitions=7,
        time_limit=3.0,
        progress=lambda case, name: say(f"{case}: {name}"),
    )
    ratios = {
        "auto_over_best": over_best(rows, "seconds"),
        "auto_over_best_backward": over_best(rows, "seconds_backward"),
    }
    return {**ratios, "rows": rows}, plot_compared_iterations(rows)


def over_best(rows: list[Row], key: str) -> dict[str, float]:
    """Case → seconds of `auto` over those of the fastest iteration there."""
    return {
        case: round(seconds["auto"] / min(seconds.values()), 2)
        for case, seconds in seconds_by_case(rows, key).items()
        if "auto" in seconds
    }


def sets() -> tuple[dict[str, Any], Any]:
    seeds = (0, 1, 2)
    rows = train_on_sets(
        load_data("digits"),
        epochs=20,
        seeds=seeds,
        progress=lambda done, total: say(f"step {done} of {total}") if done % 500 == 0 else None,
    )
    cloud = contained(20) + contained(20, shift=1.0)
    accuracy = {
        name: [row["test_accuracy"] for row in rows if row["set"] == name]
        for name in dict.fromkeys(row["set"] for row in rows)
    }
    return {"rows": rows, "cloud": cloud, "accuracy": accuracy}, plot_sets(
        [row for row in rows if row["seed"] == 0], cloud
    )


SUBJECTS: dict[str, Callable[[], tuple[dict[str, Any], Any]]] = {
    "projections": projections,
    "certificates": certificates,
    "iterations": iterations,
    "sets": sets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), choices=[*SUBJECTS, []])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    IMAGES.mkdir(exist_ok=True)
    for name in arguments.subjects:
        found, figure = SUBJECTS[name]()
        write(f"compare_{name}", {"machine": machine(1)} | found)
        with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "contraction-nets"}):
            figure.savefig(IMAGES / f"compare_{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
