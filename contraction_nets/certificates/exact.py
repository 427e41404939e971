"""Proofs about stored weights in exact integer arithmetic (THEORY §4, proof object).

Every float is m · 2**e with integers m and e, read here off its IEEE 754 bits. Sums of
products of such numbers are computed with Python integers, which neither round nor overflow,
and a statement is proved by the sign of an integer. No floating-point operation takes part in
any decision, so nothing depends on rounding modes, summation order or flushed denormals.

This file needs only the standard library and numpy, and trusts no other file of the library.
"""

from __future__ import annotations

import math
from operator import lshift, mul
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FORMATS = {"float16": (10, 5), "float32": (23, 8), "float64": (52, 11)}
"""Fraction and exponent bits of the IEEE 754 formats."""


class Integers(NamedTuple):
    """A vector of floats as integers: entry j is mantissas[j] · 2**exponents[j]."""

    mantissas: NDArray[np.int64]
    exponents: NDArray[np.int64]


Dyadic = tuple[int, int]
"""One number (m, e), equal to m · 2**e."""


def prove_well_posed(A: ArrayLike, z: ArrayLike) -> bool:
    """Whether z > 0 and (I − M(A)) z > 0: then x = φ(Ax + s) has one solution for every s.

    Parameters
    ----------
    A : (n, n) array of float16, float32 or float64
    z : (n,) array of floats
        The witness.

    Raises
    ------
    ValueError
        Shapes that do not fit, another dtype, NaN or Inf.
    """
    matrix, witness = _floats(A, "A", 2), _floats(z, "z", 1)
    _check_shape(matrix, "A", (len(witness), len(witness)))
    vector = _integers(witness, "z")
    return _is_positive(vector) and all(
        _state_row(matrix, i, vector)[0] > 0 for i in range(len(witness))
    )


def prove_bound(
    A: ArrayLike, B: ArrayLike, C: ArrayLike, D: ArrayLike | None, z: ArrayLike, bound: float
) -> bool:
    """Whether z proves that the network is well-posed and ‖Δy‖∞ ≤ bound · ‖Δu‖∞.

    The proof is z > 0, (I − M(A)) z > 0, (I − M(A)) z ≥ |B|1 and |C| z + |D|1 ≤ bound.

    Parameters
    ----------
    A, B, C, D : (n, n), (n, p), (q, n) and (q, p) arrays of floats
        The stored weights; D may be None.
    z : (n,) array of floats
        The witness.
    bound : float
        In output units per input unit.

    Raises
    ------
    ValueError
        Shapes that do not fit, a dtype that is not a float, NaN or Inf.
    """
    matrix, inputs, witness = _floats(A, "A", 2), _floats(B, "B", 2), _floats(z, "z", 1)
    _check_shape(matrix, "A", (len(witness), len(witness)))
    _check_shape(inputs, "B", (len(witness), inputs.shape[1]))
    outputs, feed = _outputs(C, D, len(witness), inputs.shape[1])
    vector, limit = _integers(witness, "z"), _number(bound, "bound")
    if not _is_positive(vector):
        return False
    for i in range(len(witness)):
        row = _state_row(matrix, i, vector)
        if row[0] <= 0 or _difference(row, _absolute_sum(inputs[i], "B"))[0] < 0:
            return False
    gains = (_output_row(outputs, feed, k, vector) for k in range(len(outputs)))
    return all(_difference(limit, gain)[0] >= 0 for gain in gains)


def exact_bound(C: ArrayLike, D: ArrayLike | None, z: ArrayLike) -> float:
    """max(|C| z + |D|1), rounded up to the next float64; inf where that overflows.

    Parameters
    ----------
    C, D : (q, n) and (q, p) arrays of floats
        D may be None.
    z : (n,) array of floats, not negative

    Raises
    ------
    ValueError
        Shapes that do not fit, a negative z, a dtype that is not a float, NaN or Inf.
    """
    witness = _floats(z, "z", 1)
    outputs, feed = _outputs(C, D, len(witness))
    vector = _integers(witness, "z")
    if (vector.mantissas < 0).any():
        raise ValueError("z has negative entries, expected a nonnegative witness.")
    return max(_round_up(_output_row(outputs, feed, k, vector)) for k in range(len(outputs)))


def prove_measure(A: ArrayLike, gamma: float, eta: ArrayLike | None = None) -> bool:
    """Whether μ_{∞,η}(A) ≤ γ, that is η > 0 and M(A) η ≤ γ η.

    Parameters
    ----------
    A : (n, n) array of floats
    gamma : float
    eta : (n,) array of floats, optional
        All ones by default.

    Raises
    ------
    ValueError
        Shapes that do not fit, a dtype that is not a float, NaN or Inf.
    """
    matrix = _floats(A, "A", 2)
    weights = np.ones(len(matrix)) if eta is None else _floats(eta, "eta", 1)
    _check_shape(matrix, "A", (len(weights), len(weights)))
    vector = _integers(weights, "eta")
    m, e = _number(gamma, "gamma")
    for i in range(len(weights)):
        own = _entry(vector, i)
        # (γI − M) η = (I − M) η − (1 − γ) η = (I − M) η − η + γ η.
        slack = _add([_state_row(matrix, i, vector), (-own[0], own[1]), (m * own[0], e + own[1])])
        if own[0] <= 0 or slack[0] < 0:
            return False
    return True


def _state_row(A: NDArray[Any], i: int, z: Integers) -> Dyadic:
    """Row i of (I − M(A)) z: z_i − A_ii z_i − Σ_{j≠i} |A_ij| z_j."""
    row = _integers(A[i], "A")
    signed = -np.abs(row.mantissas)
    signed[i] = -row.mantissas[i]
    return _add([_entry(z, i), _dot(Integers(signed, row.exponents), z)])


def _output_row(C: NDArray[Any], D: NDArray[Any] | None, k: int, z: Integers) -> Dyadic:
    """Row k of |C| z + |D|1."""
    row = _integers(C[k], "C")
    gain = _dot(Integers(np.abs(row.mantissas), row.exponents), z)
    return gain if D is None else _add([gain, _absolute_sum(D[k], "D")])


def _absolute_sum(values: NDArray[Any], name: str) -> Dyadic:
    row = _integers(values, name)
    one = Integers(np.ones_like(row.mantissas), np.zeros_like(row.exponents))
    return _dot(Integers(np.abs(row.mantissas), row.exponents), one)


def _dot(x: Integers, y: Integers) -> Dyadic:
    """Σ_j x_j y_j, every product shifted to the smallest exponent that occurs."""
    used = (x.mantissas != 0) & (y.mantissas != 0)
    if not used.any():
        return 0, 0
    exponents = (x.exponents + y.exponents)[used]
    lowest = int(exponents.min())
    products = map(mul, x.mantissas[used].tolist(), y.mantissas[used].tolist())
    return sum(map(lshift, products, (exponents - lowest).tolist())), lowest


def _add(terms: list[Dyadic]) -> Dyadic:
    lowest = min(e for _, e in terms)
    return sum(m << (e - lowest) for m, e in terms), lowest


def _difference(x: Dyadic, y: Dyadic) -> Dyadic:
    return _add([x, (-y[0], y[1])])


def _entry(values: Integers, i: int) -> Dyadic:
    return int(values.mantissas[i]), int(values.exponents[i])


def _is_positive(values: Integers) -> bool:
    return bool((values.mantissas > 0).all())


def _round_up(number: Dyadic) -> float:
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


def _integers(values: NDArray[Any], name: str) -> Integers:
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
    return Integers(np.where(negative == 1, -magnitude, magnitude), np.maximum(exponent, 1) - bias)


def _number(value: float, name: str) -> Dyadic:
    number = float(value)
    if number != value and value == value:
        raise ValueError(f"{name} is {value!r}, expected a float64; round it first.")
    return _entry(_integers(np.array([number]), name), 0)


def _floats(values: ArrayLike, name: str, ndim: int) -> NDArray[Any]:
    """The array in native byte order, its bits unchanged; ValueError if it is not of floats."""
    array = np.asarray(values)
    if array.dtype.name not in _FORMATS or array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{name} has dtype {array.dtype} and shape {array.shape}, expected float16, float32 "
            f"or float64 and {ndim} dimensions without a zero; convert it first."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_shape(array: NDArray[Any], name: str, expected: tuple[int, int]) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}, expected {expected}; check the weights.")


def _outputs(
    C: ArrayLike, D: ArrayLike | None, n: int, p: int | None = None
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    outputs = _floats(C, "C", 2)
    _check_shape(outputs, "C", (len(outputs), n))
    if D is None:
        return outputs, None
    feed = _floats(D, "D", 2)
    _check_shape(feed, "D", (len(outputs), feed.shape[1] if p is None else p))
    return outputs, feed
