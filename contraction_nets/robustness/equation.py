"""The equations of a network in float64, dense, with what interval arithmetic needs of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contraction_nets.certificates.systems import System
from contraction_nets.certificates.weights import ImplicitWeights, full, parse_activation
from contraction_nets.certificates.well_posed import well_posed_witness
from contraction_nets.nn.activations import get_activation

Array = NDArray[np.float64]

UNIT = 2.0**-51
"""Four roundings: a sum of k products is off by less than k · UNIT · Σ|products|."""
TINY = 2.0**-1000
"""More than all that underflows in any sum of less than four million products."""
_EVALUATION = 2.0**-46  # of a computed smooth φ, relative to 1 + |φ|


@dataclass(frozen=True, eq=False)
class Equation:
    """x = φ(a x + A x + B u + b), y = C x + D u + c: A without its diagonal a, all in float64.

    Every stored weight is a float64, so nothing is rounded here.

    Attributes
    ----------
    a : (n,) array
        The diagonal of the state matrix.
    A, A_abs : (n, n) arrays
        The rest of it, and its absolute values.
    B, B_abs : (n, p) arrays
    b : (n,) array
    C, D, c : (q, n), (q, p) and (q,) arrays
        D is None where the network has none.
    activation : str
    slope : float or None
        Of φ below zero where φ is piecewise linear: 0 for relu; None for smooth φ.
    largest : float
        Of all magnitudes of weights.
    system : System
        That of I − M, for proposals.
    """

    a: Array
    A: Array
    A_abs: Array
    B: Array
    B_abs: Array
    b: Array
    C: Array
    D: Array | None
    c: Array
    activation: str
    slope: float | None
    largest: float
    system: System

    @classmethod
    def of(cls, weights: ImplicitWeights) -> Equation:
        """That of these weights.

        Raises
        ------
        NotWellPosedError
            Well-posedness cannot be proved: an equilibrium need not be the only one.
        """
        system, _ = well_posed_witness(weights.A)
        name, parameter = parse_activation(weights.activation)
        A, B = full(weights.A), full(weights.B)
        a = A.diagonal().copy()
        np.fill_diagonal(A, 0.0)
        return cls(
            a=a,
            A=A,
            A_abs=np.abs(A),
            B=B,
            B_abs=np.abs(B),
            b=_vector(weights.b, len(a)),
            C=full(weights.C),
            D=None if weights.D is None else full(weights.D),
            c=_vector(weights.c, weights.output_dim),
            activation=weights.activation,
            slope={"relu": 0.0, "leaky_relu": parameter}.get(name),
            largest=max(float(abs(array).max()) for array in weights.arrays().values()),
            system=system,
        )

    @property
    def terms(self) -> int:
        """More than the products in any sum over states and inputs, other roundings included."""
        return len(self.a) + self.B.shape[1] + 16

    def image(self, v: Array) -> tuple[Array, Array]:
        """Numbers below and above φ(v), entry by entry."""
        if self.slope is not None:
            below = np.where(v < 0, self.slope * v, v) if self.slope else np.maximum(v, 0.0)
            if self.slope in (0.0, 1.0):
                return below, below
            exact = v >= 0
            return (
                np.where(exact, below, np.nextafter(below, -np.inf)),
                np.where(exact, below, np.nextafter(below, np.inf)),
            )
        value = get_activation(self.activation)(torch.from_numpy(v)).numpy()
        off = _EVALUATION * (1.0 + np.abs(value))
        return value - off, value + off

    def resolvent(self, s: Array) -> Array:
        """The solutions of x = φ(a x + s) for s (m, n), rounded anyhow."""
        if self.slope is not None:
            above = np.maximum(s, 0.0) / (1.0 - self.a)
            below = np.minimum(s, 0.0) / (1.0 - self.slope * self.a)
            return above + self.slope * below if self.slope else above
        phi = get_activation(self.activation)
        return np.asarray(phi.resolvent(torch.from_numpy(s), torch.from_numpy(self.a)).numpy())


def _vector(values: NDArray[np.float32] | Array | None, length: int) -> Array:
    return np.zeros(length) if values is None else values.astype(np.float64)
