"""
Which constraint set?
=====================

A network stays well-posed when A stays in a set: the norm ball ‖A‖∞ ≤ γ, the polytope μ∞(A) ≤ γ,
that polytope in the best weights, or the monotone matrices (A + Aᵀ)/2 ⪯ γI. What does each hold,
and what does training onto each give?
"""

# %%
# The matrix measure bounds a diagonal from above only: a negative diagonal is free. So its polytope
# holds matrices that the norm ball does not, all of them once the diagonal is taken down by one.

from contraction_nets.comparison.sets import SETS, contained, train_on_sets
from contraction_nets.training.data import load_data
from contraction_nets.viz.comparison import plot_sets

cloud = contained(20, samples=200) + contained(20, samples=200, shift=1.0)
for row in cloud[8:14]:
    shares = ", ".join(f"{name} {100 * row[name]:.0f} %" for name in SETS)
    print(f"size {row['scale']:.2f}: {shares}")

# %%
# The same network, data, seed and number of steps, projected onto each set after every step. The
# first three have a proved ℓ∞ bound. A monotone network has none as a rule: what it has is an ℓ2
# bound, of which √p times is an ℓ∞ bound (in float64, not proved).

rows = train_on_sets(load_data("digits"), hidden=60, epochs=5)
for row in rows:
    bound = row["lipschitz_bound"]
    proved = "not well-posed in ℓ∞" if bound is None else f"ℓ∞ bound {bound:.0f}, proved"
    print(f"{row['set']:9s} accuracy {100 * row['test_accuracy']:.1f} %, {proved}")

# %%
# The picture is that of ``contraction-nets compare sets --plot``.

figure = plot_sets(rows, cloud)
figure.savefig("compare_sets.svg")
