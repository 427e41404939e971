"""
What does a smaller Lipschitz bound cost?
=========================================

Adding λ times the certified bound to the loss gives a family of networks, from accurate and steep
to flat and less accurate. How much robustness is free?
"""

# %%
# The same network, data and seeds for every weight λ; only the regularizer differs. The bound is
# the optimum of a linear program and is differentiated as such, by one linear solve.

from contraction_nets.comparison.sweep import regularizer_sweep
from contraction_nets.training.data import load_data
from contraction_nets.viz.sweep import plot_sweep

sweep = regularizer_sweep(
    load_data("digits"), hidden=40, epochs=8, learning_rate=1e-2, seeds=(0, 1),
    weights=(0.0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2),
)  # fmt: skip

# %%
# The last column is a slope between two inputs: gradient ascent found it, and two forward passes
# show it. No Lipschitz bound can be below it, so it tells how much the certified one overstates:
# twenty times without a regularizer, next to nothing with a strong one.

print("     λ  accuracy  certified  norm product  steepest found")
for weight in sweep.weights:
    accuracy = 100 * sweep.mean("test_accuracy", weight)
    bounds = [
        sweep.mean(name, weight)
        for name in ("lipschitz_bound", "norm_product_bound", "steepest_found")
    ]
    print(f"{weight:6g}  {accuracy:6.1f} %  {bounds[0]:9.0f}  {bounds[1]:12.0f}  {bounds[2]:14.0f}")

# %%
# Accuracy over the certified bound: the upper left corner is where one wants to be.

figure = plot_sweep(sweep)
figure.savefig("regularizer_sweep.svg")
