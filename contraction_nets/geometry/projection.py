"""Exact Euclidean projection onto row polytopes, in closed form (THEORY §3).

For a violating row v̂ the projection is ``v_s = v̂_s − λ w_s`` and
``v_j = sign(v̂_j) (|v̂_j| − λ w_j)₊``, where λ > 0 is the root of the convex, decreasing,
piecewise-linear

    g(λ) = w_s (v̂_s − λ w_s) + Σ_{j≠s} w_j (|v̂_j| − λ w_j)₊ − β.

In the ratios r_j = |v̂_j| / w_j the sum is ``Σ w_j² (r_j − λ)₊``: a comparison and two
matrix-vector products a step. A tangent of a convex function lies below it, so that Newton is
at or before the root after one step from anywhere; from there it increases and ends after
finitely many steps, without a sort. One kernel serves numpy arrays and torch tensors, batched
over rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from contraction_nets.geometry.rows import EPS, RowBatch, Rows, as_rows, judge, namespace

Array = Any

_BLOCK = 2**16  # entries worked on at a time on a CPU, so that they stay in its cache
_CANCELLED = 64.0  # a sum this many times smaller than its terms has lost too many digits
_MANY = 2**14  # entries of settled rows that are worth leaving out
_SAFE = 1.0 - 2.0**-30  # times a computed root: at or before the exact one
_MOST_PASSES = 80  # each leaves 2**-30 of λ: enough for the range of a float64
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
    index, projected = project_violating(V, rows)
    xp = namespace(V)
    if index.shape[0] == V.shape[0]:
        return xp.reshape(projected, V.shape)
    result = xp.asarray(V, copy=True)
    if index.shape[0]:
        xp.reshape(result, rows.shape)[index] = projected
    return result


@np.errstate(over="ignore", invalid="ignore")  # what overflows is met again as an error
def project_violating(V: Array, rows: Rows) -> tuple[Array, Array]:
    """The rows of V outside their polytope: their numbers (k,), their projections (k, n).

    Parameters, errors and what holds for the projections are those of `project_rows`.
    """
    flat = as_rows(V, rows)
    batch, feasible, excess = judge(flat, rows)
    index = batch.xp.nonzero(~feasible)[0]
    count, (m, n) = index.shape[0], rows.shape
    height = max(1, _BLOCK // n) if str(V.device) == "cpu" else m
    pieces = []
    for start in range(0, count, height):
        block = slice(start, start + height)
        chosen = block if count == m else index[block]
        pieces.append(_project(flat[chosen], batch[chosen], excess[chosen]))
    if len(pieces) == 1:
        return index, pieces[0]
    return index, batch.xp.concat(pieces) if pieces else flat[index]


def _project(V: Array, batch: RowBatch, excess: Array) -> Array:
    """The projection of rows that all violate their inequality, by `excess`."""
    newton = _Newton(batch)
    values = batch.values(V)
    # One step from zero, where every entry is active.
    lowest = excess / batch.rows.sum_of_squares
    for _ in range(_MOST_PASSES):
        root, slope = newton.solve(values, lowest)
        moved, error = slope * root, batch.error(newton.total(values, root))
        lost = batch.error(moved) > _CANCELLED * error
        if batch.place is None:
            lost = lost & (batch.bound > 0)
        if not bool(lost.any()):
            break
        # λ is so large beside what it leaves that its last digit matters: take most of it
        # off, and find the small rest with all digits.
        values, lowest = newton.shrunk(values, root * _SAFE), batch.xp.zeros_like(root)
    margin = 2 * error + 4 * EPS * moved
    while True:
        # A little beyond the root, for what rounding the row may add to the left-hand side.
        beyond = root + margin / slope
        if batch.place is None:  # only the zero row satisfies a bound of zero
            beyond = batch.xp.where(batch.bound > margin, beyond, batch.xp.inf)
        projected = newton.shrunk(values, beyond)
        if batch.factor != 1.0:
            projected = projected / batch.factor
        stored = _round_inwards(projected, batch.place, V.dtype, batch.xp)
        excess, error = batch.excess(stored)
        done = batch.feasible(stored, excess, error)
        if bool(done.all()):
            return stored
        # Magnitudes only shrink; the signed coordinates can leave the range of the dtype.
        if not bool(batch.xp.isfinite(error).all()):
            raise ValueError(
                f"the projection does not fit in {V.dtype}, expected entries well below its "
                "largest number; rescale the matrix."
            )
        margin = batch.xp.where(done, margin, 2 * margin + error)


class _Newton:
    """Newton on g, for all rows of a batch at once."""

    def __init__(self, batch: RowBatch) -> None:
        self.xp, self.batch, self.plain = batch.xp, batch, batch.rows.plain
        self.squares = batch.weights if self.plain else batch.weights * batch.weights

    def shrunk(self, values: Array, root: Array) -> Array:
        """The rows that λ leaves: ``sign(v_j) (|v_j| − λ w_j)₊``, signed ones ``v_s − λ w_s``."""
        batch, limit = self.batch, root[:, None]
        if not self.plain:
            limit = limit * batch.weights
        result = values - self.xp.minimum(self.xp.maximum(values, -limit), limit)
        if batch.place is not None:
            result[batch.place] = values[batch.place] - root * batch.signed_weights
        return result

    def total(self, values: Array, root: Array) -> Array:
        """Sum of the absolute terms of the row at the root, where they balance the bound."""
        batch = self.batch
        if batch.place is None:
            return abs(batch.bound)
        signed = batch.signed_weights * (values[batch.place] - root * batch.signed_weights)
        return abs(batch.bound - signed) + abs(signed)

    def solve(self, values: Array, lowest: Array) -> tuple[Array, Array]:
        """The root λ of g and −g' there, from a λ ≥ 0 at or before it."""
        xp, batch = self.xp, self.batch
        ratios = abs(values)
        if not self.plain:
            ratios /= batch.weights
        target, fixed = batch.bound, None
        if batch.place is not None:
            # The signed coordinate is never clipped: it leaves the sum and is kept apart.
            fixed = batch.signed_weights if self.plain else batch.signed_weights**2
            target = target - batch.signed_weights * values[batch.place]
            ratios[batch.place] = _NEVER
        active = xp.empty_like(ratios)
        found: Any = None  # root and slope of all rows, once some are left out,
        rows: Any = None  # and which the others are
        last = settled = None
        root = lowest
        while True:
            above = active[: ratios.shape[0]]
            above[...] = ratios > root[:, None]
            slope = above @ self.squares
            above *= ratios
            value = above @ self.squares
            slope = xp.where(slope > 0, slope, 1.0) if fixed is None else slope + fixed
            # The entries active at λ are nested in λ: an equal slope is the same set, on which
            # g is linear, so the last step ended on the root; λ only grows, so that a larger
            # slope is an entry at the root itself, in rounding.
            if last is not None:
                settled = slope >= last if settled is None else settled | (slope >= last)
                count = int(xp.count_nonzero(settled))
                if count == settled.shape[0]:
                    break
                if count * ratios.shape[1] >= _MANY:  # go on with the other rows only
                    here = xp.stack((root, slope))
                    if found is None:
                        found, rows = here, xp.arange(here.shape[1], device=root.device)
                    else:
                        found[:, rows] = here
                    keep = xp.nonzero(~settled)[0]
                    fixed = None if fixed is None else fixed[keep]
                    rows, ratios, target, lowest, slope, value, settled = (
                        x[keep] for x in (rows, ratios, target, lowest, slope, value, settled)
                    )
            root = lowest = xp.maximum((value - target) / slope, lowest)
            last = slope
        if found is None:
            return root, slope
        found[:, rows] = xp.stack((root, slope))
        return found[0], found[1]


def _round_inwards(X: Array, place: tuple[Array, Array] | None, dtype: Any, xp: Any) -> Array:
    """Cast to dtype towards the inside: magnitudes down, signed coordinates down; uses up X."""
    if dtype == X.dtype:
        return X
    # Without the bits that float32 has no room for, a magnitude is truncated (but for its
    # subnormal numbers, where a row may have to come again). Negative signed coordinates are
    # rounded up to the next such magnitude first.
    bits = X.view(xp.int64)
    if place is not None:
        signed = bits[place]
        bits[place] = signed + ((signed >> 63) & ~_FLOAT32_BITS)
    bits &= _FLOAT32_BITS
    return xp.astype(X, dtype)
