"""Every iteration as a call on one equation x = φ(A x + s), forward or backward."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from contraction_nets.comparison.cases import Problem
from contraction_nets.errors import ConvergenceWarning
from contraction_nets.nn.activations import get_activation
from contraction_nets.nn.equilibrium import solve_equilibrium
from contraction_nets.nn.implicit import Scaling
from contraction_nets.nn.iterations import Elementwise

TORCHDEQ = ("torchdeq anderson", "torchdeq broyden")
"""Solvers of the package torchdeq on x ↦ φ(A x + s); left out where it is not installed."""

_BROYDEN_MEMORY = 2**28
_DEQ_STEPS = 100
_SLOPES = 1e-6


@dataclass(frozen=True, eq=False)
class Equation:
    """What is solved: x = φ(A x + s).

    Attributes
    ----------
    A : (n, n) tensor
    s : (batch, n) tensor
    phi : Elementwise
    """

    A: Tensor
    s: Tensor
    phi: Elementwise


class End(NamedTuple):
    """What a solver ended with."""

    x: Tensor
    steps: int
    factorizations: int = 0


def forward(problem: Problem) -> Equation:
    """The equilibrium itself."""
    return Equation(problem.A, problem.s, get_activation(problem.activation))


def backward(problem: Problem) -> Equation:
    """The equation of its gradient (THEORY §6), w = φ′ ∘ (g + Aᵀ w), for a drawn cotangent g."""
    case, phi = problem.case, get_activation(problem.activation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        x = solve_equilibrium(problem.A, problem.s, phi, iteration="auto", tol=_SLOPES).x
    slope = phi.slope(torch.addmm(problem.s, x, problem.A.T))
    draw = np.random.default_rng([case.seed, case.states, case.batch]).normal(size=slope.shape)
    return Equation(problem.A.T, torch.from_numpy(draw).to(slope.dtype), Scaling(slope))


def contender(equation: Equation, name: str, tol: float, max_steps: int) -> Callable[[], End]:
    """A call that solves the equation by one of our iterations, or of `TORCHDEQ`.

    The tolerance of torchdeq means something else: the loosest that meets ours is found here.
    """
    if name in TORCHDEQ:
        return _torchdeq(equation, name, tol)

    def run() -> End:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = solve_equilibrium(
                equation.A, equation.s, equation.phi,
                iteration=name, tol=tol, max_steps=max_steps,
            )  # fmt: skip
        return End(result.x, result.steps, result.factorizations)

    return run


def is_installed(name: str) -> bool:
    """Whether this iteration can run here."""
    return name not in TORCHDEQ or importlib.util.find_spec("torchdeq") is not None


def residual_of(equation: Equation, x: Tensor) -> float:
    """max |x − φ(A x + s)| / max |x| over states and samples, computed in float64."""
    x, A, s = (part.to(torch.float64) for part in (x, equation.A, equation.s))
    image = equation.phi(torch.addmm(s, x, A.T))
    residual, scale = float((x - image).abs().max()), float(x.abs().max())
    return residual / scale if scale else math.inf if residual else 0.0


def _torchdeq(equation: Equation, name: str, tol: float) -> Callable[[], End]:
    """Their solver at the loosest of its tolerances 64 tol, 32 tol, … that meets ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchdeq.solver import get_solver

    solver = get_solver(name.split()[1])
    memory = max(10, min(_DEQ_STEPS, _BROYDEN_MEMORY // equation.s.numel()))
    right = equation.A.T.contiguous()

    def solve(own: float) -> End:
        products = 0

        def image(x: Tensor) -> Tensor:
            nonlocal products
            products += 1
            return equation.phi(torch.addmm(equation.s, x, right))

        with torch.no_grad():
            x, _, _ = solver(
                image, torch.zeros_like(equation.s),
                max_iter=_DEQ_STEPS, tol=own, stop_mode="rel", LBFGS_thres=memory,
            )  # fmt: skip
        return End(x, products)

    own = 64 * tol
    while own > tol / 64 and residual_of(equation, solve(own).x) > tol:
        own /= 2
    return lambda: solve(own)
