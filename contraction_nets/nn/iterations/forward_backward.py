"""Forward-backward splitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared
from contraction_nets.nn.operators import StateOperator
from contraction_nets.nn.options import is_number


@dataclass(frozen=True)
class ForwardBackward(Iteration):
    """x ← J_α(x − α (x − A x − s)), with J_α(v) the solution of x = φ((v − (1 − α) x) / α).

    [MON], Algorithm 1; in the norm of well-posedness its factor is 1 − α (1 − μ_{∞,η}(A)) for
    every α up to the default ([JMLR]: J_α has slopes in [0, 1], and I − α (I − A) has no
    negative diagonal entry). At α = 1 it is Picard.

    Parameters
    ----------
    alpha : float, optional
        Positive step; by default 1 / (1 − min_i A_ii), the largest that contracts for every
        well-posed A.
    """

    alpha: float | None = None
    name: ClassVar[str] = "forward_backward"

    def __post_init__(self) -> None:
        if self.alpha is not None:
            positive_step(self.alpha, self.name)

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Prepared:
        return _ForwardBackward(operator, activation, s, splitting_step(self.alpha, operator))


def positive_step(alpha: float, name: str) -> None:
    """Refuse a step that is not positive and finite."""
    if not is_number(alpha) or not 0 < alpha < float("inf"):
        raise ValueError(f"got {name}({alpha!r:.60}), expected a positive step.")


def splitting_step(alpha: float | None, operator: StateOperator) -> Tensor:
    """α, or by default 1 / (1 − min_i A_ii)."""
    least = operator.diagonal.min()
    return 1 / (1 - least) if alpha is None else least.new_tensor(alpha)


class _ForwardBackward(Prepared):
    def __init__(
        self, linear: StateOperator, activation: Elementwise, s: Tensor, alpha: Tensor
    ) -> None:
        super().__init__(linear, s)
        self.activation, self.alpha = activation, alpha
        # (v − (1 − α) x) / α = a x + v / α
        self._resolvent = activation.resolvent_map((alpha - 1) / alpha)
        self._keep = (1 - alpha) / alpha

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        # v / α = (x − α (x − y)) / α
        return self._resolvent(y.add_(self._keep * x))

    def image(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(y)
