"""The diagonal resolvent iteration, on which the accelerated ones build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared
from contraction_nets.nn.operators import StateOperator


@dataclass(frozen=True)
class DiagonalResolvent(Iteration):
    """x ← J(A_off x + s), with J_i(y) the solution of x_i = φ(A_ii x_i + y) (THEORY §6).

    Its factor max_i Σ_{j≠i} (η_j/η_i) |A_ij| / (1 − A_ii) is never worse than that of the
    average iteration.
    """

    name: ClassVar[str] = "diagonal_resolvent"

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> DiagonalMap:
        return DiagonalMap(operator.without_diagonal(), operator.diagonal, activation, s)


class DiagonalMap(Prepared):
    """x ↦ J(A_off x + s) on the samples of s.

    Parameters
    ----------
    linear : StateOperator
        A without its diagonal.
    diagonal : tensor
        That diagonal, broadcastable against a state.
    activation : Elementwise
    s : (batch, ...) tensor
    """

    def __init__(
        self, linear: StateOperator, diagonal: Tensor, activation: Elementwise, s: Tensor
    ) -> None:
        super().__init__(linear, s)
        self.diagonal, self.activation = diagonal, activation
        self._resolvent = activation.resolvent_map(diagonal)

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        return self._resolvent(y)

    def image(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(self.preactivation(x, y))

    def preactivation(self, x: Tensor, y: Tensor) -> Tensor:
        """A x + s."""
        return y + self.diagonal * x

    def take(self, rows: Tensor) -> DiagonalMap:
        """The same map on some of the samples."""
        activation = self.activation.take(rows)
        return DiagonalMap(self.linear, self.diagonal, activation, self.s[rows])
