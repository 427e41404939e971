"""Accuracy of trained networks for every ε: clean, under attack, and certified.

python examples/reproduce/evaluate.py runs/reproduce/RUN … --data-dir FOLDER_OF_THE_MNIST_FILES

All test images meet the attacks, the global gains and the intervals; the first thousand the whole
ladder, at --ladder-epsilon. What the ladder certifies meets PGD with 20 restarts of 100 steps, and
a defect is reported if any of it falls. Pixels stay in [0, 1].

Writes evaluate_RUN.json for each, as it goes: what is there already is not computed again unless
the weights are others. An hour for a network of 100 states on one core, most of it PGD; --kinds
global interval is done in a minute, and --samples takes the first test images alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, progress, start, write

from contraction_nets import ImplicitWeights, certified_radii, lipschitz_certificate
from contraction_nets.certificates.storage import read_json
from contraction_nets.cli.console import finite
from contraction_nets.cli.held_out import Samples, held_out, trained
from contraction_nets.errors import ContractionNetsError
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.options import whole
from contraction_nets.robustness.attacks import Pgd, attack
from contraction_nets.robustness.attacks.ball import as_radius
from contraction_nets.robustness.ladder import check_options, verify_robustness
from contraction_nets.robustness.result import RobustnessResult
from contraction_nets.training.checkpoint import CONFIG

Row = dict[str, Any]
KINDS = ("noise", "inversion", "fgsm", "pgd", "global", "interval", "ladder")


class Evaluation:
    """The rows of one run, each written as soon as it is computed."""

    def __init__(self, chosen: argparse.Namespace, run: Path) -> None:
        self.chosen, self.name = chosen, run.name
        self.network: ImplicitNetwork = trained(run)
        self.tested: Samples = held_out(
            run, self.network, data_dir=chosen.data_dir, samples=chosen.samples
        )
        self.weights = ImplicitWeights.from_module(self.network)
        self.certificate = lipschitz_certificate(self.weights)
        self.result: dict[str, Any] = {
            "run": run.name,
            "config": read_json(run / CONFIG),
            "weights_sha256": self.weights.sha256,
            "lipschitz_bound": self.certificate.bound,
            "norm_product_bound": finite(self.certificate.norm_product_bound),
            "rows": [],
        }
        path = chosen.out / f"evaluate_{run.name}.json"
        if path.exists():
            before = read_json(path)
            if before.get("weights_sha256") == self.weights.sha256:
                self.result["rows"] = before["rows"]

    @property
    def rows(self) -> list[Row]:
        return self.result["rows"]

    def row(
        self, kind: str, epsilon: float, samples: int, compute: Callable[[], Row], **options: Any
    ) -> Row:
        """The row of this kind, ε, number of samples and options, computed where there is none."""
        key = {"kind": kind, "epsilon": epsilon, "samples": samples, **options}
        for row in self.rows:
            if key.items() <= row.items():
                return row
        began = time.perf_counter()
        self.rows.append(key | compute() | {"seconds": round(time.perf_counter() - began, 1)})
        write(self.chosen, f"evaluate_{self.name}", self.result, tell=False)
        return self.rows[-1]

    def attacked(self, kind: str, epsilon: float) -> Row:
        """Accuracy under an attack."""
        options = Pgd(steps=self.chosen.steps) if kind == "pgd" else kind

        def compute() -> Row:
            with progress(f"{self.name}: {kind}, ε = {epsilon:g}") as tell:
                found = attack(
                    self.network, self.tested.inputs, self.tested.labels, epsilon, method=options,
                    domain=self.tested.domain, seed=self.chosen.seed, on_batch=tell,
                )  # fmt: skip
            return {"accuracy": _share(~found.success)}

        steps = {"steps": self.chosen.steps} if kind == "pgd" else {}
        return self.row(kind, epsilon, len(self.tested), compute, **steps)

    def certified(self, kind: str, epsilon: float, samples: int) -> Row:
        """Accuracy that a rung proves, all rungs below it included."""
        return self.row(kind, epsilon, samples, lambda: self._verified(kind, epsilon, samples))

    def _verified(self, kind: str, epsilon: float, samples: int) -> Row:
        inputs, labels = self.tested.inputs[:samples], self.tested.labels[:samples]
        if kind == "global":
            found = certified_radii(self.certificate, inputs.double().numpy())
            right = found.labels == labels.numpy()
            return {"accuracy": _share(right & (found.radii > epsilon))}
        done = 0

        with progress(f"{self.name}: {kind}, ε = {epsilon:g}") as tell:

            def on_sample(*_: object) -> None:
                nonlocal done
                done += 1
                tell(done, samples)

            result = verify_robustness(
                self.network, inputs, labels, epsilon, domain=self.tested.domain,
                method="auto" if kind == "ladder" else kind, n_jobs=self.chosen.jobs,
                time_limit=self.chosen.time_limit, on_sample=on_sample,
            )  # fmt: skip
        row = {"accuracy": _share(result.certified)}
        return row if kind == "interval" else row | _ladder(result)

    def checked(self, row: Row) -> Row:
        """PGD with many restarts on what a ladder row certifies: none of it may fall."""
        certified = torch.tensor(row["certified"], dtype=torch.int64)
        strong = Pgd(steps=100, restarts=self.chosen.restarts, targets=1)

        def compute() -> Row:
            if not len(certified):
                return {"fallen": []}
            with progress(f"{self.name}: PGD on the certified, ε = {row['epsilon']:g}") as tell:
                found = attack(
                    self.network, self.tested.inputs[certified], self.tested.labels[certified],
                    row["epsilon"], method=strong, domain=self.tested.domain,
                    seed=self.chosen.seed, on_batch=tell,
                )  # fmt: skip
            return {"fallen": certified[found.success].tolist()}

        return self.row(
            "check", row["epsilon"], row["samples"], compute, restarts=self.chosen.restarts,
            steps=100,
        )  # fmt: skip


def _check(chosen: argparse.Namespace) -> None:
    """Refuse now what would be refused after an hour."""
    for kind in chosen.kinds:
        if kind not in KINDS:
            raise ValueError(f"got the kind {kind!r}, expected some of {', '.join(KINDS)}.")
    for radius in (*chosen.epsilon, *chosen.ladder_epsilon):
        as_radius(radius)
    whole(chosen.ladder_samples, "ladder-samples")
    check_options("auto", chosen.time_limit, chosen.jobs)
    Pgd(steps=chosen.steps, restarts=chosen.restarts)


def _ladder(result: RobustnessResult) -> Row:
    """Which samples are certified, what decided them, and how long each rung took."""
    rungs = np.array([verdict.rung for verdict in result.verdicts])
    seconds = {
        str(rung): {
            "samples": int((rungs == rung).sum()),
            "median_seconds": float(np.median(result.seconds[rungs == rung])),
            "longest_seconds": float(result.seconds[rungs == rung].max()),
        }
        for rung in np.unique(rungs)
    }
    return {
        "counts": result.counts(),
        "decided_by": result.decided_by(),
        "rungs": seconds,
        "certified": np.flatnonzero(result.certified).tolist(),
    }


def _share(mask: Any) -> float:
    return int(mask.sum()) / len(mask)


def _print(evaluations: list[Evaluation]) -> None:
    """A line for each kind, a column for each run and ε."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    for evaluation in evaluations:
        radii = sorted({row["epsilon"] for row in evaluation.rows})
        title = f"{evaluation.name}, certified bound {evaluation.certificate.bound:.4g}"
        table = Table("accuracy, %", box=box.SIMPLE_HEAD, title=title, title_justify="left")
        for radius in radii:
            table.add_column(f"ε = {radius:g}" if radius else "clean", justify="right")
        for kind in ("clean", *KINDS):
            found = {row["epsilon"]: row for row in evaluation.rows if row["kind"] == kind}
            if found:
                cells = (found.get(radius) for radius in radii)
                table.add_row(
                    kind, *("" if c is None else f"{100 * c['accuracy']:.2f}" for c in cells)
                )
        Console().print(table)
        for row in evaluation.rows:
            if row["kind"] == "ladder":
                counts = ", ".join(f"{count} {status}" for status, count in row["counts"].items())
                print(f"ladder, ε = {row['epsilon']:g}, first {row['samples']}: {counts}")
            elif row["kind"] == "check":
                print(
                    f"of those certified at ε = {row['epsilon']:g}, {len(row['fallen'])} fell to "
                    f"PGD with {row['restarts']} restarts of {row['steps']} steps"
                )


def main() -> None:
    chosen = start(
        __doc__, "runs", epsilon=(0.02, 0.05, 0.1, 0.15, 0.2), ladder_epsilon=(0.1,),
        samples=10_000, ladder_samples=1000, steps=40, restarts=20, time_limit=60.0, jobs=1,
        kinds=KINDS,
    )  # fmt: skip
    _check(chosen)
    evaluations, fallen = [], 0
    for run in chosen.runs:
        evaluation = Evaluation(chosen, run)
        evaluations.append(evaluation)
        count = len(evaluation.tested)
        clean = lambda e=evaluation: {"accuracy": _clean(e.network, e.tested)}  # noqa: E731
        evaluation.row("clean", 0.0, count, clean)
        for kind in chosen.kinds:
            for epsilon in chosen.ladder_epsilon if kind == "ladder" else chosen.epsilon:
                if kind == "ladder":
                    samples = min(chosen.ladder_samples, count)
                    row = evaluation.certified(kind, epsilon, samples)
                    fallen += len(evaluation.checked(row)["fallen"])
                elif kind in ("global", "interval"):
                    evaluation.certified(kind, epsilon, count)
                else:
                    evaluation.attacked(kind, epsilon)
    _print(evaluations)
    if fallen:
        raise ContractionNetsError(
            f"{fallen} certified images fell to PGD, expected none; report this as a defect."
        )


@torch.no_grad()
def _clean(network: ImplicitNetwork, tested: Samples) -> float:
    return _share(network(tested.inputs).argmax(dim=1) == tested.labels)


if __name__ == "__main__":
    finish(main)
