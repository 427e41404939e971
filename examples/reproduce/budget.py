"""MNIST certified by the global Lipschitz bound alone, trained under a hard budget.

For every ε one network of 100 states is trained with the loss `GlobalMargin` under a budget on its
certified bound, and every test image gets the ℓ∞ radius that its margin and the gains of the class
pairs prove (pixels in [0, 1]): no solver, no search, one forward pass an image. Published for this
size [NEMON, by the norm product]: 1.1 % at ε = 0.0034.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from common import finish, start, train, write

from contraction_nets import ImplicitNetwork, TrainingResult, certified_radii
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.global_margin import GlobalMargin

EPSILONS = (0.0034, 0.01, 0.02, 0.03, 0.05, 0.1)


def main() -> None:
    """Train a network for each ε, certify all test images, write the figures."""
    chosen = start(
        __doc__,
        epsilons=(0.02, 0.05),
        budgets=(300.0, 100.0),
        temperature=1.0,
        power=0.7,
        hidden=100,
        epochs=20,
        batch_size=100,
        learning_rate=5e-3,
    )
    data = load_data("mnist", data_dir=chosen.data_dir)
    size = data.in_features, chosen.hidden, data.out_features
    network = partial(ImplicitNetwork, *size, feedthrough=True)
    rows = []
    each = zip(chosen.epsilons, chosen.budgets, strict=True)
    for epsilon, budget in each:
        result = train(
            chosen,
            f"budget_{epsilon:g}",
            network,
            data,
            objective=GlobalMargin(epsilon, chosen.temperature, power=chosen.power),
            lipschitz_budget=budget,
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
        )
        rows.append({"trained_for": epsilon, "budget": budget, **figures(result, data)})
    write(chosen, "budget", {"rows": rows})


def figures(result: TrainingResult, data: Dataset) -> dict[str, Any]:
    """Accuracy, and the share of all test images that is certified at each ε."""
    found = certified_radii(result.certificate, data.test_inputs.numpy())
    right = found.labels == data.test_targets.numpy()
    return {
        "accuracy": float(right.mean()),
        "certified": {f"{e:g}": float((right & (found.radii > e)).mean()) for e in EPSILONS},
        "median_radius": float(np.median(np.where(right, found.radii, 0.0))),
        "lipschitz_bound": result.certificate.bound,
        "proved": result.certificate.verified,
    }


if __name__ == "__main__":
    finish(main)
