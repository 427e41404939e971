"""The proved distance of computed states from equilibria: never too small, and hardly too large."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from test_certificates import contracting
from test_exact import exact_relu_equilibrium, rational

from contraction_nets import (
    ImplicitWeights,
    NotWellPosedError,
    equilibrium_statement,
    verify_document,
)
from contraction_nets.certificates import weights as weights_file
from contraction_nets.certificates.document import load_certificate, save_statement
from contraction_nets.certificates.exact import at_most, read_number
from contraction_nets.certificates.exact_equilibrium import _activation
from contraction_nets.certificates.states import _ACTIVATIONS

SPECS = ["relu", "leaky_relu(0.3)", "tanh", "sigmoid", "softplus", "elu", "elu(0.5)"]
seeds = st.integers(0, 2**32 - 1)
BITS = 200


def network(rng, activation, *, n=None, spread=1.0, gamma=None):
    n, p = n or int(rng.integers(1, 7)), int(rng.integers(1, 4))
    A = contracting(rng, n, gamma or rng.uniform(0.1, 0.9), spread=spread)
    B, b = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-2, 3), rng.normal(size=n)
    return ImplicitWeights(A, B, np.ones((1, n)), b=b, activation=activation), rng.normal(size=p)


def fixed(value):
    """A number in units of 2**-BITS, rounded; sums and products of such numbers are integers."""
    return round(Fraction(value) * 2**BITS)


def long_equilibrium(weights, u):
    """The equilibrium in 200 bits, by the average iteration until it stands still."""
    A = [[fixed(a) for a in row] for row in weights.A.tolist()]
    drive = [
        fixed(
            sum(
                (Fraction(w) * Fraction(v) for w, v in zip(row, u.tolist(), strict=True)),
                Fraction(c),
            )
        )
        for row, c in zip(weights.B.tolist(), weights.b.tolist(), strict=True)
    ]
    phi = weights_file.parse_activation(weights.activation)
    step = fixed(1.0 / (1.0 + max(0.0, -weights.A.diagonal().min())))
    x, moved = [0] * len(A), 1 << BITS
    while moved > 1 << (BITS - 100):
        images = []
        for row, s in zip(A, drive, strict=True):
            v = (sum(a * t for a, t in zip(row, x, strict=True)) >> BITS) + s
            low, _ = _activation(*phi, (v, -BITS))
            images.append(
                low[0] << (low[1] + BITS) if low[1] >= -BITS else low[0] >> (-low[1] - BITS)
            )
        change = [(step * (image - t)) >> BITS for image, t in zip(images, x, strict=True)]
        x = [t + d for t, d in zip(x, change, strict=True)]
        moved = max(map(abs, change))
    return [Fraction(t, 2**BITS) for t in x]


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from(SPECS), st.booleans())
def test_the_distance_contains_the_true_one(seed, activation, elsewhere):
    rng = np.random.default_rng(seed)
    weights, u = network(rng, activation)
    x = None
    if elsewhere:
        x = rng.normal(size=weights.state_dim) * 10.0 ** rng.integers(-3, 3)
    statement = equilibrium_statement(weights, u, x)
    assert statement.prove(weights)
    assert statement.distance == statement.w.max()
    if x is not None:
        assert (statement.state == x).all()
    reference = long_equilibrium(weights, u)
    true = [abs(Fraction(s) - t) for s, t in zip(statement.state.tolist(), reference, strict=True)]
    # The reference itself stands still at 2**-100 per step, of which there are few hundred left.
    assert all(
        d <= Fraction(w) + Fraction(2.0**-80)
        for d, w in zip(true, statement.w.tolist(), strict=True)
    )


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_the_distance_contains_the_rational_one_and_is_attained_without_signs(seed):
    rng = np.random.default_rng(seed)
    weights, u = network(rng, "relu", n=int(rng.integers(1, 5)))
    drive = [
        sum((x * y for x, y in zip(row, v, strict=True)), c)
        for (v,), row, c in zip(
            [rational(u)] * weights.state_dim,
            rational(weights.B),
            *rational(weights.b),
            strict=True,
        )
    ]
    exact = exact_relu_equilibrium(weights.A, drive)
    off = rng.normal(size=weights.state_dim) * 10.0 ** rng.integers(-15, 2)
    for x in (None, np.array([float(v) for v in exact]) + off):
        statement = equilibrium_statement(weights, u, x)
        true = max(
            abs(Fraction(s) - t) for s, t in zip(statement.state.tolist(), exact, strict=True)
        )
        assert true <= Fraction(statement.distance)


def test_the_distance_is_attained_where_no_sign_can_help():
    # A ≥ 0, and relu is active everywhere: (I − A) d = r exactly.
    A = np.array([[0.25, 0.5], [0.125, 0.5]])
    weights = ImplicitWeights(A, np.eye(2), np.eye(2))
    r = np.array([2.0**-10, 2.0**-11])
    x = np.array([8.0, 4.0])
    u = x - A @ x - r  # so that x − (A x + u) = r
    statement = equilibrium_statement(weights, u, x)
    true = np.linalg.solve(np.eye(2) - A, r).max()
    assert true * (1 - 1e-12) <= statement.distance <= true * (1 + 1e-12)


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from(SPECS))
def test_a_computed_state_is_as_close_as_float64_permits(seed, activation):
    rng = np.random.default_rng(seed)
    weights, u = network(rng, activation)
    statement = equilibrium_statement(weights, u)
    A, x = np.abs(weights.A), np.abs(statement.state)
    M = np.where(np.eye(len(A), dtype=bool), weights.A, A)
    steps = np.maximum(1.0, 1.0 - np.diag(weights.A))
    terms = A @ x + np.abs(weights.B) @ np.abs(u) + np.abs(weights.b) + x
    assert statement.distance <= 2.0**-50 * np.linalg.solve(np.eye(len(A)) - M, steps * terms).max()


def test_an_equilibrium_that_is_a_float_has_no_distance():
    weights = ImplicitWeights([[0.5, 0.0], [0.0, -1.0]], [[1.0], [2.0]], np.eye(2))
    statement = equilibrium_statement(weights, [1.0])
    np.testing.assert_array_equal(statement.state, [2.0, 1.0])
    assert statement.distance == 0.0
    assert statement.prove(weights)


@pytest.mark.parametrize("activation", SPECS)
def test_sparse_and_single_precision_weights(activation):
    rng = np.random.default_rng(4)
    weights, u = network(rng, activation, n=30)
    arrays = {name: x.astype(np.float32) for name, x in weights.arrays().items()}
    single = ImplicitWeights(**arrays, activation=activation)
    thin = ImplicitWeights(**{**arrays, "A": sparse.csr_array(arrays["A"])}, activation=activation)
    for stored in (single, thin):
        statement = equilibrium_statement(stored, u.astype(np.float32))
        assert statement.prove(stored)
        assert statement.distance < 1e-12 * (1 + np.abs(statement.state).max())


def test_large_sparse_networks():
    rng, n = np.random.default_rng(0), 2500
    A = sparse.random_array((n, n), density=0.002, rng=rng) * 0.3
    weights = ImplicitWeights(A, rng.normal(size=(n, 2)), np.ones((1, n)), activation="tanh")
    statement = equilibrium_statement(weights, [1.0, -2.0])
    assert statement.prove(weights)
    assert statement.distance < 1e-13


@pytest.mark.parametrize("gamma", [1 - 1e-6, 1 - 1e-9])
def test_states_of_many_scales_next_to_the_limit(gamma):
    weights, u = network(np.random.default_rng(2), "softplus", n=8, spread=4.0, gamma=gamma)
    statement = equilibrium_statement(weights, u)
    assert statement.prove(weights)
    assert statement.distance < 1e-4 * np.abs(statement.state).max()


def test_newton_steps_that_do_not_converge_are_replaced():
    # From far away, steep states overshoot.
    weights = ImplicitWeights([[-300.0]], [[1.0]], [[1.0]], activation="tanh")
    for u in (0.0, 1.0, 1e3, -1e6):
        statement = equilibrium_statement(weights, [u])
        assert statement.distance < 1e-13


@settings(deadline=None, max_examples=40)
@given(seeds, st.sampled_from(SPECS))
def test_what_is_tampered_with_is_refused(seed, activation):
    rng = np.random.default_rng(seed)
    weights, u = network(rng, activation)
    x = rng.normal(size=weights.state_dim)
    statement = equilibrium_statement(weights, u, x)
    i = int(rng.integers(len(x)))
    moved = x.copy()
    moved[i] += 10 * (1 + np.abs(weights.A).max()) * (1 + statement.distance) * rng.choice([-1, 1])
    assert not replace(statement, state=moved).prove(weights)
    assert not replace(statement, distance=math.nextafter(statement.distance, 0)).prove(weights)
    assert not replace(statement, w=statement.w * 0.99, distance=statement.distance).prove(weights)
    assert not replace(statement, z=-statement.z).prove(weights)
    if activation == "relu":
        pushed = ImplicitWeights(
            **{**weights.arrays(), "b": weights.b + 1e4 * (1 + statement.distance)}
        )
        assert not statement.prove(pushed)


def test_a_document_of_one_state(tmp_path):
    weights, u = network(np.random.default_rng(0), "elu(0.5)")
    path = tmp_path / "state.json"
    save_statement(equilibrium_statement(weights, u), weights, path)
    assert verify_document(path, weights)
    statement = load_certificate(path).statement
    np.testing.assert_array_equal(statement.input, u)
    content = json.loads(path.read_text())
    moved = float.fromhex(content["statement"]["state"][0]) + 1e-3
    content["statement"]["state"][0] = moved.hex()
    content["statement"]["state_decimal"][0] = moved
    path.write_text(json.dumps(content))
    assert load_certificate(path).objection(weights).startswith("the witness")


def test_every_activation_is_evaluated():
    known = {*weights_file._PLAIN, *weights_file._PARAMETERS}
    assert set(_ACTIVATIONS) == known == {spec.partition("(")[0] for spec in SPECS}
    for spec in SPECS:
        name, parameter = weights_file.parse_activation(spec)
        phi, slope = _ACTIVATIONS[name]
        v = np.linspace(-3.0, 3.0, 14)
        for point, value in zip(v.tolist(), phi(v, parameter).tolist(), strict=True):
            low, high = _activation(name, parameter, read_number(point, "v"))
            assert at_most(low, read_number(value + 1e-15, "φ"))
            assert at_most(read_number(value - 1e-15, "φ"), high)
        difference = (phi(v + 1e-6, parameter) - phi(v - 1e-6, parameter)) / 2e-6
        np.testing.assert_allclose(slope(v, parameter), difference, atol=1e-8)


def test_bad_arguments():
    weights = ImplicitWeights([[0.5]], [[1.0, 0.0]], [[1.0]])
    for u, x in (
        ([1.0], None),
        ([1.0, np.nan], None),
        ([[1.0, 2.0]], None),
        ([1.0, 2.0], [1.0, 2.0]),
    ):
        with pytest.raises(ValueError, match="expected"):
            equilibrium_statement(weights, u, x)
    with pytest.raises(NotWellPosedError):
        equilibrium_statement(ImplicitWeights([[1.5]], [[1.0]], [[1.0]]), [1.0])
    steep = ImplicitWeights([[-1e200]], [[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="leave out x"):
        equilibrium_statement(steep, [1.0], [1e200])
    with pytest.raises(ValueError, match="range of float64"):
        equilibrium_statement(ImplicitWeights([[0.5]], [[1e300]], [[1.0]]), [1e300])


@pytest.fixture
def files(tmp_path):
    weights, u = network(np.random.default_rng(1), "tanh", n=5)
    weights = ImplicitWeights(**weights.arrays() | {"C": np.ones((2, 5))}, activation="tanh")
    weights.save(tmp_path / "w.npz")
    np.savetxt(tmp_path / "u.csv", u[None], delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "many.csv", [u, u], delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "x.csv", np.zeros(5))
    return tmp_path


def test_the_command_states_an_equilibrium(command, files):
    out = files / "f.json"
    arguments = (
        "certify",
        files / "w.npz",
        "--statement",
        "equilibrium",
        "--inputs",
        files / "u.csv",
    )
    code, text, err = command(*arguments, "--out", out)
    assert (code, err) == (0, "")
    assert "from the equilibrium, proved" in " ".join(text.split())
    assert command("verify", out, files / "w.npz")[0] == 0
    found = load_certificate(out).statement
    np.testing.assert_array_equal(found.input, np.loadtxt(files / "u.csv", delimiter=","))
    code, text, err = command(*arguments, "--state", files / "x.csv", "--out", out, "--json")
    assert (code, err) == (0, "")
    report = json.loads(text)["equilibrium"]
    assert report["state"] == [0.0] * 5
    given = load_certificate(out).statement
    assert given.distance == report["distance"] > found.distance
    assert command("verify", out, files / "w.npz")[0] == 0
    radii = files / "radii.csv"
    assert command(*arguments, "--radii", radii)[0] == 0
    assert len(radii.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--statement", "equilibrium"),
        ("--statement", "equilibrium", "--inputs", "many.csv"),
        ("--statement", "equilibrium", "--inputs", "x.csv"),
        ("--statement", "equilibrium", "--inputs", "u.csv", "--state", "u.csv"),
        ("--statement", "equilibrium", "--inputs", "u.csv", "--state", "many.csv"),
        ("--statement", "equilibrium", "--inputs", "none.csv"),
        ("--statement", "equilibrium", "--state", "x.csv"),
        ("--statement", "gains", "--inputs", "u.csv"),
        ("--state", "x.csv"),
        ("--inputs", "u.csv"),
    ],
)
def test_what_does_not_go_together_is_refused(command, files, arguments):
    before = sorted(files.iterdir())
    arguments = [files / part if part.endswith(".csv") else part for part in arguments]
    code, text, err = command("certify", files / "w.npz", "--out", files / "f.json", *arguments)
    assert (code, text) == (2, "")
    assert err.startswith("error: ")
    assert "expected" in err
    assert err.count("\n") == 1
    assert sorted(files.iterdir()) == before
