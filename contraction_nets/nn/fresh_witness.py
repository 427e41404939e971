"""A witness z of THEORY §5 for present weights: a proposal, which its user has to check."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.geometry.measures import metzler_majorant

Array = NDArray[np.float64]

_LEAST_DRIVE = 2.0**-10  # of the mean of |B|1: what a state without inputs is granted
_MOST_ROOM = 2.0**20  # by which a witness may grow
_TAME = 1e20  # a witness is between its inverse and that: far inside of the range of float32


def fresh_witness(states: Any, outputs: Any, slack: float, limit: float) -> Array:
    """√(L / bound) · ((1 − slack)I − M)⁻¹(|B|1 + δ), or a constant where that is not positive.

    Parameters
    ----------
    states : (n, n + p) array
        [A, B].
    outputs : (q, n) or (q, n + p) array
        C or [C, D].
    slack : float
        Of z in the state rows, see `LipschitzStateSet`.
    limit : float
        L; with the present weights z proves it where the square root is at least one.
    """
    n = len(states)
    with np.errstate(all="ignore"):
        drive = np.abs(states[:, n:].astype(np.float64)).sum(axis=1)
        drive += _LEAST_DRIVE * drive.mean() if drive.any() else 1.0
        z = _solved((1.0 - slack) * np.eye(n) - metzler_majorant(states[:, :n]), drive)
        gains = np.abs(outputs.astype(np.float64))
        bound = float((gains[:, :n] @ z + gains[:, n:].sum(axis=1)).max())
        # No z at all, or one that no float32 weights live up to, comes from wild weights.
        room = math.sqrt(limit / bound) if limit / _MOST_ROOM**2 < bound < math.inf else _MOST_ROOM
        z = z * min(room, _MOST_ROOM)
    return z if _tame(z) else np.ones(n)


def _solved(system: Array, right: Array) -> Array:
    """The solution, or the right-hand side where the system is no M-matrix to the eye."""
    try:
        z = np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        return right
    return z if (z > 0).all() else right


def _tame(z: Array) -> bool:
    """Whether weights of ordinary size live beside this witness."""
    return bool(np.isfinite(z).all() and z.min() > 1.0 / _TAME and z.max() < _TAME)
