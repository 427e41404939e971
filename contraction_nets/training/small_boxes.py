"""Certified training that needs the ladder to verify: small boxes around attack points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.robustness.attacks import Pgd
from contraction_nets.training.boxes import BoxObjective
from contraction_nets.training.objectives import Loss, growth


@dataclass(frozen=True)
class SmallBoxes(BoxObjective):
    """Cross-entropy at the worst in small boxes around the result of an attack.

    An attack by `Pgd` looks for a bad point within (1 − fraction) ε of each input; around it, a
    box of radius fraction · ε is bounded as in `IntervalLoss`. The box is a part of the ball of
    radius ε, probably the worst part, and loose bounds matter less on it: accuracy is higher
    than with `IntervalLoss`, but it takes the linear programs and the exact search of
    `verify_robustness` to prove it. (Müller et al., Certified Training: Small Boxes are All You
    Need, ICLR 2023.)

    Parameters
    ----------
    epsilon : float
        ℓ∞ radius in input units (pixels in [0, 1]).
    fraction : float
        Radius of the boxes over ε, in [0, 1].
    clean_weight, ramp
        As in `IntervalLoss`.
    steps : int
        Of the attack; each takes a forward pass and its gradient.
    domain : (float, float) or None
        Boxes are clipped to this interval of every input; None for inputs without limits.

    Raises
    ------
    ValueError
        A number out of range.
    """

    epsilon: float
    fraction: float = 0.4
    clean_weight: float = 0.0
    ramp: float = 0.3
    steps: int = 8
    domain: tuple[float, float] | None = (0.0, 1.0)
    name: ClassVar[str] = "small_boxes"
    shares: ClassVar[tuple[str, ...]] = ("fraction", "clean_weight", "ramp")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._attack()  # refuses steps that are none

    def _attack(self) -> Pgd:
        return Pgd(steps=self.steps, targets=0, first_step=0.5, last_step=0.1)

    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        grown = growth(progress, self.ramp)
        epsilon = grown * self.epsilon
        reach, radius = epsilon * (1 - self.fraction), epsilon * self.fraction
        # The generator whose state checkpoints hold, whatever the device.
        generator = torch.default_generator
        centre = self._attack().perturb(module, u, y, reach, self.domain, generator)
        return self.worst_case(module, u, y, centre, radius, grown)
