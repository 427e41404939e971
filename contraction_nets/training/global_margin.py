"""The objective that trains for certificates by global gains: margins against gain times ε."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.penalty import pairwise_gains
from contraction_nets.training.data import Dataset
from contraction_nets.training.objectives import Loss, Objective, growth, refuse_values, share


@dataclass(frozen=True)
class GlobalMargin(Objective):
    """Cross-entropy of the outputs at their worst within ε, by the global gains of class pairs.

    In a box of radius ε the output k can gain at most G_tk ε on that of the label t, with
    G_tk = |C_t − C_k|(I − M)⁻¹|B|1 + |D_t − D_k|1 (THEORY §4). So the loss is
    CE((y_k + G_tk ε)_k / temperature, t), and where y_t − y_k > G_tk ε for all k, `certified_radii`
    certifies the sample at ε. metrics.jsonl has `global_accuracy`, the share of training samples
    of which that holds.

    A network with a Lipschitz budget cannot make its outputs larger to be surer of them: the
    temperature stands in for that. Without a budget outputs and gains find their scale together.

    Parameters
    ----------
    epsilon : float
        ℓ∞ radius in input units (pixels in [0, 1]).
    temperature : float
        Of the softmax, in output units; about a fiftieth of a Lipschitz budget does well.
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
    clean_weight: float = 0.0
    ramp: float = 0.25
    name: ClassVar[str] = "global"

    def __post_init__(self) -> None:
        for option in ("epsilon", "temperature"):
            value = getattr(self, option)
            if not 0 < value < math.inf:
                raise ValueError(f"got {option} = {value!r}, expected a positive number.")
        for option in ("clean_weight", "ramp"):
            share(getattr(self, option), option)

    def check(self, data: Dataset) -> None:
        refuse_values(data, self.name)

    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        output, gains = module(u), pairwise_gains(module)[y]
        worst = output + growth(progress, self.ramp) * self.epsilon * gains
        value = functional.cross_entropy(worst / self.temperature, y)
        if self.clean_weight:
            clean = functional.cross_entropy(output / self.temperature, y)
            value = value + self.clean_weight * (clean - value)
        with torch.no_grad():
            others = (output + self.epsilon * gains).scatter(1, y[:, None], -torch.inf)
            certified = others.max(dim=1).values < output.gather(1, y[:, None])[:, 0]
        return Loss(value, output, {"global_accuracy": certified.float().mean()})
