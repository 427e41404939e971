"""Draw the pictures of the README from two training runs on the digits.

python docs/pictures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.robustness.bisection import robustness_gap
from contraction_nets.training.data import load_data
from contraction_nets.training.small_boxes import SmallBoxes
from contraction_nets.viz.plots import plot_certificate, plot_state_matrix
from contraction_nets.viz.robustness import plot_robustness_ladder

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = load_data("digits")
    network = ImplicitNetwork(64, 60, 10)
    result = fit(network, digits, epochs=20, learning_rate=1e-2, lipschitz_weight=1e-4)
    robust = ImplicitNetwork(64, 40, 10)
    fit(robust, digits, epochs=15, learning_rate=1e-2, objective=SmallBoxes(0.08), audit=False)
    gap = robustness_gap(robust, digits.test_inputs[3], int(digits.test_targets[3]))
    IMAGES.mkdir(exist_ok=True)
    pictures = {
        "bound": plot_certificate(result.metrics),
        "state": plot_state_matrix(result.certificate.weights.A, gamma=0.95),
        "ladder": plot_robustness_ladder(gap),
    }
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "contraction-nets"}):
        for name, figure in pictures.items():
            figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
