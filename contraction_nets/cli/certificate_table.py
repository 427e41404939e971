"""A certificate as a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from contraction_nets.cli.console import finite, number, print_table
from contraction_nets.errors import SolverError
from contraction_nets.viz.rounding import at_most

if TYPE_CHECKING:
    from contraction_nets.certificates.lipschitz import LipschitzCertificate

_MOST_PRODUCTS = 5 * 10**6  # to prove all gains; beyond, that is only done when asked for


def print_certificate(
    title: str,
    certificate: LipschitzCertificate,
    report: dict[str, Any],
    out: Path | None,
    radii: Path | None,
) -> None:
    """What `certify` found, as a table on stdout; `report` is what `--json` prints."""
    lipschitz, worst = report["lipschitz"], worst_pair(certificate)
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
                f"{found['count']} inputs, median {number(found['median'])}, in {radii}",
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


def worst_pair(certificate: LipschitzCertificate) -> dict[str, Any]:
    """The output and the input with the largest gain, as JSON; the output alone in large cases.

    The same where the gains cannot be proved although the bound is.
    """
    q, n, p = (getattr(certificate.weights, f"{part}_dim") for part in ("output", "state", "input"))
    if q * n * (n + p) <= _MOST_PRODUCTS:
        try:
            k, j = certificate.worst_pair
            return {"output": k, "input": j, "gain": finite(float(certificate.gains[k, j]))}
        except SolverError:
            pass
    return {"output": certificate.worst_output, "input": None, "gain": None}
