"""`contraction-nets verify`: check a certificate against weights, without any solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contraction_nets.cli.console import NOT_PROVED, print_json, print_table, say_error
from contraction_nets.cli.weights import Activation, Keys, Transpose, WeightsPath, read


def verify(
    certificate: Annotated[Path, typer.Argument(help="A certificate that certify --out wrote.")],
    weights: WeightsPath,
    keys: Keys = "",
    transpose: Transpose = "",
    activation: Activation = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a certificate in exact integer arithmetic: exit code 0 proved, 1 not proved."""
    from contraction_nets.certificates.document import load_certificate, plain

    document = load_certificate(certificate)
    network = read(weights, keys, transpose, activation)
    objection = document.objection(network)
    statement = document.statement
    claims = {name: plain(value) for name, value in statement.part(statement.claims).items()}
    if as_json:
        print_json(
            {
                "proved": objection is None,
                "objection": objection,
                "kind": statement.kind,
                "statement": statement.text,
                **claims,
                "assumptions": document.assumptions,
                "weights_sha256": network.sha256,
            }
        )
    if objection is not None:
        say_error(f"not proved: {objection}.")
        raise typer.Exit(NOT_PROVED)
    if as_json:
        return
    assumed = document.assumptions
    print_table(
        f"{certificate} for {weights}",
        [
            ("proved", "yes, in exact integer arithmetic"),
            ("statement", statement.text),
            *((name, _shown(value)) for name, value in claims.items()),
            ("assumed", f"φ = {assumed['activation']}, its slopes in {assumed['slopes']}"),
            ("units", assumed["units"]),
            ("sha256", network.sha256),
        ],
    )


def _shown(value: Any) -> str:
    """A number to the last bit, or the size and the extremes of an array."""
    if not isinstance(value, list):
        return repr(value)
    import numpy as np

    array = np.array(value)
    size = " × ".join(map(str, array.shape))
    return f"{size} numbers from {array.min():.6g} to {array.max():.6g} (all of them: --json)"
