"""Why a network is not well-posed in ℓ∞, and what it may still be in ℓ2 (in float64)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.sparse.linalg import ArpackError, eigsh, svds

from contraction_nets.certificates.optimal import dominant_block
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.geometry.measures import metzler_majorant

_DENSE = 2000  # states; above, eigenvalues of sparse matrices come from Lanczos iterations


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
    worst = dominant_block(metzler_majorant(weights.A))
    try:
        A = weights.A.astype(np.float64)
        euclidean = _largest_eigenvalue(A / 2 + A.T / 2)
    except (np.linalg.LinAlgError, ArpackError) as error:
        raise ValueError(
            f"the eigenvalues of A cannot be computed ({error}), expected entries well below the "
            "largest float64; rescale it."
        ) from error
    bound = np.inf
    if euclidean < 1:
        norms = [
            _spectral_norm(matrix.astype(np.float64))
            for matrix in (weights.B, weights.C, weights.D)
            if matrix is not None
        ]
        bound = norms[0] * norms[1] / (1 - euclidean) + sum(norms[2:])
    return Diagnosis(worst.block, worst.upper, euclidean, bound)


def _largest_eigenvalue(S: Any) -> float:
    """Of a symmetric matrix, dense or sparse."""
    if issparse(S) and S.shape[0] > _DENSE:
        return float(eigsh(S, k=1, which="LA", return_eigenvectors=False)[0])
    return float(np.linalg.eigvalsh(S.toarray() if issparse(S) else S)[-1])


def _spectral_norm(matrix: Any) -> float:
    if issparse(matrix) and min(matrix.shape) > 1:
        return float(svds(matrix, k=1, return_singular_vectors=False)[0])
    return float(np.linalg.norm(matrix.toarray() if issparse(matrix) else matrix, 2))
