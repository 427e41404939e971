"""Exact Euclidean projection onto row polytopes, in closed form (THEORY §3).

For a violating row v̂ the projection is ``v_s = v̂_s − λ w_s`` and
``v_j = sign(v̂_j) (|v̂_j| − λ w_j)₊``, where λ > 0 is the root of the convex, decreasing,
piecewise-linear

    g(λ) = w_s (v̂_s − λ w_s) + Σ_{j≠s} w_j (|v̂_j| − λ w_j)₊ − β.

In the ratios r_j = |v̂_j| / w_j the sum is ``Σ w_j² (r_j − λ)₊``: a comparison and two
matrix-vector products a step. A tangent of a convex function lies below it, so that Newton is
at or before the root after one step from anywhere; from there it increases and ends after
finitely many steps, without a sort. One kernel serves numpy arrays and torch tensors, batched
over rows; large float32 matrices with weights of one take a quicker road where they can.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from contraction_nets.geometry.rows import EPS, RowBatch, Rows, as_rows, judge, namespace
from contraction_nets.geometry.single import evaluate, judge_single, project_single

Array = Any

_BLOCK = 2**16  # entries worked on at a time on a CPU, so that they stay in its cache
_SINGLE_BLOCK = 2**19  # the same for the road of float32, which works on fewer bytes an entry
_FIRST = 8  # rows of a large matrix that tell the others where to look for λ
_CANCELLED = 64.0  # a sum this many times smaller than its terms has lost too many digits
_MANY = 2**14  # entries of settled rows that are worth leaving out
_SAFE = 1.0 - 2.0**-30  # times a computed root: at or before the exact one
_MOST_PASSES = 80  # each leaves 2**-30 of λ: enough for the range of a float64
_FLOAT32_BITS = -(2**29)  # mask of the bits of a float64 that a float32 holds
_FLOAT32_QUANTUM = 2.0**-149  # a cast to float32 is off by half of it among subnormal numbers


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
    xp = namespace(V)
    if _on_numpy(V, xp):
        return xp.asarray(project_rows(np.from_dlpack(V), rows))
    index, projected = project_violating(V, rows)
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
    flat, xp = as_rows(V, rows), namespace(V)
    if _on_numpy(flat, xp):
        index, projected = project_violating(np.from_dlpack(flat), rows)
        return xp.asarray(index), xp.asarray(projected)
    batch, (m, n) = rows.beside(flat), rows.shape
    single = xp is np and m * n > _BLOCK and flat.dtype == np.float32 and rows.plain
    if not single and (m * n <= _BLOCK or str(V.device) != "cpu"):
        return _project(flat, batch)
    # The result is made once: memory that nobody touched yet costs more than the sums.
    projected, found, ratio = xp.empty((m, n), dtype=flat.dtype), [], 1.0
    height = max(1, (_SINGLE_BLOCK if single else _BLOCK) // n)
    start = used = 0
    while start < m:
        stop = min(m, start + (_FIRST if single and start == 0 else height))
        block, part, out = flat[start:stop], batch[start:stop], projected[used:]
        if single:
            index, ratio = _project_single(block, part, ratio, out)
        else:
            index, values = _project(block, part)
            out[: index.shape[0]] = values
        found.append(index + start)
        start, used = stop, used + index.shape[0]
    return xp.concat(found), projected[:used]


def _on_numpy(V: Array, xp: Any) -> bool:
    """Whether numpy should work on the memory of V: it is quicker on a CPU, without gradients."""
    return (
        xp is not np
        and str(V.device) == "cpu"
        and V.dtype in (xp.float32, xp.float64)
        and not getattr(V, "requires_grad", False)
    )


def _project_single(V: Array, batch: RowBatch, ratio: float, out: Array) -> tuple[Array, float]:
    """`project_violating` for rows of float32 with weights of one, written to the first of out."""
    V = np.ascontiguousarray(V)
    sizes, excess, error = evaluate(V, batch)
    violating = excess > error
    unclear = ~violating & ~(excess + error <= 0.0)  # also what is NaN
    height = max(1, _BLOCK // V.shape[1])
    for start in range(0, V.shape[0], height):
        rows = slice(start, start + height)
        if np.count_nonzero(unclear[rows]):
            violating[rows] = ~judge_single(V[rows], sizes[rows], batch[rows])
    index = np.flatnonzero(violating)
    if index.size == 0:
        return index, ratio
    if index.size < V.shape[0]:
        V, sizes, batch, excess = V[index], sizes[index], batch[index], excess[index]
    out = out[: index.size]
    right, ratio = project_single(V, sizes, batch, excess, ratio, out)
    if np.count_nonzero(right) < index.size:
        wrong = np.flatnonzero(~right)
        out[wrong] = _project(V[wrong], batch[wrong])[1]
    return index, ratio


def _project(V: Array, batch: RowBatch) -> tuple[Array, Array]:
    """`project_violating` for a block of rows, (m, n)."""
    batch, sizes, signed, excess, feasible = judge(V, batch)
    xp = batch.xp
    index = xp.nonzero(~feasible)[0]
    if index.shape[0] == 0:
        return index, V[:0]
    if index.shape[0] < V.shape[0]:
        V, sizes = xp.take(V, index, axis=0), xp.take(sizes, index, axis=0)
        batch, excess = batch[index], excess[index]
        signed = None if signed is None else signed[index]
    # One step from zero, where every entry is active.
    lowest = excess / batch.rows.sum_of_squares
    for _ in range(_MOST_PASSES):
        root, slope = _newton(batch, sizes, signed, lowest)
        # At the root the entries that end there count no more: beside a coordinate of hardly any
        # weight the slope says nothing, but all that is in excess bounds what λ takes.
        taken = excess if batch.rows.uneven else slope * root
        error = batch.error(_total(batch, signed, root))
        lost = batch.error(taken) > _CANCELLED * error
        if signed is None:
            lost = lost & (batch.bound > 0)
        if not xp.count_nonzero(lost):
            break
        # λ is so large beside what it leaves that its last digit matters: take most of it
        # off, and find the small rest with all digits.
        sizes, signed = _shrunk(batch, sizes, signed, root * _SAFE)
        excess, _ = batch.excess(sizes, signed)
        lowest = xp.zeros_like(root)
    margin = 2.0 * error + (4.0 * EPS) * (slope * root)
    while True:
        # A little beyond the root, for what rounding the row may add to the left-hand side.
        beyond = root + margin / slope
        if signed is None:  # only the zero row satisfies a bound of zero
            beyond = xp.where(batch.bound > margin, beyond, xp.inf)
        terms = _shrunk(batch, sizes, signed, beyond)
        if V.dtype == xp.float32:
            terms = _truncated(*terms, xp)
        stored = _stored(batch, *terms, V)
        excess, error = batch.excess(*terms)
        cast = _FLOAT32_QUANTUM * batch.rows.sum_of_weights if V.dtype == xp.float32 else 0.0
        done = batch.feasible(stored, excess, error + cast)
        if xp.count_nonzero(done) == index.shape[0]:
            return index, stored
        margin = xp.where(done, margin, 2 * margin + error)


def _newton(
    batch: RowBatch, sizes: Array, signed: Array | None, lowest: Array
) -> tuple[Array, Array]:
    """The root λ of g in every row and −g' there, from a λ ≥ 0 at or before it."""
    xp, weights, plain = batch.xp, batch.weights, batch.rows.plain
    ratios = sizes if plain else sizes / weights
    squares = weights if plain else weights * weights
    target, fixed = batch.bound, None
    if signed is not None:
        # The signed coordinate is never clipped: it leaves the sum and is kept apart.
        fixed = batch.signed_weights if plain else batch.signed_weights**2
        target = target - batch.signed_weights * signed
    active = xp.empty_like(ratios)
    found: Any = None  # root and slope of all rows, once some are left out,
    rows: Any = None  # and which the others are
    root = lowest
    while True:
        above = active[: ratios.shape[0]]
        above[...] = ratios > root[:, None]
        slope = above @ squares
        above *= ratios
        slope = xp.where(slope > 0, slope, 1.0) if fixed is None else slope + fixed
        # The entries active at λ are nested in λ, and g is linear where they are the same. So
        # in rounding, too, λ only grows until it stays.
        last, root = root, xp.maximum((above @ squares - target) / slope, root)
        moving = root > last
        count = root.shape[0] - int(xp.count_nonzero(moving))
        if count == root.shape[0]:
            break
        if count * ratios.shape[1] >= _MANY:  # go on with the other rows only
            here = xp.stack((root, slope))
            if found is None:
                found, rows = here, xp.arange(here.shape[1], device=root.device)
            else:
                found[:, rows] = here
            keep = xp.nonzero(moving)[0]
            fixed = None if fixed is None else fixed[keep]
            rows, ratios, target, root = (x[keep] for x in (rows, ratios, target, root))
    if found is None:
        return root, slope
    found[:, rows] = xp.stack((root, slope))
    return found[0], found[1]


def _shrunk(
    batch: RowBatch, sizes: Array, signed: Array | None, root: Array
) -> tuple[Array, Array | None]:
    """The terms that λ leaves: ``(|v_j| − λ w_j)₊`` and ``v_s − λ w_s``."""
    limit = root[:, None] if batch.rows.plain else root[:, None] * batch.weights
    left = sizes - batch.xp.minimum(sizes, limit)
    return left, None if signed is None else signed - root * batch.signed_weights


def _total(batch: RowBatch, signed: Array | None, root: Array) -> Array:
    """Sum of the absolute terms of the row at the root, where they balance the bound."""
    if signed is None:
        return abs(batch.bound)
    term = batch.signed_weights * (signed - root * batch.signed_weights)
    return abs(batch.bound - term) + abs(term)


def _truncated(sizes: Array, signed: Array | None, xp: Any) -> tuple[Array, Array | None]:
    """Cut down to the digits of a float32, in place: magnitudes and signed coordinates down.

    What lies below its normal numbers keeps digits that the cast will round.
    """
    bits = sizes.view(xp.int64)
    bits &= _FLOAT32_BITS
    if signed is not None:
        # The magnitude of a negative one is rounded up.
        bits = signed.view(xp.int64)
        bits += (bits >> 63) & ~_FLOAT32_BITS
        bits &= _FLOAT32_BITS
    return sizes, signed


def _stored(batch: RowBatch, sizes: Array, signed: Array | None, V: Array) -> Array:
    """Rows of these terms with the signs and dtype of V."""
    xp = batch.xp
    if batch.factor != 1.0:
        sizes = sizes / batch.factor
    rows = xp.copysign(xp.astype(sizes, V.dtype, copy=False), V)
    rows += 0.0  # no negative zeros
    if signed is not None:
        signed = xp.astype(signed / batch.factor, V.dtype, copy=False)
        # Magnitudes only shrink; the signed coordinates can leave the range of the dtype.
        if xp.count_nonzero(xp.isfinite(signed)) < signed.shape[0]:
            raise ValueError(
                f"the projection does not fit in {V.dtype}, expected entries well below its "
                "largest number; rescale the matrix."
            )
        rows[batch.place] = signed
    return rows
