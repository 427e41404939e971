"""The semidefinite bound proved in integers, against rational arithmetic and enumeration."""

from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import seeds, tight_sectors
from test_slopes import KINDS, exact_maximum, gain, network, row

from contraction_nets import ImplicitWeights, lipschitz_bounds, lipschitz_certificate
from contraction_nets.certificates import input_multipliers, sector_proof
from contraction_nets.certificates.document import (
    load_certificate,
    save_statement,
    verify_document,
)
from contraction_nets.certificates.exact import exact_bound
from contraction_nets.certificates.exact_sectors import prove_sectors

NAMES = ("A", "B", "C", "D", "z", "kappa", "mu", "nu", "factors", "bounds")


def statement(*weights, epsilon=None):
    return lipschitz_certificate(*weights, epsilon=epsilon).statement("sectors")


def rational(values):
    return np.vectorize(lambda v: Fraction(float(v)), otypes=[object])(values)


def judged(A, B, C, D, z, kappa, mu, nu, factors, bounds, epsilon=None):
    """What `prove_sectors` decides, entry by entry in fractions."""
    n, p, q = len(z), np.shape(B)[1], len(bounds)
    D = np.zeros((q, p)) if D is None else D
    epsilon = np.ones(p) if epsilon is None else epsilon
    A, B, C, D, z, kappa, mu, nu, factors, bounds, epsilon = map(
        rational, (A, B, C, D, z, kappa, mu, nu, factors, bounds, epsilon)
    )
    states = range(n)
    for i in states:
        off = sum(abs(A[i, j]) * z[j] for j in states if j != i)
        if not (z[i] > 0 and (1 - A[i, i]) * z[i] > off):
            return False
    for k in range(q):
        if sum(mu[k]) > bounds[k] or min(kappa[k]) < 0 or min(mu[k]) <= 0:
            return False
        if any(mu[k, j] * nu[k, j] < 1 for j in range(p)):
            return False
        T = np.empty((n + 1, n + 1), dtype=object)
        for i in states:
            for j in states:
                T[i, j] = kappa[k, i] * ((i == j) - A[i, j]) * z[j]
                T[i, j] += kappa[k, j] * ((i == j) - A[j, i]) * z[i]
            T[i, n] = T[n, i] = C[k, i] * z[i]
        T[n, n] = bounds[k]
        for j in range(p):
            w = [-kappa[k, i] * B[i, j] * epsilon[j] for i in states] + [D[k, j] * epsilon[j]]
            T -= nu[k, j] * np.outer(w, w)
        L, place = np.zeros((n + 1, n + 1), dtype=object), 0
        for i in range(n + 1):
            for j in range(i + 1):
                L[i, j], place = factors[k, place], place + 1
        E = T - L @ L.T
        if any(E[i, i] < sum(abs(E[i])) - abs(E[i, i]) for i in range(n + 1)):
            return False
    return True


def semidefinite(H):
    """Whether a symmetric matrix of fractions is positive semidefinite."""
    H = H.copy()
    for k in range(len(H)):
        if H[k, k] < 0 or (H[k, k] == 0 and H[k, k:].any()):
            return False
        if H[k, k] > 0:
            H[k + 1 :, k + 1 :] -= np.outer(H[k + 1 :, k], H[k, k + 1 :]) / H[k, k]
    return True


def form(A, B, C, D, z, kappa, mu, bound):
    """Q of exact_sectors.py for one output, without any elimination."""
    n, p = B.shape
    A, B, c, d, z, kappa, mu = map(rational, (A, B, C, D, z, kappa, mu))
    Q = np.zeros((n + p, n + p), dtype=object)
    for i in range(n):
        v = np.concatenate([A[i] * z, B[i]])
        Q[i] -= kappa[i] * v
        Q[:, i] -= kappa[i] * v
        Q[i, i] += 2 * kappa[i] * z[i]
    Q[range(n, n + p), range(n, n + p)] += mu
    y = np.concatenate([c * z, d])
    return Q - np.outer(y, y) / Fraction(float(bound))


@settings(deadline=None, max_examples=80)
@example("layers", 6)
@example("sparse", 24)
@example("critical", 24)
@given(st.sampled_from(KINDS), seeds)
def test_the_bound_is_proved_and_between_the_maximum_and_the_linear_program(kind, seed):
    weights = network(np.random.default_rng(seed), kind)
    certificate = lipschitz_certificate(*weights)
    proof = certificate.statement("sectors")
    assert proof.prove(certificate.weights)
    assert proof.bound == max(proof.bounds)
    assert exact_maximum(*weights) <= Fraction(proof.bound)
    assert proof.bound <= certificate.bound


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(KINDS), seeds)
def test_every_output_is_bounded_at_all_slopes(kind, seed):
    rng = np.random.default_rng(seed)
    weights = network(rng, kind)
    proof = statement(*weights)
    for _ in range(5):
        slopes = np.clip(rng.uniform(-0.3, 1.3, len(weights[0])), 0, 1)
        for k, bound in enumerate(proof.bounds):
            assert gain(*weights, slopes, k) <= Fraction(bound)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(KINDS), seeds)
def test_what_is_proved_is_a_sum_of_squares(kind, seed):
    weights = network(np.random.default_rng(seed), kind)
    A, B, C, D = weights
    proof = statement(*weights)
    for k in range(len(C)):
        witness = proof.z, proof.multipliers[k], proof.input_multipliers[k], proof.bounds[k]
        if proof.factors[k].any():
            assert semidefinite(form(A, B, C[k], D[k], *witness))
        else:  # nothing was better than the linear program
            assert proof.bounds[k] == exact_bound(C[[k]], D[[k]], proof.z, None)


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_the_one_of_the_search(seed):
    rng = np.random.default_rng(seed)
    weights = network(rng, "dense", n=8, p=3, q=2)
    searched = lipschitz_bounds(*weights, max_nodes=2)
    assert statement(*weights).bound == pytest.approx(searched.upper, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_for_many_inputs_finds_the_same_bound(monkeypatch, kind):
    for seed in range(4):
        weights = network(np.random.default_rng(seed), kind, n=5, p=9, q=2)
        bounds = []
        for many in (100, 0):
            monkeypatch.setattr(input_multipliers, "_MANY", many)
            proof = statement(*weights)
            assert proof.prove(ImplicitWeights(*weights))
            searched = lipschitz_bounds(*weights, tol=1e-6)
            bounds.append([*proof.bounds, searched.lower, searched.upper])
        if kind != "critical":  # where rounding decides how far a search comes
            assert bounds[0] == pytest.approx(bounds[1], rel=1e-5)


@settings(deadline=None, max_examples=40)
@given(seeds, st.booleans(), st.integers(-100, 100), st.integers(-100, 100))
def test_radii_and_units(seed, direct, inputs, outputs):
    rng = np.random.default_rng(seed)
    A, B, C, D = network(rng, "dense")
    D = D if direct else None
    epsilon = 10.0 ** rng.uniform(-3, 3, B.shape[1]) * (rng.uniform(size=B.shape[1]) < 0.7)
    epsilon[0] = 1.0
    proof = statement(A, B, C, D, epsilon=epsilon)
    feed = np.zeros((len(C), B.shape[1])) if D is None else D
    assert proof.prove(ImplicitWeights(A, B, C, D))
    radii = rational(epsilon)
    for k, bound in enumerate(proof.bounds):
        slopes = rng.integers(0, 2, len(A))
        moved = sum(abs(v) * e for v, e in zip(row(A, B, C, feed, slopes, k), radii, strict=True))
        assert moved <= Fraction(bound)
    scaled = statement(
        A,
        np.ldexp(B, inputs),
        np.ldexp(C, outputs),
        None if D is None else np.ldexp(D, inputs + outputs),
        epsilon=epsilon,
    )
    assert scaled.bound == pytest.approx(float(np.ldexp(proof.bound, inputs + outputs)), rel=1e-5)


@settings(deadline=None, max_examples=40)
@given(seeds, st.sampled_from([1e-30, 1.0, 1e30]), st.sampled_from([1e-30, 1.0, 1e30]))
def test_states_that_no_input_reaches(seed, inputs, outputs):
    rng = np.random.default_rng(seed)
    A, B, C, D = network(rng, "dense", n=5)
    still = rng.uniform(size=5) < 0.5
    A[np.ix_(still, ~still)] = 0.0
    B[still] = 0.0
    weights = A, B * inputs, C * outputs, D * inputs * outputs
    proof = statement(*weights)
    assert proof.prove(ImplicitWeights(*weights))
    assert exact_maximum(*weights) <= Fraction(proof.bound)


def test_nothing_moves_outputs_of_zeros():
    proof = statement([[0.5]], [[0.0, 1.0]], [[0.0], [1.0]])
    assert proof.bounds[0] < 1e-200
    assert proof.bounds[1] == pytest.approx(2.0, rel=1e-6)
    assert statement([[0.5]], [[1.0]], [[0.0]], [[3.0]]).bound == pytest.approx(3.0, rel=1e-6)
    assert statement([[-1e9]], [[1.0]], [[1.0]]).bound == pytest.approx(1e-9, rel=1e-6)


def test_signs_count():
    proof = statement([[0.0, -0.9], [0.9, 0.0]], [[1.0], [1.0]], [[1.0, 1.0]])
    assert 2 / 1.81 < proof.bound < 1.32  # the linear program says 20


def test_multipliers_out_of_range_leave_the_bound_of_the_linear_program():
    A, B = [[0.0, 1e188], [0.0, 0.0]], [[0.0], [0.0]]
    certificate = lipschitz_certificate(A, B, [[1e-118, 1e70]], [[1e106]])
    proof = certificate.statement("sectors")
    assert proof.bound == certificate.bound
    assert proof.prove(certificate.weights)


def test_what_multipliers_do_not_prove_has_the_bound_of_the_linear_program(monkeypatch, tmp_path):
    weights = ImplicitWeights([[0.0, -0.9], [0.9, 0.0]], np.eye(2), [[1.0, 1.0], [1.0, 0.0]])
    certificate = lipschitz_certificate(weights)
    better = certificate.statement("sectors")
    assert (better.bounds < 0.9 * certificate.bound).all()
    with monkeypatch.context() as patch:
        patch.setattr(sector_proof, "prove_sectors", lambda *_: False)
        proof = certificate.statement("sectors")
    assert proof.bound == certificate.bound
    assert proof.bounds[1] < proof.bounds[0]
    assert proof.prove(weights)
    save_statement(proof, weights, tmp_path / "certificate.json")
    assert verify_document(tmp_path / "certificate.json", weights)
    # One output by multipliers, the other by z; and never less than either proves.
    mixed = replace(
        proof, **{name: np.stack([getattr(better, name)[0], getattr(proof, name)[1]]) for name in
        ("bounds", "multipliers", "input_multipliers", "inverses", "factors")},
    )  # fmt: skip
    assert mixed.prove(weights)
    for k in range(2):
        for factor in (1 - 1e-9, 0.5, 0.0, -1.0):
            bounds = mixed.bounds.copy()
            bounds[k] *= factor
            assert not replace(mixed, bounds=bounds).prove(weights)
    with pytest.raises(ValueError, match="expected"):
        replace(mixed, bounds=mixed.bounds[:1]).prove(weights)


@settings(deadline=None, max_examples=40)
@given(seeds, st.data())
def test_the_rational_answer_at_equality_and_one_ulp_beside(seed, data):
    rng = np.random.default_rng(seed)
    n, p, q = (int(k) for k in rng.integers(1, 4, 3))
    given = tight_sectors(rng, n, p, q)
    assert judged(*given)
    assert prove_sectors(*given)
    for _ in range(8):
        k = data.draw(st.integers(0, len(given) - 1))
        place = data.draw(st.integers(0, given[k].size - 1))
        direction = data.draw(st.sampled_from([-np.inf, np.inf]))
        moved = [array.copy() for array in given]
        moved[k].flat[place] = np.nextafter(moved[k].flat[place], direction)
        assert prove_sectors(*moved) == judged(*moved), (NAMES[k], place)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_random_witnesses_are_judged_as_in_fractions(seed):
    rng = np.random.default_rng(seed)
    kind = rng.choice(KINDS)
    A, B, C, D = network(rng, kind, n=2)
    D = D if rng.uniform() < 0.7 else None
    epsilon = np.round(rng.uniform(0, 4, B.shape[1]), 1)
    if not epsilon.any():
        return
    proof = statement(A, B, C, D, epsilon=epsilon)
    witness = [
        np.array(getattr(proof, f.name))
        for f in fields(proof)
        if f.name not in ("bound", "epsilon")
    ]
    bounds, *witness = witness
    given = [A, B, C, D, *witness, bounds]
    assert prove_sectors(*given, epsilon) == judged(*given, epsilon)
    assert judged(*given, epsilon) or not proof.factors.any(axis=1).all()
    for k in range(4, len(given)):
        moved = list(given)
        moved[k] = given[k] * (1 + rng.choice([-1, 1]) * 10.0 ** rng.uniform(-17, -9))
        assert prove_sectors(*moved, epsilon) == judged(*moved, epsilon)


def test_one_ulp_is_found_out():
    given = tight_sectors(np.random.default_rng(3), 3, 2, 2)
    n, p, q = 3, 2, 2
    assert prove_sectors(*given)
    tight = [(9, k, -1) for k in range(q)]  # Σμ ≤ bound
    tight += [(6, j, 1) for j in range(q * (p + 1))]
    tight += [(6, k * (p + 1) + j, -1) for k in range(q) for j in range(p)]  # μν ≥ 1
    tight += [(7, k * (p + 1) + j, -1) for k in range(q) for j in range(p)]
    tight += [(0, i * (n + 1), 1) for i in range(n)]  # dominant rows
    for k, place, direction in tight:
        moved = [array.copy() for array in given]
        moved[k].flat[place] = np.nextafter(moved[k].flat[place], direction * np.inf)
        assert not prove_sectors(*moved), (NAMES[k], place)


def test_what_does_not_fit_is_refused():
    given = tight_sectors(np.random.default_rng(3), 3, 2, 2)
    for k in range(len(given)):
        for wrong in (given[k][:-1], np.append(given[k], given[k][:1], axis=0)):
            with pytest.raises(ValueError, match="expected"):
                prove_sectors(*given[:k], wrong, *given[k + 1 :])
        with pytest.raises(ValueError, match="NaN"):
            prove_sectors(*given[:k], given[k] * np.nan, *given[k + 1 :])
    with pytest.raises(ValueError, match="negative"):
        prove_sectors(*given, -np.ones(given[1].shape[1]))
    with pytest.raises(ValueError, match="expected 3"):
        prove_sectors(*given, np.ones(2))


def test_a_witness_that_is_not_positive_proves_nothing():
    given = tight_sectors(np.random.default_rng(3), 2, 2, 1)
    for k, sign in ((4, -1), (5, -1), (6, -1), (4, 0), (6, 0)):
        moved = list(given)
        moved[k] = sign * given[k]
        assert not prove_sectors(*moved)
    negative = list(given)
    negative[6], negative[7] = -given[6], -given[7]  # their products are still one
    assert not prove_sectors(*negative)


def test_sparse_weights_and_small_dtypes_are_judged_as_full_ones():
    given = tight_sectors(np.random.default_rng(5), 3, 2, 2)
    for convert in (sparse.csr_array, lambda x: x.astype(np.float32), lambda x: x.astype(">f8")):
        assert prove_sectors(*map(convert, given[:4]), *given[4:])
    A, B, C, D = (sparse.csr_array(x) for x in network(np.random.default_rng(0), "sparse"))
    proof = statement(A, B, C, D)
    assert proof.prove(ImplicitWeights(A.toarray(), B.toarray(), C.toarray(), D.toarray()))


@pytest.mark.parametrize("epsilon", [None, np.array([0.5, 2.0, 0.0])])
def test_saved_and_verified(tmp_path, epsilon):
    weights = ImplicitWeights(*network(np.random.default_rng(1), "dense", n=4, p=3, q=2))
    certificate = lipschitz_certificate(weights, epsilon=epsilon)
    path = tmp_path / "sectors.json"
    certificate.save(path, "sectors")
    assert verify_document(path, weights)
    loaded = load_certificate(path).statement
    assert loaded.kind == "sectors"
    assert loaded.bound == certificate.statement("sectors").bound < certificate.bound
    less = float(np.nextafter(loaded.bound, 0))
    assert not replace(loaded, bound=less).prove(weights)
    for k in range(2):
        bounds = loaded.bounds.copy()
        bounds[k] = np.nextafter(bounds[k], 0)
        assert not replace(loaded, bounds=bounds).prove(weights)
    assert replace(loaded, bound=2 * loaded.bound).prove(weights)
    if epsilon is not None:
        assert not replace(loaded, epsilon=epsilon * 1.01).prove(weights)
        assert not replace(loaded, epsilon=None).prove(weights)
    path.write_text(path.read_text().replace(loaded.bound.hex(), less.hex()))
    with pytest.raises(ValueError, match="differ"):
        verify_document(path, weights)
