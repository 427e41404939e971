"""Certified training on MNIST: --recipe interval or small_boxes.

python examples/reproduce/certified.py --data-dir FOLDER_OF_THE_MNIST_FILES

The first trains for interval bounds at n = 100. The second trains on small boxes around attack
points at n = 500, for the linear programs and the exact search of the ladder, and on images moved
by a pixel, too: what it learns of the images as they are does not carry over to others. Pixels
and radii are in [0, 1], and boxes are clipped to it.

Writes the RUN folder certified-RECIPE, which evaluate.py attacks and certifies; its command is the
last line that this script prints.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import finish, start, train

from contraction_nets import ImplicitNetwork
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.interval_loss import IntervalLoss
from contraction_nets.training.small_boxes import SmallBoxes

RECIPES: dict[str, dict[str, Any]] = {
    "interval": {
        "hidden": 100,
        "epochs": 250,
        "learning_rate": 1e-2,
        # The tail keeps accuracy from falling off right behind ε, at little cost before it.
        "objective": IntervalLoss(
            0.105, clean_weight=0.4, ramp=0.3, tail_epsilon=0.2, tail_share=0.01
        ),
    },
    "small_boxes": {
        "hidden": 500,
        "epochs": 8,  # of five times as many images
        "learning_rate": 1.5e-3,
        "objective": SmallBoxes(0.105, fraction=0.2, ramp=0.25, steps=3),
    },
}


def shifted(data: Dataset) -> Dataset:
    """Every training image, and copies of it moved by one pixel down, up, right and left."""
    side = math.isqrt(data.in_features)
    images = data.train_inputs.reshape(-1, side, side)
    moved = [images.roll(step, axis) for axis in (1, 2) for step in (1, -1)]
    inputs = torch.cat([images, *moved]).reshape(-1, side * side)
    return replace(data, train_inputs=inputs, train_targets=data.train_targets.repeat(5))


def main() -> None:
    chosen = start(__doc__, recipe="interval", data="mnist", hidden=0, epochs=0)
    if chosen.recipe not in RECIPES:
        raise ValueError(f"got the recipe {chosen.recipe!r}, expected one of {', '.join(RECIPES)}.")
    recipe, name = RECIPES[chosen.recipe], f"certified-{chosen.recipe}"
    hidden = chosen.hidden or recipe["hidden"]
    data = load_data(chosen.data, data_dir=chosen.data_dir)
    if chosen.recipe == "small_boxes":
        data = shifted(data)
    train(
        chosen,
        name,
        # Three digits of a batch gradient are plenty, and cost half of the steps of four.
        lambda: ImplicitNetwork(data.in_features, hidden, data.out_features, tol=1e-3),
        data,
        epochs=chosen.epochs or recipe["epochs"],
        batch_size=200,
        learning_rate=recipe["learning_rate"],
        objective=recipe["objective"],
    )
    command = ["python", Path(__file__).with_name("evaluate.py"), chosen.out / name]
    command += ["--out", chosen.out]
    if chosen.data_dir is not None:
        command += ["--data-dir", chosen.data_dir]
    print(shlex.join(map(str, command)))


if __name__ == "__main__":
    finish(main)
