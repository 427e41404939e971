"""Named problems that every backend is tested on."""

from __future__ import annotations

import numpy as np

from contraction_nets.geometry.sets import LipschitzStateSet, MatrixMeasureSet, NormBall
from contraction_nets.solving.problems import LipschitzProblem, ProjectionProblem


def _random(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def projection_problems():
    """Projections onto every kind of row, feasible rows, ties and zeros included."""
    eta = np.random.default_rng(0).uniform(0.3, 3.0, 12)
    mixed = _random(1, (12, 12))
    mixed[::3] *= 0.01  # every third row is feasible
    return {
        "measure": ProjectionProblem(_random(0, (12, 12)), MatrixMeasureSet(0.95)),
        "some rows feasible": ProjectionProblem(mixed, MatrixMeasureSet(0.5, eta)),
        "inside": ProjectionProblem(0.01 * _random(2, (5, 5)), MatrixMeasureSet(0.95)),
        "negative bound": ProjectionProblem(_random(3, (6, 6)), MatrixMeasureSet(-2.0)),
        "ties": ProjectionProblem(np.ones((4, 4)), MatrixMeasureSet(0.5)),
        "zeros": ProjectionProblem(np.zeros((3, 3)), MatrixMeasureSet(-0.5)),
        "one state": ProjectionProblem(np.array([[3.0]]), MatrixMeasureSet(0.9)),
        "norm ball": ProjectionProblem(_random(4, (6, 9)), NormBall(1.0)),
        "state rows": ProjectionProblem(_random(5, (7, 11)), LipschitzStateSet(eta[:7])),
    }


def lipschitz_problem(seed, n, p, q, *, gamma=0.9, feedthrough=True):
    """The Lipschitz LP of a random well-posed network."""
    rng = np.random.default_rng(seed)
    M = np.abs(rng.normal(size=(n, n)))
    np.fill_diagonal(M, rng.normal(size=n))
    off = M.sum(axis=1) - np.diag(M)
    M *= (rng.uniform(0.2, 1.0, n) * gamma / np.maximum(off, 1e-12))[:, None]
    np.fill_diagonal(M, np.minimum(np.diag(M), 0.0))
    b = np.abs(rng.normal(size=(n, p))).sum(axis=1)
    C = np.abs(rng.normal(size=(q, n)))
    d = np.abs(rng.normal(size=(q, p))).sum(axis=1) if feedthrough else np.zeros(q)
    return LipschitzProblem(M, b, C, d)


def lipschitz_problems():
    """Lipschitz LPs of well-posed networks."""
    return {
        "small": lipschitz_problem(0, 3, 2, 2),
        "feed-through": lipschitz_problem(1, 20, 5, 4),
        "no feed-through": lipschitz_problem(2, 30, 3, 10, feedthrough=False),
        "feed-forward": LipschitzProblem(
            np.tril(np.abs(_random(3, (8, 8))), -1), np.ones(8), np.ones((1, 8)), np.zeros(1)
        ),
        "nearly critical": lipschitz_problem(4, 10, 4, 3, gamma=0.999),
    }
