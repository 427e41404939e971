"""
Verify a certificate, and tamper with it
========================================

A certificate is a file that anybody can check. Here one is made for a small trained network and
checked; then weights, claim, witness and activation are changed one at a time, and each change
is refused. At the end: how tight four Lipschitz bounds are.
"""

# %%
# Twenty states learn to read 8 × 8 digits, with the certified bound in the loss.

import json
import tempfile
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from contraction_nets import (
    ImplicitNetwork,
    ImplicitWeights,
    fit,
    lipschitz_bounds,
    lipschitz_certificate,
    project,
    verify_document,
)
from contraction_nets.certificates.document import load_certificate
from contraction_nets.training.data import load_data

torch.manual_seed(0)
network = ImplicitNetwork(in_features=64, hidden_features=20, out_features=10)
result = fit(network, load_data("digits"), epochs=10, learning_rate=1e-2, lipschitz_weight=1e-3)
weights = ImplicitWeights.from_module(network)
certificate = lipschitz_certificate(weights)
print(f"test accuracy {100 * result.metrics[-1]['test_accuracy']:.1f} %")
print(f"no output moves by more than {certificate.bound:.4f} per unit of input")

# %%
# The file has the statement, a witness z, and the hash of the weights. Checking it takes no
# solver and no floating-point arithmetic.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "certificate.json"
    certificate.save(path)
    print("proved:", verify_document(path, weights))
    content = json.loads(path.read_text("utf-8"))

# %%
# What is checked, row by row: z > 0, (I − M) z > 0, (I − M) z ≥ |B| 1 and |C| z ≤ bound,
# where M is A with absolute values off the diagonal; this network has no D. Floats are fractions
# whose denominators are powers of two, so that what is left of each row is one too.


def slacks(weights: ImplicitWeights, z: np.ndarray, bound: float) -> dict[str, np.ndarray]:
    """Right side minus left side of every row, exactly."""
    exact = np.vectorize(Fraction, otypes=[object])
    A, B, C = (exact(part.astype(float)) for part in (weights.A, weights.B, weights.C))
    M, z = abs(A), exact(z)
    np.fill_diagonal(M, A.diagonal())
    return {
        "z > 0": z,
        "(I − M) z > 0": z - M @ z,
        "(I − M) z ≥ |B| 1": z - M @ z - abs(B).sum(axis=1),
        "|C| z ≤ bound": Fraction(bound) - abs(C) @ z,
    }


honest = slacks(weights, certificate.witness, certificate.bound)
for name, own in honest.items():
    tightest = min(own)
    power = tightest.denominator.bit_length() - 1
    print(f"{name:22s} tightest row: {tightest.numerator} · 2^-{power} = {float(tightest):.2g}")
assert all((own >= 0).all() for own in honest.values())

# %%
# Now tamper. One weight of A goes up by one unit in the last place of float32, and the hash of the
# weights is another. So forge the hash in the file too: the row of that state breaks, and the
# arithmetic refuses what the hash no longer can.

steps = np.where(weights.A > 0, np.spacing(weights.A), 0) * certificate.witness
i, j = np.unravel_index(np.argmax(steps), steps.shape)
A = weights.A.copy()
A[i, j] = np.nextafter(A[i, j], np.float32(np.inf))
tampered = ImplicitWeights(**{**weights.arrays(), "A": A, "activation": weights.activation})
broken = slacks(tampered, certificate.witness, certificate.bound)
print(f"A[{i}, {j}] from {weights.A[i, j]:.9g} to {A[i, j]:.9g}")

smaller = float(np.nextafter(certificate.bound, 0))
foreign = lipschitz_certificate(project(weights.A, 0.2), weights.B, weights.C).witness
changes = {
    "a weight": {},
    "… and the hash": {"weights_sha256": tampered.sha256},
    "a smaller bound": {
        "statement": content["statement"] | {"bound": smaller.hex(), "bound_decimal": smaller},
        "report": {"lipschitz": {"bound": smaller}},
    },
    "a foreign witness": {"witness": [number.hex() for number in foreign.tolist()]},
    "another activation": {},
}
others = {
    "a weight": tampered,
    "… and the hash": tampered,
    "another activation": ImplicitWeights(**weights.arrays(), activation="tanh"),
}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "certificate.json"
    for name, change in changes.items():
        path.write_text(json.dumps(content | change), "utf-8")
        objection = load_certificate(path).objection(others.get(name, weights))
        assert objection is not None
        print(f"{name} is refused: {objection}")

# %%
# How tight is a proved bound? For five networks, four bounds as multiples of the exact maximum
# over all slopes of the activation in [0, 1].

rng = np.random.default_rng(0)
n, p, q = 12, 4, 3
B, C, random = rng.normal(size=(n, p)), rng.normal(size=(q, n)), rng.normal(size=(n, n))
layer = np.arange(n) * 3 // n
following = layer[:, None] == layer + 1
networks = {
    "trained digits": weights,
    "three layers": ImplicitWeights(
        1.4 * random * following, B * (layer == 0)[:, None], C * (layer == 2)
    ),
    "sparse": ImplicitWeights(project(random * (rng.uniform(size=(n, n)) < 0.3), 0.95), B, C),
    "dense": ImplicitWeights(project(random, 0.95), B, C),
    "heavy diagonal": ImplicitWeights(project(random - np.diag(rng.uniform(0, 5, n)), 0.95), B, C),
}
ratios = {}
for name, given in networks.items():
    quick = lipschitz_bounds(given, max_nodes=given.output_dim)
    exact = lipschitz_bounds(given, tol=1e-3)
    product = lipschitz_certificate(given).norm_product_bound
    ratios[name] = np.array([exact.upper, quick.upper, exact.lp, product]) / exact.lower
    print(f"{name:15s}" + "".join(f"{ratio:9.3f}" for ratio in ratios[name]))

# %%
# Left: every row holds, those of the states by a few roundings only, so that one weight moved by
# one unit in the last place breaks one of them. Right: signs cannot cancel in the linear program,
# which costs two or three times in the trained and the feed-forward network, more in dense ones.

blue, red, green = "#0072b2", "#d55e00", "#009e73"
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(6, 5)
)
start, ticks = 0, {}
for name, own in honest.items():
    places = start + np.arange(len(own))
    left.semilogy(places, own.astype(float), "o", color=blue, ms=4)
    for place, before, after in zip(places, own, broken[name], strict=True):
        if after < 0:
            left.plot([place, place], [float(before), -float(after)], ":", color=red, lw=1)
            left.plot(place, -float(after), "X", color=red, ms=9)
            said = f"one weight moved by one ulp:\nshort by {-float(after):.0e}"
            left.text(
                place - 2, -float(after), said, color=red, ha="right", va="center", fontsize=9
            )
    ticks[places.mean()] = name
    start = places[-1] + 12
left.set_xticks(list(ticks), list(ticks.values()), fontsize=9)
left.tick_params(axis="x", length=0)
left.set_title("What is left of every row of the proof", loc="left")

looks = {
    "exact": {"color": "black", "ms": 10, "fillstyle": "none"},
    "semidefinite": {"color": green, "ms": 5},
    "linear program": {"color": blue, "ms": 6},
    "norm product": {"color": red, "ms": 6},
}
edge = 1500
for line, ratio in enumerate(ratios.values()):
    right.plot([1, min(max(ratio), edge)], [line, line], color="0.85", zorder=0)
    for look, place in zip(looks.values(), ratio, strict=True):
        right.plot(min(place, edge), line, "o" if place < edge else ">", **look)
    if max(ratio) > edge:
        right.text(edge, line + 0.15, "infinite", color=red, ha="center", fontsize=9)
top = list(ratios.values())[-1] * [0.9, 1.1, 1, 1]
for (name, look), place, side in zip(
    looks.items(), top, ("right", "left", "right", "left"), strict=True
):
    right.text(place, line + 0.25, name, color=look["color"], ha=side, fontsize=9)
right.set(xscale="log", xlim=(0.3, 3000), ylim=(-0.5, line + 0.7))
right.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
right.set_yticks(range(len(ratios)), list(ratios))
right.tick_params(axis="y", length=0)
right.set_title("Bounds, as multiples of the exact maximum", loc="left")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
