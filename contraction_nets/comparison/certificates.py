"""Every linear programming backend on the Lipschitz certificate, at the accuracy asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from contraction_nets.certificates.lipschitz import lipschitz_certificate
from contraction_nets.certificates.systems import system_of
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.certificates.witness import ScaledProgram, well_posed_witnesses
from contraction_nets.comparison.backends import BackendTrial, rungs
from contraction_nets.comparison.race import Method, Progress, Result, race
from contraction_nets.comparison.timing import clocked
from contraction_nets.comparison.worker import Worker
from contraction_nets.errors import SolverError
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.sets import measure_set
from contraction_nets.solving.problems import LipschitzProblem
from contraction_nets.solving.registry import available_solvers, solve
from contraction_nets.solving.solution import Solution

INPUTS, OUTPUTS = 100, 10
DIRECT = "m_matrix"


def compare_certificates(
    sizes: Iterable[int],
    *,
    gamma: float = 0.95,
    accuracy: float = 1e-6,
    repetitions: int = 5,
    limit: float = 30.0,
    solvers: Sequence[str] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure every backend on the linear program of a certificate, and prove what it proposes.

    Each backend is run at the loosest tolerance at which all of its answers are accurate, on the
    program that `lipschitz_certificate` poses to it.

    Parameters
    ----------
    sizes : iterable of int
        Numbers of states; the networks have 100 inputs, 10 outputs and μ∞(A) = gamma in every
        row, one network per repetition.
    gamma : float
        Below one.
    accuracy : float
        Largest violation of a constraint, largest gap and largest error of the objective, all
        relative to the optimum.
    repetitions : int
    limit : float
        Seconds for one solve; a backend that takes longer is not tried at larger sizes.
    solvers : sequence of str, optional
        ``available_solvers("linear program")`` by default.
    threads : int
        Of linear algebra.
    progress : callable, optional
        Called with a sentence before each step.

    Returns
    -------
    list of dict
        One per size and backend: `n`, `solver`, `outcome` ("reached", "not reached", "timed out"
        or "failed"), `reason`, `tolerance` (None where there is no such option), `options`,
        `repetitions`; `seconds` of the solver (the median), `seconds_min`,
        `seconds_lower_quartile`, `seconds_upper_quartile`, None where the accuracy was not
        reached; the worst of all repetitions of `primal_dual_gap`, `violation` and
        `objective_error`, relative to the optimum, before anything is refined; `iterations`; and
        for the first network `proved` (whether the proposal led to a certificate that verifies in
        exact arithmetic), `excess` (its bound over the optimum, minus one) and
        `seconds_certificate`, proof included.

    Raises
    ------
    UnknownSolverError
        No backend has such a name.
    """
    names = list(solvers) if solvers is not None else registered()

    def methods_at(n: int) -> list[Method]:
        return [
            Method(
                name,
                tuple(
                    CertificateTrial(name, n, options, gamma)
                    for options in rungs(name, LipschitzProblem.kind, limit)
                ),
                process=name,
            )
            for name in names
        ]

    results = race(
        methods_at,
        sizes,
        accuracy=accuracy,
        repetitions=repetitions,
        limit=limit,
        threads=threads,
        progress=progress,
    )
    rows = []
    with Worker(threads) as prover:
        for result in results:
            proof: dict[str, Any] = dict.fromkeys(("proved", "excess", "seconds_certificate"))
            if result.outcome in ("reached", "not reached"):
                if progress:
                    progress(f"n = {result.n}: certificate by {result.method.name}")
                try:
                    proof = prover.call(prove, result.trial, limit=2 * limit + 600.0)
                except SolverError as error:
                    proof["proved"] = False
                    result.reason = result.reason or str(error)
            rows.append(_row(result) | proof)
    return rows


def registered() -> list[str]:
    """The backends that are installed, the direct one first."""
    names = available_solvers("linear program")
    return sorted(names, key=lambda name: (name != DIRECT, name))


@lru_cache(maxsize=8)
def _network(n: int, gamma: float, repetition: int) -> ImplicitWeights:
    rng = np.random.default_rng([n, repetition])
    V = rng.normal(size=(n, n)) / np.sqrt(n)
    A = project_rows(V, measure_set(gamma).rows(V.shape))
    return ImplicitWeights(A, rng.normal(size=(n, INPUTS)), rng.normal(size=(OUTPUTS, n)))


@lru_cache(maxsize=8)
def _program(n: int, gamma: float, repetition: int) -> tuple[LipschitzProblem, float]:
    """The program that a certificate poses, and its optimum."""
    weights = _network(n, gamma, repetition)
    system = system_of(weights.A)
    assert system is not None
    v = next(iter(well_posed_witnesses(system)))
    problem = ScaledProgram.of(weights, None, v, system).problem
    return problem, solve(problem, DIRECT).objective


@dataclass(frozen=True)
class CertificateTrial(BackendTrial):
    """A backend on the linear programs of random networks of one size."""

    gamma: float = 0.95

    def prepare(self, repetition: int) -> LipschitzProblem:
        return _program(self.n, self.gamma, repetition)[0]

    def check(self, prepared: LipschitzProblem, answer: Solution) -> dict[str, Any]:
        optimum = solve(prepared, DIRECT).objective
        found: dict[str, Any] = {
            "status": answer.status,
            "error": np.inf,
            "iterations": answer.iterations,
        }
        x, n, q = answer.x, len(prepared.b), len(prepared.d)
        if x is None or x.shape != (n,) or not np.isfinite(x).all():
            return found
        dual, output_dual = answer.dual, answer.output_dual
        if dual is None or output_dual is None or (dual.shape, output_dual.shape) != ((n,), (q,)):
            dual = output_dual = None
        residuals = prepared.residuals(x, dual, output_dual)
        found |= {
            "violation": float(np.nanmax([residuals.primal, residuals.dual])) / optimum,
            "objective_error": abs(prepared.objective(x) / optimum - 1.0),
            "primal_dual_gap": abs(residuals.gap) / optimum if dual is not None else None,
        }
        if answer.found:
            found["error"] = max(
                found["violation"], found["objective_error"], found["primal_dual_gap"] or 0.0
            )
        return found


def prove(trial: CertificateTrial) -> dict[str, Any]:
    """What a certificate by this backend is worth, on the first network."""
    weights = _network(trial.n, trial.gamma, 0)
    # Its dual value is a lower bound of the optimum, and equal to it up to rounding.
    optimum = lipschitz_certificate(weights).dual_value
    seconds, certificate = clocked(
        lambda: lipschitz_certificate(weights, solver=trial.solver, **dict(trial.options))
    )
    return {
        "proved": certificate.verify(),
        "excess": certificate.bound / optimum - 1.0,
        "seconds_certificate": seconds,
    }


def _row(result: Result) -> dict[str, Any]:
    options = dict(getattr(result.trial, "options", ())) if result.tried else {}
    return {
        "n": result.n,
        "solver": result.method.name,
        "outcome": result.outcome,
        "reason": result.reason,
        "tolerance": options.get("tolerance"),
        "options": options,
        "repetitions": len(result.measurements),
        **result.times(),
        **{
            key: result.worst(key)
            for key in ("primal_dual_gap", "violation", "objective_error", "iterations")
        },
    }
