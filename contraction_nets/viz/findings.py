"""The finding that a picture shows, as the sentence above it.

Every function takes the columns of the metrics, shape (epochs,), NaN where there is no number.
Bounds are rounded up and improvements down, so that the sentences stay true.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contraction_nets.viz.metrics import NothingToDrawError, last_known
from contraction_nets.viz.rounding import at_least, at_most

Array = NDArray[np.float64]

MEASURE_TOLERANCE = 1e-9
"""μ∞ is a floating-point sum: what exceeds γ by less, relative to max(1, |γ|), is rounding."""

AGREEMENT = 1e-6
"""Largest difference of an entry between two exact projections that still counts as none."""

_PRESSES = 1e-4  # relative to max(1, |γ|): what is closer to γ looks equal to it
_MANY_INPUTS = 16


def accuracy_finding(epochs: Array, accuracy: Array) -> str:
    """Where the accuracy, in per cent, ends, and where it was best."""
    last, best = last_known(accuracy), int(np.nanargmax(accuracy))
    verb = "ends at" if len(epochs) > 1 else "is"
    title = f"Test accuracy {verb} {accuracy[last]:.1f} % after {_count(epochs[last])}"
    if accuracy[best] > accuracy[last] + 0.05:
        title += f" (best: {accuracy[best]:.1f} % in epoch {epochs[best]:.0f})"
    return title


def loss_finding(epochs: Array, loss: Array) -> str:
    """Whether the loss falls, from where to where."""
    first, last = int(np.flatnonzero(np.isfinite(loss))[0]), last_known(loss)
    start, end = f"{loss[first]:.3g}", f"{loss[last]:.3g}"
    if start == end:
        return f"Test loss is {end} after {_count(epochs[last])}"
    verb = "falls" if loss[last] < loss[first] else "rises"
    return f"Test loss {verb} from {start} to {end} after {_count(epochs[last])}"


def measure_finding(measure: Array, gamma: Array) -> str:
    """Whether μ∞ stays within γ in the epochs that recorded both.

    Raises
    ------
    NothingToDrawError
        No epoch recorded both.
    """
    known = np.isfinite(measure) & np.isfinite(gamma)
    if not known.any():
        raise NothingToDrawError(
            "metrics hold no epoch with both mu_inf and gamma, expected at least one; "
            "leave this picture out."
        )
    bound = gamma[known]
    above = int((measure[known] > bound + MEASURE_TOLERANCE * np.maximum(1.0, abs(bound))).sum())
    value = f" = {bound[0]:.6g}" if (bound == bound[0]).all() else ""
    if len(known) == 1:
        where = "the only epoch"
    else:
        count = f"{above} of" if above else "all"
        where = f"{count} {len(bound)} {'epochs' if known.all() else 'measured epochs'}"
    return f"μ∞ {'exceeds' if above else 'stays within'} γ{value} in {where}"


def iterations_finding(epochs: Array, forward: Array, backward: Array) -> str:
    """Iterations in the last epoch that recorded them."""
    last = last_known(forward)
    title = f"An equilibrium takes {forward[last]:.1f} iterations"
    if np.isfinite(backward[last]):
        title += f", its gradient {backward[last]:.1f}"
    return title if len(epochs) == 1 else f"{title} (epoch {epochs[last]:.0f})"


def certificate_finding(epochs: Array, bound: Array, product: Array) -> str:
    """The last certified bound, and how far below the norm product it is."""
    last = last_known(bound)
    verb = "ends at" if last == len(epochs) - 1 > 0 else "is"
    title = f"The certified bound {verb} {at_most(bound[last])}"
    if 0 < bound[last] < product[last]:
        with np.errstate(over="ignore"):
            times = at_least(product[last] / bound[last], digits=2)
        title += f", {times} times smaller than the norm product"
    return title


def audit_finding(audit: Array) -> str:
    """Whether closed form and cvxpy agree, and to what."""
    worst, audited = float(np.nanmax(audit)), int(np.isfinite(audit).sum())
    shown = at_most(worst, digits=2)
    if worst > AGREEMENT:
        return f"Closed form and cvxpy differ by up to {shown} in an entry"
    where = "the audited epoch" if audited == 1 else f"all {audited} audited epochs"
    return f"Closed form and cvxpy agree {f'to {shown}' if worst else 'exactly'} in {where}"


def row_sums_finding(sums: Array, gamma: float | None, *, weighted: bool) -> str:
    """How many of the (n,) row sums reach or exceed γ."""
    n = len(sums)
    if gamma is None:
        kind = "weighted row" if weighted else "row"
        reach, median = at_most(sums.max()), f"{np.median(sums):.3g}"
        return f"The {kind} sums of A reach {reach}; their median is {median}"
    unit = max(1.0, abs(gamma))
    above = int((sums > gamma + MEASURE_TOLERANCE * unit).sum())
    pressed = int((sums > gamma - _PRESSES * unit).sum())
    if above:
        return f"{above} of {n} rows of A exceed{'s' * (above == 1)} γ = {gamma:.6g}"
    if pressed:
        verb = "presses" if pressed == 1 else "press"
        return f"{pressed} of {n} rows of A {verb} against γ = {gamma:.6g}, none exceeds it"
    return f"No row of A reaches γ = {gamma:.6g}"


def gains_finding(gains: Array) -> str:
    """Which row of the (q, p) gains is the largest, and how many inputs make half of it."""
    q, p = gains.shape
    sums = gains.sum(axis=1)
    top = int(sums.argmax())
    if not sums[top] > 0:
        return "No output reacts to any input"
    total = f"{at_most(sums[top], digits=3)} per unit of input"
    title = f"Output {top} can move most: {total}" if q > 1 else f"The output can move {total}"
    if p >= _MANY_INPUTS:
        largest = np.sort(gains[top])[::-1]
        half = int(np.searchsorted(np.cumsum(largest), sums[top] / 2)) + 1
        title += f", half of it from {half} of {p} inputs"
    return title


def _count(epochs: float) -> str:
    return "one epoch" if epochs == 1 else f"{epochs:.0f} epochs"
