"""The proof that a network is well-posed, or why there is none (THEORY §2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.exact import prove_well_posed
from contraction_nets.certificates.optimal import optimal_weights
from contraction_nets.certificates.systems import System, system_of
from contraction_nets.certificates.witness import well_posed_witnesses
from contraction_nets.errors import NotWellPosedError
from contraction_nets.geometry.measures import matrix_measure

Array = NDArray[np.float64]


def well_posed_witness(A: Any) -> tuple[System, Array]:
    """The system of I − M(A), and v > 0 with (I − M) v > 0, proved.

    Raises
    ------
    NotWellPosedError
        Well-posedness cannot be proved.
    """
    system = system_of(A)
    proposals = () if system is None else well_posed_witnesses(system)
    v = next((v for v in proposals if prove_well_posed(A, v)), None)
    if system is None or v is None:
        raise _not_well_posed(A)
    return system, v


def _not_well_posed(A: Any) -> NotWellPosedError:
    with np.errstate(all="ignore"):
        measure = matrix_measure(A)
    abscissa = optimal_weights(A).abscissa
    if abscissa < 1.0:
        reason = "too close to 1, or states of too different scales, for a proof in float64"
    else:
        reason = "expected below 1"
    return NotWellPosedError(
        f"the weights cannot be proved well-posed: μ∞(A) = {measure:.6g} and the spectral abscissa "
        f"of its Metzler majorant is {abscissa:.12g}, {reason}; "
        "project A onto a γ < 1 or train with the constraint.",
        measure=measure,
        abscissa=abscissa,
    )
