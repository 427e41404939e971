"""
Accuracy within ε, attacked and proved
======================================

How often is a network right when every pixel may move by ε? Attacks give an upper bound, proofs a
lower one. Four ways of training on digits, side by side.
"""

# %%
# The same network, trained for accuracy alone, for its global gains under a Lipschitz budget, for
# interval bounds, and on small boxes around attack points.

import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.robustness.attacks import Pgd
from contraction_nets.robustness.curves import accuracy_curves
from contraction_nets.training.data import load_data
from contraction_nets.training.global_margin import GlobalMargin
from contraction_nets.training.interval_loss import IntervalLoss
from contraction_nets.training.small_boxes import SmallBoxes
from contraction_nets.viz.robustness import plot_accuracy_curves

digits = load_data("digits")
methods = {
    "accuracy alone": {},
    "global gains": {"objective": GlobalMargin(0.05), "lipschitz_budget": 10.0},
    "interval bounds": {"objective": IntervalLoss(0.08)},
    "small boxes": {"objective": SmallBoxes(0.08)},
}
networks = {}
for name, options in methods.items():
    torch.manual_seed(0)
    networks[name] = ImplicitNetwork(in_features=64, hidden_features=30, out_features=10)
    result = fit(networks[name], digits, epochs=8, learning_rate=1e-2, audit=False, **options)
    accuracy = 100 * result.metrics[-1]["test_accuracy"]
    print(f"{name:16s} accuracy {accuracy:.1f} %, certified bound {result.certificate.bound:.1f}")

# %%
# The first 60 test images, at eight radii. PGD climbs towards every other class. The ladder proves
# by global gains what they can prove, by intervals what is left, then by linear programs, and by
# an exact search: where it meets PGD, the accuracy within ε is known.

radii = [0.0, 0.01, 0.02, 0.04, 0.06, 0.09, 0.12, 0.15]
curves = {
    name: accuracy_curves(
        network,
        digits.test_inputs[:60],
        digits.test_targets[:60],
        radii,
        attacks=("noise", "inversion", "fgsm", Pgd(steps=10)),
        time_limit=2.0,
    )
    for name, network in networks.items()
}
at = radii.index(0.06)
for name, found in curves.items():
    proved = ", ".join(f"{share[at]:.0%} by {proof}" for proof, share in found.certified.items())
    print(f"{name:16s} at ε = 0.06: PGD leaves {found.attacked['pgd'][at]:.0%}, proved {proved}")

# %%
# Dashed: at most that. Solid: at least that. Shaded: not known.

figure = plot_accuracy_curves(curves)
figure.savefig("accuracy_curves.svg")
