"""
Certify weights that somebody hands you
=======================================

A certificate needs the matrices and nothing else: no training code, no framework. Here they
are made up; three ways to a Lipschitz bound are compared on them, and the proof is checked.
"""

# %%
# The weights of x = relu(A x + B u + b), y = C x, with a strongly negative diagonal: the
# largest entry of |A| is 3, and still the network is well-posed.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from contraction_nets import ImplicitWeights, lipschitz_certificate, matrix_measure
from contraction_nets.certificates.document import verify_document
from contraction_nets.nn.equilibrium import solve_equilibrium

rng = np.random.default_rng(0)
A = rng.normal(size=(30, 30)) / 32 - 3 * np.diag(rng.uniform(size=30))
B, C = rng.normal(size=(30, 5)), rng.normal(size=(3, 30))
weights = ImplicitWeights(A, B, C)
print(f"μ∞(A) = {matrix_measure(A):.3f}, ‖A‖∞ = {np.abs(A).sum(axis=1).max():.3f}")

# %%
# One call. The bound is the optimum of a linear program, solved by a linear solve and its
# transpose, and proved with integers.

certificate = lipschitz_certificate(weights)
print(f"certified bound    {certificate.bound:.4f}  (proved: {certificate.verify()})")
print(f"norm-product bound {certificate.norm_product_bound:.4f}")

# %%
# Any solver may propose; the proof does not trust it. HiGHS and Clarabel find the same bound.

for solver in ("m_matrix", "highs", "clarabel"):
    print(f"{solver:9s} {lipschitz_certificate(weights, solver=solver).bound:.9f}")

# %%
# The gains say more than one number: |Δy_k| ≤ Σ_j Γ_kj |Δu_j|. Attack the bound: no pair of
# nearby inputs out of 20 000 moves an output by more.


def outputs(u: np.ndarray) -> np.ndarray:
    """y for a batch of inputs, to 1e-10."""
    drive = torch.from_numpy(u @ B.T)
    return solve_equilibrium(torch.from_numpy(A), drive, tol=1e-10).x.numpy() @ C.T


u = rng.normal(size=(20_000, 5))
step = 1e-3 * rng.choice([-1.0, 1.0], size=u.shape)
slopes = np.abs(outputs(u + step) - outputs(u)).max(axis=1) / 1e-3
print(f"largest slope found {slopes.max():.4f} ≤ {certificate.bound:.4f}")
assert slopes.max() <= certificate.bound

# %%
# Far below the bound on average, never above it.

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.hist(slopes, bins=np.geomspace(slopes.min(), slopes.max(), 60), color="#56b4e9")
ax.set_xscale("log")
for value, name, colour in (
    (slopes.max(), "largest found", "#1d2733"),
    (certificate.bound, "certified", "#0072b2"),
    (certificate.norm_product_bound, "norm product", "#d55e00"),
):
    ax.axvline(value, color=colour)
    ax.text(value, ax.get_ylim()[1], f"{name} ", color=colour, rotation=90, ha="right", va="top")
ax.set(title="Change of the output per unit of input", xlabel="slope (log scale)", yticks=[])

# %%
# Move one weight by one unit in the last place, and the file no longer proves anything.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "certificate.json"
    certificate.save(path)
    print("these weights:", verify_document(path, weights))
    A[0, 0] = np.nextafter(A[0, 0], 1.0)
    print("one ulp away: ", verify_document(path, ImplicitWeights(A, B, C)))
