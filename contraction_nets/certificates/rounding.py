"""Sums of nonnegative terms in float64, moved up by what rounding may have taken from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rounded_up(sums: Array, terms: int, factor: float) -> Array:
    """Upper bounds on sums of products, computed in any order.

    Parameters
    ----------
    sums : array
        Each computed from at most `terms` nonnegative products of two numbers, of which one may
        be a rounded difference.
    terms : int
    factor : float
        Largest of the numbers that were multiplied with: where a product underflows, a rounding
        (or a flush to zero) is not relative to it.

    Returns
    -------
    array of the shape of sums
        Inf where that overflows.
    """
    with np.errstate(all="ignore"):
        # One rounding for every term, those of difference and product, and this line's own.
        lost = terms * 2.0**-1021 * (1.0 + factor)
        return np.asarray(np.nextafter(sums * (1.0 + (terms + 8) * 2.0**-52) + lost, np.inf))
