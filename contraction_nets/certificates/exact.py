"""Proofs about stored weights in exact integer arithmetic (THEORY §4, proof object).

Every float is m · 2**e with integers m and e, read here off its IEEE 754 bits. Sums of
products of such numbers are computed in integers: of 64 bits for pieces so small that no sum of
them can overflow, Python's for what these make together, and a statement is proved by the sign
of an integer. No floating-point operation takes part in any decision, so nothing depends on
rounding modes, summation order or flushed denormals.

This file needs only the standard library and numpy, and trusts no other file of the library.
A matrix is an array, or sparse by rows as scipy has it: anything with `indptr`, `indices`,
`data` and `shape`. M(A) is A with absolute values off the diagonal. Every function raises
ValueError for shapes that do not fit, dtypes that are not floats, NaN and Inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FORMATS = {"float16": (10, 5), "float32": (23, 8), "float64": (52, 11)}
"""Fraction and exponent bits of the IEEE 754 formats."""
_CHUNK = 2**16
"""Entries taken at a time, so that memory stays near the size of the weights."""
_PART = 27
"""Bits of the lower part of a 53-bit integer; the upper one has no more."""

Dyadic = tuple[int, int]
"""One number (m, e), equal to m · 2**e."""


class Integers(NamedTuple):
    """A vector of floats as integers: entry j is m[j] · 2**e[j]."""

    m: NDArray[np.int64]
    e: NDArray[np.int64]


class Fixed(NamedTuple):
    """An array of numbers m · 2**e: Python integers m, and one e for all of them."""

    m: NDArray[Any]
    e: int


class Matrix(NamedTuple):
    """Floats by rows: row i is values[i], or values[starts[i]:starts[i + 1]] in these columns."""

    values: NDArray[Any]
    shape: tuple[int, int]
    columns: NDArray[np.int64] | None = None
    starts: NDArray[np.int64] | None = None


def prove_well_posed(A: Any, z: ArrayLike) -> bool:
    """Whether z > 0 and (I − M(A)) z > 0: then x = φ(Ax + s) has one solution for every s.

    Parameters
    ----------
    A : (n, n) matrix
    z : (n,) array
        The witness.
    """
    vector = read_vector(z, "z")
    matrix = read_matrix(A, "A", (len(vector.m), len(vector.m)))
    return _positive(vector) and all(m > 0 for m, _ in state_slacks(matrix, vector))


def prove_bound(
    A: Any, B: Any, C: Any, D: Any, z: ArrayLike, bound: float, epsilon: ArrayLike | None = None
) -> bool:
    """Whether z proves that the network is well-posed, and |Δy_k| ≤ bound where |Δu_j| ≤ ε_j.

    The proof is z > 0, (I − M(A)) z > 0, (I − M(A)) z ≥ |B|ε and |C| z + |D|ε ≤ bound. With
    ε = 1, the default, this bounds the ℓ∞ → ℓ∞ Lipschitz constant.

    Parameters
    ----------
    A, B, C, D : (n, n), (n, p), (q, n) and (q, p) matrices
        The stored weights; D may be None.
    z : (n,) array
        The witness.
    bound : float
        In output units.
    epsilon : (p,) array, optional
        In input units, not negative.
    """
    outputs, limit = _outputs(C, D, z, epsilon), read_number(bound, "bound")
    return _bounds_states(A, B, D, z, epsilon) and all(at_most(gain, limit) for gain in outputs)


def prove_pairs(
    A: Any, B: Any, C: Any, D: Any, z: ArrayLike, bounds: ArrayLike, epsilon: Any = None
) -> bool:
    """Whether z proves |Δ(y_i − y_j)| ≤ bounds_ij where |Δu_j| ≤ ε_j, bounds (q, q).

    As `prove_bound`, with |C_i − C_j| z + |D_i − D_j|ε ≤ bounds_ij.
    """
    pairs = _pairs(C, D, z, epsilon)
    return _bounds_states(A, B, D, z, epsilon) and _all_at_most(pairs, bounds, "bounds")


def prove_gains(A: Any, B: Any, C: Any, D: Any, z: ArrayLike, Y: ArrayLike, G: ArrayLike) -> bool:
    """Whether z and Y prove that the network is well-posed, and |Δy| ≤ G|Δu| entry by entry.

    The proof is z as in `prove_well_posed`, Y (I − M(A)) ≥ |C| and Y|B| + |D| ≤ G: well-posed,
    (I − M(A))⁻¹ ≥ 0, so that Y ≥ |C| (I − M(A))⁻¹. Y is (q, n) and G (q, p).
    """
    duals = _floats(Y, "Y", 2)
    q, n = duals.shape
    outputs = full(read_matrix(C, "C", (q, n)))
    transposed = _transposed(read_matrix(A, "A", (n, n)))
    gains = _gains(B, D, Y)
    for row, own in zip(duals, outputs, strict=True):
        slacks = state_slacks(transposed, integers(row, "Y"))
        if not all(map(at_most, _magnitudes(own, "C"), slacks)):
            return False
    return prove_well_posed(A, z) and _all_at_most(gains, G, "G")


def prove_measure(A: Any, gamma: float, eta: ArrayLike | None = None) -> bool:
    """Whether μ_{∞,η}(A) ≤ γ, that is η > 0 and M(A) η ≤ γ η; η is all ones by default."""
    weights = ones(read_matrix(A, "A").shape[0]) if eta is None else read_vector(eta, "eta")
    sums, limits = _measured(A, weights, read_number(gamma, "gamma"))
    return _positive(weights) and all(map(at_most, sums, limits))


def prove_abscissa(A: Any, rho: float, x: ArrayLike) -> bool:
    """Whether no weights η give μ_{∞,η}(A) < ρ, that is x ≥ 0, x ≠ 0 and M(A) x ≥ ρ x.

    For M(A) η ≤ γη implies ρ x_i ≤ (M(A) x)_i ≤ γ x_i in the row of the largest x_i/η_i.
    """
    vector = read_vector(x, "x")
    sums, limits = _measured(A, vector, read_number(rho, "rho"))
    direction = bool((vector.m >= 0).all() and (vector.m > 0).any())
    return direction and all(map(at_most, limits, sums))


def exact_bound(C: Any, D: Any, z: ArrayLike, epsilon: ArrayLike | None = None) -> float:
    """The least bound of `prove_bound`, rounded up to the next float64, or inf; z ≥ 0."""
    if (read_vector(z, "z").m < 0).any():
        raise ValueError("z has negative entries, expected a nonnegative witness.")
    return max(map(round_up, _outputs(C, D, z, epsilon)))


def _bounds_states(A: Any, B: Any, D: Any, z: ArrayLike, epsilon: ArrayLike | None) -> bool:
    """Whether z > 0, (I − M) z > 0 and (I − M) z ≥ |B|ε."""
    vector = read_vector(z, "z")
    n = len(vector.m)
    matrix, inputs = read_matrix(A, "A", (n, n)), read_matrix(B, "B", (n, None))
    p = inputs.shape[1]
    if D is not None:
        read_matrix(D, "D", (None, p))
    drives = row_sums(inputs, read_radii(epsilon, p), _absolute)
    rows = zip(drives, state_slacks(matrix, vector), strict=True)
    return _positive(vector) and all(slack[0] > 0 and at_most(row, slack) for row, slack in rows)


def state_slacks(A: Matrix, z: Integers) -> Iterator[Dyadic]:
    """Rows of (I − M) z."""
    sums = row_sums(A, z, _majorant)
    return (add(own, (-m, e)) for own, (m, e) in zip(entries(z), sums, strict=True))


def _measured(A: Any, x: Integers, factor: Dyadic) -> tuple[Iterator[Dyadic], Iterator[Dyadic]]:
    """Rows of M x and of factor · x."""
    matrix = read_matrix(A, "A", (len(x.m), len(x.m)))
    return row_sums(matrix, x, _majorant), ((factor[0] * m, factor[1] + e) for m, e in entries(x))


def _outputs(C: Any, D: Any, z: ArrayLike, epsilon: ArrayLike | None) -> list[Dyadic]:
    """Rows of |C| z + |D|ε."""
    vector = read_vector(z, "z")
    outputs = read_matrix(C, "C", (None, len(vector.m)))
    gains = list(row_sums(outputs, vector, _absolute))
    if D is None:
        return gains
    feed = read_matrix(D, "D", (len(gains), None))
    return list(map(add, gains, row_sums(feed, read_radii(epsilon, feed.shape[1]), _absolute)))


def _pairs(C: Any, D: Any, z: ArrayLike, epsilon: ArrayLike | None) -> list[list[Dyadic]]:
    """|C_i − C_j| z + |D_i − D_j|ε for all i and j, row by row."""
    q = len(_outputs(C, D, z, epsilon))  # the shapes fit
    parts = [(full(read_matrix(C, "C")), read_vector(z, "z"))]
    if D is not None:
        feed = full(read_matrix(D, "D"))
        parts.append((feed, read_radii(epsilon, feed.shape[1])))
    rows: list[list[Dyadic]] = [[(0, 0)] * q for _ in range(q)]
    for matrix, vector in parts:
        weights, factors = aligned(integers(matrix, "C or D")), aligned(vector)
        terms, e = weights.m * factors.m, weights.e + factors.e  # C_kj z_j
        for i in range(q):
            differences = abs(terms - terms[i]).sum(axis=1).tolist()
            rows[i] = [add(total, (m, e)) for total, m in zip(rows[i], differences, strict=True)]
    return rows


def _gains(B: Any, D: Any, Y: ArrayLike) -> list[list[Dyadic]]:
    """Y|B| + |D|, row by row."""
    duals = _floats(Y, "Y", 2)
    q, n = duals.shape
    inputs = _transposed(read_matrix(B, "B", (n, None)))
    rows = [list(row_sums(inputs, integers(row, "Y"), _absolute)) for row in duals]
    if D is None:
        return rows
    feed = full(read_matrix(D, "D", (q, inputs.shape[0])))
    return [list(map(add, row, _magnitudes(own, "D"))) for row, own in zip(rows, feed, strict=True)]


Sign = Callable[[NDArray[np.int64], NDArray[np.bool_]], NDArray[np.int64]]
"""What becomes of mantissas, given which of them are on the diagonal."""


def _absolute(m: NDArray[np.int64], on_diagonal: NDArray[np.bool_]) -> NDArray[np.int64]:
    return abs(m)


def _majorant(m: NDArray[np.int64], on_diagonal: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(on_diagonal, m, abs(m))


def row_sums(matrix: Matrix, vector: Integers, sign: Sign) -> Iterator[Dyadic]:
    """Σ_j sign(matrix_ij) vector_j for every row i."""
    for first, counts, columns, values in _chunks(matrix):
        m, e = integers(values, "the matrix")
        rows = np.repeat(np.arange(first, first + len(counts)), counts)
        factors = Integers(vector.m[columns], vector.e[columns])
        totals, lowest = _sums(Integers(sign(m, rows == columns), e), factors, counts)
        yield from ((total, lowest) for total in totals)


def _sums(x: Integers, y: Integers, counts: NDArray[np.int64]) -> tuple[list[int], int]:
    """Σ x_j y_j over runs of so many entries each, as integers times one power of two.

    |x_j|, shifted to the common exponent, is cut into digits, and y_j into two parts. The sums
    of digit by part over a run stay below 2**63; Python's integers put them together.
    """
    factors = np.sign(x.m) * y.m
    exponents = x.e + y.e
    lowest = int(exponents.min(initial=0, where=factors != 0))  # zero has no exponent of its own
    rest, shift = abs(x.m), np.maximum(exponents - lowest, 0)
    parts = ((factors & ((1 << _PART) - 1), 0), (factors >> _PART, _PART))
    bits = 63 - _PART - (int(counts.max()) - 1).bit_length()
    filled = np.flatnonzero(counts)  # reduceat knows no empty runs
    starts = (np.cumsum(counts) - counts)[filled]
    totals, place = np.zeros(len(counts), dtype=object), 0
    while rest.any():
        low = np.minimum(shift, bits)  # zeros at the end of this digit
        digits = (rest & (((1 << bits) - 1) >> low)) << low
        for part, offset in parts:
            sums = np.add.reduceat(digits * part, starts)
            totals[filled] += sums.astype(object) << (place + offset)
        rest, shift, place = rest >> (bits - low), shift - low, place + bits
    return totals.tolist(), lowest


def _chunks(matrix: Matrix) -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """First row, entries of every row, their columns, their values; some rows at a time."""
    values, (m, n), columns, starts = matrix
    if columns is None or starts is None:
        step = max(_CHUNK // n, 1)
        for i in range(0, m, step):
            part = values[i : i + step]
            yield i, np.full(len(part), n), np.tile(np.arange(n), len(part)), part.ravel()
        return
    chunk = starts[:-1] // _CHUNK  # of the first entry of every row
    ends = [*(np.flatnonzero(np.diff(chunk)) + 1).tolist(), m]
    for i, stop in pairwise([0, *ends]):
        here = slice(starts[i], starts[stop])
        yield i, np.diff(starts[i : stop + 1]), columns[here], values[here]


def add(*terms: Dyadic) -> Dyadic:
    lowest = min(e for _, e in terms)
    return sum(m << (e - lowest) for m, e in terms), lowest


def at_most(x: Dyadic, y: Dyadic) -> bool:
    return add(y, (-x[0], x[1]))[0] >= 0


def _all_at_most(rows: list[list[Dyadic]], limits: ArrayLike, name: str) -> bool:
    claimed = _floats(limits, name, 2)
    read_matrix(claimed, name, (len(rows), len(rows[0])))
    return all(
        all(map(at_most, row, entries(integers(own, name))))
        for row, own in zip(rows, claimed, strict=True)
    )


def entries(values: Integers) -> Iterable[Dyadic]:
    return zip(values.m.tolist(), values.e.tolist(), strict=True)


def _magnitudes(values: NDArray[Any], name: str) -> Iterable[Dyadic]:
    numbers = integers(values, name)
    return entries(Integers(abs(numbers.m), numbers.e))


def _positive(values: Integers) -> bool:
    return bool((values.m > 0).all())


def round_up(number: Dyadic) -> float:
    """Smallest float64 that is at least m · 2**e (m ≥ 0), or inf."""
    m, e = number
    # A float64 has 53 bits and no bit below 2**-1074.
    excess = max(m.bit_length() - 53, -1074 - e)
    if excess > 0:
        m, e = -(-m >> excess), e + excess
    try:
        return math.ldexp(m, e)
    except OverflowError:
        return math.inf


def integers(values: NDArray[Any], name: str) -> Integers:
    """Integers m and e with values = m · 2**e, read off the bits of the floats."""
    fraction_bits, exponent_bits = _FORMATS[values.dtype.name]
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits = np.ascontiguousarray(values).view(unsigned).astype(np.int64)
    fraction = bits & ((1 << fraction_bits) - 1)
    exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1)
    negative = (bits >> (fraction_bits + exponent_bits)) & 1
    if (exponent == (1 << exponent_bits) - 1).any():
        raise ValueError(f"{name} contains NaN or Inf, expected finite entries; clean it first.")
    # Denormals have no implicit leading bit and the exponent of the smallest normal numbers.
    magnitude = fraction | ((exponent > 0).astype(np.int64) << fraction_bits)
    bias = (1 << (exponent_bits - 1)) - 1 + fraction_bits
    return Integers(magnitude * (1 - 2 * negative), np.maximum(exponent, 1) - bias)


def aligned(numbers: Integers) -> Fixed:
    m, e = numbers
    e = np.where(m == 0, e.max(), e)  # zero is zero at any exponent
    lowest = int(e.min())
    return Fixed(np.left_shift(m.astype(object), (e - lowest).astype(object)), lowest)


def read_number(value: Any, name: str) -> Dyadic:
    number = float(value)
    if number != value or not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}, expected a finite float64; round it first.")
    (exact,) = entries(integers(np.array([number]), name))
    return exact


def ones(n: int) -> Integers:
    return Integers(np.ones(n, np.int64), np.zeros(n, np.int64))


def read_radii(epsilon: ArrayLike | None, p: int) -> Integers:
    radii = ones(p) if epsilon is None else read_vector(epsilon, "epsilon", p)
    if (radii.m < 0).any():
        raise ValueError("epsilon has negative entries, expected radii of at least zero.")
    return radii


def read_vector(values: ArrayLike, name: str, length: int | None = None) -> Integers:
    array = _floats(values, name, 1)
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} entries, expected {length}; check the shapes.")
    return integers(array, name)


def read_matrix(
    values: Any, name: str, shape: tuple[int | None, int | None] = (None, None)
) -> Matrix:
    """The matrix in native byte order, its bits unchanged, of this shape; None is any length."""
    if hasattr(values, "indptr"):
        matrix = _sparse(values, name)
    else:
        array = _floats(values, name, 2)
        matrix = Matrix(array, array.shape)
    m, n = (own if k is None else k for own, k in zip(matrix.shape, shape, strict=True))
    if matrix.shape != (m, n):
        raise ValueError(f"{name} has shape {matrix.shape}, expected {m, n}; check the weights.")
    return matrix


def _sparse(values: Any, name: str) -> Matrix:
    if getattr(values, "format", "csr") != "csr":  # csc also has starts, those of columns
        raise ValueError(f"{name} has the format {values.format}, expected csr; call .tocsr().")
    starts, columns = (np.asarray(part, np.int64) for part in (values.indptr, values.indices))
    m, n = values.shape
    data = _floats(values.data, name, 1) if len(columns) else np.zeros(0)
    ends = len(starts) == m + 1 and starts[0] == 0 and starts[-1] == len(columns) == len(data)
    if not (m > 0 < n and ends and (np.diff(starts) >= 0).all()):
        raise ValueError(f"{name} has starts that do not fit, expected a csr matrix; convert it.")
    # Row by row, so that columns must increase within a row alone.
    places = np.repeat(np.arange(m), np.diff(starts)) * n + columns
    inside = bool(((columns >= 0) & (columns < n)).all())
    if not (inside and (np.diff(places) > 0).all()):
        raise ValueError(f"{name} has columns out of order, expected csr; call sum_duplicates().")
    return Matrix(data, (m, n), columns, starts)


def _transposed(matrix: Matrix) -> Matrix:
    values, (m, n), columns, starts = matrix
    if columns is None or starts is None:
        return Matrix(values.T, (n, m))
    order = np.argsort(columns, kind="stable")
    rows = np.repeat(np.arange(m), np.diff(starts))
    counts = np.bincount(columns, minlength=n)
    return Matrix(values[order], (n, m), rows[order], np.concatenate([[0], np.cumsum(counts)]))


def full(matrix: Matrix) -> NDArray[Any]:
    values, (m, _), columns, starts = matrix
    if columns is None or starts is None:
        return values
    dense = np.zeros(matrix.shape, values.dtype)
    dense[np.repeat(np.arange(m), np.diff(starts)), columns] = values
    return dense


def _floats(values: ArrayLike, name: str, ndim: int) -> NDArray[Any]:
    """The array in native byte order, its bits unchanged; ValueError if it is not of floats."""
    array = np.asarray(values)
    if array.dtype.name not in _FORMATS or array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{name} has dtype {array.dtype} and shape {array.shape}, expected float16, float32 "
            f"or float64 and {ndim} dimensions without a zero; convert it first."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)
