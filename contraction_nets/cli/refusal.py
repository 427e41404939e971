"""What `certify` says of a network that has no certificate: why, and what is proved instead."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contraction_nets.cli.console import finite, number, print_json, print_table, say_error
from contraction_nets.viz.rounding import at_least

if TYPE_CHECKING:
    from contraction_nets.certificates.statements import NotContracting
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.errors import NotWellPosedError

_LARGEST_DIAGNOSIS = 2000  # states; beyond, eigenvalues take longer than anybody waits


def report_refusal(
    title: str,
    network: ImplicitWeights,
    error: NotWellPosedError,
    *,
    measure: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the diagnosis and the error; with `measure` prove that no weights η help.

    Parameters
    ----------
    title : str
    network : ImplicitWeights
    error : NotWellPosedError
        Why there is no certificate.
    measure : bool
        Whether the statement asked for is about the measure: it is written to `out`, nothing else.
    out : Path or None
    as_json : bool
    """
    from contraction_nets.certificates.document import save_statement

    report = _refusal(network, error)
    proof = _impossibility(network) if measure or out is not None else None
    written = out if measure and proof is not None else None
    if written is not None and proof is not None:
        save_statement(proof, network, written)
    if measure:
        report["not_contracting"] = None if proof is None else {"lower": proof.lower}
    if as_json:
        print_json(report)
    elif report["why"] is not None:
        _print_refusal(title, network, report, written)
    say_error(f"{str(error).rstrip('.')}{_what_was_written(proof, out, measure)}.")


def _impossibility(network: ImplicitWeights) -> NotContracting | None:
    """The largest measure that is proved to be attained with no weights η; None if none is."""
    from contraction_nets.certificates.optimal import optimal_weights
    from contraction_nets.certificates.statements import NotContracting

    found = optimal_weights(network.A)
    if not math.isfinite(found.lower):
        return None
    proof = NotContracting(found.lower, found.x)
    return proof if proof.prove(network) else None


def _what_was_written(proof: NotContracting | None, out: Path | None, measure: bool) -> str:
    """What the error goes on to say of files and proofs."""
    impossible = proof is not None and proof.lower >= 1
    if measure and proof is not None:
        where = "proved" if out is None else f"proved in {out}"
        doubt = "" if impossible else ", which does not exclude a certificate"
        return (
            f"; no weights give a measure below {at_least(proof.lower, digits=7)}: {where}{doubt}"
        )
    if out is None:
        return ""
    hint = ", and --statement measure writes the proof that none exists" if impossible else ""
    return f"; no certificate was written{hint}"


def _print_refusal(
    title: str, network: ImplicitWeights, report: dict[str, Any], written: Path | None
) -> None:
    why, proof = report["why"], report.get("not_contracting")
    states, bound = why["states"], why["euclidean_bound"]
    shown = ", ".join(map(str, states[:10])) + (", …" if len(states) > 10 else "")
    if bound is None:
        euclidean = "no: the largest eigenvalue is not below 1"
    else:
        euclidean = f"yes, with the ℓ2 → ℓ2 bound {bound:.6g} (in float64, not proved)"
    rows = [
        ("well-posed in ℓ∞", "not proved"),
        (
            "what breaks it",
            f"{len(states)} of {network.state_dim} states, strongly connected: {shown}",
        ),
        ("spectral abscissa", f"{number(why['abscissa'], 12)}, expected below 1"),
        ("largest eigenvalue of (A + Aᵀ)/2", number(why["euclidean_measure"], 12)),
        ("well-posed in ℓ2", euclidean),
    ]
    if proof:
        lower = at_least(proof["lower"], digits=7)
        rows.append(("weighted μ", f"with no weights below {lower}, proved"))
    if written is not None:
        rows.append(("certificate", f"{written}, of the line above"))
    print_table(title, rows)


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
        "why": _why_not(network),
    }


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
