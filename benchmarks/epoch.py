"""One MNIST epoch of an implicit network against one of a feed-forward network.

Both have 100 (and 100) hidden units, batches of 100, the same loss and optimizer, and take
turns epoch by epoch: python benchmarks/epoch.py --data-dir FOLDER_OF_THE_MNIST_FILES
"""

from __future__ import annotations

import argparse
import time

import torch
from common import median, write
from torch import nn

from contraction_nets import ImplicitNetwork, project_after_step
from contraction_nets.comparison.machine import machine
from contraction_nets.training.data import Dataset, load_data

BATCH, STATES, TOLERANCE = 100, 100, 1e-4


class Contender:
    """A network with its optimizer; counts its time in projections and its iterations."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        self.seconds_projection = 0.0
        self.started = 0.0
        self.steps: list[int] = []
        if isinstance(network, ImplicitNetwork):
            network.layer.monitor = lambda direction, result: self.steps.append(result.steps)
            # Hooks run in the order of their registration: the clock goes around the projection.
            self.optimizer.register_step_post_hook(self._start)
            project_after_step(self.optimizer, network)
            self.optimizer.register_step_post_hook(self._stop)

    def _start(self, *_: object) -> None:
        self.started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds_projection += time.perf_counter() - self.started

    def epoch(self, data: Dataset, order: torch.Tensor) -> float:
        """Seconds of one pass."""
        start = time.perf_counter()
        for batch in order.split(BATCH):
            u, y = data.train_inputs[batch], data.train_targets[batch]
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.network(u), y).backward()
            self.optimizer.step()
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    data = load_data("mnist", data_dir=arguments.data_dir)
    plain = Contender(
        nn.Sequential(
            nn.Linear(784, STATES), nn.ReLU(), nn.Linear(STATES, STATES), nn.ReLU(),
            nn.Linear(STATES, 10),
        )
    )  # fmt: skip
    implicit = Contender(ImplicitNetwork(784, STATES, 10, tol=TOLERANCE))
    seconds: dict[str, list[float]] = {"feed_forward": [], "implicit": [], "projection": []}
    for _ in range(arguments.epochs):
        order = torch.randperm(len(data.train_inputs))
        implicit.seconds_projection = 0.0
        seconds["feed_forward"].append(plain.epoch(data, order))
        seconds["implicit"].append(implicit.epoch(data, order))
        seconds["projection"].append(implicit.seconds_projection)
    ratios = [i / f for i, f in zip(seconds["implicit"], seconds["feed_forward"], strict=True)]
    shares = [p / i for p, i in zip(seconds["projection"], seconds["implicit"], strict=True)]
    write(
        "epoch",
        {
            "machine": machine(arguments.threads),
            "seconds_feed_forward": median(seconds["feed_forward"]),
            "seconds_implicit": median(seconds["implicit"]),
            "ratio": median(ratios),
            "projection_share": median(shares),
            "iterations_per_solve": sum(implicit.steps) / len(implicit.steps),
        },
    )


if __name__ == "__main__":
    main()
