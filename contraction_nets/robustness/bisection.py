"""How far one sample is proved to keep its label, and how near an attack has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.robustness.attacks import Pgd, attack
from contraction_nets.robustness.attacks.ball import as_radius
from contraction_nets.robustness.ladder import verify_robustness
from contraction_nets.robustness.result import RUNGS


@dataclass(frozen=True, eq=False)
class RobustnessGap:
    """What is known of one sample at every ε.

    Attributes
    ----------
    input : (p,) array
    label : int
    certified : dict of str to float
        Rung → the largest ε, up to the resolution, that it proves; 0 where it proves none.
        Increasing: each rung has those before it.
    attacked : float
        ℓ∞ distance of the nearest input with another label that was found; inf without one.
    adversarial : (p,) array or None
        That input.
    adversarial_label : int or None
        What the network says of it.
    """

    input: NDArray[np.float64]
    label: int
    certified: dict[str, float]
    attacked: float
    adversarial: NDArray[np.float64] | None
    adversarial_label: int | None


def robustness_gap(
    network: ImplicitNetwork,
    x: Tensor,
    label: int,
    *,
    largest: float = 1.0,
    resolution: float = 1e-3,
    domain: tuple[float, float] | None = (0.0, 1.0),
    rungs: Sequence[str] = RUNGS,
    time_limit: float | None = 5.0,
    seed: int = 0,
) -> RobustnessGap:
    """Bisect ε for every rung of the ladder, and for PGD, on one sample.

    Parameters
    ----------
    network : ImplicitNetwork
    x : (p,) tensor
        One input.
    label : int
        Its right label, which the network should give it.
    largest : float
        The largest ε of interest, in input units.
    resolution : float
        Where bisection ends.
    domain : (float, float) or None
        Interval of every input.
    rungs : sequence of {"global", "interval", "lp", "milp"}
    time_limit : float or None
        Seconds for one rung at one ε.
    seed : int
        Of the attack.

    Returns
    -------
    RobustnessGap

    Raises
    ------
    ValueError
        A sample that is misclassified, or arguments that `attack` and `verify_robustness` refuse.
    NotWellPosedError
        Well-posedness of the network cannot be proved.
    """
    if not as_radius(resolution) > 0:
        raise ValueError(f"got resolution {resolution!r}, expected a positive number.")
    u, y = x.detach()[None], torch.tensor([label], device=x.device)
    with torch.no_grad():
        said = int(network(u).argmax())
    if said != label:
        raise ValueError(
            f"the network says {said} of the sample, expected its label {label}; take a sample "
            "that it gets right."
        )
    point = u.cpu().double().numpy()

    def proves(rung: str) -> Callable[[float], bool]:
        def certified(epsilon: float) -> bool:
            found = verify_robustness(
                network, point, [label], epsilon, method=rung, domain=domain, time_limit=time_limit
            )
            return found.verdicts[0].status == "certified"

        return certified

    search = Pgd(steps=20)
    nearest, adversarial, other = np.inf, None, None

    def holds(epsilon: float) -> bool:
        nonlocal nearest, adversarial, other
        found = attack(network, u, y, epsilon, method=search, domain=domain, seed=seed)
        if bool(found.success) and float(found.distances) < nearest:
            nearest, other = float(found.distances), int(found.labels)
            adversarial = found.inputs[0].cpu().double().numpy()
        return not bool(found.success)

    if not holds(largest):
        _largest_true(holds, 0.0, largest, resolution / 2)
    proved, known = {}, 0.0
    for rung in rungs:
        # No proof reaches an input with another label: it is not looked for there.
        if nearest > largest and (known == largest or proves(rung)(largest)):
            known = largest
        else:
            known = _largest_true(proves(rung), known, min(largest, nearest), resolution / 2)
        proved[rung] = known
    return RobustnessGap(point[0], label, proved, nearest, adversarial, other)


def _largest_true(
    statement: Callable[[float], bool], low: float, high: float, resolution: float
) -> float:
    """The largest ε found at which the statement is true; it is taken to be at low, not at high."""
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (middle, high) if statement(middle) else (low, middle)
    return low
