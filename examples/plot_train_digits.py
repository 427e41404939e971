"""
Train on digits, with a proof
=============================

An implicit network learns to read 8 × 8 digits. After every gradient step its state matrix
is projected exactly onto {A : μ∞(A) ≤ γ}, so that the network is well-posed at every moment,
and at the end its Lipschitz bound is proved.
"""

# %%
# The data are bundled with scikit-learn; pixels are in [0, 1].

import matplotlib.pyplot as plt
import torch

from contraction_nets import (
    ImplicitNetwork,
    ImplicitWeights,
    lipschitz_certificate,
    lipschitz_penalty,
    project_after_step,
)
from contraction_nets.training.data import load_data
from contraction_nets.viz.plots import plot_gains, plot_state_matrix

torch.manual_seed(0)
digits = load_data("digits")
inputs, labels = digits.train_inputs, digits.train_targets
print(f"{len(inputs)} images for training, {len(digits.test_inputs)} for testing")

# %%
# An ordinary training loop. One line keeps the constraint; one term of the loss keeps the
# certified Lipschitz bound small. At the end of every epoch the bound is proved.

network = ImplicitNetwork(in_features=64, hidden_features=60, out_features=10, gamma=0.95)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
project_after_step(optimizer, network)

epochs, bounds, accuracies = 20, [], []
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
for _ in range(epochs):
    for batch in torch.randperm(len(inputs)).split(50):
        loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
        loss = loss + 1e-3 * lipschitz_penalty(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    with torch.no_grad():
        right = network(digits.test_inputs).argmax(dim=1) == digits.test_targets
    accuracies.append(100 * right.float().mean().item())
    certificate = lipschitz_certificate(ImplicitWeights.from_module(network))
    bounds.append((certificate.bound, certificate.norm_product_bound))

print(f"test accuracy {accuracies[-1]:.1f} %")
print(f"certified bound {bounds[-1][0]:.1f}, norm-product bound {bounds[-1][1]:.1f}")
print(f"proved in exact integer arithmetic: {certificate.verify()}")

# %%
# Accuracy rises while the certified bound stays several times below the product of norms.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(range(1, epochs + 1), accuracies)
left.set(title="Test accuracy, per cent", xlabel="epoch")
right.semilogy(range(1, epochs + 1), bounds, label=["certified", "norm product"])
right.set(title="Change of an output per unit of input", xlabel="epoch")
right.legend()

# %%
# What the bound consists of: how far each digit's score can move per unit of each pixel.

plot_gains(certificate.gains)

# %%
# The state matrix, and how close each of its rows is to the bound γ.

plot_state_matrix(certificate.weights.A, gamma=0.95)
