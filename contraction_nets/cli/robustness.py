"""`contraction-nets robustness`: which test samples keep their label within ε, proved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraction_nets.cli.console import print_json, print_table
from contraction_nets.cli.counterexamples import CounterexampleFile, check_counterexamples
from contraction_nets.cli.held_out import Samples, held_out, parse_numbers, parse_radii, trained
from contraction_nets.cli.progress import ProgressBar
from contraction_nets.cli.verdicts import VerdictFile

if TYPE_CHECKING:
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.robustness.result import Verdict


def robustness(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    epsilon: Annotated[
        str, typer.Option(help="ℓ∞ radii in input units (pixels in [0, 1]), such as 0.05,0.1.")
    ],
    method: Annotated[
        str, typer.Option(help="The last rung: global, interval, lp, milp; auto is all of them.")
    ] = "auto",
    samples: Annotated[
        int | None, typer.Option(help="First test samples to decide; all of them without.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the MNIST files; OpenML without one.")
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            help="Interval of every input as LOW,HIGH, or none; that of the data without."
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for the programs and the search of one sample.")
    ] = 60.0,
    jobs: Annotated[int, typer.Option(help="Processes; −1 for all processors.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the verdicts: a sample a row as .csv, or a .json."),
    ] = None,
    counterexamples: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the inputs with another label that are found, as .safetensors: "
            "inputs, epsilon, samples, labels, found; each confirmed as it is stored."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the verdicts in --out; unknown ones are tried again, and with "
            "--counterexamples falsified ones that have none in the file.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Certify or falsify test samples within an ℓ∞ radius, each rung where the last left open."""
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.robustness.ladder import check_options

    radii = sorted(set(parse_radii(epsilon)))
    check_options(method, time_limit, jobs)
    _check_out(out, resume)
    check_counterexamples(counterexamples, out, resume=resume)
    network = trained(run)
    tested = held_out(run, network, data_dir=data_dir, samples=samples)
    limits = tested.domain if domain is None else _domain(domain)
    weights = ImplicitWeights.from_module(network)
    about = {
        "method": method,
        "domain": "none" if limits is None else f"{_exact(limits[0])},{_exact(limits[1])}",
        "weights": weights.sha256,
    }
    beside = None
    if counterexamples is not None:
        beside = CounterexampleFile(counterexamples, network, tested, limits, weights.sha256)
    file = VerdictFile(out, about, lambda: _report(run, tested, radii, file), beside)
    if resume:
        file.load()
        _check_samples(file, tested)
        if beside is not None:
            beside.load()
        file.check()
    try:
        _decide(weights, tested, radii, limits, time_limit, jobs, file)
    finally:
        file.save()
    file.check()
    report = _report(run, tested, radii, file)
    if as_json:
        print_json(report)
    else:
        _print(report, out, counterexamples)


def _check_out(out: Path | None, resume: bool) -> None:
    from contraction_nets.certificates.storage import check_target

    if out is None:
        if resume:
            raise ValueError("got --resume alone, expected the file to go on from in --out too.")
        return
    if out.suffix not in (".csv", ".json"):
        raise ValueError(f"got --out {out.name}, expected a .csv or a .json file.")
    check_target(out)
    if out.exists() and not resume:
        raise ValueError(
            f"got --out {out}, which is there already, expected a new file; pass --resume to go on "
            "from it."
        )


def _domain(text: str) -> tuple[float, float] | None:
    from contraction_nets.robustness.attacks.ball import as_domain

    if text == "none":
        return None
    try:
        low, high = parse_numbers(text)
    except ValueError:
        raise ValueError(
            f"got the domain {text!r}, expected LOW,HIGH such as 0,1, or none."
        ) from None
    return as_domain((low, high))


def _exact(number: float) -> str:
    """As short as reads back as the same number: a verdict is about this domain, no larger one."""
    return repr(number).removesuffix(".0")


def _check_samples(file: VerdictFile, tested: Samples) -> None:
    """Refuse verdicts on other inputs or labels: they are about other data."""
    for (_, sample), row in file.rows.items():
        if sample >= len(tested):
            continue
        for name, value in tested.identity(sample).items():
            if row[name] != value:
                raise ValueError(
                    f"sample {sample} of {file.path} has the {name} {row[name]}, expected {value}, "
                    f"that of {tested.name}; choose another --out."
                )


def _decide(
    weights: ImplicitWeights,
    tested: Samples,
    radii: list[float],
    domain: tuple[float, float] | None,
    time_limit: float,
    jobs: int,
    file: VerdictFile,
) -> None:
    from contraction_nets.robustness.ladder import verify_robustness

    total = len(radii) * len(tested)
    with ProgressBar() as bar:
        for number, radius in enumerate(radii):
            left = [i for i in range(len(tested)) if file.is_open(radius, i)]
            done = (number + 1) * len(tested) - len(left)

            def note(
                index: int, verdict: Verdict, radius: float = radius, left: list[int] = left
            ) -> None:
                nonlocal done
                done += 1
                file.add(radius, left[index], tested.identity(left[index]), verdict)
                bar.update(f"robustness, ε = {radius:g}", done, total)

            verify_robustness(
                weights,
                tested.inputs[left],
                tested.labels[left],
                radius,
                method=file.about["method"],
                domain=domain,
                time_limit=time_limit,
                n_jobs=jobs,
                on_sample=note,
            )


def _report(run: Path, tested: Samples, radii: list[float], file: VerdictFile) -> dict[str, Any]:
    """What the verdicts come to."""
    return {
        "run": str(run),
        "data": tested.name,
        "samples": len(tested),
        **{key: file.about[key] for key in ("method", "domain")},
        "weights_sha256": file.about["weights"],
        "results": [_result(radius, tested, file) for radius in radii],
    }


def _result(radius: float, tested: Samples, file: VerdictFile) -> dict[str, Any]:
    from contraction_nets.robustness.result import DECIDED_BY, STATUSES

    asked = range(len(tested))
    rows = [file.rows[radius, i] for i in asked if (radius, i) in file.rows]
    counts = Counter(row["status"] for row in rows)
    pairs = Counter((row["status"], row["rung"]) for row in rows)
    times = {rung: [row["seconds"] for row in rows if row["rung"] == rung] for rung in DECIDED_BY}
    written = {}
    if file.counterexamples is not None:
        falsified = {(radius, row["sample"]) for row in rows if row["status"] == "falsified"}
        written["counterexamples"] = len(falsified & file.counterexamples.written)
    return {
        "epsilon": radius,
        **{status: counts[status] for status in STATUSES},
        **written,
        "certified_accuracy": counts["certified"] / len(tested),
        "decided_by": {
            status: {rung: pairs[status, rung] for rung in DECIDED_BY if pairs[status, rung]}
            for status in STATUSES
        },
        "seconds": sum(row["seconds"] for row in rows),
        "seconds_median": {rung: median(values) for rung, values in times.items() if values},
        "reasons": dict(Counter(row["reason"] for row in rows if row["reason"])),
    }


def _print(report: dict[str, Any], out: Path | None, counterexamples: Path | None) -> None:
    interval = "" if report["domain"] == "none" else f", inputs in [{report['domain']}]"
    rows = [("test samples", f"the first {report['samples']} of {report['data']}{interval}")]
    for result in report["results"]:
        rows.append(("", f"ε = {result['epsilon']:g}   ({result['seconds']:.1f} s)"))
        for status in ("certified", "falsified", "unknown"):
            found = result["decided_by"][status]
            names = ", ".join(f"{rung} {count}" for rung, count in found.items())
            share = f"{100 * result[status] / report['samples']:.2f} %"
            rows.append((status, share + (f"   ({names})" if names else "")))
        rows += [("", f"{count} × {reason}") for reason, count in result["reasons"].items()]
    if counterexamples is not None:
        found, falsified = (
            sum(result[key] for result in report["results"])
            for key in ("counterexamples", "falsified")
        )
        rows.append(("counterexamples", f"{found} of {falsified} in {counterexamples}"))
    if out is not None:
        rows.append(("written to", str(out)))
    print_table(report["run"], rows)
