"""The smallest margin of a tiny network over a box of inputs, by enumeration."""

import itertools
from fractions import Fraction

import numpy as np


def random_network(rng, n, p, q):
    """Arguments of `ImplicitWeights`: any signs, diagonals near one, leaky slopes, scales."""
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < rng.uniform(0.3, 1.0))
    off = np.abs(A).sum(axis=1) - np.abs(A.diagonal())
    diagonal = rng.choice([-3.0, -0.5, 0.0, 0.3, 0.9, 1 - 1e-6], n)
    gap = (1.0 - diagonal) * rng.choice([0.3, 0.7, 0.95])
    A = A * (gap / np.maximum(off, 1e-12))[:, None]
    np.fill_diagonal(A, diagonal)
    eta = 10.0 ** rng.uniform(-1, 1, n)
    A = A * eta[:, None] / eta
    slope = float(rng.choice([0.0, 0.0, 0.01, 0.3, 1 - 1e-7, 1.0]))
    dtype = rng.choice([np.float32, np.float64])
    if dtype == np.float32:
        A = A * np.where(np.eye(n) == 1, 1.0, 0.999)
    arrays = {
        "A": A,
        "B": rng.normal(size=(n, p)),
        "C": rng.normal(size=(q, n)) / eta,
        "b": rng.normal(size=n) * 0.3,
        "c": rng.normal(size=q) * 0.1,
    }
    if rng.uniform() < 0.3:
        arrays["D"] = rng.normal(size=(q, p))
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    return {**arrays, "activation": "relu" if slope == 0 else f"leaky_relu({slope!r})"}


def outputs(network, slope, U):
    """Outputs of many inputs, (m, q): every sign pattern is tried until one is consistent."""
    A, B, C = (np.asarray(network[name], np.float64) for name in "ABC")
    n = len(A)
    drive = U @ B.T + network["b"]
    best, residual = np.zeros((len(U), n)), np.full(len(U), np.inf)
    for pattern in itertools.product((1.0, slope), repeat=n):
        d = np.array(pattern)
        x = np.linalg.solve(np.eye(n) - d[:, None] * A, (d * drive).T).T
        v = x @ A.T + drive
        off = np.abs(x - np.where(v > 0, v, slope * v)).max(axis=1)
        best = np.where((off < residual)[:, None], x, best)
        residual = np.minimum(residual, off)
    Y = best @ C.T + network["c"]
    return Y + U @ np.asarray(network["D"], np.float64).T if "D" in network else Y


def candidates(network, slope, lower, upper):
    """All vertices of the cells on which the network is affine, moved into the box, and more."""
    A, B = np.asarray(network["A"], np.float64), np.asarray(network["B"], np.float64)
    n, p = B.shape
    points = [np.array(list(itertools.product(*zip(lower, upper, strict=True))))]
    for pattern in itertools.product((1.0, slope), repeat=n):
        d = np.array(pattern)
        inverse = np.linalg.inv(np.eye(n) - d[:, None] * A)
        # s = A x + B u + b is zero on the borders of the cell.
        S = A @ inverse @ (d[:, None] * B) + B
        r = A @ inverse @ (d * network["b"]) + network["b"]
        faces = np.vstack([S, np.eye(p), np.eye(p)])
        right = np.concatenate([-r, lower, upper])
        chosen = np.array(list(itertools.combinations(range(len(faces)), p)))
        systems, values = faces[chosen], right[chosen]
        regular = np.abs(np.linalg.det(systems)) > 1e-12
        if regular.any():
            points.append(np.linalg.solve(systems[regular], values[regular][:, :, None])[:, :, 0])
    found = np.clip(np.vstack(points), lower, upper)
    return found[np.isfinite(found).all(axis=1)]


def smallest_margin(network, slope, label, lower, upper):
    """min over the box and over k of y_t − y_k, up to 1e-9 or so."""
    Y = outputs(network, slope, candidates(network, slope, lower, upper))
    others = np.delete(Y, label, axis=1)
    return float((Y[:, label] - others.max(axis=1)).min())


def solved(M, r):
    """M⁻¹ r in fractions; None where M is singular."""
    rows = [[*row, value] for row, value in zip(M, r, strict=True)]
    for i in range(len(rows)):
        pivot = next((k for k in range(i, len(rows)) if rows[k][i] != 0), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k, row in enumerate(rows):
            if k != i and row[i] != 0:
                rows[k] = [a - row[i] * b for a, b in zip(row, rows[i], strict=True)]
    return [row[-1] for row in rows]


def exact_smallest_margin(A, B, C, b, slope, lower, upper):
    """min over the box of (C_0 − C_1) x in fractions, for arrays of floats; no output bias.

    It is attained at a vertex of a cell on which the network is affine.
    """
    exact = np.vectorize(Fraction, otypes=[object])
    A, B, C, b = (exact(array) for array in (A, B, C, b))
    n, p = B.shape
    identity, found = exact(np.eye(n)), []
    for pattern in itertools.product((Fraction(1), Fraction(slope)), repeat=n):
        d = np.array(pattern, dtype=object)
        M = (identity - d[:, None] * A).tolist()
        columns = [solved(M, (d * B[:, j]).tolist()) for j in range(p)]
        offset = solved(M, (d * b).tolist())
        if offset is None:
            continue
        # v = V u + w are the sums before the activation.
        V = A @ np.array(columns, dtype=object).T + B
        w = A @ np.array(offset, dtype=object) + b
        faces = [*zip(V.tolist(), (-w).tolist(), strict=True)]
        for j, ends in enumerate(zip(lower, upper, strict=True)):
            faces += [([Fraction(k == j) for k in range(p)], end) for end in ends]
        for chosen in itertools.combinations(faces, p):
            u = solved([face for face, _ in chosen], [value for _, value in chosen])
            if u is None or not all(a <= v <= z for a, v, z in zip(lower, u, upper, strict=True)):
                continue
            v = V @ np.array(u, dtype=object) + w
            if all(own >= 0 if k == 1 else own <= 0 for k, own in zip(pattern, v, strict=True)):
                found.append((C[0] - C[1]) @ (d * v))
    return min(found)
