"""`contraction-nets project`: the nearest weights that are well-posed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contraction_nets.cli.console import finite, number, parse_options, print_json, print_table
from contraction_nets.cli.weights import Activation, Keys, Transpose, WeightsPath, read

SUFFIXES = (".npz", ".safetensors")


def project(
    weights: WeightsPath,
    gamma: Annotated[float, typer.Option(help="Bound on the matrix measure.")],
    out: Annotated[Path, typer.Option(help="Where to write all weights (.npz or .safetensors).")],
    eta: Annotated[
        str, typer.Option(help="Weights of the measure: ones, optimal, or a .npy file.")
    ] = "ones",
    solver: Annotated[str, typer.Option(help="Backend for the projection.")] = "closed_form",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the backend, as key=value; repeatable.")
    ] = None,
    keys: Keys = "",
    transpose: Transpose = "",
    activation: Activation = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Project A onto {A : μ∞(A) ≤ γ}; all other weights keep every bit."""
    import numpy as np
    from scipy.linalg import norm

    from contraction_nets import project as project_matrix
    from contraction_nets.certificates.optimal import optimal_weights
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.geometry.measures import as_weights, matrix_measure

    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"got the file {out.name}, expected the suffix {' or '.join(SUFFIXES)}.")
    network = read(weights, keys, transpose, activation)
    if eta == "ones":
        chosen = None
    elif eta == "optimal":
        chosen = optimal_weights(network.A).eta
    else:
        chosen = as_weights(np.load(eta, allow_pickle=False), network.state_dim)
    A = project_matrix(network.A, gamma, chosen, solver=solver, **parse_options(option or []))
    ImplicitWeights(**{**network.arrays(), "A": A}, activation=network.activation).save(out)
    changed = int((A != network.A).any(axis=1).sum())
    report = {
        "gamma": gamma,
        "rows_changed": changed,
        "distance": finite(float(norm((A.astype(float) - network.A).ravel()))),
        "measure_before": finite(matrix_measure(network.A, chosen)),
        "measure_after": finite(matrix_measure(A, chosen)),
        "out": str(out),
    }
    if as_json:
        print_json(report)
        return
    measure = "μ∞(A)" if chosen is None else "weighted μ∞(A)"
    print_table(
        str(weights),
        [
            ("rows changed", f"{changed} of {network.state_dim}"),
            ("distance", f"{number(report['distance'])} in the Frobenius norm"),
            (
                measure,
                f"{number(report['measure_before'], 9)} → {number(report['measure_after'], 9)}",
            ),
            ("written", str(out)),
        ],
    )
