"""The smallest margin of a tiny network over a box of inputs, by enumeration."""

import itertools

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
