"""`contraction-nets certify`: a Lipschitz bound for weights, with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from contraction_nets.cli.console import (
    NOT_PROVED,
    finite,
    number,
    parse_options,
    print_json,
    print_table,
    say,
)
from contraction_nets.cli.weights import Keys, WeightsPath, read
from contraction_nets.errors import NotWellPosedError, SolverError

_LARGEST_DIAGNOSIS = 2000  # states; beyond, eigenvalues take longer than anybody waits


def certify(
    weights: WeightsPath,
    solver: Annotated[str, typer.Option(help="Backend for the linear program.")] = "m_matrix",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the backend, as key=value; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the certificate (JSON).")] = None,
    keys: Keys = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Certify an ℓ∞ Lipschitz bound, proved in exact integer arithmetic."""
    from contraction_nets.certificates.lipschitz import lipschitz_certificate

    network = read(weights, keys)
    try:
        certificate = lipschitz_certificate(network, solver=solver, **parse_options(option or []))
    except NotWellPosedError as error:
        why = _why_not(network)
        if as_json:
            print_json({**_refusal(network, error), "why": why})
        elif why is not None:
            _print_why(str(weights), network, why)
        say(f"error: {error}")
        raise typer.Exit(NOT_PROVED) from None
    report = certificate.as_dict()
    if not (report["well_posed"] and report["lipschitz"]["verified"]):
        raise SolverError(
            f"the answer of '{solver}' could not be proved, expected a witness that can be; "
            "use --solver m_matrix."
        )
    if out is not None:
        certificate.save(out)
    if as_json:
        print_json(report)
        return
    lipschitz = report["lipschitz"]
    bound, product = lipschitz["bound"], lipschitz["norm_product_bound"]
    ratio = f" ({product / bound:.3g} times larger)" if product and bound > 1e-38 else ""
    shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in report["shapes"].items())
    print_table(
        str(weights),
        [
            ("well-posed", "yes, proved in exact integer arithmetic"),
            ("Lipschitz bound ℓ∞ → ℓ∞", f"{bound:.6g} per unit of input, proved"),
            ("norm-product bound", f"{number(product)}{ratio}"),
            ("μ∞(A)", number(report["mu_inf"])),
            ("best weighted μ", number(report["mu_weighted"])),
            ("spectral abscissa", number(report["abscissa"])),
            ("solver", f"{lipschitz['solver']}, gap {number(lipschitz['primal_dual_gap'], 2)}"),
            ("weights", f"{shapes}, φ = {network.activation}"),
            ("sha256", report["weights_sha256"]),
            *([("certificate", str(out))] if out else []),
        ],
    )


def _why_not(network: Any) -> dict[str, Any] | None:
    """The diagnosis as JSON; None for networks too large for eigenvalues."""
    from contraction_nets.certificates.diagnosis import diagnose

    if network.state_dim > _LARGEST_DIAGNOSIS:
        return None
    try:
        found = diagnose(network)
    except ValueError:
        return None
    return {
        "states": found.states.tolist(),
        "abscissa": finite(found.abscissa),
        "euclidean_measure": finite(found.euclidean_measure),
        "euclidean_bound": finite(found.euclidean_bound),
    }


def _print_why(title: str, network: Any, why: dict[str, Any]) -> None:
    states, bound = why["states"], why["euclidean_bound"]
    shown = ", ".join(map(str, states[:10])) + (", …" if len(states) > 10 else "")
    if bound is None:
        euclidean = "no: the largest eigenvalue is not below 1"
    else:
        euclidean = f"yes, with the ℓ2 → ℓ2 bound {bound:.6g} (in float64, not proved)"
    print_table(
        title,
        [
            ("well-posed in ℓ∞", "not proved"),
            (
                "what breaks it",
                f"{len(states)} of {network.state_dim} states, strongly connected: {shown}",
            ),
            ("spectral abscissa", f"{number(why['abscissa'], 12)}, expected below 1"),
            ("largest eigenvalue of (A + Aᵀ)/2", number(why["euclidean_measure"], 12)),
            ("well-posed in ℓ2", euclidean),
        ],
    )


def _refusal(network: Any, error: NotWellPosedError) -> dict[str, Any]:
    """The JSON object for weights that are not well-posed."""
    return {
        "well_posed": False,
        "mu_inf": finite(error.measure),
        "mu_weighted": None,
        "eta": None,
        "abscissa": finite(error.abscissa),
        "lipschitz": None,
        "shapes": network.shapes,
        "weights_sha256": network.sha256,
    }
