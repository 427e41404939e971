"""Heat maps: a pixel per entry, whole numbers on the axes, the colour scale beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.viz.style import COLOURS, LABEL_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Array = NDArray[np.float64]

MOST_PIXELS = 400
"""Rows and columns of a heat map; beyond, a pixel is the largest entry of a block."""


def pixels(
    ax: Axes, matrix: Array, palette: str, low: float, high: float, *, stretch: bool = False
) -> AxesImage:
    """Heat map with one pixel per entry; of large matrices, the largest entry of each block.

    It reaches the SVG as a small PNG of its entries, which the browser enlarges.
    """
    from matplotlib.ticker import MaxNLocator

    rows, columns = matrix.shape
    image = ax.imshow(
        _largest_per_block(matrix), cmap=palette, vmin=low, vmax=high, interpolation="none",
        aspect="auto" if stretch else "equal", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )  # fmt: skip
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(
            MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
    return image


def _largest_per_block(matrix: Array) -> Array:
    """The entry of largest magnitude of each block, so that at most 400 × 400 are left."""
    for axis in (0, 1):
        size = matrix.shape[axis]
        edges = np.arange(0, size, -(-size // MOST_PIXELS))
        high = np.maximum.reduceat(matrix, edges, axis=axis)
        low = np.minimum.reduceat(matrix, edges, axis=axis)
        matrix = np.where(high >= -low, high, low)
    return matrix


def colour_bar(axes: Any, image: AxesImage, label: str, *, clipped: bool = False) -> None:
    """Colour scale beneath the axes; pointed ends say that some entries lie beyond it."""
    from matplotlib.ticker import MaxNLocator

    figure = image.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(
        image, ax=axes, location="bottom", extend="both" if clipped else "neither",
        shrink=0.7, aspect=32, pad=0.03,
    )  # fmt: skip
    if bar.solids is not None:
        bar.solids.set_rasterized(True)  # else 256 paths
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=4)
    bar.ax.tick_params(length=0, labelsize=LABEL_SIZE, colors=COLOURS["muted"])
    bar.set_label(label, fontsize=LABEL_SIZE, color=COLOURS["muted"])
