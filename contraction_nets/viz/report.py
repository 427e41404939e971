"""The report of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contraction_nets.certificates.storage import read_json, write_atomically
from contraction_nets.viz import plots
from contraction_nets.viz.evidence import Model, Proof, check_certificate, read_model
from contraction_nets.viz.metrics import (
    Metrics,
    NothingToDrawError,
    column,
    last_known,
    read_metrics,
)
from contraction_nets.viz.rounding import at_most
from contraction_nets.viz.svg import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNITS = "output units per input unit"


def write_report(run: str | os.PathLike[str]) -> Path:
    """Write RUN/report.html from the files of a run, atomically.

    Pictures are inline SVG. The certificate is not believed: it is verified again, in exact
    integer arithmetic, against the model beside it. Equal files in folders of one name give
    equal bytes.

    Parameters
    ----------
    run : path
        Folder with metrics.jsonl and, where they exist, config.json, model.safetensors and
        certificate.json; what needs a missing one is left out, and the page says so.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    FileNotFoundError
        No such folder, or no metrics in it.
    ValueError
        A file of the run is damaged; only a cut-off last line of the metrics is forgiven.
    ImportError
        matplotlib or jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "a report needs jinja2, which is not installed; "
            "run pip install 'contraction-nets[plots]'."
        ) from error
    folder = Path(run)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}, expected the folder of a run; check the path."
        )
    metrics, notes = read_metrics(folder / "metrics.jsonl")
    settings = folder / "config.json"
    config = read_json(settings) if settings.exists() else None
    model = read_model(folder / "model.safetensors")
    proof = check_certificate(folder / "certificate.json", model)
    if proof.state == "proved" and proof.bound != metrics[-1]["lipschitz_bound"]:
        notes.append(
            "The certified bound is not that of the last epoch in metrics.jsonl: model and "
            "metrics are of different epochs."
        )
    pictures = _pictures(metrics, model, notes)
    template = resources.files("contraction_nets.viz").joinpath("report.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(
        name=folder.resolve().name,
        headline=_headline(metrics, proof),
        proof=proof,
        summary=_summary(metrics, proof),
        pictures=pictures,
        config=None if config is None else _flat(config),
        notes=notes,
    )
    path = folder / "report.html"
    # A lone surrogate, legal in JSON, has no UTF-8.
    write_atomically(path, page.encode(errors="backslashreplace"))
    return path


def _headline(metrics: Metrics, proof: Proof) -> str:
    accuracy, loss = column(metrics, "test_accuracy"), column(metrics, "test_loss")
    if np.isfinite(accuracy).any():
        quality = f"{100 * accuracy[last_known(accuracy)]:.1f} % test accuracy"
    else:
        quality = f"Test loss {_show(loss[last_known(loss)])}"
    if proof.bound is None:
        return f"{quality}; no bound is proved"
    kind = "certified" if proof.state == "proved" else "claimed"
    return f"{quality}; {kind} bound {at_most(proof.bound)} {_UNITS}, {proof.state}"


def _summary(metrics: Metrics, proof: Proof) -> list[tuple[str, str]]:
    def last(key: str) -> float:
        return float(column(metrics, key)[-1])

    def total(key: str) -> str:
        return _show(float(np.nansum(column(metrics, key))), ".3g")

    accuracy, audit = last("test_accuracy"), column(metrics, "projection_audit")
    if proof.bound is None:
        bound = f"{_at_most(last('lipschitz_bound'))} in metrics.jsonl, not proved here"
    else:
        bound = f"{at_most(proof.bound)} {_UNITS}, {proof.state}"
    steps = [_show(last(f"iterations_{k}"), ".1f") for k in ("forward", "backward")]
    worst = (
        at_most(float(np.nanmax(audit)), digits=2) if np.isfinite(audit).any() else "not audited"
    )
    return [
        ("epochs", f"{last('epoch'):.0f}"),
        ("test accuracy", "–" if np.isnan(accuracy) else f"{100 * accuracy:.2f} %"),
        ("test loss", _show(last("test_loss"))),
        ("matrix measure μ∞(A)", _show(last("mu_inf"), ".6g")),
        ("its bound γ", _show(last("gamma"), ".6g")),
        ("certified Lipschitz bound, ℓ∞ → ℓ∞", bound),
        ("norm-product bound of the paper", _at_most(last("norm_product_bound"))),
        ("seconds in gradient steps", total("seconds_gradient")),
        ("seconds in projections", total("seconds_projection")),
        ("largest difference between cvxpy and closed form", worst),
        ("iterations of an equilibrium and of its gradient", " and ".join(steps)),
    ]


def _at_most(value: float) -> str:
    return "–" if np.isnan(value) else at_most(value)


def _show(value: float, form: str = ".4g") -> str:
    return "–" if np.isnan(value) else format(value, form)


def _pictures(metrics: Metrics, model: Model | None, notes: list[str]) -> list[str]:
    """Every picture that the run has data for, as inline SVG; a note for each of the others."""
    drawn: dict[str, Callable[[], Figure]] = {
        "loss and accuracy": lambda: plots.plot_learning(metrics),
        "the matrix measure": lambda: plots.plot_measure(metrics),
        "the certified bound": lambda: plots.plot_certificate(metrics),
        "iterations": lambda: plots.plot_iterations(metrics),
        "time": lambda: plots.plot_time(metrics),
        "the projection audit": lambda: plots.plot_audit(metrics),
    }
    if model is None:
        notes.append("Without model.safetensors there is no picture of A and of the gains.")
    else:
        recorded = column(metrics, "gamma")[-1]
        gamma = model.gamma if model.gamma is not None or np.isnan(recorded) else float(recorded)
        A, eta = model.weights.A, model.eta
        drawn["A"] = lambda: plots.plot_state_matrix(A, eta=eta, gamma=gamma)
        gains = model.gains()
        if gains is None:
            notes.append("The model cannot be certified: there is no picture of its gains.")
        else:
            drawn["gains"] = lambda: plots.plot_gains(gains)
    pictures = []
    for name, draw in drawn.items():
        try:
            pictures.append(to_svg(draw(), name))
        except NothingToDrawError:
            notes.append(f"There is no picture of {name}: metrics.jsonl has no numbers for it.")
    return pictures


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The configuration as rows of a table."""
    rows = []
    for key, value in config.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
