"""Between modules, feed-forward networks, torch files and plain weights."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.sparse import csr_array
from strategies import seeds
from torch import nn

from contraction_nets import (
    ImplicitLayer,
    ImplicitNetwork,
    ImplicitWeights,
    contracting,
    lipschitz_certificate,
)

MAKERS = {
    "relu": nn.ReLU, "leaky_relu(0.2)": lambda: nn.LeakyReLU(0.2), "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "elu(0.5)": lambda: nn.ELU(0.5),
}  # fmt: skip


def equal(left, right):
    assert left.activation == right.activation
    assert list(left.arrays()) == list(right.arrays())
    for name, array in left.arrays().items():
        assert array.dtype == right.arrays()[name].dtype
        assert np.array_equal(array, right.arrays()[name])


@pytest.mark.parametrize("feedthrough", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trips_keep_every_bit(dtype, feedthrough):
    torch.manual_seed(0)
    network = ImplicitNetwork(3, 5, 2, feedthrough=feedthrough, activation="elu(0.5)", dtype=dtype)
    weights = ImplicitWeights.from_module(network)
    again = weights.to_module()
    equal(weights, ImplicitWeights.from_module(again))
    u = torch.rand(6, 3, dtype=dtype)
    assert torch.equal(network(u), again(u))


def test_to_module_finds_weights_where_they_are_needed():
    A = np.array([[0.0, 4.0], [0.1, 0.0]])
    network = ImplicitWeights(A, np.ones((2, 1)), np.ones((1, 2))).to_module()
    assert network.layer.constraint().contains(A)
    result = network.layer.solve(torch.ones(1, 1, dtype=torch.float64), tol=1e-12)
    assert result.converged
    assert result.error_bound < 1e-9


def test_a_parametrized_layer_is_the_matrix_it_stands_for():
    torch.manual_seed(0)
    network = ImplicitNetwork(3, 5, 2)
    contracting(network.layer)
    weights = ImplicitWeights.from_module(network)
    assert np.array_equal(weights.A, network.layer.A.detach().numpy())


@given(seeds, st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from(list(MAKERS)))
@settings(max_examples=60, deadline=None)
def test_feed_forward_networks_are_implicit_networks(seed, depth, bias, ends_active, spec):
    torch.manual_seed(seed % 2**31)
    sizes = [4, *torch.randint(1, 6, (depth,)).tolist(), 3]
    layers = [nn.Flatten()]
    for p, q in itertools.pairwise(sizes):
        layers += [nn.Linear(p, q, bias=bias), MAKERS[spec](), nn.Dropout()]
    if not ends_active:
        layers = layers[:-2]
    chain = nn.Sequential(nn.Sequential(*layers[:3]), *layers[3:]).double().eval()
    weights = ImplicitWeights.from_sequential(chain)
    if depth or ends_active:
        assert weights.activation == spec
    u = torch.rand(8, 4, dtype=torch.float64)
    expected = chain(u)
    actual = weights.to_module()
    actual.layer.tol = 1e-13
    torch.testing.assert_close(actual(u), expected, rtol=1e-9, atol=1e-11)
    certificate = lipschitz_certificate(weights)
    assert certificate.verify()
    v = torch.rand(8, 4, dtype=torch.float64)
    moved = (chain(v) - expected).abs().amax(dim=1)
    assert bool((moved <= certificate.bound * (v - u).abs().amax(dim=1) * (1 + 1e-12)).all())


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(2, 2), nn.Sequential(), nn.Sequential(nn.ReLU()),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh()),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        nn.Sequential(nn.Linear(2, 2), nn.Softplus(beta=2)),
        nn.Sequential(nn.Linear(2, 2), nn.Softplus(threshold=0)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.GELU()),
        nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(1.5), nn.Linear(2, 2)),
    ],
)  # fmt: skip
def test_other_networks_are_refused(module):
    with pytest.raises(ValueError, match="expected"):
        ImplicitWeights.from_sequential(module)


class Residual(nn.Sequential):
    def forward(self, u):
        return u + super().forward(u)


class Doubled(nn.Linear):
    def forward(self, u):
        return 2 * super().forward(u)


def hooked():
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def patched():
    layer = nn.Linear(3, 3)
    layer.forward = lambda u: 2 * u
    return layer


@pytest.mark.parametrize(
    "module",
    [
        Residual(nn.Linear(3, 3)),
        nn.Sequential(Residual(nn.Linear(3, 3)), nn.ReLU()),
        nn.Sequential(Doubled(3, 3)),
        nn.Sequential(hooked()),
        nn.Sequential(patched()),
    ],
)
def test_layers_that_compute_something_else_are_refused(module):
    with pytest.raises(ValueError, match="of its own"):
        ImplicitWeights.from_sequential(module)


def test_parametrized_layers_are_the_matrix_they_stand_for():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)).eval()
    weights = ImplicitWeights.from_sequential(nn.Sequential(layer, nn.ReLU()))
    assert np.array_equal(weights.B, layer.weight.detach().numpy())


def test_mixed_dtypes_keep_every_bit():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, dtype=torch.float64))
    weights = ImplicitWeights.from_sequential(net)
    assert np.array_equal(weights.C, net[2].weight.detach().numpy())
    assert np.array_equal(weights.B, net[0].weight.detach().numpy())


def test_networks_that_compute_something_else_are_refused():
    class Normalized(ImplicitNetwork):
        def forward(self, u):
            return super().forward(10 * u)

    hooked = ImplicitNetwork(2, 3, 1)
    hooked.layer.register_forward_pre_hook(lambda module, inputs: (10 * inputs[0],))
    for network in (Normalized(2, 3, 1), hooked):
        with pytest.raises(ValueError, match="of its own"):
            ImplicitWeights.from_module(network)


def test_only_networks_are_converted():
    with pytest.raises(ValueError, match="expected an ImplicitNetwork"):
        ImplicitWeights.from_module(ImplicitLayer(2, 3))


def test_torch_files(tmp_path):
    torch.manual_seed(0)
    network = ImplicitNetwork(3, 5, 2)
    expected = ImplicitWeights.from_module(network)
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    torch.save({"epoch": 3, "model": network.state_dict()}, tmp_path / "nested.pth")
    torch.save(network.bfloat16().state_dict(), tmp_path / "small.pt")
    for name in ("plain.pt", "nested.pth"):
        equal(ImplicitWeights.load(tmp_path / name), expected)
    small = ImplicitWeights.load(tmp_path / "small.pt")
    assert small.A.dtype == np.float32
    assert np.allclose(small.A, expected.A, rtol=1e-2)


def test_bfloat16_safetensors_keep_every_bit(tmp_path):
    torch.manual_seed(0)
    state = {
        name: value.bfloat16() for name, value in ImplicitNetwork(3, 4, 2).state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    weights = ImplicitWeights.load(tmp_path / "w.safetensors")
    assert np.array_equal(weights.A, state["layer.A"].float().numpy())
    assert lipschitz_certificate(weights).verify()


def test_files_with_code_are_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"A": Trap()}, tmp_path / "trap.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save(ImplicitNetwork(2, 3, 1), tmp_path / "module.pt")
    (tmp_path / "noise.pt").write_bytes(b"PK\x03\x04 nothing")
    for name in ("trap.pt", "empty.pt", "module.pt", "noise.pt"):
        with pytest.raises(ValueError, match="expected"):
            ImplicitWeights.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_to_module_reads_sparse_matrices():
    dense = ImplicitWeights.from_module(ImplicitNetwork(3, 5, 2, feedthrough=True))
    matrices = {name: csr_array(getattr(dense, name)) for name in "ABCD"}
    equal(
        ImplicitWeights.from_module(
            ImplicitWeights(**matrices, b=dense.b, c=dense.c, activation="relu").to_module()
        ),
        dense,
    )
