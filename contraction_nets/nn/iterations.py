"""Fixed-point iterations for x = φ(A x + s), as small objects under one loop (THEORY §6).

An iteration holds options only. `prepare` does what depends on A and φ alone, once; the
loop in `equilibrium` then alternates ``y = linear.affine(x, s)`` and ``x = advance(x, y)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from contraction_nets.nn.named import Named, parse
from contraction_nets.nn.operators import StateOperator


class Elementwise(Protocol):
    """What an iteration needs of φ."""

    def __call__(self, y: Tensor) -> Tensor: ...

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]: ...


@dataclass(frozen=True, eq=False)
class Prepared:
    """One iteration for one A and φ; `y` below is ``linear.affine(x, s)``.

    Attributes
    ----------
    linear : StateOperator
        A, or the part of it that the iteration applies explicitly.
    advance : callable
        (x, y) ↦ the next x; may overwrite y.
    image : callable
        (x, y) ↦ φ(A x + s), which equals x at the equilibrium and nowhere else.
    """

    linear: StateOperator
    advance: Callable[[Tensor, Tensor], Tensor]
    image: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Iteration(Named, ABC):
    """A way to the equilibrium."""

    @abstractmethod
    def prepare(self, operator: StateOperator, activation: Elementwise) -> Prepared:
        """The iteration for this A and φ."""


def get_iteration(spec: str | Iteration) -> Iteration:
    """The iteration that a spec such as "average" or "average(0.5)" describes.

    Raises
    ------
    ValueError
        No such iteration, or a parameter out of range.
    """
    return parse(Iteration, spec)


@dataclass(frozen=True)
class Picard(Iteration):
    """x ← φ(A x + s); converges where ‖A‖_{∞,η} < 1, which is more than well-posedness."""

    name: ClassVar[str] = "picard"

    def prepare(self, operator: StateOperator, activation: Elementwise) -> Prepared:
        def image(x: Tensor, y: Tensor) -> Tensor:
            return activation(y)

        return Prepared(operator, image, image)


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
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise ValueError(f"got average({self.alpha}), expected a step in (0, 1].")

    def prepare(self, operator: StateOperator, activation: Elementwise) -> Prepared:
        if self.alpha is None:
            alpha: Tensor | float = 1 / (1 - operator.diagonal.min().clamp_max(0))
        else:
            alpha = self.alpha

        def image(x: Tensor, y: Tensor) -> Tensor:
            return activation(y)

        def advance(x: Tensor, y: Tensor) -> Tensor:
            return x + alpha * (activation(y) - x)

        return Prepared(operator, advance, image)


@dataclass(frozen=True)
class DiagonalResolvent(Iteration):
    """x ← J(A_off x + s), with J_i(y) the solution of x_i = φ(A_ii x_i + y).

    Its factor max_i Σ_{j≠i} (η_j/η_i) |A_ij| / (1 − A_ii) is never worse than that of the
    average iteration.
    """

    name: ClassVar[str] = "diagonal_resolvent"

    def prepare(self, operator: StateOperator, activation: Elementwise) -> Prepared:
        diagonal = operator.diagonal
        resolvent = activation.resolvent_map(diagonal)

        def image(x: Tensor, y: Tensor) -> Tensor:
            return activation(y + diagonal * x)

        return Prepared(operator.without_diagonal(), lambda x, y: resolvent(y), image)
