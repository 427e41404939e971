"""Sparse matrices of windows that slide over zero-padded images, entries placed, not computed.

An image (channels, height, width) is the vector of its entries in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[Any]


@dataclass(frozen=True)
class Window:
    """One axis of a window that slides over pixels, with zeros on both sides of them.

    Parameters
    ----------
    size : int
        Number of pixels.
    kernel : int
        Number of taps.
    stride, dilation : int
        Pixels from one step to the next, and from one tap to the next.
    before, after : int
        Zeros on either side, or pixels cut off where negative.
    ceil : bool
        Whether a last step may reach over the end, as long as it begins before the zeros there.
    """

    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    @property
    def steps(self) -> int:
        """Number of steps, below one where the window is larger than the image."""
        room = self.size + self.before + self.after - self.dilation * (self.kernel - 1) - 1
        steps = room // self.stride + 1
        if self.ceil and room % self.stride and steps * self.stride < self.size + self.before:
            return steps + 1
        return steps

    def taps(self) -> tuple[Array, Array, Array]:
        """Step, pixel and tap of every tap that falls on a pixel, (k,) each."""
        step, tap = np.indices((self.steps, self.kernel)).reshape(2, -1)
        pixel = step * self.stride - self.before + tap * self.dilation
        inside = (pixel >= 0) & (pixel < self.size)
        return step[inside], pixel[inside], tap[inside]

    def widths(self, count_zeros: bool) -> Array:
        """Number of pixels in the window at every step, with the zeros around them or without.

        What reaches over the zeros as well, with `ceil`, does not count.
        """
        if not count_zeros:
            return np.bincount(self.taps()[0], minlength=self.steps)
        start = np.arange(self.steps) * self.stride - self.before
        return np.minimum(start + self.kernel, self.size + self.after) - start


def convolution_matrix(
    weight: Array, rows: Window, columns: Window, *, groups: int = 1
) -> csr_array:
    """The matrix of a convolution; each entry is one of the weight's, bit for bit.

    Parameters
    ----------
    weight : (o, i, rows.kernel, columns.kernel) array
        Kernels of o output channels, each over the i input channels of its group.
    rows, columns : Window
        The axes of the image.
    groups : int
        Divides o; the input has groups · i channels.

    Returns
    -------
    (o · rows.steps · columns.steps, groups · i · rows.size · columns.size) csr_array
        In the weight's dtype, the indices sorted; zeros of the weight are stored.
    """
    outputs, inputs = weight.shape[:2]
    steps, pixels = rows.steps * columns.steps, rows.size * columns.size
    step, pixel, tap = (
        np.add.outer(along * width, across).ravel()
        for along, across, width in zip(
            rows.taps(),
            columns.taps(),
            (columns.steps, columns.size, columns.kernel),
            strict=True,
        )
    )
    # The rows of one output channel, its values being where in the kernel the entry is.
    channel = np.arange(inputs)[:, None]
    where = (channel * rows.kernel * columns.kernel + tap).ravel()
    place = (np.tile(step, inputs), (channel * pixels + pixel).ravel())
    one = csr_array((where, place), shape=(steps, inputs * pixels))
    # All output channels have the same rows, those of a later group further to the right.
    output = np.arange(outputs)[:, None]
    first = output // (outputs // groups) * (inputs * pixels)
    ends = one.indptr[1:] + output * one.nnz
    return csr_array(
        (
            weight.reshape(outputs, -1)[:, one.data].ravel(),
            (one.indices + first.astype(one.indices.dtype)).ravel(),
            np.concatenate([[0], ends.ravel()]),
        ),
        shape=(outputs * steps, groups * inputs * pixels),
    )
