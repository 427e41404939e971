"""Certified ℓ∞ radii of given inputs from global gains: rung 1 of THEORY §8."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from contraction_nets.certificates.gains import output_differences
from contraction_nets.certificates.lipschitz import LipschitzCertificate, lipschitz_certificate
from contraction_nets.certificates.weights import ImplicitWeights, full
from contraction_nets.errors import ConvergenceWarning
from contraction_nets.geometry.measures import as_finite
from contraction_nets.nn.activations import get_activation
from contraction_nets.nn.equilibrium import solve_equilibrium
from contraction_nets.nn.operators import Dense, Sparse, StateOperator

Array = NDArray[np.float64]

_EVALUATION = 2.0**-46
"""Of a computed φ, relative to 1 + |φ|: more than any of them is off in float64."""
_BATCH = 1024


@dataclass(frozen=True, eq=False)
class CertifiedRadii:
    """How far each input can move before its label may change.

    Attributes
    ----------
    labels : (m,) integer array
        The largest output.
    runners_up : (m,) integer array
        The output that comes into reach first.
    margins : (m,) array
        Output of the label minus that of the runner-up, less what the computed equilibrium may
        be off; zero where that leaves nothing.
    radii : (m,) array
        The label is the same for every input within this ℓ∞ distance (with radii ε in the
        certificate: wherever |Δu_j| < radius · ε_j), in input units, rounded down; inf where no
        input matters.
    outputs : (m, q) array
        The computed outputs.
    """

    labels: NDArray[np.intp]
    runners_up: NDArray[np.intp]
    margins: Array
    radii: Array
    outputs: Array


def certified_radii(
    certificate: LipschitzCertificate | ImplicitWeights, inputs: ArrayLike, *, tol: float = 1e-10
) -> CertifiedRadii:
    """Certified ℓ∞ radii min_j (y_i − y_j) / gain_ij of inputs that are classified i (THEORY §4).

    Sound in float64: gains are rounded up, margins and radii down, and the margin counts the
    distance of the computed state from the equilibrium, |x − x*| ≤ max |residual| · w with
    (I − M) w ≥ max(1, 1 − A_ii).

    Parameters
    ----------
    certificate : LipschitzCertificate or ImplicitWeights
        Weights are certified first.
    inputs : (m, p) array
        One input a row, in the units of the network.
    tol : float
        Relative tolerance of the equilibria; a looser one makes margins smaller, never wrong.

    Returns
    -------
    CertifiedRadii

    Raises
    ------
    ValueError
        Inputs that are not finite or do not fit, or a network of one output.
    NotWellPosedError
        As `lipschitz_certificate`.
    """
    if isinstance(certificate, ImplicitWeights):
        certificate = lipschitz_certificate(certificate)
    weights = certificate.weights
    U = as_finite(inputs, "inputs")
    if U.ndim != 2 or U.shape[1] != weights.input_dim:
        raise ValueError(
            f"inputs have shape {U.shape}, expected (m, {weights.input_dim}): one input a row; "
            "reshape them."
        )
    if weights.output_dim < 2:
        raise ValueError("got a network of one output, expected two or more to tell labels apart.")
    gains = certificate.pairwise_gains()
    errors, w = _error_gains(weights)
    parts = [
        _radii(weights, U[i : i + _BATCH], gains, errors, w, tol) for i in range(0, len(U), _BATCH)
    ]
    empty = np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), np.zeros(0)
    parts = parts or [(*empty, np.zeros((0, weights.output_dim)))]
    return CertifiedRadii(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _error_gains(weights: ImplicitWeights) -> tuple[Array, Array]:
    """|C_i − C_j| w, rounded up, and w with (I − M) w ≥ max(1, 1 − A_ii), which is proved."""
    steps = np.nextafter(np.maximum(1.0, 1.0 - weights.A.diagonal().astype(np.float64)), np.inf)
    ones = np.ones((1, weights.state_dim))
    w = lipschitz_certificate(weights.A, steps[:, None], ones).witness
    return output_differences(weights.C, None, w, None), w


def _radii(
    weights: ImplicitWeights, U: Array, gains: Array, errors: Array, w: Array, tol: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array, Array]:
    with np.errstate(all="ignore"):
        X, residuals = _equilibria(weights, U, tol)
        Y, rounding = _outputs(weights, X, U)
    labels = Y.argmax(axis=1)
    lines = np.arange(len(Y))
    with np.errstate(all="ignore"):
        spread = np.maximum(rounding[lines, labels][:, None] + rounding, 0.0)
        off = residuals[:, None] * errors[labels] + 2 * spread
        margins = np.nextafter(Y[lines, labels][:, None] - Y, -np.inf) - np.nextafter(off, np.inf)
        # Where a sum overflowed, there is no finite difference, and nothing is known.
        margins = np.where(np.isfinite(margins), np.nextafter(margins, -np.inf), 0.0)
        margins = np.maximum(margins, 0.0)
        reach = np.nextafter(margins / gains[labels], -np.inf)
    # A margin of nothing is no radius, also where no input matters.
    reach = np.where(margins > 0, np.where(gains[labels] > 0, reach, np.inf), 0.0)
    reach[lines, labels] = margins[lines, labels] = np.inf
    runners = reach.argmin(axis=1)
    return labels, runners, margins[lines, runners], np.maximum(reach[lines, runners], 0.0), Y


def _equilibria(weights: ImplicitWeights, U: Array, tol: float) -> tuple[Array, Array]:
    """Computed states, and for each input a bound on its largest residual |x − φ(Ax + Bu + b)|."""
    phi = get_activation(weights.activation)
    S = np.asarray(U @ weights.B.T.astype(np.float64))
    b = np.zeros(weights.state_dim) if weights.b is None else weights.b.astype(np.float64)
    with warnings.catch_warnings():
        # What is left of the residual is counted, however large it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        X = solve_equilibrium(_operator(weights), torch.from_numpy(S + b), phi, tol=tol).x.numpy()
    V = S + X @ weights.A.T.astype(np.float64) + b
    image = phi(torch.from_numpy(V)).numpy()
    terms = weights.state_dim + weights.input_dim + 4
    size = np.abs(U) @ abs(weights.B.T.astype(np.float64)) + np.abs(b)
    size = size + np.abs(X) @ abs(weights.A.T.astype(np.float64))
    lost = terms * 2.0**-51 * size + _EVALUATION * (1.0 + np.abs(image)) + 2.0**-1000
    residual = np.abs(X - image) * (1 + 2.0**-50) + lost
    worst = residual.max(axis=1)
    return X, np.where(np.isnan(worst), math.inf, worst)


def _operator(weights: ImplicitWeights) -> StateOperator:
    A = weights.A
    if not weights.is_sparse:
        return Dense(torch.from_numpy(A.astype(np.float64)))
    places = torch.from_numpy(np.stack(A.nonzero()).astype(np.int64))
    values = torch.from_numpy(A.data.astype(np.float64))
    # In canonical form a csr_array has its entries in the order of a coalesced tensor.
    return Sparse(
        torch.sparse_coo_tensor(places, values, A.shape, check_invariants=True).coalesce()
    )


def _outputs(weights: ImplicitWeights, X: Array, U: Array) -> tuple[Array, Array]:
    """C x + D u + c, and a bound on the rounding in it."""
    C: Any = weights.C.astype(np.float64)
    Y, size = X @ C.T, np.abs(X) @ abs(C.T)
    if weights.D is not None:
        D = full(weights.D)
        Y, size = Y + U @ D.T, size + np.abs(U) @ np.abs(D.T)
    if weights.c is not None:
        c = weights.c.astype(np.float64)
        Y, size = Y + c, size + np.abs(c)
    terms = weights.state_dim + weights.input_dim + 4
    return np.asarray(Y), np.asarray(terms * 2.0**-51 * size + 2.0**-1000)
