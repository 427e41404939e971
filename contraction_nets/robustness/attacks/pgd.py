"""Projected gradient ascent, towards every other class in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.options import positive, whole
from contraction_nets.robustness.attacks.ball import ball
from contraction_nets.robustness.attacks.base import (
    Attack,
    Domain,
    Module,
    advantages,
    input_gradient,
    uniform,
)


@dataclass(frozen=True)
class Pgd(Attack):
    """Signed gradient steps in the ℓ∞ ball (Madry et al., 2018) on differences of outputs.

    A run climbs y_k − y_label for one other class k. Runs for each of the other classes find
    what one run on the largest difference misses: that one turns to whichever class is in front
    at the moment. An input whose label is lost needs no further run, so that the cost is that of
    the inputs which hold.

    Parameters
    ----------
    steps : int
        Of a run; each is a forward pass and its gradient.
    restarts : int
        How often all runs are repeated, each from its own random start.
    targets : int or None
        Other classes that get a run of their own, the nearest first; all by default. With 0
        there is one run, on the largest difference: cheap, for use in training.
    first_step, last_step : float
        Size of the first and the last step over ε; those between decay geometrically.
    random_start : bool
        Start anywhere in the ball instead of in its centre.

    Raises
    ------
    ValueError
        A number out of range.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 40
    restarts: int = 1
    targets: int | None = None
    first_step: float = 2.0
    last_step: float = 0.02
    random_start: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            object.__setattr__(self, name, whole(getattr(self, name), name))
        for name in ("first_step", "last_step"):
            positive(getattr(self, name), name)
        if self.targets is not None and not (self.targets == 0 or whole(self.targets, "targets")):
            raise ValueError(f"got targets {self.targets}, expected a whole number of at least 0.")

    def perturb(
        self,
        module: Module,
        u: Tensor,
        y: Tensor,
        epsilon: float,
        domain: Domain = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        lower, upper = ball(u, epsilon, domain)
        with torch.no_grad():
            output = module(u)
        worst, reached = u.detach().clone(), advantages(output, y)
        for goal in self._goals(output, y) * self.restarts:
            held = (reached <= 0).nonzero()[:, 0]
            if not len(held):
                break
            aim = None if goal is None else goal[held]
            box = lower[held], upper[held]
            v, value = self._climb(module, u[held], y[held], aim, epsilon, box, generator)
            better = value > reached[held]
            worst[held[better]], reached[held[better]] = v[better], value[better]
        return worst

    def _goals(self, output: Tensor, y: Tensor) -> list[Tensor | None]:
        """What each run climbs towards: the class in front, then others, the nearest first."""
        others = output.shape[1] - 1
        count = others if self.targets is None else min(self.targets, others)
        if others < 2 or not count:
            return [None]
        ranked = output.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True)
        return [None, *ranked[:, :count].unbind(dim=1)]

    def _climb(
        self,
        module: Module,
        u: Tensor,
        y: Tensor,
        aim: Tensor | None,
        epsilon: float,
        box: tuple[Tensor, Tensor],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """The best point on the way of one run, and how far another output is in front there."""

        def objective(output: Tensor) -> Tensor:
            if aim is None:
                return advantages(output, y)
            return (output.gather(1, aim[:, None]) - output.gather(1, y[:, None]))[:, 0]

        v = u.detach()
        if self.random_start:
            v = torch.clamp(v + epsilon * uniform(v, generator), *box)
        best, reached = v, torch.full_like(v.flatten(1)[:, 0], -torch.inf)
        for size in [*self._sizes(epsilon), None]:
            if size is None:
                with torch.no_grad():
                    output = module(v)
            else:
                output, gradient = input_gradient(module, v, objective)
            value = advantages(output, y).to(reached)
            better = value > reached
            reached = torch.where(better, value, reached)
            best = torch.where(better.reshape(-1, *[1] * (v.ndim - 1)), v, best)
            if size is not None:
                v = torch.clamp(v + size * gradient.sign(), *box)
        return best, reached

    def _sizes(self, epsilon: float) -> list[float]:
        ratio = (self.last_step / self.first_step) ** (1 / max(self.steps - 1, 1))
        return [epsilon * self.first_step * ratio**k for k in range(self.steps)]
