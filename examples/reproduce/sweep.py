"""Accuracy against the certified bound on MNIST: eight weights λ of the regularizer, two seeds.

python examples/reproduce/sweep.py --data-dir FOLDER_OF_THE_MNIST_FILES

Writes sweep.json and sweep.svg, and a RUN folder for each of the sixteen trainings; a quarter of
an hour on one core.
"""

from __future__ import annotations

from functools import partial

from common import draw, finish, start, train, write

from contraction_nets import ImplicitNetwork
from contraction_nets.comparison.sweep import WEIGHTS, RegularizerSweep, sweep_row
from contraction_nets.training.data import load_data
from contraction_nets.viz.sweep import plot_sweep


def main() -> None:
    chosen = start(
        __doc__, data="mnist", hidden=100, epochs=12, batch_size=100, learning_rate=3e-3,
        weights=WEIGHTS, seeds=(0, 1),
    )  # fmt: skip
    data = load_data(chosen.data, data_dir=chosen.data_dir)
    network = partial(ImplicitNetwork, data.in_features, chosen.hidden, data.out_features)
    rows = []
    for seed in chosen.seeds:  # one whole curve first
        for weight in chosen.weights:
            name = f"sweep_{weight:g}_{seed}"
            result = train(
                chosen, name, network, data, seed=seed, epochs=chosen.epochs,
                batch_size=chosen.batch_size, learning_rate=chosen.learning_rate,
                lipschitz_weight=weight, audit=False,
            )  # fmt: skip
            rows.append(sweep_row(result, data, weight, seed))
    sweep = RegularizerSweep(data.name, chosen.hidden, chosen.epochs, tuple(rows))
    write(chosen, "sweep", sweep.as_dict())
    draw(chosen, "sweep", plot_sweep(sweep))


if __name__ == "__main__":
    finish(main)
