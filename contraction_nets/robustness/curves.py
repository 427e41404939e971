"""Accuracy over ε: what attacks leave, and what is proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.robustness.attacks import Attack, Pgd, attack, get_attack
from contraction_nets.robustness.attacks.ball import as_radius
from contraction_nets.robustness.ladder import verify_robustness

Array = NDArray[np.float64]

ATTACKS = ("noise", "inversion", "fgsm", "pgd")
PROOFS = ("global", "interval", "ladder")


@dataclass(frozen=True, eq=False)
class AccuracyCurves:
    """Shares of samples at every ε, in [0, 1].

    Attributes
    ----------
    radii : (k,) array
        ε, increasing, in input units.
    clean : float
        Accuracy without any perturbation.
    attacked : dict of str to (k,) array
        Attack → accuracy under it: an upper bound of the accuracy within ε.
    certified : dict of str to (k,) array
        "global", "interval" or "ladder" → share that is right and proved to stay so: a lower
        bound of the accuracy within ε.
    samples : int
    ladder_samples : int
        The first samples, of which "ladder" is the share; all of the others are of all samples.
    """

    radii: Array
    clean: float
    attacked: dict[str, Array]
    certified: dict[str, Array]
    samples: int
    ladder_samples: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "epsilon": self.radii.tolist(),
            "clean": self.clean,
            "attacked": {name: values.tolist() for name, values in self.attacked.items()},
            "certified": {name: values.tolist() for name, values in self.certified.items()},
            "samples": self.samples,
            "ladder_samples": self.ladder_samples,
        }


def accuracy_curves(
    network: ImplicitNetwork,
    x: Tensor,
    y: Tensor,
    radii: Sequence[float],
    *,
    domain: tuple[float, float] | None = (0.0, 1.0),
    attacks: Sequence[str | Attack] = ATTACKS,
    proofs: Sequence[str] = PROOFS,
    ladder_samples: int | None = None,
    time_limit: float | None = 10.0,
    n_jobs: int = 1,
    seed: int = 0,
    on_step: Callable[[int, int], object] | None = None,
) -> AccuracyCurves:
    """Accuracy of a network at every ε, under attacks and by certificates.

    Parameters
    ----------
    network : ImplicitNetwork
    x : (m, p) tensor
        Inputs within the domain.
    y : (m,) integer tensor
        Their labels.
    radii : sequence of float
        ε in input units; sorted here.
    domain : (float, float) or None
        Interval of every input.
    attacks : sequence of str or Attack
    proofs : sequence of {"global", "interval", "ladder"}
    ladder_samples : int, optional
        How many of the first samples go up the whole ladder; all by default.
    time_limit : float or None
        Seconds of the ladder for one sample and ε.
    n_jobs : int
        Processes for the ladder.
    seed : int
        Of the attacks.
    on_step : callable, optional
        Called with the curves' points done and all of them.

    Returns
    -------
    AccuracyCurves

    Raises
    ------
    ValueError
        As `attack` and `verify_robustness`; no radius, or an unknown proof.
    NotWellPosedError
        Well-posedness of the network cannot be proved.
    """
    sizes = sorted(as_radius(radius) for radius in radii)
    chosen = [get_attack(method) for method in attacks]
    unknown = set(proofs) - set(PROOFS)
    if not sizes or unknown:
        raise ValueError(
            f"got {len(sizes)} radii and the proofs {', '.join(proofs)}, expected at least one "
            f"radius, and proofs of {', '.join(PROOFS)}."
        )
    count = len(x) if ladder_samples is None else min(ladder_samples, len(x))
    with torch.no_grad():
        right = network(x).argmax(dim=1) == y
    held = {method: right.clone() for method in chosen}
    proved = {name: right[: count if name == "ladder" else None].clone() for name in proofs}
    attacked: dict[str, list[float]] = {method.name: [] for method in chosen}
    certified: dict[str, list[float]] = {name: [] for name in proofs}
    total, done = len(sizes) * (len(chosen) + len(proofs)), 0
    for epsilon in sizes:
        for method in chosen:
            # What a search found within less is within ε, too; the others are what they are.
            left = held[method] if isinstance(method, Pgd) else right
            held[method] = _resists(network, x, y, epsilon, left, method, domain, seed)
            attacked[method.name].append(_share(held[method]))
            done += 1
            if on_step is not None:
                on_step(done, total)
        for name in proofs:
            # Nothing that is not proved within less can be proved within ε.
            mask = proved[name]
            rows = mask.nonzero()[:, 0]
            if len(rows):
                found = verify_robustness(
                    network,
                    x[rows].detach().cpu().double().numpy(),
                    y[rows].cpu().numpy(),
                    epsilon,
                    method="auto" if name == "ladder" else name,
                    domain=domain,
                    time_limit=time_limit,
                    n_jobs=n_jobs,
                )
                sure = [verdict.status == "certified" for verdict in found.verdicts]
                mask[rows] = torch.tensor(sure, device=mask.device)
            certified[name].append(_share(mask))
            done += 1
            if on_step is not None:
                on_step(done, total)
    return AccuracyCurves(
        np.array(sizes),
        _share(right),
        {name: np.array(values) for name, values in attacked.items()},
        {name: np.array(values) for name, values in certified.items()},
        len(x),
        count,
    )


def _resists(
    network: ImplicitNetwork,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    left: Tensor,
    method: Attack,
    domain: tuple[float, float] | None,
    seed: int,
) -> Tensor:
    """Which of the samples that are left keep their label."""
    mask = left.clone()
    rows = left.nonzero()[:, 0]
    if len(rows):
        found = attack(network, x[rows], y[rows], epsilon, method=method, domain=domain, seed=seed)
        mask[rows] = ~found.success
    return mask


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)
