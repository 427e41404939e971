"""Function estimation in one and two variables with A in four sets, for four γ and five seeds.

python examples/reproduce/estimation.py

Writes estimation.json and, for each function, the error over γ and a picture of the estimates;
half an hour on one core. Needs no data files.
"""

from __future__ import annotations

from common import draw, finish, progress, start, write

from contraction_nets.comparison.estimation import estimate_function
from contraction_nets.training.data import load_data
from contraction_nets.viz.estimation import plot_error_maps, plot_errors, plot_estimates


def main() -> None:
    chosen = start(
        __doc__, hidden=60, epochs=40, gammas=(0.1, 0.3, 0.6, 0.95), seeds=(0, 1, 2, 3, 4),
        shown=0.3,
    )  # fmt: skip
    found = {}
    for name, plot in (("function", plot_estimates), ("function2d", plot_error_maps)):
        with progress(name) as tell:
            estimation = estimate_function(
                load_data(name, seed=chosen.seed), hidden=chosen.hidden, gammas=chosen.gammas,
                epochs=chosen.epochs, seeds=chosen.seeds, progress=tell,
            )  # fmt: skip
        found[name] = estimation.as_dict()
        draw(chosen, f"estimation_{name}", plot(estimation, gamma=chosen.shown))
        if len(chosen.gammas) > 1:
            draw(chosen, f"estimation_{name}_errors", plot_errors(estimation))
    write(chosen, "estimation", found)


if __name__ == "__main__":
    finish(main)
