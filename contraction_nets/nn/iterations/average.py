"""The average iteration of [NEMON]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared
from contraction_nets.nn.operators import StateOperator
from contraction_nets.nn.options import is_number


@dataclass(frozen=True)
class Average(Iteration):
    """x ← (1 − α) x + α φ(A x + s), the average iteration of [NEMON], Theorem 2.

    Parameters
    ----------
    alpha : float, optional
        Step in (0, 1]; by default α* = 1 / (1 − min_i (A_ii)₋), the largest step with which
        the iteration contracts for every well-posed A.
    """

    alpha: float | None = None
    name: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        if self.alpha is not None and not (is_number(self.alpha) and 0 < self.alpha <= 1):
            raise ValueError(f"got average({self.alpha!r:.60}), expected a step in (0, 1].")

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Prepared:
        if self.alpha is not None:
            return _Average(operator, activation, s, self.alpha)
        return _Average(operator, activation, s, 1 / (1 - operator.diagonal.min().clamp_max(0)))


class _Average(Prepared):
    def __init__(
        self, linear: StateOperator, activation: Elementwise, s: Tensor, alpha: Tensor | float
    ) -> None:
        super().__init__(linear, s)
        self.activation, self.alpha = activation, alpha

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.alpha * (self.activation(y) - x)

    def image(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(y)
