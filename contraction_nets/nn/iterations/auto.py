"""The diagonal resolvent iteration that changes to faster ones where they pay."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.costs import NEWTON_STEPS, Costs, reduced_rank_steps
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.loop import FIRST_LOOK, Solved, largest, next_look, steps_left
from contraction_nets.nn.iterations.newton import Newton, solve_shared
from contraction_nets.nn.iterations.reduced_rank import ReducedRank
from contraction_nets.nn.operators import Dense, StateOperator

_AT_ONCE = 8
"""Plain steps that a linear equation may cost at once: few take less."""
_FEW = 16
"""Samples looked at first."""
_NEAR = 8
"""Steps left that are not worth a thought."""
_SLOWER = 2
"""Times the steps left that it may take where the rate seen at first misleads."""
_MANY = 6
"""Times what leaving out samples costs that the rest of the way must, to look who is done."""
_FAR = 1000
"""Steps left where the residual has not fallen yet."""
_ALIGNED = 0.8
"""Cosine of two successive steps from which on the way creeps; those that turn have a smaller one,
two thirds where all entries are positive."""
_RENT, _LONG_RENT = 8, 16
"""Newton steps, and ways by jumps, that plain steps may cost where they turn, before they end."""


@dataclass(frozen=True)
class Auto(Iteration):
    """Diagonal resolvent, then something faster for the samples with a long way to go.

    It starts as `DiagonalResolvent`, but solves a linear equation (that of a gradient) by one
    factorization where that costs no more than a few steps. Whenever it measures the residual, a
    model of the `Costs` of a step says whether the rest of the way at the rate seen is cheaper
    with `ReducedRank`, which goes on from the plain steps taken, or `Newton`. Two successive
    steps tell first whether the iterates creep along a few directions, where these help, or
    turn, as on the cycles of a permutation, where they do not. Samples that meet the tolerance
    leave the batch where that saves work, and `steps` counts every application of A to what is
    left. All of them converge wherever the network is well-posed. The decisions depend on the
    data alone, not on a clock.
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
        costs = Costs(s[:1].numel(), operator.multiplications(s))
        run = _Run(matrix, costs)
        start = run.solved_at_once(activation, s)
        run.begin(self.prepare(operator, activation, s))
        return run.solve(start, tol, max_steps)


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
        x − φ(A x + s) of the samples in the stage.
    rows : (open,) tensor of int, or None
        The samples in the stage; None while that is all of them.
    """

    whole: DiagonalMap
    base: DiagonalMap
    stage: DiagonalMap | Accelerated

    def __init__(self, matrix: Tensor | None, costs: Costs) -> None:
        self.matrix, self.costs, self.cost = matrix, costs, costs.plain
        self.rows: Tensor | None = None
        self.factorizations = 0
        self._past: deque[Tensor] = deque(maxlen=ReducedRank.steps_used)
        # When steps are compared next, and whether they turned.
        self._due, self._turning = 0, False
        # Of a linear equation: states with a slope, and whether all samples share theirs.
        self._slopes: tuple[int, bool] | None = None

    def begin(self, base: DiagonalMap) -> None:
        """Take plain steps on these samples."""
        self.whole = self.base = self.stage = base

    def solved_at_once(self, activation: Elementwise, s: Tensor) -> Tensor | None:
        """The solution of a linear equation whose samples share one matrix, if it is cheap."""
        factor, batch = activation.linear, len(s)
        if factor is None or self.matrix is None or not batch:
            return None
        costs, slope = self.costs, factor[0]
        # Two samples tell in most cases that not all are alike.
        shared = batch == 1 or torch.equal(slope, factor[-1])
        self._slopes = int(torch.count_nonzero(slope)), shared
        if not shared or costs.linear(batch, self._slopes[0]) > _AT_ONCE * costs.plain(batch):
            return None
        if not bool((factor == slope).all()):
            self._slopes = self._slopes[0], False
            return None
        places = slope.nonzero()[:, 0]
        self.factorizations += 1
        if len(places) == len(slope):
            x = solve_shared(self.matrix, slope, slope * s)
        else:
            x = torch.zeros_like(s)
            block = self.matrix.index_select(0, places).index_select(1, places)
            slope = slope[places]
            x.index_copy_(1, places, solve_shared(block, slope, slope * s[:, places]))
        return x

    def solve(self, start: Tensor | None, tol: float, max_steps: int) -> Solved:
        x, steps = self.base.start() if start is None else start, 0
        look = 1 if start is not None else min(FIRST_LOOK, max_steps)
        since: tuple[int, float] | None = None  # the rate is that from here to now
        while True:
            y = self.stage.apply(x)
            steps += 1
            if steps >= look:
                residual, scale = self._measure(x, y)
                target = tol * scale
                if start is not None and not residual <= target:
                    # Too near the limit for the digits there are: from the beginning.
                    start, x = None, self.base.start()
                    look = min(steps + FIRST_LOOK, max_steps)
                    if steps < max_steps:
                        continue
                if residual <= target or steps >= max_steps or not math.isfinite(residual):
                    factorizations = self.factorizations + self.stage.factorizations
                    return Solved(self.x, steps, residual, residual <= target, factorizations)
                now, since = (steps, residual), since or (0, scale)
                plain = self.stage is self.base
                left = min(
                    steps_left(since, now, target), _FAR if plain else 2 * (steps - since[0])
                )
                if self._some_may_leave(left, len(x)):
                    if self.rows is None:
                        self.defect = self._defects()
                    unmet = ~(self.defect <= target)
                    if self._outside(unmet):
                        x, since, look = self._reopen(unmet), now, steps + 1
                        continue
                    x, y = self._leave_out(unmet, x, y, left)
                faster = self._faster(x, y, steps, left, residual / target if target else math.inf)
                if faster is not None:
                    self.factorizations += self.stage.factorizations
                    self.stage, since = faster, now
                look = self._next_look(since, now, target, len(x), max_steps)
                if self.stage is self.base:
                    since = now
            self._past.append(x)
            x = self.stage.advance(x, y)

    def _next_look(
        self,
        since: tuple[int, float],
        now: tuple[int, float],
        target: float,
        batch: int,
        max_steps: int,
    ) -> int:
        """When to measure next."""
        steps, look = now[0], next_look(since, now, target)
        if self._turning and self.stage is self.base:
            # A way that turns ends without notice; a look may cost a tenth of the steps.
            often = 10 * self.costs.look(batch) / self.cost(batch)
            look = min(look, steps + max(1, math.ceil(max(often, steps / 16))))
        return min(look, steps + self.stage.stride, max_steps)

    def _measure(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """max |x − φ(A x + s)| and max |x|, also of the samples that have left."""
        if not len(x):
            self.x, self.moved = x, x
            return 0.0, 0.0
        self.moved = x - self.stage.image(x, y)
        if self.rows is None:
            self.x = x
            return largest(self.moved), largest(x)
        self.x[self.rows], self.defect[self.rows] = x, self._defects()
        self.size[self.rows] = x.abs().flatten(1).amax(dim=1)
        residual, scale = torch.stack([self.defect.amax(), self.size.amax()]).tolist()
        return residual, scale

    def _defects(self) -> Tensor:
        return self.moved.abs().flatten(1).amax(dim=1)

    def _some_may_leave(self, left: float, batch: int) -> bool:
        """Whether it may pay to look which samples are done."""
        if self.rows is not None:
            return True
        if batch == 1:
            return False
        costs = self.costs
        if self.stage is not self.base:
            return True
        return left * costs.plain(batch) > _MANY * costs.leaving_out(batch)

    def _outside(self, unmet: Tensor) -> bool:
        """Whether a sample that had left is unmet again: the largest state has shrunk."""
        return self.rows is not None and int(unmet.sum()) > int(unmet[self.rows].sum())

    def _reopen(self, unmet: Tensor) -> Tensor:
        self.factorizations += self.stage.factorizations
        self.rows = unmet.nonzero()[:, 0]
        self.base = self.stage = self.whole.take(self.rows)
        self.cost = self.costs.plain
        self._past.clear()
        return self.x[self.rows]

    def _leave_out(self, unmet: Tensor, x: Tensor, y: Tensor, left: float) -> tuple[Tensor, Tensor]:
        """Go on with the samples that are unmet, where that saves work."""
        if len(x) == 1:
            return x, y
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
        self._past = deque((past[places] for past in self._past), self._past.maxlen)
        return x[places], y[places]

    def _faster(
        self, x: Tensor, y: Tensor, steps: int, left: float, excess: float
    ) -> Accelerated | None:
        """The stage in which the rest of the way is cheaper, None to stay.

        Parameters
        ----------
        x, y : (batch, ...) tensors
        steps : int
            So far.
        left : float
            Steps to go at the rate between the last measurements.
        excess : float
            The residual over what it may be.
        """
        costs, batch, plain = self.costs, len(x), self.stage is self.base
        if self.stage.stride == 1:
            return None
        linear = self.base.activation.linear is not None
        newton = math.inf
        if self._slopes is not None:
            newton = costs.newton(batch, *self._slopes)
        elif self.matrix is not None:  # at least
            newton = NEWTON_STEPS * costs.newton(batch, 1, shared=True)
        step, jump = self.cost(batch), costs.reduced_rank(batch) if plain else math.inf
        if plain and steps >= self._due and left > _NEAR:
            # Comparing costs several steps: only where something else nearly pays as it is.
            doubt = _SLOWER * left
            sure = newton if batch == 1 and not linear else math.inf
            if min(sure, reduced_rank_steps(doubt) * jump) < doubt * step:
                left = max(left, self._compare(x, steps, excess))
        jumps = reduced_rank_steps(left) * jump
        rest = rest_jumps = left * step
        if min(newton, jumps) >= rest:
            return None
        if plain and steps >= self._due:
            self._compare(x, steps, excess)
        if self._turning and plain:
            # How long it will take nobody knows: compare with what it took so far.
            spent = steps * step
            if self._slopes is not None and self._slopes[1]:
                rest = min(rest, 4 * spent)  # one factorization ends it for sure
            else:
                rest = min(rest, spent if linear else spent * NEWTON_STEPS / _RENT)
            rest_jumps = min(rest, spent / _LONG_RENT)
        better = jumps < rest_jumps
        best = jumps if better else rest
        if newton < best and self.matrix is not None:
            if self._slopes is None:
                newton = NEWTON_STEPS * costs.newton(batch, *self._pattern(x, y))
            if newton < best:
                return Newton().accelerate(self.base, self.matrix)
        if not better:
            return None
        self.cost = costs.reduced_rank
        return ReducedRank().accelerate(self.base, self._past)

    def _compare(self, x: Tensor, steps: int, excess: float) -> float:
        """Steps to go at the rate of the last two, and whether these turn: are not aligned.

        The rate between measurements is too good in the beginning, where what is fast dies out.
        """
        if len(self._past) < 2:
            return 0.0
        last, before = self._past[-1], self._past[-2]
        a, b = (x - last).flatten(), (last - before).flatten()
        size, size_before = largest(a), largest(b)
        self._due = 2 * steps
        if not 0 < size < math.inf or not 0 < size_before < math.inf:
            return 0.0
        # Of size one, so that no square overflows or vanishes.
        a, b = a / size, b / size_before
        self._turning = not abs(float(a @ b / (a.norm() * b.norm()))) >= _ALIGNED
        left = steps_left((0, excess * size_before / size), (1, excess), 1.0)
        return min(left, _FAR)

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
