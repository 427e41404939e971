"""Networks whose slopes are partly decided, as smaller networks, with their rounding errors.

A state of slope 0 drops out; states of slope 1 are linear in the others and are solved for.
What is left is again Δx = S(A′Δx + B′Δu), y = C′x + D′u. Every entry comes with a radius: the
exact one lies within it, whatever the floating-point solver returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.elimination import eliminate, solve_factored
from contraction_nets.certificates.lipschitz import LipschitzCertificate
from contraction_nets.certificates.weights import full
from contraction_nets.geometry.measures import metzler_majorant

Array = NDArray[np.float64]
Patterns = NDArray[np.int8]

FREE = -1
"""A slope that is not decided; the others are 0 and 1."""

TINY = 2.0**-960
"""More than underflow can lose anywhere, in units in which the certified bound is about one."""

_MARGIN = 1.0 + 2.0**-20  # on radii, for the roundings of the radii themselves


@dataclass(frozen=True, eq=False)
class Reduced:
    """A batch of k networks with decided slopes, each seen from one output.

    Attributes
    ----------
    free : (k, n) bool array
        The states that are left and matter; rows and columns of the others are zero.
    states, states_radius : (k, n, n + p) arrays
        [A′, B′].
    output, output_radius : (k, n + p) arrays
        The row [C′, D′] of one output.
    """

    free: NDArray[np.bool_]
    states: Array
    states_radius: Array
    output: Array
    output_radius: Array


@dataclass(frozen=True, eq=False)
class ScaledNetwork:
    """A certified network in units, all powers of two, in which its witness z is in [½, 1).

    Attributes
    ----------
    A, B, C, D : (n, n), (n, p), (q, n) and (q, p) arrays
        The weights in these units; entries of B, C and D are at most about one. States that
        connect no input to any output have zeros.
    z : (n,) array
        |Δx| ≤ z for all |Δu| ≤ 1, whatever the slopes: proved with the certificate.
    inverse : (n, n) array
        At least (I − M)⁻¹, verified.
    exponent : int
        Outputs are in units of 2**exponent.
    linked, fed, seen : (n, n), (n,) and (q, n) bool arrays
        Which entries of A, rows of B and entries of C are not zero, underflow or not.
    """

    A: Array
    B: Array
    C: Array
    D: Array
    z: Array
    inverse: Array
    exponent: int
    linked: NDArray[np.bool_]
    fed: NDArray[np.bool_]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, certificate: LipschitzCertificate) -> ScaledNetwork | None:
        """The network of a certificate; None where float64 cannot bound the inverse of I − M."""
        weights = certificate.weights
        A, B, C = (full(X) for X in (weights.A, weights.B, weights.C))
        D = np.zeros((len(C), B.shape[1])) if weights.D is None else full(weights.D)
        z, units = np.frexp(certificate.witness)
        units = units.astype(np.int64)
        exponent = int(np.frexp(certificate.bound)[1]) if certificate.bound > 0 else 0
        linked, fed, seen = A != 0, (B != 0).any(axis=1), C != 0
        everyone = np.ones((1, len(A)), dtype=bool)
        # Where no input arrives, z is as small as a witness may be, and no unit.
        busy = reachable(fed, linked, everyone) & reachable(seen.any(axis=0), linked.T, everyone)
        A, B, C = A * (busy[0] & busy.T), B * busy.T, C * busy[0]
        linked, fed, seen = linked & (A != 0), fed & busy[0], seen & busy[0]
        units = np.where(busy[0], units, 0)
        with np.errstate(all="ignore"):
            A = np.ldexp(A, units - units[:, None])
            inverse = _inverse_bound(A, linked)
            if inverse is None:
                return None
            return cls(
                A=A,
                B=np.ldexp(B, -units[:, None]),
                C=np.ldexp(C, units - exponent),
                D=np.ldexp(D, -exponent),
                z=z,
                inverse=inverse,
                exponent=exponent,
                linked=linked,
                fed=fed,
                seen=seen,
            )

    def reduce(self, patterns: Patterns, outputs: NDArray[np.intp]) -> Reduced:
        """Decide slopes; those of states that connect no input to the output do not matter.

        With X for the solution of (I − A_oo) X = [A_of, B_o], o the states of slope 1 and f the
        free ones: A′ = A_ff + A_fo X and so on. An error of X is at most |(I − A_oo)⁻¹| times
        its residual, and (I − M)⁻¹ is larger entry by entry.

        Parameters
        ----------
        patterns : (k, n) integer array
            0, 1 or FREE.
        outputs : (k,) integer array
            The output of each.
        """
        n, p = self.B.shape
        A, magnitudes = self.A, np.abs(self.A)
        relative = (2 * n + p + 16) * 2.0**-52
        alive = patterns != 0
        alive &= reachable(self.fed, self.linked, alive)
        alive &= reachable(self.seen[outputs], self.linked.T, alive)
        free, one = (patterns == FREE) & alive, ((patterns == 1) & alive)[:, :, None]
        k = len(patterns)
        with np.errstate(all="ignore"):
            right = np.empty((k, n, n + p))
            right[:, :, :n], right[:, :, n:] = A * free[:, None, :], self.B
            X = _solved(np.eye(n) - A * (one & one.transpose(0, 2, 1)), right * one)
            product, scale = A @ X, magnitudes @ np.abs(X) + np.abs(right)
            residual = np.abs(right - X + product) + relative * (scale + np.abs(X)) + TINY
            error = (self.inverse @ (residual * one)) * one
            kept = free[:, :, None]
            states = (right + product) * kept
            states_radius = (magnitudes @ error + relative * scale + TINY) * kept * _MARGIN
            C = self.C[outputs]
            direct = np.concatenate([C * free, self.D[outputs]], axis=1)
            output = direct + (C[:, None] @ X)[:, 0]
            scale = np.abs(direct) + (np.abs(C)[:, None] @ np.abs(X))[:, 0]
            error = (np.abs(C)[:, None] @ error)[:, 0]
        decided = np.concatenate([free, np.ones((k, p), dtype=bool)], axis=1)
        return Reduced(
            free,
            states,
            states_radius,
            output,
            (error + relative * scale + TINY) * decided * _MARGIN,
        )


def _solved(matrices: Array, right: Array) -> Array:
    """Solutions, or zeros where there are none: the residual decides what they are worth."""
    try:
        X = np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        X = np.zeros_like(right)
    return np.where(np.isfinite(X), X, 0.0)


def reachable(
    start: NDArray[np.bool_], linked: NDArray[np.bool_], alive: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of the states that are alive, (k, n), a path leads to; linked[i, j]: from j to i."""
    reached, count = start & alive, -1
    while count < (count := int(reached.sum())):
        reached = reached | ((reached @ linked.T) & alive)
    return reached


def _inverse_bound(A: Array, linked: NDArray[np.bool_]) -> Array | None:
    """N ≥ (I − M(A))⁻¹ ≥ 0, from (I − M) N ≥ I with all roundings against it.

    `linked` says which entries of A are not zero, underflow or not.
    """
    n = len(A)
    M: Array = metzler_majorant(A)
    magnitudes = np.abs(M)
    factors = eliminate(np.eye(n) - M)
    if factors is None:
        return None
    inverse = solve_factored(factors, np.eye(n))
    scale = inverse + magnitudes @ inverse
    direction = inverse @ scale
    relative = (n + 8) * 2.0**-52
    for step in range(8):
        N = inverse + relative * 4.0 ** (step + 1) * direction
        lost = relative * (N + magnitudes @ N) + TINY
        # Between blocks that do not touch, zero is exact.
        apart = (N == 0) & ~(linked @ (N != 0)) & ~np.eye(n, dtype=bool)
        verified = (N - M @ N - lost >= np.eye(n)) | apart
        if verified.all():
            return N
    return None
