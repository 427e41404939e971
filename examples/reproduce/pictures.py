"""The figures of the reproduction, drawn from what the other scripts wrote into --out.

python examples/reproduce/pictures.py runs/reproduce/RUN … --data-dir FOLDER_OF_THE_MNIST_FILES

accuracy_curves.svg: accuracy over ε of the runs, from evaluate_RUN.json. ladder.svg: one test image
(the first from --image on that is read right) between the radii that the last run proves for it and
the smallest attack found on it.
sweep.svg, where there is a sweep.json. A few minutes, most of them for the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import draw, finish, start

from contraction_nets.certificates.storage import read_json
from contraction_nets.cli.held_out import held_out, trained
from contraction_nets.comparison.sweep import RegularizerSweep
from contraction_nets.robustness.bisection import robustness_gap
from contraction_nets.robustness.curves import ATTACKS, PROOFS, AccuracyCurves
from contraction_nets.viz.robustness import plot_accuracy_curves, plot_robustness_ladder
from contraction_nets.viz.sweep import plot_sweep

METHODS = {
    "plain": "accuracy alone",
    "global": "global gains",
    "interval": "interval bounds",
    "small_boxes": "small boxes",
}


def main() -> None:
    chosen = start(__doc__, "runs", image=0)
    evaluated = [read_json(chosen.out / f"evaluate_{run.name}.json") for run in chosen.runs]
    draw(chosen, "accuracy_curves", plot_accuracy_curves({name(e): curves(e) for e in evaluated}))
    sweep = chosen.out / "sweep.json"
    if sweep.exists():
        draw(chosen, "sweep", plot_sweep(RegularizerSweep.load(sweep)))
    network = trained(chosen.runs[-1])
    tested = held_out(chosen.runs[-1], network, data_dir=chosen.data_dir)
    with torch.no_grad():
        right = network(tested.inputs).argmax(dim=1) == tested.labels
    image = chosen.image + int(right[chosen.image :].int().argmax())
    gap = robustness_gap(
        network, tested.inputs[image], int(tested.labels[image]), domain=tested.domain
    )
    draw(chosen, "ladder", plot_robustness_ladder(gap))


def name(evaluation: dict[str, Any]) -> str:
    """What the picture calls a run: how it was trained."""
    config = evaluation["config"]
    method = config["objective"]["name"]
    if method == "plain" and config["lipschitz_weight"]:
        return f"λ = {config['lipschitz_weight']:g}"
    return METHODS.get(method, method)


def curves(evaluation: dict[str, Any]) -> AccuracyCurves:
    """The rows of an evaluation as curves over the ε that all attacks and intervals have.

    The ladder is left out where it was not climbed at every one of them.
    """
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for row in evaluation["rows"]:
        found.setdefault(row["kind"], {})[row["epsilon"]] = row
    (clean,) = found["clean"].values()
    always = [found[kind] for kind in (*ATTACKS, *PROOFS) if kind in found and kind != "ladder"]
    radii = sorted(set.intersection(*map(set, always)))

    def column(kind: str) -> np.ndarray:
        values = [clean["accuracy"], *(found[kind][radius]["accuracy"] for radius in radii)]
        return np.array(values)

    complete = {kind for kind, rows in found.items() if set(radii) <= set(rows)}
    ladder = [row["samples"] for row in found.get("ladder", {}).values()]
    return AccuracyCurves(
        np.array([0.0, *radii]),
        clean["accuracy"],
        {kind: column(kind) for kind in ATTACKS if kind in complete},
        {kind: column(kind) for kind in PROOFS if kind in complete},
        clean["samples"],
        max(ladder, default=0),
    )


if __name__ == "__main__":
    finish(main)
