"""The rungs that decide many samples at once: the inputs, global gains, intervals, an attack."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.robustness.attacks.pgd import Pgd
from contraction_nets.robustness.enclosure import Boxes, enclose
from contraction_nets.robustness.equation import Equation
from contraction_nets.robustness.margins import global_margins, margin_bounds, pairwise_gains
from contraction_nets.robustness.result import Verdict, not_decided
from contraction_nets.robustness.samples import Samples

Array = NDArray[np.float64]

_ATTACK = Pgd(steps=20, targets=3, random_start=False)
_TOLERANCE = 1e-6  # of the attacked equilibria; what the attack finds is confirmed


@dataclass(frozen=True, eq=False)
class OpenSample:
    """What the cheap rungs left open.

    Attributes
    ----------
    label : int
    boxes : Boxes
        Of this sample alone.
    inner_lower, inner_upper : (p,) arrays
        Inputs between them are in reach.
    margins : (q,) array
        Proved lower bounds of y_t − y_k.
    seconds : float
        Spent on it already.
    """

    label: int
    boxes: Boxes
    inner_lower: Array
    inner_upper: Array
    margins: Array
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class BatchRungs:
    """What all samples share.

    Attributes
    ----------
    equation : Equation
    gains : (q, q) array
        Of `pairwise_gains`.
    radius : float
        ε.
    last : str
        The last rung that is allowed.
    module : ImplicitNetwork or None
        In float64, to be attacked; None for weights that make no module.
    """

    equation: Equation
    gains: Array
    radius: float
    last: str
    module: ImplicitNetwork | None

    @classmethod
    def of(cls, weights: ImplicitWeights, radius: float, last: str) -> BatchRungs:
        """Those of a network.

        Raises
        ------
        NotWellPosedError
            Well-posedness cannot be proved.
        """
        equation, gains, module = Equation.of(weights), pairwise_gains(weights), None
        if last not in ("global", "interval"):
            module = weights.to_module().double()
            module.layer.tol = module.layer.backward_tol = _TOLERANCE
        return cls(equation, gains, radius, last, module)

    def decide(self, batch: Samples) -> tuple[list[Verdict], dict[int, OpenSample]]:
        """A verdict on every sample, and by its number what is open to the rungs that follow."""
        start = time.monotonic()
        found, margins = self._from_gains(batch)
        opened: dict[int, OpenSample] = {}
        rows = np.flatnonzero([verdict.status == "unknown" for verdict in found])
        if self.last != "global" and len(rows):
            boxes = enclose(self.equation, batch.lower[rows], batch.upper[rows])
            tighter = margin_bounds(self.equation, boxes, batch.labels[rows])[0]
            margins[rows] = np.fmax(margins[rows], tighter)
            margins[rows, batch.labels[rows]] = np.inf
            for row, i in enumerate(rows.tolist()):
                found[i] = self._from_intervals(float(margins[i].min()), bool(boxes.proved[row]))
                if found[i].status == "unknown" and not found[i].reason:
                    opened[i] = OpenSample(
                        label=int(batch.labels[i]),
                        boxes=boxes.take(slice(row, row + 1)),
                        inner_lower=batch.inner_lower[i],
                        inner_upper=batch.inner_upper[i],
                        margins=margins[i],
                    )
        for i, verdict in self._attacked(batch, found):
            found[i] = verdict
            opened.pop(i, None)
        share = (time.monotonic() - start) / max(len(batch), 1)
        found = [replace(verdict, seconds=share) for verdict in found]
        return found, {i: replace(sample, seconds=share) for i, sample in opened.items()}

    def _from_gains(self, batch: Samples) -> tuple[list[Verdict], Array]:
        """What inputs and global gains say, and lower bounds of margins (m, q), inf for k = t."""
        labels = batch.labels
        own = np.arange(len(batch)), labels
        boxes = enclose(self.equation, batch.inputs, batch.inputs)
        low, high = margin_bounds(self.equation, boxes, labels)
        margins = global_margins(low, self.gains, labels, self.radius)
        high[own] = margins[own] = np.inf
        found = []
        for inputs, worst, least in zip(
            batch.inputs, high.min(axis=1).tolist(), margins.min(axis=1).tolist(), strict=True
        ):
            if worst < 0:
                found.append(Verdict("falsified", "input", worst, 0.0, counterexample=inputs))
            elif least > 0:
                found.append(Verdict("certified", "global", least, 0.0))
            else:
                found.append(Verdict("unknown", "global", least, 0.0, not_decided("global")))
        return found, margins

    def _from_intervals(self, margin: float, boxed: bool) -> Verdict:
        """What a margin says; unknown without a reason where linear programs can go on."""
        if margin > 0:
            return Verdict("certified", "interval", margin, 0.0)
        reason = ""
        if not boxed:
            reason = "no box of states can be proved: sums leave the range of float64"
        elif self.last == "interval":
            reason = not_decided("interval")
        elif self.equation.slope is None:
            phi = self.equation.activation
            reason = f"linear programs need relu or leaky_relu, the network has {phi}"
        return Verdict("unknown", "interval", margin, 0.0, reason)

    def _attacked(self, batch: Samples, found: list[Verdict]) -> Iterator[tuple[int, Verdict]]:
        """Counterexamples of open samples that an attack finds, confirmed."""
        rows = np.flatnonzero([verdict.status == "unknown" for verdict in found])
        if self.module is None or not len(rows):
            return
        inputs, labels = torch.from_numpy(batch.inputs[rows]), torch.from_numpy(batch.labels[rows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of iterations and overflows: it is only an attempt
            reached = _ATTACK.perturb(self.module, inputs, labels, self.radius, None).numpy()
        for i, u in zip(rows.tolist(), reached, strict=True):
            inside = np.clip(u, batch.inner_lower[i], batch.inner_upper[i])
            margin = confirmed(self.equation, inside, int(batch.labels[i]))
            if margin < 0:
                yield i, Verdict("falsified", "attack", margin, 0.0, counterexample=inside)


def confirmed(equation: Equation, inputs: Array, label: int) -> float:
    """An upper bound of y_t − y_k at one input (p,) for the k where it is least.

    Below zero the label of the input is proved to be another one.
    """
    boxes = enclose(equation, inputs[None], inputs[None])
    if not boxes.proved[0]:
        return math.inf
    upper = margin_bounds(equation, boxes, np.array([label]))[1][0]
    return float(np.delete(upper, label).min())
