"""Pictures of matrices: the state matrix with its row sums, and the gains of the outputs."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.geometry.measures import (
    as_finite,
    as_square,
    as_weights,
    metzler_majorant,
)
from contraction_nets.viz.findings import gains_finding, row_sums_finding
from contraction_nets.viz.heatmap import MOST_PIXELS, colour_bar, pixels
from contraction_nets.viz.rounding import at_most
from contraction_nets.viz.style import COLOURS, LABEL_SIZE, name_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_MOST_NUMBERS = (12, 8)  # matrices up to this shape show their numbers
_MOST_IMAGES = 12
_SMALLEST_IMAGE = 16  # pixels; fewer inputs are features rather than an image


def plot_state_matrix(
    A: ArrayLike, *, eta: ArrayLike | None = None, gamma: float | None = None
) -> Figure:
    """Heat map of A with the row sums whose maximum is μ_{∞,η}(A) at its side (THEORY §2).

    Parameters
    ----------
    A : (n, n) array
        Beyond 400 states each pixel is the entry of largest magnitude of a block.
    eta : (n,) array, optional
        Positive weights, ones by default.
    gamma : float, optional
        Bound to draw beside the row sums.

    Raises
    ------
    ValueError
        A is not a finite square matrix, or eta is not n positive weights.
    """
    matrix = as_square(A)
    n = matrix.shape[0]
    weights = as_weights(eta, n)
    sums = metzler_majorant(matrix) @ weights / weights
    weighted = bool((weights != weights[0]).any())
    figure, (heat, side) = new_figure(
        row_sums_finding(sums, gamma, weighted=weighted), height=3.6, panels=(4.0, 1.0), across=True
    )
    # The colours follow the entries off the diagonal, which is often an order larger.
    apart = np.abs(matrix[~np.eye(n, dtype=bool)])
    limit = float(np.quantile(apart, 0.995, method="higher")) if n > 1 else 0.0
    limit = limit or float(np.abs(matrix).max()) or 1.0
    image = pixels(heat, matrix, "RdBu", -limit, limit)
    block = ", largest of each block" if n > MOST_PIXELS else ""
    beyond = bool((np.abs(matrix) > limit).any())
    colour_bar(heat, image, f"entry of A{block}", clipped=beyond)
    name_axes(heat, x="state j", y="state i")
    side.barh(np.arange(n), sums, height=1.0, color=COLOURS["slate"])
    side.set_ylim(n - 0.5, -0.5)
    side.set_yticks([])
    side.grid(False)
    name_axes(side, y="row sum (η)" if weighted else "row sum")
    _sum_axis(side, gamma)
    return figure


def _sum_axis(side: Axes, gamma: float | None) -> None:
    """Zero and γ as the only ticks, and no zero where γ would be written over it."""
    from matplotlib.ticker import MaxNLocator

    if gamma is None:
        side.xaxis.set_major_locator(MaxNLocator(nbins=2))
        return
    side.axvline(gamma, color=COLOURS["vermilion"], linewidth=1.5)
    low, high = side.get_xlim()
    far = abs(gamma) > 0.2 * (high - low)
    side.set_xticks([gamma, 0.0] if far else [gamma], ["γ", "0"] if far else ["γ"])
    label = side.get_xticklabels()[0]
    label.set(color=COLOURS["vermilion"], fontweight="bold")


def plot_gains(gains: ArrayLike) -> Figure:
    """Gain matrix Γ: how far output k can move per unit of input j (THEORY §4).

    Parameters
    ----------
    gains : (q, p) array
        Nonnegative. When p is a square number of at least 16, up to twelve outputs, those
        with the largest sums, are drawn as images of √p × √p inputs.

    Raises
    ------
    ValueError
        gains is not a finite, nonnegative matrix.
    """
    matrix = as_finite(gains, "gains")
    if matrix.ndim != 2 or matrix.size == 0 or (matrix < 0).any():
        raise ValueError(
            f"gains have shape {matrix.shape}, expected a nonnegative (q, p) matrix; "
            "pass the gains of a Lipschitz certificate."
        )
    q, p = matrix.shape
    limit = float(matrix.max()) or 1.0
    side = isqrt(p)
    if side * side == p and p >= _SMALLEST_IMAGE:
        return _gain_images(matrix, side, limit)
    figure, (ax,) = new_figure(gains_finding(matrix), height=min(4.0, 1.6 + 0.25 * q))
    image = pixels(ax, matrix, "YlGnBu", 0.0, limit, stretch=True)
    block = ", largest of each block" if max(q, p) > MOST_PIXELS else ""
    colour_bar(ax, image, f"gain{block}")
    name_axes(ax, x="input j", y="output k")
    if q <= _MOST_NUMBERS[0] and p <= _MOST_NUMBERS[1]:
        for (k, j), gain in np.ndenumerate(matrix):
            dark = gain > 0.55 * limit
            ax.text(
                j, k, at_most(gain, digits=3 if p <= 5 else 2), ha="center", va="center",
                fontsize=8, color="#ffffff" if dark else "#000000",
            )  # fmt: skip
    return figure


def _gain_images(matrix: Array, side: int, limit: float) -> Figure:
    q = len(matrix)
    sums = matrix.sum(axis=1)
    shown = np.sort(np.argsort(-sums, kind="stable")[:_MOST_IMAGES])
    columns = min(len(shown), 5 if len(shown) in (5, 9, 10) else 4)
    lines = -(-len(shown) // columns)
    figure, _ = new_figure(
        gains_finding(matrix),
        height=0.8 + max(1.5, lines * (0.35 + 4.2 / max(columns, 3))),
        panels=(),
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, ax in enumerate(grid.ravel()):
        ax.set_axis_off()
        if place < len(shown):
            k = int(shown[place])
            image = pixels(ax, matrix[k].reshape(side, side), "YlGnBu", 0.0, limit)
            ax.set_title(
                f"{k}: {at_most(sums[k], digits=3)}",
                fontsize=LABEL_SIZE,
                color=COLOURS["muted"],
                pad=3,
            )
    some = "" if len(shown) == q else f",\nthe {len(shown)} largest of {q} outputs"
    colour_bar(grid, image, f"gain of an input; above: output and sum of its gains{some}")
    return figure
