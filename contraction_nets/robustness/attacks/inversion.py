"""Continuous image inversion: an attack that looks at no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.robustness.attacks.ball import as_domain, ball
from contraction_nets.robustness.attacks.base import Attack, Domain, Module


@dataclass(frozen=True)
class Inversion(Attack):
    """Every pixel moves by at most ε towards its negative, as far as that: u + clip(1 − 2u, ±ε).

    After the continuous image inversion of the experiments in [NEMON], on pixels in [0, 1]; the
    definition is ours: at ε = 1 the image is its negative 1 − u, at a smaller ε on the way there,
    and a pixel of 1/2 stays what it is. The negative of an input in [low, high] is low + high − u.
    """

    name: ClassVar[str] = "inversion"

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
        if domain is None:
            raise ValueError(
                "got no domain, expected that of the pixels, such as (0, 1): the negative of an "
                "input is a mirror image in it."
            )
        low, high = as_domain(domain)
        return torch.clamp((low + high) - u.detach(), lower, upper)
