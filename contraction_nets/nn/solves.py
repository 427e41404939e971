"""One solve of x = φ(A x + s), and what it ended with."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from contraction_nets.nn.iterations import Elementwise, Iteration
from contraction_nets.nn.operators import StateOperator


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


def solve(
    operator: StateOperator,
    s: Tensor,
    activation: Elementwise,
    iteration: Iteration,
    tol: float,
    max_steps: int,
    eta: Tensor | None = None,
) -> EquilibriumResult:
    """Iterate to the equilibrium, without a gradient and without autocast."""
    with torch.no_grad(), no_autocast(s):
        weights = s.new_ones(1, dtype=torch.float64) if eta is None else eta
        end = iteration.solve(operator, activation, s, tol, max_steps)
        return EquilibriumResult(
            end.x, end.steps, end.residual, end.converged, operator, weights, end.factorizations
        )


def no_autocast(s: Tensor) -> AbstractContextManager[Any]:
    """Autocast switched off for the device of s; free where it is off."""
    kind = s.device.type
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def not_converged(result: EquilibriumResult, s: Tensor, tol: float) -> str:
    """What the warning says."""
    return (
        f"the equilibrium iteration stopped after {result.steps} steps with residual "
        f"{result.residual:.3g} in {s.dtype}, expected at most {tol:g} times the largest state; "
        "project the layer, raise max_steps, or loosen tol."
    )


def solving_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which equilibria for weights of a dtype are computed: at least float32."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
