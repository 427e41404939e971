"""The projection of float32 rows whose weights are one, which training projects most (THEORY §3).

Membership is decided by sums in float32 with a bound on their error; what that leaves open is
left to the general kernel. For violating rows λ is a float32 itself, and Newton's method sums
the rows *as they would be stored* in float64: a row is done once its left-hand side is below
the bound, by a few roundings at most. Where few entries outlive λ, the others are left out
after the first step. Rows that this does not settle are left to the general kernel, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contraction_nets.geometry.rows import EPS, RowBatch, judge

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

_EPS = float(np.finfo(np.float32).eps)
_NORMAL = float(np.finfo(np.float32).smallest_normal)
_SMALLEST, _LARGEST = 1e-20, 1e25  # rows beyond lose digits or overflow in float32
_ROUNDINGS = 4.0  # of λ and of the left-hand side: what a row may stay below its bound
_PASSES = 12
_FEW = 8  # entries are left out where one in so many stays
_SIGN = np.int32(-(2**31))


class _Problem(NamedTuple):
    """Σ (sizes − λ)₊ + (signed − λ) ≤ bound in every row, and a `root` to start from."""

    sizes: Singles
    signed: Singles | None
    bound: Doubles
    least_error: Doubles
    root: Doubles

    def take(self, rows: NDArray[np.intp]) -> _Problem:
        signed = None if self.signed is None else self.signed[rows]
        left = (x[rows] for x in (self.bound, self.least_error, self.root))
        return _Problem(self.sizes[rows], signed, *left)


def evaluate(V: Singles, batch: RowBatch) -> tuple[Singles, Doubles, Doubles]:
    """Magnitudes of V, zero for signed coordinates; the excess per row, a bound on its error.

    Where a sum overflows or an entry is not finite, neither sign of the excess is certain.
    """
    n = V.shape[1]
    sizes = np.abs(V)
    total = np.asarray(sizes @ np.ones(n, np.float32), np.float64)
    # Subnormal numbers may count as zero in a thread where torch was told so.
    error = total * (n * _EPS) + 2 * n * _NORMAL + batch.least_error
    excess = total - batch.bound
    if batch.place is not None:
        signed = V[batch.place].astype(np.float64)
        sizes[batch.place] = 0.0
        excess += 2.0 * np.minimum(signed, 0.0)
    return sizes, excess, error


def judge_single(V: Singles, sizes: Singles, batch: RowBatch) -> Flags:
    """Which rows satisfy their inequality, in exact arithmetic; ValueError for NaN or Inf."""
    signed = None if batch.place is None else V[batch.place].astype(np.float64)
    excess, error = batch.excess(sizes.astype(np.float64), signed)
    if np.count_nonzero(np.isfinite(error)) < V.shape[0]:
        judge(V, batch)
    return np.asarray(batch.feasible(V, excess, error))


def project_single(
    V: Singles, sizes: Singles, batch: RowBatch, excess: Doubles, ratio: float, out: Singles
) -> tuple[Flags, float]:
    """Write the projections of violating rows to `out`, and tell which of them are right.

    Parameters
    ----------
    V, sizes : (m, n) array
        The rows and their magnitudes; see `evaluate`.
    batch : RowBatch
    excess : (m,) array
        Left-hand sides minus right-hand sides, in rounding.
    ratio : float
        A guess of λ in units of what it is where all entries are active.
    out : (m, n) array

    Returns
    -------
    (m,) boolean array
        Whether this row of `out` satisfies its inequality in exact arithmetic, and is within a
        few roundings of its projection.
    float
        The median of what `ratio` stands for, over these rows.
    """
    m, n = V.shape
    signed = None if batch.place is None else V[batch.place]
    lowest = np.maximum(excess, 0.0) / n
    problem = _Problem(sizes, signed, batch.bound, batch.least_error, lowest * ratio)
    # A tangent of a convex function is below it: the root of any is at or before λ.
    before = np.maximum(_tangent(problem, out), (1.0 - 1e-4) * lowest)
    above = sizes > before.astype(np.float32)[:, None]
    if np.count_nonzero(above) * _FEW > m * n:
        root, right = _solve(problem._replace(root=before), batch, out)
        bits = out.view(np.int32)
        bits |= V.view(np.int32) & _SIGN
        out += 0.0  # no negative zeros
    else:
        flat = np.flatnonzero(above)
        row = flat // n
        count = np.bincount(row, minlength=m)
        column = np.arange(flat.size) - np.repeat(np.cumsum(count) - count, count)
        few = np.zeros((m, max(1, int(count.max()))), np.float32)
        few[row, column] = sizes.reshape(-1)[flat]
        left = np.empty_like(few)
        root, right = _solve(problem._replace(sizes=few, root=before), batch, left)
        right &= root >= before
        out.fill(0.0)
        out.reshape(-1)[flat] = np.copysign(left[row, column], V.reshape(-1)[flat]) + 0.0
    if signed is not None:
        out[batch.place] = signed - root.astype(np.float32)
    ratios = np.sort(root / np.maximum(lowest, _SMALLEST))  # np.median takes ten times longer
    return right, min(max(1.0, float(ratios[m // 2])), float(n))


def _tangent(problem: _Problem, buffer: Singles) -> Doubles:
    """Root of the tangents at `root`, with sums in float32; overwrites the buffer."""
    sizes, signed, bound, _, root = problem
    n, limit = sizes.shape[1], root.astype(np.float32)
    ones, root = np.ones(n, np.float32), limit.astype(np.float64)
    np.greater(sizes, limit[:, None], out=buffer, casting="unsafe")
    slope = (buffer @ ones).astype(np.float64)
    np.maximum(sizes, limit[:, None], out=buffer)
    total = (buffer @ ones).astype(np.float64)
    left = total * (1.0 - np.sqrt(n) * _EPS) - n * root - bound
    if signed is not None:
        slope += 1.0
        left += signed - root
    # Beyond all entries nothing is left to tell where λ is.
    return np.where(slope > 0.0, root + left / np.maximum(slope, 1.0), 0.0)


def _solve(problem: _Problem, batch: RowBatch, out: Singles) -> tuple[Doubles, Flags]:
    """λ of every row, a float32, and whether it is right; what it leaves is written to `out`."""
    m, n = problem.sizes.shape
    found, right, rows = np.zeros(m), np.zeros(m, bool), np.arange(m)
    ones, left = np.ones(n), out
    buffer = np.empty((m, n))
    for _ in range(_PASSES):
        sizes, signed, bound, least_error, root = problem
        limit = (root * (1.0 + 0.5 * _EPS)).astype(np.float32)  # up
        root = limit.astype(np.float64)
        np.maximum(sizes, limit[:, None], out=left)
        np.subtract(left, limit[:, None], out=left)
        buffer[...] = left
        kept = buffer @ ones
        slack, total = bound - kept, kept + np.abs(bound)
        np.greater(left, 0.0, out=buffer, casting="unsafe")
        slope = buffer @ ones
        # What rounding may add to the sum of what is kept, by all likelihood.
        margin = 2.0 * _EPS * kept / np.sqrt(np.maximum(slope, 1.0))
        if signed is not None:
            moved = (signed - limit).astype(np.float64)
            slack, total = slack - moved, total + np.abs(moved)
            slope += 1.0
            margin += _EPS * np.abs(moved)
        error = total * (batch.rows.roundings * EPS) + least_error
        size = total + slope * root
        done = (slack >= error) & (slack <= _ROUNDINGS * _EPS * size)
        done &= (size > _SMALLEST) & (size < _LARGEST)
        count = int(np.count_nonzero(done))
        if count == len(rows) == m:
            return root, done
        if count:
            here = rows[done]
            found[here], right[here] = root[done], True
            if left is not out:
                out[here] = left[done]
            if count == len(rows):
                break
        root = root + (margin + error - slack) / np.maximum(slope, 1.0)
        problem = problem._replace(root=np.maximum(root, 0.0))
        if count:
            rest = np.flatnonzero(~done)
            rows, problem = rows[rest], problem.take(rest)
            left, buffer = np.empty((len(rest), n), np.float32), buffer[: len(rest)]
    return found, right
