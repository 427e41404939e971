"""The time and memory of certificates, proofs included, and their agreement with HiGHS.

In this process, without files; and with the commands `certify` and `verify`, each in a process of
its own that reads its files. Times are those of one thread, in seconds of the processor, which do
not depend on what else the machine has to do: python benchmarks/certify.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import command, interleaved, median, write
from threadpoolctl import threadpool_limits

from contraction_nets import ImplicitWeights, lipschitz_certificate, project
from contraction_nets.comparison.machine import machine

INPUTS, OUTPUTS, PIXELS = 100, 10, 784
SPARSE, ENTRIES = 20_000, 10


def random_weights(n: int, inputs: int = INPUTS) -> ImplicitWeights:
    """Weights with μ∞(A) = 0.95 in every row."""
    rng = np.random.default_rng(n)
    A = project(rng.normal(size=(n, n)) / np.sqrt(n), 0.95)
    return ImplicitWeights(A, rng.normal(size=(n, inputs)), rng.normal(size=(OUTPUTS, n)))


def sparse_matrix(measure: float, spread: int) -> sp.csr_array:
    """Ten entries a row whose absolute values sum to `measure`, then states in other units.

    The units, powers of two, leave the spectral abscissa of the majorant what it is: `measure`.
    """
    rng = np.random.default_rng(SPARSE + spread)
    columns = np.sort([rng.choice(SPARSE, ENTRIES, replace=False) for _ in range(SPARSE)])
    values = rng.normal(size=columns.shape)
    values *= measure / np.abs(values).sum(axis=1, keepdims=True)
    places = np.repeat(np.arange(SPARSE), ENTRIES), columns.ravel()
    # On the diagonal a negative entry would lower the abscissa.
    values = np.where(columns == np.arange(SPARSE)[:, None], np.abs(values), values).ravel()
    powers = rng.integers(-spread, spread + 1, SPARSE)
    values = np.ldexp(values, powers[places[0]] - powers[places[1]])
    return sp.csr_array(sp.coo_array((values, places), (SPARSE, SPARSE)))


def certify(weights: ImplicitWeights, proofs: list[tuple[bool, float]]) -> None:
    """Make a certificate and prove it once more; append whether it is one, and its gap."""
    certificate = lipschitz_certificate(weights)
    proofs.append((certificate.verify(), certificate.primal_dual_gap))


def size(weights: ImplicitWeights) -> int:
    """Bytes of the stored arrays, without zeros where they are sparse."""
    parts = [
        part
        for array in weights.arrays().values()
        for part in ((array.data, array.indices, array.indptr) if sp.issparse(array) else (array,))
    ]
    return sum(part.nbytes for part in parts)


def by_command(name: str, path: Path, threads: int) -> dict[str, Any]:
    """What certifying and verifying a file of weights takes, its reading included."""
    weights, certificate = ImplicitWeights.load(path), path.with_suffix(".json")
    certify = command("certify", path, "--out", certificate, threads=threads)
    verify = command("verify", certificate, path, threads=threads)
    return {
        "weights": name,
        "shapes": weights.shapes,
        "weights_bytes": size(weights),
        "certificate_bytes": certificate.stat().st_size if certificate.exists() else None,
        "certify": certify,
        "verify": verify,
        "proved": certify["code"] == verify["code"] == 0,
    }


def by_commands(threads: int) -> list[dict[str, Any]]:
    """The commands on one state, which is what starting them takes, and on large weights."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            name: Path(folder, f"{i}.npz")
            for i, name in enumerate(("one state", "dense", "sparse", "sparse, nearly critical"))
        }
        one, dense, sparse, critical = paths.values()
        ImplicitWeights([[0.5]], [[1.0]], [[1.0]]).save(one)
        random_weights(1000, PIXELS).save(dense)
        sp.save_npz(sparse, sparse_matrix(0.95, 0))
        sp.save_npz(critical, sparse_matrix(1 - 1e-9, 20))
        rows = [by_command(name, path, threads) for name, path in paths.items()]
    start = rows[0]["verify"]["peak_bytes"]
    for row in rows[1:]:
        memory = row["verify"]["peak_bytes"] - start
        row["verify"]["memory_over_weights"] = memory / row["weights_bytes"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 4000])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows = []
    with threadpool_limits(arguments.threads):
        small = random_weights(100)
        bound = lipschitz_certificate(small).bound
        highs = lipschitz_certificate(small, solver="highs").dual_value
        for n in arguments.sizes:
            weights = random_weights(n)
            proofs: list[tuple[bool, float]] = []
            turns = {"certify": partial(certify, weights, proofs)}
            seconds = interleaved(turns, arguments.repetitions, time.process_time)
            verified, gaps = zip(*proofs, strict=True)
            rows.append(
                {
                    "n": n,
                    "processor_seconds": median(seconds["certify"]),
                    "proved": all(verified),
                    "primal_dual_gap": max(gaps),
                }
            )
    write(
        "certify",
        {
            "machine": machine(arguments.threads),
            "rows": rows,
            "commands": by_commands(arguments.threads),
            "relative_difference_to_highs": abs(bound - highs) / bound,
        },
    )


if __name__ == "__main__":
    main()
