"""Picard iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared
from contraction_nets.nn.operators import StateOperator


@dataclass(frozen=True)
class Picard(Iteration):
    """x ← φ(A x + s); converges where ‖A‖_{∞,η} < 1, which is more than well-posedness."""

    name: ClassVar[str] = "picard"

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Prepared:
        return _Picard(operator, activation, s)


class _Picard(Prepared):
    def __init__(self, linear: StateOperator, activation: Elementwise, s: Tensor) -> None:
        super().__init__(linear, s)
        self.activation = activation

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(y)

    def image(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(y)
