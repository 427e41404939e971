"""Pictures of comparisons: rows of `contraction_nets.comparison` in, Figure out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.viz.metrics import NothingToDrawError
from contraction_nets.viz.rounding import percent
from contraction_nets.viz.style import COLOURS, LABEL_SIZE, curve, label_ends, name_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Array = NDArray[np.float64]

SET_NAMES = {
    "norm_ball": "‖A‖∞ ≤ γ",
    "measure": "μ∞(A) ≤ γ",
    "adaptive": "best weights",
    "monotone": "monotone",
}
"""Constraint set → what pictures call it."""
SET_COLOURS = {
    "norm_ball": "slate", "measure": "blue", "adaptive": "green", "monotone": "vermilion",
}  # fmt: skip
_FAST = ("auto", "diagonal_resolvent", "average", "newton")
_FAST_COLOURS = dict(zip(_FAST, ("vermilion", "blue", "ink", "green"), strict=True))

_WIDE = 7.0  # inches, for two panels beside long names


def method_name(row: Row) -> str:
    """The method of a row: its backend, marked where the answer is not polished, or iteration."""
    name: str = row.get("solver") or row.get("iteration") or row["set"]
    return f"{name}, raw" if row.get("polished") is False else name


def case_name(row: Row) -> str:
    """The problem of a row: the case of an iteration, or the number of states."""
    if "family" in row:
        return f"{row['family']}, n = {row['states']}, batch {row['batch']}"
    return f"n = {row['n']}"


def seconds_by_case(rows: Sequence[Row], key: str = "seconds") -> dict[str, dict[str, float]]:
    """Case → method → seconds (under this key), of the rows that reached the accuracy."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get(key) is not None:
            found.setdefault(case_name(row), {})[method_name(row)] = row[key]
    return found


def seconds_by_size(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Method → n → seconds, of the rows that reached the accuracy."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["seconds"] is not None:
            found.setdefault(method_name(row), {})[row["n"]] = row["seconds"]
    return found


def plot_projections(rows: Sequence[Row]) -> Figure:
    """Seconds of every projection method over the size, at the accuracy that all reached.

    Raises
    ------
    NothingToDrawError
        No method has a time.
    """
    return _scaling(rows, "closed_form", "The closed form projects")


def plot_certificates(rows: Sequence[Row]) -> Figure:
    """Seconds of every linear programming backend over the number of states.

    Raises
    ------
    NothingToDrawError
        No backend has a time.
    """
    return _scaling(rows, "m_matrix", "One linear solve certifies")


def plot_compared_iterations(rows: Sequence[Row]) -> Figure:
    """Seconds of every iteration in every case, forward and backward, over the fastest there.

    Raises
    ------
    NothingToDrawError
        No iteration has a time.
    """
    ways = {"equilibrium": _over_fastest(rows, "seconds")}
    if not ways["equilibrium"]:
        raise NothingToDrawError("no iteration has a time, expected rows that reached the residual")
    if gradient := _over_fastest(rows, "seconds_backward"):
        ways["gradient"] = gradient
    cases = list(dict.fromkeys(case for ratios in ways.values() for case in ratios))
    figure, axes = new_figure(
        _auto_finding(ways), height=1.4 + 0.22 * len(cases), panels=(1.0,) * len(ways), across=True
    )
    if len(ways) > 1:
        figure.set_figwidth(_WIDE)  # the names of the cases take half of a narrow one
    for ax, (way, ratios) in zip(axes, ways.items(), strict=True):
        for place, case in enumerate(cases):
            for name, ratio in sorted(ratios.get(case, {}).items(), key=lambda x: x[0] in _FAST):
                shown = name in _FAST
                ax.plot(
                    [ratio], [place], "o", markersize=5.5 if shown else 3.6,
                    zorder=3 if shown else 2, color=COLOURS[_FAST_COLOURS.get(name, "slate")],
                    label=name if shown else "others",
                )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yticks(range(len(cases)), cases if ax is axes[0] else [""] * len(cases))
        ax.tick_params(axis="y", labelsize=LABEL_SIZE)
        ax.set_ylim(len(cases) - 0.5, -0.5)
        ax.axvline(1.0, color=COLOURS["grid"], linewidth=0.8)
        name_axes(ax, x=f"{way} / fastest")
    handles = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    order = [name for name in (*_FAST, "others") if name in handles]
    figure.legend(
        [handles[name] for name in order], order, loc="outside lower left", ncols=3, frameon=False,
        fontsize=LABEL_SIZE,
    )  # fmt: skip
    return figure


def _over_fastest(rows: Sequence[Row], key: str) -> dict[str, dict[str, float]]:
    """Case → method → its seconds over those of the fastest."""
    return {
        case: {name: seconds / min(found.values()) for name, seconds in found.items()}
        for case, found in seconds_by_case(rows, key).items()
    }


def _auto_finding(ways: Mapping[str, dict[str, dict[str, float]]]) -> str:
    """How far `auto` is from the best at most, where it was run."""
    worst = [
        max((found["auto"] for found in ratios.values() if "auto" in found), default=math.nan)
        for ratios in ways.values()
    ]
    if not math.isfinite(worst[0]):
        return "Seconds of every iteration over those of the fastest in the case"
    title = f"auto takes at most {worst[0]:.2g} times as long as the best iteration of each case"
    if len(worst) > 1 and math.isfinite(worst[1]):
        title += f", {worst[1]:.2g} for the gradient"
    return title


def plot_sets(rows: Sequence[Row], cloud: Sequence[Row]) -> Figure:
    """What the sets contain of random matrices, and what training onto them gave.

    Parameters
    ----------
    rows : sequence of dict
        Of `train_on_sets`.
    cloud : sequence of dict
        Of `contained`, of any shifts of the diagonal.
    """
    shifts = sorted({row["shift"] for row in cloud})
    drawn = [row for row in rows if row["test_accuracy"] is not None]
    apart = max(cloud, key=lambda row: row["measure"] - row["norm_ball"])
    figure, axes = new_figure(
        f"μ∞(A) ≤ γ holds {percent(apart['measure'])} of a cloud of matrices of which "
        f"‖A‖∞ ≤ γ holds {percent(apart['norm_ball'])}",
        height=1.75 * len(shifts) + (2.2 if drawn else 0.0),
        panels=(1.0,) * len(shifts) + ((1.2,) if drawn else ()),
        shared=False,
    )
    for ax, shift in zip(axes, shifts, strict=False):
        here = [row for row in cloud if row["shift"] == shift]
        scales = np.array([row["scale"] for row in here])
        for name in SET_NAMES:
            values = 100 * np.array([row[name] for row in here])
            ax.plot(
                scales, values, color=COLOURS[SET_COLOURS[name]], linewidth=1.8,
                label=SET_NAMES[name],
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_ylim(-3, 103)
        diagonal = "" if shift == 0 else f", {shift:g} taken off the diagonal"
        name_axes(ax, x="size of the entries", y=f"random matrices inside, per cent{diagonal}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=4, frameon=False, fontsize=LABEL_SIZE,
        handlelength=1.0, columnspacing=1.2,
    )  # fmt: skip
    if drawn:
        _accuracies(axes[-1], drawn)
    return figure


def _accuracies(ax: Axes, rows: Sequence[Row]) -> None:
    """Accuracy over the ℓ∞ bound of every set; hollow where it is not proved but in float64."""
    for row in rows:
        proved = row["lipschitz_bound"] is not None
        bound = row["lipschitz_bound"] if proved else row["euclidean_bound"]
        if bound is None:
            continue
        colour = COLOURS[SET_COLOURS[row["set"]]]
        ax.plot(
            [bound], [100 * row["test_accuracy"]], "o", markersize=7, color=colour,
            markerfacecolor=colour if proved else COLOURS["paper"],
        )  # fmt: skip
    ax.margins(0.15, 0.2)
    ax.set_xlim(left=0)
    name_axes(
        ax, x="ℓ∞ Lipschitz bound; hollow: √p · ℓ2 bound, no ℓ∞ certificate",
        y="test accuracy after training, per cent",
    )  # fmt: skip


def _scaling(rows: Sequence[Row], ours: str, claim: str) -> Figure:
    """Seconds over n, log-log: ours in blue, the fastest other in vermilion, the rest in grey."""
    series = seconds_by_size(rows)
    if not series:
        raise NothingToDrawError("no method has a time, expected rows that reached the accuracy")
    largest = max(max(found) for found in series.values())
    others = {
        name: found[largest] for name, found in series.items() if name != ours and largest in found
    }
    best = min(others, key=lambda name: others[name], default=None)
    title = "Seconds of every method at equal accuracy"
    if best is not None and largest in series.get(ours, {}):
        ratio = others[best] / series[ours][largest]
        if ratio > 1:
            title = f"{claim} {ratio:.2g} times faster than {best} at n = {largest}"
    figure, (ax,) = new_figure(title, height=3.4)
    colours = (
        dict.fromkeys(series, "slate") | {ours: "blue"} | ({best: "vermilion"} if best else {})
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    drawn: list[tuple[str, Array, str]] = []
    sizes = np.array(sorted({row["n"] for row in rows}), dtype=np.float64)
    for name in sorted(series, key=lambda name: colours[name] != "slate"):
        values = np.array([series[name].get(int(n), np.nan) for n in sizes])
        curve(ax, sizes, values, colours[name])
        drawn.append((name, values, "muted" if colours[name] == "slate" else colours[name]))
    _plain_sizes(ax, sizes)
    name_axes(ax, x="number of states n", y="seconds (log scale)")
    label_ends(ax, sizes, drawn)
    return figure


def _plain_sizes(ax: Axes, sizes: Array) -> None:
    """The sizes themselves as ticks."""
    from matplotlib.ticker import NullLocator

    ax.set_xticks(sizes, [f"{int(n)}" for n in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(sizes.min() / 1.1, sizes.max() * 1.1)
