"""How far a computed state may be from the equilibrium of its input, with a proof (THEORY §4).

Floating point proposes state and witness; exact_equilibrium.py decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.certificates.exact import round_up
from contraction_nets.certificates.exact_equilibrium import equilibrium_residuals
from contraction_nets.certificates.lipschitz import lipschitz_certificate
from contraction_nets.certificates.statements import EquilibriumError
from contraction_nets.certificates.states import computed_equilibrium
from contraction_nets.certificates.weights import ImplicitWeights, parse_activation
from contraction_nets.certificates.well_posed import well_posed_witness
from contraction_nets.errors import SolverError
from contraction_nets.geometry.measures import as_finite

Array = NDArray[np.float64]


def equilibrium_statement(
    weights: ImplicitWeights, u: ArrayLike, x: ArrayLike | None = None
) -> EquilibriumError:
    """Bound how far a computed state is from the equilibrium x* = φ(A x* + B u + b), with a proof.

    The distance is max w for the least w with (I − M) w ≥ max(1, 1 − A_ii)|r_i|, r being the
    residual of the state in exact arithmetic.

    Parameters
    ----------
    weights : ImplicitWeights
    u : (p,) array
        The input.
    x : (n,) array, optional
        A state that any program computed; computed here in float64 by default.

    Returns
    -------
    EquilibriumError
        Proved; `save_statement` writes it.

    Raises
    ------
    ValueError
        Input or state of another length or not finite, or a state beyond the range of float64.
    NotWellPosedError
        As `lipschitz_certificate`.
    SolverError
        No witness in float64 proves a distance.

    Examples
    --------
    >>> weights = ImplicitWeights([[-1.0]], [[1.0]], [[1.0]])
    >>> statement = equilibrium_statement(weights, [3.0])
    >>> statement.state, statement.distance < 1e-15, statement.prove(weights)
    (array([1.5]), True, True)
    """
    n = weights.state_dim
    drive = _vector(u, "u", weights.input_dim)
    system, _ = well_posed_witness(weights.A)
    state = computed_equilibrium(weights, drive, system) if x is None else _vector(x, "x", n)
    phi = parse_activation(weights.activation)
    residuals = np.array(
        [
            max(map(round_up, ends))
            for ends in equilibrium_residuals(weights.A, weights.B, weights.b, phi, drive, state)
        ]
    )
    try:
        # Its witness is the least z with (I − M) z ≥ residuals, up to rounding.
        z = lipschitz_certificate(weights.A, residuals[:, None], np.full((1, n), 1.0 / n)).witness
    except ValueError as error:
        raise ValueError(
            f"the residual of the state is {residuals.max():.3g}, expected one that float64 can "
            "bound an error with; leave out x, or rescale the states."
        ) from error
    w = z if residuals.any() else np.zeros(n)
    statement = EquilibriumError(float(w.max()), drive, state, z, w)
    if not statement.prove(weights):
        raise SolverError(
            "no witness in float64 proves a distance from the equilibrium, expected the entries "
            "of (I − M)⁻¹ in its range; rescale the states."
        )
    return statement


def _vector(values: ArrayLike, name: str, length: int) -> Array:
    vector = as_finite(values, name)
    if vector.shape != (length,):
        raise ValueError(
            f"{name} has shape {vector.shape}, expected ({length},): one number for every "
            f"{'input' if name == 'u' else 'state'} of the network."
        )
    return vector
