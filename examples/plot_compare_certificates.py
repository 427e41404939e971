"""
Which solver certifies?
=======================

The Lipschitz bound is the optimum of a linear program. For this one the optimum has a formula: one
linear solve and its transpose are a primal-dual pair without a gap. Here it meets simplex, interior
points and first-order methods, on the same networks and at the same accuracy.
"""

# %%
# What a solver returns is a proposal. The certificate refines it and proves it with integers: a
# poor proposal costs time or tightness, never truth. ``excess`` is what is proved over the optimum.

from contraction_nets.comparison.certificates import compare_certificates
from contraction_nets.viz.comparison import plot_certificates

rows = compare_certificates([30, 100, 300], repetitions=2, limit=10.0)
for row in rows:
    if row["seconds"] is None:
        print(f"n = {row['n']:3d} {row['solver']:9s} {row['outcome']}")
        continue
    print(
        f"n = {row['n']:3d} {row['solver']:9s} {1e3 * row['seconds']:8.2f} ms, "
        f"gap {row['primal_dual_gap']:.0e}, proved {row['proved']} at optimum × (1 + "
        f"{row['excess']:.0e})"
    )

# %%
# A solver that does not finish is shown as timed out and not tried at larger sizes. The picture is
# that of ``contraction-nets compare certificates --plot``.

figure = plot_certificates(rows)
figure.savefig("compare_certificates.svg")
