"""Lower bounds on linear functions of states and inputs, sound for any multipliers (THEORY §8).

At the equilibrium x_i = ψ_i(s_i), where s = A x + B u + b has no diagonal and ψ_i is the
resolvent of a relu or leaky relu of slope α: positively homogeneous, so that the diagonal a is
divided out, x_i = s_i/(1 − a_i) above zero and α s_i/(1 − α a_i) below. With s_i in [l_i, h_i],

    (1 − a_i) x_i ≥ s_i,   (1 − α a_i) x_i ≥ α s_i,   x_i ≤ κ_i s_i + τ_i,

the third being a chord; the first is an equation where s_i ≥ 0, the second where s_i ≤ 0. For any
multipliers λ, ρ, μ of the three, nonnegative for the inequalities, the Lagrangian is linear in x
and u, and its minimum over the boxes is a lower bound. No division is left in it, nothing is
eliminated, and every rounding is counted: whoever proposes multipliers can make the bound weak,
never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from contraction_nets.robustness.enclosure import Boxes, drive_bounds, fixed_drive
from contraction_nets.robustness.equation import TINY, UNIT, Equation

Array = NDArray[np.float64]
Signs = NDArray[np.int8]

INACTIVE, OPEN, ACTIVE = -1, 0, 1

_UNDERFLOW = 2.0**-900  # more than a product that underflows, divided by any gap


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Of the three constraints of every state; any numbers.

    Attributes
    ----------
    above, below, chord : (n,) arrays
        λ, ρ and μ.
    """

    above: Array
    below: Array
    chord: Array


@dataclass(frozen=True, eq=False)
class Objective:
    """y_t − y_k as a function of states and inputs.

    Attributes
    ----------
    states : (n,) array
    inputs : (p,) array or None
        None where the outputs have no feed-through.
    constant : float
    """

    states: Array
    inputs: Array | None
    constant: float

    @classmethod
    def of(cls, equation: Equation, label: int, other: int) -> Objective:
        """The margin of one output over another; each entry is rounded at most once."""
        D = equation.D
        return cls(
            equation.C[label] - equation.C[other],
            None if D is None else D[label] - D[other],
            float(equation.c[label] - equation.c[other]),
        )

    @classmethod
    def nothing(cls, equation: Equation) -> Objective:
        """Zero: a positive lower bound of it proves that there is nothing to minimize over."""
        return cls(np.zeros(len(equation.a)), None, 0.0)


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What is known of the states of one sample, some of whose signs may be assumed.

    Attributes
    ----------
    equation : Equation
        Of relu or leaky relu.
    lower, upper : (p,) arrays
        The inputs.
    x_lower, x_upper, s_lower, s_upper : (n,) arrays
        States and their drives.
    signs : (n,) array of int8
        ACTIVE where s ≥ 0, INACTIVE where s ≤ 0, proved or assumed; OPEN elsewhere.
    rise, foot : (n,) arrays
        κ and τ of the chords, drawn where no sign was assumed yet; τ is inf where there is none.
    fixed : tuple of arrays
        Of `fixed_drive`.
    empty : bool
        Whether the bounds exclude each other: no equilibrium has the assumed signs.
    """

    equation: Equation
    lower: Array
    upper: Array
    x_lower: Array
    x_upper: Array
    s_lower: Array
    s_upper: Array
    signs: Signs
    rise: Array
    foot: Array
    fixed: tuple[Array, Array, Array]
    empty: bool = False

    @classmethod
    def of(cls, equation: Equation, boxes: Boxes, row: int) -> Relaxation:
        """That of one sample of which a box is proved."""
        s_lower, s_upper = boxes.drive_lower[row], boxes.drive_upper[row]
        signs = np.where(s_upper <= 0, INACTIVE, np.where(s_lower >= 0, ACTIVE, OPEN))
        start = cls(
            equation,
            boxes.lower[row],
            boxes.upper[row],
            boxes.state_lower[row],
            boxes.state_upper[row],
            s_lower,
            s_upper,
            signs.astype(np.int8),
            *_chords(equation, s_lower, s_upper, signs == OPEN),
            fixed_drive(equation, boxes.lower[row : row + 1], boxes.upper[row : row + 1]),
        )
        return start._cut()

    @property
    def open(self) -> NDArray[np.intp]:
        """The states whose sign is neither proved nor assumed."""
        return np.flatnonzero(self.signs == OPEN)

    def assuming(self, state: int, sign: int, rounds: int = 3) -> Relaxation:
        """The same where the drive of one state has this sign, its consequences drawn."""
        signs = self.signs.copy()
        signs[state] = sign
        s_lower, s_upper = self.s_lower.copy(), self.s_upper.copy()
        if sign == ACTIVE:
            s_lower[state] = max(s_lower[state], 0.0)
        else:
            s_upper[state] = min(s_upper[state], 0.0)
        part = replace(self, signs=signs, s_lower=s_lower, s_upper=s_upper)._cut()
        for _ in range(rounds):
            before = part.open
            part = part._tightened()
            if part.empty or len(part.open) == len(before):
                break
        return part

    def _tightened(self) -> Relaxation:
        """With the drives that its box of states allows: every equilibrium in it has them."""
        with np.errstate(all="ignore"):
            box = self.x_lower[None], self.x_upper[None]
            low, high = drive_bounds(self.equation, *box, self.fixed)
        s_lower, s_upper = np.fmax(self.s_lower, low[0]), np.fmin(self.s_upper, high[0])
        signs = self.signs.copy()
        signs[(signs == OPEN) & (s_upper <= 0)] = INACTIVE
        signs[(signs == OPEN) & (s_lower >= 0)] = ACTIVE
        return replace(self, s_lower=s_lower, s_upper=s_upper, signs=signs)._cut()

    def _cut(self) -> Relaxation:
        """With the box of states cut down to ψ of the drives."""
        x_lower = np.fmax(self.x_lower, resolved(self.equation, self.s_lower)[0])
        x_upper = np.fmin(self.x_upper, resolved(self.equation, self.s_upper)[1])
        empty = bool((x_lower > x_upper).any() or (self.s_lower > self.s_upper).any())
        return replace(self, x_lower=x_lower, x_upper=x_upper, empty=self.empty or empty)

    def lower_bound(self, objective: Objective, multipliers: Multipliers | None = None) -> float:
        """A number that the objective is not below at any equilibrium, −inf where there is none.

        Without multipliers it is the bound of interval arithmetic.
        """
        with np.errstate(all="ignore"):
            value = self._lagrangian(objective, multipliers)
        return value if value == value and value < np.inf else -np.inf

    def _lagrangian(self, objective: Objective, multipliers: Multipliers | None) -> float:
        eq = self.equation
        n, p = len(eq.a), len(self.lower)
        d = np.zeros(p) if objective.inputs is None else objective.inputs
        x_size = np.maximum(np.abs(self.x_lower), np.abs(self.x_upper))
        u_size = np.maximum(np.abs(self.lower), np.abs(self.upper))
        # What underflows in a product may be multiplied with the two factors that are left.
        scale = (1.0 + float(x_size.max() + u_size.max())) * (1.0 + eq.largest)
        g, g_size = objective.states, np.abs(objective.states)
        h, h_size = d, np.abs(d)
        constant, size = objective.constant, abs(objective.constant)
        if multipliers is not None:
            lam, rho, mu = self._valid(multipliers)
            # Where there is no chord, μ is zero.
            kappa, foot = self.rise, np.where(mu > 0, self.foot, 0.0)
            alpha = eq.slope or 0.0
            # ν multiplies s in the Lagrangian; `weight` is the sum of magnitudes in it.
            nu = lam + alpha * rho - kappa * mu
            weight = np.abs(lam) + alpha * np.abs(rho) + kappa * mu
            gap, low_gap = 1.0 - eq.a, 1.0 - alpha * eq.a
            g = g - gap * lam - low_gap * rho + mu + nu @ eq.A
            own = np.abs(eq.a) + 1.0
            g_size = g_size + own * (np.abs(lam) + np.abs(rho)) + mu + weight @ eq.A_abs
            h = h + nu @ eq.B
            h_size = h_size + weight @ eq.B_abs
            scale *= 1.0 + float(kappa.max())
            constant = constant + float(eq.b @ nu - mu @ foot)
            size += float(np.abs(eq.b) @ weight + mu @ np.abs(foot))
        value = constant
        value += float(np.minimum(g * self.x_lower, g * self.x_upper).sum())
        value += float(np.minimum(h * self.lower, h * self.upper).sum())
        # Every number above is a sum of fewer than `terms` products of three numbers or fewer.
        terms = 2 * eq.terms + n + p
        magnitude = size + float(g_size @ x_size + h_size @ u_size)
        lost = 4 * terms * UNIT * magnitude + TINY * scale
        return float(np.nextafter(value - lost, -np.inf))

    def _valid(self, given: Multipliers) -> tuple[Array, Array, Array]:
        """λ, ρ, μ with the signs that make the bound valid."""
        lam, rho, mu = (
            np.where(np.isfinite(m), m, 0.0) for m in (given.above, given.below, given.chord)
        )
        lam = np.where(self.signs == ACTIVE, lam, np.maximum(lam, 0.0))
        rho = np.where(self.signs == INACTIVE, rho, np.maximum(rho, 0.0))
        return lam, rho, np.where(np.isfinite(self.foot), np.maximum(mu, 0.0), 0.0)


def _chords(
    equation: Equation, low: Array, high: Array, wanted: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """κ and τ with κ s + τ ≥ ψ(s) on [low, high]; zero and inf where it is not wanted.

    ψ is convex, so the chord lies above it where it does so at both ends.
    """
    with np.errstate(all="ignore"):
        start, end = resolved(equation, low)[1], resolved(equation, high)[1]
        width = np.nextafter(high - low, -np.inf)
        rise = np.nextafter(np.nextafter(end - start, np.inf) / width, np.inf)
        rise = np.maximum(rise, 0.0)
        pull = rise * low
        foot = start - pull
        foot = np.nextafter(foot + UNIT * (np.abs(start) + np.abs(pull)) + _UNDERFLOW, np.inf)
    usable = wanted & (width > 0) & np.isfinite(rise) & np.isfinite(foot)
    return np.where(usable, rise, 0.0), np.where(usable, foot, np.inf)


def resolved(equation: Equation, s: Array) -> tuple[Array, Array]:
    """Numbers below and above ψ(s), entry by entry, for relu or leaky relu."""
    alpha = equation.slope
    if alpha is None:
        raise ValueError(f"got the activation {equation.activation}, expected relu or leaky_relu.")
    a = equation.a
    with np.errstate(all="ignore"):
        gap = 1.0 - a
        gap_low, gap_high = np.nextafter(gap, -np.inf), np.nextafter(gap, np.inf)
        # 1 − αa twice rounded: where it is small, the rounding of αa is what counts.
        product = alpha * a
        thin = 1.0 - np.nextafter(product, np.inf), 1.0 - np.nextafter(product, -np.inf)
        thin_low, thin_high = np.nextafter(thin[0], -np.inf), np.nextafter(thin[1], np.inf)
        above = s >= 0
        low = np.where(above, s / gap_high, alpha * s / thin_low)
        high = np.where(above, s / gap_low, alpha * s / thin_high)
        low = np.nextafter(np.nextafter(low - _UNDERFLOW, -np.inf), -np.inf)
        high = np.nextafter(np.nextafter(high + _UNDERFLOW, np.inf), np.inf)
        # A gap that rounding may close bounds nothing on the side of the larger values.
        low = np.where(~above & ~(thin_low > 0), -np.inf, low)
        high = np.where(above & ~(gap_low > 0), np.inf, high)
    if alpha == 0.0:
        low, high = np.where(above, np.maximum(low, 0.0), 0.0), np.where(above, high, 0.0)
    # What overflowed to NaN bounds nothing; the sign of ψ is that of s.
    low = np.where(above, np.fmax(low, 0.0), np.where(np.isnan(low), -np.inf, low))
    high = np.where(above, np.where(np.isnan(high), np.inf, high), np.fmin(high, 0.0))
    return low, high
