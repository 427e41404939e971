"""Verdicts where the smallest margin is a few roundings from zero, known in fractions."""

from fractions import Fraction

import numpy as np
import pytest
from brute_force import exact_smallest_margin

from contraction_nets import ImplicitWeights, verify_robustness

SHIFTS = (0.0, -2e-16, 2e-16, -1e-14, 1e-14, 1e-12, -1e-12, 1e-9, -1e-9, 1e-5, -1e-5)


@pytest.mark.parametrize("seed", range(14))
def test_no_rounding_turns_a_verdict(seed):
    rng = np.random.default_rng(seed)
    n, p = rng.integers(1, 4), rng.integers(1, 3)
    diagonal = rng.choice([-1e3, -1.0, 0.0, 0.5, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12], n)
    A = rng.normal(size=(n, n)) * (1 - np.eye(n))
    sums = np.maximum(np.abs(A).sum(axis=1), 1e-9)
    A = A * ((1 - diagonal) * rng.choice([0.0, 0.3, 0.9], n) / sums)[:, None] + np.diag(diagonal)
    B = rng.normal(size=(n, p)) * 10.0 ** rng.choice([-6, 0, 0, 6])
    C = rng.normal(size=(2, n)) * 10.0 ** rng.choice([-3, 0, 0, 3])
    b = rng.normal(size=n) * np.abs(B).max() * rng.choice([0.0, 0.3])
    slope = float(rng.choice([0.0, 0.0, 0.1, 1 - 1e-8, 1 - 1e-12]))
    u, epsilon = rng.uniform(size=p), float(rng.choice([0.1, 0.5]))
    least = exact_smallest_margin(
        A, B, C, b, slope,
        [Fraction(v) - Fraction(epsilon) for v in u.tolist()],
        [Fraction(v) + Fraction(epsilon) for v in u.tolist()],
    )  # fmt: skip
    decided = set()
    for shift in SHIFTS:
        c = [float(-least) * (1 + shift), 0.0]
        exact = least + Fraction(c[0])
        weights = ImplicitWeights(A, B, C, b=b, c=c, activation=f"leaky_relu({slope!r})")
        for method in ("interval", "auto"):
            verdict = verify_robustness(
                weights, u[None], [0], epsilon, domain=None, method=method, time_limit=5
            ).verdicts[0]
            if verdict.status == "certified":
                assert exact >= Fraction(verdict.margin) > 0
            if verdict.status == "falsified":
                assert exact < 0
                at = verdict.counterexample.tolist()
                assert all(
                    abs(Fraction(v) - Fraction(w)) <= Fraction(epsilon)
                    for v, w in zip(at, u.tolist(), strict=True)
                )
            decided.add(verdict.status)
    assert "unknown" in decided  # at zero, nothing is to be known


def test_fractions_agree_with_a_network_worked_out_by_hand():
    # x = max(0, 2 u − 1) on [0, 1] and −x: the margin is 2 x, least 0 at u ≤ 1/2.
    A, B, C, b = np.zeros((1, 1)), [[2.0]], [[1.0], [-1.0]], [-1.0]
    box = [Fraction(3, 4)], [Fraction(1)]
    assert exact_smallest_margin(A, np.array(B), np.array(C), np.array(b), 0.0, *box) == 1
