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
from scipy import sparse

from contraction_nets.certificates import exact, exact_equilibrium
from contraction_nets.certificates.exact import (
    exact_bound,
    prove_abscissa,
    prove_bound,
    prove_gains,
    prove_measure,
    prove_pairs,
    prove_well_posed,
)
from contraction_nets.certificates.exact_equilibrium import prove_equilibrium
from contraction_nets.certificates.weights import parse_activation

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


@settings(deadline=None, max_examples=200)
@given(networks(positive_witness=False), st.data())
def test_pairs_and_radii_are_the_rational_ones(network, data):
    A, B, C, D, z = network
    q, p = len(C), B.shape[1]
    epsilon = np.abs(data.draw(hnp.arrays(np.float32, p, elements=floats(np.float32))))
    bounds = data.draw(hnp.arrays(np.float64, (q, q), elements=floats(np.float64)))
    (radii,) = rational(epsilon)

    def weighted(row):
        return sum((abs(v) * e for v, e in zip(row, radii, strict=True)), Fraction(0))

    slack, drive = state_slack(A, z), [weighted(row) for row in rational(B)]
    well_posed = bool((z > 0).all()) and all(s > 0 for s in slack)
    states = well_posed and all(s >= b for s, b in zip(slack, drive, strict=True))
    c, d = rational(C), rational(np.zeros((q, p)) if D is None else D)
    (x,) = rational(z)

    def gain(row, feed):
        return sum((abs(v) * t for v, t in zip(row, x, strict=True)), Fraction(0)) + weighted(feed)

    bound = float(bounds[0, 0])
    rows = [gain(c[k], d[k]) for k in range(q)]
    assert prove_bound(A, B, C, D, z, bound, epsilon) == (
        states and all(row <= Fraction(bound) for row in rows)
    )
    pairs = [
        [gain([a - b for a, b in zip(c[i], c[j], strict=True)],
              [a - b for a, b in zip(d[i], d[j], strict=True)]) for j in range(q)]
        for i in range(q)
    ]  # fmt: skip
    claimed = rational(bounds)
    assert prove_pairs(A, B, C, D, z, bounds, epsilon) == (
        states and all(pairs[i][j] <= claimed[i][j] for i in range(q) for j in range(q))
    )


@settings(deadline=None, max_examples=200)
@given(networks(), st.data())
def test_gains_are_the_rational_ones(network, data):
    A, B, C, D, z = network
    n, p, q = len(A), B.shape[1], len(C)
    if data.draw(st.booleans()):  # well-posed, so that the other conditions decide
        A, z = -np.abs(np.diag(np.diag(A))), np.ones(n)
    Y = data.draw(hnp.arrays(np.float32, (q, n), elements=floats(np.float32)))
    G = data.draw(hnp.arrays(np.float64, (q, p), elements=floats(np.float64)))
    slack = state_slack(A, z)
    proved = bool((z > 0).all()) and all(s > 0 for s in slack)
    transposed = np.ascontiguousarray(A.T)
    b, c, d, g = (rational(x) for x in (B, C, np.zeros((q, p)) if D is None else D, G))
    for k in range(q):
        proved &= all(s >= abs(v) for s, v in zip(state_slack(transposed, Y[k]), c[k], strict=True))
        (y,) = rational(Y[k])
        for j in range(p):
            gain = sum((y[i] * abs(b[i][j]) for i in range(n)), abs(d[k][j]))
            proved &= gain <= g[k][j]
    assert prove_gains(A, B, C, D, z, Y, G) == proved


@settings(deadline=None, max_examples=200)
@given(networks(positive_witness=False), floats(np.float64), st.booleans())
def test_lower_bounds_on_the_abscissa_are_the_rational_ones(network, rho, positive):
    A, x = network[0], np.abs(network[4]) if positive else network[4]
    (v,) = rational(x)
    rows = [v[i] - s for i, s in enumerate(state_slack(A, x))]  # M x
    expected = (
        all(t >= 0 for t in v)
        and any(t > 0 for t in v)
        and all(row >= Fraction(rho) * t for row, t in zip(rows, v, strict=True))
    )
    assert prove_abscissa(A, rho, x) == expected


def test_measure_and_abscissa_meet_at_the_perron_vector():
    A = np.array([[0.0, -4.0], [1.0, 0.0]])
    assert prove_measure(A, 2.0, [2.0, 1.0])
    assert prove_abscissa(A, 2.0, [2.0, 1.0])
    assert not prove_abscissa(A, math.nextafter(2.0, 3), [2.0, 1.0])
    assert not prove_abscissa(A, 2.0, [2.0, 1.0 + 2.0**-52])
    assert not prove_abscissa(A, -9.0, [0.0, 0.0])


@settings(deadline=None, max_examples=150)
@given(networks(positive_witness=False), st.integers(0, 2**32 - 1))
def test_sparse_matrices_are_judged_as_full_ones(network, seed):
    rng = np.random.default_rng(seed)
    *matrices, z = network
    matrices = [
        None if x is None else x.astype(np.float64) * (rng.uniform(size=x.shape) < 0.5)
        for x in matrices
    ]
    thin = [None if x is None else sparse.csr_array(x) for x in matrices]
    A, C, D, q = matrices[0], *matrices[2:], len(matrices[2])
    bound = float(rng.choice([0.0, 1.0, 1e300]))
    wide = np.full((q, q), bound)
    assert prove_well_posed(thin[0], z) == prove_well_posed(A, z)
    assert prove_bound(*thin, z, bound) == prove_bound(*matrices, z, bound)
    assert prove_pairs(*thin, z, wide) == prove_pairs(*matrices, z, wide)
    assert prove_measure(thin[0], bound, np.abs(z)) == prove_measure(A, bound, np.abs(z))
    assert prove_abscissa(thin[0], -bound, np.abs(z)) == prove_abscissa(A, -bound, np.abs(z))
    assert exact_bound(thin[2], thin[3], np.abs(z)) == exact_bound(C, D, np.abs(z))
    Y, G = rng.normal(size=C.shape), np.full((q, matrices[1].shape[1]), bound)
    assert prove_gains(*thin, z, Y, G) == prove_gains(*matrices, z, Y, G)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5, 64, 65, 300]), st.booleans())
def test_sums_of_long_rows_are_the_rational_ones(seed, n, as_sparse):
    """Of numbers of any exponent and either sign, nearly equal ones, zeros, and whole digits."""
    rng = np.random.default_rng(seed)
    spread = int(rng.choice([0, 3, 40, 1000]))
    A, v = (
        np.ldexp(
            rng.choice([rng.uniform(0.5, 1), 1 - 2.0**-53]), rng.integers(-spread, spread + 1, s)
        )
        * rng.choice([-1.0, 0.0, 1.0], s, p=[0.45, 0.1, 0.45])
        for s in ((3, n), n)
    )
    A[1, : n // 2] = -A[1, n - n // 2 :]
    matrix = exact.read_matrix(sparse.csr_array(A) if as_sparse else A, "A")
    sums = exact.row_sums(matrix, exact.read_vector(v, "v"), lambda m, on_diagonal: m)
    for (m, e), row in zip(sums, rational(A), strict=True):
        expected = sum((a * x for a, x in zip(row, *rational(v), strict=True)), Fraction(0))
        assert m * Fraction(2) ** e == expected


@pytest.mark.parametrize("n", [1, 2, 3, 4095, 4096, 4097, 2**16 + 1])
def test_no_sum_of_digits_overflows(n):
    x = 1 - 2.0**-53  # 53 ones: each of its digits is as large as can be
    for y in (x, -x, 2.0**-537, np.ldexp(x, 7), np.ldexp(x, -1000)):
        ((m, e),) = exact.row_sums(
            exact.read_matrix(np.full((1, n), x), "A"),
            exact.read_vector(np.full(n, y), "v"),
            lambda m, on_diagonal: m,
        )
        assert m * Fraction(2) ** e == n * Fraction(x) * Fraction(y)


def test_many_chunks_are_one_matrix(monkeypatch):
    rng = np.random.default_rng(0)
    A, B, C = rng.normal(size=(40, 40)) / 50, rng.normal(size=(40, 7)), rng.normal(size=(3, 40))
    z = np.full(40, 60.0)
    bound = exact_bound(C, None, z)
    for size in (1, 13, 40, 41, 10**6):
        monkeypatch.setattr(exact, "_CHUNK", size)
        for convert in (np.asarray, sparse.csr_array):
            matrices = convert(A), convert(B), convert(C)
            assert exact_bound(matrices[2], None, z) == bound
            assert prove_bound(*matrices, None, z, bound)
            assert not prove_bound(*matrices, None, z, math.nextafter(bound, 0))


def exact_relu_equilibrium(A, drive):
    """The solution of x = relu(A x + drive) for fractions, by trying every active set."""
    n = len(A)
    a = rational(A)
    for active in range(2**n):
        on = [i for i in range(n) if active >> i & 1]
        rows = [[(i == j) - a[i][j] for j in on] + [drive[i]] for i in on]
        for k in range(len(on)):  # Gauss–Jordan; the pivots of I − A are not zero here
            rows[k] = [v / rows[k][k] for v in rows[k]]
            for r in range(len(on)):
                if r != k:
                    rows[r] = [v - rows[r][k] * w for v, w in zip(rows[r], rows[k], strict=True)]
        x = [Fraction(0)] * n
        for k, i in enumerate(on):
            x[i] = rows[k][-1]
        v = [sum((a[i][j] * x[j] for j in range(n)), drive[i]) for i in range(n)]
        if all(x[i] == max(v[i], Fraction(0)) for i in range(n)):
            return x
    raise AssertionError


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_proved_distance_is_never_below_the_rational_one(seed, n):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) / n
    np.fill_diagonal(A, rng.choice([-8.0, -1.0, 0.0, 0.4], n))
    M = np.abs(A)
    np.fill_diagonal(M, np.diag(A))
    z = np.linalg.solve(np.eye(n) - M, np.ones(n))
    if not prove_well_posed(A, z):
        return
    B, b, u = np.round(rng.normal(size=(n, 2)), 2), np.round(rng.normal(size=n), 2), np.ones(2)
    (left, right), (bias,) = rational(B.T), rational(b)
    exact_drive = [x + y + c for x, y, c in zip(left, right, bias, strict=True)]
    x_exact = exact_relu_equilibrium(A, exact_drive)
    x = np.array([float(v) for v in x_exact]) + rng.normal(size=n) * 10.0 ** rng.integers(-17, 2)
    slack = np.maximum(1, 1 - np.diag(A)) * np.abs(x - np.maximum(A @ x + B @ u + b, 0))
    w = np.linalg.solve(np.eye(n) - M, slack) * rng.uniform(0.2, 1.1) + 1e-16
    distance = max(abs(Fraction(float(v)) - t) for v, t in zip(x, x_exact, strict=True))
    claimed = float(w.max())
    if prove_equilibrium(A, B, b, ("relu", None), u, x, z, w, claimed):
        assert distance <= Fraction(claimed)
    sound = np.linalg.solve(np.eye(n) - M, slack + 1e-12) * (1 + 1e-9)
    assert prove_equilibrium(A, B, b, ("relu", None), u, x, z, sound, float(sound.max()))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["tanh", "sigmoid", "softplus", "elu", "elu(0.3)"]),
    floats(np.float64) | st.floats(-60, 60),
)
def test_transcendental_activations_are_enclosed_tightly(spec, v):
    mpmath = pytest.importorskip("mpmath")
    name, parameter = parse_activation(spec)
    with mpmath.workprec(400):
        x = mpmath.mpf(v)
        t = mpmath.exp(-abs(x))
        value = {
            "tanh": lambda: mpmath.tanh(x),
            "sigmoid": lambda: 1 / (1 + mpmath.exp(-x)) if x >= 0 else t / (1 + t),
            "softplus": lambda: mpmath.log1p(t) + max(x, 0),
            "elu": lambda: x if x >= 0 else mpmath.mpf(parameter) * (t - 1),
        }[name]()
        (m, e), (m2, e2) = exact_equilibrium._activation(name, parameter, exact.read_number(v, "v"))
        low, high = mpmath.ldexp(m, e), mpmath.ldexp(m2, e2)
        assert low <= value <= high
        assert high - low <= (1 + abs(x)) * mpmath.mpf(2) ** -190


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


@pytest.mark.parametrize("other", [sparse.csc_array, sparse.bsr_array])
def test_a_sparse_matrix_that_is_not_by_rows_is_refused(other):
    """By columns it would be read as its transpose, whose bound is another."""
    A, B, C, z = np.array([[0.0, 0.5], [0.0, 0.0]]), np.eye(2), np.eye(2), [1.0, 1.5]
    assert not prove_bound(A, B, C, None, z, 1.5)
    assert not prove_bound(sparse.csr_array(A), B, C, None, z, 1.5)
    with pytest.raises(ValueError, match="expected csr"):
        prove_bound(other(A), B, C, None, z, 1.5)


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
