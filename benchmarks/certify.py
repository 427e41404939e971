"""The time of one certificate, proof included, and its agreement with HiGHS.

python benchmarks/certify.py
"""

from __future__ import annotations

import argparse

import numpy as np
from common import interleaved, machine, median, write
from threadpoolctl import threadpool_limits

from contraction_nets import ImplicitWeights, lipschitz_certificate, project

INPUTS, OUTPUTS = 100, 10


def random_weights(n: int) -> ImplicitWeights:
    """Weights with μ∞(A) = 0.95 in every row."""
    rng = np.random.default_rng(n)
    A = project(rng.normal(size=(n, n)) / np.sqrt(n), 0.95)
    return ImplicitWeights(A, rng.normal(size=(n, INPUTS)), rng.normal(size=(OUTPUTS, n)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    with threadpool_limits(arguments.threads):
        small = random_weights(100)
        bound = lipschitz_certificate(small).bound
        highs = lipschitz_certificate(small, solver="highs").dual_value
        for n in arguments.sizes:
            weights = random_weights(n)
            proofs = []
            seconds = interleaved(
                {
                    "certify": lambda weights=weights, proofs=proofs: proofs.append(
                        lipschitz_certificate(weights).verify()
                    )
                },
                arguments.repetitions,
            )
            rows.append({"n": n, "seconds": median(seconds["certify"]), "proved": all(proofs)})
    write(
        "certify",
        {
            "machine": machine(arguments.threads),
            "rows": rows,
            "relative_difference_to_highs": abs(bound - highs) / bound,
        },
    )


if __name__ == "__main__":
    main()
