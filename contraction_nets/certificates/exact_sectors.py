"""The semidefinite bound of sectors.py, proved in exact arithmetic.

Differences of two solutions obey x = S v with v = A x + B u and slopes S in [0, 1], so that
x_i (x_i − v_i) ≤ 0; |u_j| ≤ ε_j. In the units x_i = z_i x̂_i and u_j = ε_j û_j, numbers κ ≥ 0 and
μ > 0 with Σμ ≤ bound and

    Q = 2 Σ κ_i x̂_i (x_i − v_i) + Σ μ_j û_j² − y²/bound ⪰ 0,    y = c x + d u,

prove y² ≤ bound · Σμ ≤ bound². To decide Q ⪰ 0, a variable whose square counts `bound` times
takes the place of −y²/bound, as one row more, and the inputs are eliminated: Q ⪰ 0 where

    T = K (I − F) Z + (K (I − F) Z)ᵀ − K G diag(ν) Gᵀ K ⪰ 0,    ν_j ≥ 1/μ_j,
    F = [A 0; c 0],  G = [B; d] diag(ε),  K = diag(κ, −1),  Z = diag(z, −bound/2),

two Schur complements. At last T ⪰ 0 where E = T − L Lᵀ is diagonally dominant, for any L:
E_ii ≥ Σ_{j≠i} |E_ij| for all i.

Beside exact.py, whose integers it uses, this file needs only the standard library and numpy.
Its integers take some ten times the memory of the weights, one output at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from contraction_nets.certificates.exact import (
    Dyadic,
    Fixed,
    Integers,
    add,
    aligned,
    at_most,
    entries,
    full,
    integers,
    prove_well_posed,
    read_matrix,
    read_radii,
    read_vector,
)


def prove_sectors(
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    z: ArrayLike,
    multipliers: Any,
    input_multipliers: Any,
    inverses: Any,
    factors: Any,
    bounds: ArrayLike,
    epsilon: ArrayLike | None = None,
) -> bool:
    """Whether the network is proved well-posed, and |Δy_k| ≤ bounds_k where |Δu_j| ≤ ε_j.

    The proof is z as in `prove_well_posed` and, for every output, μ > 0, μ_j ν_j ≥ 1, Σμ ≤ bound
    and a diagonally dominant T − L Lᵀ, as this file begins. Then κ ≥ 0 as well, for
    0 ≤ T_ii ≤ 2 κ_i (1 − A_ii) z_i and well-posed A have A_ii < 1.

    Parameters
    ----------
    A, B, C, D : (n, n), (n, p), (q, n) and (q, p) matrices
        The stored weights; D may be None.
    z : (n,) array
    multipliers : (q, n) array
        κ of every output, in output units as the others.
    input_multipliers, inverses : (q, p) arrays
        μ and ν of every output.
    factors : (q, (n + 1)(n + 2)/2) array
        Lower triangles L, row by row.
    bounds : (q,) array
        In output units.
    epsilon : (p,) array, optional
        In input units, not negative; all ones by default.
    """
    limits, units = read_vector(bounds, "bounds"), read_vector(z, "z")
    q, n, p = len(limits.m), len(units.m), read_matrix(B, "B").shape[1]
    states, inputs = _read(A, "A", (n, n)), _read(B, "B", (n, p))
    outputs = _read(C, "C", (q, n))
    feed = _read(np.zeros((q, p)) if D is None else D, "D", (q, p))
    kappa = _read(multipliers, "multipliers", (q, n))
    mu = _read(input_multipliers, "input_multipliers", (q, p))
    nu = _read(inverses, "inverses", (q, p))
    packed = _read(factors, "factors", (q, (n + 1) * (n + 2) // 2))
    radii = aligned(read_radii(epsilon, p))
    for k in range(q):
        bound = int(limits.m[k]), int(limits.e[k])
        if not _inputs_fit(_row(mu, k), _row(nu, k), bound):
            return False
        F = aligned(_below(states, _row(outputs, k)))
        G = aligned(_below(inputs, _row(feed, k)))
        K = aligned(_append(_row(kappa, k), (-1, 0)))
        Z = aligned(_append(units, (-bound[0], bound[1] - 1)))
        G = Fixed(G.m * radii.m, G.e + radii.e)
        T = _slack(F, G, K, Z, aligned(_row(nu, k)))
        if not _dominates(T, aligned(_row(packed, k))):
            return False
    return prove_well_posed(A, z)


def _inputs_fit(mu: Integers, nu: Integers, bound: Dyadic) -> bool:
    """Whether μ > 0, μ_j ν_j ≥ 1 and Σμ ≤ bound."""
    if (mu.m <= 0).any():
        return False
    pairs = zip(entries(mu), entries(nu), strict=True)
    inverse = all(at_most((1, 0), (m * w, e + f)) for (m, e), (w, f) in pairs)
    return inverse and at_most(add(*entries(mu)), bound)


def _slack(F: Fixed, G: Fixed, K: Fixed, Z: Fixed, nu: Fixed) -> Fixed:
    """T; F without its last column, which is zero."""
    n = F.m.shape[1]
    linear = np.zeros((n + 1, n + 1), dtype=object)
    linear[:, :n] = -K.m[:, None] * F.m * Z.m[:n]
    diagonal = np.zeros_like(linear)
    np.fill_diagonal(diagonal, 2 * K.m * Z.m)
    gram = (G.m * nu.m) @ G.m.T
    return _sum(
        Fixed(diagonal, K.e + Z.e),
        Fixed(linear + linear.T, K.e + F.e + Z.e),
        Fixed(-K.m[:, None] * gram * K.m, 2 * K.e + 2 * G.e + nu.e),
    )


def _dominates(T: Fixed, packed: Fixed) -> bool:
    """Whether E = T − L Lᵀ, symmetric, is diagonally dominant; L packed row by row."""
    L = np.zeros_like(T.m)
    L[np.tril_indices(len(L))] = packed.m
    E = _sum(T, Fixed(-L @ L.T, 2 * packed.e)).m
    return bool((2 * np.diagonal(E) >= sum(abs(E))).all())


def _sum(*terms: Fixed) -> Fixed:
    lowest = min(e for _, e in terms)
    return Fixed(np.asarray(sum(m * (1 << (e - lowest)) for m, e in terms)), lowest)


def _read(values: Any, name: str, shape: tuple[int, int]) -> Integers:
    return integers(full(read_matrix(values, name, shape)), name)


def _row(matrix: Integers, k: int) -> Integers:
    return Integers(matrix.m[k], matrix.e[k])


def _below(matrix: Integers, row: Integers) -> Integers:
    return Integers(np.vstack([matrix.m, row.m]), np.vstack([matrix.e, row.e]))


def _append(vector: Integers, number: Dyadic) -> Integers:
    return Integers(np.append(vector.m, number[0]), np.append(vector.e, number[1]))
