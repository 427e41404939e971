"""How far above the true maximum over slopes the bounds are, and what closing the gap costs.

Ratios are to the exact maximum, which `lipschitz_bounds` proves to 1e-6; enumeration of all
2¹² corners confirms it: python benchmarks/tightness.py

With --data FOLDER of the MNIST files it trains a network on them and adds its bounds, relative to
the gain at slopes that a local search found. With --only-mnist the other figures stay as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from common import RESULTS, median, write
from numpy.typing import NDArray
from scipy.optimize import linprog
from threadpoolctl import threadpool_limits

from contraction_nets import (
    ImplicitNetwork,
    ImplicitWeights,
    fit,
    lipschitz_bounds,
    lipschitz_certificate,
    project,
)
from contraction_nets.certificates.statements import Statement
from contraction_nets.comparison.machine import machine
from contraction_nets.training.data import load_data

Array = NDArray[np.float64]

FAMILIES = ("dense", "diagonal", "sparse", "stacked")
STATES, INPUTS, OUTPUTS = 12, 4, 3


def random_weights(family: str, n: int, seed: int) -> ImplicitWeights:
    """A network with μ∞(A) ≤ 0.95, or a feed-forward one of three layers stacked into A."""
    rng = np.random.default_rng([FAMILIES.index(family), n, seed])
    A, B, C = (rng.normal(size=shape) for shape in ((n, n), (n, INPUTS), (OUTPUTS, n)))
    if family == "stacked":
        layer = np.arange(n) * 3 // n
        A = A * (layer[:, None] == layer + 1) * np.sqrt(6 / n)
        return ImplicitWeights(A, B * (layer == 0)[:, None], C * (layer == 2))
    A = 3 * A / np.sqrt(n)
    if family == "sparse":
        A = 2 * A * (rng.uniform(size=(n, n)) < 0.3)
    elif family == "diagonal":
        A = A - np.diag(rng.uniform(0, 5, n))
    return ImplicitWeights(project(A, 0.95), B, C)


def enumerated(weights: ImplicitWeights) -> float:
    """The maximum over all corners, in float64."""
    n = weights.state_dim
    corners = (np.arange(2**n)[:, None] >> np.arange(n) & 1)[:, :, None].astype(float)
    return max(
        float(np.abs(weights.C @ np.linalg.solve(np.eye(n) - S * weights.A, S * weights.B))
              .sum(axis=2).max())
        for S in np.split(corners, 8)
    )  # fmt: skip


class Candidate:
    """The candidates that were not kept, on x_i = d_i v_i with the diagonal divided out."""

    def __init__(self, weights: ImplicitWeights) -> None:
        diagonal = 1 - np.diag(weights.A)
        self.A = (weights.A - np.diag(np.diag(weights.A))) / diagonal[:, None]
        self.B, self.C = weights.B / diagonal[:, None], weights.C
        self.n, self.p = self.B.shape
        self.box = np.linalg.solve(np.eye(self.n) - np.abs(self.A), np.abs(self.B).sum(axis=1))

    def _dual(self, C: Array, D: Array, g: Array) -> Array:
        """Bounds of y = C x + D u + g (A x + B u − v) over |v| ≤ box and x between 0 and v."""
        x = C + g @ self.A
        slopes = np.maximum(np.abs(g), np.abs(x - g))
        return np.asarray(np.abs(D + g @ self.B).sum(axis=1) + slopes @ self.box)

    def centred(self) -> float:
        """x = v/2 + r with |r| ≤ |v|/2; the box is tightened by the same bound."""
        centre = np.linalg.inv(np.eye(self.n) - self.A / 2) / 2
        for _ in range(20):
            self.box = np.minimum(self.box, self._dual(self.A, self.B, self.A @ centre))
        nothing = np.zeros((len(self.C), self.p))
        return float(self._dual(self.C, nothing, self.C @ centre).max())

    def joint(self) -> float:
        """The linear program over the hull of every (v_i, x_i) in the centred box."""
        self.centred()
        return max(self._joint(c, np.zeros(self.p)) for c in self.C)

    def tightened(self) -> float:
        """The same, after it has tightened the box twice, one program a state."""
        self.centred()
        for _ in range(2):
            for i in range(self.n):
                self.box[i] = min(self.box[i], self._joint(self.A[i], self.B[i]))
        return max(self._joint(c, np.zeros(self.p)) for c in self.C)

    def _joint(self, c: Array, d: Array) -> float:
        identity, none = np.eye(self.n), np.zeros((self.n, self.p))
        half = np.hstack([identity, -identity / 2, none])
        result = linprog(
            -np.concatenate([c, np.zeros(self.n), d]),
            np.vstack([half, -half]),
            np.concatenate([self.box, self.box]) / 2,
            np.hstack([self.A, -identity, self.B]),
            np.zeros(self.n),
            bounds=[(-b, b) for b in self.box] * 2 + [(-1, 1)] * self.p,
        )
        return -float(result.fun)

    def sectors_by_cvxpy(self) -> float:
        """The semidefinite bound of the library, modelled in cvxpy and solved by Clarabel."""
        N, rows = self.n + self.p, np.hstack([self.A, self.B])
        values = []
        for c in self.C:
            Y = cp.Variable((N, N), PSD=True)
            sector = cp.sum(cp.multiply(rows, Y[: self.n]), axis=1) >= cp.diag(Y)[: self.n]
            row = np.concatenate([c, np.zeros(self.p)])
            problem = cp.Problem(
                cp.Maximize(row @ Y @ row), [sector, cp.diag(Y)[self.n :] <= 1]
            )  # fmt: skip
            problem.solve(solver=cp.CLARABEL)
            values.append(float(np.sqrt(problem.value)))
        return max(values)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def summary(ratios: list[float]) -> dict[str, float | None]:
    """Median, minimum and maximum; null where infinite."""
    values = {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def random_nets(count: int) -> dict[str, Any]:
    """Every bound on the same random nets."""
    ratios: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    by_family: dict[str, dict[str, list[float]]] = {family: {} for family in FAMILIES}
    nodes, errors = [], []
    lipschitz_bounds(random_weights("dense", 4, 0))  # untimed: lazy imports
    for seed in range(count):
        family = FAMILIES[seed % len(FAMILIES)]
        weights = random_weights(family, STATES, seed)
        runs: dict[str, Callable[[], Any]] = {
            "exact": lambda w=weights: lipschitz_bounds(w),
            "polynomial": lambda w=weights: lipschitz_bounds(w, max_nodes=OUTPUTS),
            "lp": lambda w=weights: lipschitz_certificate(w),
            "centred": lambda w=weights: Candidate(w).centred(),
            "joint_lp": lambda w=weights: Candidate(w).joint(),
            "joint_lp_tightened": lambda w=weights: Candidate(w).tightened(),
            "sectors_by_cvxpy": lambda w=weights: Candidate(w).sectors_by_cvxpy(),
            "proved": lambda w=weights: lipschitz_certificate(w).statement("sectors"),
        }
        found = {name: timed(run) for name, run in runs.items()}
        exact = found["exact"][0]
        if not exact.exact:
            raise RuntimeError(f"no exact value for net {seed} of {family}")
        maximum, certificate = exact.lower, found["lp"][0]
        errors.append(abs(enumerated(weights) / maximum - 1))
        values = {
            "exact": exact.upper,
            "polynomial": found["polynomial"][0].upper,
            "lp": certificate.bound,
            "norm_product": certificate.norm_product_bound,
            "proved": found["proved"][0].bound,
            **{name: found[name][0] for name in list(runs)[3:-1]},
        }
        seconds.setdefault("proved_verify", []).append(verified(found["proved"][0], weights))
        nodes.append(exact.nodes)
        for name, value in values.items():
            ratios.setdefault(name, []).append(value / maximum)
            by_family[family].setdefault(name, []).append(value / maximum)
        for name in runs:
            seconds.setdefault(name, []).append(found[name][1])
    return {
        "nets": count,
        "shape": {"n": STATES, "p": INPUTS, "q": OUTPUTS},
        "ratio_to_exact": {name: summary(values) for name, values in ratios.items()},
        "ratio_by_family": {
            family: {name: summary(values)["median"] for name, values in found.items()}
            for family, found in by_family.items()
        },
        "seconds_median": {name: median(values) for name, values in seconds.items()},
        "nodes": {"median": median(nodes), "max": max(nodes)},
        "largest_difference_to_enumeration": max(errors),
    }


def verified(statement: Statement, weights: ImplicitWeights) -> float:
    """Seconds that the proof of a statement takes."""
    proved, seconds = timed(lambda: statement.prove(weights))
    if not proved:
        raise RuntimeError("a statement was not proved")
    return seconds


def growth(sizes: list[int], nets: int) -> list[dict[str, Any]]:
    """Time and nodes to the exact value as the number of states grows."""
    rows = []
    for n in sizes:
        weights = [random_weights(family, n, seed) for family in FAMILIES for seed in range(nets)]
        found = [timed(lambda w=w: lipschitz_bounds(w, time_limit=120)) for w in weights]
        rows.append(
            {
                "n": n,
                "nets": len(found),
                "exact": sum(bounds.exact for bounds, _ in found),
                "seconds": summary([seconds for _, seconds in found]),
                "nodes": summary([float(bounds.nodes) for bounds, _ in found]),
            }
        )
    return rows


def trained(name: str, hidden: int, seconds: float, tol: float) -> dict[str, Any]:
    """The same bounds on a network that was trained with the constraint."""
    torch.manual_seed(0)
    data = load_data(name)
    outputs = 10 if data.classifies else data.train_targets.shape[1]
    network = ImplicitNetwork(data.train_inputs.shape[1], hidden, outputs)
    result = fit(network, data, epochs=10, audit=False)
    weights = result.certificate.weights
    polynomial, first = timed(lambda: lipschitz_bounds(weights, max_nodes=outputs, tol=tol))
    bounds, spent = timed(lambda: lipschitz_bounds(weights, time_limit=seconds, tol=tol))
    lower = bounds.lower
    proved, found = timed(lambda: result.certificate.statement("sectors"))
    return {
        "data": name,
        "shapes": weights.shapes,
        "test_accuracy": result.metrics[-1]["test_accuracy"],
        "lower": lower,
        "upper": bounds.upper,
        "exact": bounds.exact,
        "tol": tol,
        "nodes": bounds.nodes,
        "seconds": spent,
        "ratio_to_lower": {
            "upper": bounds.upper / lower,
            "polynomial": polynomial.upper / lower,
            "proved": proved.bound / lower,
            "lp": bounds.lp / lower,
            "norm_product": result.certificate.norm_product_bound / lower,
        },
        "seconds_polynomial": first,
        "seconds_proved": {"find": found, "verify": verified(proved, weights)},
    }


def mnist(folder: Path) -> dict[str, Any]:
    """The network of the README, 100 states; one semidefinite program an output, no branching."""
    torch.manual_seed(0)
    data = load_data("mnist", data_dir=folder)
    network = ImplicitNetwork(data.train_inputs.shape[1], 100, 10)
    result = fit(network, data, epochs=12, lipschitz_weight=2.5e-4, audit=False)
    certificate = result.certificate
    weights = certificate.weights
    bounds, ascent = timed(lambda: lipschitz_bounds(weights, max_nodes=0))
    proved, found = timed(lambda: certificate.statement("sectors"))
    values = {
        "lower": bounds.lower,
        "proved": proved.bound,
        "lp": certificate.bound,
        "norm_product": certificate.norm_product_bound,
    }
    return {
        "data": "mnist",
        "shapes": weights.shapes,
        "test_accuracy": result.metrics[-1]["test_accuracy"],
        "bounds": values,
        "proved_by_output": proved.bounds.tolist(),
        "ratio_to_lower": {name: value / bounds.lower for name, value in values.items()},
        "seconds_lower": ascent,
        "seconds_proved": {"find": found, "verify": verified(proved, weights)},
        "seconds_proved_per_output": found / len(proved.bounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6, 12, 20, 30])
    parser.add_argument("--seconds", type=float, default=150, help="limit on a trained net")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of the MNIST files")
    parser.add_argument("--only-mnist", action="store_true", help="keep the other figures")
    arguments = parser.parse_args()
    if arguments.only_mnist and arguments.data is None:
        parser.error("--only-mnist needs --data FOLDER")
    torch.set_num_threads(arguments.threads)
    path = RESULTS / "tightness.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    with threadpool_limits(arguments.threads):
        if arguments.only_mnist:
            result = before
        else:
            result = {
                "machine": machine(arguments.threads),
                "random": random_nets(arguments.nets),
                "growth": growth(arguments.sizes, 4),
                "trained": [
                    trained("function", 100, arguments.seconds, 1e-4),
                    trained("digits", 60, arguments.seconds, 1e-3),
                ],
            }
        if arguments.data is not None:
            result["mnist"] = {"machine": machine(arguments.threads), **mnist(arguments.data)}
        elif "mnist" in before:
            result["mnist"] = before["mnist"]
        write("tightness", result)


if __name__ == "__main__":
    main()
