"""Numbers for people, rounded to the side on which a statement about them stays true."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def at_most(value: float, *, digits: int = 4) -> str:
    """Decimal of this many significant digits that is not below value: for upper bounds.

    Examples
    --------
    >>> at_most(86.641)
    '86.65'
    """
    return _rounded(value, digits, ROUND_CEILING)


def at_least(value: float, *, digits: int = 3) -> str:
    """Decimal of this many significant digits that is not above value: for improvements.

    Examples
    --------
    >>> at_least(6.48, digits=2)
    '6.4'
    """
    return _rounded(value, digits, ROUND_FLOOR)


def percent(share: float) -> str:
    """A share in [0, 1] in per cent, never 0 or 100 for one that is neither.

    Examples
    --------
    >>> percent(0.9999), percent(0.027), percent(0.0)
    ('>99.9 %', '2.7 %', '0 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if share < 0.001 or share > 0.999:
        return "<0.1 %" if share < 0.5 else ">99.9 %"
    return f"{100 * share:.1f} %"


def _rounded(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "unknown")
    exact = Context(prec=digits, rounding=rounding).plus(Decimal(value)).normalize()
    if exact.is_zero():
        return "0"
    return f"{exact:f}" if -4 <= exact.adjusted() < 7 else f"{exact:e}"
