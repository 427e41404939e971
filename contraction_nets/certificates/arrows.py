"""Symmetric matrices of many inputs, no two of which meet: the algebra of input_multipliers.py.

An arrow is a matrix [core, side; sideᵀ, corner] of m rows, for the states and the output, and p
rows for the inputs. Of its corner only the diagonal counts. A form H is zero elsewhere, so that
m rows decide whether it is positive. Moments Y are completed to the matrix of largest
determinant, the one whose inverse is an arrow. So a step costs m p², where it would be (m + p)³.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.multipliers import (
    cholesky,
    inverse_of,
    scaled,
    symmetric,
    units_of,
)

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_SHRINK = 0.9  # what is left of a step that leaves the cone
_INSIDE = 0.95  # how much of the way to its boundary is taken
_TRIALS = 100


class Arrow(NamedTuple):
    """A batch of k matrices.

    Attributes
    ----------
    core, side : (k, m, m) and (k, m, p) arrays
    corner : (k, p) or (k, p, p) array
        Its diagonal, or all of it.
    """

    core: Array
    side: Array
    corner: Array

    def moved(self, step: Array, change: Arrow) -> Arrow:
        """This matrix and `step` times the other."""
        far = step[:, None, None]
        return Arrow(
            self.core + far * change.core,
            self.side + far * change.side,
            self.corner + step[:, None] * change.corner,
        )

    def at(self, chosen: NDArray[Any]) -> Arrow:
        """Some of the batch."""
        return Arrow(self.core[chosen], self.side[chosen], self.corner[chosen])

    def put(self, chosen: NDArray[Any], other: Arrow) -> None:
        """Replace some of the batch."""
        for mine, theirs in zip(self, other, strict=True):
            mine[chosen] = theirs

    def diagonal(self) -> Arrow:
        """Without what a full corner has beside its diagonal."""
        return Arrow(self.core, self.side, np.diagonal(self.corner, axis1=1, axis2=2))


class Product(NamedTuple):
    """A product of two symmetric matrices: three blocks, and diag(spread) + leftᵀ right."""

    core: Array
    side: Array
    below: Array
    spread: Array
    left: Array
    right: Array


def inner(X: Arrow, Y: Arrow) -> Array:
    """The trace of X Y, one of them with a diagonal corner."""
    twice = 2 * (X.side * Y.side).sum(axis=(1, 2))
    return np.asarray(
        (X.core * Y.core).sum(axis=(1, 2)) + twice + (X.corner * Y.corner).sum(axis=1)
    )


def inverse(H: Arrow) -> Arrow:
    """The inverse, with a full corner, of a positive matrix with a diagonal one."""
    scaled = H.side / H.corner[:, None]
    core = inverse_of(H.core - scaled @ H.side.mT)
    side = core @ scaled
    corner = scaled.mT @ side
    _diagonals(corner)[...] += 1.0 / H.corner
    return Arrow(core, -side, corner)


def completed(Y: Arrow) -> tuple[Arrow, Flags]:
    """The completion of largest determinant, and where there is one."""
    factors, alive = cholesky(Y.core)
    root = np.linalg.solve(factors, Y.side)
    corner = root.mT @ root
    _diagonals(corner)[...] = Y.corner
    return Arrow(Y.core, Y.side, corner), alive


def product(change: Arrow, H: Arrow, P: Arrow) -> Product:
    """`change` P, where P is the inverse of H.

    H P = 1 says that the corner of P is one less the product of the sides, over that of H.
    """
    spread = change.corner / H.corner
    return Product(
        change.core @ P.core + change.side @ P.side.mT,
        change.core @ P.side + change.side @ P.corner,
        change.side.mT @ P.core + change.corner[:, :, None] * P.side.mT,
        spread,
        change.side - spread[:, None] * H.side,
        P.side,
    )


def symmetric_product(Y: Arrow, Z: Product) -> Arrow:
    """(Y Z + (Y Z)ᵀ)/2 with the diagonal of its corner, where Y has a full one."""
    side = Y.core @ Z.side + Y.side * Z.spread[:, None] + (Y.side @ Z.left.mT) @ Z.right
    side += Z.core.mT @ Y.side + Z.below.mT @ Y.corner
    corner = (Y.side * Z.side + (Z.left @ Y.corner) * Z.right).sum(axis=1)
    corner += _diagonals(Y.corner) * Z.spread
    return Arrow(symmetric(Y.core @ Z.core + Y.side @ Z.below), side / 2, corner)


def symmetric_corner(Y: Arrow, Z: Product) -> Array:
    """All of the corner of `symmetric_product`."""
    left = np.concatenate([Y.side, Z.left @ Y.corner], axis=1)
    right = np.concatenate([Z.side, Z.right], axis=1)
    return symmetric(Y.corner * Z.spread[:, None] + left.mT @ right)


def reach(point: Arrow, change: Arrow, positive: Callable[[Arrow], Flags]) -> Array:
    """A step in (0, 1] that stays inside the cone; 0 where every step leaves it."""
    step, left = np.ones(len(point.core)), np.arange(len(point.core))
    for _ in range(_TRIALS):
        trial = point.at(left).moved(step[left] / _INSIDE, change.at(left))
        left = left[~positive(trial)]
        if not left.size:
            break
        step[left] *= _SHRINK
    step[left] = 0.0
    return step


def positive_form(H: Arrow) -> Flags:
    """Whether a matrix with zeros in its corner is positive definite."""
    return np.asarray(
        (H.corner > 0).all(axis=1) & _positive(H.core - H.side / H.corner[:, None] @ H.side.mT)
    )


def positive_moments(Y: Arrow) -> Flags:
    """Whether a matrix can be completed to a positive definite one."""
    good = _positive(Y.core)
    core = np.where(good[:, None, None], Y.core, np.eye(Y.core.shape[1]))
    spread = (Y.side * np.linalg.solve(core, Y.side)).sum(axis=1)
    return np.asarray(good & (Y.corner > spread).all(axis=1))


def _positive(matrices: Array) -> Flags:
    """By eigenvalues, which a batch has without exceptions, whatever the units."""
    scale = units_of(matrices)
    relative = scaled(matrices, scale)
    finite: Flags = np.asarray(np.isfinite(relative).all(axis=(1, 2)))
    relative = np.where(finite[:, None, None], relative, 0.0)
    lowest: Array = np.linalg.eigvalsh(relative).min(axis=1)
    return finite & (lowest > 0)


def _diagonals(matrices: Array) -> Array:
    """A view that can be written to."""
    return np.asarray(np.einsum("kii->ki", matrices))
