"""`contraction-nets certify`: a Lipschitz bound for weights, with its proof."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from contraction_nets.cli.tables import read_table, write_csv
from contraction_nets.cli.weights import Activation, Keys, Transpose, WeightsPath, read
from contraction_nets.errors import NotWellPosedError
from contraction_nets.viz.rounding import at_least, at_most

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contraction_nets.certificates.lipschitz import LipschitzCertificate
    from contraction_nets.certificates.statements import NotContracting
    from contraction_nets.certificates.weights import ImplicitWeights

_LARGEST_GAINS = 10**7  # entries of the gain matrix; beyond, it is only computed when asked for
_LARGEST_DIAGNOSIS = 2000  # states; beyond, eigenvalues take longer than anybody waits


class Kind(StrEnum):
    """What the certificate file is to state."""

    LIPSCHITZ = "lipschitz"
    PAIRS = "pairs"
    GAINS = "gains"
    SECTORS = "sectors"
    MEASURE = "measure"
    EQUILIBRIUM = "equilibrium"


def certify(
    weights: WeightsPath,
    solver: Annotated[str, typer.Option(help="Backend for the linear program.")] = "m_matrix",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the backend, as key=value; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the certificate (JSON).")] = None,
    statement: Annotated[Kind, typer.Option(help="What --out is to state.")] = Kind.LIPSCHITZ,
    epsilon: Annotated[
        str, typer.Option(help="Radii of the inputs: a number, or a .csv, .npy or .npz file.")
    ] = "",
    norm: Annotated[
        list[str] | None,
        typer.Option(help="Also bound the ℓp → ℓq constant, as p,q such as 2,inf; repeatable."),
    ] = None,
    tighten: Annotated[
        float | None,
        typer.Option(help="Also bound the largest gain over all slopes, for so many seconds."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Inputs, one a row (.csv, .npy, .npz), for --radii; one input for --statement "
            "equilibrium."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="A state x that another program computed (.csv, .npy, .npz), for --statement "
            "equilibrium; computed here otherwise."
        ),
    ] = None,
    radii: Annotated[
        Path | None, typer.Option(help="Where to write the certified ℓ∞ radii of --inputs (.csv).")
    ] = None,
    keys: Keys = "",
    transpose: Transpose = "",
    activation: Activation = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Certify an ℓ∞ Lipschitz bound, proved in exact integer arithmetic."""
    from contraction_nets.certificates.document import save_statement
    from contraction_nets.certificates.equilibrium import equilibrium_statement
    from contraction_nets.certificates.lipschitz import lipschitz_certificate
    from contraction_nets.certificates.storage import check_target

    stated = statement is Kind.EQUILIBRIUM
    if stated and inputs is None:
        raise ValueError("got --statement equilibrium alone, expected its input in --inputs too.")
    if state is not None and not stated:
        raise ValueError("got --state, expected it with --statement equilibrium only.")
    if (inputs is None) != (radii is None) and not (stated and radii is None):
        raise ValueError("got one of --inputs and --radii, expected both or none of them.")
    if epsilon and tighten is not None:
        raise ValueError("got --epsilon and --tighten, expected one of them; run it twice.")
    orders = [_orders(text) for text in norm or []]
    targets = [check_target(target) for target in (out, radii) if target is not None]
    if len(set(targets)) < len(targets):
        raise ValueError(f"got {out} for --out and --radii, expected two files.")
    network, sizes = read(weights, keys, transpose, activation), _radii(epsilon)
    table = None if inputs is None else read_table(inputs, "inputs")
    u = None if table is None or not stated else _one_row(table, "--inputs", network.input_dim)
    x = None if state is None else read_table(state, "a state")
    if x is not None:  # in a file of its own, a column is one state as well
        x = _one_row(x.ravel() if 1 in x.shape else x, "--state", network.state_dim)
    try:
        certificate = lipschitz_certificate(
            network, epsilon=sizes, solver=solver, **parse_options(option or [])
        )
    except NotWellPosedError as error:
        why, written = _why_not(network), None
        proof = _impossibility(network) if out or statement is Kind.MEASURE else None
        if statement is Kind.MEASURE and proof is not None and out is not None:
            save_statement(proof, network, out)
            written = out
        refusal = {**_refusal(network, error), "why": why}
        if statement is Kind.MEASURE:
            refusal["not_contracting"] = None if proof is None else {"lower": proof.lower}
        if as_json:
            print_json(refusal)
        elif why is not None:
            _print_refusal(str(weights), network, refusal, written)
        then = _what_was_written(proof, out, statement)
        say(f"error: {str(error).rstrip('.')}{then}.")
        raise typer.Exit(NOT_PROVED) from None
    report = certificate.as_dict()
    report |= _more(certificate, orders, tighten)
    rows: list[tuple[Any, ...]] = []
    if table is not None and radii is not None:
        rows, report["inputs"] = _certified(certificate, table)
    made = None
    if u is not None:
        made = equilibrium_statement(network, u, x)
        report["equilibrium"] = {"distance": made.distance, "state": made.state.tolist()}
    if out is not None:  # nothing is written before everything is known
        made = made or certificate.statement(statement.value)
        save_statement(made, network, out, certificate.as_dict())
    if radii is not None:
        write_csv(radii, ["input", "label", "runner_up", "margin", "radius"], rows)
    if as_json:
        print_json(report)
    else:
        _print_report(str(weights), certificate, report, out, radii)


def _print_report(
    title: str,
    certificate: LipschitzCertificate,
    report: dict[str, Any],
    out: Path | None,
    radii: Path | None,
) -> None:
    lipschitz, worst = report["lipschitz"], _worst(certificate)
    bound, product = lipschitz["bound"], lipschitz["norm_product_bound"]
    ratio = f" ({product / bound:.3g} times larger)" if product and bound > 1e-38 else ""
    shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in report["shapes"].items())
    unit = "per unit of input" if certificate.epsilon is None else "for inputs that move by ε"
    rows = [
        ("well-posed", "yes, proved in exact integer arithmetic"),
        ("Lipschitz bound ℓ∞ → ℓ∞", f"{at_most(bound, digits=7)} {unit}, proved"),
        ("norm-product bound", f"{number(product)}{ratio}"),
        ("worst pair", _named(worst)),
        *(
            (
                f"ℓ{found['p']} → ℓ{found['q']} bound".replace("inf", "∞"),
                f"{number(found['bound'])}, from the gains",
            )
            for found in report.get("norms", ())
        ),
    ]
    if tight := report.get("tightened"):
        exact = ", to 1e-6 the largest" if tight["exact"] else ""
        rows.append(
            (
                "over all slopes",
                f"{tight['lower']:.6g} to {at_most(tight['upper'], digits=7)} "
                f"(sound in float64{exact})",
            )
        )
    rows += [
        ("μ∞(A)", number(report["mu_inf"])),
        ("best weighted μ", number(report["mu_weighted"])),
        ("spectral abscissa", number(report["abscissa"])),
        ("solver", f"{lipschitz['solver']}, gap {number(lipschitz['primal_dual_gap'], 2)}"),
        ("weights", f"{shapes}, φ = {certificate.weights.activation}"),
        ("sha256", report["weights_sha256"]),
    ]
    if radii is not None:
        found = report["inputs"]
        rows.append(
            (
                "certified radii",
                f"{found['count']} inputs, median {found['median']:.6g}, in {radii}",
            )
        )
    if found := report.get("equilibrium"):
        distance = at_most(found["distance"], digits=7)
        rows.append(("state", f"at most {distance} from the equilibrium, proved"))
    if out is not None:
        rows.append(("certificate", str(out)))
    print_table(title, rows)


def _named(worst: dict[str, Any]) -> str:
    if worst["input"] is None:
        return f"output {worst['output']}"
    return f"output {worst['output']}, input {worst['input']}: gain {number(worst['gain'])}"


def _worst(certificate: LipschitzCertificate) -> dict[str, Any]:
    """The output and the input with the largest gain, as JSON; the output alone in large cases."""
    weights = certificate.weights
    if weights.output_dim * max(weights.state_dim, weights.input_dim) > _LARGEST_GAINS:
        return {"output": certificate.worst_output, "input": None, "gain": None}
    k, j = certificate.worst_pair
    return {"output": k, "input": j, "gain": finite(float(certificate.gains[k, j]))}


def _more(
    certificate: LipschitzCertificate, orders: list[tuple[float, float]], tighten: float | None
) -> dict[str, Any]:
    """What was asked for besides the bound, as JSON."""
    more: dict[str, Any] = {}
    if certificate.epsilon is not None:
        more["epsilon"] = certificate.epsilon.tolist()
    if orders:
        more["norms"] = [
            {"p": f"{p:g}", "q": f"{q:g}", "bound": finite(certificate.norm(p, q))}
            for p, q in orders
        ]
        more["worst"] = _worst(certificate)
    if tighten is not None:
        from contraction_nets.certificates.slopes import lipschitz_bounds

        found = lipschitz_bounds(certificate.weights, time_limit=tighten)
        more["tightened"] = {
            name: getattr(found, name) for name in ("lower", "upper", "exact", "nodes")
        }
    return more


def _orders(text: str) -> tuple[float, float]:
    """p and q of "2,inf"."""
    try:
        p, q = (float(part) for part in text.split(","))
    except ValueError:
        p = q = math.nan
    if not (p >= 1 and q >= 1):
        raise ValueError(
            f"got the norm {text!r}, expected p,q of at least one each, such as 2,inf."
        )
    return p, q


def _radii(text: str) -> Any:
    """ε as a number or as the numbers of a file; None for an empty text."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return read_table(Path(text), "radii").ravel()


def _one_row(table: NDArray[np.float64], option: str, size: int) -> NDArray[np.float64]:
    """The one row of a table, or the numbers of an array of one dimension."""
    rows = table[None] if table.ndim == 1 else table
    if rows.shape != (1, size):
        shape = " × ".join(map(str, rows.shape))
        raise ValueError(
            f"got a table of {shape} numbers for {option}, expected exactly one row of {size}; "
            "write it on one line."
        )
    return rows[0]


def _certified(
    certificate: LipschitzCertificate, table: NDArray[np.float64]
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """The rows of the table of certified radii, and what the report says of them."""
    import numpy as np

    from contraction_nets.robustness.radius import certified_radii

    found = certified_radii(certificate, table[:, None] if table.ndim == 1 else table)
    rows = zip(
        range(len(found.labels)),
        found.labels.tolist(),
        found.runners_up.tolist(),
        found.margins.tolist(),
        found.radii.tolist(),
        strict=True,
    )
    median = finite(float(np.median(found.radii)))
    return list(rows), {"count": len(found.radii), "median": median}


def _impossibility(network: ImplicitWeights) -> NotContracting | None:
    """The largest measure that is proved to be attained with no weights η; None if none is."""
    from contraction_nets.certificates.optimal import optimal_weights
    from contraction_nets.certificates.statements import NotContracting

    found = optimal_weights(network.A)
    if not math.isfinite(found.lower):
        return None
    proof = NotContracting(found.lower, found.x)
    return proof if proof.prove(network) else None


def _what_was_written(proof: NotContracting | None, out: Path | None, statement: Kind) -> str:
    """What the error goes on to say of files and proofs."""
    impossible = proof is not None and proof.lower >= 1
    if statement is Kind.MEASURE and proof is not None:
        where = "proved" if out is None else f"proved in {out}"
        doubt = "" if impossible else ", which does not exclude a certificate"
        return (
            f"; no weights give a measure below {at_least(proof.lower, digits=7)}: {where}{doubt}"
        )
    if out is None:
        return ""
    hint = ", and --statement measure writes the proof that none exists" if impossible else ""
    return f"; no certificate was written{hint}"


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


def _print_refusal(
    title: str, network: ImplicitWeights, refusal: dict[str, Any], written: Path | None
) -> None:
    why, proof = refusal["why"], refusal.get("not_contracting")
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
    }
