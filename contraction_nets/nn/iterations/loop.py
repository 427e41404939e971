"""The loop that drives every iteration, and its measurements."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from contraction_nets.nn.iterations.base import Prepared

FIRST_LOOK = 4
"""Steps before the residual is first measured; later ones follow the rate seen so far."""
NEAR = 20
"""Steps left that are not worth a thought, where no more is said."""
PAST = 5
"""Iterates that are remembered: a jump of reduced rank 4 starts from as many."""
_SMALL = 1000
"""Numbers in a state and its batch up to which a measurement costs as much as several steps."""


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


@dataclass(frozen=True, eq=False)
class Look:
    """What a measurement has shown.

    Attributes
    ----------
    x, y : (batch, ...) tensors
        The point, and what `apply` makes of it.
    moved : tensor
        x − φ(A x + s).
    past : deque of tensors
        The last points before, up to `PAST` of them.
    since, now : (int, float)
        Steps and residual of the last measurement, or of the beginning, and of this one.
    scale : float
        max |x|.
    """

    x: Tensor
    y: Tensor
    moved: Tensor
    past: deque[Tensor]
    since: tuple[int, float]
    now: tuple[int, float]
    scale: float


Successor = Callable[[Look], Solved]
"""What goes on from there to the end."""


def run(
    prepared: Prepared,
    tol: float,
    max_steps: int,
    successor: Successor | None = None,
    near: int = NEAR,
) -> Solved:
    """Advance until the residual meets the tolerance, is not finite, or the steps are spent.

    Where a measurement says that more than `near` steps are left, the successor goes on.
    """
    x = prepared.start()
    past: deque[Tensor] = deque(maxlen=PAST)
    reach = 2 if x.numel() <= _SMALL else 1
    steps, look = 0, min(FIRST_LOOK, prepared.stride, max_steps)
    seen: tuple[int, float] | None = None
    while True:
        y = prepared.apply(x)
        steps += 1
        if steps >= look:
            point, image = prepared.measured(x, y)
            moved = point - image
            residual, scale = largest(moved), largest(point)
            converged = residual <= tol * scale
            if converged or steps >= max_steps or not math.isfinite(residual):
                return Solved(point, steps, residual, converged, prepared.factorizations)
            since, seen = seen or (0, scale), (steps, residual)
            if successor is not None and steps_left(since, seen, tol * scale) > near:
                return successor(Look(x, y, moved, past, since, seen, scale))
            look = next_look(since, seen, tol * scale, reach)
            look = min(look, steps + prepared.stride, max_steps)
        if successor is not None:
            past.append(x)
        x = prepared.advance(x, y)


def largest(x: Tensor) -> float:
    """max |x|, zero where x is empty and NaN where an entry is."""
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x)
    if x.device.type != "cpu":  # one transfer instead of two
        low, high = torch.stack([low, high]).cpu()
    return max(float(high), -float(low))


def next_look(
    before: tuple[int, float], now: tuple[int, float], target: float, reach: int = 1
) -> int:
    """The step at which the rate between two measurements reaches the target.

    Never more than `reach` times as far again as what is behind, in case the rate misleads; where
    nothing has fallen since the measurement before, twice as far as it lies back.
    """
    steps, left = now[0], steps_left(before, now, target)
    ahead = 2 * (steps - before[0]) if math.isinf(left) else max(1, math.ceil(left))
    return steps + min(reach * steps, ahead)


def steps_left(before: tuple[int, float], now: tuple[int, float], target: float) -> float:
    """Steps to the target at the rate between two measurements, inf where there is none."""
    (start, high), (steps, low) = before, now
    if not (0 < low < high < math.inf) or target <= 0:
        return math.inf
    return math.log(low / target) * (steps - start) / math.log(high / low)
