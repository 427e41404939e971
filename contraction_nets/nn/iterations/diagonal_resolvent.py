"""The diagonal resolvent iteration, on which the accelerated ones build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared
from contraction_nets.nn.operators import StateOperator

_COPIED, _COPIED_FOR = 2**19, 40
"""Entries of A, in all and for one of a state, up to which A_off is made: a copy of more costs
what subtracting the diagonal's part in every step does."""


@dataclass(frozen=True)
class DiagonalResolvent(Iteration):
    """x ← J(A_off x + s), with J_i(y) the solution of x_i = φ(A_ii x_i + y) (THEORY §6).

    Its factor max_i Σ_{j≠i} (η_j/η_i) |A_ij| / (1 − A_ii) is never worse than that of the
    average iteration.
    """

    name: ClassVar[str] = "diagonal_resolvent"

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> DiagonalMap:
        a = operator.diagonal.contiguous()
        if not bool(a.any()):  # as in feed-forward networks: A is A_off, and J is φ
            return _Undamped(operator, a, activation, s)
        if operator.entries > _COPIED + _COPIED_FOR * s.numel():
            return _WholeMap(operator, a, activation, s)
        if activation.homogeneous:
            gap = 1 - a
            gain = gap.reciprocal()
            return _HomogeneousMap(operator.without_diagonal(gain), a, activation, s, gap, gain)
        return DiagonalMap(operator.without_diagonal(), a, activation, s)


class DiagonalMap(Prepared):
    """x ↦ J(A_off x + s) on the samples of s.

    Parameters
    ----------
    linear : StateOperator
        A without its diagonal.
    diagonal : tensor
        That diagonal, broadcastable against a state.
    activation : Elementwise
    drive : (batch, ...) tensor
        The s of the equation.
    """

    def __init__(
        self, linear: StateOperator, diagonal: Tensor, activation: Elementwise, drive: Tensor
    ) -> None:
        super().__init__(linear, drive)
        self.diagonal, self.activation, self.drive = diagonal, activation, drive
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
        return DiagonalMap(self.linear, self.diagonal, activation, self.drive[rows])


class _Undamped(DiagonalMap):
    """The same where the diagonal is zero: x ↦ φ(A x + s)."""

    def __init__(
        self, linear: StateOperator, diagonal: Tensor, activation: Elementwise, drive: Tensor
    ) -> None:
        Prepared.__init__(self, linear, drive)
        self.diagonal, self.activation, self.drive = diagonal, activation, drive

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(y)

    def preactivation(self, x: Tensor, y: Tensor) -> Tensor:
        return y

    def take(self, rows: Tensor) -> DiagonalMap:
        return _Undamped(self.linear, self.diagonal, self.activation.take(rows), self.drive[rows])


class _WholeMap(DiagonalMap):
    """The same without A_off: x ↦ J(A x + s − diag(A) x)."""

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        return self._resolvent(torch.addcmul(y, self.diagonal, x, value=-1))

    def preactivation(self, x: Tensor, y: Tensor) -> Tensor:
        return y

    def take(self, rows: Tensor) -> DiagonalMap:
        return _WholeMap(self.linear, self.diagonal, self.activation.take(rows), self.drive[rows])


class _HomogeneousMap(DiagonalMap):
    """The same for φ with φ(g y) = g φ(y), g > 0: J(y) = φ(g y), and g can be part of A and s."""

    def __init__(
        self,
        linear: StateOperator,
        diagonal: Tensor,
        activation: Elementwise,
        drive: Tensor,
        gap: Tensor,
        gain: Tensor,
    ) -> None:
        Prepared.__init__(self, linear, drive * gain)
        self.diagonal, self.activation, self.drive = diagonal, activation, drive
        self.gap, self.gain = gap, gain

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(y)

    def preactivation(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.addcmul(self.diagonal * x, y, self.gap)

    def take(self, rows: Tensor) -> DiagonalMap:
        activation = self.activation.take(rows)
        return _HomogeneousMap(
            self.linear, self.diagonal, activation, self.drive[rows], self.gap, self.gain
        )
