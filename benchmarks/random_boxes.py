"""Random boxes of tiny networks: is a verdict of the ladder ever wrong?

Networks of one to five states, (leaky) relu, in both dtypes, many next to the limit of
well-posedness. Every verdict on a box is held against the smallest margin over it, which the
tests' oracle finds by enumeration: tests/brute_force.py, which shares no code with the library.
A certified margin above it, or a counterexample outside of the box or with the label it should
not have is wrong, and the exit code is one. No verdict although the margin is not near zero is
counted: it is sound, and happens where gains of a million leave the bounds no digits.
python benchmarks/random_boxes.py --jobs 2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import joblib
import numpy as np
from common import write
from rich.progress import track

from contraction_nets import ImplicitWeights, NotWellPosedError, verify_robustness
from contraction_nets.certificates.weights import parse_activation
from contraction_nets.comparison.machine import machine
from contraction_nets.robustness.result import Verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from brute_force import outputs, random_network, smallest_margin

RADII = (0.0, 0.01, 0.05, 0.1, 0.3, 1.0)
BOXES = 10  # of a network
CHUNK = 20  # networks, between two looks at the clock
CLOSE = 1e-7  # of a margin relative to the outputs, within which enumeration is no oracle
ROUNDING = 1e-9


def decided(seed: int, number: int) -> Counter[str]:
    """How often the boxes of one network were decided by what, and wrongly."""
    rng = np.random.default_rng([seed, number])
    n, p, q = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(2, 4))
    network = random_network(rng, n, p, q)
    weights = ImplicitWeights(**network)
    slope = float(parse_activation(weights.activation)[1] or 0.0)
    domain = (0.0, 1.0) if rng.uniform() < 0.5 else None
    U, epsilon = rng.uniform(size=(BOXES, p)), float(rng.choice(RADII))
    Y = outputs(network, slope, U)
    labels = Y.argmax(axis=1)
    counts: Counter[str] = Counter(networks=1)
    try:
        found = verify_robustness(weights, U, labels, epsilon, domain=domain, time_limit=20.0)
    except NotWellPosedError:
        return counts + Counter(refused=1)
    close = CLOSE * (1 + float(np.abs(Y).max()))
    for u, label, verdict in zip(U, labels, found.verdicts, strict=True):
        lower, upper = u - epsilon, u + epsilon
        if domain is not None:
            lower, upper = np.maximum(lower, 0), np.minimum(upper, 1)
        true = smallest_margin(network, slope, label, lower, upper)
        counts[f"{verdict.status}, {verdict.rung}"] += 1
        counts["boxes"] += 1
        if verdict.status == "certified":
            counts["wrong"] += int(true < -ROUNDING or verdict.margin > true + close)
        elif verdict.status == "unknown":
            counts["unknown without need"] += int(abs(true) >= close)
        else:
            outside = not within(verdict, u, epsilon, domain)
            kept = outputs(network, slope, verdict.counterexample[None])[0].argmax() == label
            counts["wrong"] += int(outside or kept or true > close)
    return counts


def within(
    verdict: Verdict, u: np.ndarray, epsilon: float, domain: tuple[float, float] | None
) -> bool:
    """Whether a counterexample is in the box, exactly."""
    at = verdict.counterexample
    if at is None or not np.isfinite(at).all():
        return False
    inside = all(
        abs(Fraction(a) - Fraction(b)) <= Fraction(epsilon)
        for a, b in zip(at.tolist(), u.tolist(), strict=True)
    )
    return inside and (domain is None or bool(((at >= domain[0]) & (at <= domain[1])).all()))


def several(seed: int, first: int) -> Counter[str]:
    return sum((decided(seed, first + k) for k in range(CHUNK)), Counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    start, starts = time.perf_counter(), range(0, arguments.networks, CHUNK)
    parts = joblib.Parallel(arguments.jobs, return_as="generator_unordered")(
        joblib.delayed(several)(arguments.seed, first) for first in starts
    )
    counts = sum(track(parts, "networks", len(starts)), Counter(wrong=0))
    write(
        "random_boxes",
        {
            "machine": machine(1),
            "seed": arguments.seed,
            "seconds": time.perf_counter() - start,
            "counts": dict(sorted(counts.items())) | {"wrong": counts["wrong"]},
        },
    )
    if counts["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
