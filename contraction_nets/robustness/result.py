"""What `verify_robustness` finds out, sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATUSES = ("certified", "falsified", "unknown")
RUNGS = ("global", "interval", "lp", "milp")
"""Of the ladder, from the cheapest to the exact one."""
DECIDED_BY = ("input", RUNGS[0], RUNGS[1], "attack", *RUNGS[2:])
"""What may decide a sample: beside the rungs the input itself, and an attack on it."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is known of one sample.

    Attributes
    ----------
    status : {"certified", "falsified", "unknown"}
        Certified: the output of the label is the largest for every input in reach, proved.
        Falsified: the counterexample has another label, proved as well.
    rung : str
        One of `DECIDED_BY`: what decided it, or for an unknown sample the last thing tried;
        "input" where the input itself has another label.
    margin : float
        In output units. Certified: a lower bound of y_t − y_k for all inputs in reach and all
        k ≠ t, above zero. Falsified: an upper bound of y_t − y_k at the counterexample for the
        largest y_k, below zero. Unknown: the lower bound so far, maybe −inf.
    seconds : float
        Spent on this sample; of what is done for many at once, its share.
    reason : str
        Why the sample is unknown, else empty.
    counterexample : (p,) array or None
        An input in reach with another label, for falsified samples.
    """

    status: str
    rung: str
    margin: float
    seconds: float
    reason: str = ""
    counterexample: NDArray[np.float64] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON: null for a margin that is infinite; without the counterexample."""
        return {
            "status": self.status,
            "rung": self.rung,
            "margin": self.margin if math.isfinite(self.margin) else None,
            "seconds": self.seconds,
            "reason": self.reason,
        }


@dataclass(frozen=True, eq=False)
class RobustnessResult:
    """The verdicts on m samples.

    Attributes
    ----------
    epsilon : float
        ℓ∞ distance in reach, in input units.
    method : str
        The last rung that was allowed.
    domain : (float, float) or None
        Interval that inputs stay in.
    verdicts : tuple of Verdict
        In the order of the samples.
    """

    epsilon: float
    method: str
    domain: tuple[float, float] | None
    verdicts: tuple[Verdict, ...]

    @property
    def certified(self) -> NDArray[np.bool_]:
        """Which samples are proved to keep their label, (m,)."""
        return self._are("certified")

    @property
    def falsified(self) -> NDArray[np.bool_]:
        """Which samples have a confirmed counterexample, or are misclassified, (m,)."""
        return self._are("falsified")

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Which samples are undecided, (m,)."""
        return self._are("unknown")

    @property
    def margins(self) -> NDArray[np.float64]:
        """Margin of every sample, see `Verdict`, (m,)."""
        return np.array([verdict.margin for verdict in self.verdicts])

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Time spent on every sample, (m,)."""
        return np.array([verdict.seconds for verdict in self.verdicts])

    def counts(self) -> dict[str, int]:
        """Number of samples by status."""
        return {name: int(self._are(name).sum()) for name in STATUSES}

    def decided_by(self) -> dict[str, dict[str, int]]:
        """Number of samples by status and by what decided it; only what there is."""
        counted: dict[str, dict[str, int]] = {name: {} for name in STATUSES}
        for verdict in self.verdicts:
            found = counted[verdict.status]
            found[verdict.rung] = found.get(verdict.rung, 0) + 1
        return counted

    def _are(self, status: str) -> NDArray[np.bool_]:
        return np.array([verdict.status == status for verdict in self.verdicts], np.bool_)


def not_decided(rung: str) -> str:
    """The reason of a sample that the last rung allowed leaves open."""
    return f"not decided by the rung {rung}, the last one asked for"
