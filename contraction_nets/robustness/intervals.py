"""Interval bounds of states and outputs over boxes of inputs, differentiable (THEORY §7)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.equilibrium import equilibrium
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.options import positive, whole
from contraction_nets.robustness.embedding import Embedded, embedded_weight


class IntervalBounds(NamedTuple):
    """Bounds over a box of inputs, entry by entry; differentiable.

    Attributes
    ----------
    lower, upper : (batch, q) tensors
        Of the outputs.
    state_lower, state_upper : (batch, n) tensors
        Of the equilibria.
    """

    lower: Tensor
    upper: Tensor
    state_lower: Tensor
    state_upper: Tensor


def interval_bounds(
    module: ImplicitNetwork,
    lower: Tensor,
    upper: Tensor,
    *,
    tol: float | None = None,
    max_steps: int | None = None,
) -> IntervalBounds:
    """Bounds on the states and outputs of a network for all inputs of a box ([MM], THEORY §7).

    The equilibrium of the embedded network, by the iteration of the layer, at two products a
    step; well-posed under the same condition and contracting with the same factor, whatever the
    activation. The gradient is the implicit one. Meant for training: computed to a tolerance and
    without directed rounding, the bounds prove nothing; `verify_robustness` gives proofs.

    Parameters
    ----------
    module : ImplicitNetwork
    lower, upper : (batch, p) tensors
        Corners of the boxes, in the dtype of the network.
    tol, max_steps
        Relative tolerance of the solve and its gradient, and cap on steps; those of the layer by
        default.

    Returns
    -------
    IntervalBounds

    Raises
    ------
    ValueError
        Not an `ImplicitNetwork`, boxes that do not fit, a lower corner above the upper one.

    Warns
    -----
    ConvergenceWarning
        As the layer.

    Examples
    --------
    >>> network = ImplicitNetwork(784, 100, 10)
    >>> u = torch.rand(32, 784)
    >>> bounds = interval_bounds(network, u - 0.1, u + 0.1)
    >>> bool((bounds.lower <= network(u)).all())
    True
    """
    centre, radius = _box(module, lower, upper)
    low, high = _states(module, centre, radius, tol, max_steps)
    y, spread = (low + high) / 2, (high - low) / 2
    middle = functional.linear(y, module.C, module.c)
    reach = functional.linear(spread, module.C.abs())
    if module.D is not None:
        middle = middle + functional.linear(centre, module.D)
        reach = reach + functional.linear(radius, module.D.abs())
    return IntervalBounds(middle - reach, middle + reach, low, high)


def interval_margins(
    module: ImplicitNetwork,
    lower: Tensor,
    upper: Tensor,
    labels: Tensor,
    *,
    tol: float | None = None,
    max_steps: int | None = None,
) -> Tensor:
    """Lower bounds of y_t − y_k over boxes of inputs labelled t, for every output k.

    By the relative classifier (THEORY §7): differences of outputs are bounded as such,
    (C_t − C_k) x_c − |C_t − C_k| x_r and the same with D, which is much tighter than differences
    of `interval_bounds`. Where all of them but that of t itself are positive, the box has one
    label, up to the reservations of `interval_bounds`.

    Parameters
    ----------
    module : ImplicitNetwork
    lower, upper : (batch, p) tensors
        Corners of the boxes.
    labels : (batch,) tensor of int64
        The class t of each.
    tol, max_steps
        As in `interval_bounds`.

    Returns
    -------
    (batch, q) tensor
        Differentiable; zero at k = t.

    Raises
    ------
    ValueError
        As `interval_bounds`, or labels that are not one class number a box.
    """
    centre, radius = _box(module, lower, upper)
    if labels.shape != centre.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"got labels of shape {tuple(labels.shape)} in {labels.dtype}, expected "
            f"({len(centre)},) class numbers in torch.int64: one a box."
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < module.out_features):
        raise ValueError(
            f"got labels from {int(labels.min())} to {int(labels.max())}, expected them from 0 to "
            f"{module.out_features - 1}: the network has {module.out_features} outputs."
        )
    low, high = _states(module, centre, radius, tol, max_steps)
    y = functional.linear((low + high) / 2, module.C, module.c)
    reach = _relative(module.C, labels, (high - low) / 2)
    if module.D is not None:
        y = y + functional.linear(centre, module.D)
        reach = reach + _relative(module.D, labels, radius)
    return y.gather(1, labels[:, None]) - y - reach


def _relative(C: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
    """|C_t − C_k| r for every sample (of label t and radius r) and every k."""
    rows = (C[labels][:, None] - C).abs()
    return (rows @ radius[:, :, None]).squeeze(2)


def _box(module: ImplicitNetwork, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and radii of boxes that have been checked."""
    if not isinstance(module, ImplicitNetwork):
        raise ValueError(
            f"got a {type(module).__name__}, expected an ImplicitNetwork; pass the whole network."
        )
    p = module.layer.in_features
    for corner in (lower, upper):
        if corner.ndim != 2 or corner.shape[1] != p or corner.shape != lower.shape:
            raise ValueError(
                f"got boxes of shape {tuple(lower.shape)} and {tuple(upper.shape)}, expected "
                f"(batch, {p}) twice: one input a row; reshape them."
            )
    if not bool((lower <= upper).all()):
        raise ValueError("a lower corner is above the upper one or NaN, expected lower ≤ upper.")
    return (lower + upper) / 2, (upper - lower) / 2


def _states(
    module: ImplicitNetwork,
    centre: Tensor,
    radius: Tensor,
    tol: float | None,
    max_steps: int | None,
) -> tuple[Tensor, Tensor]:
    layer = module.layer
    middle, reach = layer.drive(centre), functional.linear(radius, layer.B.abs())
    x = equilibrium(
        embedded_weight(layer.A),
        torch.cat([middle - reach, middle + reach], dim=1),
        layer.activation,
        kind=Embedded,
        # The embedded matrix is never made, so that there is nothing to factor.
        iteration="diagonal_resolvent" if layer.iteration.needs_matrix else layer.iteration,
        tol=layer.tol if tol is None else positive(tol, "tol"),
        backward_tol=layer.backward_tol if tol is None else tol,
        max_steps=layer.max_steps if max_steps is None else whole(max_steps, "max_steps"),
        monitor=layer.monitor,
    )
    low, high = x.chunk(2, dim=1)
    return low, high
