"""The loop that drives every iteration, and its measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from contraction_nets.nn.iterations.base import Prepared

FIRST_LOOK = 4
"""Steps before the residual is first measured; later ones follow the rate seen so far."""


@dataclass(frozen=True, eq=False)
class Solved:
    """What a loop ended with.

    Attributes
    ----------
    x : tensor
    steps : int
        Applications of A.
    residual : float
        max |x − φ(A x + s)|, at this x.
    converged : bool
        Whether the residual is at most tol · max |x|.
    factorizations : int
        Matrices factored on the way.
    """

    x: Tensor
    steps: int
    residual: float
    converged: bool
    factorizations: int = 0


def run(prepared: Prepared, tol: float, max_steps: int) -> Solved:
    """Advance until the residual meets the tolerance, is not finite, or the steps are spent."""
    x = prepared.start()
    steps, look, seen = 0, min(FIRST_LOOK, prepared.stride, max_steps), None
    while True:
        y = prepared.apply(x)
        steps += 1
        if steps >= look:
            point, image = prepared.measured(x, y)
            residual, scale = largest(point - image), largest(point)
            converged = residual <= tol * scale
            if converged or steps >= max_steps or not math.isfinite(residual):
                return Solved(point, steps, residual, converged, prepared.factorizations)
            look = next_look(seen or (0, scale), (steps, residual), tol * scale)
            look, seen = min(look, steps + prepared.stride, max_steps), (steps, residual)
        x = prepared.advance(x, y)


def largest(x: Tensor) -> float:
    """max |x|, zero where x is empty and NaN where an entry is."""
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x)
    if x.device.type != "cpu":  # one transfer instead of two
        low, high = torch.stack([low, high]).cpu()
    return max(-float(low), float(high))


def next_look(before: tuple[int, float], now: tuple[int, float], target: float) -> int:
    """The step at which the rate between two measurements reaches the target.

    Never more than as far again as what is behind, in case the rate misleads; where nothing
    has fallen since the measurement before, twice as far as it lies back.
    """
    steps, left = now[0], steps_left(before, now, target)
    ahead = 2 * (steps - before[0]) if math.isinf(left) else max(1, math.ceil(left))
    return steps + min(steps, ahead)


def steps_left(before: tuple[int, float], now: tuple[int, float], target: float) -> float:
    """Steps to the target at the rate between two measurements, inf where there is none."""
    (start, high), (steps, low) = before, now
    if not (0 < low < high < math.inf) or target <= 0:
        return math.inf
    return math.log(low / target) * (steps - start) / math.log(high / low)
