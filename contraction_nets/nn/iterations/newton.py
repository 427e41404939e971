"""Semismooth Newton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.elimination import solve_shared
from contraction_nets.nn.operators import Dense, StateOperator

_PATIENCE = 20
"""Its residuals rise, up to tenfold, while the pattern of active states settles; 13 steps seen."""

_CHUNK = 2**24
"""Entries of the Jacobians that are in memory at once."""


@dataclass(frozen=True)
class Newton(Iteration):
    """(I − D A) x⁺ = φ(y) − D A x with y = A x + s, D = diag(φ′(y)), for every sample.

    Semismooth Newton (Qi and Sun, *A nonsmooth version of Newton's method*, 1993, eq. 1.3);
    for (leaky) relu it ends after finitely many steps, exactly. States with slope and image zero
    drop out of the system, and samples that share one D share one factorization. Safeguarded
    as `Accelerated` describes: it converges wherever the network is well-posed. A step counts
    once in `steps`, for A x, and in `factorizations` once for every matrix factored.
    """

    name: ClassVar[str] = "newton"
    needs_matrix: ClassVar[bool] = True

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Accelerated:
        self.check(type(operator))
        return self.accelerate(
            DiagonalResolvent().prepare(operator, activation, s), cast("Dense", operator).weight
        )

    def accelerate(self, base: DiagonalMap, A: Tensor) -> Accelerated:
        """This method for the equilibrium of a base map, given the whole matrix A."""
        return _Newton(base, A)


class _Newton(Accelerated):
    stride = 1

    def __init__(self, base: DiagonalMap, A: Tensor) -> None:
        super().__init__(base, patience=_PATIENCE)
        self.A = A
        self._level = 4 * torch.finfo(A.dtype).eps

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        self._y = self.base.preactivation(x, y)
        return super().advance(x, y)

    def propose(self, x: Tensor, g: Tensor, f: Tensor, failed: Tensor | None) -> Tensor:
        slope, image = self.base.activation.slope(self._y), self.base.activation(self._y)
        right = image - slope * (self._y - self.base.drive)
        # Samples at the level of rounding, and those that rest, take the plain step.
        moving = f.abs().amax(dim=1) > self._level * g.abs().amax(dim=1)
        busy = moving & (self._state["rest"] == 0)
        if len(x) and bool(busy.all()):
            return self._solve(slope, right)
        step, rows = g.clone(), busy.nonzero()[:, 0]
        if len(rows):
            step[rows] = self._solve(slope[rows], right[rows])
        return step

    def _solve(self, slope: Tensor, right: Tensor) -> Tensor:
        """x⁺ with (I − D A) x⁺ = right."""
        out = (slope == 0) & (right == 0)
        if bool((slope == slope[0]).all()):
            self.factorizations += 1
            return self._solve_together(slope[0], right, ~out.all(dim=0))
        self.factorizations += len(slope)
        size = max(1, int((~out).sum(dim=1).max()))
        x = torch.zeros_like(right)
        chunk = max(1, _CHUNK // size**2)
        for part in torch.arange(len(slope), device=x.device).split(chunk):
            places = out[part].to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
            block = self.A[places[:, :, None], places[:, None, :]]
            block.mul_(-slope[part].gather(1, places)[:, :, None])
            block.diagonal(dim1=1, dim2=2).add_(1)
            solved, _ = torch.linalg.solve_ex(block, right[part].gather(1, places)[:, :, None])
            x[part] = x[part].scatter(1, places, solved[:, :, 0])
        return x

    def _solve_together(self, slope: Tensor, right: Tensor, inside: Tensor) -> Tensor:
        places = inside.nonzero()[:, 0]
        if len(places) == len(slope):
            return solve_shared(self.A, slope, right)
        x = torch.zeros_like(right)
        block = self.A.index_select(0, places).index_select(1, places)
        solved = solve_shared(block, slope[places], right.index_select(1, places))
        return x.index_copy_(1, places, solved)
