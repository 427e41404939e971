"""
Estimating functions: does a larger set help?
=============================================

A network learns a function from noisy samples while its state matrix stays in one of four sets. The
same network, samples, seeds and number of steps for all: which set estimates best, and which bound
on the slope comes with it?
"""

# %%
# The bound γ decides how much room a set leaves. Near one there is room enough in all of them, and
# the seed matters more than the set. A small one keeps the estimate flat, with a certified slope
# near that of the function, and then it matters that the polytope μ∞(A) ≤ γ, unlike the norm ball
# ‖A‖∞ ≤ γ, leaves the diagonal free below.

from contraction_nets.comparison.estimation import estimate_function
from contraction_nets.training.data import load_data
from contraction_nets.viz.estimation import plot_error_maps, plot_estimates


def show(estimation):
    print(f"{'set':9s}   error (lowest to highest seed)   ℓ∞ bound")
    for line in estimation.table():
        spread = f"{line['error_low']:.3f} to {line['error_high']:.3f}"
        bound = line["lipschitz_bound"]
        proved = "none" if bound is None else f"{bound:.1f}, proved"
        print(f"{line['set']:9s}   {line['error']:.3f} ({spread})             {proved}")


wave = estimate_function(load_data("function"), gammas=(0.3,), hidden=40, epochs=30, seeds=(0, 1))
show(wave)

# %%
# One variable: sin(4πu) e^(−2u), whose steepest slope is 4π = 12.6. Dashed is the function, dots
# are noisy samples, lines the estimates, bands their spread over the seeds. Monotone matrices fit
# well but give no ℓ∞ bound: theirs is one in ℓ2.

figure = plot_estimates(wave)
figure.savefig("estimates.svg")

# %%
# Two variables: sin(2πu) cos(πv), and how far each estimate is off.

saddle = estimate_function(
    load_data("function2d"), gammas=(0.3,), hidden=40, epochs=25, seeds=(0, 1)
)
show(saddle)
maps = plot_error_maps(saddle)
maps.savefig("error_maps.svg")
