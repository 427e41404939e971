"""How every picture looks: one palette, one figure shape, direct labels, inline SVG."""

from __future__ import annotations

import io
import math
import re
import textwrap
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

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

WIDTH = 4.8  # inches: the text stays readable when a phone shrinks the picture to its screen
_LABEL_SIZE, _TITLE_SIZE = 9.0, 11.0
_LABEL_GAP = 12.0  # points between the baselines of two direct labels
_MOST_PIXELS = 400
_TITLE_COLUMNS = 50  # characters that fit on one line of a title


def new_figure(
    title: str, *, height: float = 2.7, panels: tuple[float, ...] = (1.0,), across: bool = False
) -> tuple[Figure, list[Axes]]:
    """Figure with a left-aligned title and one axes per panel.

    Parameters
    ----------
    title : str
        The finding, in one sentence; wrapped onto a second line where it is long.
    height : float
        Inches.
    panels : tuple of float
        Relative heights of the panels, which share their epochs; widths when `across`.
    across : bool
        Panels side by side instead of one above the other.

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
    lines = textwrap.wrap(title, _TITLE_COLUMNS)
    figure = Figure(
        figsize=(WIDTH, height + 0.2 * (len(lines) - 1)),
        facecolor=COLOURS["paper"],
        layout="constrained",
    )
    figure.suptitle(
        "\n".join(lines), x=0.012, ha="left", fontsize=_TITLE_SIZE, fontweight="bold",
        color=COLOURS["ink"],
    )  # fmt: skip
    if across:
        grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=panels)
    else:
        grid = figure.subplots(
            len(panels), 1, squeeze=False, height_ratios=panels, sharex=len(panels) > 1
        )
    axes = list(grid.ravel())
    for ax in axes:
        _plain(ax)
    return figure, axes


def _plain(ax: Axes) -> None:
    ax.set_facecolor("none")
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(COLOURS["slate"])
    ax.tick_params(length=0, labelsize=_LABEL_SIZE, colors=COLOURS["muted"], which="both")
    ax.grid(axis="y", color=COLOURS["grid"], linewidth=0.8)
    ax.set_axisbelow(True)


def name_axes(ax: Axes, *, x: str = "", y: str = "") -> None:
    """Label the axes: x below, y above the axis, where it reads without turning the head."""
    ax.set_xlabel(x, fontsize=_LABEL_SIZE, color=COLOURS["muted"])
    ax.set_title(y, loc="left", fontsize=_LABEL_SIZE, color=COLOURS["muted"], pad=5)


def epoch_axis(ax: Axes, epochs: Array) -> None:
    """Whole epochs on the x axis, with room around a single one."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(epochs[0] - 0.6, epochs[-1] + 0.6)
    ax.xaxis.set_major_locator(
        MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )


def curve(ax: Axes, x: Array, y: Array, colour: str, *, dashed: bool = False) -> None:
    """One series; its points are marked while there are few of them."""
    ax.plot(
        x, y, color=COLOURS[colour], linewidth=1.8, linestyle="--" if dashed else "-",
        marker="o" if len(x) <= 15 else "", markersize=3.6, solid_capstyle="round",
        clip_on=False,
    )  # fmt: skip


def label_ends(ax: Axes, x: Array, series: list[tuple[str, Array, str]]) -> None:
    """Write the name of each series beside its last finite point, apart from each other.

    Parameters
    ----------
    x : (k,) array
    series : list of (label, (k,) array, colour name)
        Series without a finite point get no label. Axis limits must be final.
    """
    shown = [entry for entry in series if np.isfinite(entry[1]).any()]
    figure = ax.get_figure(root=True)
    if not shown or figure is None:
        return
    height = ax.get_position().height * figure.get_size_inches()[1] * 72
    to_axes = ax.transData + ax.transAxes.inverted()
    last = [int(np.flatnonzero(np.isfinite(y))[-1]) for _, y, _ in shown]
    places = [
        float(to_axes.transform((x[i], y[i]))[1]) * height
        for i, (_, y, _) in zip(last, shown, strict=True)
    ]
    for (label, _, colour), place in zip(shown, _spread(places), strict=True):
        ax.annotate(
            label, (1.0, place / height), xycoords="axes fraction", xytext=(5, 0),
            textcoords="offset points", va="center", ha="left", fontsize=_LABEL_SIZE,
            color=COLOURS[colour], fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _spread(places: list[float]) -> list[float]:
    """Positions nearest to these that keep their order and the gap between labels."""
    order = sorted(range(len(places)), key=places.__getitem__)
    offsets = [places[i] - _LABEL_GAP * rank for rank, i in enumerate(order)]
    # Pool adjacent violators: the nearest nondecreasing sequence to the offsets.
    pools: list[list[float]] = []
    for offset in offsets:
        pools.append([offset])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    levels = [float(np.mean(pool)) for pool in pools for _ in pool]
    result = [0.0] * len(places)
    for rank, i in enumerate(order):
        result[i] = levels[rank] + _LABEL_GAP * rank
    return result


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
    ax.set_ylim(values.min() / 1.3, values.max() * 1.3)
    if values.min() >= 1e-4 and values.max() < 1e5:
        steps = (1.0, 2.0, 5.0) if values.max() < 100 * values.min() else (1.0,)
        ax.yaxis.set_major_locator(LogLocator(subs=steps))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    return True


def pixels(ax: Axes, matrix: Array, palette: str, low: float, high: float) -> AxesImage:
    """Heat map with one pixel per entry; of large matrices, the largest entry of each block.

    It reaches the SVG as a small PNG of its entries, which the browser enlarges.
    """
    from matplotlib.ticker import MaxNLocator

    rows, columns = matrix.shape
    image = ax.imshow(
        _largest_per_block(matrix), cmap=palette, vmin=low, vmax=high, interpolation="none",
        aspect="auto" if max(rows, columns) > 4 * min(rows, columns) else "equal",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )  # fmt: skip
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    return image


def _largest_per_block(matrix: Array) -> Array:
    """The entry of largest magnitude of each block, so that at most 400 × 400 are left."""
    for axis in (0, 1):
        size = matrix.shape[axis]
        edges = np.arange(0, size, -(-size // _MOST_PIXELS))
        high = np.maximum.reduceat(matrix, edges, axis=axis)
        low = np.minimum.reduceat(matrix, edges, axis=axis)
        matrix = np.where(high >= -low, high, low)
    return matrix


def colour_bar(axes: Any, image: AxesImage, label: str, *, clipped: bool = False) -> None:
    """Colour scale beneath the axes; pointed ends say that some entries lie beyond it."""
    from matplotlib.ticker import MaxNLocator

    figure = image.get_figure(root=True)
    bar = figure.colorbar(
        image, ax=axes, location="bottom", extend="both" if clipped else "neither",
        shrink=0.6, aspect=28, pad=0.03,
    )  # fmt: skip
    bar.solids.set_rasterized(True)  # else 256 paths
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=4, symmetric=True)
    bar.ax.tick_params(length=0, labelsize=_LABEL_SIZE, colors=COLOURS["muted"])
    bar.set_label(label, fontsize=_LABEL_SIZE, color=COLOURS["muted"])


def at_most(value: float, *, digits: int = 4) -> str:
    """Decimal of this many significant digits that is not below value: for upper bounds."""
    return _rounded(value, digits, ROUND_CEILING)


def at_least(value: float, *, digits: int = 3) -> str:
    """Decimal of this many significant digits that is not above value: for improvements."""
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "unknown")
    exact = Context(prec=digits, rounding=rounding).plus(Decimal(value))
    if exact.is_zero():
        return "0"
    plain = -4 <= exact.adjusted() < 7
    return f"{exact.normalize():f}" if plain else f"{exact:.{digits - 1}e}"


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an inline <svg> element without any reference to the outside.

    Text stays text, and the palette becomes CSS variables (``var(--blue)``) so that the page
    decides between light and dark. `name` keeps the ids of two pictures apart.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            stream,
            format="svg",
            dpi=150,
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would reach the whole page
    svg = re.sub(r"font-family:[^;\"]*;? ?", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*pt" height="[^"]*pt"', r"<svg\1", svg, count=1)
    for colour, code in COLOURS.items():
        svg = svg.replace(code, f"var(--{colour})")
    return svg.strip()
