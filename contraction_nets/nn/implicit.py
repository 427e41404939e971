"""Derivatives of equilibria by the implicit function theorem, of any order (THEORY §6).

With D = diag φ′(A x + s) at the equilibrium x of x = φ(A x + s), every derivative is the
solution w of a linear equation

    w = D (L w + c),    L = A or Aᵀ

again a fixed-point equation of the same kind: Aᵀ and the cotangent of x backward, A and
Ȧ x + ṡ forward. Its own derivatives are solutions of such equations, too.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual
from torch.autograd.function import Function, FunctionCtx

from contraction_nets.errors import ConvergenceWarning
from contraction_nets.nn.activations import Activation
from contraction_nets.nn.iterations import Elementwise, Iteration
from contraction_nets.nn.operators import StateOperator
from contraction_nets.nn.solves import (
    EquilibriumResult,
    Monitor,
    no_autocast,
    not_converged,
    solve,
)


@dataclass(frozen=True, eq=False)
class Scaling:
    """y ↦ slope ∘ y: the activation of the linear equation."""

    factor: Tensor

    @property
    def linear(self) -> Tensor:
        return self.factor

    @property
    def homogeneous(self) -> bool:
        return False

    def __call__(self, y: Tensor) -> Tensor:
        return self.factor * y

    def slope(self, y: Tensor) -> Tensor:
        return self.factor

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        scale = self.factor / (1 - a * self.factor)
        return lambda y: y.mul_(scale)

    def take(self, rows: Tensor) -> Scaling:
        return Scaling(self.factor[rows])


@dataclass(frozen=True, eq=False)
class Settings:
    """Everything about a solve but its tensors."""

    kind: type[StateOperator]
    activation: Activation
    iteration: Iteration
    tol: float
    backward_tol: float
    max_steps: int
    monitor: Monitor | None

    def operator(self, A: Tensor) -> StateOperator:
        """The map x ↦ A x."""
        return self.kind(A)  # type: ignore[call-arg]

    def equilibrium(self, A: Tensor, s: Tensor) -> Tensor:
        """x = φ(A x + s), without a gradient."""
        return self._solve(self.operator(A), s, self.activation, self.tol, "forward")

    def linear(self, A: Tensor, slope: Tensor, c: Tensor, transposed: bool) -> Tensor:
        """w = slope ∘ (L w + c), without a gradient."""
        operator = self.operator(A)
        operator = operator.transposed() if transposed else operator
        return self._solve(operator, c, Scaling(slope), self.backward_tol, "backward")

    def _solve(
        self, operator: StateOperator, s: Tensor, activation: Elementwise, tol: float, way: str
    ) -> Tensor:
        # The loop is no graph: its length depends on the data.
        run = torch.compiler.disable(solve) if torch.compiler.is_compiling() else solve
        result: EquilibriumResult = run(
            operator, s, activation, self.iteration, tol, self.max_steps
        )
        # A gradient that has overflowed is for gradient scaling to see, and to skip the step.
        if not result.converged and (way == "forward" or math.isfinite(result.residual)):
            warnings.warn(not_converged(result, s, tol), ConvergenceWarning, stacklevel=2)
        if self.monitor is not None:
            self.monitor(way, result)
        return result.x


class Linear(NamedTuple):
    """One linear equation but for its tensors: settings, and whether L is Aᵀ."""

    settings: Settings
    transposed: bool

    def operators(self, A: Tensor) -> tuple[StateOperator, StateOperator]:
        """L and Lᵀ."""
        operator = self.settings.operator(A)
        pair = operator, operator.transposed()
        return pair[::-1] if self.transposed else pair

    def weight_gradient(self, A: Tensor, w: Tensor, p: Tensor) -> Tensor:
        """Gradient of ⟨p, L w⟩ with respect to the weight."""
        operator = self.settings.operator(A)
        return operator.weight_gradient(*((w, p) if self.transposed else (p, w)))


Solver = Callable[[Tensor, Tensor, Tensor, Settings, bool], Tensor]
"""A differentiable w = slope ∘ (L w + c) of A, slope, c, settings, transposed."""


def equilibrium_gradient(
    A: Tensor, s: Tensor, x: Tensor, g: Tensor, settings: Settings, linear: Solver, weight: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients with respect to A (where asked for) and s of an x with the cotangent g."""
    operator = settings.operator(A)
    with no_autocast(s):
        slope = settings.activation.slope(operator.affine(x, s))
        w = linear(A, slope, g, settings, True)
        return operator.weight_gradient(w, x) if weight else None, w


def linear_gradient(
    saved: tuple[Tensor, Tensor, Tensor, Tensor],
    h: Tensor,
    problem: Linear,
    linear: Solver,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Gradients with respect to A, slope and c of w = slope ∘ (L w + c) with the cotangent h."""
    A, slope, c, w = saved
    with no_autocast(c):
        # p = D (h + Lᵀ p): the same equation with the other operator.
        p = linear(A, slope, h, problem.settings, not problem.transposed)
        forth, back = problem.operators(A) if needed[1] else (None, None)
        return (
            problem.weight_gradient(A, w, p) if needed[0] else None,
            back.affine(p, h) * forth.affine(w, c) if forth and back else None,
            p,
        )


def _linear_once(
    A: Tensor, slope: Tensor, c: Tensor, settings: Settings, transposed: bool
) -> Tensor:
    return settings.linear(A, slope, c, transposed)


class Equilibrium(Function):
    """x = φ(A x + s) of A, s, settings."""

    @staticmethod
    def forward(A: Tensor, s: Tensor, settings: Settings) -> Tensor:
        return settings.equilibrium(A, s)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, s, ctx.settings = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(A, s, output)
        ctx.save_for_forward(A, s, output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, None]:
        A, s, x = ctx.saved_tensors
        solver = LinearEquilibrium.apply
        if not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
            solver = _linear_once  # nobody differentiates it again
        weight = ctx.needs_input_grad[0]
        return *equilibrium_gradient(A, s, x, g, ctx.settings, solver, weight), None

    @staticmethod
    def jvp(ctx: Any, A_dot: Tensor | None, s_dot: Tensor | None, _: None) -> Tensor:
        settings: Settings = ctx.settings
        (A, s, x), (A_dot, s_dot) = _primals(ctx.saved_tensors), _primals((A_dot, s_dot))
        with _set_fwd_grad_enabled(True), no_autocast(s):
            slope = settings.activation.slope(settings.operator(A).affine(x, s))
            c = torch.zeros_like(x) if s_dot is None else s_dot
            if A_dot is not None:
                c = settings.operator(A_dot).affine(x, c)
            x_dot: Tensor = LinearEquilibrium.apply(A, slope, c, settings, False)
        return x_dot

    @staticmethod
    def vmap(info: Any, in_dims: Any, A: Tensor, s: Tensor, settings: Settings) -> Any:
        return mapped(
            lambda A, s: Equilibrium.apply(A, s, settings), info.batch_size, in_dims, A, s
        )


class LinearEquilibrium(Function):
    """w = slope ∘ (L w + c) of A, slope, c, settings, transposed."""

    @staticmethod
    def forward(
        A: Tensor, slope: Tensor, c: Tensor, settings: Settings, transposed: bool
    ) -> Tensor:
        return settings.linear(A, slope, c, transposed)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, slope, c, settings, transposed = inputs
        ctx.problem = Linear(settings, transposed)  # type: ignore[attr-defined]
        ctx.save_for_backward(A, slope, c, output)
        ctx.save_for_forward(A, slope, c, output)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, None, None]:
        solver, needed = LinearEquilibrium.apply, ctx.needs_input_grad
        return *linear_gradient(ctx.saved_tensors, h, ctx.problem, solver, needed), None, None

    @staticmethod
    def jvp(
        ctx: Any, A_dot: Tensor | None, slope_dot: Tensor | None, c_dot: Tensor | None, *_: None
    ) -> Tensor:
        settings, transposed = ctx.problem
        A, slope, c, w = _primals(ctx.saved_tensors)
        A_dot, slope_dot, c_dot = _primals((A_dot, slope_dot, c_dot))
        with _set_fwd_grad_enabled(True), no_autocast(c):
            forth, _back = ctx.problem.operators(A)
            shift = torch.zeros_like(w) if c_dot is None else c_dot
            if A_dot is not None:
                shift = ctx.problem.operators(A_dot)[0].affine(w, shift)
            # ẇ = D (L ẇ + shift) + Ḋ v is solved by ẇ − Ḋ v, because D may be zero.
            jump = None
            if slope_dot is not None:
                jump = slope_dot * forth.affine(w, c)
                shift = forth.affine(jump, shift)
            w_dot: Tensor = LinearEquilibrium.apply(A, slope, shift, settings, transposed)
            return w_dot if jump is None else w_dot + jump

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        A: Tensor,
        slope: Tensor,
        c: Tensor,
        settings: Settings,
        transposed: bool,
    ) -> Any:
        return mapped(
            lambda A, *states: LinearEquilibrium.apply(A, *states, settings, transposed),
            info.batch_size,
            in_dims,
            A,
            slope,
            c,
        )


def _primals(tensors: Iterable[Tensor | None]) -> list[Any]:
    """The tensors without the tangents of the derivative that is being taken.

    Torch switches forward mode off inside of rules of forward mode, and with it the tangents of
    every derivative around (pytorch/pytorch#197867). With these it can be on.
    """
    return [None if t is None else unpack_dual(t).primal for t in tensors]


for _function in (Equilibrium, LinearEquilibrium):
    # `apply` asks for it at every call; looking it up takes a tenth of the time of making it.
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[attr-defined]


def mapped(
    call: Callable[..., Tensor], size: int, in_dims: Any, A: Tensor, *states: Tensor
) -> tuple[Tensor, int]:
    """A solve over one more axis: in one batch where A has none, else one by one.

    Parameters
    ----------
    call : callable
        Of A and the states.
    size : int
        Of that axis.
    in_dims : tuple
        Where A and each of the states has it, None where not.
    """
    if in_dims[0] is not None:
        parts = []
        for k in range(size):
            tensors = zip((A, *states), in_dims, strict=False)
            parts.append(call(*(t if d is None else t.select(d, k) for t, d in tensors)))
        return torch.stack(parts), 0
    moved = [
        s.expand(size, *s.shape) if d is None else s.movedim(d, 0)
        for s, d in zip(states, in_dims[1:], strict=False)
    ]
    shape = moved[0].shape
    return call(A, *(s.reshape(-1, *s.shape[2:]) for s in moved)).reshape(shape), 0
