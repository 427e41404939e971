"""
Which solver projects?
======================

The projection onto {A : μ∞(A) ≤ γ} is a quadratic program of n² variables. Here the closed form
meets the general solvers, each at the loosest tolerance at which it reaches the accuracy asked for:
untimed set-up, timed solve, untimed check, in turn.
"""

# %%
# Every row says what was really reached: the distance to the exact projection, the residual of the
# optimality conditions, and how many rows of the answer are outside the set in exact arithmetic.
# A general solver needs its answer *polished*, by one solve on the active set it found, to be as
# exact as the closed form; "raw" is what it returns by itself.

from contraction_nets.comparison.projections import compare_projections
from contraction_nets.viz.comparison import method_name, plot_projections

rows = compare_projections(
    [25, 50, 100], repetitions=3, limit=10.0, solvers=["closed_form", "clarabel", "osqp", "scs"]
)
for row in rows:
    name = method_name(row)
    if row["seconds"] is None:
        print(f"n = {row['n']:3d} {name:14s} {row['outcome']}")
        continue
    print(
        f"n = {row['n']:3d} {name:14s} {1e3 * row['seconds']:8.2f} ms, "
        f"distance {row['distance']:.1e}, rows outside {row['rows_violated']}"
    )

# %%
# The closed form is the only one that is feasible as stored, whatever the scale: it rounds into
# the set. The picture is what ``contraction-nets compare projections --plot`` draws with all
# backends that are installed, and with cvxpy as one would write it.

figure = plot_projections(rows)
figure.savefig("compare_projections.svg")
