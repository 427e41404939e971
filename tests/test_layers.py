"""Layers and networks: shapes, state, dtypes, and the constraint at construction."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from contraction_nets import ImplicitConv2d, ImplicitLayer, ImplicitNetwork, matrix_measure

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU"))]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes(dtype, device):
    network = ImplicitNetwork(5, 8, 3, feedthrough=True, dtype=dtype, device=device)
    for leading in [(), (7,), (2, 3), (0,)]:
        u = torch.rand(*leading, 5, dtype=dtype, device=device)
        x, y = network.layer(u), network(u)
        assert (x.shape, x.dtype) == ((*leading, 8), dtype)
        assert (y.shape, y.dtype) == ((*leading, 3), dtype)
    y.sum().backward()


def test_the_equations_are_those_of_the_model():
    torch.manual_seed(0)
    network = ImplicitNetwork(5, 8, 3, feedthrough=True, dtype=torch.float64, tol=1e-13)
    layer, u = network.layer, torch.rand(4, 5, dtype=torch.float64)
    x = layer(u)
    right = torch.relu(x @ layer.A.T + u @ layer.B.T + layer.b)
    torch.testing.assert_close(x, right, rtol=0, atol=1e-12)
    y = x @ network.C.T + u @ network.D.T + network.c
    torch.testing.assert_close(network(u), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [-2.0, 0.0, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constraint_holds_at_construction(gamma, dtype):
    for n in (1, 2, 30):
        eta = np.linspace(0.5, 2, n)
        layer = ImplicitLayer(4, n, gamma=gamma, eta=eta, dtype=dtype)
        assert layer.constraint().contains(layer.A.detach().numpy())
    layer = ImplicitConv2d(2, 3, gamma=gamma, dtype=dtype)
    assert layer.constraint().contains(layer.A.detach().numpy())


def test_state_dict_round_trips():
    torch.manual_seed(0)
    network = ImplicitNetwork(5, 8, 3, feedthrough=True, gamma=0.5, eta=np.linspace(1, 2, 8))
    state = network.state_dict()
    assert set(state) == {
        "layer.A", "layer.B", "layer.b", "layer.gamma", "layer.eta", "C", "D", "c",
    }  # fmt: skip
    other = ImplicitNetwork(5, 8, 3, feedthrough=True)
    other.load_state_dict(state)
    assert float(other.layer.gamma) == 0.5
    u = torch.rand(4, 5)
    for twin in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(u), network(u))
        assert twin.layer.constraint().eta.tolist() == network.layer.eta.tolist()


@pytest.mark.parametrize("change", ["float", "double", "half", "bfloat16"])
def test_constraint_data_keep_their_dtype(change):
    layer = getattr(ImplicitLayer(3, 4, gamma=0.95, eta=[1 / 3, 1, 1, 1]), change)()
    assert layer.gamma.dtype == layer.eta.dtype == torch.float64
    assert float(layer.gamma) == 0.95
    assert float(layer.eta[0]) == 1 / 3


def test_printing_tells_what_matters():
    text = repr(ImplicitNetwork(5, 8, 3, activation="leaky_relu(0.2)", gamma=0.5))
    for part in ("in_features=5", "hidden_features=8", "leaky_relu(0.2)", "gamma=0.5"):
        assert part in text
    assert "kernel_size=3" in repr(ImplicitConv2d(1, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"in_features": 0}, {"hidden_features": -1}, {"gamma": 1.0}, {"gamma": float("nan")},
        {"gamma": -float("inf")}, {"eta": [1.0, 2.0]}, {"eta": [1.0, 0.0, 1.0]}, {"tol": 0.0},
        {"max_steps": 0}, {"activation": "swish"}, {"iteration": "secant"}, {"backward_tol": -1.0},
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        ImplicitLayer(**{"in_features": 2, "hidden_features": 3, **arguments})


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd"):
        ImplicitConv2d(1, 2, kernel_size=4)


def test_solve_per_call():
    torch.manual_seed(0)
    layer = ImplicitLayer(5, 8, dtype=torch.float64)
    u = torch.rand(4, 5, dtype=torch.float64)
    loose, tight = layer.solve(u, tol=1e-2), layer.solve(u, tol=1e-10)
    assert loose.steps < tight.steps
    assert (loose.x - tight.x).abs().max() <= loose.error_bound + 1e-9
    assert layer.solve(u, iteration="average").converged
    assert not loose.x.requires_grad


def test_autocast_computes_the_equilibrium_in_the_dtype_of_the_weights():
    torch.manual_seed(0)
    network = ImplicitNetwork(5, 8, 3)
    u = torch.rand(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = network.layer(u)
        loss = network(u).float().square().mean()
    loss.backward()
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, network.layer(u), rtol=0.05, atol=0.02)
    assert network.layer.A.grad.dtype == torch.float32


def test_a_convolution_is_its_matrix():
    torch.manual_seed(0)
    layer = ImplicitConv2d(2, 3, kernel_size=3, dtype=torch.float64, tol=1e-13)
    with torch.no_grad():
        layer.A.copy_(3 * torch.randn_like(layer.A))
    from contraction_nets import project_

    assert project_(layer) == 3
    size = 3 * 5 * 4
    basis = torch.eye(size, dtype=torch.float64).reshape(size, 3, 5, 4)
    matrix = nn.functional.conv2d(basis, layer.A, padding=1).reshape(size, size).T.detach()
    assert matrix_measure(matrix.numpy()) <= 0.95 + 1e-12
    assert matrix_measure(matrix.numpy()) == pytest.approx(0.95, abs=1e-9)
    u = torch.rand(2, 2, 5, 4, dtype=torch.float64)
    x = layer(u).reshape(2, size)
    s = layer.drive(u).reshape(2, size)
    torch.testing.assert_close(x, torch.relu(x @ matrix.T + s), rtol=0, atol=1e-11)
    result = layer.solve(u)
    assert result.error_bound == pytest.approx(result.residual / 0.05, rel=1e-9)


def test_convolution_gradient():
    torch.manual_seed(0)
    layer = ImplicitConv2d(1, 2, activation="tanh", dtype=torch.float64, tol=1e-13, gamma=0.5)
    u = torch.rand(2, 1, 4, 3, dtype=torch.float64, requires_grad=True)

    def solve(u, A, B, b):
        return torch.func.functional_call(layer, {"A": A, "B": B, "b": b}, (u,))

    assert torch.autograd.gradcheck(solve, (u, layer.A, layer.B, layer.b))
