"""How steep a network really is somewhere: what a certified Lipschitz bound is held against."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from contraction_nets.nn.layers import ImplicitNetwork

_TOL = 1e-9


def steepest_found(
    module: ImplicitNetwork,
    inputs: Tensor,
    *,
    steps: int = 20,
    step_size: float = 0.05,
) -> float:
    """The largest slope met on ascents from these inputs: no ℓ∞ Lipschitz bound is below it.

    From every input, and for every output up and down, it steps along the sign of the gradient:
    where the output is linear, no other direction of the same ℓ∞ length changes it more. Slopes
    are differences of two forward passes, in float64, so they need no derivative to be believed.

    Parameters
    ----------
    module : ImplicitNetwork
        Left as it is.
    inputs : (m, p) tensor
        Where the ascents start; they end steps · step_size away at most, pixels outside of
        [0, 1] among them, because a Lipschitz bound covers all inputs.
    steps : int
        At least one.
    step_size : float
        ℓ∞ length of one step, in input units (pixels in [0, 1]).

    Returns
    -------
    float
        In output units per input unit.

    Raises
    ------
    ValueError
        No input, or steps or step_size not positive.
    """
    if len(inputs) == 0 or steps < 1 or not 0 < step_size < math.inf:
        raise ValueError(
            f"got {len(inputs)} inputs, {steps} steps of {step_size!r}, expected at least one "
            "input and one step of positive size."
        )
    module = copy.deepcopy(module).double().requires_grad_(False)
    module.layer.monitor, module.layer.tol, module.layer.backward_tol = None, _TOL, _TOL
    m, q = len(inputs), module.out_features
    u = inputs.to(module.C).repeat(2 * q, 1)
    output = torch.arange(q, device=u.device).repeat_interleave(m).repeat(2)
    upwards = torch.ones_like(output, dtype=u.dtype)
    upwards[len(u) // 2 :] = -1
    steepest = 0.0
    for _ in range(steps):
        before, gradient = _ascent(module, u, output, upwards)
        after = u + step_size * gradient.sign()
        with torch.no_grad():
            risen = upwards * module(after).gather(1, output[:, None]).squeeze(1) - before
        steepest = max(steepest, float(risen.max()) / step_size)
        u = after
    return steepest


def _ascent(
    module: ImplicitNetwork, u: Tensor, output: Tensor, upwards: Tensor
) -> tuple[Tensor, Tensor]:
    """The chosen output of every row, in its direction, and its gradient."""
    u = u.detach().requires_grad_()
    value = upwards * module(u).gather(1, output[:, None]).squeeze(1)
    (gradient,) = torch.autograd.grad(value.sum(), u)
    return value.detach(), gradient
