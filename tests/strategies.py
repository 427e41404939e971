"""Random matrices, weights and sets that the property tests share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from contraction_nets.geometry.sets import (
    ConvolutionSet,
    LipschitzOutputSet,
    LipschitzStateSet,
    MatrixMeasureSet,
    NormBall,
)

seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.0, 5e-324, 1e-300, 1e-30, 1e-3, 1.0, 1e3, 1e30])
gammas = st.sampled_from([-3.0, -1e-9, 0.0, 1e-12, 0.5, 0.95, 7.0])


@st.composite
def matrices(draw, shape):
    """Matrices of one scale or many, with ties and zeros."""
    rng = np.random.default_rng(draw(seeds))
    V = rng.normal(size=shape) * draw(scales)
    kind = draw(st.sampled_from(["plain", "ties", "sparse", "mixed"]))
    if kind == "ties":
        V = np.sign(V) * np.abs(V).max(initial=0.0)
    elif kind == "sparse":
        V = V * (rng.uniform(size=shape) < 0.3)
    elif kind == "mixed":
        V = V * 10.0 ** rng.integers(-6, 3, size=shape)
    return V


@st.composite
def points_and_sets(draw):
    """A matrix and a row set made for its shape, one of every kind."""
    n, rng = draw(st.integers(1, 7)), np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["measure", "weighted", "norm", "state", "output", "conv"]))
    eta, gamma = 10.0 ** rng.uniform(-2, 2, n), draw(gammas)
    if kind == "measure":
        return draw(matrices((n, n))), MatrixMeasureSet(gamma)
    if kind == "weighted":
        return draw(matrices((n, n))), MatrixMeasureSet(gamma, eta)
    if kind == "norm":
        return draw(matrices((n, n + 2))), NormBall(abs(gamma))
    if kind == "state":
        return draw(matrices((n, n + 3))), LipschitzStateSet(eta)
    if kind == "output":
        return draw(matrices((2, n + 3))), LipschitzOutputSet(eta, abs(gamma))
    return draw(matrices((2, 2, 3, 3))), ConvolutionSet(gamma)


def tight_sectors(rng, n, p, q):
    """Arguments of `prove_sectors`, small integers over powers of two: every inequality is tight.

    With L, κ, μ, ν and an E whose rows dominate with equality, T = L Lᵀ + E is solved for A, C
    and the bounds; the last input does nothing, and its μ fills up Σμ = bound.
    """
    z = 2.0 ** rng.integers(-1, 2, n)
    B = np.append(rng.integers(-2, 3, (n, p)), np.zeros((n, 1)), axis=1).astype(float)
    A, C, D = np.zeros((n, n)), np.zeros((q, n)), np.zeros((q, p + 1))
    proofs = []
    for k in range(q):
        kappa = 2.0 ** rng.integers(-1, 2, n) if k == 0 else np.zeros(n)
        mu = np.append(2.0 ** rng.integers(-1, 2, p), 0.0)
        nu = np.append(1 / mu[:p], 1.0)
        D[k, :p] = rng.integers(-2, 3, p)
        L = np.tril(rng.integers(-2, 3, (n + 1, n + 1))).astype(float)
        L[:n] *= k == 0  # A is spent on the first output; the others need D alone
        L[n, :n] *= k == 0
        np.fill_diagonal(L, np.append(rng.integers(30, 40, n) * (k == 0), rng.integers(7, 9)))
        E = rng.integers(-2, 3, (n + 1, n + 1)) * float(k == 0)
        E = E + E.T - 2 * np.diag(np.diag(E))
        np.fill_diagonal(E, np.abs(E).sum(axis=1))
        P = (np.vstack([B, D[k]]) * nu) @ np.vstack([B, D[k]]).T
        T = L @ L.T + E
        bound = T[n, n] + P[n, n]
        if k == 0:
            S = T[:n, :n] + kappa[:, None] * P[:n, :n] * kappa
            split = np.triu(rng.integers(-2, 3, (n, n)), 1) + 0.0
            A = (split + np.tril(-S - split.T, -1)) / (kappa[:, None] * z)
            np.fill_diagonal(A, 1 - np.diag(S) / (2 * kappa * z))
            C[k] = (T[:n, n] - kappa * P[:n, n]) / z
        mu[p] = bound - mu.sum()
        proofs.append((kappa, mu, nu, L[np.tril_indices(n + 1)], bound))
    return [A, B, C, D, z, *map(np.array, zip(*proofs, strict=True))]
