"""Inputs, labels, radius and domain as they are given, checked, and the boxes that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contraction_nets.geometry.measures import as_finite
from contraction_nets.robustness.attacks.ball import as_domain, as_radius, ball

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
    inputs = as_finite(_array(x, "x"), "x")
    if inputs.ndim != 2 or inputs.shape[1] != input_dim:
        raise ValueError(
            f"x has shape {inputs.shape}, expected (m, {input_dim}): one input a row; reshape it."
        )
    labels = _labels(_array(y, "y"), len(inputs), output_dim)
    epsilon, domain = as_radius(epsilon), None if domain is None else as_domain(domain)
    inner = ball(torch.from_numpy(inputs), epsilon, domain)
    with np.errstate(over="ignore"):
        lower, upper = inputs - epsilon, inputs + epsilon
    if epsilon > 0:
        lower, upper = np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf)
    if domain is not None:
        lower, upper = np.maximum(lower, domain[0]), np.minimum(upper, domain[1])
    return Samples(inputs, labels, lower, upper, inner[0].numpy(), inner[1].numpy())


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
