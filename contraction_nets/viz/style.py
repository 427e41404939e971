"""How every picture looks: one palette, one figure shape, direct labels."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

COLOURS = {
    "ink": "#1d2733",
    "muted": "#5f6b7a",
    "grid": "#e3e7ed",
    "paper": "#fffffe",
    "blue": "#0072b2",
    "sky": "#56b4e9",
    "vermilion": "#d55e00",
    "green": "#008c66",
    "slate": "#9aa5b1",
}
"""Okabe-Ito hues, told apart by colour-blind readers too; report.html has dark twins of them."""

WIDTH = 4.5  # inches: about the width of a phone, where text keeps its size
LABEL_SIZE, TITLE_SIZE = 9.0, 11.0
_LABEL_GAP = 12.0  # points between the baselines of two direct labels
_TITLE_COLUMNS = 46  # characters that fit on one line of a title
_MOST_MARKERS = 15


def new_figure(
    title: str,
    *,
    height: float = 2.7,
    panels: tuple[float, ...] = (1.0,),
    across: bool = False,
    shared: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Figure with a left-aligned title and one axes per panel.

    Parameters
    ----------
    title : str
        The finding, in one sentence; wrapped onto lines of similar length where it is long.
    height : float
        Inches.
    panels : tuple of float
        Relative heights of the panels, which share their epochs; widths when `across`.
        Without a panel there is only the title.
    across : bool
        Panels side by side instead of one above the other.
    shared : bool
        Whether panels above each other have the same x axis.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib, which is not installed; "
            "run pip install 'contraction-nets[plots]'."
        ) from error
    lines = _balanced(title)
    figure = Figure(
        figsize=(WIDTH, height + 0.2 * (len(lines) - 1)),
        facecolor=COLOURS["paper"],
        layout="constrained",
    )
    figure.suptitle(
        "\n".join(lines), x=0.012, ha="left", fontsize=TITLE_SIZE, fontweight="bold",
        color=COLOURS["ink"],
    )  # fmt: skip
    if not panels:
        return figure, []
    if across:
        grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=panels)
    else:
        grid = figure.subplots(
            len(panels), 1, squeeze=False, height_ratios=panels, sharex=shared and len(panels) > 1
        )
    axes = list(grid.ravel())
    for ax in axes:
        plain(ax)
    return figure, axes


def _balanced(title: str) -> list[str]:
    """As few lines as fit, as narrow as that many lines can be: no word alone on the last."""
    widths = range(_TITLE_COLUMNS, max(map(len, title.split())) - 1, -1)
    wrapped = [textwrap.wrap(title, width) for width in widths]
    best = wrapped[0] if wrapped else textwrap.wrap(title, _TITLE_COLUMNS)
    return [lines for lines in wrapped if len(lines) == len(best)][-1] if wrapped else best


def plain(ax: Axes) -> None:
    """The look of every axes: a line below, a faint grid of heights, quiet numbers."""
    ax.set_facecolor("none")
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(COLOURS["slate"])
    ax.tick_params(length=0, labelsize=LABEL_SIZE, colors=COLOURS["muted"], which="both")
    ax.grid(axis="y", color=COLOURS["grid"], linewidth=0.8)
    ax.set_axisbelow(True)


def name_axes(ax: Axes, *, x: str = "", y: str = "") -> None:
    """Label the axes: x below, y above the axis, where it reads without turning the head."""
    ax.set_xlabel(x, fontsize=LABEL_SIZE, color=COLOURS["muted"])
    ax.set_title(y, loc="left", fontsize=LABEL_SIZE, color=COLOURS["muted"], pad=5)


def epoch_axis(ax: Axes, epochs: Array) -> None:
    """Whole epochs on the x axis, with room around a single one."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    room = 0.6 if len(epochs) > 1 else 2.0
    ax.set_xlim(epochs[0] - room, epochs[-1] + room)
    ax.xaxis.set_major_locator(
        MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        if len(epochs) > 1
        else FixedLocator(epochs.tolist())
    )


def curve(ax: Axes, x: Array, y: Array, colour: str) -> None:
    """One series; points are marked while there are few, or where both neighbours are NaN."""
    known = np.isfinite(y)
    alone = known & ~np.r_[False, known[:-1]] & ~np.r_[known[1:], False]
    ax.plot(
        x, y, color=COLOURS[colour], linewidth=1.8, solid_capstyle="round", clip_on=False,
        marker="o", markersize=3.6,
        markevery=np.flatnonzero(known if len(x) <= _MOST_MARKERS else alone).tolist(),
    )  # fmt: skip


def limit_line(ax: Axes, x: Array, y: Array, colour: str) -> None:
    """A bound that other series are held against: dashed, across the whole axes, on top."""
    ends = np.array(ax.get_xlim())
    ax.plot(
        np.r_[ends[0], x, ends[1]], np.r_[y[0], y, y[-1]], color=COLOURS[colour], linewidth=1.8,
        linestyle="--", zorder=3,
    )  # fmt: skip


def label_ends(ax: Axes, x: Array, series: list[tuple[str, Array, str]]) -> None:
    """Write the name of each series beside its last finite point, apart from each other.

    Parameters
    ----------
    x : (k,) array
    series : list of (label, (k,) array, colour name)
        From the lowest label to the highest, where they end together. Series without a finite
        point get no label. Axis limits must be final.
    """
    shown = [entry for entry in series if np.isfinite(entry[1]).any()]
    figure = ax.get_figure(root=True)
    if not shown or figure is None:
        return
    height = ax.get_position().height * figure.get_size_inches()[1] * 72
    to_axes = ax.transData + ax.transAxes.inverted()
    last = [int(np.flatnonzero(np.isfinite(y))[-1]) for _, y, _ in shown]
    # Rounded: an invisible difference should not decide about the order.
    places = [
        round(float(to_axes.transform((x[i], y[i]))[1]) * height, 1)
        for i, (_, y, _) in zip(last, shown, strict=True)
    ]
    for (label, _, colour), place in zip(shown, _spread(places), strict=True):
        ax.annotate(
            label, (1.0, place / height), xycoords="axes fraction", xytext=(5, 0),
            textcoords="offset points", va="center", ha="left", fontsize=LABEL_SIZE,
            color=COLOURS[colour], fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _spread(places: list[float]) -> list[float]:
    """Positions nearest to these that keep their order and the gap between labels."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = _LABEL_GAP * np.arange(len(places))
    result = np.empty(len(places))
    result[order] = isotonic_regression(np.array(places)[order] - steps).x + steps
    return [float(place) for place in result]


def bars(ax: Axes, epochs: Array, stack: list[tuple[Array, str]]) -> None:
    """One bar per epoch, the (values, colour name) of the stack on top of each other."""
    bottom = np.zeros(epochs.shape)
    width = 0.8 if len(epochs) <= 60 else 1.0
    for values, colour in stack:
        heights = np.nan_to_num(values)
        ax.bar(epochs, heights, width, bottom, color=COLOURS[colour], linewidth=0)
        bottom += heights
    ax.set_ylim(0, 1.1 * float(bottom.max()) or 1.0)
    epoch_axis(ax, epochs)


def log_axis(ax: Axes, *series: Array, span: float = 20.0) -> bool:
    """Make the y axis logarithmic when all values are positive and span this factor or more."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    values = np.concatenate(series)
    values = values[np.isfinite(values)]
    if not values.size or values.min() <= 0 or values.max() < span * values.min():
        return False
    ax.set_yscale("log")
    room = max(1.3, (values.max() / values.min()) ** 0.06)
    ax.set_ylim(values.min() / room, values.max() * room)
    if values.min() >= 1e-4 and values.max() < 1e5:
        steps = (1.0, 2.0, 5.0) if values.max() < 100 * values.min() else (1.0,)
        ax.yaxis.set_major_locator(LogLocator(subs=steps))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    return True
