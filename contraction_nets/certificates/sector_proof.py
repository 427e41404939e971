"""From a certificate to the semidefinite bound with its proof in integers.

Floating point proposes here and nowhere decides: every proposal is proved by exact_sectors.py,
or the next one is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.exact import add, entries, exact_bound, integers, round_up
from contraction_nets.certificates.exact_sectors import prove_sectors
from contraction_nets.certificates.input_multipliers import multiplier_search
from contraction_nets.certificates.lipschitz import LipschitzCertificate
from contraction_nets.certificates.reduction import Reduced, reachable
from contraction_nets.certificates.statements import SectorBounds
from contraction_nets.certificates.weights import full

Array = NDArray[np.float64]
Exponents = NDArray[np.int64]

_ACCURACY = 1e-7
_BLENDS = (0.0, *(10.0**k for k in range(-18, 1, 2)))  # with the linear program
_INSIDE = 2.0**-36  # how far inside the feasible set that is taken
_SHIFTS = (2.0**-50, 2.0**-44)  # what T loses before it is factorized, relative to its rows
_NOTHING = 2.0**-40  # a bound of an output that no input moves, in units of its weights
_LARGEST = 900  # exponent of a multiplier: of states that no input reaches, less will do


@dataclass(frozen=True, eq=False)
class OutputProof:
    """What `prove_sectors` takes for one output.

    Attributes
    ----------
    bound : float
    multipliers : (n,) array
    input_multipliers, inverses : (p,) arrays
    factor : ((n + 1)(n + 2)/2,) array
    """

    bound: float
    multipliers: Array
    input_multipliers: Array
    inverses: Array
    factor: Array


def sector_bounds_statement(certificate: LipschitzCertificate) -> SectorBounds:
    """The semidefinite bound of every output, proved; that of the linear program if it is smaller.

    Parameters
    ----------
    certificate : LipschitzCertificate
        With its radii ε, if it has any.
    """
    outputs = range(certificate.weights.output_dim)
    proofs = [_proved(certificate, k) for k in outputs]
    bounds = np.array([proof.bound for proof in proofs])
    return SectorBounds(
        bound=float(bounds.max()),
        bounds=bounds,
        z=certificate.witness,
        multipliers=np.array([proof.multipliers for proof in proofs]),
        input_multipliers=np.array([proof.input_multipliers for proof in proofs]),
        inverses=np.array([proof.inverses for proof in proofs]),
        factors=np.array([proof.factor for proof in proofs]),
        epsilon=certificate.epsilon,
    )


def _proved(certificate: LipschitzCertificate, k: int) -> OutputProof:
    """The first proposal for output k that proves its bound exactly.

    No worse than what the witness of the linear program proves, which needs no multipliers.
    """
    weights, z, epsilon = certificate.weights, certificate.witness, certificate.epsilon
    C, D = weights.C[[k]], None if weights.D is None else weights.D[[k]]
    least = exact_bound(C, D, z, epsilon)
    for proof in ScaledOutput.of(certificate, k).proposals():
        if proof.bound < least and prove_sectors(
            weights.A,
            weights.B,
            C,
            D,
            z,
            proof.multipliers[None],
            proof.input_multipliers[None],
            proof.inverses[None],
            proof.factor[None],
            np.array([proof.bound]),
            epsilon,
        ):
            return proof
    n, inputs = len(z), np.ones(weights.input_dim)
    return OutputProof(least, np.zeros(n), inputs, inputs, np.zeros((n + 1) * (n + 2) // 2))


@dataclass(frozen=True, eq=False)
class ScaledOutput:
    """One output, states in units of 2**units, inputs of ε, the output of 2**exponent.

    Attributes
    ----------
    F, G : (n + 1, n + 1) and (n + 1, p) arrays
        [A 0; c 0] and [B; d] in these units.
    z : (n,) array
        The witness, in [½, 1).
    units : (n,) integer array
    exponent : int
        An even number.
    matter : (m + 1,) integer array
        The states from which a path leads to the output, and n for the output.
    """

    F: Array
    G: Array
    z: Array
    units: Exponents
    exponent: int
    matter: NDArray[np.intp]

    @classmethod
    def of(cls, certificate: LipschitzCertificate, k: int) -> ScaledOutput:
        """Output k of the network."""
        weights, epsilon = certificate.weights, certificate.epsilon
        A, B, c = full(weights.A), full(weights.B), full(weights.C)[k]
        n, p = B.shape
        d = np.zeros(p) if weights.D is None else full(weights.D)[k]
        z, units = _split(certificate.witness)
        radii, shift = _split(np.ones(p) if epsilon is None else epsilon)
        row, own = np.append(c, d * radii), np.append(units, shift)
        sizes = (_split(row)[1] + own)[row != 0]
        exponent = int(sizes.max(initial=-_LARGEST)) // 2 * 2 + 2
        F, G = np.zeros((n + 1, n + 1)), np.zeros((n + 1, p))
        with np.errstate(all="ignore"):
            F[:n, :n] = np.ldexp(A, units - units[:, None])
            G[:n] = np.ldexp(B * radii, shift - units[:, None])
            F[n, :n], G[n] = np.split(np.ldexp(row, own - exponent), [n])
        leads = reachable((c != 0)[None], A.T != 0, np.ones((1, n), dtype=bool))[0]
        return cls(F, G, z, units, exponent, np.flatnonzero(np.append(leads, True)))

    def proposals(self) -> Iterator[OutputProof]:
        """The tightest first: what the search finds, and blends with the linear program."""
        states = self.matter[:-1]
        rows = np.concatenate([self.F[np.ix_(self.matter, states)], self.G[self.matter]], axis=1)
        with np.errstate(all="ignore"):
            inside, found = _linear_program(rows), _semidefinite_program(rows)
        if not found[len(states) :].sum() < inside[len(states) :].sum():
            found = inside
        for blend in _BLENDS:
            for shift in _SHIFTS:
                with np.errstate(all="ignore"):
                    proof = self._proof((1.0 - blend) * found + blend * inside, shift)
                if proof is not None:
                    yield proof

    def _proof(self, theta: Array, shift: float) -> OutputProof | None:
        """The proof with these multipliers, rounded; None where T seems to be indefinite."""
        e, states = self.exponent, self.matter[:-1]
        kappa, mu = np.zeros(len(self.z)), theta[len(states) :]
        kappa[states] = theta[: len(states)] * self.z[states] / 2.0
        root = np.sqrt(mu.sum())
        multipliers = np.ldexp(kappa / root, np.minimum(e - self.units, _LARGEST))
        inputs = np.ldexp(mu / root, e)
        inverses = np.nextafter(1.0 / inputs, np.inf)
        if not (np.isfinite([*multipliers, *inputs, *inverses]).all() and (inputs > 0).all()):
            return None
        bound = round_up(add(*entries(integers(inputs, "the multipliers"))))
        K = np.append(np.ldexp(multipliers, self.units - e), -1.0)
        Z = np.append(self.z, -np.ldexp(bound, -e) / 2)
        half = K[:, None] * (np.eye(len(K)) - self.F) * Z
        G, nu = K[:, None] * self.G, np.ldexp(inverses, e)
        T = half + half.T - (G * nu) @ G.T
        # Rounding errors are relative to these, whatever cancels.
        terms = np.abs(half) + np.abs(half.T) + (np.abs(G) * nu) @ np.abs(G.T)
        L, block = np.zeros_like(T), np.ix_(self.matter, self.matter)
        try:
            for _ in range(2):
                smaller = T - np.diag(shift * terms.sum(axis=1))
                L[block] = np.linalg.cholesky(smaller[block])
                terms += np.abs(L) @ np.abs(L.T)
        except np.linalg.LinAlgError:
            return None
        packed = np.ldexp(L[np.tril_indices(len(L))], e // 2)
        if not np.isfinite([bound, *packed]).all():
            return None
        return OutputProof(bound, multipliers, inputs, inverses, packed)


def _linear_program(rows: Array) -> Array:
    """The multipliers (λ, μ) of sectors.py that the linear program gives, a little inside."""
    m, size = len(rows) - 1, rows.shape[1]
    magnitudes = np.abs(rows)
    K = np.eye(m) - magnitudes[:m, :m]
    np.fill_diagonal(K, 1.0 - np.diagonal(rows))
    weights = magnitudes[m] + _INSIDE / size
    try:
        z = np.linalg.solve(K, magnitudes[:m, m:].sum(axis=1) + _INSIDE)
        y = np.linalg.solve(K.T, weights[:m])
    except np.linalg.LinAlgError:
        return np.full(size, np.nan)
    bound = weights[:m] @ z + weights[m:].sum()
    theta = np.concatenate([2.0 * y / z, y @ magnitudes[:m, m:] + weights[m:]])
    return np.asarray(bound * theta)


def _semidefinite_program(rows: Array) -> Array:
    """The multipliers (λ, μ) that the search finds; NaN where it cannot start."""
    states, output = rows[None, :-1], rows[None, -1]
    free = np.ones(states.shape[:2], dtype=bool)
    nothing = np.zeros_like(states), np.zeros_like(output)
    try:
        search = multiplier_search(Reduced(free, states, nothing[0], output, nothing[1]))
    except np.linalg.LinAlgError:
        return np.full(rows.shape[1], np.nan)
    search.run(_ACCURACY, goal=_NOTHING)
    return np.asarray(np.ldexp(search.theta[0], 2 * search.exponent[0]))


def _split(values: Array) -> tuple[Array, Exponents]:
    significands, exponents = np.frexp(values)
    return significands, exponents.astype(np.int64)
