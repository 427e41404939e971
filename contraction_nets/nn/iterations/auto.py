"""The diagonal resolvent iteration that changes to faster ones where they pay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.loop import FIRST_LOOK, Solved, next_look, steps_left
from contraction_nets.nn.iterations.newton import Newton
from contraction_nets.nn.iterations.reduced_rank import ReducedRank
from contraction_nets.nn.operators import Dense, StateOperator

_NEWTON_STEPS = 4
_NEAR = 8
"""Steps left that are not worth a thought."""
_FEW = 16
"""Samples looked at first."""
_FAR = 1000
"""Steps left where the residual has not fallen yet."""


@dataclass(frozen=True)
class Auto(Iteration):
    """Diagonal resolvent, then something faster for the samples with a long way to go.

    It starts as `DiagonalResolvent`. Whenever it measures the residual, a model of the cost of
    a step (`_Costs`) says whether the rest of the way at the rate seen is cheaper with
    `ReducedRank` or `Newton`; samples that meet the tolerance leave the batch where
    that saves work, and `steps` counts every application of A to what is left. All three
    converge wherever the network is well-posed. The decisions depend on the data alone, not on
    a clock.
    """

    name: ClassVar[str] = "auto"

    def prepare(self, operator: StateOperator, activation: Elementwise, s: Tensor) -> DiagonalMap:
        return DiagonalResolvent().prepare(operator, activation, s)

    def solve(
        self,
        operator: StateOperator,
        activation: Elementwise,
        s: Tensor,
        tol: float,
        max_steps: int,
    ) -> Solved:
        matrix = operator.weight if isinstance(operator, Dense) else None
        base = self.prepare(operator, activation, s)
        return _Run(base, matrix, _Costs(s[:1].numel(), operator.multiplications(s))).solve(
            tol, max_steps
        )


@dataclass(frozen=True)
class _Costs:
    """Microseconds of one step of a batch, as measured on one core; only ratios matter.

    Attributes
    ----------
    states : int
    multiplications : int
        Of A x for one sample.
    """

    states: int
    multiplications: int

    def plain(self, batch: int) -> float:
        # The weights have to be read once, however small the batch.
        product = max(batch * self.multiplications / 4e4, self.multiplications / 1.2e4)
        return 12 + product + 3e-4 * batch * self.states

    def leaving_out(self, batch: int) -> float:
        return 100 + 0.01 * batch * self.states

    def reduced_rank(self, batch: int) -> float:
        return self.plain(batch) + 65 + 4e-3 * batch * self.states

    def newton(self, batch: int, active: int, shared: bool) -> float:
        factor = 25 + 6e-3 * active**2 + active**3 / 1e5
        rest = batch * active**2 / 2e4 if shared else (batch - 1) * factor
        return self.plain(batch) + 150 + factor + rest


class _Run:
    """One solve: the samples still open, their stage, and what the others ended with.

    Attributes
    ----------
    whole, base : DiagonalMap
        Of all samples, and of those in the stage.
    x : (batch, ...) tensor
    defect, size : (batch,) tensors
        max |x − φ(A x + s)| and max |x| of every sample when it was last measured; those of
        the samples that have left are what matters.
    moved : tensor
        |x − φ(A x + s)| of the samples in the stage.
    rows : (open,) tensor of int, or None
        The samples in the stage; None while that is all of them.
    """

    def __init__(self, base: DiagonalMap, matrix: Tensor | None, costs: _Costs) -> None:
        self.whole, self.base, self.matrix, self.costs = base, base, matrix, costs
        self.stage: DiagonalMap | Accelerated = base
        self.cost = costs.plain
        self.rows: Tensor | None = None
        self.factorizations = 0

    def solve(self, tol: float, max_steps: int) -> Solved:
        x, steps, look = self.base.start(), 0, min(FIRST_LOOK, max_steps)
        since: tuple[int, float] | None = None  # the rate is that from here to now
        while True:
            y = self.stage.apply(x)
            steps += 1
            if steps >= look:
                residual, scale = self._measure(x, y)
                target = tol * scale
                if residual <= target or steps >= max_steps or not math.isfinite(residual):
                    factorizations = self.factorizations + self.stage.factorizations
                    return Solved(self.x, steps, residual, residual <= target, factorizations)
                now = (steps, residual)
                since = since or (0, scale)
                plain = self.stage is self.base
                left = min(
                    steps_left(since, now, target), _FAR if plain else 2 * (steps - since[0])
                )
                if left > _NEAR or not plain:
                    if self.rows is None:
                        self.defect = self._defects()
                    unmet = ~(self.defect <= target)
                    if self._outside(unmet):
                        x, since, look = self._reopen(unmet), now, steps + 1
                        continue
                    x, y = self._leave_out(unmet, x, y, left)
                    faster = self._faster(x, y, left)
                    if faster is not None:
                        self.factorizations += self.stage.factorizations
                        self.stage, since = faster, now
                look = next_look(since, now, target)
                look = min(look, steps + self.stage.stride, max_steps)
                if self.stage is self.base:
                    since = now
            x = self.stage.advance(x, y)

    def _measure(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """max |x − φ(A x + s)| and max |x|, also of the samples that have left."""
        if not len(x):
            self.x = x
            return 0.0, 0.0
        self.moved = (x - self.stage.image(x, y)).abs_()
        residual, scale = torch.stack([self.moved.amax(), x.abs().amax()]).tolist()
        if self.rows is None:
            self.x = x
            return residual, scale
        self.x[self.rows], self.defect[self.rows] = x, self._defects()
        self.size[self.rows] = x.abs().flatten(1).amax(dim=1)
        residual, scale = torch.stack([self.defect.amax(), self.size.amax()]).tolist()
        return residual, scale

    def _defects(self) -> Tensor:
        return self.moved.flatten(1).amax(dim=1)

    def _outside(self, unmet: Tensor) -> bool:
        """Whether a sample that had left is unmet again: the largest state has shrunk."""
        return self.rows is not None and int(unmet.sum()) > int(unmet[self.rows].sum())

    def _reopen(self, unmet: Tensor) -> Tensor:
        self.factorizations += self.stage.factorizations
        self.rows = unmet.nonzero()[:, 0]
        self.base = self.stage = self.whole.take(self.rows)
        self.cost = self.costs.plain
        return self.x[self.rows]

    def _leave_out(self, unmet: Tensor, x: Tensor, y: Tensor, left: float) -> tuple[Tensor, Tensor]:
        """Go on with the samples that are unmet, where that saves work."""
        if self.rows is not None:
            unmet = unmet[self.rows]
        places = unmet.nonzero()[:, 0]
        if self.stage.stride > 1:
            saved = left * (self.cost(len(x)) - self.cost(len(places)))
            if 2 * len(places) > len(x) or saved < self.costs.leaving_out(len(x)):
                return x, y
        elif len(places) == len(x):
            return x, y
        if self.rows is None:
            self.x, self.size = x.clone(), x.abs().flatten(1).amax(dim=1)
        self.rows = places if self.rows is None else self.rows[places]
        plain = self.stage is self.base
        self.stage = self.stage.take(places)
        self.base = self.stage if plain else self.base.take(places)
        return x[places], y[places]

    def _faster(self, x: Tensor, y: Tensor, left: float) -> Accelerated | None:
        """The stage in which the rest of the way is cheaper, None to stay."""
        costs, batch = self.costs, len(x)
        if self.stage.stride == 1:
            return None
        best, stage = left * self.cost(batch), None
        if self.stage is self.base:
            # Steps that it takes of those left, on nearly critical matrices.
            jumps = (6 + 2.5 * math.sqrt(left)) * costs.reduced_rank(batch)
            if jumps < best:
                best, stage = jumps, ReducedRank().accelerate(self.base)
                self.cost = costs.reduced_rank
        if self.matrix is None or _NEWTON_STEPS * costs.newton(batch, 1, shared=True) >= best:
            return stage
        active, shared = self._pattern(x, y)
        if _NEWTON_STEPS * costs.newton(batch, active, shared) < best:
            stage = Newton().accelerate(self.base, self.matrix)
        return stage

    def _pattern(self, x: Tensor, y: Tensor) -> tuple[int, bool]:
        """The most states with a slope, and whether all samples share their slopes."""
        # A few samples tell in most cases that they do not.
        for few in (_FEW, len(x)):
            y_few = self.base.preactivation(x[:few], y[:few])
            slope = self.base.activation.slope(y_few)[:few]
            active, shared = (slope != 0).sum(dim=1).amax(), bool((slope == slope[0]).all())
            if not shared:
                break
        return int(active), shared
