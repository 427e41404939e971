"""The objectives of certified training by their names."""

from __future__ import annotations

from collections.abc import Callable

from contraction_nets.nn.options import at_least_zero
from contraction_nets.training.global_margin import GlobalMargin
from contraction_nets.training.interval_loss import IntervalLoss
from contraction_nets.training.objectives import Objective
from contraction_nets.training.small_boxes import SmallBoxes

Domain = tuple[float, float] | None

METHODS: dict[str, Callable[[float, Domain], Objective]] = {
    IntervalLoss.name: lambda epsilon, domain: IntervalLoss(epsilon, domain=domain),
    SmallBoxes.name: lambda epsilon, domain: SmallBoxes(epsilon, domain=domain),
    GlobalMargin.name: lambda epsilon, domain: GlobalMargin(epsilon),
}
"""From ε and the domain of the inputs to the objective with its defaults."""


def certified_objective(method: str, epsilon: float, domain: Domain) -> Objective | None:
    """The objective that trains for certificates at a radius, None at radius 0.

    Parameters
    ----------
    method : str
        A key of `METHODS`.
    epsilon : float
        ℓ∞ radius in input units (pixels in [0, 1]).
    domain : (float, float) or None
        The interval of every input.

    Raises
    ------
    ValueError
        No such method, a negative radius.
    """
    if method not in METHODS:
        raise ValueError(f"got the method {method!r}, expected one of {', '.join(METHODS)}.")
    if at_least_zero(epsilon, "certified epsilon") == 0:
        return None
    return METHODS[method](epsilon, domain)
