"""What every iteration for x = φ(A x + s) shares (THEORY §6).

An iteration holds options only. `prepare` makes what is at work on one batch, and may
remember its past; the loop then alternates ``y = prepared.apply(x)`` and
``x = prepared.advance(x, y)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from contraction_nets.nn.iterations.loop import Solved, run
from contraction_nets.nn.named import Named, parse
from contraction_nets.nn.operators import Dense, StateOperator


class Elementwise(Protocol):
    """What an iteration needs of φ.

    Attributes
    ----------
    linear : (batch, ...) tensor, or None
        The factors of a φ that multiplies with them, None for all others.
    homogeneous : bool
        Whether φ is one function with φ(g y) = g φ(y) for every g > 0 and x = φ(a x + s) where
        x = φ(s / (1 − a)).
    """

    @property
    def linear(self) -> Tensor | None: ...

    @property
    def homogeneous(self) -> bool: ...

    def __call__(self, y: Tensor) -> Tensor: ...

    def slope(self, y: Tensor) -> Tensor: ...

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]: ...

    def take(self, rows: Tensor) -> Elementwise: ...


class Prepared(ABC):
    """One iteration at work on one batch; `y` below is what `apply` made of x.

    Parameters
    ----------
    linear : StateOperator
        A, or the part of it that the iteration applies explicitly.
    s : (batch, ...) tensor
        The constant of ``x = φ(A x + s)``.

    Attributes
    ----------
    stride : int
        Most steps between two measurements of the residual, where its rate says little.
    factorizations : int
        Matrices factored so far.
    """

    stride = 2**31
    factorizations = 0

    def __init__(self, linear: StateOperator, s: Tensor) -> None:
        self.linear, self.s = linear.repeated(len(s)), s

    def start(self) -> Tensor:
        """The first x, that of a step from zero: it needs no product, because A 0 = 0."""
        return self.advance(torch.zeros_like(self.s), self.s.clone())

    def apply(self, x: Tensor) -> Tensor:
        """One application of the linear part, and s."""
        return self.linear.affine(x, self.s)

    @abstractmethod
    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        """The next x; may overwrite y."""

    @abstractmethod
    def image(self, x: Tensor, y: Tensor) -> Tensor:
        """φ(A x + s), which equals x at the equilibrium and nowhere else."""

    def measured(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The state p that x stands for, and φ(A p + s); p is x, but in other variables."""
        return x, self.image(x, y)


@dataclass(frozen=True)
class Iteration(Named, ABC):
    """A way to the equilibrium.

    Attributes
    ----------
    needs_matrix : bool
        Whether it factors A, which then must be `Dense`.
    """

    needs_matrix: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Prepared:
        """This iteration for this A and φ, and for the samples of s."""

    def solve(
        self,
        operator: StateOperator,
        activation: Elementwise,
        s: Tensor,
        tol: float,
        max_steps: int,
    ) -> Solved:
        """Iterate from x = 0 until max |x − φ(A x + s)| ≤ tol · max |x|."""
        self.check(type(operator))
        return run(self.prepare(operator, activation, s), tol, max_steps)

    def check(self, kind: type[StateOperator]) -> None:
        """Refuse a kind of operator that this iteration has no way to factor.

        Raises
        ------
        ValueError
            The iteration factors A, and A is not dense.
        """
        if self.needs_matrix and not issubclass(kind, Dense):
            raise ValueError(
                f"got iteration '{self}' for a {kind.__name__.lower()} state matrix, expected a "
                "dense one, which it can factor; take 'anderson' or 'diagonal_resolvent'."
            )


def get_iteration(spec: str | Iteration) -> Iteration:
    """The iteration that a spec such as "average" or "average(0.5)" describes.

    Raises
    ------
    ValueError
        No such iteration, or a parameter out of range.
    """
    return parse(Iteration, spec)
