"""The picture of a regularizer sweep: accuracy over the certified bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contraction_nets.comparison.sweep import RegularizerSweep
from contraction_nets.viz.metrics import NothingToDrawError
from contraction_nets.viz.rounding import at_least
from contraction_nets.viz.style import COLOURS, LABEL_SIZE, name_axes, new_figure

Array = NDArray[np.float64]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVES = {
    "steepest_found": ("steepest slope found", "green", 1.4),
    "lipschitz_bound": ("certified bound", "blue", 2.2),
    "norm_product_bound": ("norm product", "vermilion", 1.4),
}
_CHEAP = 1.0  # points of accuracy that the title may give away


def plot_sweep(sweep: RegularizerSweep) -> Figure:
    """Test accuracy over the certified bound (log scale), one point per weight λ.

    Beside the certified bound are the norm product of the same networks, which is larger, and a
    slope that was found between two inputs, which every bound must exceed: the true Lipschitz
    constant lies between green and blue. Faint points are single seeds.

    Raises
    ------
    NothingToDrawError
        No accuracy, as of functions.
    """
    from matplotlib.ticker import StrMethodFormatter

    weights = sweep.weights
    accuracies = [sweep.mean("test_accuracy", weight) for weight in weights]
    if not weights or None in accuracies:
        raise NothingToDrawError(
            "the sweep has no accuracy, expected one of a classifier; sweep over digits or MNIST."
        )
    y = 100 * np.array(accuracies, dtype=np.float64)
    figure, (ax,) = new_figure(_finding(sweep, y), height=3.6)
    ax.set_xscale("log")
    for name, (label, colour, width) in _CURVES.items():
        means = [sweep.mean(name, weight) for weight in weights]
        x = np.array([np.nan if mean is None else mean for mean in means])
        if len(sweep.rows) > len(weights):
            _seeds(ax, sweep, name, colour)
        ax.plot(x, y, "o-", color=COLOURS[colour], linewidth=width, markersize=4, label=label)
        if name == "lipschitz_bound":
            _name_weights(ax, weights, x, y)
    ax.margins(0.06, 0.1)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(
        loc="outside lower left", ncols=3, frameon=False, fontsize=LABEL_SIZE, handlelength=1.2,
        columnspacing=1.2,
    )  # fmt: skip
    name_axes(ax, x="output change per input change (log scale)", y="test accuracy, per cent")
    return figure


def _finding(sweep: RegularizerSweep, y: Array) -> str:
    """How far λ lowers the bound before it costs a point of accuracy."""
    bounds = np.array([sweep.mean("lipschitz_bound", weight) for weight in sweep.weights], float)
    cheap = np.flatnonzero(y >= y[0] - _CHEAP)
    best = int(cheap[bounds[cheap].argmin()])
    ratio, cost = bounds[0] / bounds[best], float(y[0] - y[best])
    if sweep.weights[0] != 0 or ratio < 1.5:
        return "What a smaller certified bound costs in accuracy"
    price = f"{cost:.1f} points of accuracy" if cost >= 0.05 else "no accuracy"
    return (
        f"λ = {_short(sweep.weights[best])} lowers the certified bound "
        f"{at_least(ratio, digits=2)} times and costs {price}"
    )


def _seeds(ax: Axes, sweep: RegularizerSweep, name: str, colour: str) -> None:
    found = [(getattr(row, name), row.test_accuracy) for row in sweep.rows]
    points = np.array([(x, 100 * y) for x, y in found if x is not None and y is not None])
    if len(points):
        ax.plot(*points.T, "o", color=COLOURS[colour], markersize=3, alpha=0.3, markeredgewidth=0)


def _name_weights(ax: Axes, weights: tuple[float, ...], x: Array, y: Array) -> None:
    from matplotlib.patheffects import withStroke

    # In axes units: a label next to that of the point before goes above its own.
    across = np.log(x) / max(float(np.ptp(np.log(x))), 1e-9)
    up = y / max(float(np.ptp(y)), 1e-9)
    above = False
    for k, weight in enumerate(weights):
        near = k > 0 and abs(across[k] - across[k - 1]) < 0.12 and abs(up[k] - up[k - 1]) < 0.03
        above = near and not above
        first = "λ = " if k == 0 else ""
        ax.annotate(
            first + _short(weight), (x[k], y[k]), xytext=(5, 3 if above else -3),
            textcoords="offset points", ha="left", va="bottom" if above else "top",
            fontsize=LABEL_SIZE - 1, color=COLOURS["blue"], zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground=COLOURS["paper"])],
        )  # fmt: skip


def _short(weight: float) -> str:
    """3e-4 rather than 0.0003."""
    mantissa, exponent = f"{weight:.0e}".split("e")
    return f"{weight:g}" if weight == 0 or weight >= 0.01 else f"{mantissa}e{int(exponent)}"
