"""Polishing: one exact solve on the active set that an iterative solver has found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contraction_nets.solving.problems import ProjectionProblem

Array = NDArray[np.float64]


def polish(problem: ProjectionProblem, x: Array) -> Array:
    """The stationary point of the active set of x, where that is better than x.

    An interior-point answer is good to the square root of its gap. Its active set is right
    long before: on it the equation of THEORY §3 for λ is linear. Kept only if the KKT
    residuals confirm it, so that a wrong guess cannot make the answer worse.

    Parameters
    ----------
    problem : ProjectionProblem
        Onto a set with rows.
    x : (m, ...) array
        Answer of a solver.

    Returns
    -------
    (m, ...) array
    """
    rows = problem.rows
    V, X = problem.point.reshape(rows.shape), x.reshape(rows.shape)
    w, beta = rows.weights, rows.level * rows.scale
    lines = np.arange(rows.shape[0])
    removed = np.abs(V) - np.abs(X)
    if rows.signed is not None:
        removed[lines, rows.signed] = (V - X)[lines, rows.signed]
        guess = removed[lines, rows.signed] / w[rows.signed]
    else:
        guess = (removed / w).max(axis=1)
    support = np.abs(V) > guess[:, None] * w
    magnitudes = np.abs(V)
    if rows.signed is not None:
        support[lines, rows.signed] = True
        magnitudes[lines, rows.signed] = V[lines, rows.signed]
    outside = (magnitudes * w).sum(axis=1) > beta
    squares = np.where(support, w * w, 0.0).sum(axis=1)
    value = np.where(support, magnitudes * w, 0.0).sum(axis=1) - beta
    root = np.where(outside, value / np.where(squares > 0, squares, 1.0), 0.0)
    Y = np.sign(V) * np.maximum(np.abs(V) - root[:, None] * w, 0.0)
    if rows.signed is not None:
        Y[lines, rows.signed] = V[lines, rows.signed] - root * w[rows.signed]
    y = Y.reshape(x.shape)
    before, after = problem.residuals(x), problem.residuals(y)
    return y if max(after.primal, after.dual) <= max(before.primal, before.dual) else x
