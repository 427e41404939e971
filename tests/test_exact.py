"""Exact proofs against rational arithmetic, and at the last bit."""

import math
import shutil
from fractions import Fraction

import numpy as np
import pytest
from fresh import python
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contraction_nets.certificates import exact
from contraction_nets.certificates.exact import (
    exact_bound,
    prove_bound,
    prove_measure,
    prove_well_posed,
)

EXTREMES = [5e-324, 2.2e-308, 1e-300, 1e-45, 1e-30, 0.5, 1.0, 3.0, 1e30, 1e300, 1.7e308]


def floats(dtype):
    """All finite numbers of a dtype, extremes often."""
    info = np.finfo(dtype)
    extremes = [x for x in EXTREMES if float(info.smallest_subnormal) <= x <= float(info.max)]
    special = st.sampled_from(
        [0.0, *(np.dtype(dtype).type(s * x) for x in extremes for s in (1, -1))]
    )
    return special | hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)


@st.composite
def networks(draw, positive_witness=True):
    """(A, B, C, D, z) of any finite floats, in any mixture of dtypes."""
    n, p, q = (draw(st.integers(1, 4)) for _ in range(3))
    dtypes = st.sampled_from([np.float16, np.float32, np.float64])

    def array(*shape):
        dtype = draw(dtypes)
        return draw(hnp.arrays(dtype, shape, elements=floats(dtype)))

    A, B, C = array(n, n), array(n, p), array(q, n)
    D = array(q, p) if draw(st.booleans()) else None
    z = array(n)
    return A, B, C, D, np.abs(z) if positive_witness else z


def rational(values):
    return [[Fraction(float(v)) for v in row] for row in np.atleast_2d(values)]


def state_slack(A, z):
    """(I − M) z as fractions."""
    a, (x,) = rational(A), rational(z)
    off = [
        sum((abs(a[i][j]) * x[j] for j in range(len(x)) if j != i), Fraction(0))
        for i in range(len(x))
    ]
    return [x[i] - a[i][i] * x[i] - off[i] for i in range(len(x))]


def output_rows(C, D, z):
    c, (x,) = rational(C), rational(z)
    gains = [sum((abs(v) * t for v, t in zip(row, x, strict=True)), Fraction(0)) for row in c]
    if D is not None:
        gains = [
            g + sum(map(abs, row), Fraction(0)) for g, row in zip(gains, rational(D), strict=True)
        ]
    return gains


@settings(deadline=None, max_examples=300)
@given(networks(positive_witness=False), floats(np.float64))
def test_every_answer_is_the_rational_one(network, bound):
    A, B, C, D, z = network
    slack, inputs = state_slack(A, z), [sum(map(abs, row)) for row in rational(B)]
    well_posed = bool((z > 0).all()) and all(s > 0 for s in slack)
    assert prove_well_posed(A, z) == well_posed
    feasible = well_posed and all(s >= b for s, b in zip(slack, inputs, strict=True))
    below = all(gain <= Fraction(bound) for gain in output_rows(C, D, z))
    assert prove_bound(A, B, C, D, z, bound) == (feasible and below)


@st.composite
def ties(draw):
    """Networks whose inequalities hold with equality, at scales from denormal to huge."""
    n, q = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    A = rng.integers(-8, 9, (n, n)) / 64.0
    np.fill_diagonal(A, -rng.integers(0, 64, n) / 64.0)
    z = rng.integers(50, 65, n) * 1.0
    slack = z - np.diag(A) * z - (np.abs(A) @ z - np.abs(np.diag(A)) * z)  # exact: small integers
    B = slack[:, None] * rng.choice([-1.0, 1.0], (n, 1))
    C = rng.integers(-9, 10, (q, n)) / 8.0
    D = rng.integers(-9, 10, (q, 1)) / 8.0
    s, t = draw(st.integers(-1060, 1000)), draw(st.integers(-1000, 900))
    t = min(t, 1000 - s) if s > 0 else max(t, -1060 - s)
    return A, np.ldexp(B, s), np.ldexp(C, t), np.ldexp(D, s + t), np.ldexp(z, s)


@settings(deadline=None, max_examples=200)
@given(ties(), st.integers(0, 3))
def test_equality_is_a_proof_and_one_ulp_less_is_none(network, i):
    A, B, C, D, z = network
    i %= len(B)
    bound = exact_bound(C, D, z)
    assert Fraction(bound) == max(output_rows(C, D, z))
    assert prove_bound(A, B, C, D, z, bound)
    assert not prove_bound(A, B, C, D, z, np.nextafter(bound, -np.inf))
    larger = B.copy()
    larger[i, 0] = np.nextafter(B[i, 0], np.copysign(np.inf, B[i, 0]))
    assert not prove_bound(A, larger, C, D, z, bound)
    heavier = A.copy()
    heavier[i, i] = np.nextafter(A[i, i], np.inf)
    assert not prove_bound(heavier, B, C, D, z, bound)
    smaller = z.copy()
    smaller[i] = np.nextafter(z[i], 0.0)
    assert not prove_bound(A, B, C, D, smaller, float(np.finfo(float).max))
    larger = C.copy()
    k = int(np.argmax([float(row) for row in output_rows(C, D, z)]))
    larger[k] = np.nextafter(C[k], np.copysign(np.inf, C[k]))
    assert not prove_bound(A, B, larger, D, z, bound)


@settings(deadline=None, max_examples=200)
@given(networks())
def test_exact_bound_is_the_smallest_float_above(network):
    _, _, C, D, z = network
    exact, bound = max(output_rows(C, D, z)), exact_bound(C, D, z)
    if bound == math.inf:
        assert exact > Fraction(float(np.finfo(np.float64).max))
    else:
        assert Fraction(bound) >= exact
        assert bound == 0.0 or Fraction(float(np.nextafter(bound, -np.inf))) < exact


@settings(deadline=None, max_examples=200)
@given(networks(positive_witness=False), floats(np.float64), st.booleans())
def test_measure_is_the_rational_one(network, gamma, weighted):
    A, eta = network[0], network[4]
    weights = eta if weighted else np.ones(len(A))
    (x,) = rational(weights)
    rows = [x[i] - s for i, s in enumerate(state_slack(A, weights))]  # M η
    expected = all(v > 0 for v in x) and all(
        row <= Fraction(gamma) * v for row, v in zip(rows, x, strict=True)
    )
    assert prove_measure(A, gamma, weights if weighted else None) == expected


def test_measure_at_the_last_bit():
    A = np.array([[-0.5, 0.25], [0.75, 0.0]], dtype=np.float32)
    assert prove_measure(A, 0.75)
    assert not prove_measure(A, np.nextafter(0.75, 0.0))
    assert prove_measure(A, 0.375, [1.0, 2.0])
    assert not prove_measure(A, np.nextafter(0.375, 0.0), [1.0, 2.0])


def test_rounding_in_floating_point_would_say_otherwise():
    # 1 − 0.9 − 0.1 in floats is negative or zero; the stored 0.9 and 0.1 sum to less than 1.
    A = np.array([[0.9, 0.1], [0.0, 0.0]])
    exact = Fraction(0.9) + Fraction(0.1) < 1
    assert prove_well_posed(A, np.ones(2)) == exact
    tiny = np.array([[1.0 - 2.0**-53, 5e-324], [0.0, 0.0]])
    assert prove_well_posed(tiny, np.ones(2))
    assert not prove_well_posed(np.array([[1.0, 5e-324], [0.0, 0.0]]), np.ones(2))
    assert not prove_well_posed(np.array([[1.0, 0.0], [0.0, 0.0]]), np.ones(2))


def test_byte_order_and_memory_layout_do_not_matter():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3)) / 10
    B, C, z = rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), np.full(3, 10.0)
    bound = exact_bound(C, None, z)
    for convert in (
        np.asfortranarray,
        lambda x: x.astype(">f8"),
        lambda x: np.repeat(x, 2, 0)[::2],
    ):
        assert exact_bound(convert(C), None, z) == bound
        assert prove_bound(convert(A), convert(B), convert(C), None, z, bound)
        assert not prove_bound(convert(A), convert(B), convert(C), None, z, bound * (1 - 1e-15))


def test_denormals_count_where_the_processor_flushes_them():
    torch = pytest.importorskip("torch")
    A, z = np.zeros((1, 1)), np.array([3e-323])
    B, C = np.array([[2.5e-323, 5e-324]]), np.array([[1.0]])
    small = np.array([[1e-45]], dtype=np.float32)
    flushed = torch.set_flush_denormal(True)
    try:
        assert prove_bound(A, B, C, None, z, 3e-323)
        assert not prove_bound(A, np.hstack([B, B]), C, None, z, 3e-323)
        assert not prove_bound(A, B, C, None, z, 2.5e-323)
        assert prove_measure(small, 1.5e-45)
        assert not prove_measure(small, 0.0)
    finally:
        if flushed:
            torch.set_flush_denormal(False)


GOOD = {"A": [[0.5]], "B": [[1.0]], "C": [[1.0]], "D": [[0.0]], "z": [2.0], "bound": 2.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", [[np.nan]]),
        ("A", [[0.5, 0.5]]),
        ("A", [[1]]),
        ("A", [["a"]]),
        ("A", [[1j]]),
        ("B", [[np.inf]]),
        ("B", [[1.0], [1.0]]),
        ("B", np.zeros((1, 0))),
        ("C", [[1.0, 1.0]]),
        ("C", np.float32([[np.inf]])),
        ("D", [[0.0, 0.0]]),
        ("D", [[0.0], [0.0]]),
        ("z", [[2.0]]),
        ("z", []),
        ("z", [np.nan]),
        ("bound", np.nan),
        ("bound", np.inf),
        ("bound", 2**53 + 1),
    ],
)
def test_malformed_input_is_refused(name, value):
    assert prove_bound(**GOOD)
    with pytest.raises(ValueError, match="expected"):
        prove_bound(**{**GOOD, name: value})


def test_a_negative_witness_has_no_bound():
    with pytest.raises(ValueError, match="negative"):
        exact_bound([[1.0]], None, [-1.0])
    assert exact_bound([[1.7e308]], None, [1e10]) == math.inf


def test_the_verifier_stands_alone(tmp_path):
    # Copied to an empty folder it needs the standard library and numpy, nothing of this project.
    shutil.copy(exact.__file__, tmp_path / "verifier.py")
    script = """
import sys
import verifier
assert verifier.prove_bound([[0.5]], [[1.0]], [[3.0]], None, [2.0], 6.0)
assert not verifier.prove_bound([[0.5]], [[1.0]], [[3.0]], None, [2.0], 5.9)
print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""
    done = python(script, path=(tmp_path,), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not any(name.startswith(("contraction_nets", "scipy", "torch")) for name in loaded)
