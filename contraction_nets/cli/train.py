"""`contraction-nets train`: train under the constraint, certify the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraction_nets.cli.console import number, print_json, print_table, say
from contraction_nets.cli.progress import ProgressBar

if TYPE_CHECKING:
    from contraction_nets.training.loop import TrainingResult


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; new, or one to resume.")],
    data: Annotated[str, typer.Option(help="digits, mnist, function or function2d.")] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the MNIST files; OpenML without one.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Number of states.")] = 100,
    gamma: Annotated[float, typer.Option(help="Bound on μ∞(A), below one.")] = 0.95,
    activation: Annotated[
        str, typer.Option(help="relu, leaky_relu(slope), tanh, sigmoid, softplus or elu(alpha).")
    ] = "relu",
    projection: Annotated[
        str, typer.Option(help="Backend that projects A after every step.")
    ] = "closed_form",
    lipschitz_weight: Annotated[
        float, typer.Option(help="Weight of the certified Lipschitz bound in the loss.")
    ] = 0.0,
    lipschitz_budget: Annotated[
        float | None,
        typer.Option(help="Keep the certified Lipschitz bound at or below; in place of --gamma."),
    ] = None,
    certified_epsilon: Annotated[
        float, typer.Option(help="Train for certificates at this ℓ∞ radius, in input units.")
    ] = 0.0,
    certified_method: Annotated[
        str, typer.Option(help="interval, small_boxes or global: how, where there is a radius.")
    ] = "interval",
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Samples in a step.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="Of Adam at the start.")] = 5e-3,
    tol: Annotated[float, typer.Option(help="Relative tolerance of the equilibria.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of the weights and of the order of samples.")] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; its own choice without.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train with exact projections onto {A : μ∞(A) ≤ γ} and certify the network."""
    import torch

    from contraction_nets import ImplicitNetwork, fit
    from contraction_nets.training.data import load_data
    from contraction_nets.training.methods import certified_objective

    if threads is not None:
        if threads < 1:
            raise ValueError(f"got {threads} threads, expected at least 1.")
        torch.set_num_threads(threads)
    samples = load_data(data, data_dir=data_dir, seed=seed)
    torch.manual_seed(seed)
    network = ImplicitNetwork(
        samples.in_features,
        hidden,
        samples.out_features,
        activation=activation,
        gamma=gamma,
        tol=tol,
        device=_device(device),
    )
    with ProgressBar() as bar:
        result = fit(
            network,
            samples,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            objective=certified_objective(certified_method, certified_epsilon, samples.domain),
            lipschitz_weight=lipschitz_weight,
            lipschitz_budget=lipschitz_budget,
            projection=projection,
            seed=seed,
            run=out,
            resume=resume,
            on_step=lambda epoch, done, steps: bar.update(
                f"epoch {epoch}/{epochs}", (epoch - 1) * steps + done, epochs * steps
            ),
            on_epoch=lambda metrics: bar.say(_line(metrics)),
        )
    summary = {**_summary(result, out), "lipschitz_budget": lipschitz_budget}
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)
        say(f"pictures: contraction-nets report {out}")


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"got the device {name!r}, expected one that torch can use here; use --device cpu."
        ) from error
    return device


def _line(metrics: dict[str, Any]) -> str:
    """One epoch in one line."""
    accuracy = metrics["test_accuracy"]
    quality = (
        f"test loss {metrics['test_loss']:.4f}"
        if accuracy is None
        else f"test accuracy {100 * accuracy:.2f} %"
    )
    if "interval_accuracy" in metrics:
        quality += f"   within boxes {100 * metrics['interval_accuracy']:.2f} %"
    return (
        f"epoch {metrics['epoch']:3d}   train loss {metrics['train_loss']:.4f}   {quality}   "
        f"μ∞ {metrics['mu_inf']:.4f}   certified bound {metrics['lipschitz_bound']:.4g}"
    )


def _summary(result: TrainingResult, out: Path) -> dict[str, Any]:
    """What a training run comes to."""
    last = result.metrics[-1]
    audits = [m["projection_audit"] for m in result.metrics if m["projection_audit"] is not None]
    report = result.certificate.as_dict()
    return {
        "test_loss": last["test_loss"],
        "test_accuracy": last["test_accuracy"],
        "gamma": last["gamma"],
        "seconds_gradient": sum(m["seconds_gradient"] for m in result.metrics),
        "seconds_projection": sum(m["seconds_projection"] for m in result.metrics),
        "projection_audit": max(audits, default=None),
        "run": str(out),
        **{key: report[key] for key in ("well_posed", "mu_inf", "lipschitz", "weights_sha256")},
    }


def _print_summary(summary: dict[str, Any]) -> None:
    lipschitz, audit = summary["lipschitz"], summary["projection_audit"]
    budget = summary["lipschitz_budget"]
    accuracy = summary["test_accuracy"]
    print_table(
        summary["run"],
        [
            ("test accuracy", f"{100 * accuracy:.2f} %")
            if accuracy is not None
            else ("test loss", f"{summary['test_loss']:.5g}"),
            ("well-posed", "yes, proved" if summary["well_posed"] else "NOT PROVED"),
            # Under a budget γ is in the weights of its witness, and μ∞ may be above it.
            (
                "μ∞(A)",
                f"{summary['mu_inf']:.6g} "
                + (f"(γ = {summary['gamma']:g})" if budget is None else "(no γ beside a budget)"),
            ),
            (
                "certified Lipschitz bound",
                f"{lipschitz['bound']:.6g} per unit of input"
                + (", proved" if lipschitz["verified"] else ", NOT PROVED"),
            ),
            # Without a proof after every epoch training would have ended with an error.
            *([] if budget is None else [("Lipschitz budget", f"{budget:g}, proved")]),
            ("norm-product bound", number(lipschitz["norm_product_bound"])),
            (
                "seconds in gradients / projections",
                f"{summary['seconds_gradient']:.1f} / {summary['seconds_projection']:.1f}",
            ),
            (
                "largest difference cvxpy – closed form",
                "not audited" if audit is None else f"{audit:.2g}",
            ),
        ],
    )
