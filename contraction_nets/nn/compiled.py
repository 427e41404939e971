"""The solves as operators of their own, which `torch.compile` puts into its graph as one node.

They do what the functions of `implicit` do, without forward mode. Their arguments are tensors,
numbers and strings, as graphs must be able to hold them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contraction_nets.nn.activations import get_activation
from contraction_nets.nn.implicit import (
    Linear,
    Settings,
    equilibrium_gradient,
    linear_gradient,
)
from contraction_nets.nn.iterations import get_iteration
from contraction_nets.nn.operators import KINDS


def compiled_equilibrium(A: Tensor, s: Tensor, settings: Settings) -> Tensor:
    """x = φ(A x + s) in a graph; settings without a monitor."""
    x: Tensor = _equilibrium(A, s, *_written(settings))
    return x


def compiled_linear(
    A: Tensor, slope: Tensor, c: Tensor, settings: Settings, transposed: bool
) -> Tensor:
    """w = slope ∘ (L w + c) in a graph."""
    w: Tensor = _linear(A, slope, c, transposed, *_written(settings))
    return w


def _written(settings: Settings) -> tuple[str, str, str, float, float, int]:
    return (
        settings.kind.key(),
        str(settings.activation),
        str(settings.iteration),
        float(settings.tol),
        float(settings.backward_tol),
        int(settings.max_steps),
    )


def _read(
    kind: str, activation: str, iteration: str, tol: float, backward_tol: float, max_steps: int
) -> Settings:
    return Settings(
        KINDS[kind],
        get_activation(activation),
        get_iteration(iteration),
        tol,
        backward_tol,
        max_steps,
        None,
    )


@torch.library.custom_op("contraction_nets::equilibrium", mutates_args=())
def _equilibrium(
    A: Tensor,
    s: Tensor,
    kind: str,
    activation: str,
    iteration: str,
    tol: float,
    backward_tol: float,
    max_steps: int,
) -> Tensor:
    settings = _read(kind, activation, iteration, tol, backward_tol, max_steps)
    return settings.equilibrium(A, s).contiguous()


@torch.library.custom_op("contraction_nets::linear_equilibrium", mutates_args=())
def _linear(
    A: Tensor,
    slope: Tensor,
    c: Tensor,
    transposed: bool,
    kind: str,
    activation: str,
    iteration: str,
    tol: float,
    backward_tol: float,
    max_steps: int,
) -> Tensor:
    settings = _read(kind, activation, iteration, tol, backward_tol, max_steps)
    return settings.linear(A, slope, c, transposed).contiguous()


@_equilibrium.register_fake
def _(A: Tensor, s: Tensor, *_: Any) -> Tensor:
    return s.new_empty(s.shape)


@_linear.register_fake
def _(A: Tensor, slope: Tensor, c: Tensor, *_: Any) -> Tensor:
    return c.new_empty(c.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    A, s, *written = inputs
    ctx.settings = _read(*written)
    ctx.save_for_backward(A, s, output)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    A, s, x = ctx.saved_tensors
    weight = ctx.needs_input_grad[0]
    gradients = equilibrium_gradient(A, s, x, g, ctx.settings, compiled_linear, weight)
    return *gradients, None, None, None, None, None, None


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    A, slope, c, transposed, *written = inputs
    ctx.problem = Linear(_read(*written), transposed)
    ctx.save_for_backward(A, slope, c, output)


def _backward_linear(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad
    gradients = linear_gradient(ctx.saved_tensors, h, ctx.problem, compiled_linear, needed)
    return *gradients, None, None, None, None, None, None, None


_equilibrium.register_autograd(_backward, setup_context=_save)
_linear.register_autograd(_backward_linear, setup_context=_save_linear)
