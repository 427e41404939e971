"""The rest of a solve that turned out to be long, by the cheapest way that a model knows."""

from __future__ import annotations

import math
from collections import deque
from functools import cached_property

import torch
from torch import Tensor

from contraction_nets.nn.iterations.accelerated import Accelerated
from contraction_nets.nn.iterations.costs import NEWTON_STEPS, Costs, reduced_rank_steps
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap
from contraction_nets.nn.iterations.elimination import FEW, eliminated, sharing
from contraction_nets.nn.iterations.loop import Look, Solved, largest, next_look, steps_left
from contraction_nets.nn.iterations.newton import Newton
from contraction_nets.nn.iterations.reduced_rank import ReducedRank

_SLOWER = 2
"""Times the steps left that it may take where the rate seen at first misleads."""
_SELDOM = 4
"""Times what a comparison of steps costs that they must, before the next one."""
_MANY = 6
"""Times what leaving out samples costs that the rest of the way must, to look who is done."""
_FAR = 1000
"""Steps left where the residual has not fallen yet."""
_ALIGNED = 0.8
"""Cosine of two successive steps from which on the way creeps; those that turn have a smaller one,
two thirds where all entries are positive."""
_RENT, _LONG_RENT = 8, 16
"""Newton steps, and ways by jumps, that plain steps may cost where they turn, before they end."""
_SURE_RENT = 6
"""Times what they have cost that one factorization may which ends it for sure."""


class LongWay:
    """The rest of a long solve: the samples still open, their stage, what the others ended with.

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

    def __init__(
        self,
        base: DiagonalMap,
        matrix: Tensor | None,
        costs: Costs,
        tol: float,
        max_steps: int,
        near: int,
    ) -> None:
        self.whole = self.base = base
        self.stage: DiagonalMap | Accelerated = base
        self.matrix, self.costs, self.cost = matrix, costs, costs.plain
        self.tol, self.max_steps, self.near = tol, max_steps, near
        self.rows: Tensor | None = None
        self.factorizations = 0
        # When steps are compared next, and whether they turned.
        self._due, self._turning = 0, False
        # Where that lasts: states with a slope, and whether all samples share theirs.
        self._slopes: tuple[int, bool] | None = None
        self._linear = base.activation.linear is not None
        self._newton_steps = 1 if self._linear else NEWTON_STEPS
        # The point from which a linear equation was solved at once; None before.
        self._origin: Tensor | None = None
        self._eliminates = self._linear

    @cached_property
    def _few(self) -> float:
        """Plain steps of the whole batch that cost less than any other way."""
        batch, costs = len(self.whole.s), self.costs
        ways = [
            reduced_rank_steps(0, self._linear) * costs.reduced_rank(batch),
            self._newton_at_least(batch),
        ]
        if batch > 1:
            ways.append(_MANY * costs.leaving_out(batch))
        return min(ways) / (_SLOWER * costs.plain(batch))

    def _newton_at_least(self, batch: int) -> float:
        """What the rest of the way by Newton costs, as far as the slopes are known."""
        if self.matrix is None:
            return math.inf
        active, shared = self._slopes or (1, True)
        return self._newton_steps * self.costs.newton(batch, active, shared or batch == 1)

    def solve(self, look: Look) -> Solved:
        """Go on from a measurement to the end."""
        x, y, self.x, self.moved, self._past = look.x, look.y, look.x, look.moved, look.past
        since, (steps, residual), scale = look.since, look.now, look.scale
        while True:
            target = self.tol * scale
            if residual <= target or steps >= self.max_steps or not math.isfinite(residual):
                factorizations = self.factorizations + self.stage.factorizations
                return Solved(self.x, steps, residual, residual <= target, factorizations)
            x, since, ahead = self._next(x, y, since, (steps, residual), target)
            for left in range(min(ahead, self.max_steps - steps) - 1, -1, -1):
                y = self.stage.apply(x)
                steps += 1
                if left:
                    self._past.append(x)
                    x = self.stage.advance(x, y)
            residual, scale = self._measure(x, y)

    def _next(
        self,
        x: Tensor,
        y: Tensor,
        since: tuple[int, float],
        now: tuple[int, float],
        target: float,
    ) -> tuple[Tensor, tuple[int, float], int]:
        """Where to go from a point that was measured.

        Returns
        -------
        x : tensor
            The next point.
        since : (int, float)
            Steps and residual from which on the rate will be that of the rest of the way.
        ahead : int
            Products up to the next measurement, at least one.
        """
        (steps, residual), plain = now, self.stage is self.base
        if self._origin is not None:  # there were too few digits to solve it at once
            x, self._origin, self._eliminates = self._origin, None, False
            return x, (steps, 0.0), 1
        left = min(steps_left(since, now, target), _FAR if plain else 2 * (steps - since[0]))
        faster: Accelerated | Tensor | None = None
        if not plain or self.rows is not None or (left > self.near and left > self._few):
            if self._some_may_leave(left, len(x)):
                if self.rows is None:
                    self.defect = self._defects()
                unmet = ~(self.defect <= target)
                if self._outside(unmet):
                    return self._reopen(unmet), now, 1
                x, y = self._leave_out(unmet, x, y, left)
            excess = residual / target if target else math.inf
            faster = self._faster(x, y, steps, left, excess)
        if isinstance(faster, Tensor):
            self._origin = x
            return faster, now, 1
        if faster is None:
            ahead = self._ahead(since, now, target, len(x))
            since = now if self.stage is self.base else since
        else:
            self.factorizations += self.stage.factorizations
            self.stage, since = faster, now
            ahead = self._past_jump(faster)
        self._past.append(x)
        return self.stage.advance(x, y), since, ahead

    def _ahead(
        self, since: tuple[int, float], now: tuple[int, float], target: float, batch: int
    ) -> int:
        """Steps to the next measurement."""
        costs, steps = self.costs, now[0]
        look, step = costs.look(batch), self.cost(batch)
        ahead = next_look(since, now, target, 2 if look > step else 1) - steps
        if isinstance(self.stage, Accelerated):
            return max(1, ahead) if ahead < self.stage.ahead else self._past_jump(self.stage)
        if self._turning:
            # A way that turns ends without notice: half of what is ahead will be too much, and
            # all measurements should cost as much again, if it ends at twice the steps.
            look += costs.judgement(batch)
            ahead = min(ahead, math.ceil(math.sqrt(2 * steps * look / step)))
        return max(1, ahead)

    def _past_jump(self, stage: Accelerated) -> int:
        """Steps after which the next proposal shows what it was worth."""
        # Where slopes change, the first steps smooth what a jump has roughened.
        return stage.ahead + (0 if self._linear else stage.stride // 3)

    def _measure(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """max |x − φ(A x + s)| and max |x|, also of the samples that have left."""
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
        if not len(places):  # the comparison of samples rounds the target
            return x, y
        if self.stage.stride > 1:
            saved = left * (self.cost(len(x)) - self.cost(len(places)))
            if 2 * len(places) > len(x) or saved < self.costs.leaving_out(len(x)):
                return x, y
        elif len(places) == len(x):
            return x, y
        if self.rows is None:
            self.x, self.size = x.clone(), x.abs().flatten(1).amax(dim=1)
        self.rows = places if self.rows is None else self.rows[places]
        base = self.base.take(places)
        self.stage = base if self.stage is self.base else self.stage.take(places)
        self.base = base
        self._past = deque((past[places] for past in self._past), self._past.maxlen)
        return x[places], y[places]

    def _faster(
        self, x: Tensor, y: Tensor, steps: int, left: float, excess: float
    ) -> Accelerated | Tensor | None:
        """The stage in which the rest of the way is cheaper, or its end; None to stay.

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
        if self._linear and self.matrix is not None:
            self._pattern(x, y)
        step, newton = self.cost(batch), self._newton_at_least(batch)
        jump = costs.reduced_rank(batch) if plain else math.inf
        if plain and steps >= self._due:
            doubt = _SLOWER * left
            jumps = reduced_rank_steps(doubt, self._linear) * jump
            guess = newton if self._slopes else _SLOWER * newton
            if min(guess, jumps) < doubt * step:
                left = max(left, self._compare(x, steps, excess))
        rest = rest_jumps = left * step
        jumps = reduced_rank_steps(left, self._linear and not self._turning) * jump
        if min(newton, jumps) >= rest:
            return None
        if self._turning:
            # How long it will take nobody knows: compare with what it took so far.
            spent, rent = steps * step, NEWTON_STEPS / _RENT
            if self._linear and self.matrix is not None:
                rent = _SURE_RENT if self._pattern(x, y)[1] else 1
            rest = min(rest, rent * spent)
            rest_jumps = min(rest, spent / _LONG_RENT)
        better = jumps < rest_jumps
        best = jumps if better else rest
        if newton < best and self.matrix is not None:
            active, shared = self._pattern(x, y)
            if self._newton_steps * costs.newton(batch, active, shared) < best:
                return self._newton(self.matrix, shared)
        if not better:
            return None
        self.cost = costs.reduced_rank
        return ReducedRank().accelerate(self.base, self._past)

    def _newton(self, matrix: Tensor, shared: bool) -> Accelerated | Tensor:
        """Newton, or the solution where that is one linear equation for all samples."""
        factor = self.base.activation.linear
        if factor is not None and shared and self._eliminates:
            x = eliminated(matrix, factor[0], self.base.drive)
            if math.isfinite(float(x.sum())):
                self.factorizations += 1
                return x
        return Newton().accelerate(self.base, matrix)

    def _compare(self, x: Tensor, steps: int, excess: float) -> float:
        """Steps to go at the rate of the last two, and whether these turn: are not aligned.

        The rate between measurements is too good in the beginning, where what is fast dies out.
        """
        batch = len(x)
        pause = _SELDOM * self.costs.comparison(batch) / self.costs.plain(batch)
        self._due = steps + max(steps, math.ceil(pause))
        if len(self._past) < 2:
            return 0.0
        last, before = self._past[-1], self._past[-2]
        now, then, both = _products((x - last).flatten(), (last - before).flatten())
        if not now * then > 0:
            return 0.0
        self._turning = not abs(both) >= _ALIGNED * math.sqrt(now * then)
        left = steps_left((0, excess * math.sqrt(then / now)), (1, excess), 1.0)
        return min(left, _FAR)

    def _pattern(self, x: Tensor, y: Tensor) -> tuple[int, bool]:
        """States with a slope, and whether all samples share theirs."""
        if self._slopes is not None:
            active, shared = self._slopes
            return active, shared or len(x) == 1
        slope = self.whole.activation.linear
        if slope is not None:
            self._slopes = found = sharing(slope)
            return found
        # A few samples tell in most cases that they do not share theirs, which lasts.
        for few in (FEW, len(x)):
            y_few = self.base.preactivation(x[:few], y[:few])
            found = sharing(self.base.activation.slope(y_few))
            if not found[1]:
                self._slopes = found
                break
        return found


def _products(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """⟨a, a⟩, ⟨b, b⟩, ⟨a, b⟩, each over the square of the largest entry where squares overflow."""
    for _ in range(2):
        found = float(a @ a), float(b @ b), float(a @ b)
        if 0 < found[0] * found[1] < math.inf:
            break
        size = max(largest(a), largest(b))
        a, b = a / size, b / size
    return found
