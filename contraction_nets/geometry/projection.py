"""Exact Euclidean projection onto row polytopes, in closed form (THEORY §3).

For a violating row v̂ the projection is ``v_s = v̂_s − λ w_s`` and
``v_j = sign(v̂_j) (|v̂_j| − λ w_j)₊``, where λ > 0 is the root of the convex, decreasing,
piecewise-linear

    g(λ) = w_s (v̂_s − λ w_s) + Σ_{j≠s} w_j (|v̂_j| − λ w_j)₊ − β.

In the ratios r_j = |v̂_j| / w_j this reads ``Σ w_j² (r_j − λ)₊``: one subtraction, one clip
and two matrix-vector products a step. Newton from λ = 0 increases monotonically and ends
after finitely many steps, without a sort. One kernel serves numpy arrays and torch
tensors, batched over rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from contraction_nets.geometry.rows import EPS, RowBatch, Rows, as_rows, safe_factor

Array = Any

_BLOCK = 2**15  # entries worked on at a time on a CPU, so that they stay in its cache
_CANCELLED = 64.0  # a sum this many times smaller than its terms has lost too many digits
_MOST_PASSES = 50  # each leaves 2**-50 of λ: enough for the range of a float64
_NEVER = -1e300  # the ratio of a coordinate that is never active; finite, for 0 · ratio is 0
_FLOAT32_BITS = -(2**29)  # mask of the bits of a float64 that a float32 holds


def project_rows(V: Array, rows: Rows) -> Array:
    """Project every row of V onto its polytope: argmin_X ‖X − V‖_F subject to `rows`.

    Parameters
    ----------
    V : (m, ...) array of float32 or float64, numpy or torch, on any device
        One polytope per entry of the first axis; the others are flattened.
    rows : Rows
        The polytopes.

    Returns
    -------
    array of the shape, dtype and device of V
        Rows already in their polytope keep every bit. The others satisfy their inequality
        in exact arithmetic *as stored*, and are within rounding of the exact projection.

    Raises
    ------
    ValueError
        Wrong shape or dtype, NaN or Inf, or a projection that overflows the dtype.
    """
    flat = as_rows(V, rows)
    factor = safe_factor(flat, rows)
    batch = rows.beside(V)
    result = batch.xp.asarray(V, copy=True)
    out = batch.xp.reshape(result, flat.shape)
    m, n = rows.shape
    height = max(1, _BLOCK // n) if _on_cpu(V) else m
    for start in range(0, m, height):
        block = slice(start, start + height)
        _project_block(flat[block], out[block], batch[block], factor)
    return result


def _on_cpu(V: Array) -> bool:
    return "cpu" in str(device(V))


def _project_block(V: Array, out: Array, batch: RowBatch, factor: float) -> None:
    """Write the projection of the violating rows of V into out."""
    feasible = batch.feasible(V, factor)
    if bool(feasible.all()):
        return
    if bool(feasible.any()):
        chosen = batch.xp.nonzero(~feasible)[0]
        out[chosen] = _project_violating(V[chosen], batch[chosen], factor)
    else:
        out[...] = _project_violating(V, batch, factor)


@np.errstate(over="ignore")  # an overflow is reported as a ValueError below
def _project_violating(V: Array, batch: RowBatch, factor: float) -> Array:
    xp, weights, bound, place = batch.xp, batch.weights, batch.bound, batch.place()
    values = xp.astype(V, xp.float64, copy=False)
    if factor != 1.0:
        values, bound = values * factor, bound * factor
    ratios = abs(values)
    ratios /= weights
    signed = None
    if place is not None:
        # The signed coordinate is never clipped: it leaves the matrix and is kept apart.
        signed = values[place] / weights[batch.signed]
        ratios[place] = _NEVER
    newton = _Newton(batch)
    root = newton.start(ratios, signed, bound)
    for _ in range(_MOST_PASSES):
        root, slope, total = newton.solve(ratios, signed, bound, root)
        if not bool((slope * abs(root) > _CANCELLED * (total + abs(bound))).any()):
            break
        # λ is so large beside what it leaves that its last digit matters: shift by it, and
        # find the small rest with all digits.
        ratios = ratios - root[:, None]
        signed, root = None if signed is None else signed - root, xp.zeros_like(root)
    margin = 2 * batch.error(total, bound) + 4 * EPS * slope * abs(root)
    while True:
        # A little beyond the root, for what rounding the row may add to the left-hand side.
        beyond = root + margin / slope
        shifted = xp.maximum(ratios - beyond[:, None], newton.zero)
        if place is None:  # only the zero row satisfies a bound of zero
            shifted = xp.where((bound > margin)[:, None], shifted, newton.zero)
        shifted *= weights
        projected = xp.copysign(shifted, values)
        if place is not None:
            projected[place] = (signed - beyond) * weights[batch.signed]
        if factor != 1.0:
            projected = projected / factor
        stored = _round_inwards(projected, place, V.dtype, xp)
        # Magnitudes only shrink; the signed coordinates can leave the range of the dtype.
        if place is not None and not bool(xp.isfinite(stored[place]).all()):
            raise ValueError(
                f"the projection does not fit in {V.dtype}, expected entries well below its "
                "largest number; rescale the matrix."
            )
        done = batch.feasible(stored, factor)
        if bool(done.all()):
            return stored
        _, error = batch.excess(stored, factor)
        margin = xp.where(done, margin, 2 * margin + error)


class _Newton:
    """Newton on g for a batch of rows; holds the weights, no state between calls."""

    def __init__(self, batch: RowBatch) -> None:
        self.xp = batch.xp
        self.squares = batch.weights * batch.weights
        self.zero = self.xp.zeros_like(self.squares[0])
        self.signed_square = None if batch.signed is None else self.squares[batch.signed]

    def start(self, ratios: Array, signed: Array | None, target: Array) -> Array:
        """A λ ≥ 0 at or before the root: that of the largest entry and the signed one alone."""
        xp = self.xp
        column = xp.argmax(ratios, axis=1)
        top = ratios[xp.arange(ratios.shape[0], device=device(ratios)), column]
        # A row of one signed coordinate has no other entry.
        top, slope = xp.maximum(top, self.zero), xp.where(top > 0, self.squares[column], 0.0)
        value = slope * top - target
        if signed is None:
            return xp.maximum(value / xp.where(slope > 0, slope, 1.0), self.zero)
        alone = signed - target / self.signed_square
        both = (value + self.signed_square * signed) / (slope + self.signed_square)
        return xp.maximum(xp.maximum(alone, both), self.zero)

    def solve(
        self, ratios: Array, signed: Array | None, target: Array, root: Array
    ) -> tuple[Array, Array, Array]:
        """The root λ of g for this target, the slope there and the absolute terms' sum."""
        xp = self.xp
        last = settled = None
        while True:
            active = xp.astype(ratios > root[:, None], xp.float64)
            slope = active @ self.squares
            active *= ratios
            value = active @ self.squares
            total = value - root * slope
            if signed is not None:
                term = signed * self.signed_square
                total, value = total + abs(term - root * self.signed_square), value + term
                slope += self.signed_square
            slope = xp.where(slope > 0, slope, 1.0)
            # The entries active at λ are nested in λ: an equal slope is the same set, on
            # which g is linear, so the last step ended on the root. After the first step λ
            # only grows, so that a larger slope is an entry at the root itself, in rounding.
            if settled is not None:
                settled |= slope >= last
            elif last is not None:
                settled = slope == last
            if settled is not None and bool(settled.all()):
                return root, slope, total
            last, root = slope, (value - target) / slope


def _round_inwards(X: Array, place: tuple[Array, Array] | None, dtype: Any, xp: Any) -> Array:
    """Cast to dtype towards the inside: magnitudes down, signed coordinates down."""
    if dtype == X.dtype:
        return X
    # Without the bits that float32 has no room for, a magnitude is truncated (but for its
    # subnormal numbers, where a row may have to come again).
    cast = xp.astype((X.view(xp.int64) & _FLOAT32_BITS).view(xp.float64), dtype)
    if place is not None:
        exact = X[place]
        signed = xp.astype(exact, dtype)
        outside = xp.astype(signed, X.dtype) > exact
        cast[place] = xp.where(outside, xp.nextafter(signed, xp.full_like(signed, -xp.inf)), signed)
    return cast
