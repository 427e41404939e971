"""The equilibrium of one input in float64, without torch (THEORY §6).

Nothing here is proved: a state is a proposal, whose error exact_equilibrium.py then bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, diags_array, eye_array, issparse
from scipy.sparse.linalg import spsolve
from scipy.special import expit

from contraction_nets.certificates.systems import System
from contraction_nets.certificates.weights import ImplicitWeights, parse_activation

Array = NDArray[np.float64]
Elementwise = Callable[[Array, Any], Array]

_STEPS = 1000
_ROUNDING = 2.0**-51  # relative, of a sum

_ACTIVATIONS: dict[str, tuple[Elementwise, Elementwise]] = {
    "relu": (lambda v, a: np.maximum(v, 0.0), lambda v, a: np.where(v > 0, 1.0, 0.0)),
    "leaky_relu": (lambda v, a: np.where(v > 0, v, a * v), lambda v, a: np.where(v > 0, 1.0, a)),
    "tanh": (lambda v, a: np.tanh(v), lambda v, a: 1.0 - np.tanh(v) ** 2),
    "sigmoid": (lambda v, a: expit(v), lambda v, a: expit(v) * expit(-v)),
    "softplus": (lambda v, a: np.logaddexp(v, 0.0), lambda v, a: expit(v)),
    "elu": (
        lambda v, a: np.where(v > 0, v, a * np.expm1(np.minimum(v, 0.0))),
        lambda v, a: np.where(v > 0, 1.0, a * np.exp(np.minimum(v, 0.0))),
    ),
}
"""Name → φ and its slope, of v and the parameter."""


class _Candidate(NamedTuple):
    """A state, its preactivation v = A x + B u + b, its residual, and how far it may be off."""

    x: Array
    v: Array
    residual: Array
    distance: float


def computed_equilibrium(weights: ImplicitWeights, u: Array, system: System) -> Array:
    """The solution of x = φ(Ax + Bu + b) in float64, by Newton's method.

    Where a Newton step does not halve the distance that can be proved, an average step x − α r is
    taken, whose error contracts (THEORY §6). The search ends at the rounding errors.

    Parameters
    ----------
    weights : ImplicitWeights
        Well-posed.
    u : (p,) array
    system : System
        That of I − M(A).

    Returns
    -------
    (n,) array

    Raises
    ------
    ValueError
        The state leaves the range of float64.
    """
    name, parameter = parse_activation(weights.activation)
    phi, slope = _ACTIVATIONS[name]
    A, B = weights.A.astype(np.float64), weights.B.astype(np.float64)
    bias = np.zeros(weights.state_dim) if weights.b is None else weights.b.astype(np.float64)
    steps = np.maximum(1.0, 1.0 - A.diagonal())

    def judged(x: Array) -> _Candidate:
        v = A @ x + B @ u + bias
        residual = x - phi(v, parameter)
        return _Candidate(x, v, residual, system.solve(steps * np.abs(residual)).max())

    with np.errstate(all="ignore"):
        here = best = judged(np.zeros(len(steps)))
        for _ in range(_STEPS):
            newton = judged(here.x - _solved(A, slope(here.v, parameter), here.residual))
            converging = newton.distance < best.distance / 2
            average = here.x - here.residual / steps.max()
            here = newton if converging else judged(average)
            for found in (newton, here):
                best = found if found.distance < best.distance else best
            x = np.abs(best.x)
            terms = abs(A) @ x + abs(B) @ np.abs(u) + np.abs(bias) + x
            if not converging and best.distance <= system.solve(_ROUNDING * steps * terms).max():
                break
    if not np.isfinite(best.distance):
        raise ValueError(
            "the equilibrium leaves the range of float64, expected finite states; rescale the "
            "inputs or the states."
        )
    return best.x


def _solved(A: Any, slopes: Array, r: Array) -> Array:
    """(I − diag(slopes) A)⁻¹ r; NaN where that is singular in float64."""
    try:
        if issparse(A):
            return np.asarray(spsolve(csc_array(eye_array(len(r)) - diags_array(slopes) @ A), r))
        return np.linalg.solve(np.eye(len(r)) - slopes[:, None] * A, r)
    except np.linalg.LinAlgError:
        return np.full(len(r), np.nan)
