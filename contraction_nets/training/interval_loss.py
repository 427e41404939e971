"""Certified training by interval bounds: the worst in boxes around the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.training.boxes import BoxObjective
from contraction_nets.training.objectives import Loss, growth


@dataclass(frozen=True)
class IntervalLoss(BoxObjective):
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
    radii: ClassVar[tuple[str, ...]] = ("epsilon", "tail_epsilon")
    shares: ClassVar[tuple[str, ...]] = ("clean_weight", "ramp", "tail_share")

    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        grown = growth(progress, self.ramp)
        # No larger than the dtype holds; the domain, where there is one, is smaller anyway.
        most = torch.finfo(u.dtype).max
        radius = u.new_full((len(u), 1), min(grown * self.epsilon, most))
        # Batches come shuffled: their first samples are as good as any drawn at random.
        radius[: round(self.tail_share * len(u))] = min(grown * self.tail_epsilon, most)
        return self.worst_case(module, u, y, u, radius, grown)
