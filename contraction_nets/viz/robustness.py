"""Pictures of robustness: accuracy over ε, and one image between its proofs and its attack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contraction_nets.robustness.bisection import RobustnessGap
from contraction_nets.robustness.curves import AccuracyCurves
from contraction_nets.viz.metrics import NothingToDrawError
from contraction_nets.viz.rounding import percent
from contraction_nets.viz.style import COLOURS, LABEL_SIZE, WIDTH, name_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_ATTACKS = {
    "noise": ("noise", "slate"),
    "inversion": ("inversion", "muted"),
    "fgsm": ("FGSM", "green"),
    "pgd": ("PGD", "vermilion"),
}
_PROOFS = {
    "ladder": ("proved by the ladder", "ink"),
    "interval": ("by intervals", "blue"),
    "global": ("by global gains", "sky"),
}
_RUNGS = {
    "global": ("global gains", "sky"),
    "interval": ("intervals", "blue"),
    "lp": ("linear programs", "ink"),
    "milp": ("exact search", "green"),
}
_COLUMNS = 2
_WIDE = 0.06  # of the axis: a gap with room for a line of text


def plot_accuracy_curves(methods: Mapping[str, AccuracyCurves]) -> Figure:
    """Accuracy over ε of networks from several training methods, a panel each.

    Attacks are dashed: accuracy is at most that. Proofs are solid: it is at least that. Between
    the lowest attack and the highest proof, which is shaded, nothing is known.

    Parameters
    ----------
    methods : mapping of str to AccuracyCurves
        Name of the training method → curves of its network.

    Raises
    ------
    NothingToDrawError
        No method, or no radius but one.
    """
    if not methods or any(len(curves.radii) < 2 for curves in methods.values()):
        raise NothingToDrawError("no curves of two radii or more, expected some to draw")
    rows = math.ceil(len(methods) / _COLUMNS)
    figure, _ = new_figure(_finding(methods), panels=())
    columns = min(_COLUMNS, len(methods))
    figure.set_size_inches(
        WIDTH * (1.6 if columns > 1 else 1.0), 0.9 + 0.2 * _lines(figure) + 2.1 * rows
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    widest = max(float(curves.radii.max()) for curves in methods.values())
    for number, ax in enumerate(grid.ravel()):
        plain(ax)
        if number >= len(methods):
            ax.set_axis_off()
            continue
        name, curves = list(methods.items())[number]
        _panel(ax, curves)
        ax.set_xlim(0, widest)
        ax.set_ylim(0, 100)
        below = number + columns >= len(methods)
        _few_ticks(ax)
        name_axes(ax, x="ε, in units of an input" if below else "", y=f"{name}: per cent right")
    handles = dict(zip(*grid[0, 0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower left", ncols=4, frameon=False,
        fontsize=LABEL_SIZE, handlelength=1.8, columnspacing=1.2,
    )  # fmt: skip
    return figure


def plot_robustness_ladder(gap: RobustnessGap, *, shape: tuple[int, int] | None = None) -> Figure:
    """One image, how far each rung proves its label, and the nearest attack that was found.

    Parameters
    ----------
    gap : RobustnessGap
        Of an image with pixels in [0, 1].
    shape : (int, int), optional
        Height and width of the image; square by default.

    Raises
    ------
    NothingToDrawError
        No rung.
    ValueError
        An input of another size.
    """
    if not gap.certified:
        raise NothingToDrawError("no rung has a radius, expected some to draw")
    side = math.isqrt(len(gap.input))
    height, width = (side, side) if shape is None else shape
    if height * width != len(gap.input):
        raise ValueError(
            f"got an input of {len(gap.input)} numbers, expected {height} × {width} pixels; "
            "pass shape."
        )
    best, found = max(gap.certified.values()), math.isfinite(gap.attacked)
    title = f"Proved to be a {gap.label} up to ε\u00a0=\u00a0{_floor(best)}"
    if found:
        title += f", read as a {gap.adversarial_label} at ε\u00a0=\u00a0{_ceil(gap.attacked)}"
    figure, _ = new_figure(title, panels=())
    rows = len(gap.certified) + found
    figure.set_size_inches(WIDTH, 2.1 + 0.2 * _lines(figure) + 0.27 * rows)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.55, 0.55 + 0.27 * rows))
    for part in (upper, lower):
        part.set_facecolor("none")
    _images(list(upper.subplots(1, 3)), gap, (height, width))
    ax = lower.subplots()
    plain(ax)
    _rungs(ax, gap)
    return figure


def _images(axes: list[Axes], gap: RobustnessGap, shape: tuple[int, int]) -> None:
    image = gap.input.reshape(shape)
    shown = [("the image", image, "gray", (0.0, 1.0))]
    if gap.adversarial is not None:
        other = gap.adversarial.reshape(shape)
        reach = gap.attacked or 1.0
        shown += [
            (f"read as a {gap.adversarial_label}", other, "gray", (0.0, 1.0)),
            (f"difference, ± {_ceil(gap.attacked)}", other - image, "RdBu_r", (-reach, reach)),
        ]
    for ax in axes:
        ax.set_axis_off()
    for ax, (name, pixels, palette, (low, high)) in zip(axes, shown, strict=False):
        ax.imshow(pixels, cmap=palette, vmin=low, vmax=high, interpolation="none")
        ax.set_title(name, fontsize=LABEL_SIZE, color=COLOURS["muted"], pad=4)


def _rungs(ax: Axes, gap: RobustnessGap) -> None:
    """A bar for every rung up to what it proves, and one from the attack on."""
    best, found = max(gap.certified.values()), math.isfinite(gap.attacked)
    end = 1.25 * max(best, gap.attacked if found else 0.0) or 1.0
    ax.set_xlim(0, end)
    names = []
    for place, (rung, radius) in enumerate(gap.certified.items()):
        name, colour = _RUNGS[rung]
        ax.barh(place, radius, 0.62, color=COLOURS[colour], linewidth=0)
        _value(ax, radius, place, _floor(radius))
        names.append(name)
    if found:
        place = len(names)
        ax.barh(place, end - gap.attacked, 0.62, gap.attacked, color=COLOURS["vermilion"], lw=0)
        ax.annotate(
            _ceil(gap.attacked), (gap.attacked, place), xytext=(4, 0), textcoords="offset points",
            ha="left", va="center", fontsize=LABEL_SIZE, color=COLOURS["paper"],
        )  # fmt: skip
        names.append("attack found")
        ax.axvspan(best, gap.attacked, color=COLOURS["grid"], lw=0, zorder=0)
        if gap.attacked - best > _WIDE * end:
            ax.text(
                (best + gap.attacked) / 2, (place - 1) / 2, "not known", rotation=90, ha="center",
                va="center", fontsize=LABEL_SIZE, color=COLOURS["muted"],
            )  # fmt: skip
        ax.axvline(gap.attacked, color=COLOURS["vermilion"], lw=0.8, ls="--", zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=LABEL_SIZE, color=COLOURS["ink"])
    ax.invert_yaxis()
    ax.grid(False)
    _few_ticks(ax)
    name_axes(ax, x="ε: how far every pixel may move (pixels in [0, 1])")


def _value(ax: Axes, radius: float, place: int, text: str) -> None:
    """A number inside the end of a bar that is long enough, else behind it."""
    inside = radius > 0.2 * ax.get_xlim()[1]
    ax.annotate(
        text, (radius, place), xytext=(-4 if inside else 4, 0), textcoords="offset points",
        ha="right" if inside else "left", va="center", fontsize=LABEL_SIZE,
        color=COLOURS["paper" if inside else "muted"],
    )  # fmt: skip


def _panel(ax: Axes, curves: AccuracyCurves) -> None:
    radii = curves.radii
    if curves.attacked and curves.certified:
        ceiling = np.minimum.reduce(list(curves.attacked.values()))
        floor = np.maximum.reduce(list(curves.certified.values()))
        ax.fill_between(
            radii, 100 * floor, 100 * np.maximum(ceiling, floor), color=COLOURS["grid"], lw=0
        )
    for name, (label, colour) in _ATTACKS.items():
        if name in curves.attacked:
            ax.plot(
                radii, 100 * curves.attacked[name], color=COLOURS[colour], lw=1.6, ls=(0, (4, 1.5)),
                label=label,
                zorder=3,
            )  # fmt: skip
    for name, (label, colour) in _PROOFS.items():
        if name in curves.certified:
            ax.plot(radii, 100 * curves.certified[name], color=COLOURS[colour], lw=1.8, label=label)


def _finding(methods: Mapping[str, AccuracyCurves]) -> str:
    """The radius at which what is proved differs most, in one sentence."""
    proved = {
        name: np.maximum.reduce(list(curves.certified.values()))
        for name, curves in methods.items()
        if curves.certified
    }
    first = next(iter(methods.values())).radii
    if len(proved) < 2 or any(not np.array_equal(methods[name].radii, first) for name in proved):
        return "Accuracy within ε: at most what attacks leave, at least what is proved"
    table = np.array(list(proved.values()))
    place = int((table.max(axis=0) - table.min(axis=0)).argmax())
    names = list(proved)
    shares = ", ".join(
        f"{percent(table[row, place])} ({names[row]})"
        for row in (int(table[:, place].argmax()), int(table[:, place].argmin()))
    )
    return f"Proved at ε\u00a0=\u00a0{first[place]:.3g}: {shares}"


def _few_ticks(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))


def _lines(figure: Figure) -> int:
    return figure.get_suptitle().count("\n") + 1


def _floor(value: float) -> str:
    return f"{math.floor(value * 1000) / 1000:.3f}"


def _ceil(value: float) -> str:
    return f"{math.ceil(value * 1000) / 1000:.3f}"
