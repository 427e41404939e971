"""Boxes that provably hold the equilibria of all inputs in a box, in float64 (THEORY §7).

For a fixed input, T(x) = J(A x + B u + b) with the resolvent J of φ has one fixed point, the
equilibrium. A box X with T(X) ⊆ X for all inputs of a box holds a fixed point of each of them
(Brouwer), which is the equilibrium. So any proposal will do: what is proved is T(X) ⊆ X, with all
roundings outward. J need not be computed: x − φ(a x + s) increases in x wherever the equation is
well-posed, so that J(s) ≤ x follows from φ(a x + s) ≤ x.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contraction_nets.errors import ConvergenceWarning
from contraction_nets.nn.equilibrium import solve_equilibrium
from contraction_nets.robustness.embedding import Embedded, embedded_weight
from contraction_nets.robustness.equation import TINY, UNIT, Equation

Array = NDArray[np.float64]

_PLAIN_STEPS = 100
_TOLERANCE = 2.0**-42  # relative to the largest state of a sample
_INFLATIONS = 24


@dataclass(frozen=True, eq=False)
class Boxes:
    """For each of m samples a box of inputs and one that holds all of their equilibria.

    Attributes
    ----------
    lower, upper : (m, p) arrays
        The inputs.
    state_lower, state_upper : (m, n) arrays
        The states; NaN where no box could be proved.
    drive_lower, drive_upper : (m, n) arrays
        The sums s = A x + B u + b without the diagonal of A.
    proved : (m,) boolean array
    """

    lower: Array
    upper: Array
    state_lower: Array
    state_upper: Array
    drive_lower: Array
    drive_upper: Array
    proved: NDArray[np.bool_]

    def take(self, rows: slice | NDArray[np.intp]) -> Boxes:
        """Some of the samples."""
        return Boxes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def enclose(equation: Equation, lower: Array, upper: Array) -> Boxes:
    """Boxes of states for boxes of inputs, rounded outward.

    Parameters
    ----------
    equation : Equation
    lower, upper : (m, p) arrays
        Finite, lower ≤ upper; for lower = upper a box is an equilibrium with an error bound.

    Returns
    -------
    Boxes
        A sample whose sums leave the range of float64 is not `proved`.
    """
    with np.errstate(all="ignore"):
        fixed = fixed_drive(equation, lower, upper)
        low, high = _proposal(equation, fixed[0], fixed[1])
        result = _proved(equation, low, high, fixed)
    return Boxes(lower, upper, *result)


def fixed_drive(equation: Equation, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """B u + b at the centre of a box of inputs, its radius, and the magnitudes in the two."""
    u, u_radius = centred(lower, upper)
    drive = u @ equation.B.T + equation.b
    spread = u_radius @ equation.B_abs.T
    size = np.abs(u) @ equation.B_abs.T + np.abs(equation.b)
    return drive, spread, size + spread


def drive_bounds(
    equation: Equation, low: Array, high: Array, fixed: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    """Bounds on s = A x + B u + b over a box of states, outward, (m, n) each.

    `fixed` is what `fixed_drive` says of the box of inputs.
    """
    drive, spread, size = fixed
    centre, radius = centred(low, high)
    reach = radius @ equation.A_abs.T
    s = centre @ equation.A.T + drive
    r = reach + spread
    total = np.abs(centre) @ equation.A_abs.T + reach + size
    r = r + (equation.terms * UNIT * total + TINY)
    return np.nextafter(s - r, -np.inf), np.nextafter(s + r, np.inf)


def centred(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Centre, and a radius that reaches both ends in exact arithmetic."""
    centre = lower / 2 + upper / 2
    radius = np.maximum(upper - centre, centre - lower)
    return centre, np.where(radius == 0, 0.0, np.nextafter(radius, np.inf))


def _proposal(equation: Equation, drive: Array, spread: Array) -> tuple[Array, Array]:
    """The box in floating point, as far as the iterations come."""
    low = high = np.zeros_like(drive)
    for _ in range(_PLAIN_STEPS):
        centre, radius = (low + high) / 2, (high - low) / 2
        s, r = centre @ equation.A.T + drive, radius @ equation.A_abs.T + spread
        previous = low, high
        low, high = equation.resolvent(s - r), equation.resolvent(s + r)
        change = np.maximum(np.abs(low - previous[0]), np.abs(high - previous[1]))
        size = np.maximum(np.abs(low), np.abs(high)).max(axis=1, keepdims=True)
        if not (change > _TOLERANCE * size).any():
            return low, high
    return _slow_proposal(equation, np.hstack([drive - spread, drive + spread]))


def _slow_proposal(equation: Equation, ends: Array) -> tuple[Array, Array]:
    """The same near the limit of well-posedness, where the plain iteration takes too long."""
    A = torch.from_numpy(equation.A + np.diag(equation.a))
    with warnings.catch_warnings():
        # What is left of the residual makes the box wider, not wrong.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = solve_equilibrium(
            Embedded(embedded_weight(A)),
            torch.from_numpy(ends),
            equation.activation,
            iteration="anderson",
            tol=_TOLERANCE,
        )
    low, high = (part.numpy() for part in found.x.chunk(2, dim=1))
    return low, np.maximum(low, high)


def _proved(
    equation: Equation, low: Array, high: Array, fixed: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, Array, NDArray[np.bool_]]:
    """The proposal, inflated until T maps it into itself; and what T makes of it."""
    steps = np.maximum(1.0, 1.0 - equation.a)
    inner, outer, _, _ = _mapped(equation, low, high, fixed)
    gap = np.maximum(np.maximum(low - inner, outer - high), 0.0)
    # |x| ≤ (I − M)⁻¹ max(1, 1 − a)|residual|, as of any computed equilibrium (THEORY §6).
    width = np.abs(equation.system.solve((gap * steps).T)).T
    proved = np.zeros(len(low), np.bool_)
    shape = len(low), len(equation.a)
    found = [np.full(shape, np.nan) for _ in range(4)]
    for k in range(_INFLATIONS):
        left = np.flatnonzero(~proved)
        if not len(left):
            break
        delta = width[left] * (1.0 + 2.0 ** (k - 8)) + TINY
        box = low[left] - delta, high[left] + delta
        if equation.slope == 0.0:
            box = np.maximum(box[0], 0.0), np.maximum(box[1], 0.0)
        inner, outer, s_low, s_high = _mapped(
            equation, *box, (fixed[0][left], fixed[1][left], fixed[2][left])
        )
        holds = ((inner >= box[0]) & (outer <= box[1]) & np.isfinite(s_low + s_high)).all(axis=1)
        rows = left[holds]
        proved[rows] = True
        for target, values in zip(found, (*box, s_low, s_high), strict=True):
            target[rows] = values[holds]
    # A relu that is certainly off is zero, without the inflation.
    if equation.slope == 0.0:
        off = found[3] <= 0
        found[0][off] = found[1][off] = 0.0
    return found[0], found[1], found[2], found[3], proved


def _mapped(
    equation: Equation, low: Array, high: Array, fixed: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """φ(a x + s) below at x = low and above at x = high, and s below and above, outward."""
    s_low, s_high = drive_bounds(equation, low, high, fixed)
    ends = []
    for x, s, side in ((low, s_low, -np.inf), (high, s_high, np.inf)):
        pull = equation.a * x
        v = pull + s
        off = UNIT * (np.abs(pull) + np.abs(s)) + TINY
        v = np.nextafter(v + off if side > 0 else v - off, side)
        ends.append(equation.image(v)[side > 0])
    return ends[0], ends[1], s_low, s_high
