"""Certified training on MNIST, evaluated on the test images: --recipe interval or small_boxes.

The first trains for interval bounds at n = 100 and counts, over all 10 000 test images, how many
labels these prove at 0.05, 0.1, 0.15 and 0.2. The second trains on small boxes around attack
points, for the linear programs and the exact search of the ladder. Both are attacked by projected
gradients at 0.1 and certified by the whole ladder at 0.1 on the first --ladder images. Pixels and
radii are in [0, 1], and boxes are clipped to it.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from common import finish, start, train, write

from contraction_nets import ImplicitNetwork
from contraction_nets.cli.progress import ProgressBar
from contraction_nets.robustness.attacks import Pgd, attack
from contraction_nets.robustness.ladder import verify_robustness
from contraction_nets.robustness.result import Verdict
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.interval_loss import IntervalLoss
from contraction_nets.training.loop import evaluate
from contraction_nets.training.small_boxes import SmallBoxes

RADII = (0.05, 0.1, 0.15, 0.2)
ATTACKED = 0.1

RECIPES: dict[str, dict[str, Any]] = {
    "interval": {
        "hidden": 100,
        "epochs": 70,
        "learning_rate": 1e-2,
        # The tail keeps accuracy from falling off right behind ε, at little cost before it.
        "objective": IntervalLoss(
            0.105, clean_weight=0.4, ramp=0.3, tail_epsilon=0.2, tail_share=0.01
        ),
    },
    "small_boxes": {
        "hidden": 300,
        "epochs": 20,
        "learning_rate": 2.5e-3,
        "objective": SmallBoxes(0.105, fraction=0.2, steps=5),
    },
}


def main() -> None:
    chosen = start(__doc__, recipe="interval", hidden=0, epochs=0, ladder=1000)
    if chosen.recipe not in RECIPES:
        raise ValueError(f"got the recipe {chosen.recipe!r}, expected one of {', '.join(RECIPES)}.")
    recipe = RECIPES[chosen.recipe]
    hidden = chosen.hidden or recipe["hidden"]
    data = load_data("mnist", data_dir=chosen.data_dir)
    trained = train(
        chosen,
        f"certified-{chosen.recipe}",
        # Three digits of a batch gradient are plenty, and cost half of the steps of four.
        lambda: ImplicitNetwork(data.in_features, hidden, data.out_features, tol=1e-3),
        data,
        epochs=chosen.epochs or recipe["epochs"],
        batch_size=200,
        learning_rate=recipe["learning_rate"],
        objective=recipe["objective"],
    )
    network = trained.network.eval()
    result = {
        "objective": recipe["objective"].config(),
        "clean": evaluate(network, data.test_inputs, data.test_targets)[1],
        "interval": {str(epsilon): by_intervals(network, data, epsilon) for epsilon in RADII},
        "attacked": under_attack(network, data),
        "ladder": by_ladder(network, data, chosen.ladder),
    }
    for name, value in result.items():
        print(name, value, file=sys.stderr)
    write(chosen, f"certified-{chosen.recipe}", result)


def by_intervals(network: ImplicitNetwork, data: Dataset, epsilon: float) -> float:
    """Share of the test images that interval bounds certify."""
    inputs, labels = data.test_inputs, data.test_targets
    found = verify_robustness(network, inputs, labels, epsilon, method="interval")
    return float(found.certified.mean())


def under_attack(network: ImplicitNetwork, data: Dataset) -> float:
    """Share of the test images that keep their label under projected gradients."""
    inputs, labels = data.test_inputs, data.test_targets
    with ProgressBar() as bar:
        found = attack(
            network,
            inputs,
            labels,
            ATTACKED,
            method=Pgd(),
            on_batch=lambda done, total: bar.update("attack", done, total),
        )
    return 1 - float(found.success.double().mean())


def by_ladder(network: ImplicitNetwork, data: Dataset, count: int) -> dict[str, Any]:
    """How many of the first test images the whole ladder decides, by what, and in what time."""
    inputs, labels = data.test_inputs[:count], data.test_targets[:count]
    done = 0
    with ProgressBar() as bar:

        def on_sample(number: int, verdict: Verdict) -> None:
            nonlocal done
            done += 1
            bar.update("ladder", done, len(inputs))

        found = verify_robustness(network, inputs, labels, ATTACKED, on_sample=on_sample)
    seconds = {
        rung: statistics.median(v.seconds for v in found.verdicts if v.rung == rung)
        for rung in {v.rung for v in found.verdicts}
    }
    return {
        "images": len(inputs),
        "share": {status: number / len(inputs) for status, number in found.counts().items()},
        "decided_by": found.decided_by(),
        "median_seconds": seconds,
    }


if __name__ == "__main__":
    finish(main)
