"""`contraction-nets verify`: check a certificate against weights, without any solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contraction_nets.cli.console import NOT_PROVED, print_json, print_table, say
from contraction_nets.cli.weights import Keys, WeightsPath, read


def verify(
    certificate: Annotated[Path, typer.Argument(help="A certificate that certify --out wrote.")],
    weights: WeightsPath,
    keys: Keys = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a certificate in exact integer arithmetic: exit code 0 proved, 1 not proved."""
    from contraction_nets.certificates.document import load_certificate

    document = load_certificate(certificate)
    network = read(weights, keys)
    objection = document.objection(network)
    if as_json:
        print_json(
            {
                "proved": objection is None,
                "objection": objection,
                "bound": document.bound,
                "statement": document.statement,
                "assumptions": document.assumptions,
                "weights_sha256": network.sha256,
            }
        )
    if objection is not None:
        say(f"error: not proved: {objection}.")
        raise typer.Exit(NOT_PROVED)
    if as_json:
        return
    assumed = document.assumptions
    print_table(
        f"{certificate} for {weights}",
        [
            ("proved", "yes, in exact integer arithmetic"),
            ("statement", document.statement),
            ("bound", f"{document.bound!r} (ℓ∞ → ℓ∞)"),
            ("assumed", f"φ = {assumed['activation']}, its slopes in {assumed['slopes']}"),
            ("units", assumed["units"]),
            ("sha256", network.sha256),
        ],
    )
