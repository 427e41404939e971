"""Layers of a feed-forward network as affine maps of vectors, one function a kind of layer.

An image (channels, height, width) is the vector of its entries in this order, as in torch. A new
kind of layer is one entry of `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from torch import Tensor, nn

from contraction_nets.nn.affine import Affine
from contraction_nets.nn.windows import Window, convolution_matrix

Array = NDArray[Any]

Shape = tuple[int, ...]
"""Of one sample: (features,), or (channels, height, width)."""


Lowered = tuple[Affine | None, Shape]
"""What a layer does to the vector, None where that is nothing, and the shape after it."""


def lower(layer: nn.Module, shape: Shape) -> Lowered:
    """The affine map of a layer in evaluation, for samples of this shape.

    Linear and Conv2d keep the bits of their weights; BatchNorm and AvgPool2d are computed in
    float64.

    Raises
    ------
    ValueError
        A layer that does not fit the shape or that is not an affine map as it is set up.
    """
    kind = next(kind for kind in KINDS if isinstance(layer, kind))
    return KINDS[kind].lower(layer, shape)


def _linear(layer: nn.Linear, shape: Shape) -> Lowered:
    if shape != (layer.in_features,):
        _refuse(layer, shape, f"a vector of {layer.in_features}, after a Flatten")
    return _affine(_array(layer.weight), layer.bias), (layer.out_features,)


def _conv2d(layer: nn.Conv2d, shape: Shape) -> Lowered:
    _check_image(layer, shape, layer.in_channels)
    if layer.padding_mode != "zeros":
        raise ValueError(
            f"got {layer!r}, expected padding_mode='zeros'; no other padding is lowered."
        )
    axes = []
    for axis in (0, 1):
        kernel, dilation = layer.kernel_size[axis], layer.dilation[axis]
        total = dilation * (kernel - 1) if layer.padding == "same" else 0
        before, after = total // 2, total - total // 2
        if not isinstance(layer.padding, str):
            before = after = layer.padding[axis]
        axes.append(
            Window(shape[1 + axis], kernel, layer.stride[axis], dilation, before, after),
        )
    size = _steps(layer, shape, *axes)
    matrix = convolution_matrix(_array(layer.weight), *axes, groups=layer.groups)
    return _affine(matrix, layer.bias, math.prod(size)), (layer.out_channels, *size)


def _avg_pool2d(layer: nn.AvgPool2d, shape: Shape) -> Lowered:
    _check_image(layer, shape)
    kernels, strides, paddings = (
        (value, value) if isinstance(value, int) else value
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    axes = [
        Window(size, kernel, stride, before=padding, after=padding, ceil=layer.ceil_mode)
        for size, kernel, stride, padding in zip(shape[1:], kernels, strides, paddings, strict=True)
    ]
    if any(axis.before > axis.kernel // 2 for axis in axes):
        _refuse(layer, shape, "a padding of at most half the kernel size")
    if layer.divisor_override == 0:
        _refuse(layer, shape, "a divisor other than zero")
    size = _steps(layer, shape, *axes)
    divisor = np.outer(*(axis.widths(layer.count_include_pad) for axis in axes)).ravel()
    if layer.divisor_override is not None:
        divisor[:] = layer.divisor_override
    matrix = convolution_matrix(np.ones((shape[0], 1, *kernels)), *axes, groups=shape[0])
    matrix.data /= np.repeat(np.tile(divisor, shape[0]), np.diff(matrix.indptr))
    return _affine(matrix, None), (shape[0], *size)


def _zero_pad2d(layer: nn.ZeroPad2d, shape: Shape) -> Lowered:
    _check_image(layer, shape)
    if layer.value != 0:
        _refuse(layer, shape, "zeros as its padding")
    left, right, top, bottom = layer.padding
    axes = [
        Window(shape[1], 1, before=top, after=bottom),
        Window(shape[2], 1, before=left, after=right),
    ]
    size = _steps(layer, shape, *axes)
    ones = np.ones((shape[0], 1, 1, 1), np.float32)
    return _affine(convolution_matrix(ones, *axes, groups=shape[0]), None), (shape[0], *size)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape) -> Lowered:
    if isinstance(layer, nn.BatchNorm2d):
        _check_image(layer, shape, layer.num_features)
    elif shape != (layer.num_features,):
        _refuse(layer, shape, f"a vector of {layer.num_features}")
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(
            f"got {layer!r} without running statistics, expected some: the statistics of a batch "
            "make no affine map; train it with track_running_stats=True."
        )
    if layer.training:
        raise ValueError(
            f"got {layer!r} in training mode, where it is no affine map, expected evaluation mode; "
            "call .eval() on the network first."
        )
    with np.errstate(all="ignore"):  # what overflows is refused as Inf or NaN
        scale = 1 / np.sqrt(_array(layer.running_var).astype(np.float64) + layer.eps)
        if layer.weight is not None:
            scale = scale * _array(layer.weight)
        shift = -scale * _array(layer.running_mean)
        if layer.bias is not None:
            shift = shift + _array(layer.bias)
    scale, shift = (np.repeat(value, math.prod(shape[1:])) for value in (scale, shift))
    return Affine(csr_array(diags_array(scale)), shift), shape


def _flatten(layer: nn.Flatten, shape: Shape) -> Lowered:
    if layer.start_dim not in (1, -len(shape)) or layer.end_dim not in (-1, 3, len(shape)):
        _refuse(layer, shape, "Flatten(start_dim=1), which keeps samples apart and nothing else")
    return None, (math.prod(shape),)


def _nothing(layer: nn.Module, shape: Shape) -> Lowered:
    return None, shape


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of layer.

    Parameters
    ----------
    lower : callable
        From the layer and the shape before it to its affine map and the shape after it.
    features : str, optional
        The attribute with the number of features before it, for a layer of vectors.
    image : bool
        Whether it is a layer of images.
    """

    lower: Callable[[Any, Shape], Lowered]
    features: str | None = None
    image: bool = False


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind(_linear, features="in_features"),
    nn.Conv2d: Kind(_conv2d, image=True),
    nn.BatchNorm1d: Kind(_batch_norm, features="num_features"),
    nn.BatchNorm2d: Kind(_batch_norm, image=True),
    nn.AvgPool2d: Kind(_avg_pool2d, image=True),
    nn.ZeroPad2d: Kind(_zero_pad2d, image=True),
    nn.Flatten: Kind(_flatten),
    nn.Identity: Kind(_nothing),
    nn.Dropout: Kind(_nothing),
    nn.Dropout2d: Kind(_nothing),
}
"""The layers that are affine maps in evaluation."""


def _affine(matrix: Any, bias: Tensor | None, repeat: int = 1) -> Affine:
    """The map of a matrix and a bias, if there is one, that is the same for so many rows."""
    if bias is None:
        return Affine(matrix, np.zeros(matrix.shape[0], matrix.dtype))
    return Affine(matrix, np.repeat(_array(bias), repeat))


def _array(tensor: Tensor) -> Array:
    """The values in float32, which holds every smaller type exactly, or in float64."""
    if not tensor.is_floating_point():
        raise ValueError(
            f"got weights of {tensor.dtype}, expected real floating-point numbers; convert them."
        )
    dense = tensor.detach().cpu()
    array: Array = (dense if dense.dtype == torch.float64 else dense.float()).numpy()
    return array


def _steps(layer: nn.Module, shape: Shape, *axes: Window) -> Shape:
    """Height and width after a layer of windows."""
    size = tuple(axis.steps for axis in axes)
    if min(size) < 1:
        _refuse(layer, shape, "an image at least as large as its window")
    return size


def _check_image(layer: nn.Module, shape: Shape, channels: int | None = None) -> None:
    if len(shape) != 3 or channels not in (None, shape[0]):
        count = "" if channels is None else f" of {channels} channels"
        _refuse(layer, shape, f"an image{count}")


def _refuse(layer: nn.Module, shape: Shape, expected: str) -> NoReturn:
    given = f"an image of shape {shape}" if len(shape) == 3 else f"a vector of {shape[0]}"
    raise ValueError(
        f"got {layer!r} for {given}, expected {expected}; check the layers before it and "
        "input_shape=(channels, height, width)."
    )
