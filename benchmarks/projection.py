"""The closed-form projection against cvxpy with Clarabel, on the same matrices.

cvxpy takes part twice, both times with the tolerances that the accuracy needs: with the
problem written down and solved anew, as in its documentation, and as our backend `cvxpy`
does it, where a model built before the clock starts is only re-solved with new data.

    python benchmarks/projection.py
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
from common import interleaved, median, write
from threadpoolctl import threadpool_limits

from contraction_nets import project
from contraction_nets.comparison.machine import machine

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


def closed_form(A: np.ndarray) -> None:
    for _ in range(CALLS):
        project(A, GAMMA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200])
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
                    "closed_form": lambda A=A: closed_form(A),
                    "cvxpy": lambda A=A: from_scratch(A),
                    "re-solved": lambda A=A: project(A, GAMMA, solver="cvxpy"),
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
                    "ratio_to_cvxpy": median(seconds["cvxpy"]) / fast,
                    "ratio_to_cvxpy_resolved": median(seconds["re-solved"]) / fast,
                    "largest_difference": float(np.abs(exact - reference).max()),
                    "largest_difference_unpolished": float(np.abs(exact - from_scratch(A)).max()),
                }
            )
    write("projection", {"machine": machine(arguments.threads), "rows": rows})


if __name__ == "__main__":
    main()
