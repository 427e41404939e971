"""One step along the sign of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.robustness.attacks.ball import ball
from contraction_nets.robustness.attacks.base import Attack, Domain, Module, input_gradient


@dataclass(frozen=True)
class Fgsm(Attack):
    """u + ε sign(∇ cross-entropy) (Goodfellow et al., 2015).

    The gradient of the cross-entropy is 1 − p_label times that of Σ r_k y_k − y_label, r being
    the softmax over the other classes. The latter is taken: it has the same sign, and does not
    vanish in floating point where the network is certain.
    """

    name: ClassVar[str] = "fgsm"

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

        def objective(output: Tensor) -> Tensor:
            others = output.detach().scatter(1, y[:, None], -torch.inf).softmax(dim=1)
            return (others * output).sum(dim=1) - output.gather(1, y[:, None])[:, 0]

        _, gradient = input_gradient(module, u, objective)
        # The corners of the ball are u ± ε rounded towards u.
        return torch.where(gradient > 0, upper, torch.where(gradient < 0, lower, u.detach()))
