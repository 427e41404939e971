"""The rungs that decide one sample: linear programs, then the exact search (THEORY §8)."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from contraction_nets.robustness.batch import OpenSample, confirmed
from contraction_nets.robustness.equation import Equation
from contraction_nets.robustness.relaxation import Objective, Relaxation
from contraction_nets.robustness.result import Verdict, not_decided
from contraction_nets.robustness.search import Bounded, SampleProgram, search

Array = NDArray[np.float64]


def decide(equation: Equation, sample: OpenSample, exact: bool, seconds: float) -> Verdict:
    """Decide one sample by linear programs and, if `exact`, by branch and bound.

    Never raises: whatever goes wrong leaves the sample unknown, with the reason.
    """
    start = time.monotonic()
    decision = _Decision(equation, sample, start + seconds)
    try:
        verdict = decision.run(exact)
    except Exception as error:  # one sample never spoils a batch
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")[:200]
        verdict = decision.unknown("milp" if exact else "lp", reason)
    spent = sample.seconds + time.monotonic() - start
    return replace(verdict, seconds=spent)


class _Decision:
    """The state of one decision: margins proved so far, and a counterexample if there is one."""

    def __init__(self, equation: Equation, sample: OpenSample, deadline: float) -> None:
        self.equation, self.sample, self.deadline = equation, sample, deadline
        self.margins = sample.margins.copy()
        self.margins[sample.label] = math.inf
        self.found: tuple[Array, float] | None = None

    def run(self, exact: bool) -> Verdict:
        others = [int(k) for k in np.argsort(self.margins) if not self.margins[k] > 0]
        relaxation = Relaxation.of(self.equation, self.sample.boxes, 0)
        program = SampleProgram(relaxation)
        roots: dict[int, tuple[Objective, Bounded]] = {}
        for k in others:
            if time.monotonic() >= self.deadline:
                return self.unknown("lp", "time limit")
            objective = Objective.of(self.equation, self.sample.label, k)
            root = program.bounded(relaxation, objective, self.deadline)
            roots[k] = objective, root
            self.margins[k] = max(self.margins[k], root.bound)
            if not root.bound > 0 and root.inputs is not None and self.refutes(root.inputs):
                return self.falsified("lp")
        left = [k for k in others if not self.margins[k] > 0]
        if not left:
            return Verdict("certified", "lp", float(self.margins.min()), 0.0)
        if not exact:
            return self.unknown("lp", not_decided("lp"))
        return self.searched(program, {k: roots[k] for k in left})

    def searched(
        self, program: SampleProgram, roots: dict[int, tuple[Objective, Bounded]]
    ) -> Verdict:
        """The exact rung, one output at a time, the one that is nearest first."""
        reasons = []
        for k in sorted(roots, key=lambda k: float(self.margins[k])):
            outcome = search(program, roots[k][1], roots[k][0], self.refutes, self.deadline)
            if self.found is not None:
                return self.falsified("milp")
            self.margins[k] = max(self.margins[k], outcome.bound)
            if outcome.reason:
                reasons.append(outcome.reason)
        if reasons or not (self.margins > 0).all():
            return self.unknown("milp", reasons[0] if reasons else "no bound is tight enough")
        return Verdict("certified", "milp", float(self.margins.min()), 0.0)

    def refutes(self, inputs: Array) -> bool:
        """Whether an input, moved into reach, certainly has another label."""
        inside = np.clip(inputs, self.sample.inner_lower, self.sample.inner_upper)
        margin = confirmed(self.equation, inside, self.sample.label)
        if margin < 0:
            self.found = inside, margin
        return margin < 0

    def falsified(self, rung: str) -> Verdict:
        inputs, margin = self.found or (None, math.nan)
        return Verdict("falsified", rung, margin, 0.0, counterexample=inputs)

    def unknown(self, rung: str, reason: str) -> Verdict:
        return Verdict("unknown", rung, float(self.margins.min()), 0.0, reason)
