"""What a comparison found, as tables for people: one for each size or case."""

from __future__ import annotations

import itertools
from typing import Any

from contraction_nets.viz.comparison import case_name, method_name

Row = dict[str, Any]

_COLUMNS = {
    "projections": {
        "name": "solver", "time": "time", "spread": "±", "distance": "distance",
        "kkt_residual": "KKT residual", "rows_violated": "rows outside",
    },
    "certificates": {
        "name": "solver", "time": "time", "spread": "±", "primal_dual_gap": "gap",
        "violation": "violation", "excess": "bound/optimum − 1", "proved": "proved",
    },
    "iterations": {
        "name": "iteration", "steps": "steps", "time": "time", "over_products": "/addmm",
        "residual": "residual", "time_backward": "gradient",
    },
    "sets": {
        "name": "set", "test_accuracy": "accuracy", "test_loss": "test loss",
        "lipschitz_bound": "ℓ∞ bound", "euclidean_bound": "√p · ℓ2 bound",
        "iterations": "steps", "seconds": "seconds",
    },
}  # fmt: skip
"""Subject → key of a row, and what it is called."""

_NONE = "–"


def print_rows(subject: str, rows: list[Row]) -> None:
    """The columns of this subject, on stdout; a method without a time says why instead."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = _COLUMNS[subject]
    for case, group in itertools.groupby(rows, case_name):
        table = Table(
            box=box.SIMPLE_HEAD, title=f"{subject}: {case}", title_justify="left",
            title_style="bold",
        )  # fmt: skip
        for key, name in columns.items():
            table.add_column(name, justify="left" if key == "name" else "right", no_wrap=True)
        for row in group:
            shown = row | {"name": method_name(row), "spread": _spread(row)}
            shown |= {"time": _time(row), "time_backward": _time(row, "_backward")}
            table.add_row(*(_cell(shown.get(key)) for key in columns))
        Console().print(table)


def time_text(seconds: float) -> str:
    """Seconds with three digits and the unit that people would choose."""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit, size = next((each for each in units.items() if seconds >= each[1]), ("µs", 1e-6))
    return f"{float(f'{seconds / size:.3g}'):g} {unit}"


def _time(row: Row, way: str = "") -> str:
    seconds, outcome = row.get(f"seconds{way}"), row.get(f"outcome{way}", "reached")
    return outcome if outcome != "reached" or seconds is None else time_text(seconds)


def _spread(row: Row) -> str | None:
    """Half the distance of the quartiles, over the median."""
    low, high = row.get("seconds_lower_quartile"), row.get("seconds_upper_quartile")
    if low is None or high is None or not row["seconds"]:
        return None
    return f"{50 * (high - low) / row['seconds']:.0f} %"


def _cell(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
