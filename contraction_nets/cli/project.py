"""`contraction-nets project`: the nearest weights that are well-posed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contraction_nets.cli.console import finite, number, parse_options, print_json, print_table
from contraction_nets.cli.tables import read_table
from contraction_nets.cli.weights import Activation, Keys, Transpose, WeightsPath, read

SUFFIXES = (".npz", ".safetensors")
_LARGEST_SPARSE = 2000  # states; a sparse matrix of more is not written out in full


def project(
    weights: WeightsPath,
    gamma: Annotated[float, typer.Option(help="Bound on the matrix measure.")],
    out: Annotated[Path, typer.Option(help="Where to write all weights (.npz or .safetensors).")],
    eta: Annotated[
        str,
        typer.Option(help="Weights of the measure: ones, optimal, or a file (.npy, .npz, .csv)."),
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
    from scipy.linalg import norm
    from scipy.sparse import csr_array

    from contraction_nets import project as project_matrix
    from contraction_nets.certificates.optimal import optimal_weights
    from contraction_nets.certificates.storage import check_target
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.geometry.measures import as_weights, matrix_measure

    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"got the file {out.name}, expected the suffix {' or '.join(SUFFIXES)}.")
    check_target(out)
    network = read(weights, keys, transpose, activation)
    if eta == "ones":
        chosen = None
    elif eta == "optimal":
        chosen = optimal_weights(network.A).eta
    else:
        chosen = as_weights(read_table(Path(eta), "weights of the measure"), network.state_dim)
    before = _full(network.A)
    A = project_matrix(before, gamma, chosen, solver=solver, **parse_options(option or []))
    changed = int((before != A).any(axis=1).sum())
    report = {
        "gamma": gamma,
        "rows_changed": changed,
        "distance": finite(float(norm((A.astype(float) - before).ravel()))),
        "measure_before": finite(matrix_measure(network.A, chosen)),
        "measure_after": finite(matrix_measure(A, chosen)),
        "out": str(out),
    }
    nearest = csr_array(A) if network.is_sparse else A
    ImplicitWeights(**{**network.arrays(), "A": nearest}, activation=network.activation).save(out)
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


def _full(A: Any) -> Any:
    """A as an array, whose rows the projection changes."""
    from scipy.sparse import issparse

    if not issparse(A):
        return A
    if A.shape[0] > _LARGEST_SPARSE:
        raise ValueError(
            f"got a sparse A with {A.shape[0]} states, expected at most {_LARGEST_SPARSE}; save it "
            "in full if it fits into memory."
        )
    return A.toarray()
