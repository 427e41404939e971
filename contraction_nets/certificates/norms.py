"""Norms of a gain matrix: every ℓp → ℓq Lipschitz bound that follows from |Δy| ≤ Γ|Δu|.

For a nonnegative matrix the largest ‖Γx‖_q over ‖x‖_p ≤ 1 is attained at x ≥ 0, which gives it
in closed form where p or q is 1 or ∞. Between them norms are bounded by interpolation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from contraction_nets.geometry.measures import as_finite

Array = NDArray[np.float64]


def induced_norm(gains: Array, p: float, q: float) -> float:
    """Upper bound on max ‖Γx‖_q over ‖x‖_p ≤ 1 for Γ ≥ 0; exact up to rounding in these cases.

    =========  ===========================================
    p = ∞      ‖Γ1‖_q
    p = 1      the largest ‖column‖_q
    q = ∞      the largest ‖row‖_p*, with 1/p + 1/p* = 1
    q = 1      ‖Γᵀ1‖_p*
    p = q = 2  the largest singular value, by its Perron vector
    =========  ===========================================

    Elsewhere the least of what ‖x‖_r ≥ ‖x‖_s for r ≤ s and Riesz–Thorin interpolation of the
    cases above give.

    Parameters
    ----------
    gains : (m, n) array
        Γ, nonnegative.
    p, q : float
        At least one; ``math.inf`` for the maximum norm.

    Returns
    -------
    float
        Rounded up; inf beyond the largest float64.

    Raises
    ------
    ValueError
        A negative entry, or a p or q below one.

    Examples
    --------
    >>> G = [[1.0, 2.0], [0.0, 2.0]]
    >>> [round(induced_norm(G, p, q), 6) for p, q in ((math.inf, math.inf), (1, math.inf), (2, 2))]
    [3.0, 2.0, 2.92081]
    """
    G = as_finite(gains, "gains")
    if G.ndim != 2 or G.size == 0 or (G < 0).any():
        raise ValueError(
            f"gains have shape {G.shape} and minimum {G.min(initial=math.inf):.3g}, expected a "
            "nonnegative matrix; use certificate.gains."
        )
    for name, value in (("p", p), ("q", q)):
        if not value >= 1:
            raise ValueError(f"got {name} = {value!r}, expected a number of at least one.")
    scale = float(G.max())
    if scale == 0.0:
        return 0.0
    exponent = math.frexp(scale)[1]
    G = np.ldexp(G, -exponent)
    best = min(_bounds(G, float(p), float(q)))
    # Each sum, power and root rounds relatively, and a denormal that was dropped is below one.
    best = best * (1.0 + 2.0**-52 * 16 * (sum(G.shape) + 64)) + 2.0**-1000
    try:
        return math.nextafter(math.ldexp(best, exponent), math.inf)
    except OverflowError:
        return math.inf


def _bounds(G: Array, p: float, q: float) -> list[float]:
    """Upper bounds on the norm, up to rounding."""
    if math.inf in (p, q) or 1.0 in (p, q):
        return [_closed_form(G, p, q)]
    if p == q == 2.0:
        return [_spectral_norm(G)]
    found = [_interpolated(G, r) for r in ((p, q) if p <= q else ())]
    if p > q:
        # ‖x‖_q ≤ n^(1/q − 1/p) ‖x‖_p, for the input or for the output.
        factor = 1.0 / q - 1.0 / p
        found += [
            _interpolated(G, q) * G.shape[1] ** factor,
            _interpolated(G, p) * G.shape[0] ** factor,
            _closed_form(G, math.inf, q),
            _closed_form(G, p, 1.0),
        ]
    else:
        found += [_closed_form(G, p, 1.0), _closed_form(G, math.inf, q)]
    return found


def _closed_form(G: Array, p: float, q: float) -> float:
    dual = math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1.0)
    if p == math.inf:
        return _length(G.sum(axis=1), q)
    if p == 1:
        return max(_length(column, q) for column in G.T)
    if q == math.inf:
        return max(_length(row, dual) for row in G)
    return _length(G.sum(axis=0), dual)


def _interpolated(G: Array, r: float) -> float:
    """‖Γ‖_{r→r} ≤ ‖Γ‖_{1→1}^{1/r} ‖Γ‖_{∞→∞}^{1−1/r}, and through 2 where that lies between."""
    one, largest, two = G.sum(axis=0).max(), G.sum(axis=1).max(), _spectral_norm(G)
    ends = [float(one ** (1.0 / r) * largest ** (1.0 - 1.0 / r))]
    if r <= 2:  # 1/r = t + (1 − t)/2
        t = 2.0 / r - 1.0
        ends.append(float(one**t * two ** (1.0 - t)))
    if r >= 2:  # 1/r = (1 − t)/2
        t = 1.0 - 2.0 / r
        ends.append(float(largest**t * two ** (1.0 - t)))
    return min(ends)


def _spectral_norm(G: Array) -> float:
    """Schur's test: ‖Γ‖₂² ≤ max_i (ΓᵀΓx)_i / x_i for every x > 0, close for the Perron vector."""
    H = G.T @ G if G.shape[1] <= G.shape[0] else G @ G.T
    best, x = math.inf, np.ones(len(H))
    for _ in range(200):
        product = H @ x
        ratio = float((product / x).max())
        if ratio >= best * (1.0 - 1e-15):
            break
        best = ratio
        # A component never vanishes: the bound holds for every positive vector.
        x = np.maximum(product / product.max(), 1e-12)
    return math.sqrt(best)


def _length(values: Array, r: float) -> float:
    largest = float(values.max())
    if r == math.inf or largest == 0.0:
        return largest
    return largest * float(((values / largest) ** r).sum() ** (1.0 / r))
