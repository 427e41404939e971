"""What every attack shares: options only, and one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contraction_nets.nn.named import Named, parse

Module = Callable[[Tensor], Tensor]
"""Anything from a batch of inputs to its outputs (batch, q)."""
Domain = tuple[float, float] | None
"""The interval of every input, or None where inputs are not bounded."""


@dataclass(frozen=True)
class Attack(Named, ABC):
    """An attack on labels within an ℓ∞ ball; its options are its fields.

    Attributes
    ----------
    name : str
        What `method=` calls it.
    """

    @abstractmethod
    def perturb(
        self,
        module: Module,
        u: Tensor,
        y: Tensor,
        epsilon: float,
        domain: Domain = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The worst inputs that the attack finds, in the ball and the domain exactly.

        Nothing of the module is changed: not its mode, not its parameters, not their gradients.
        It is attacked in the mode that it is in.

        Parameters
        ----------
        module : callable
            From inputs (batch, …) to outputs (batch, q).
        u : (batch, …) float32 or float64 tensor
            Within the domain.
        y : (batch,) int64 tensor
            The labels that should be lost.
        epsilon : float
            ℓ∞ radius, in input units.
        domain : (float, float) or None
            Interval of every input; inputs are not bounded without one.
        generator : torch.Generator, optional
            Of everything random; torch's global one by default.

        Returns
        -------
        (batch, …) tensor
            In the dtype of `u`, without a graph.

        Raises
        ------
        ValueError
            As `ball`.
        """


def get_attack(method: str | Attack) -> Attack:
    """The attack of this name, with its defaults; objects pass through.

    Raises
    ------
    ValueError
        No such attack.
    """
    return parse(Attack, method)  # type: ignore[type-abstract]


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in [−1, 1) in the shape of a tensor, drawn where the generator is."""
    device = like.device if generator is None else generator.device
    drawn = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=device)
    return 2 * drawn.to(like.device) - 1


def advantages(output: Tensor, y: Tensor) -> Tensor:
    """How far the best other output is above that of the label, (batch,): positive where lost."""
    label = output.gather(1, y[:, None])
    others = output.scatter(1, y[:, None], -torch.inf)
    return others.amax(dim=1) - label[:, 0]


def input_gradient(
    module: Module, u: Tensor, objective: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Outputs for u, and the gradient in u of the sum of an objective of the outputs."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        output = module(u)
        # Not backward(): that would add to the gradients of the parameters.
        (gradient,) = torch.autograd.grad(objective(output).sum(), u)
    return output.detach(), gradient
