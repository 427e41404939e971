"""Feed-forward networks with convolutions, normalization and pooling as implicit networks."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, issparse
from strategies import seeds
from torch import nn

from contraction_nets import ImplicitWeights, lipschitz_certificate
from contraction_nets.nn.convert import from_sequential

# Torch says so once a process, whatever the network.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

MAKERS = {
    "relu": nn.ReLU, "leaky_relu(0.2)": lambda: nn.LeakyReLU(0.2), "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "elu(0.5)": lambda: nn.ELU(0.5),
}  # fmt: skip


def dense(value):
    return value.toarray() if issparse(value) else value


def lowered(net, shape=None):
    """The arguments of ImplicitWeights, after a check of what every network promises."""
    arrays = from_sequential(net, input_shape=shape)
    matrices = {name: arrays[name] for name in "ABCD" if name in arrays}
    images = any(
        isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.BatchNorm2d | nn.ZeroPad2d)
        for layer in net.modules()
    )
    for matrix in matrices.values():
        assert issparse(matrix) == images
        if images:
            canonical(matrix)
    kinds = {array.dtype for name, array in arrays.items() if name != "activation"}
    assert len(kinds) == 1
    assert kinds <= {np.dtype(np.float32), np.dtype(np.float64)}
    return arrays


def canonical(matrix):
    assert isinstance(matrix, csr_array)
    assert np.all(matrix.data != 0)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    assert np.all(np.diff(rows * matrix.shape[1] + matrix.indices) > 0)


def weights_of(net, shape=None):
    arrays = lowered(net, shape)
    return ImplicitWeights(**{name: dense(value) for name, value in arrays.items()})


def evaluated(arrays, u, depth):
    """The output of the implicit network for a batch: the state is exact after `depth` steps."""
    activation = MAKERS[arrays["activation"]]()
    A, B, C, b, c = (arrays[name] for name in "ABCbc")
    x = np.zeros((A.shape[0], len(u)))
    for _ in range(depth):
        x = activation(torch.from_numpy(A @ x + B @ u.T + b[:, None])).numpy()
    y = C @ x + c[:, None]
    return (y + arrays["D"] @ u.T if "D" in arrays else y).T


def flat(net):
    return [layer for layer in net.modules() if not isinstance(layer, nn.Sequential)]


def widths(net, u):
    """Number of entries that every activation puts out, for a batch of one."""
    found = []
    for layer in flat(net):
        u = layer(u)
        if isinstance(layer, tuple(type(make()) for make in MAKERS.values())):
            found.append(u.numel())
    return found


def agree(net, shape, spec):
    """The lowered network equals the module, and its state is stacked as it says."""
    net.double().eval()
    arrays = lowered(net, shape if len(shape) == 3 else None)
    u = torch.randn(4, *shape, dtype=torch.float64)
    sizes = widths(net, u[:1])
    assert arrays["activation"] == (spec if sizes else "relu")
    actual = evaluated(arrays, u.flatten(1).numpy(), len(sizes))
    expected = net(u).detach().flatten(1).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    assert arrays["A"].shape[0] == max(sum(sizes), 1)
    assert ("D" in arrays) == (not sizes)
    block = np.repeat(np.arange(len(sizes)), sizes)
    rows, columns = np.nonzero(dense(arrays["A"]))
    assert np.all(block[rows] == block[columns] + 1)
    assert np.all(block[np.nonzero(dense(arrays["B"]))[0]] == 0)
    assert np.all(block[np.nonzero(dense(arrays["C"]))[1]] == len(sizes) - 1)


def normalization(kind, features, affine):
    layer = kind(features, affine=affine, eps=1e-3)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return layer


@st.composite
def convolutions(draw, shape):
    channels, *size = shape
    kernel = [draw(st.integers(1, min(3, side))) for side in size]
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (0, 2), (2, 1)]))
    dilation = [
        draw(st.integers(1, 2)) if 2 * (k - 1) < side else 1
        for k, side in zip(kernel, size, strict=True)
    ]
    stride = 1 if padding == "same" else tuple(draw(st.integers(1, 3)) for _ in size)
    return nn.Conv2d(
        channels,
        groups * draw(st.integers(1, 2)),
        tuple(kernel),
        stride=stride,
        padding=padding,
        dilation=tuple(dilation),
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def pools(draw, shape):
    kernel = tuple(draw(st.integers(1, min(3, side))) for side in shape[1:])
    return nn.AvgPool2d(
        kernel,
        stride=draw(st.sampled_from([None, 1, (2, 1)])),
        padding=tuple(draw(st.integers(0, k // 2)) for k in kernel),
        ceil_mode=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
        divisor_override=draw(st.sampled_from([None, 3])),
    )


OTHERS = ("norm", "activation", "activation", "dropout", "identity")
ON_IMAGES = st.sampled_from(["convolution", "convolution", "pool", "pad", *OTHERS])
ON_VECTORS = st.sampled_from(["linear", "linear", "flatten", *OTHERS])


@st.composite
def networks(draw):
    """A network of images or of vectors, the shape of its input, and its activation."""
    torch.manual_seed(draw(seeds) % 2**31)
    spec = draw(st.sampled_from(list(MAKERS)))
    shape = start = tuple(draw(st.integers(*bounds)) for bounds in ((1, 3), (2, 6), (2, 6)))
    kinds = draw(st.lists(ON_IMAGES, max_size=7))
    if draw(st.booleans()):
        kinds += ["flatten", *draw(st.lists(ON_VECTORS, max_size=5))]
    if not draw(st.integers(0, 3)):
        shape = start = (draw(st.integers(1, 5)),)
        kinds = [*draw(st.lists(ON_VECTORS, max_size=5)), "linear"]
        kinds += draw(st.lists(ON_VECTORS, max_size=2))
    layers = []
    for kind in kinds:
        option = draw(st.booleans())
        if kind == "convolution":
            layer = draw(convolutions(shape))
        elif kind == "pool":
            layer = draw(pools(shape))
        elif kind == "pad":
            layer = nn.ZeroPad2d(tuple(draw(st.integers(0, 1)) for _ in range(4)))
        elif kind == "norm":
            norm = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
            layer = normalization(norm, shape[0], option)
        elif kind == "linear":
            layer = nn.Linear(shape[0], draw(st.integers(1, 4)), bias=option)
        elif kind == "activation":
            layer = MAKERS[spec]()
        else:
            layer = {"flatten": nn.Flatten, "dropout": nn.Dropout, "identity": nn.Identity}[kind]()
        layers.append(layer)
        shape = tuple(layer.eval()(torch.zeros(1, *shape)).shape[1:])
    cut = draw(st.integers(0, len(layers)))
    return nn.Sequential(nn.Sequential(*layers[:cut]), *layers[cut:]), start, spec


@given(networks())
@settings(max_examples=250, deadline=None)
def test_the_implicit_network_is_the_network(case):
    net, shape, spec = case
    agree(net, shape, spec)


def jacobian(net, shape):
    """The matrix of an affine network, exact where its entries are single weights."""
    net = net.double()
    u = torch.zeros(1, *shape, dtype=torch.float64)
    rows = torch.autograd.functional.jacobian(lambda u: net(u).flatten(), u)
    return rows.flatten(1).numpy()


CONVOLUTIONS = [
    {"kernel_size": k, "stride": s, "padding": p, "dilation": d, "groups": g, "bias": b}
    for k, s, p, d, g, b in itertools.product(
        [1, (3, 2)], [1, (2, 3)], [0, (1, 2), "same", "valid"], [1, (1, 3)], [1, 2], [True, False]
    )
    if not (p == "same" and s != 1)
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolutions_are_placed_bit_for_bit(options):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, **options)
    with torch.no_grad():
        conv.weight[1, 1] = 0.0
        conv.weight[2, 0] = -0.0
    arrays = lowered(nn.Sequential(conv), (4, 5, 7))
    D = arrays["D"]
    assert D.dtype == np.float32
    assert np.isin(D.data, conv.weight.detach().numpy()).all()
    assert np.array_equal(D.toarray(), jacobian(conv, (4, 5, 7)))
    pixels = D.shape[0] // 6
    bias = np.zeros(6) if conv.bias is None else conv.bias.detach().float().numpy()
    assert np.array_equal(arrays["c"], np.repeat(bias, pixels))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("divisor", [None, 5])
def test_average_pools_divide_by_what_torch_divides_by(ceil, count, divisor):
    options = {"ceil_mode": ceil, "count_include_pad": count, "divisor_override": divisor}
    grid = itertools.product([2, 3, (1, 4)], [None, 1, (2, 3), 4], [0, 1], [5, 6, 7])
    for kernel, stride, padding, side in grid:
        if padding and kernel == (1, 4):
            padding = (0, 2)
        pool = nn.AvgPool2d(kernel, stride, padding, **options)
        D = lowered(nn.Sequential(pool), (2, side, 6))["D"]
        expected = jacobian(pool, (2, side, 6))
        assert D.shape == expected.shape
        np.testing.assert_allclose(D.toarray(), expected, rtol=1e-15)


@pytest.mark.parametrize("padding", [1, (0, 1, 2, 3), (-1, 2, 0, -2)], ids=str)
def test_zero_padding_pads_and_cuts(padding):
    pad = nn.ZeroPad2d(padding)
    D = lowered(nn.Sequential(pad), (2, 4, 3))["D"]
    assert np.array_equal(D.toarray(), jacobian(pad, (2, 4, 3)))


def test_parametrized_layers_are_the_matrix_they_stand_for():
    torch.manual_seed(0)
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 2))
    D = lowered(nn.Sequential(conv), (2, 3, 3))["D"]
    assert np.isin(D.data, conv.weight.detach().numpy()).all()
    assert D.nnz == 3 * 4 * 8


def test_networks_of_linear_layers_are_dense_and_keep_negative_zeros():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight[0, 0] = net[2].weight[1, 1] = -0.0
        net[0].bias[0] = -0.0
    arrays = lowered(net)
    for name, value in {"B": net[0].weight, "C": net[2].weight, "b": net[0].bias}.items():
        assert arrays[name].tobytes() == value.detach().numpy().tobytes()


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
def test_layers_that_are_not_folded_keep_every_bit(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.ReLU(), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2), nn.ReLU()
    ).to(dtype)
    arrays = lowered(net, (2, 3, 3))
    A = arrays["A"]
    assert A.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    wide = net.double()
    assert np.array_equal(A[18:30, :18].toarray(), jacobian(wide[1], (2, 3, 3)))
    assert np.array_equal(A[30:, 18:30].toarray(), wide[4].weight.detach().numpy())
    assert np.array_equal(arrays["B"].toarray(), np.eye(32, 18))
    assert np.array_equal(arrays["C"].toarray(), np.eye(2, 32, 30))
    bias = np.concatenate(
        [np.zeros(18), wide[1].bias.detach().repeat_interleave(4), wide[4].bias.detach()]
    )
    assert np.array_equal(arrays["b"], bias)


def exact_norm(kind):
    """v ↦ 2 (v - 1) / 4 + 3, without a rounding."""
    norm = kind(1, eps=0.0)
    with torch.no_grad():
        norm.running_mean.fill_(1.0)
        norm.running_var.fill_(16.0)
        norm.weight.fill_(2.0)
        norm.bias.fill_(3.0)
    return norm.eval()


def test_normalization_is_folded_into_the_layer_before_or_after_it():
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        linear.weight.fill_(5.0)
        linear.bias.fill_(7.0)
    norm = exact_norm(nn.BatchNorm1d)
    before = weights_of(nn.Sequential(linear, norm, nn.ReLU(), linear))
    assert before.B.dtype == np.float64
    assert (before.B, before.b, before.C, before.c) == (2.5, 6.0, 5.0, 7.0)
    after = weights_of(nn.Sequential(linear, nn.ReLU(), norm, linear))
    assert (after.B, after.b, after.C, after.c) == (5.0, 7.0, 2.5, 19.5)
    last = weights_of(nn.Sequential(linear, nn.ReLU(), norm))
    assert (last.B, last.b, last.C, last.c) == (5.0, 7.0, 0.5, 2.5)


def test_normalization_in_float32_is_folded_in_float64():
    norm = nn.BatchNorm1d(1, eps=1e-3)
    with torch.no_grad():
        norm.running_var.fill_(0.3)
        norm.weight.fill_(0.7)
    weights = weights_of(nn.Sequential(norm.eval()))
    var, scale = norm.running_var.item(), norm.weight.item()
    assert weights.D.item() == pytest.approx(scale / math.sqrt(var + 1e-3), rel=4e-16)


def test_entries_that_cancel_are_not_stored():
    first, second = nn.Conv2d(1, 2, 2, bias=False), nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        first.weight[1] = first.weight[0]
        first.weight[1, 0, 0, 0] = 9.0
        second.weight[:] = torch.tensor([1.0, -1.0])[:, None, None]
    D = lowered(nn.Sequential(first, second), (1, 3, 3))["D"]
    assert D.nnz == 4


def test_what_is_padded_after_a_normalization_is_not_normalized():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    arrays = lowered(nn.Sequential(exact_norm(nn.BatchNorm2d), conv), (1, 2, 2))
    assert np.array_equal(arrays["D"].toarray(), np.full((4, 4), 0.5))
    assert np.array_equal(arrays["c"], np.full(4, 10.0))


def test_activations_in_a_row_and_networks_without_any():
    linear = nn.Linear(2, 2)
    weights = weights_of(nn.Sequential(linear, nn.Tanh(), nn.Tanh()))
    assert np.array_equal(weights.A, np.eye(4, k=-2))
    affine = weights_of(nn.Sequential(linear, nn.Dropout(), linear))
    W = linear.weight.detach().double().numpy()
    np.testing.assert_allclose(affine.D, W @ W, rtol=1e-15)
    assert not affine.A.any()
    alone = weights_of(nn.Sequential(nn.ReLU()), (1, 2, 2))
    assert np.array_equal(alone.B, np.eye(4))


def test_flatten_may_stand_anywhere_that_torch_takes_it():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 3),
        nn.Flatten(1, -1),
        nn.ReLU(),
        nn.Flatten(-1),
        nn.Linear(3, 1),
    )
    agree(net, (3, 2, 2), "relu")
    agree(net, (12,), "relu")


def test_convolutional_networks_are_certified():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), normalization(nn.BatchNorm2d, 2, True), nn.ReLU(),
        nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    certificate = lipschitz_certificate(weights_of(net, (1, 7, 7)))
    assert certificate.verify()
    u, v = torch.randn(2, 200, 1, 7, 7)
    moved = (net(u) - net(v)).abs().amax(1)
    assert bool((moved <= certificate.bound * (u - v).abs().flatten(1).amax(1) * 1.0001).all())


def test_large_images_stay_sparse():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding="same"), nn.ReLU(),
        nn.Conv2d(16, 16, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 10),
    )  # fmt: skip
    tracemalloc.start()
    arrays = lowered(net, (1, 28, 28))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    n = 2 * 16 * 28 * 28 + 2304
    assert arrays["A"].shape == (n, n)
    assert peak < n * n * 4 / 20
    u = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    actual = evaluated(arrays, u.flatten(1).numpy(), 3)
    np.testing.assert_allclose(actual, net.double()(u).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_a_digit_classifier():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(400, 10),
    )  # fmt: skip
    arrays = lowered(net, (1, 28, 28))
    assert arrays["A"].shape == (8 * 144 + 400, 8 * 144 + 400)
    assert arrays["A"].nnz == 400 * 8 * 9
    assert arrays["B"].nnz == 8 * 144 * 25
    assert np.isin(arrays["A"].data, net[2].weight.detach().numpy()).all()
    agree(net, (1, 28, 28), "relu")


IMAGE = (2, 4, 4)


def never_tracked():
    return nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)).eval()


def ones_around():
    pad = nn.ZeroPad2d(1)
    pad.value = 1.0
    return pad


def changed(layer, name, value):
    with torch.no_grad():
        getattr(layer, name).view(-1)[0] = value
    return layer.eval()


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (nn.Sequential(nn.BatchNorm2d(2)), IMAGE, r"training mode.*call \.eval\(\)"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), None, r"training mode"),
        (never_tracked(), IMAGE, "without running statistics"),
        (nn.Sequential(nn.Conv2d(2, 1, 3, padding=1, padding_mode="circular")), IMAGE, "'zeros'"),
        (nn.Sequential(nn.Conv2d(2, 1, 3), nn.MaxPool2d(2)), IMAGE, "maximum.*use AvgPool2d"),
        (nn.Sequential(nn.ConvTranspose2d(2, 1, 3)), IMAGE, "got the layer ConvTranspose2d"),
        (nn.Sequential(nn.Conv1d(2, 1, 3)), IMAGE, "got the layer Conv1d"),
        (nn.Sequential(nn.Conv2d(2, 1, 3)), None, r"no size.*input_shape=\(channels"),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)), None, r"no size.*input_shape=\(channels"),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), None, r"or pass input_shape=\(channels"),
        (nn.Sequential(nn.Conv2d(2, 1, 3)), (4, 4), "got input_shape="),
        (nn.Sequential(nn.Conv2d(2, 1, 3)), (2, 4, 0), "got input_shape="),
        (nn.Sequential(nn.Conv2d(2, 1, 3)), (2, 4, 4.0), "got input_shape="),
        (nn.Sequential(nn.Conv2d(2, 1, 3)), 28, "got input_shape=28"),
        (nn.Sequential(nn.Conv2d(2, 1, 3)), (1, 4, 4), "image of 2 channels"),
        (nn.Sequential(nn.Conv2d(2, 1, 5)), IMAGE, "as large as its window"),
        (nn.Sequential(nn.AvgPool2d(5)), IMAGE, "as large as its window"),
        (nn.Sequential(nn.AvgPool2d(2, padding=2)), IMAGE, "half the kernel"),
        (nn.Sequential(nn.AvgPool2d(2, divisor_override=0)), IMAGE, "other than zero"),
        (nn.Sequential(ones_around()), IMAGE, "zeros as its padding"),
        (nn.Sequential(nn.ZeroPad2d(-2)), IMAGE, "as large as its window"),
        (nn.Sequential(nn.BatchNorm2d(3)).eval(), IMAGE, "image of 3 channels"),
        (nn.Sequential(nn.BatchNorm1d(2)).eval(), IMAGE, "vector of 2"),
        (nn.Sequential(nn.Flatten(), nn.Conv2d(2, 1, 3)), IMAGE, "for a vector of 32"),
        (nn.Sequential(nn.Linear(3, 2), nn.Conv2d(2, 1, 3)), None, "for a vector of 2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(31, 2)), IMAGE, "vector of 31"),
        (nn.Sequential(nn.Conv2d(2, 1, 3), nn.Linear(2, 2)), IMAGE, "after a Flatten"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 2)), None, "for a vector of 2"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)), None, r"Flatten\(start_dim=1\)"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(2, 2)), IMAGE, r"Flatten\(start_dim=1\)"),
        (nn.Sequential(changed(nn.Linear(2, 2), "weight", math.nan)), None, "NaN or Inf"),
        (nn.Sequential(changed(nn.Conv2d(2, 1, 3), "weight", math.nan)), IMAGE, "NaN or Inf"),
        (nn.Sequential(changed(nn.Conv2d(2, 1, 3), "bias", math.inf)), IMAGE, "NaN or Inf"),
        (nn.Sequential(changed(nn.BatchNorm2d(2), "running_var", -1.0)), IMAGE, "NaN or Inf"),
        (nn.Sequential(nn.Conv2d(2, 1, 3), nn.Tanh(), nn.ReLU()), IMAGE, "relu, tanh"),
        (nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), None, "real floating-point"),
        (nn.Conv2d(2, 1, 3), IMAGE, "expected a torch.nn.Sequential"),
    ],
)
def test_what_is_not_represented_is_refused(net, shape, message):
    with pytest.raises(ValueError, match=message):
        ImplicitWeights.from_sequential(net, input_shape=shape)


def test_folded_weights_that_overflow_are_refused():
    linear = nn.Linear(1, 1, dtype=torch.float64)
    nn.init.constant_(linear.weight, 1e200)
    with pytest.raises(ValueError, match=r"NaN or Inf.*folded"):
        ImplicitWeights.from_sequential(nn.Sequential(linear, linear))


class Standardized(nn.Conv2d):
    def _conv_forward(self, u, weight, bias):
        return super()._conv_forward(u, weight - weight.mean(), bias)


class Called(nn.Conv2d):
    def __call__(self, u):
        return 2 * super().__call__(u)


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        Standardized(2, 1, 3),
        Called(2, 1, 3),
        hooked(nn.Conv2d(2, 1, 3)),
        hooked(nn.BatchNorm2d(2)),
        hooked(nn.AvgPool2d(2)),
        hooked(nn.Flatten()),
        hooked(nn.ReLU()),
        nn.LazyConv2d(1, 3),
    ],
)
def test_layers_that_compute_something_else_are_refused(layer):
    with pytest.raises(ValueError, match="of its own"):
        ImplicitWeights.from_sequential(nn.Sequential(layer), input_shape=IMAGE)
