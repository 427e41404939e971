"""Anderson acceleration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.least_squares import solve_normal, whole_memory
from contraction_nets.nn.operators import StateOperator


@dataclass(frozen=True)
class Anderson(Iteration):
    """x ← g − ΔG γ, γ = argmin ‖f − ΔF γ‖₂ over the last m differences, for every sample.

    Type II (Walker and Ni, *Anderson Acceleration for Fixed-Point Iterations*, SINUM 2011,
    eq. 2.2 and the unconstrained form of §2) of the diagonal resolvent map g, with f = g − x.
    Safeguarded as `Accelerated` describes: it converges wherever the network is well-posed.

    Parameters
    ----------
    memory : int
        m, the differences remembered.
    """

    memory: float = 5
    name: ClassVar[str] = "anderson"

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", whole_memory(self.memory, self.name))

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Accelerated:
        return self.accelerate(DiagonalResolvent().prepare(operator, activation, s))

    def accelerate(self, base: DiagonalMap) -> Accelerated:
        """This acceleration of a base map."""
        return _Anderson(base, int(self.memory))


class _Anderson(Accelerated):
    stride = 3

    def __init__(self, base: DiagonalMap, memory: int) -> None:
        super().__init__(base, patience=2 * memory + 2)
        self.memory, self._count = memory, 0

    def propose(self, x: Tensor, g: Tensor, f: Tensor, failed: Tensor | None) -> Tensor:
        state, m = self._state, self.memory
        if not self._count:
            # Squares of f in one unit per sample neither overflow nor vanish.
            unit = f.abs().amax(dim=1, keepdim=True)
            state["unit"] = torch.where(unit > 0, unit, 1).reciprocal()
            state["F"], state["G"] = (f.new_zeros(len(f), m, f.shape[1]) for _ in range(2))
            state["gram"] = f.new_zeros(len(f), m, m)
        f = f * state["unit"]
        if self._count:
            slot = (self._count - 1) % m
            F, G, gram = state["F"], state["G"], state["gram"]
            torch.sub(f, state["f"], out=F[:, slot])
            torch.sub(g, state["g"], out=G[:, slot])
            if failed is not None:
                F[failed], G[failed] = 0.0, 0.0
                gram[failed] = 0.0
            products = (F * F[:, slot, None]).sum(dim=2)
            gram[:, slot, :], gram[:, :, slot] = products, products
        state["f"], state["g"] = f, g
        self._count += 1
        if self._count == 1:
            return g
        used = min(self._count - 1, m)
        F, G, gram = state["F"][:, :used], state["G"][:, :used], state["gram"][:, :used, :used]
        gamma = solve_normal(gram, (F * f[:, None]).sum(dim=2))
        return g - torch.bmm(gamma[:, None], G)[:, 0]
