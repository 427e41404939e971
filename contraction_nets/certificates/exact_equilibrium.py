"""How far a computed state is from the equilibrium, proved in exact arithmetic (THEORY §4, §6).

Beside exact.py, whose integers it uses, this file needs only the standard library and numpy. Relu
and leaky relu are evaluated exactly. The transcendental activations are enclosed by 80 digits of
Python's decimal arithmetic, which rounds exp and ln correctly.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.exact import (
    Dyadic,
    Integers,
    add,
    at_most,
    entries,
    ones,
    prove_well_posed,
    read_matrix,
    read_number,
    read_vector,
    row_sums,
    state_slacks,
)


def prove_equilibrium(
    A: Any,
    B: Any,
    b: Any,
    activation: tuple[str, float | None],
    u: Any,
    x: Any,
    z: Any,
    w: Any,
    distance: float,
) -> bool:
    """Whether ‖x − x*‖∞ ≤ distance, x* being the solution of x* = φ(Ax* + Bu + b).

    The proof is z as in `prove_well_posed`, distance ≥ w, and (I − M(A)) w ≥ max(1, 1 − A_ii) |r_i|
    with the residual r = x − φ(Ax + Bu + b): as in THEORY §4, r in the place of BΔu. Then even
    |x − x*| ≤ w entry by entry.

    Parameters
    ----------
    A, B, b : (n, n) and (n, p) matrices, (n,) array
        b may be None.
    activation : tuple of str and float or None
        φ and its parameter, such as ("leaky_relu", 0.1).
    u, x, z, w : (p,), (n,), (n,) and (n,) arrays
        Input, computed equilibrium, and the two witnesses.
    distance : float
    """
    residuals = equilibrium_residuals(A, B, b, activation, u, x)
    n = len(residuals)
    error, limit = read_vector(w, "w", n), read_number(distance, "distance")
    if not all(at_most(own, limit) for own in entries(error)):
        return False
    slacks = state_slacks(read_matrix(A, "A", (n, n)), error)
    for ends, slack in zip(residuals, slacks, strict=True):
        for own in ends:
            if not at_most(own, slack):
                return False
    return prove_well_posed(A, z)


def equilibrium_residuals(
    A: Any, B: Any, b: Any, activation: tuple[str, float | None], u: Any, x: Any
) -> list[tuple[Dyadic, Dyadic]]:
    """max(1, 1 − A_ii)|r_i| for every state i, with r = x − φ(Ax + Bu + b).

    The larger of the two numbers is no less than it; they are equal where φ is piecewise linear.
    The arguments are those of `prove_equilibrium`.
    """
    drive, state = read_vector(u, "u"), read_vector(x, "x")
    n = len(state.m)
    matrix, inputs = read_matrix(A, "A", (n, n)), read_matrix(B, "B", (n, len(drive.m)))
    bias = Integers(state.m * 0, state.e) if b is None else read_vector(b, "b", n)
    rows = zip(
        row_sums(matrix, state, _signed),
        row_sums(inputs, drive, _signed),
        entries(bias),
        entries(state),
        row_sums(matrix, ones(n), _diagonal),
        strict=True,
    )
    found = []
    for from_states, from_inputs, own_bias, own, (a, e) in rows:
        scale = add((1, 0), (max(-a, 0), e))
        images = _activation(*activation, add(from_states, from_inputs, own_bias))
        low, high = (add(own, (-image[0], image[1])) for image in images)
        found.append((_magnitude(low, scale), _magnitude(high, scale)))
    return found


def _magnitude(residual: Dyadic, scale: Dyadic) -> Dyadic:
    return abs(residual[0]) * scale[0], residual[1] + scale[1]


def _signed(m: NDArray[np.int64], on_diagonal: NDArray[np.bool_]) -> NDArray[np.int64]:
    return m


def _diagonal(m: NDArray[np.int64], on_diagonal: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(on_diagonal, m, 0)


def _activation(name: str, parameter: Any, v: Dyadic) -> tuple[Dyadic, Dyadic]:
    """Numbers below and above φ(v), both φ(v) itself where φ is piecewise linear."""
    if parameter is not None and not 0 <= parameter <= 1:
        raise ValueError(f"{name} has the parameter {parameter!r}, expected one in [0, 1].")
    m, e = v
    if name in ("relu", "leaky_relu", "elu") and m >= 0:
        return v, v
    if name in ("relu", "leaky_relu"):
        slope = (0, 0) if name == "relu" else read_number(parameter, "the slope")
        return (slope[0] * m, slope[1] + e), (slope[0] * m, slope[1] + e)
    # Python's decimal rounds exp and ln correctly: 80 digits leave an error far below the margin.
    with localcontext(Context(prec=80)):
        size = Decimal(abs(m) << max(e, 0)) / Decimal(1 << max(-e, 0))
        t = (-size).exp()
        if name == "tanh":
            value = (1 - t * t) / (1 + t * t) * (1 if m >= 0 else -1)
        elif name == "sigmoid":
            value = (1 if m >= 0 else t) / (1 + t)
        elif name == "softplus":
            value = (1 + t).ln() + (size if m >= 0 else 0)
        elif name == "elu":
            value = Decimal(parameter) * (t - 1)
        else:
            raise ValueError(f"got the activation {name!r}, expected one that is known here.")
        margin = (size + 1) * Decimal("1e-60")
        low, high = Fraction(value - margin), Fraction(value + margin)
    return (math.floor(low * 2**240), -240), (math.ceil(high * 2**240), -240)
