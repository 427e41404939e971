"""`contraction-nets attack`: accuracy of a trained network before and under attack."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraction_nets.cli.console import print_json, print_table
from contraction_nets.cli.counterexamples import CounterexampleFile, check_counterexamples
from contraction_nets.cli.held_out import Samples, held_out, parse_radii, trained
from contraction_nets.cli.progress import ProgressBar
from contraction_nets.cli.tables import write_csv

if TYPE_CHECKING:
    from contraction_nets.robustness.attacks import Attack, AttackResult


def attack(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    epsilon: Annotated[
        str, typer.Option(help="ℓ∞ radii in input units (pixels in [0, 1]), such as 0.05,0.1.")
    ],
    method: Annotated[
        str, typer.Option("--attack", help="pgd, fgsm, inversion, noise, or noise(DRAWS).")
    ] = "pgd",
    samples: Annotated[
        int | None, typer.Option(help="First test samples to attack; all of them without.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the MNIST files; OpenML without one.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps in a run of pgd.")] = None,
    restarts: Annotated[
        int | None, typer.Option(help="Repetitions of pgd, each from its own random start.")
    ] = None,
    targets: Annotated[
        int | None,
        typer.Option(help="Other classes that pgd aims at in runs of their own; all without."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the result: a sample a row as .csv, or the --json."),
    ] = None,
    counterexamples: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the inputs with another label that are found, as .safetensors: "
            "inputs, epsilon, samples, labels, found; each confirmed as it is stored."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Attack the test samples of a run; what is found is confirmed by a forward pass."""
    from contraction_nets.certificates.storage import check_target, write_json
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.nn.options import as_seed
    from contraction_nets.robustness.attacks import attack as search

    radii, chosen = parse_radii(epsilon), _chosen(method, steps, restarts, targets)
    as_seed(seed)
    if out is not None:
        check_target(out)
        if out.suffix not in (".csv", ".json"):
            raise ValueError(f"got --out {out.name}, expected a .csv or a .json file.")
    check_counterexamples(counterexamples, out)
    network = trained(run)
    tested = held_out(run, network, data_dir=data_dir, samples=samples)
    found, results = [], []
    with ProgressBar() as bar:
        for number, radius in enumerate(radii):
            start = time.perf_counter()
            found.append(
                search(
                    network,
                    tested.inputs,
                    tested.labels,
                    radius,
                    method=chosen,
                    domain=tested.domain,
                    seed=seed,
                    on_batch=lambda done, total, number=number, radius=radius: bar.update(
                        f"{chosen.name}, ε = {radius:g}", number * total + done, len(radii) * total
                    ),
                )
            )
            results.append(_result(radius, found[-1], tested, time.perf_counter() - start))
    if counterexamples is not None:
        sha256 = ImplicitWeights.from_module(network).sha256
        file = CounterexampleFile(counterexamples, network, tested, tested.domain, sha256)
        for radius, result in zip(radii, found, strict=True):
            for sample in result.success.nonzero()[:, 0].tolist():
                file.add(radius, sample, result.inputs[sample])
        file.save()
        for result in results:
            result["counterexamples"] = file.count(result["epsilon"], len(tested))
    report = {
        "run": str(run),
        "data": tested.name,
        "samples": len(tested),
        "attack": {"name": chosen.name, **asdict(chosen)},
        "seed": seed,
        "clean_accuracy": _share(found[0].clean_labels == tested.labels),
        "results": results,
    }
    if out is not None and out.suffix == ".csv":
        _write_samples(out, radii, found, tested)
    elif out is not None:
        write_json(out, report)
    if as_json:
        print_json(report)
    else:
        _print(report, out, counterexamples)


def _chosen(method: str, steps: int | None, restarts: int | None, targets: int | None) -> Attack:
    from contraction_nets.robustness.attacks import Pgd, get_attack

    chosen = get_attack(method)
    options = {"steps": steps, "restarts": restarts, "targets": targets}
    given = {name: value for name, value in options.items() if value is not None}
    if given and not isinstance(chosen, Pgd):
        raise ValueError(
            f"got --{next(iter(given))} with the attack {chosen.name}, expected it with pgd only."
        )
    return replace(chosen, **given)


def _share(mask: Any) -> float:
    """Share of the samples, in [0, 1]."""
    return int(mask.sum()) / len(mask)


def _result(radius: float, found: AttackResult, tested: Samples, seconds: float) -> dict[str, Any]:
    held = ~found.success
    return {
        "epsilon": radius,
        "accuracy": _share(held),
        "lost": int((found.success & (found.clean_labels == tested.labels)).sum()),
        "largest_distance": float(found.distances.max()),
        "seconds": seconds,
    }


def _write_samples(
    out: Path, radii: list[float], found: list[AttackResult], tested: Samples
) -> None:
    rows = [
        (radius, number, *row)
        for radius, result in zip(radii, found, strict=True)
        for number, row in enumerate(
            zip(
                tested.labels.tolist(),
                result.clean_labels.tolist(),
                result.labels.tolist(),
                result.distances.tolist(),
                strict=True,
            )
        )
    ]
    header = ["epsilon", "sample", "label", "clean_label", "attacked_label", "distance"]
    write_csv(out, header, rows)


def _print(report: dict[str, Any], out: Path | None, counterexamples: Path | None) -> None:
    kind = report["attack"]
    options = ", ".join(
        f"{key} {'all' if value is None else value}"
        for key, value in kind.items()
        if key in ("steps", "restarts", "targets", "draws")
    )
    rows = [
        ("test samples", f"the first {report['samples']} of {report['data']}"),
        ("attack", kind["name"] + (f" ({options})" if options else "")),
        ("accuracy before", f"{100 * report['clean_accuracy']:.2f} %"),
    ]
    rows += [
        (
            f"accuracy at ε = {result['epsilon']:g}",
            f"{100 * result['accuracy']:.2f} %   ({result['lost']} more lost, "
            f"{result['seconds']:.1f} s)",
        )
        for result in report["results"]
    ]
    if counterexamples is not None:
        found = sum(result["counterexamples"] for result in report["results"])
        rows.append(("counterexamples", f"{found} in {counterexamples}"))
    if out is not None:
        rows.append(("written to", str(out)))
    print_table(report["run"], rows)
