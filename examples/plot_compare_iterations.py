"""
Which iteration finds the equilibrium?
======================================

All iterations find the same equilibrium. Which is fastest depends on the matrix: the diagonal
resolvent on trained networks, acceleration or Newton next to the limit of well-posedness. ``auto``
starts with the one and changes to the others where they pay.
"""

# %%
# Cases from easy to hard, drawn from a seed. Every method runs to the same measured residual,
# max |x − φ(A x + s)| ≤ 1e-5 max |x|, and one product with A of the same shapes is timed beside it.

import torch

from contraction_nets.comparison.cases import cases
from contraction_nets.comparison.iterations import ITERATIONS, compare_iterations
from contraction_nets.viz.comparison import plot_compared_iterations

torch.set_num_threads(1)
families = ["projected", "diagonally heavy", "positive 0.999"]
rows = compare_iterations(
    cases(families, sizes=[100], batches=[1, 100]), ITERATIONS, repetitions=3, time_limit=2.0
)

# %%
# On a diagonally heavy matrix the average iteration has to take small steps, and the diagonal
# resolvent does not care. On a positive matrix whose rows sum to 0.999 both crawl.

for row in rows:
    if row["batch"] == 100 and row["iteration"] in ("auto", "diagonal_resolvent", "average"):
        seconds = "–" if row["seconds"] is None else f"{1e3 * row['seconds']:.2f} ms"
        print(f"{row['family']:17s} {row['iteration']:19s} {row['steps']} steps, {seconds}")

# %%
# Seconds over those of the fastest in each case, as ``contraction-nets compare iterations --plot``
# draws them.

figure = plot_compared_iterations(rows)
figure.savefig("compare_iterations.svg")
