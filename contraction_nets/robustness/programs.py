"""The linear program of one sample without its stable states: proposals for multipliers.

Nothing here is trusted: relaxation.py makes a sound bound of any multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contraction_nets.robustness.relaxation import (
    ACTIVE,
    INACTIVE,
    Multipliers,
    Objective,
    Relaxation,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reduced:
    """A relaxation in terms of its open states v and of the inputs u alone.

    Stable states are linear: x_L = T (v, u, 1). Drives of open states are s = S (v, u, 1).
    Rows of the program: (1 − a) v ≥ s, then for leaky relu (1 − α a) v ≥ α s, then the chords.

    Attributes
    ----------
    relaxation : Relaxation
    open, linear : integer arrays
        The open states, and those that are eliminated.
    rows : (r, k + p) array
    right : (r,) array
        rows @ (v, u) ≥ right.
    lower, upper : (k + p,) arrays
        Of v and u.
    transfer : (l, k + p + 1) array
        T.
    """

    relaxation: Relaxation
    open: NDArray[np.intp]
    linear: NDArray[np.intp]
    rows: Array
    right: Array
    lower: Array
    upper: Array
    transfer: Array

    @classmethod
    def of(cls, relaxation: Relaxation) -> Reduced:
        """The states of certain sign eliminated."""
        eq, signs = relaxation.equation, relaxation.signs
        alpha = eq.slope or 0.0
        opened = relaxation.open
        leaky = (signs == INACTIVE) & (alpha > 0)
        linear = np.flatnonzero((signs == ACTIVE) | leaky)
        factor = np.where(signs == ACTIVE, 1.0, alpha)[linear]
        gap = 1.0 - np.where(signs == ACTIVE, 1.0, alpha)[linear] * eq.a[linear]
        inputs = np.hstack([eq.A[np.ix_(linear, opened)], eq.B[linear], eq.b[linear, None]])
        K = np.diag(gap) - factor[:, None] * eq.A[np.ix_(linear, linear)]
        transfer = np.linalg.solve(K, factor[:, None] * inputs) if len(linear) else inputs
        S = np.hstack([eq.A[np.ix_(opened, opened)], eq.B[opened], eq.b[opened, None]])
        S = S + eq.A[np.ix_(opened, linear)] @ transfer
        k = len(opened)
        own = np.zeros_like(S)
        own[:, :k] = np.eye(k)
        above = (1.0 - eq.a[opened, None]) * own - S
        chord = relaxation.rise[opened, None] * S - own
        chord[:, -1] += relaxation.foot[opened]
        # Without a chord the row says nothing.
        chord[~np.isfinite(chord[:, -1])] = 0.0
        below = (1.0 - alpha * eq.a[opened, None]) * own - alpha * S
        rows = np.vstack([above, below, chord] if alpha else [above, chord])
        return cls(
            relaxation,
            opened,
            linear,
            rows[:, :-1],
            -rows[:, -1],
            np.concatenate([relaxation.x_lower[opened], relaxation.lower]),
            np.concatenate([relaxation.x_upper[opened], relaxation.upper]),
            transfer,
        )

    def costs(self, objective: Objective) -> Array:
        """The objective in v and u, (k + p,)."""
        k, p = len(self.open), len(self.relaxation.lower)
        costs = objective.states[self.linear] @ self.transfer[:, :-1]
        costs[:k] += objective.states[self.open]
        if objective.inputs is not None:
            costs[k : k + p] += objective.inputs
        return costs

    def multipliers(self, objective: Objective, dual: Array) -> Multipliers:
        """Those of all states, from those of the rows: stable states get what makes them vanish."""
        eq, signs = self.relaxation.equation, self.relaxation.signs
        alpha, n, k = eq.slope or 0.0, len(eq.a), len(self.open)
        lam, rho, mu = np.zeros(n), np.zeros(n), np.zeros(n)
        lam[self.open], mu[self.open] = dual[:k], dual[-k:] if k else 0.0
        if alpha:
            rho[self.open] = dual[k : 2 * k]
        nu = lam + alpha * rho - self.relaxation.rise * mu
        L = self.linear
        if len(L):
            active = signs[L] == ACTIVE
            factor = np.where(active, 1.0, alpha)
            K = np.diag(1.0 - factor * eq.a[L]) - factor[:, None] * eq.A[np.ix_(L, L)]
            own = np.linalg.solve(
                K.T, objective.states[L] + nu[self.open] @ eq.A[np.ix_(self.open, L)]
            )
            lam[L], rho[L] = np.where(active, own, 0.0), np.where(active, 0.0, own)
        return Multipliers(lam, rho, mu)

    def bounds(self, part: Relaxation) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Lower and upper bounds of (v, u), and the rows that are equations, under some signs."""
        lower, upper = self.lower.copy(), self.upper.copy()
        k = len(self.open)
        lower[:k], upper[:k] = part.x_lower[self.open], part.x_upper[self.open]
        equal = np.zeros(len(self.right), np.bool_)
        signs = part.signs[self.open]
        equal[:k] = signs == ACTIVE
        if part.equation.slope:
            equal[k : 2 * k] = signs == INACTIVE
        return lower, upper, equal

    def gaps(self, point: Array) -> Array:
        """How far above ψ of their drives the open states are at (v, u), (n,); zero elsewhere."""
        eq, k = self.relaxation.equation, len(self.open)
        alpha = eq.slope or 0.0
        a = eq.a[self.open]
        # The row (1 − a) v − s ≥ 0, less its right-hand side, tells s.
        s = (1.0 - a) * point[:k] - (self.rows[:k] @ point - self.right[:k])
        psi = np.where(s > 0, s / (1.0 - a), alpha * s / (1.0 - alpha * a))
        gaps = np.zeros(len(eq.a))
        gaps[self.open] = np.maximum(point[:k] - psi, 0.0)
        return gaps
