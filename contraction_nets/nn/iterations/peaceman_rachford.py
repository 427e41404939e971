"""Peaceman–Rachford splitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared
from contraction_nets.nn.iterations.forward_backward import positive_step, splitting_step
from contraction_nets.nn.operators import Dense, StateOperator


@dataclass(frozen=True)
class PeacemanRachford(Iteration):
    """u ← (2 J_α − I) (2 R − I) u, with R u = (I + α (I − A))⁻¹ (u + α s); x = J_α((2 R − I) u).

    [MON], Algorithm 2. One factorization, and one solve with it where other iterations apply A:
    these are what `steps` counts. Every measurement of the residual, at steps that double at
    most, takes a product with A besides. J_α is that of `ForwardBackward`; the factor is at
    most (1 − α c) / (1 + α c), c = 1 − μ_{∞,η}(A), for every α up to the default ([JMLR]).

    Parameters
    ----------
    alpha : float, optional
        Positive step; by default 1 / (1 − min_i A_ii).
    """

    alpha: float | None = None
    name: ClassVar[str] = "peaceman_rachford"
    needs_matrix: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.alpha is not None:
            positive_step(self.alpha, self.name)

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Prepared:
        self.check(type(operator))
        alpha = splitting_step(self.alpha, operator)
        return _PeacemanRachford(cast("Dense", operator), activation, s, alpha)


class _PeacemanRachford(Prepared):
    factorizations = 1

    def __init__(self, A: Dense, activation: Elementwise, s: Tensor, alpha: Tensor) -> None:
        super().__init__(A, s)
        self.activation, self.alpha = activation, alpha
        identity = torch.eye(len(A.weight), dtype=A.weight.dtype, device=A.weight.device)
        # Transposed, because samples are rows.
        shifted = ((1 + alpha) * identity - alpha * A.weight).T
        self._factors = torch.linalg.lu_factor_ex(shifted)[:2]
        self._pull = alpha * s
        self._resolvent = activation.resolvent_map((alpha - 1) / alpha)

    def start(self) -> Tensor:
        # u = −α s is where R u = 0.
        return self.advance(-self._pull, torch.zeros_like(self.s))

    def apply(self, x: Tensor) -> Tensor:
        return torch.linalg.lu_solve(*self._factors, x + self._pull, left=False)

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        half = 2 * y - x
        return self._resolvent(half / self.alpha).mul_(2).sub_(half)

    def image(self, x: Tensor, y: Tensor) -> Tensor:
        return self.measured(x, y)[1]

    def measured(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        point = self._resolvent((2 * y - x) / self.alpha)
        return point, self.activation(self.linear.affine(point, self.s))
