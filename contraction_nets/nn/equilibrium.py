"""Equilibria x = φ(A x + s) and their implicit gradient (THEORY §6).

One loop drives every iteration, forward and backward: the gradient w of an equilibrium
solves ``w = φ′ ∘ (g + Aᵀ w)``, a fixed-point equation of the same kind.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from contraction_nets.errors import ConvergenceWarning
from contraction_nets.nn.activations import Activation, get_activation
from contraction_nets.nn.compiled import compiled_equilibrium
from contraction_nets.nn.implicit import Equilibrium, Settings
from contraction_nets.nn.iterations import Elementwise, Iteration, get_iteration
from contraction_nets.nn.operators import Dense, StateOperator
from contraction_nets.nn.options import at_least_zero
from contraction_nets.nn.solves import (
    EquilibriumResult,
    Monitor,
    not_converged,
    solve,
    solving_dtype,
)

__all__ = ["EquilibriumResult", "Monitor", "equilibrium", "solve_equilibrium"]


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
        A tensor in half precision is solved in float32.
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

    Raises
    ------
    ValueError
        A negative or infinite tolerance, or one that is no number.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached; the result has converged = False.
    """
    if not isinstance(A, StateOperator):
        dtype = solving_dtype(A.dtype)
        A, s = Dense(A.to(dtype)), s.to(dtype) if dtype != A.dtype else s
    phi = get_activation(activation) if isinstance(activation, str) else activation
    tol = at_least_zero(tol, "tol")
    result = solve(A, s, phi, get_iteration(iteration), tol, max_steps, eta)
    if not result.converged:
        warnings.warn(not_converged(result, s, tol), ConvergenceWarning, stacklevel=2)
    return result


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
    tolerance, whatever the number of forward steps. So do derivatives of forward mode and of
    higher order, one equilibrium each, also under the transforms of `torch.func`; a `vmap` over s
    alone is one solve of all samples, one over A a solve for each. In functions compiled by
    `torch.compile` a solve is one operator of the graph, but with a monitor or inside of a
    transform, which are run outside of the graph.

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
        Called with "forward" and the `EquilibriumResult` of the equilibrium, and with "backward"
        and that of every derivative.

    Returns
    -------
    tensor of the shape of s, in the dtype of A
        Computed in float32 where that is half precision.

    Raises
    ------
    ValueError
        A negative or infinite tolerance, or one that is no number.

    Warns
    -----
    ConvergenceWarning
        Forward or backward did not reach its tolerance; not for gradients that arrive as NaN
        or Inf, which leave as such.
    """
    settings = Settings(
        kind,
        get_activation(activation),
        get_iteration(iteration),
        at_least_zero(tol, "tol"),
        at_least_zero(backward_tol, "backward_tol"),
        max_steps,
        monitor,
    )
    dtype = solving_dtype(A.dtype)
    weight, drive = A.to(dtype), s.to(dtype)
    if not torch.compiler.is_compiling():
        x = Equilibrium.apply(weight, drive, settings)
    elif monitor is None and not _transformed():
        x = compiled_equilibrium(weight, drive, settings)
    else:
        # A monitor cannot be part of a graph, and operators have no forward mode there.
        x = torch.compiler.disable(_outside_of_graphs)(weight, drive, settings)
    return x.to(A.dtype)


def _transformed() -> bool:
    """Whether transforms of torch.func or forward mode are at work."""
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return forward_mode or torch._C._are_functorch_transforms_active()


def _outside_of_graphs(A: Tensor, s: Tensor, settings: Settings) -> Tensor:
    x: Tensor = Equilibrium.apply(A, s, settings)
    return x
