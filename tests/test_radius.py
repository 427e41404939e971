"""Certified radii and norms of gains: never refuted by inputs, never below what is attained."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import seeds

from contraction_nets import ImplicitWeights, certified_radii, lipschitz_certificate
from contraction_nets.certificates.norms import induced_norm
from contraction_nets.nn.equilibrium import solve_equilibrium
from contraction_nets.nn.operators import Dense, Sparse


def network(rng, activation="relu", n=12, p=4, q=3):
    A = rng.normal(size=(n, n)) / (2 * n)
    np.fill_diagonal(A, -rng.uniform(size=n))
    shapes = {"B": (n, p), "C": (q, n), "b": (n,), "c": (q,)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return ImplicitWeights(A, **arrays, activation=activation)


def labels(weights, U):
    drive = torch.from_numpy(U @ weights.B.T + weights.b)
    x = solve_equilibrium(torch.from_numpy(weights.A.copy()), drive, weights.activation, tol=1e-12)
    return (x.x.numpy() @ weights.C.T + weights.c).argmax(axis=1)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.2)", "tanh", "softplus"])
def test_no_input_within_the_radius_has_another_label(activation):
    rng = np.random.default_rng(0)
    weights = network(rng, activation)
    U = rng.normal(size=(40, 4))
    found = certified_radii(weights, U)
    np.testing.assert_array_equal(found.labels, labels(weights, U))
    assert (found.radii > 0).all()
    for _ in range(50):
        step = rng.choice([-1.0, 1.0], U.shape) * found.radii[:, None] * rng.uniform(size=(40, 1))
        np.testing.assert_array_equal(labels(weights, U + step), found.labels)


def test_radii_follow_from_margins_and_gains():
    rng = np.random.default_rng(1)
    weights = network(rng)
    certificate = lipschitz_certificate(weights)
    found = certified_radii(certificate, rng.normal(size=(20, 4)))
    gains = certificate.pairwise_gains()[found.labels, found.runners_up]
    np.testing.assert_allclose(found.radii, found.margins / gains, rtol=1e-12)
    assert (found.radii * gains <= found.margins).all()
    lines = np.arange(20)
    gaps = found.outputs[lines, found.labels] - found.outputs[lines, found.runners_up]
    assert (found.margins <= gaps).all()
    assert (found.margins >= gaps - 1e-6).all()
    # A looser equilibrium only makes the radii smaller.
    loose = certified_radii(certificate, rng.normal(size=(20, 4)), tol=1e-2)
    assert np.isfinite(loose.radii).all()


def test_sparse_weights_have_the_same_radii():
    rng = np.random.default_rng(2)
    weights, U = network(rng), rng.normal(size=(10, 4))
    arrays = weights.arrays()
    thin = ImplicitWeights(**{**arrays, "A": sparse.csr_array(arrays["A"])})
    assert thin.sha256 == weights.sha256
    one, other = certified_radii(weights, U), certified_radii(thin, U)
    np.testing.assert_allclose(one.radii, other.radii, rtol=1e-9)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_inputs_that_do_not_matter_and_inputs_that_do_not_fit():
    still = ImplicitWeights(np.zeros((2, 2)), np.zeros((2, 1)), np.eye(2), c=[1.0, 0.0])
    assert certified_radii(still, [[5.0]]).radii[0] > 1e200
    tie = ImplicitWeights(np.zeros((2, 2)), np.zeros((2, 1)), np.eye(2))
    assert certified_radii(tie, [[5.0]]).radii.tolist() == [0.0]
    assert len(certified_radii(still, np.zeros((0, 1))).radii) == 0
    for bad in ([5.0], [[1.0, 2.0]], [[np.nan]]):
        with pytest.raises(ValueError, match="expected"):
            certified_radii(still, bad)
    with pytest.raises(ValueError, match="two or more"):
        certified_radii(ImplicitWeights([[0.0]], [[1.0]], [[1.0]]), [[1.0]])


@pytest.mark.parametrize(("B", "C"), [(1e300, 1e-300), (1e300, 1.0), (1e305, 1e-5)])
def test_what_overflows_has_no_radius(B, C):
    weights = ImplicitWeights([[0.5]], [[B]], [[C], [0.0]], c=[0.0, 1.0])
    found = certified_radii(weights, [[1e10], [2e10]])
    # The states are no floats, and nothing is known of what follows from them.
    assert found.radii.tolist() == [0.0, 0.0]
    assert found.margins.tolist() == [0.0, 0.0]


def test_a_sparse_operator_is_the_dense_one():
    rng = np.random.default_rng(3)
    A = rng.normal(size=(7, 7)) * (rng.uniform(size=(7, 7)) < 0.4)
    dense, thin = Dense(torch.from_numpy(A)), Sparse(torch.from_numpy(A).to_sparse().coalesce())
    x, s = torch.from_numpy(rng.normal(size=(3, 7))), torch.from_numpy(rng.normal(size=(3, 7)))
    eta = torch.from_numpy(rng.uniform(1, 2, 7))
    torch.testing.assert_close(thin.affine(x, s), dense.affine(x, s))
    torch.testing.assert_close(thin.diagonal, dense.diagonal)
    torch.testing.assert_close(thin.row_sums(eta), dense.row_sums(eta))
    for name in ("transposed", "without_diagonal"):
        one, other = getattr(thin, name)(), getattr(dense, name)()
        torch.testing.assert_close(one.affine(x, s), other.affine(x, s))
    full, mask = dense.weight_gradient(s, x), torch.from_numpy(A != 0)
    torch.testing.assert_close(thin.weight_gradient(s, x).to_dense(), full * mask)


orders = st.sampled_from([1.0, 1.5, 2.0, 3.0, math.inf])


@settings(deadline=None, max_examples=200)
@given(seeds, orders, orders, st.sampled_from([1.0, 1e-300, 1e300]))
def test_norms_are_never_below_what_inputs_attain(seed, p, q, scale):
    rng = np.random.default_rng(seed)
    G = np.abs(rng.normal(size=rng.integers(1, 5, 2))) * (rng.uniform() + 0.1)
    bound = induced_norm(G * scale, p, q) / scale
    for x in np.vstack([np.eye(G.shape[1]), np.abs(rng.normal(size=(50, G.shape[1])))]):
        ratio = np.linalg.norm(G @ x, q) / np.linalg.norm(x, p)
        assert ratio <= bound * (1 + 1e-14)
    if (p, q) == (2, 2):
        assert bound <= np.linalg.norm(G, 2) * (1 + 1e-9)
    if 1.0 in (p, q) or math.inf in (p, q):
        dual = {1.0: math.inf, math.inf: 1.0}.get(p, p / (p - 1) if p > 1 else 0)
        exact = {
            p == math.inf: np.linalg.norm(G.sum(axis=1), q),
            p == 1: max(np.linalg.norm(column, q) for column in G.T),
        }.get(True)
        if exact is None:
            rows = [np.linalg.norm(row, dual) for row in G]
            exact = max(rows) if q == math.inf else np.linalg.norm(G.sum(axis=0), dual)
        assert bound <= exact * (1 + 1e-12)


def test_norms_of_a_certificate():
    certificate = lipschitz_certificate(network(np.random.default_rng(5)))
    assert certificate.norm() == pytest.approx(certificate.bound, rel=1e-9)
    assert certificate.norm(1, math.inf) == pytest.approx(certificate.gains.max(), rel=1e-12)
    k, j = certificate.worst_pair
    assert certificate.gains[k, j] == certificate.gains.max()
    for bad in ((0.5, 2), (2, math.nan)):
        with pytest.raises(ValueError, match="at least one"):
            certificate.norm(*bad)
    with pytest.raises(ValueError, match="nonnegative"):
        induced_norm([[-1.0]], 2, 2)


@pytest.mark.parametrize("kind", ["lipschitz", "pairs", "gains", "measure", "sectors"])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_every_statement_is_proved_and_tampering_is_not(tmp_path, kind, convert):
    from contraction_nets import verify_document

    weights = network(np.random.default_rng(6))
    arrays = weights.arrays()
    given = ImplicitWeights(**{**arrays, "A": convert(arrays["A"])})
    path = tmp_path / "certificate.json"
    certificate = lipschitz_certificate(given, epsilon=None if kind == "gains" else [0.5, 1, 0, 2])
    certificate.save(path, kind)
    assert verify_document(path, weights)  # also for the same weights in full
    other = arrays["A"].copy()
    other[0, 1] = np.nextafter(other[0, 1], 9.0)
    assert not verify_document(path, ImplicitWeights(**{**arrays, "A": other}))
