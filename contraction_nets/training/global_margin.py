"""The objective that trains for certificates by global gains: margins against gain times ε."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.options import positive, share
from contraction_nets.nn.penalty import pairwise_gains
from contraction_nets.training.data import Dataset
from contraction_nets.training.objectives import Loss, Objective, growth, refuse_values


@dataclass(frozen=True)
class GlobalMargin(Objective):
    """Cross-entropy of the outputs at their worst within ε, by the global gains of class pairs.

    In a box of radius ε the output k can gain at most G_tk ε on that of the label t, with
    G_tk = |C_t − C_k|(I − M)⁻¹|B|1 + |D_t − D_k|1 (THEORY §4). So the loss is
    CE((y_k + G_tk ε)_k / temperature, t), or a relative of it (`power`), and where
    y_t − y_k > G_tk ε for all k, `certified_radii` certifies the sample at ε. metrics.jsonl has
    `global_accuracy`, the share of training samples of which that holds.

    A network with a Lipschitz budget cannot make its outputs larger to be surer of them: the
    temperature stands in for that. Without a budget outputs and gains find their scale together.

    Parameters
    ----------
    epsilon : float
        ℓ∞ radius in input units (pixels in [0, 1]).
    temperature : float
        Of the softmax, in output units; a hundredth of a Lipschitz budget is a start.
    power : float
        q in [0, 1] of the generalized cross-entropy (1 − pᵠ)/q of Zhang and Sabuncu (NeurIPS 2018),
        p being the probability of the label: the cross-entropy at q = 0, and the more samples
        out of reach are let go the larger q is. It grows as ε does.
    clean_weight : float
        Share, in [0, 1], of the cross-entropy without ε in the loss.
    ramp : float
        Share of the training, in [0, 1], over which ε grows from zero.

    Raises
    ------
    ValueError
        A number out of range.
    """

    epsilon: float
    temperature: float = 1.0
    power: float = 0.0
    clean_weight: float = 0.0
    ramp: float = 0.25
    name: ClassVar[str] = "global"

    def __post_init__(self) -> None:
        for option in ("epsilon", "temperature"):
            positive(getattr(self, option), option)
        for option in ("power", "clean_weight", "ramp"):
            share(getattr(self, option), option)

    def check(self, data: Dataset) -> None:
        refuse_values(data, self.name)

    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        output, gains = module(u), pairwise_gains(module)[y]
        grown = growth(progress, self.ramp)
        worst = output + grown * self.epsilon * gains
        value = _generalized(worst / self.temperature, y, grown * self.power)
        if self.clean_weight:
            clean = functional.cross_entropy(output / self.temperature, y)
            value = value + self.clean_weight * (clean - value)
        with torch.no_grad():
            others = (output + self.epsilon * gains).scatter(1, y[:, None], -torch.inf)
            certified = others.max(dim=1).values < output.gather(1, y[:, None])[:, 0]
        return Loss(value, output, {"global_accuracy": certified.float().mean()})


def _generalized(logits: Tensor, y: Tensor, q: float) -> Tensor:
    """Mean of (1 − pᵠ)/q over the batch, and its limit −log p at q = 0."""
    negative = functional.cross_entropy(logits, y, reduction="none")
    return (negative if q == 0 else -torch.expm1(-q * negative) / q).mean()
