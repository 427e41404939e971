"""Why a network is not well-posed in ℓ∞, and what it may still be in ℓ2 (in float64)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.geometry.measures import metzler_majorant, spectral_abscissa


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What stands in the way of a certificate; computed in float64, nothing here is proved.

    Attributes
    ----------
    states : (k,) integer array
        The strongly connected block of states of the largest spectral abscissa: what would have
        to change, whatever the weights η and the other states.
    abscissa : float
        That of the Metzler majorant of A, attained by this block.
    euclidean_measure : float
        Largest eigenvalue of (A + Aᵀ)/2. Below one the network is well-posed in ℓ2 all the same,
        as every monotone operator network is.
    euclidean_bound : float
        Then the bound ‖B‖₂‖C‖₂ / (1 − euclidean_measure) + ‖D‖₂ on the ℓ2 → ℓ2 Lipschitz
        constant, in output units per input unit; inf otherwise.
    """

    states: NDArray[np.intp]
    abscissa: float
    euclidean_measure: float
    euclidean_bound: float


def diagnose(weights: ImplicitWeights) -> Diagnosis:
    """Find the states that break well-posedness in ℓ∞, and test it in ℓ2.

    With slopes in [0, 1], Δx = S (A Δx + B Δu) gives ‖Δx‖² ≤ ⟨Δx, A Δx + B Δu⟩, from which the
    ℓ2 bound follows.

    Parameters
    ----------
    weights : ImplicitWeights

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        Eigenvalues cannot be computed: the entries of A are beyond the range of float64 sums.
    """
    M = metzler_majorant(weights.A)
    edges = csr_array(M - np.diag(np.diagonal(M)))
    count, block_of = connected_components(edges, directed=True, connection="strong")
    blocks = [np.flatnonzero(block_of == k) for k in range(count)]
    try:
        abscissae = [spectral_abscissa(M[np.ix_(block, block)]) for block in blocks]
        A = weights.A.astype(np.float64)
        euclidean = float(np.linalg.eigvalsh(A / 2 + A.T / 2)[-1])
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"the eigenvalues of A cannot be computed ({error}), expected entries well below the "
            "largest float64; rescale it."
        ) from error
    worst = int(np.argmax(abscissae))
    bound = np.inf
    if euclidean < 1:
        norms = [
            float(np.linalg.norm(matrix.astype(np.float64), 2))
            for matrix in (weights.B, weights.C, weights.D)
            if matrix is not None
        ]
        bound = norms[0] * norms[1] / (1 - euclidean) + sum(norms[2:])
    return Diagnosis(blocks[worst], abscissae[worst], euclidean, bound)
