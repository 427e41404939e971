"""Certified training by interval bounds: the worst in boxes around the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.robustness.attacks.ball import as_domain
from contraction_nets.robustness.intervals import interval_margins
from contraction_nets.training.data import Dataset
from contraction_nets.training.objectives import (
    Loss,
    Objective,
    at_least_zero,
    growth,
    refuse_values,
    share,
)


@dataclass(frozen=True)
class IntervalLoss(Objective):
    """Cross-entropy at the worst in boxes around the inputs, beside that at the inputs themselves.

    κ · CE(y, t) + (1 − κ) · CE(−m, t) with the `interval_margins` m over the box of radius ε
    around the input. Over the first part of the training ε grows from 0 and κ falls from 1, both
    linearly. metrics.jsonl has `interval_accuracy`, the share of training samples whose margins
    over their boxes are positive, at the ε of the moment.

    Parameters
    ----------
    epsilon : float
        ℓ∞ radius in input units (pixels in [0, 1]).
    clean_weight : float
        κ at the end, in [0, 1].
    ramp : float
        Share of the training, in [0, 1], after which ε and κ are what they stay.
    tail_epsilon, tail_share : float
        A share of every batch has boxes of another, larger radius, so that accuracy falls off
        slowly beyond ε; none by default.
    domain : (float, float) or None
        Boxes are clipped to this interval of every input; None for inputs without limits.

    Raises
    ------
    ValueError
        A number out of range.
    """

    epsilon: float
    clean_weight: float = 0.35
    ramp: float = 0.3
    tail_epsilon: float = 0.0
    tail_share: float = 0.0
    domain: tuple[float, float] | None = (0.0, 1.0)
    name: ClassVar[str] = "interval"

    def __post_init__(self) -> None:
        for option in ("epsilon", "tail_epsilon"):
            at_least_zero(getattr(self, option), option)
        for option in ("clean_weight", "ramp", "tail_share"):
            share(getattr(self, option), option)
        if self.domain is not None:
            as_domain(self.domain)

    def check(self, data: Dataset) -> None:
        refuse_values(data, self.name)

    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        grown = growth(progress, self.ramp)
        kappa = 1 - grown * (1 - self.clean_weight)
        # No larger than the dtype holds; the domain, where there is one, is smaller anyway.
        most = torch.finfo(u.dtype).max
        radius = u.new_full((len(u), 1), min(grown * self.epsilon, most))
        # Batches come shuffled: their first samples are as good as any drawn at random.
        radius[: round(self.tail_share * len(u))] = min(grown * self.tail_epsilon, most)
        lower, upper = clipped(u - radius, u + radius, self.domain)
        return worst_case(module, u, y, lower, upper, kappa)


def worst_case(
    module: ImplicitNetwork, u: Tensor, y: Tensor, lower: Tensor, upper: Tensor, kappa: float
) -> Loss:
    """κ times the plain cross-entropy, and 1 − κ times that at the worst of the boxes."""
    output = module(u)
    margins = interval_margins(module, lower, upper, y)
    value = kappa * functional.cross_entropy(output, y)
    value = value + (1 - kappa) * functional.cross_entropy(-margins, y)
    others = margins.detach().scatter(1, y[:, None], torch.inf)
    return Loss(value, output, {"interval_accuracy": (others > 0).all(dim=1).float().mean()})


def clipped(
    lower: Tensor, upper: Tensor, domain: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """The corners of boxes within the domain of the inputs."""
    return (lower, upper) if domain is None else (lower.clamp(*domain), upper.clamp(*domain))
