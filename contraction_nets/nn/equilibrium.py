"""Equilibria x = φ(A x + s) and their implicit gradient (THEORY §6).

One loop drives every iteration, forward and backward: the gradient w of an equilibrium
solves ``w = φ′ ∘ (g + Aᵀ w)``, a fixed-point equation of the same kind.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from contraction_nets.errors import ConvergenceWarning
from contraction_nets.nn.activations import Activation, get_activation
from contraction_nets.nn.iterations import Elementwise, Iteration, get_iteration
from contraction_nets.nn.operators import Dense, StateOperator


@dataclass(frozen=True, eq=False)
class EquilibriumResult:
    """What an equilibrium iteration ended with.

    Attributes
    ----------
    x : tensor of the shape of s
        The last iterate.
    steps : int
        Applications of A to the samples, or to those of them that were not done yet.
    residual : float
        max |x − φ(A x + s)| over states and samples, measured at this x.
    converged : bool
        Whether the residual is at most ``tol · max |x|``.
    operator : StateOperator
        The map x ↦ A x.
    eta : tensor
        Weights of the norm in which A contracts, broadcastable against a state.
    factorizations : int
        Matrices of the size of A, or of its active part, that were factored.
    """

    x: Tensor = field(repr=False)
    steps: int
    residual: float
    converged: bool
    operator: StateOperator = field(repr=False)
    eta: Tensor = field(repr=False)
    factorizations: int = 0

    @property
    def error_bound(self) -> float:
        """Bound on max |x − x*|, inf where μ_{∞,η}(A) ≥ 1 (THEORY §6).

        max η / min η · residual / (1 − μ_{∞,η}(A)₊); in exact arithmetic, apart from the
        rounding of the residual itself.
        """
        measure = float(self.operator.row_sums(self.eta).max())
        spread = float(self.eta.max() / self.eta.min())
        return spread * self.residual / (1 - max(measure, 0.0)) if measure < 1 else math.inf


Monitor = Callable[[str, EquilibriumResult], None]
"""Called with "forward" or "backward" and the result of every solve."""


def solve_equilibrium(
    A: Tensor | StateOperator,
    s: Tensor,
    activation: str | Activation | Elementwise = "relu",
    *,
    iteration: str | Iteration = "diagonal_resolvent",
    tol: float = 1e-4,
    max_steps: int = 1000,
    eta: Tensor | None = None,
) -> EquilibriumResult:
    """Iterate to the equilibrium of ``x = φ(A x + s)`` from x = 0, without a gradient.

    Parameters
    ----------
    A : (n, n) tensor, or StateOperator
    s : (batch, n) tensor
        B u + b; of the shape of a state for other operators.
    activation : str or Activation
        φ, as in `get_activation`.
    iteration : str or Iteration
        One of `contraction_nets.nn.iterations`: "diagonal_resolvent", "auto", "anderson(m)", …
    tol : float
        Stop when max |x − φ(A x + s)| ≤ tol · max |x|, both over states and samples.
    max_steps : int
        Cap on applications of A.
    eta : (n,) tensor, optional
        Positive weights of the error bound, ones by default; the iterates do not need them.

    Returns
    -------
    EquilibriumResult
        The residual is that of the x returned.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached; the result has converged = False.
    """
    operator = A if isinstance(A, StateOperator) else Dense(A)
    phi = get_activation(activation) if isinstance(activation, str) else activation
    result = _solve(operator, s, phi, get_iteration(iteration), tol, max_steps, eta)
    if not result.converged:
        warnings.warn(_not_converged(result, s, tol), ConvergenceWarning, stacklevel=2)
    return result


def _solve(
    operator: StateOperator,
    s: Tensor,
    activation: Elementwise,
    iteration: Iteration,
    tol: float,
    max_steps: int,
    eta: Tensor | None = None,
) -> EquilibriumResult:
    with torch.no_grad(), torch.autocast(s.device.type, enabled=False):
        weights = s.new_ones(1, dtype=torch.float64) if eta is None else eta
        end = iteration.solve(operator, activation, s, tol, max_steps)
        return EquilibriumResult(
            end.x, end.steps, end.residual, end.converged, operator, weights, end.factorizations
        )


def _not_converged(result: EquilibriumResult, s: Tensor, tol: float) -> str:
    return (
        f"the equilibrium iteration stopped after {result.steps} steps with residual "
        f"{result.residual:.3g} in {s.dtype}, expected at most {tol:g} times the largest state; "
        "project the layer, raise max_steps, or loosen tol."
    )


@dataclass(frozen=True, eq=False)
class _Scaling:
    """y ↦ slope ∘ y: the activation of the linear fixed-point equation of the gradient."""

    factor: Tensor

    def __call__(self, y: Tensor) -> Tensor:
        return self.factor * y

    def slope(self, y: Tensor) -> Tensor:
        return self.factor

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        scale = self.factor / (1 - a * self.factor)
        return lambda y: scale * y

    def take(self, rows: Tensor) -> _Scaling:
        return _Scaling(self.factor[rows])


def equilibrium(
    A: Tensor,
    s: Tensor,
    activation: str | Activation = "relu",
    *,
    kind: type[StateOperator] = Dense,
    iteration: str | Iteration = "diagonal_resolvent",
    tol: float = 1e-4,
    backward_tol: float = 1e-4,
    max_steps: int = 1000,
    monitor: Monitor | None = None,
) -> Tensor:
    """The equilibrium of ``x = φ(A x + s)``, differentiable in A and s.

    The gradient comes from the implicit function theorem: one more equilibrium, to its own
    tolerance, whatever the number of forward steps.

    Parameters
    ----------
    A : weight of the operator, (n, n) for `Dense`
    s : (batch, n) tensor
        Of the shape of a state for other operators; converted to the dtype of A.
    activation, iteration, tol, max_steps
        As in `solve_equilibrium`.
    kind : type of StateOperator
    backward_tol : float
        Tolerance of the gradient, relative to its largest entry.
    monitor : callable, optional
        Called with "forward" or "backward" and the `EquilibriumResult` of every solve.

    Returns
    -------
    tensor of the shape of s, in the dtype of A

    Warns
    -----
    ConvergenceWarning
        Forward or backward did not reach its tolerance; not for gradients that arrive as NaN
        or Inf, which leave as such.
    """
    settings = _Settings(
        kind,
        get_activation(activation),
        get_iteration(iteration),
        tol,
        backward_tol,
        max_steps,
        monitor,
    )
    x: Tensor = _Equilibrium.apply(A, s.to(A.dtype), settings)
    return x


@dataclass(frozen=True, eq=False)
class _Settings:
    kind: type[StateOperator]
    activation: Activation
    iteration: Iteration
    tol: float
    backward_tol: float
    max_steps: int
    monitor: Monitor | None

    def solve(
        self, operator: StateOperator, s: Tensor, activation: Elementwise, *, forward: bool
    ) -> EquilibriumResult:
        tol = self.tol if forward else self.backward_tol
        result = _solve(operator, s, activation, self.iteration, tol, self.max_steps)
        # A gradient that has overflowed is for gradient scaling to see, and to skip the step.
        if not result.converged and (forward or math.isfinite(result.residual)):
            warnings.warn(_not_converged(result, s, tol), ConvergenceWarning, stacklevel=2)
        if self.monitor is not None:
            self.monitor("forward" if forward else "backward", result)
        return result


class _Equilibrium(torch.autograd.Function):
    @staticmethod
    def forward(A: Tensor, s: Tensor, settings: _Settings) -> Tensor:
        operator = settings.kind(A)  # type: ignore[call-arg]
        return settings.solve(operator, s, settings.activation, forward=True).x

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, s, ctx.settings = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(A, s, output)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, None]:
        A, s, x = ctx.saved_tensors
        settings: _Settings = ctx.settings
        operator = settings.kind(A)  # type: ignore[call-arg]
        with torch.autocast(s.device.type, enabled=False):
            slope = _Scaling(settings.activation.slope(operator.affine(x, s)))
            w = settings.solve(operator.transposed(), g, slope, forward=False).x
            weight = operator.weight_gradient(w, x) if ctx.needs_input_grad[0] else None
        return weight, w, None
