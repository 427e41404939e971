"""The diagonal resolvent iteration that changes to faster ones where they pay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from contraction_nets.nn.iterations.base import Elementwise, Iteration
from contraction_nets.nn.iterations.costs import Costs
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap, DiagonalResolvent
from contraction_nets.nn.iterations.elimination import eliminated, sharing
from contraction_nets.nn.iterations.long_way import LongWay
from contraction_nets.nn.iterations.loop import NEAR, Look, Solved, largest, run
from contraction_nets.nn.operators import Dense, StateOperator
from contraction_nets.nn.products import LEAST

_NEAR = 8
"""Steps left that are not worth a thought even where they are expensive."""
_AT_ONCE = 8
"""Plain steps that a linear equation may cost at once: few take less."""


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
        base, before = self.prepare(operator, activation, s), 0

        def costs() -> Costs:
            return Costs(s[:1].numel(), operator.multiplications(s))

        if activation.linear is not None and matrix is not None and len(s) > 1:
            x = _solved_at_once(matrix, activation.linear, s, costs())
            if x is not None:
                residual, scale = largest(x - base.image(x, base.apply(x))), largest(x)
                if residual <= tol * scale or max_steps == 1:
                    return Solved(x, 1, residual, residual <= tol * scale, 1)
                before = 1  # it was too near the limit for the digits there are

        def go_on(look: Look) -> Solved:
            return LongWay(base, matrix, costs(), tol, max_steps - before, near).solve(look)

        # Where steps are expensive, a thought costs nothing beside them.
        near = NEAR if operator.multiplications(s) * len(s) < LEAST else _NEAR
        end = run(base, tol, max_steps - before, go_on, near)
        if before:
            end = replace(end, steps=end.steps + 1, factorizations=end.factorizations + 1)
        return end


def _solved_at_once(A: Tensor, factor: Tensor, s: Tensor, costs: Costs) -> Tensor | None:
    """The solution of a linear equation whose samples share one matrix, if it is cheap."""
    batch = len(s)
    limit = _AT_ONCE * costs.plain(batch)
    if costs.linear(batch, 1) > limit:
        return None
    active, shared = sharing(factor)
    if not shared or costs.linear(batch, active) > limit:
        return None
    return eliminated(A, factor[0], s)
