"""Whether one output can overtake the label: branch and bound over signs of open states (§8).

A part of the search is a set of assumed signs. It is closed where a sound bound of its relaxation
is positive, whoever proposed the multipliers; otherwise the input that its linear program likes
best is tried, and the sign of one more state is assumed, one way and the other.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contraction_nets.robustness.programs import Reduced
from contraction_nets.robustness.relaxation import (
    ACTIVE,
    INACTIVE,
    Objective,
    Relaxation,
)
from contraction_nets.robustness.simplex import simplex

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bounded:
    """A relaxation with the bound that was proved for it.

    Attributes
    ----------
    relaxation : Relaxation
    bound : float
        Inf where there is no equilibrium with the assumed signs.
    inputs : (p,) array or None
        Where the linear program has its minimum.
    scores : (n,) array
        How much the bound may gain from a sign.
    """

    relaxation: Relaxation
    bound: float
    inputs: Array | None
    scores: Array


class SampleProgram:
    """The linear program of one sample, for any objective and any assumed signs."""

    def __init__(self, relaxation: Relaxation) -> None:
        self.reduced = Reduced.of(relaxation)
        self.simplex = simplex(self.reduced.rows, self.reduced.right)

    def bounded(self, part: Relaxation, objective: Objective, deadline: float) -> Bounded:
        """The part with the best of the interval bound and what the solver's multipliers prove."""
        n = len(part.signs)
        bound = math.inf if part.empty else part.lower_bound(objective)
        if bound > 0:
            return Bounded(part, bound, None, np.zeros(n))
        reduced = self.reduced
        answer = self.simplex.solve(
            reduced.costs(objective), *reduced.bounds(part), deadline - time.monotonic()
        )
        if answer.dual is None:
            return Bounded(part, bound, None, part.x_upper - part.x_lower)
        if answer.infeasible:
            nothing = Objective.nothing(part.equation)
            for ray in (answer.dual, -answer.dual):
                proof = reduced.multipliers(nothing, ray)
                if part.lower_bound(nothing, proof) > 0:
                    return Bounded(part, math.inf, None, np.zeros(n))
            return Bounded(part, bound, None, part.x_upper - part.x_lower)
        multipliers = reduced.multipliers(objective, answer.dual)
        bound = max(bound, part.lower_bound(objective, multipliers))
        k, inputs, scores = len(reduced.open), None, part.x_upper - part.x_lower
        if answer.point is not None:
            inputs = np.clip(answer.point[k:], part.lower, part.upper)
            scores = scores * 1e-6 + reduced.gaps(answer.point) * multipliers.chord
        return Bounded(part, bound, inputs, scores)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search came to.

    Attributes
    ----------
    bound : float
        No equilibrium has a smaller objective.
    falsified : bool
        Whether an input that was tried is a counterexample.
    reason : str
        Why neither is known; empty where one is.
    parts : int
        How many relaxations were bounded.
    """

    bound: float
    falsified: bool
    reason: str
    parts: int


def search(
    program: SampleProgram,
    root: Bounded,
    objective: Objective,
    is_counterexample: Callable[[Array], bool],
    deadline: float,
) -> Outcome:
    """Find an input with a negative objective, or prove that the objective is positive.

    Parameters
    ----------
    program : SampleProgram
    root : Bounded
        Without assumed signs.
    objective : Objective
    is_counterexample : callable
        Whether an input (p,) certainly is one.
    deadline : float
        Of `time.monotonic`.
    """
    order = itertools.count()
    waiting = [(root.bound, next(order), root)]
    proved, parts, undecided = math.inf, 0, False
    if root.inputs is not None and is_counterexample(root.inputs):
        return Outcome(root.bound, True, "", parts)
    while waiting:
        bound, _, part = waiting[0]
        if time.monotonic() >= deadline:
            return Outcome(min(bound, proved), False, "time limit", parts)
        heapq.heappop(waiting)
        state = _most_promising(part)
        if state is None:
            undecided, proved = True, min(proved, bound)
            continue
        for sign in (ACTIVE, INACTIVE):
            assumed = part.relaxation.assuming(state, sign)
            child = program.bounded(assumed, objective, deadline)
            parts += 1
            if child.bound > 0:
                proved = min(proved, child.bound)
                continue
            if child.inputs is not None and is_counterexample(child.inputs):
                return Outcome(min(bound, proved), True, "", parts)
            heapq.heappush(waiting, (max(bound, child.bound), next(order), child))
    reason = "two outputs are equal up to rounding" if undecided else ""
    return Outcome(proved, False, reason, parts)


def _most_promising(part: Bounded) -> int | None:
    """The open state with the largest score, None where every sign is known."""
    opened = part.relaxation.open
    if not len(opened):
        return None
    scores = np.nan_to_num(part.scores[opened], nan=0.0, posinf=np.finfo(np.float64).max)
    return int(opened[np.argmax(scores)])
