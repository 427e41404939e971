"""Draw the pictures of the README from one training run on the digits.

python docs/pictures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.training.data import load_data
from contraction_nets.viz.plots import plot_certificate, plot_state_matrix

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ImplicitNetwork(64, 60, 10)
    result = fit(network, load_data("digits"), epochs=20, learning_rate=1e-2, lipschitz_weight=1e-4)
    IMAGES.mkdir(exist_ok=True)
    pictures = {
        "bound": plot_certificate(result.metrics),
        "state": plot_state_matrix(result.certificate.weights.A, gamma=0.95),
    }
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "contraction-nets"}):
        for name, figure in pictures.items():
            figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
