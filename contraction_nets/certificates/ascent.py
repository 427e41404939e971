"""Slopes that make an output move far: local search over the corners {0, 1}ⁿ, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.reduction import Patterns, ScaledNetwork

Array = NDArray[np.float64]


def ascend(
    network: ScaledNetwork, patterns: Patterns, outputs: NDArray[np.intp]
) -> tuple[Patterns, Array]:
    """Flip one slope after the other, always the best, until none increases the gain.

    With X = (I − SA)⁻¹SB, V = AX + B, R = (I − SA)⁻¹ and h = diag(AR), a change δ of slope i
    adds (c R)_i δ V_i / (1 − δ h_i) to the row c X + d: all n flips cost one inverse.

    Parameters
    ----------
    network : ScaledNetwork
    patterns : (k, n) integer array
        Slopes 0 or 1 to start from.
    outputs : (k,) integer array
        The output of each.

    Returns
    -------
    patterns : (k, n) integer array
    gains : (k,) array
        ‖c X + d‖₁ in the units of the network; not rounded in any direction.
    """
    A, B, n = network.A, network.B, len(network.A)
    S = patterns.astype(np.float64)
    lines = np.arange(len(S))
    c, gains = network.C[outputs], np.zeros(len(S))
    with np.errstate(all="ignore"):
        for _ in range(4 * n):
            try:
                R = np.linalg.inv(np.eye(n) - S[:, :, None] * A)
            except np.linalg.LinAlgError:
                break
            X = R @ (S[:, :, None] * B)
            row = (c[:, None] @ X)[:, 0] + network.D[outputs]
            gains = np.nan_to_num(np.abs(row).sum(axis=1))
            change = 1.0 - 2.0 * S
            h = np.einsum("ij,kji->ki", A, R)
            factor = (c[:, None] @ R)[:, 0] * change / (1.0 - change * h)
            flipped = np.abs(row[:, None] + factor[:, :, None] * (A @ X + B)).sum(axis=2)
            flipped = np.nan_to_num(flipped, nan=0.0, posinf=0.0)
            best = flipped.argmax(axis=1)
            better = flipped[lines, best] > gains * (1.0 + 1e-12)
            if not better.any():
                break
            S[lines[better], best[better]] += change[lines[better], best[better]]
    return S.astype(np.int8), gains
