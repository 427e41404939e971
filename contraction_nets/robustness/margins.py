"""Bounds on margins y_t − y_k for many samples at once: from global gains and from boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.lipschitz import lipschitz_certificate
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.errors import SolverError
from contraction_nets.robustness.enclosure import Boxes, centred
from contraction_nets.robustness.equation import TINY, UNIT, Equation

Array = NDArray[np.float64]


def pairwise_gains(weights: ImplicitWeights) -> Array:
    """|Δ(y_i − y_j)| ≤ G_ij max|Δu|, (q, q), rounded up; inf where no bound fits in float64.

    Raises
    ------
    NotWellPosedError
        As `lipschitz_certificate`.
    """
    try:
        return lipschitz_certificate(weights).pairwise_gains()
    except (SolverError, ValueError):  # entries out of the range of float64
        return np.full((weights.output_dim, weights.output_dim), np.inf)


def margin_bounds(
    equation: Equation, boxes: Boxes, labels: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Bounds on y_t − y_k over every box, by the relative classifier (THEORY §7).

    Parameters
    ----------
    equation : Equation
    boxes : Boxes
        Of m samples.
    labels : (m,) integer array
        t of each.

    Returns
    -------
    lower, upper : (m, q) arrays
        Rounded outward; zero for k = t, infinite where nothing is known.
    """
    lower = np.zeros((len(labels), len(equation.C)))
    upper = np.zeros_like(lower)
    with np.errstate(all="ignore"):
        x, r = centred(boxes.state_lower, boxes.state_upper)
        u, v = centred(boxes.lower, boxes.upper)
        for t in np.unique(labels):
            rows = labels == t
            lower[rows], upper[rows] = _margins(
                equation, int(t), x[rows], r[rows], u[rows], v[rows]
            )
            lower[rows, t] = upper[rows, t] = 0.0
    open_ = ~(np.isfinite(lower) & np.isfinite(upper))
    return np.where(open_, -np.inf, lower), np.where(open_, np.inf, upper)


def global_margins(centre: Array, gains: Array, labels: NDArray[np.intp], radius: float) -> Array:
    """Lower bounds of y_t − y_k within a radius of inputs where they are at least `centre`."""
    with np.errstate(all="ignore"):
        reach = np.nextafter(gains[labels] * radius, np.inf) + TINY
        margins = np.nextafter(centre - reach, -np.inf)
    margins[np.arange(len(labels)), labels] = 0.0
    return np.where(np.isnan(margins), -np.inf, margins)


def _margins(
    equation: Equation, t: int, x: Array, r: Array, u: Array, v: Array
) -> tuple[Array, Array]:
    """Those of one label, x ± r and u ± v being the boxes."""
    C = equation.C[t] - equation.C
    c = equation.c[t] - equation.c
    y, spread = x @ C.T + c, r @ np.abs(C).T
    size = np.abs(x) @ np.abs(C).T + np.abs(c) + spread
    if equation.D is not None:
        D = equation.D[t] - equation.D
        y, spread = y + u @ D.T, spread + v @ np.abs(D).T
        size = size + (np.abs(u) + v) @ np.abs(D).T
    spread = spread + (equation.terms * UNIT * size + TINY)
    return np.nextafter(y - spread, -np.inf), np.nextafter(y + spread, np.inf)
