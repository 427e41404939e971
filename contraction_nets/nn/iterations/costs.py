"""What a step of each iteration costs: a model, so that decisions depend on the data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from contraction_nets.nn.products import LEAST

NEWTON_STEPS = 4
"""That Newton takes in most cases, once the first steps are behind."""


@dataclass(frozen=True)
class Costs:
    """Microseconds of one step of a batch, fitted to one core; only their ratios matter.

    Attributes
    ----------
    states : int
    multiplications : int
        Of A x for one sample.
    """

    states: int
    multiplications: int

    def plain(self, batch: int) -> float:
        """A step of the diagonal resolvent."""
        # The weights have to be read once, however small the batch.
        work = batch * self.multiplications
        product = max(work / (9e4 if work >= LEAST else 4.4e4), self.multiplications / 2e4)
        return 3 + product + 2e-4 * batch * self.states

    def look(self, batch: int) -> float:
        """A measurement of the residual."""
        return 9 + 6e-4 * batch * self.states

    def judgement(self, batch: int) -> float:
        """Of every sample on its own, whether it is done."""
        return 10 + 1e-3 * batch * self.states

    def comparison(self, batch: int) -> float:
        """Of two successive steps."""
        return 12 + 1.2e-3 * batch * self.states

    def leaving_out(self, batch: int) -> float:
        """Taking some of the samples out of the batch."""
        return 100 + 0.01 * batch * self.states

    def reduced_rank(self, batch: int) -> float:
        """A step of reduced rank extrapolation, its share of a jump included."""
        return self.plain(batch) + 18 + 1e-3 * batch * self.states

    def factor(self, active: int) -> float:
        """One matrix of so many active states gathered, factored, and solved with once."""
        return 25 + 6e-3 * active**2 + active**3 / 1e5

    def newton(self, batch: int, active: int, shared: bool) -> float:
        """A step of Newton, with one matrix for all samples where they share their slopes."""
        rest = batch * active**2 / 2e4 if shared else (batch - 1) * self.factor(active)
        return self.plain(batch) + 90 + self.factor(active) + rest

    def linear(self, batch: int, active: int) -> float:
        """A linear equation, solved by one factorization for all samples."""
        return self.plain(batch) + 40 + self.factor(active) + batch * active**2 / 2e4


def reduced_rank_steps(left: float, linear: bool) -> float:
    """Steps of reduced rank extrapolation where so many plain ones are left."""
    # On nearly critical matrices, whose plain steps creep along few directions.
    return 4 + (2 if linear else 3) * math.log1p(left)
