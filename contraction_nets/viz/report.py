"""The report of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contraction_nets.certificates.document import load_certificate, write_atomically
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.viz import plots
from contraction_nets.viz.style import at_most, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metrics = list[dict[str, Any]]


@dataclass(frozen=True)
class _Proof:
    """What is known about the certificate of a run."""

    state: str
    """One of "proved", "not proved" and "missing"."""
    sentence: str
    bound: float | None = None


def write_report(run: str | os.PathLike[str]) -> Path:
    """Write RUN/report.html from the files of a run, atomically.

    Pictures are inline SVG. The certificate is not believed: it is verified again, in exact
    integer arithmetic, against the model beside it.

    Parameters
    ----------
    run : path
        Folder with metrics.jsonl and, where they exist, config.json, model.safetensors and
        certificate.json.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    FileNotFoundError
        No such folder, or no metrics in it.
    ValueError
        A file of the run is damaged.
    ImportError
        matplotlib or jinja2 is not installed.
    """
    folder = Path(run)
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "a report needs jinja2, which is not installed; "
            "run pip install 'contraction-nets[plots]'."
        ) from error
    metrics, notes = _read_metrics(folder / "metrics.jsonl")
    weights = ImplicitWeights.load(folder) if (folder / "model.safetensors").exists() else None
    proof = _verified(folder / "certificate.json", weights)
    config = _read_config(folder / "config.json")
    template = resources.files("contraction_nets.viz").joinpath("report.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        name=folder.resolve().name,
        headline=_headline(metrics[-1], proof),
        proof=proof,
        summary=_summary(metrics, proof),
        pictures=_pictures(metrics, weights),
        config=_flat(config),
        notes=notes,
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _read_metrics(path: Path) -> tuple[Metrics, list[str]]:
    """The epochs of a run, and what to say about lines that were left out."""
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path.name} in {path.parent}, expected the folder of a run; "
            "check the path."
        )
    lines = path.read_bytes().splitlines()
    metrics: Metrics = []
    notes = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no object")
        except ValueError as error:
            if number < len(lines) or not metrics:
                raise ValueError(
                    f"line {number} of {path} is not a JSON object, expected one for every epoch; "
                    "restore the file."
                ) from error
            notes.append("The last line of metrics.jsonl is cut off; it was left out.")
        else:
            metrics.append(record)
    if not metrics:
        raise ValueError(f"{path} is empty, expected at least one epoch; train first.")
    return metrics, notes


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object, expected what training wrote.")
    return config


def _verified(path: Path, weights: ImplicitWeights | None) -> _Proof:
    if not path.exists() or weights is None:
        missing = "certificate" if weights is not None else "model"
        return _Proof("missing", f"There is no {missing} in this folder; nothing is proved.")
    document = load_certificate(path)
    bound = at_most(document.bound)
    if document.verify(weights):
        return _Proof(
            "proved",
            f"No output moves by more than {bound} per unit of input, in the largest entry: "
            "proved for the model in this folder, in exact integer arithmetic, when this page "
            "was written.",
            document.bound,
        )
    return _Proof(
        "not proved",
        f"The certificate claims the bound {bound} but does not prove it for the model in this "
        "folder: one of the two files was changed.",
    )


def _headline(last: dict[str, Any], proof: _Proof) -> str:
    accuracy = last.get("test_accuracy")
    quality = (
        f"test loss {last['test_loss']:.4g}"
        if accuracy is None
        else f"{100 * accuracy:.1f} % test accuracy"
    )
    if proof.bound is None:
        return f"{quality}, {proof.state if proof.state != 'missing' else 'no certificate'}"
    return f"{quality}, certified Lipschitz bound {at_most(proof.bound)}"


def _summary(metrics: Metrics, proof: _Proof) -> list[tuple[str, str]]:
    last = metrics[-1]

    def total(key: str) -> float:
        return sum(record.get(key) or 0.0 for record in metrics)

    def show(value: float | None, form: str = ".4g") -> str:
        return "–" if value is None else format(value, form)

    audits = [record.get("projection_audit") for record in metrics]
    audit = max((value for value in audits if value is not None), default=None)
    accuracy = last.get("test_accuracy")
    bound = "–" if proof.bound is None else f"{at_most(proof.bound)} per unit of input, proved"
    return [
        ("epochs", str(last["epoch"])),
        ("test accuracy", "–" if accuracy is None else f"{100 * accuracy:.2f} %"),
        ("test loss", show(last["test_loss"])),
        ("matrix measure μ∞(A)", f"{show(last['mu_inf'], '.6g')} (γ = {show(last['gamma'])})"),
        ("certified Lipschitz bound, ℓ∞ → ℓ∞", bound),
        ("norm-product bound of the paper", show(last["norm_product_bound"])),
        ("seconds in gradient steps", f"{total('seconds_gradient'):.1f}"),
        ("seconds in projections", f"{total('seconds_projection'):.1f}"),
        ("largest difference between cvxpy and closed form", show(audit, ".2g")),
        (
            "iterations, forward and backward",
            f"{show(last['iterations_forward'], '.1f')} and "
            f"{show(last['iterations_backward'], '.1f')}",
        ),
    ]


def _pictures(metrics: Metrics, weights: ImplicitWeights | None) -> list[str]:
    """Every picture that the run has data for, as inline SVG; config values never reach it."""
    drawn: list[tuple[str, Callable[[], Figure]]] = [
        ("learning", lambda: plots.plot_learning(metrics)),
        ("measure", lambda: plots.plot_measure(metrics)),
        ("certificate", lambda: plots.plot_certificate(metrics)),
        ("iterations", lambda: plots.plot_iterations(metrics)),
        ("time", lambda: plots.plot_time(metrics)),
    ]
    if any(record.get("projection_audit") is not None for record in metrics):
        drawn.append(("audit", lambda: plots.plot_audit(metrics)))
    if weights is not None:
        from contraction_nets.certificates.lipschitz import lipschitz_certificate
        from contraction_nets.errors import NotWellPosedError

        gamma = metrics[-1]["gamma"]
        drawn.append(("state", lambda: plots.plot_state_matrix(weights.A, gamma=gamma)))
        try:
            gains = lipschitz_certificate(weights).gains
        except NotWellPosedError:
            pass
        else:
            drawn.append(("gains", lambda: plots.plot_gains(gains)))
    return [to_svg(draw(), name) for name, draw in drawn]


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The configuration as rows of a table."""
    rows = []
    for key, value in config.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
