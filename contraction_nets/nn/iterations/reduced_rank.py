"""Reduced rank extrapolation of the diagonal resolvent iteration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.least_squares import mixing, whole_memory
from contraction_nets.nn.operators import StateOperator

_CHUNK = 2**15
"""Entries of a state and its batch that jump together: what that takes stays in the cache."""


@dataclass(frozen=True)
class ReducedRank(Iteration):
    """Cycles of k + 2 plain steps x ← g and one jump x ← g − ΔX γ, γ = argmin ‖f − ΔF γ‖₂.

    Reduced rank extrapolation in restarted cycles (Sidi, *Efficient implementation of minimal
    polynomial and reduced rank extrapolation methods*, 1991, §2) of the diagonal resolvent map
    g, with f = g − x and k differences from the cycle; the first step of each cycle only smooths.
    Between jumps it costs what `DiagonalResolvent` costs. Safeguarded as `Accelerated`
    describes: it converges wherever the network is well-posed.

    Parameters
    ----------
    rank : int
        k, the slow directions that one jump removes.
    """

    rank: float = 4
    name: ClassVar[str] = "reduced_rank"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_memory(self.rank, self.name))

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> Accelerated:
        return self.accelerate(DiagonalResolvent().prepare(operator, activation, s))

    def accelerate(self, base: DiagonalMap, past: Iterable[Tensor] = ()) -> Accelerated:
        """This acceleration of a base map, whose plain steps led from one to the next of `past`."""
        return _ReducedRank(base, int(self.rank), past)


class _ReducedRank(Accelerated):
    def __init__(self, base: DiagonalMap, rank: int, past: Iterable[Tensor] = ()) -> None:
        super().__init__(base, patience=3)
        self.rank, self.stride = rank, rank + 2
        self._past = [x.flatten(1) for x in past][-rank - 1 :]

    @property
    def ahead(self) -> int:
        return self.rank + 2 - len(self._past)

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        self._past.append(x.flatten(1))
        if len(self._past) < self.rank + 2:
            return self.base.advance(x, y)
        return super().advance(x, y)

    def propose(self, x: Tensor, g: Tensor, f: Tensor, failed: Tensor | None) -> Tensor:
        rows = max(1, _CHUNK // x.shape[1])
        parts = zip(*(points.split(rows) for points in (*self._past[1:], g)), strict=True)
        self._past = []
        jumps = [_jump(torch.stack(part, dim=1)) for part in parts]
        return jumps[0] if len(jumps) == 1 else torch.cat(jumps)

    def take(self, rows: Tensor) -> Accelerated:
        self._past = [x[rows] for x in self._past]
        return super().take(rows)


def _jump(points: Tensor) -> Tensor:
    """Where points (batch, k + 2, n) lead, each a plain step from the one before."""
    # Their differences are both ΔX and past f.
    defects = points.diff(dim=1)
    f = defects[:, -1:]
    unit = f.abs().amax(dim=2, keepdim=True)
    unit = torch.where(unit > 0, unit, 1).reciprocal()
    gamma = mixing(torch.cat([defects.diff(dim=1), f], dim=1) * unit)
    # g = x + f: the images have moved by the f that came after.
    return points[:, -1] - (gamma[:, None] @ defects[:, 1:])[:, 0]
