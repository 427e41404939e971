"""Broyden's method with limited memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.least_squares import whole_memory
from contraction_nets.nn.operators import StateOperator


@dataclass(frozen=True)
class Broyden(Iteration):
    """x ← x − H f, H = −I + Σ_k u_k v_kᵀ the inverse Jacobian of f = g − x, for every sample.

    Broyden's good update in the form of Sherman and Morrison (Broyden, *A Class of Methods for
    Solving Nonlinear Simultaneous Equations*, 1965, eq. 4.5), of the diagonal resolvent map g;
    a full memory is emptied. Safeguarded as `Accelerated` describes: it converges wherever the
    network is well-posed.

    Parameters
    ----------
    memory : int
        Updates remembered.
    """

    memory: float = 10
    name: ClassVar[str] = "broyden"

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", whole_memory(self.memory, self.name))

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Accelerated:
        return _Broyden(DiagonalResolvent().prepare(operator, activation, s), int(self.memory))


class _Broyden(Accelerated):
    stride = 3

    def __init__(self, base: DiagonalMap, memory: int) -> None:
        super().__init__(base, patience=2 * memory + 2)
        self.memory, self._used, self._ready = memory, 0, False

    def propose(self, x: Tensor, g: Tensor, f: Tensor, failed: Tensor | None) -> Tensor:
        state = self._state
        if not self._ready:
            state["U"], state["V"] = (f.new_zeros(len(f), self.memory, f.shape[1]) for _ in "UV")
        else:
            self._update(x - state["x"], f - state["f"], failed)
        state["x"], state["f"], self._ready = x, f, True
        if not self._used:
            return g
        U, V = state["U"][:, : self._used], state["V"][:, : self._used]
        return g - _combined(U, (V * f[:, None]).sum(dim=2))

    def _update(self, dx: Tensor, df: Tensor, failed: Tensor | None) -> None:
        state = self._state
        if self._used == self.memory:
            state["U"].zero_()
            state["V"].zero_()
            self._used = 0
        if failed is not None:
            state["U"][failed], state["V"][failed] = 0.0, 0.0
        U, V = state["U"][:, : self._used], state["V"][:, : self._used]
        back = _combined(U, (V * df[:, None]).sum(dim=2)) - df
        left = _combined(V, (U * dx[:, None]).sum(dim=2)) - dx
        # left · df = dxᵀ H df: divide it out of left first, against overflow.
        size = left.abs().amax(dim=1, keepdim=True)
        left = left / torch.where(size > 0, size, 1)
        pivot = (left * df).sum(dim=1, keepdim=True)
        keep = torch.isfinite(pivot) & (pivot != 0)
        if failed is not None:
            keep &= ~failed[:, None]
        update = (dx - back) / torch.where(keep, pivot, 1)
        state["U"][:, self._used] = torch.where(keep, update, 0)
        state["V"][:, self._used] = torch.where(keep, left, 0)
        self._used += 1


def _combined(vectors: Tensor, weights: Tensor) -> Tensor:
    """Σ_k weights_k vectors_k for every sample."""
    return torch.bmm(weights[:, None], vectors)[:, 0]
