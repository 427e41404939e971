"""What certified training over boxes of inputs shares: its options, and the worst of a box."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.options import at_least_zero, share
from contraction_nets.robustness.attacks.ball import as_domain
from contraction_nets.robustness.intervals import interval_margins
from contraction_nets.training.data import Dataset
from contraction_nets.training.objectives import Loss, Objective, refuse_values


class BoxObjective(Objective):
    """Cross-entropy at the worst in boxes, beside that at the inputs themselves.

    Subclasses are frozen dataclasses, which have these options among their own.

    Attributes
    ----------
    radii, shares : tuple of str
        Names of the options that are at least zero, and of those in [0, 1].
    clean_weight : float
        Weight of the plain cross-entropy at the end.
    domain : (float, float) or None
        Boxes are clipped to this interval of every input.
    """

    radii: ClassVar[tuple[str, ...]] = ("epsilon",)
    shares: ClassVar[tuple[str, ...]] = ("clean_weight", "ramp")
    clean_weight: float
    domain: tuple[float, float] | None

    def __post_init__(self) -> None:
        for option in self.radii:
            at_least_zero(getattr(self, option), option)
        for option in self.shares:
            share(getattr(self, option), option)
        if self.domain is not None:
            as_domain(self.domain)

    def check(self, data: Dataset) -> None:
        refuse_values(data, self.name)

    def worst_case(
        self,
        module: ImplicitNetwork,
        u: Tensor,
        y: Tensor,
        centre: Tensor,
        radius: Tensor | float,
        grown: float,
    ) -> Loss:
        """κ · CE(y, t) + (1 − κ) · CE(−m, t), with the margins m over the boxes (THEORY §7).

        Parameters
        ----------
        module : ImplicitNetwork
        u : (batch, p) tensor
            Inputs.
        y : (batch,) int64 tensor
            Labels.
        centre : (batch, p) tensor
            Of the boxes.
        radius : float or (batch, 1) tensor
            Of the boxes.
        grown : float
            Share of its end that what grows has reached: κ has fallen from 1 by as much.
        """
        lower, upper = centre - radius, centre + radius
        if self.domain is not None:
            lower, upper = lower.clamp(*self.domain), upper.clamp(*self.domain)
        output, margins = module(u), interval_margins(module, lower, upper, y)
        kappa = 1 - grown * (1 - self.clean_weight)
        value = kappa * functional.cross_entropy(output, y)
        value = value + (1 - kappa) * functional.cross_entropy(-margins, y)
        others = margins.detach().scatter(1, y[:, None], torch.inf)
        return Loss(value, output, {"interval_accuracy": (others > 0).all(dim=1).float().mean()})
