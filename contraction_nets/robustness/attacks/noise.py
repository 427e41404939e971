"""Uniform additive noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.options import whole
from contraction_nets.robustness.attacks.ball import ball
from contraction_nets.robustness.attacks.base import Attack, Domain, Module, advantages, uniform


@dataclass(frozen=True)
class Noise(Attack):
    """u + ε r with r uniform in [−1, 1), clipped to the domain; the worst of several draws.

    Parameters
    ----------
    draws : int
        Draws for each input; the one where another output comes highest above the label is kept.
    """

    name: ClassVar[str] = "noise"
    draws: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", whole(self.draws, "draws"))

    @torch.no_grad()
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
        worst, highest = u.detach().clone(), u.new_full(u.shape[:1], -torch.inf)
        for _ in range(self.draws):
            v = torch.clamp(u + epsilon * uniform(u, generator), lower, upper)
            reached = advantages(module(v), y).to(highest)
            better = reached > highest
            worst[better], highest[better] = v[better], reached[better]
        return worst
