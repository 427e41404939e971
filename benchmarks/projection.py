"""The closed-form projection against cvxpy with Clarabel, piqp, and copying the matrix.

cvxpy takes part twice, both times with the tolerances that the accuracy needs: with the
problem written down and solved anew, as in its documentation, and as our backend `cvxpy`
does it, where a model built before the clock starts is only re-solved with new data. `piqp` is
the fastest of the other backends (`contraction-nets compare projections`); its answers, too, are
exact. All are timed in a row of calls, as training makes them.

float32 matrices, as numpy arrays and as torch tensors, are timed beside `A.clone()` of torch:
random ones, whose rows are all violated; projections of them, with every row on the boundary;
these after a gradient step, and shrunk.

    python benchmarks/projection.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from common import interleaved, median, write
from threadpoolctl import threadpool_limits

from contraction_nets import project
from contraction_nets.comparison.machine import machine
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.rows import feasible_rows
from contraction_nets.geometry.sets import measure_set

GAMMA = 0.95
CALLS = 20  # of the closed form in one turn, so that the clock and cold caches do not count
TIGHT = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}


def from_scratch(A: np.ndarray) -> np.ndarray:
    """The projection as one would write it in cvxpy."""
    X, off = cp.Variable(A.shape), 1 - np.eye(len(A))
    sums = cp.diag(X) + cp.sum(cp.abs(cp.multiply(off, X)), axis=1)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - A)), [sums <= GAMMA])
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    return X.value


def several(run: Callable[[], Any], calls: int) -> None:
    for _ in range(calls):
        run()


def beside_a_copy(n: int, repetitions: int) -> dict[str, Any]:
    """Seconds of projections of float32 matrices, and how many times those of `A.clone()`."""
    rng, rows = np.random.default_rng(n), measure_set(GAMMA).cached_rows((n, n))
    violated = rng.normal(size=(n, n)).astype(np.float32)
    boundary = project_rows(violated, rows)
    dense = project_rows(1.3 / n * violated, rows)
    step = np.float32(0.1 / n) * np.sign(rng.normal(size=(n, n))).astype(np.float32)
    matrices = {
        "violated": violated,
        "after a step": dense + step,
        "on the boundary": boundary,
        "inside": np.float32(0.9) * boundary,
    }
    A, calls = torch.from_numpy(violated), max(1, CALLS * 100**2 // n**2)
    contenders: dict[str, Callable[[], Any]] = {"clone": A.clone}
    for name, V in matrices.items():
        contenders[f"{name}, numpy"] = partial(project_rows, V, rows)
        contenders[f"{name}, torch"] = partial(project_rows, torch.from_numpy(V), rows)
    repeated = {name: partial(several, run, calls) for name, run in contenders.items()}
    taken = interleaved(repeated, repetitions)
    seconds = {name: median(values) / calls for name, values in taken.items()}
    return {
        "n": n,
        "rows_violated": {k: int((~feasible_rows(V, rows)).sum()) for k, V in matrices.items()},
        "seconds": seconds,
        "ratio_to_clone": {k: v / seconds["clone"] for k, v in seconds.items() if k != "clone"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--float32-sizes", type=int, nargs="+", default=[100, 1024, 4096])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows = []
    with threadpool_limits(arguments.threads):
        for n in arguments.sizes:
            A = np.random.default_rng(n).normal(size=(n, n))
            exact = project(A, GAMMA)
            reference = project(A, GAMMA, solver="cvxpy")
            seconds = interleaved(
                {
                    "closed_form": lambda A=A: several(lambda: project(A, GAMMA), CALLS),
                    "cvxpy": lambda A=A: from_scratch(A),
                    "re-solved": lambda A=A: project(A, GAMMA, solver="cvxpy"),
                    "piqp": lambda A=A: several(lambda: project(A, GAMMA, solver="piqp"), CALLS),
                },
                arguments.repetitions,
            )
            fast = median(seconds["closed_form"]) / CALLS
            rows.append(
                {
                    "n": n,
                    "rows_violated": int((exact != A).any(axis=1).sum()),
                    "seconds_closed_form": fast,
                    "seconds_cvxpy": median(seconds["cvxpy"]),
                    "seconds_cvxpy_resolved": median(seconds["re-solved"]),
                    "seconds_piqp": median(seconds["piqp"]) / CALLS,
                    "ratio_to_cvxpy": median(seconds["cvxpy"]) / fast,
                    "ratio_to_cvxpy_resolved": median(seconds["re-solved"]) / fast,
                    "ratio_to_piqp": median(seconds["piqp"]) / CALLS / fast,
                    "largest_difference": float(np.abs(exact - reference).max()),
                    "largest_difference_unpolished": float(np.abs(exact - from_scratch(A)).max()),
                }
            )
        torch.set_num_threads(arguments.threads)
        copies = [beside_a_copy(n, 3 * arguments.repetitions) for n in arguments.float32_sizes]
    write("projection", {"machine": machine(arguments.threads), "rows": rows, "float32": copies})


if __name__ == "__main__":
    main()
