"""
One image between its proofs and its attack
===========================================

How far may every pixel of an image move before the network can read another digit? Every rung of
the ladder proves a radius; an attack shows one at which it is too late. The truth is in between.
"""

# %%
# A network trained on small boxes around attack points: its robustness is for linear programs and
# the exact search to prove.

import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.robustness.bisection import robustness_gap
from contraction_nets.training.data import load_data
from contraction_nets.training.small_boxes import SmallBoxes
from contraction_nets.viz.robustness import plot_robustness_ladder

digits = load_data("digits")
torch.manual_seed(0)
network = ImplicitNetwork(in_features=64, hidden_features=40, out_features=10)
result = fit(
    network, digits, epochs=15, learning_rate=1e-2, objective=SmallBoxes(0.08), audit=False
)
print(f"test accuracy {100 * result.metrics[-1]['test_accuracy']:.1f} %")

# %%
# Bisection of ε for every rung, and for projected gradient ascent towards every other class.

image, label = digits.test_inputs[3], int(digits.test_targets[3])
gap = robustness_gap(network, image, label)
for rung, radius in gap.certified.items():
    print(f"proved by {rung:8s} up to ε = {radius:.4f}")
print(f"read as a {gap.adversarial_label} at     ε = {gap.attacked:.4f}, confirmed")

# %%
# The image, what it takes to be read as another digit, and the rungs in between.

figure = plot_robustness_ladder(gap)
figure.savefig("robustness_ladder.svg")
