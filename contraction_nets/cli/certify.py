"""`contraction-nets certify`: a Lipschitz bound for weights, with its proof."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraction_nets.cli.certificate_table import print_certificate, worst_pair
from contraction_nets.cli.console import NOT_PROVED, finite, parse_options, print_json
from contraction_nets.cli.refusal import report_refusal
from contraction_nets.cli.tables import read_table, write_csv
from contraction_nets.cli.weights import Activation, Keys, Transpose, WeightsPath, read
from contraction_nets.errors import NotWellPosedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contraction_nets.certificates.lipschitz import LipschitzCertificate


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
    u = x = None
    if stated and table is not None:
        u = _one_row(table, "--inputs", network.input_dim)
        table = u[None]
    if state is not None:
        found = read_table(state, "a state")
        # In a file of its own, a column is one state as well.
        x = _one_row(found.ravel() if 1 in found.shape else found, "--state", network.state_dim)
    try:
        certificate = lipschitz_certificate(
            network, epsilon=sizes, solver=solver, **parse_options(option or [])
        )
    except NotWellPosedError as error:
        measure = statement is Kind.MEASURE
        report_refusal(str(weights), network, error, measure=measure, out=out, as_json=as_json)
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
        if made is None:
            certificate.save(out, statement.value)
        else:
            save_statement(made, network, out, certificate.as_dict())
    if radii is not None:
        write_csv(radii, ["input", "label", "runner_up", "margin", "radius"], rows)
    if as_json:
        print_json(report)
    else:
        print_certificate(str(weights), certificate, report, out, radii)


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
        more["worst"] = worst_pair(certificate)
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
