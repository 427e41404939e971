"""Ten thousand random networks: is a statement ever proved that rational arithmetic refutes?

Networks of one to six states, of all scales, many reducible, most next to the limit of
well-posedness. Every statement that is proved for them, as it was made and with a stronger claim,
is held against an oracle in fractions that shares no code with the library: elimination of
γI − M, all corners of the slopes, all active sets of relu. Where elimination says that the
spectral abscissa is at most 1 − 1e-9, there has to be a certificate:
python benchmarks/random_nets.py
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import compress, product
from typing import Any

import numpy as np
from common import write
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from contraction_nets import (
    ImplicitWeights,
    NotWellPosedError,
    SolverError,
    lipschitz_certificate,
    optimal_weights,
)
from contraction_nets.certificates.certificate import measure_statement
from contraction_nets.certificates.statements import (
    EquilibriumError,
    LipschitzBound,
    NotContracting,
    Statement,
)
from contraction_nets.comparison.machine import machine

Array = NDArray[np.float64]
Matrix = NDArray[Any]  # of fractions

DISTANCES = (-0.5, -1e-3, -1e-6, -2e-9, -1e-9, -1e-12, -1e-15, 0.0, 1e-15, 1e-12, 1e-9, 1e-3, 1.0)
SMALL = 3  # states up to which all corners are tried
exact = np.vectorize(Fraction, otypes=[object])


def random_network(rng: np.random.Generator) -> tuple[ImplicitWeights, float]:
    """A network, and how far its spectral abscissa is above one, up to rounding."""
    n, p, q = rng.integers(1, 7), rng.integers(1, 4), rng.integers(1, 4)
    distance = float(rng.choice(DISTANCES))
    units = 10.0 ** (rng.choice([0, 1, 5, 30]) * rng.uniform(-1, 1, n))
    A = rng.uniform(size=(n, n)) * (rng.uniform(size=(n, n)) < rng.choice([0.3, 0.7, 1.0]))
    if rng.uniform() < 0.3:  # reducible, in any order
        order = rng.permutation(n)
        A = np.triu(A)[np.ix_(order, order)]
    A *= units[:, None] / units * 10.0 ** rng.integers(-6, 4)
    np.fill_diagonal(A, 0.0)
    diagonal = 1 + distance - A @ units / units
    if rng.uniform() < 0.3:  # some states are far from the limit
        diagonal -= rng.uniform(size=n) * (rng.uniform(size=n) < 0.5)
    A *= rng.choice([-1, 1], (n, n))
    np.fill_diagonal(A, diagonal)
    B, C, D = (
        rng.normal(size=shape) * 10.0 ** rng.integers(-9, 10) * (rng.uniform(size=shape) < 0.8)
        for shape in ((n, p), (q, n), (q, p))
    )
    B, C = B * units[:, None], C / units
    return ImplicitWeights(
        A, B, C, D if rng.uniform() < 0.5 else None, rng.normal(size=n)
    ), distance


def eliminated(K: Matrix, right: Matrix, *, signs: bool) -> Matrix | None:
    """K⁻¹ right, without pivoting; with signs None where a pivot is not positive.

    A matrix without positive entries off its diagonal is a nonsingular M-matrix where all are.
    """
    K, right = K.copy(), right.copy()
    n = len(K)
    for k in range(n):
        if signs and K[k, k] <= 0:
            return None
        for i in range(k + 1, n):
            factor = K[i, k] / K[k, k]
            K[i, k:] -= factor * K[k, k:]
            right[i] -= factor * right[k]
    for k in reversed(range(n)):
        right[k] = (right[k] - K[k, k + 1 :] @ right[k + 1 :]) / K[k, k]
    return right


class Oracle:
    """The same network in fractions, and what is true of it."""

    def __init__(self, weights: ImplicitWeights) -> None:
        self.A, self.B, self.C, self.b = map(exact, (weights.A, weights.B, weights.C, weights.b))
        shape = len(self.C), self.B.shape[1]
        self.D = exact(np.zeros(shape) if weights.D is None else weights.D)
        self.M = abs(self.A)
        np.fill_diagonal(self.M, self.A.diagonal())
        self.X = self.resolvent(Fraction(1), abs(self.B))
        """(I − M)⁻¹|B|, or None where the network has no certificate in ℓ∞."""

    def resolvent(self, gamma: Fraction, right: Matrix) -> Matrix | None:
        """(γI − M)⁻¹ right, or None where the spectral abscissa of M is not below γ."""
        return eliminated(gamma * exact(np.eye(len(self.M))) - self.M, right, signs=True)

    def below(self, gamma: Fraction) -> bool:
        """Whether the spectral abscissa of M is below γ."""
        return self.resolvent(gamma, self.B) is not None

    def corners(self) -> Iterator[tuple[Matrix, Matrix]]:
        """The states that slope one lets through, and their (I − A)⁻¹ [B, b], for every subset."""
        right = np.hstack([self.B, self.b[:, None]])
        for slopes in product([False, True], repeat=len(self.A)):
            on = np.array(list(compress(range(len(self.A)), slopes)), dtype=int)
            K = exact(np.eye(len(on))) - self.A[np.ix_(on, on)]
            solved = eliminated(K, right[on], signs=False)
            assert solved is not None
            yield on, solved

    def refutes(self, statement: Statement) -> bool:
        """Whether it claims what is not so, or more than its kind of witness can prove."""
        found: Any = statement
        if statement.kind == "not_contracting":
            return self.below(Fraction(found.lower))
        if statement.kind == "measure":
            eta = exact(found.eta)
            attained = (self.M @ eta <= Fraction(found.gamma) * eta).all() and (eta > 0).all()
            return not attained or (found.lower is not None and self.below(Fraction(found.lower)))
        if self.X is None:
            return True
        if statement.kind == "lipschitz":
            gains = (abs(self.C) @ self.X + abs(self.D)).sum(axis=1)
            return bool((gains > Fraction(found.bound)).any())
        if statement.kind == "gains":
            return bool((abs(self.C) @ self.X + abs(self.D) > exact(found.gains)).any())
        if statement.kind == "pairs":
            C, D = (abs(part[:, None] - part) for part in (self.C, self.D))
            pairs = (C @ self.X.sum(axis=1)) + D.sum(axis=2)
            return bool((pairs > exact(found.gains)).any())
        if statement.kind == "sectors":
            p = self.B.shape[1]
            gains = [
                abs(self.C[:, on] @ solved[:, :p] + self.D).sum(axis=1)
                for on, solved in self.corners()
            ]
            bounds = exact(found.bounds)
            return bool((np.max(gains, axis=0) > bounds).any() or max(bounds) > found.bound)
        return self.refutes_equilibrium(found)

    def refutes_equilibrium(self, found: EquilibriumError) -> bool:
        u, state = np.append(exact(found.input), Fraction(1)), exact(found.state)
        for on, solved in self.corners():
            x = exact(np.zeros(len(self.A)))
            x[on] = solved @ u
            v = self.A @ x + self.B @ u[:-1] + self.b
            if (x == np.maximum(v, Fraction(0))).all():
                return bool(max(abs(x - state)) > Fraction(found.distance))
        raise RuntimeError("no active set is that of an equilibrium")


def statements(weights: ImplicitWeights, everything: bool) -> Iterator[Statement]:
    """What can be stated about a network that has a certificate; nothing where it has none."""
    certificate = lipschitz_certificate(weights)
    yield from map(certificate.statement, ("lipschitz", "pairs", "gains", "measure"))
    if everything:
        yield certificate.statement("sectors")
        yield equilibrium(weights, certificate.witness)


def equilibrium(weights: ImplicitWeights, z: Array) -> EquilibriumError:
    """Where a hundred steps end, and w of twice the residual and its roundings."""
    u, x = np.ones(weights.input_dim), np.zeros(weights.state_dim)
    step = 1 / (1 + np.abs(weights.A.diagonal()).max())
    for _ in range(100):
        x = (1 - step) * x + step * np.maximum(weights.A @ x + weights.B @ u + weights.b, 0.0)
    M = np.abs(weights.A)
    np.fill_diagonal(M, weights.A.diagonal())
    terms = np.abs(weights.A) @ np.abs(x) + np.abs(weights.B) @ u + np.abs(weights.b) + np.abs(x)
    residual = np.abs(x - np.maximum(weights.A @ x + weights.B @ u + weights.b, 0.0))
    slack = np.maximum(1.0, 1.0 - weights.A.diagonal()) * (residual + 2.0**-48 * terms)
    left = z - M @ z
    w = z * float(np.max(slack / left)) * 2 if (left > 0).all() else z
    return EquilibriumError(float(w.max()), u, x, z, w)


def stronger(statement: Statement, rng: np.random.Generator) -> Statement:
    """The same witness with a claim that is stronger by a few roundings, or by more."""
    part = 10.0 ** -rng.uniform(1, 17)
    found: Any = statement
    if statement.kind == "lipschitz":
        return replace(found, bound=found.bound * (1 - part))
    if statement.kind == "sectors":
        return replace(found, bound=found.bound * (1 - part), bounds=found.bounds * (1 - part))
    if statement.kind == "equilibrium":
        return replace(found, distance=found.distance * (1 - part))
    if statement.kind == "measure":
        return replace(found, gamma=found.gamma - part)
    if statement.kind == "not_contracting":
        return replace(found, lower=found.lower + part)
    return replace(found, gains=found.gains * (1 - part))


def hopeful(weights: ImplicitWeights) -> LipschitzBound:
    """A witness from float64 for a network that may have none, and a bound that is never short."""
    M = np.abs(weights.A)
    np.fill_diagonal(M, weights.A.diagonal())
    z = np.linalg.lstsq(np.eye(len(M)) - M, np.abs(weights.B).sum(axis=1) + 1.0)[0]
    return LipschitzBound(1e300, np.nan_to_num(2 * np.abs(z), posinf=1e300) + 1e-300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    nets: Counter[str] = Counter()
    by_distance = {distance: Counter[str]() for distance in DISTANCES}
    wanted = 1 - Fraction(1, 10**9)
    start = time.perf_counter()
    console = Console(stderr=True)
    with threadpool_limits(1), np.errstate(all="ignore"):
        for seed in track(range(arguments.nets), "networks", console=console):
            rng = np.random.default_rng([arguments.seed, seed])
            weights, distance = random_network(rng)
            oracle = Oracle(weights)
            found = optimal_weights(weights.A)
            made: list[Statement] = [
                NotContracting(found.lower, found.x),
                measure_statement(weights, found),
            ]
            everything = weights.state_dim <= SMALL and seed % 4 == 0
            try:
                made += statements(weights, everything)
                certified = True
            except (NotWellPosedError, SolverError) as error:
                certified = len(made) > 2
                nets[type(error).__name__] += 1
            claims = [("made", statement) for statement in made]
            claims += [("stronger", stronger(statement, rng)) for statement in made]
            for name, claim in [*claims, ("hopeful", hopeful(weights))]:
                count = counts.setdefault(f"{claim.kind}, {name}", Counter())
                proved = claim.prove(weights)
                count["tried"] += 1
                count["proved"] += proved
                count["proved_and_refuted"] += proved and oracle.refutes(claim)
                if name == "made" and claim.kind != "equilibrium":  # its w is a guess of this file
                    count["missed"] += oracle.below(wanted) and not proved
            has = {
                "nets": True,
                "well_posed": oracle.X is not None,
                "abscissa_at_most_1_minus_1e-9": oracle.below(wanted),
                "certified": certified,
            }
            has["missed"] = has["abscissa_at_most_1_minus_1e-9"] and not certified
            has["certified_and_not_well_posed"] = certified and not has["well_posed"]
            for counter in (nets, by_distance[distance]):
                counter.update({name: int(value) for name, value in has.items()})
    write(
        "random_nets",
        {
            "machine": machine(1),
            "seed": arguments.seed,
            "seconds": time.perf_counter() - start,
            "nets": dict(sorted(nets.items())),
            "by_abscissa_minus_one": {f"{d:g}": count for d, count in by_distance.items()},
            "statements": dict(sorted(counts.items())),
        },
    )
    if any(count["proved_and_refuted"] or count["missed"] for count in [nets, *counts.values()]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
