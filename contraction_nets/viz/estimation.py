"""Pictures of estimated functions: what each constraint set makes of the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contraction_nets.comparison.estimation import Estimation
from contraction_nets.viz.comparison import SET_COLOURS, SET_NAMES
from contraction_nets.viz.heatmap import colour_bar
from contraction_nets.viz.metrics import NothingToDrawError
from contraction_nets.viz.rounding import at_most
from contraction_nets.viz.style import COLOURS, LABEL_SIZE, label_ends, name_axes, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_SAMPLES = 200  # that are drawn
_APART = 0.05  # share of the error from which on the title calls one set better


def plot_estimates(estimation: Estimation, gamma: float | None = None) -> Figure:
    """The estimates of a function of one variable, a panel for each set.

    In every panel are some of the noisy samples, the function (dashed), and the estimates of all
    seeds: the median as a line, from the lowest to the highest as a band.

    Parameters
    ----------
    estimation : Estimation
        Of a function of one variable.
    gamma : float, optional
        The smallest by default.

    Raises
    ------
    NothingToDrawError
        A function of more variables.
    """
    gamma = _checked(estimation, 1, gamma)
    figure, axes = _panels(estimation, gamma, height=4.4, shared=True)
    data = estimation.data
    u = data.test_inputs[:, 0].double().numpy()
    truth = data.test_targets[:, 0].double().numpy()
    for ax, name in zip(axes, estimation.sets, strict=False):
        found, colour = estimation.estimates_of(name, gamma), COLOURS[SET_COLOURS[name]]
        ax.plot(
            data.train_inputs[:_SAMPLES, 0], data.train_targets[:_SAMPLES, 0], "o", markersize=1.8,
            color=COLOURS["slate"], alpha=0.5, markeredgewidth=0, zorder=1,
        )  # fmt: skip
        ax.fill_between(
            u, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.3, linewidth=0
        )
        ax.plot(u, np.median(found, axis=0), color=colour, linewidth=1.8, zorder=3)
        ax.plot(u, truth, "--", color=COLOURS["ink"], linewidth=1.0, zorder=4)
    return figure


def plot_error_maps(estimation: Estimation, gamma: float | None = None) -> Figure:
    """How far the estimates of a function of two variables are off, a map for each set.

    The distance from the function, the root of its mean square over the seeds.

    Parameters
    ----------
    estimation : Estimation
        Of a function of two variables on a square grid.
    gamma : float, optional
        The smallest by default.

    Raises
    ------
    NothingToDrawError
        Another number of variables.
    """
    gamma = _checked(estimation, 2, gamma)
    figure, axes = _panels(estimation, gamma, height=5.4, shared=False)
    truth = estimation.data.test_targets[:, 0].double().numpy()
    side = int(np.sqrt(len(truth)))
    maps = [
        np.sqrt(np.mean((estimation.estimates_of(name, gamma) - truth) ** 2, axis=0))
        for name in estimation.sets
    ]
    limit = float(np.max(maps)) or 1.0
    for ax, found in zip(axes, maps, strict=False):
        # The first coordinate is the slow one of the grid.
        image = ax.imshow(
            found.reshape(side, side).T, cmap="YlGnBu", vmin=0.0, vmax=limit, origin="lower",
            extent=(0, 1, 0, 1), interpolation="none",
        )  # fmt: skip
        ax.grid(False)
        ax.set_xticks([0, 1])
        ax.set_yticks([0, 1])
    colour_bar(axes, image, "distance from the function")
    return figure


def plot_errors(estimation: Estimation) -> Figure:
    """The error of every set over γ: the mean over the seeds, and each seed as a faint point.

    Raises
    ------
    NothingToDrawError
        Only one γ.
    """
    gammas = np.array(estimation.gammas)
    if len(gammas) < 2:
        raise NothingToDrawError(
            f"all estimates have γ = {gammas[0]:g}, expected several; pass more gammas."
        )
    figure, (ax,) = new_figure(_finding(estimation, float(gammas[0])), height=3.2)
    drawn = []
    places = range(len(gammas))
    for k, name in enumerate(estimation.sets):
        errors = [estimation.column("error", name, gamma) for gamma in estimation.gammas]
        means = np.array([np.mean(values) if values else np.nan for values in errors])
        colour = COLOURS[SET_COLOURS[name]]
        ax.plot(places, means, "o-", color=colour, linewidth=1.8, markersize=4, zorder=3)
        for place, values in zip(places, errors, strict=True):
            at = np.full(len(values), place + 0.06 * (k - 1.5))
            ax.plot(at, values, "o", color=colour, markersize=3, alpha=0.4, markeredgewidth=0)
        drawn.append((SET_NAMES[name], means, SET_COLOURS[name]))
    ax.set_yscale("log")
    ax.set_xticks(places, [f"{gamma:g}" for gamma in gammas])
    name_axes(ax, x="bound γ of the sets", y="error without noise, root mean square (log scale)")
    _plain_ticks(ax)
    label_ends(ax, np.arange(len(gammas), dtype=np.float64), drawn)
    return figure


def _checked(estimation: Estimation, variables: int, gamma: float | None) -> float:
    found = estimation.data.in_features
    if found != variables:
        raise NothingToDrawError(
            f"the function has {found} variables, expected {variables}; "
            "use plot_estimates for one and plot_error_maps for two."
        )
    return estimation.gammas[0] if gamma is None else gamma


def _panels(
    estimation: Estimation, gamma: float, *, height: float, shared: bool
) -> tuple[Figure, list[Axes]]:
    """Two panels a line, one for each set, with its error and bound above."""
    figure, _ = new_figure(_finding(estimation, gamma), height=height, panels=())
    lines = {line["set"]: line for line in estimation.table() if line["gamma"] == gamma}
    grid = figure.subplots(
        -(-len(lines) // 2), 2, squeeze=False, sharex=shared, sharey=shared
    ).ravel()
    for ax in grid:
        plain(ax)
    for ax, (name, line) in zip(grid, lines.items(), strict=False):
        bound = line["lipschitz_bound"]
        slope = "no ℓ∞ bound" if bound is None else f"slope ≤ {at_most(bound, digits=3)}"
        ax.set_title(
            f"{SET_NAMES[name]}\nerror {line['error']:.3f}, {slope}", loc="left",
            fontsize=LABEL_SIZE, color=COLOURS["muted"], pad=4,
        )  # fmt: skip
    for ax in grid[len(lines) :]:
        ax.set_axis_off()
    return figure, list(grid)


def _finding(estimation: Estimation, gamma: float) -> str:
    """The polytope against the norm ball, which it contains."""
    errors = {line["set"]: line["error"] for line in estimation.table() if line["gamma"] == gamma}
    ball, polytope = errors.get("norm_ball"), errors.get("measure")
    if ball is None or polytope is None:
        return f"One function, estimated with A in {len(errors)} sets of γ = {gamma:g}"
    if polytope > (1 - _APART) * ball:
        return f"At γ = {gamma:g} the polytope μ∞(A) ≤ γ estimates as well as the norm ball"
    less = f"{100 * (1 - polytope / ball):.0f}\u00a0%"  # on one line of the title
    return f"At γ = {gamma:g} the polytope μ∞(A) ≤ γ errs {less} less than the norm ball"


def _plain_ticks(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
