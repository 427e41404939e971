"""The fast product is the product, and is only taken where it may be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from contraction_nets.comparison.cases import Case
from contraction_nets.nn import products
from contraction_nets.nn.equilibrium import equilibrium, solve_equilibrium
from contraction_nets.nn.operators import Dense, Fused

ITERATIONS = [
    "diagonal_resolvent", "average", "forward_backward", "peaceman_rachford", "anderson", "broyden",
    "newton", "reduced_rank", "auto",
]  # fmt: skip

missing = pytest.mark.skipif(products.fused() is None, reason="PyTorch has no such product here")


@missing
@given(seeds, st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans(), st.booleans())
@settings(deadline=None)
def test_it_is_a_product(seed, batch, n, transposed, strided_x, strided_s):
    generator = torch.Generator().manual_seed(seed)
    W, x, s = (torch.randn(2 * k, 2 * n, generator=generator) for k in (n, batch, batch))
    W, x, s = W[:n, :n], x[:batch, :n], s[:batch, :n]  # strided
    W = W.T if transposed else W.contiguous()
    x, s = x if strided_x else x.contiguous(), s if strided_s else s.contiguous()
    before = [t.clone() for t in (s, x, W)]
    found = products.fused()(s, x, W)
    exact = s.double() + x.double() @ W.T.double()
    size = s.double().abs() + x.double().abs() @ W.T.double().abs()
    assert bool(((found - exact).abs() <= (n + 2) * 2**-24 * size).all())
    assert all(torch.equal(t, b) for t, b in zip((s, x, W), before, strict=True))


@missing
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of torch, about leaving `flags`
def test_it_is_taken_for_many_multiplications_in_single_precision():
    W = torch.zeros(500, 500)
    assert products.least_rows(W) == 8
    assert isinstance(Dense(W).repeated(8), Fused)
    assert not isinstance(Dense(W).repeated(7), Fused)
    assert products.least_rows(torch.zeros(3000, 3000)) == 4
    assert products.least_rows(W.double()) is None
    assert products.least_rows(torch.zeros(0, 0)) is None
    assert products.least_rows(W.T) == 8
    # Views have strides for which oneDNN has no fast product, or none at all.
    for view in (torch.zeros(600, 500)[:, :500].T[:500], torch.zeros(1000, 1000)[::2, ::2]):
        assert products.least_rows(view[:400, :400]) is None
    hankel = torch.full((1199,), 1e-3).unfold(0, 600, 1)
    assert products.least_rows(hankel) is None
    assert solve_equilibrium(hankel, torch.ones(50, 600), iteration="average").converged
    with torch.backends.mkldnn.flags(enabled=False):
        assert products.least_rows(W) is None
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert products.least_rows(W) is None
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("fault", ["gone", "changed", "other"])
def test_without_it_all_is_as_before(monkeypatch, fault):
    """The operator is no promise of PyTorch: it may go, or mean something else."""

    class Other:
        @staticmethod
        def binary(x, s, W, bias, name):
            if fault == "changed":
                raise TypeError("unexpected argument")
            return torch.addmm(s, x, W)

    operators = type("operators", (), {} if fault == "gone" else {"_linear_pointwise": Other})
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    products.fused.cache_clear()
    try:
        assert products.fused() is None
        assert products.least_rows(torch.zeros(500, 500)) is None
    finally:
        products.fused.cache_clear()


@missing
@pytest.mark.parametrize("name", ITERATIONS)
def test_every_iteration_ends_where_it_did(monkeypatch, name):
    for family in ("projected", "diagonally heavy", "positive 0.99"):
        problem = Case(family, 30, 40).build()
        options = {"iteration": name, "tol": 1e-5, "max_steps": 20_000}
        expected = solve_equilibrium(problem.A, problem.s, **options)
        with monkeypatch.context() as patch:
            patch.setattr(products, "LEAST", 0)
            patch.setattr(products, "_LEAST_ROWS", 1)
            found = solve_equilibrium(problem.A, problem.s, **options)
            assert isinstance(Dense(problem.A).repeated(40), Fused)
        assert found.converged
        bound = expected.error_bound + found.error_bound
        assert float((found.x - expected.x).abs().max()) <= bound


@missing
@pytest.mark.parametrize("name", ITERATIONS)
def test_gradients_are_the_same(monkeypatch, name):
    problem = Case("projected", 30, 40).build()
    cotangent = torch.randn(problem.s.shape, generator=torch.Generator().manual_seed(0))

    def gradients():
        leaves = [t.clone().requires_grad_() for t in (problem.A, problem.s)]
        x = equilibrium(*leaves, iteration=name, tol=1e-6, backward_tol=1e-6)
        return torch.autograd.grad((cotangent * x).sum(), leaves)

    expected = gradients()
    monkeypatch.setattr(products, "LEAST", 0)
    monkeypatch.setattr(products, "_LEAST_ROWS", 1)
    for found, known in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, known, rtol=0, atol=1e-4 * float(known.abs().max()))
