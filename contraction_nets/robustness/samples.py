"""Inputs, labels, radius and domain as they are given, checked, and the boxes that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.geometry.measures import as_finite

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled inputs and the boxes around them, one a row.

    Attributes
    ----------
    inputs : (m, p) array
    labels : (m,) integer array
    lower, upper : (m, p) arrays
        Every input in reach is between them (rounded outward).
    inner_lower, inner_upper : (m, p) arrays
        Every input between them is in reach (rounded inward).
    """

    inputs: Array
    labels: NDArray[np.intp]
    lower: Array
    upper: Array
    inner_lower: Array
    inner_upper: Array

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: slice | NDArray[np.intp]) -> Samples:
        """Some of the samples."""
        return Samples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def as_samples(
    x: Any,
    y: Any,
    epsilon: float,
    domain: tuple[float, float] | None,
    input_dim: int,
    output_dim: int,
) -> Samples:
    """Check what was given and draw the boxes.

    Raises
    ------
    ValueError
        Anything that is not m inputs of p numbers in the domain with m labels, a radius of at
        least zero and an interval.
    """
    radius, limits = as_radius(epsilon), as_domain(domain)
    inputs = as_finite(_array(x, "x"), "x")
    if inputs.ndim != 2 or inputs.shape[1] != input_dim:
        raise ValueError(
            f"x has shape {inputs.shape}, expected (m, {input_dim}): one input a row; reshape it."
        )
    labels = _labels(_array(y, "y"), len(inputs), output_dim)
    low, high = (-math.inf, math.inf) if limits is None else limits
    if not ((inputs >= low) & (inputs <= high)).all():
        raise ValueError(
            f"x has entries from {inputs.min():g} to {inputs.max():g}, expected them in the domain "
            f"[{low:g}, {high:g}]; scale the inputs or pass domain=None."
        )
    with np.errstate(over="ignore"):
        below, above = inputs - radius, inputs + radius
    return Samples(
        inputs,
        labels,
        np.maximum(np.where(radius > 0, np.nextafter(below, -np.inf), inputs), low),
        np.minimum(np.where(radius > 0, np.nextafter(above, np.inf), inputs), high),
        np.maximum(np.minimum(np.nextafter(below, np.inf), inputs), low),
        np.minimum(np.maximum(np.nextafter(above, -np.inf), inputs), high),
    )


def as_radius(epsilon: float) -> float:
    """ε as a float; ValueError unless it is a finite number of at least zero."""
    if not _is_number(epsilon) or not 0 <= epsilon < math.inf:
        raise ValueError(
            f"got epsilon {epsilon!r:.60}, expected a finite number of at least 0, an ℓ∞ distance "
            "in input units."
        )
    return float(epsilon)


def as_domain(domain: tuple[float, float] | None) -> tuple[float, float] | None:
    """The interval as two floats or None; ValueError unless it is one."""
    if domain is None:
        return None
    ends = list(domain) if isinstance(domain, tuple | list) else []
    if len(ends) != 2 or not all(map(_is_number, ends)) or not -math.inf < ends[0] < ends[1]:
        ends = []
    if not ends or not ends[1] < math.inf:
        raise ValueError(
            f"got the domain {domain!r:.60}, expected two finite numbers (low, high) with low < "
            "high, or None for inputs without limits."
        )
    return float(ends[0]), float(ends[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.integer | np.floating) and not isinstance(value, bool)


def _array(values: Any, name: str) -> NDArray[Any]:
    """Lists, arrays and tensors as arrays, of the same numbers."""
    detach = getattr(values, "detach", None)
    try:
        if not callable(detach):
            return np.asarray(values)
        tensor = detach().cpu()
        return np.asarray((tensor.double() if tensor.is_floating_point() else tensor).numpy())
    except Exception as error:  # array-likes raise whatever they like
        raise ValueError(
            f"{name} cannot be read as an array, expected numbers, one sample a row."
        ) from error


def _labels(labels: NDArray[Any], count: int, output_dim: int) -> NDArray[np.intp]:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"y has shape {labels.shape} and dtype {labels.dtype}, expected ({count},) whole "
            "numbers: the label of every input."
        )
    if output_dim < 2:
        raise ValueError("got a network of one output, expected two or more to tell labels apart.")
    if count and not (labels.min() >= 0 and labels.max() < output_dim):
        raise ValueError(
            f"y has labels from {labels.min()} to {labels.max()}, expected them from 0 to "
            f"{output_dim - 1}: the network has {output_dim} outputs."
        )
    return labels.astype(np.intp)
