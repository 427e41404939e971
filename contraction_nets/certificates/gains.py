"""Gains from single inputs to outputs, and to differences of outputs, rounded up (THEORY §4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.rounding import rounded_up
from contraction_nets.certificates.statements import GainMatrix
from contraction_nets.certificates.weights import ImplicitWeights, full
from contraction_nets.certificates.well_posed import well_posed_witness
from contraction_nets.certificates.witness import ScaledProgram
from contraction_nets.errors import SolverError

Array = NDArray[np.float64]


def gain_matrix_statement(weights: ImplicitWeights) -> GainMatrix:
    """Γ = |C|(I − M)⁻¹|B| + |D| with the witness that proves it in exact arithmetic.

    Raises
    ------
    NotWellPosedError
        Well-posedness cannot be proved.
    SolverError
        No witness in float64 proves any gains.
    """
    # In units of a bound's witness, a few networks of extreme scales would lose their gains.
    system, v = well_posed_witness(weights.A)
    program = ScaledProgram.of(weights, None, v, system)
    for Y in program.output_witnesses():
        gains = rounded_up(Y @ abs(weights.B.astype(np.float64)), weights.state_dim, Y.max())
        if weights.D is not None:
            D = full(weights.D)
            gains = rounded_up(gains + np.abs(D), 1, 0.0)
        statement = GainMatrix(gains, v, Y)
        if np.isfinite(gains).all() and statement.prove(weights):
            return statement
    raise SolverError(
        "no witness in float64 proves the gains, expected the entries of |C|(I − M)⁻¹ in its "
        "range and the abscissa of M below one by more than rounding; rescale the inputs or the "
        "outputs."
    )


def output_differences(C: Any, D: Any, z: Array, epsilon: Array | None) -> Array:
    """|C_i − C_j| z + |D_i − D_j|ε for all i and j, (q, q), rounded up; D may be None."""
    rows = full(C)
    feed = np.zeros((len(rows), 1)) if D is None else full(D)
    radii = np.ones(feed.shape[1]) if epsilon is None else epsilon
    sums = np.zeros((len(rows), len(rows)))
    with np.errstate(all="ignore"):
        for i in range(len(rows)):
            sums[i] = np.abs(rows - rows[i]) @ z
            if D is not None:
                sums[i] += np.abs(feed - feed[i]) @ radii
    sums = rounded_up(sums, rows.shape[1] + feed.shape[1], max(z.max(), radii.max()))
    np.fill_diagonal(sums, 0.0)
    # Both triangles are valid; summed in another order they may differ in the last bit.
    return np.asarray(np.minimum(sums, sums.T))
