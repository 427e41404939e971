"""One MNIST epoch of an implicit network against one of a feed-forward network.

Both have 100 (and 100) hidden units, batches of 100, the same loss and optimizer, and take
turns epoch by epoch. The implicit network takes part twice, its equilibria to four digits both
times: with gradients to as many, as they are by default, and to two, which the gradient of a
batch does not feel. In epochs of their own the parts are timed, too: solves, projections, the
optimizer, and the rest: python benchmarks/epoch.py --data-dir FOLDER_OF_THE_MNIST_FILES
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import median, write
from torch import nn

from contraction_nets import ImplicitNetwork, project_after_step
from contraction_nets.comparison.machine import machine
from contraction_nets.comparison.timing import clocked
from contraction_nets.nn import constrain, implicit
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.training.loop import evaluate

BATCH, STATES, TOLERANCE = 100, 100, 1e-4
ROUGH = 1e-2
"""Relative tolerance of the gradient in the second implicit contender."""
PARTS = ("forward_solves", "backward_solves", "projections", "optimizer")


class Contender:
    """A network with its optimizer, and clocks on what an epoch is spent on.

    Attributes
    ----------
    spent : dict
        Seconds of the epoch so far, by part: what is neither a solve, a projection nor the
        optimizer is the rest.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        self.spent: dict[str, float] = {}
        self.steps: list[int] = []
        if isinstance(network, ImplicitNetwork):
            network.layer.monitor = lambda direction, result: self.steps.append(result.steps)
            project_after_step(self.optimizer, network)

    def epoch(self, data: Dataset, order: torch.Tensor) -> float:
        """Seconds of one pass."""
        self.spent = dict.fromkeys(PARTS, 0.0)
        start = time.perf_counter()
        for batch in order.split(BATCH):
            u, y = data.train_inputs[batch], data.train_targets[batch]
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.network(u), y).backward()
            self.optimizer.step()
        return time.perf_counter() - start

    @contextmanager
    def clocks(self) -> Iterator[None]:
        """Time the parts, which costs about a microsecond each; a whole epoch is timed without."""
        step, solve, project = self.optimizer.step, implicit.Settings._solve, constrain._project
        within = 0.0  # the projection is a hook, and runs inside of the optimizer's step

        def solved(settings: Any, operator: Any, s: Any, phi: Any, tol: float, way: str) -> Any:
            seconds, x = clocked(lambda: solve(settings, operator, s, phi, tol, way))
            self.spent[f"{way}_solves"] += seconds
            return x

        def projected(*arguments: Any) -> int:
            nonlocal within
            within, rows = clocked(lambda: project(*arguments))
            self.spent["projections"] += within
            return rows

        def stepped() -> None:
            nonlocal within
            within = 0.0
            self.spent["optimizer"] += clocked(step)[0] - within

        implicit.Settings._solve = solved  # type: ignore[method-assign]
        constrain._project = projected
        self.optimizer.step = stepped  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            implicit.Settings._solve = solve  # type: ignore[method-assign]
            constrain._project = project
            self.optimizer.step = step  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    data = load_data("mnist", data_dir=arguments.data_dir)
    plain = nn.Sequential(
        nn.Linear(784, STATES), nn.ReLU(), nn.Linear(STATES, STATES), nn.ReLU(),
        nn.Linear(STATES, 10),
    )  # fmt: skip
    contenders = {
        "feed_forward": Contender(plain),
        "implicit": Contender(ImplicitNetwork(784, STATES, 10, tol=TOLERANCE)),
        "implicit, rough gradient": Contender(
            ImplicitNetwork(784, STATES, 10, tol=TOLERANCE, backward_tol=ROUGH)
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(arguments.epochs):
        order = torch.randperm(len(data.train_inputs))
        for name, contender in contenders.items():
            seconds[name].append(contender.epoch(data, order))
        for name, contender in contenders.items():
            with contender.clocks():
                whole = contender.epoch(data, order)
            rest = whole - sum(contender.spent.values())
            parts[name].append(contender.spent | {"rest": rest})
    result = {
        name: {
            "seconds": median(seconds[name]),
            "ratio": median(
                [i / f for i, f in zip(seconds[name], seconds["feed_forward"], strict=True)]
            ),
            "solves": len(contender.steps),
            "iterations_per_solve": sum(contender.steps) / max(1, len(contender.steps)),
            "seconds_spent": {
                part: round(median([each[part] for each in parts[name]]), 3)
                for part in parts[name][0]
            },
            "test_accuracy": evaluate(contender.network, data.test_inputs, data.test_targets)[1],
        }
        for name, contender in contenders.items()
    }
    write("epoch", {"machine": machine(arguments.threads), **result})


if __name__ == "__main__":
    main()
