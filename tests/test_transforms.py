"""Layers under torch.compile, torch.func, autocast, half precision, and several processes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fresh import ROOT, python
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn import functional

from contraction_nets import (
    ConvergenceWarning,
    ImplicitConv2d,
    ImplicitLayer,
    ImplicitNetwork,
    contracting,
    lipschitz_penalty,
    matrix_measure,
    project,
    project_,
    project_after_step,
)
from contraction_nets.nn.equilibrium import equilibrium
from contraction_nets.nn.operators import Convolution, Dense

# Torch compiles some of its own rules of forward mode in a way that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

FINE = {"dtype": torch.float64, "tol": 1e-12}


def dense(activation="tanh", **options):
    torch.manual_seed(0)
    network = ImplicitNetwork(5, 8, 3, feedthrough=True, activation=activation, **FINE, **options)
    with torch.no_grad():
        network.layer.A.normal_()
    project_(network)
    return network, torch.rand(6, 5, dtype=torch.float64)


def convolution(activation="tanh", **options):
    torch.manual_seed(0)
    layer = ImplicitConv2d(2, 3, activation=activation, **FINE, **options)
    return layer, torch.rand(4, 2, 5, 6, dtype=torch.float64)


def layer(**options):
    network, u = dense(**options)
    return network.layer, u


MODELS = [layer, dense, convolution]


def problem(seed, n=4, batch=3):
    rng = np.random.default_rng(seed)
    A = torch.from_numpy(project(rng.normal(size=(n, n)), 0.6))
    return A, torch.from_numpy(rng.normal(size=(batch, n)))


def solve(A, s, activation="tanh", iteration="diagonal_resolvent"):
    return equilibrium(A, s, activation, iteration=iteration, tol=1e-13, backward_tol=1e-13)


def outputs_and_gradients(model, u, parameters):
    u = u.clone().requires_grad_()
    y = model(u)
    return [y, *torch.autograd.grad(y.square().sum(), [u, *parameters])]


@pytest.fixture(autouse=True)
def no_graphs_from_before():
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


# torch.compile


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("model", MODELS)
def test_compiled_models_are_one_graph_and_give_the_same(model, backend):
    module, u = model()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    parameters = list(module.parameters())
    expected = outputs_and_gradients(module, u, parameters)
    for left, right in zip(outputs_and_gradients(compiled, u, parameters), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    explained = torch._dynamo.explain(module)(u)
    assert (explained.graph_break_count, explained.graph_count) == (0, 1)


@pytest.mark.parametrize("iteration", ["average(0.5)", "anderson(3)", "newton", "auto"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.3)"])
def test_options_reach_the_graph(activation, iteration):
    module, u = dense(activation, iteration=iteration)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    parameters = list(module.parameters())
    expected = outputs_and_gradients(module, u, parameters)
    for left, right in zip(outputs_and_gradients(compiled, u, parameters), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    module.layer.max_steps = 1
    with pytest.warns(ConvergenceWarning, match="after 1 steps"):
        compiled(u)


def test_compiled_models_take_any_batch_and_train():
    module, u = dense()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in (6, 3, 2):
        torch.testing.assert_close(compiled(u[:size]), module(u[:size]))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    project_after_step(optimizer, module)
    first = None
    for _ in range(20):
        loss = (compiled(u) - 1).square().mean()
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 10
    assert module.layer.constraint().contains(module.layer.A.detach().numpy())


def test_parametrized_layers_are_one_graph():
    module, u = layer()
    contracting(module)
    torch.testing.assert_close(
        torch.compile(module, backend="aot_eager", fullgraph=True)(u), module(u)
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # looked at by dynamo
def test_monitors_are_called_outside_of_the_graph():
    module, u = dense("relu")
    expected = outputs_and_gradients(module, u, list(module.parameters()))
    seen = []
    module.layer.monitor = lambda way, result: seen.append((way, result.steps))
    compiled = torch.compile(module, backend="aot_eager")
    found = outputs_and_gradients(compiled, u, list(module.parameters()))
    assert [way for way, _ in seen] == ["forward", "backward"]
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_second_derivatives_in_a_graph():
    module, u = dense()
    compiled = torch.compile(module, backend="eager", fullgraph=True)

    def second(f):
        v = u.clone().requires_grad_()
        (g,) = torch.autograd.grad(f(v).square().sum(), v, create_graph=True)
        return torch.autograd.grad(g.square().sum(), [v, module.layer.A])

    for left, right in zip(second(compiled), second(module), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_transforms_inside_and_outside_of_compiled_functions():
    module, u = dense("relu")
    direction = torch.ones_like(u)
    expected = jvp(module, (u,), (direction,))[1]
    inside = torch.compile(lambda u: jvp(module, (u,), (direction,))[1], backend="aot_eager")
    torch.testing.assert_close(inside(u), expected)
    outside = jvp(torch.compile(module, backend="aot_eager"), (u,), (direction,))[1]
    torch.testing.assert_close(outside, expected)
    parameters = dict(module.named_parameters())

    def loss(parameters, u):
        return functional_call(module, parameters, (u,)).square().sum()

    gradients = torch.compile(vmap(grad(loss), (None, 0)), backend="aot_eager")(parameters, u)
    for name, found in vmap(grad(loss), (None, 0))(parameters, u).items():
        torch.testing.assert_close(gradients[name], found)
    tangents = []
    for f in (module, torch.compile(module, backend="aot_eager")):
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = torch.autograd.forward_ad.make_dual(u, direction)
            tangents.append(torch.autograd.forward_ad.unpack_dual(f(dual)).tangent)
    torch.testing.assert_close(tangents[0], expected)
    torch.testing.assert_close(tangents[1], expected)


def test_compilers_are_not_imported_in_eager_mode():
    script = """
import sys, torch
from contraction_nets import ImplicitNetwork
ImplicitNetwork(2, 3, 1)(torch.rand(4, 2)).sum().backward()
assert "torch._dynamo" not in sys.modules
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [Dense, Convolution])
def test_operators_keep_the_rules_of_torch(kind):
    torch.manual_seed(0)
    A, s = torch.randn(3, 3) / 6, torch.randn(2, 3)
    if kind is Convolution:
        A, s = torch.randn(2, 2, 3, 3) / 40, torch.randn(2, 2, 4, 5)
    options = (kind.key(), "tanh", "diagonal_resolvent", 1e-6, 1e-6, 1000)
    A.requires_grad_(), s.requires_grad_()
    slope = torch.rand_like(s).requires_grad_()
    operators = torch.ops.contraction_nets
    torch.library.opcheck(operators.equilibrium.default, (A, s, *options))
    torch.library.opcheck(operators.linear_equilibrium.default, (A, slope, s, True, *options))


@pytest.mark.parametrize("model", MODELS)
def test_exported_programs_give_the_same_for_any_batch(model):
    module, u = model()
    program = torch.export.export(
        module, (u,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},)
    )
    for size in (4, 3):
        torch.testing.assert_close(program.module()(u[:size]), module(u[:size]))


# Derivatives and torch.func


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "softplus", "leaky_relu(0.2)"])
def test_derivatives_of_both_modes_and_orders(activation):
    A, s = problem(1)
    inputs = A.requires_grad_(), s.requires_grad_()

    def call(A, s):
        return solve(A, s, activation)

    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, inputs, check_fwd_over_rev=True)


def test_derivatives_of_a_convolution():
    torch.manual_seed(1)
    A = (torch.randn(2, 2, 3, 3, dtype=torch.float64) / 40).requires_grad_()
    s = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def call(A, s):
        return equilibrium(A, s, "tanh", kind=Convolution, tol=1e-13, backward_tol=1e-13)

    assert torch.autograd.gradcheck(call, (A, s), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (A, s), check_fwd_over_rev=True)


@pytest.mark.parametrize("iteration", ["average", "anderson", "newton", "auto"])
def test_derivatives_by_every_way_of_solving(iteration):
    A, s = problem(2)
    expected = hessian(lambda s: solve(A, s).square().sum())(s)
    found = hessian(lambda s: solve(A, s, iteration=iteration).square().sum())(s)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_hessians_agree_whatever_the_modes():
    A, s = problem(2)

    def loss(A, s):
        return solve(A, s).square().sum()

    both = (0, 1)
    expected = jacrev(jacrev(loss, both), both)(A, s)
    for outer, inner in ((jacfwd, jacrev), (jacrev, jacfwd), (jacfwd, jacfwd)):
        found = outer(inner(loss, both), both)(A, s)
        for i in both:
            for j in both:
                torch.testing.assert_close(found[i][j], expected[i][j], rtol=1e-9, atol=1e-11)


def test_third_derivatives_agree_whatever_the_modes():
    A, s = problem(2, n=2, batch=1)

    def loss(s):
        return solve(A, s).square().sum()

    expected = jacrev(jacrev(jacrev(loss)))(s)
    for first, second, third in ((jacfwd, jacfwd, jacfwd), (jacrev, jacfwd, jacfwd)):
        found = third(second(first(loss)))(s)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_directional_derivatives_are_differences():
    for module, u in (dense(), convolution()):
        direction = torch.randn_like(u)
        found = jvp(module, (u,), (direction,))[1]
        step = 1e-5 * direction
        torch.testing.assert_close(found, (module(u + step) - module(u - step)) / 2e-5)


def test_jacobians_agree():
    module, u = dense()
    rows = [torch.autograd.functional.jacobian(module, v) for v in u]
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(vmap(transform(module))(u), torch.stack(rows))


def test_vmap_over_inputs_is_one_solve():
    module, u = dense()
    seen = []
    module.layer.monitor = lambda way, result: seen.append(result.x.shape)
    torch.testing.assert_close(vmap(module)(u), module(u))
    torch.testing.assert_close(vmap(module, in_dims=1)(u.T.clone()), module(u))
    stacked = u.expand(3, 6, 5)
    torch.testing.assert_close(vmap(vmap(module))(stacked), module(stacked))
    assert [len(shape) for shape in seen] == [2] * 6
    assert [shape[0] for shape in seen] == [6, 6, 6, 6, 18, 18]


def test_vmap_over_weights_is_a_loop():
    A, s = problem(3)
    many = torch.stack([A, A / 2, A / 3])
    expected = torch.stack([solve(each, s) for each in many])
    torch.testing.assert_close(vmap(lambda A: solve(A, s))(many), expected)
    found = vmap(solve, in_dims=(2, None))(many.movedim(0, 2), s)
    torch.testing.assert_close(found, expected)
    found = vmap(solve)(many, torch.stack([s, s, s]))
    torch.testing.assert_close(found, expected)
    gradients = vmap(grad(lambda A: solve(A, s).square().sum()))(many)
    for each, found in zip(many, gradients, strict=True):
        leaf = each.clone().requires_grad_()
        (expected,) = torch.autograd.grad(solve(leaf, s).square().sum(), leaf)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model", [dense, convolution])
def test_gradients_of_every_sample(model):
    module, u = model()
    solves = []

    def loss(parameters, sample):
        return functional_call(module, parameters, (sample[None],)).square().sum()

    parameters = {name: p.detach() for name, p in module.named_parameters()}
    at = getattr(module, "layer", module)
    at.monitor = lambda way, result: solves.append(way)
    found = vmap(grad(loss), in_dims=(None, 0))(parameters, u)
    assert solves == ["forward", "backward"]
    at.monitor = None
    for k, sample in enumerate(u):
        expected = torch.autograd.grad(
            module(sample[None]).square().sum(), list(module.parameters())
        )
        for name, right in zip(parameters, expected, strict=True):
            torch.testing.assert_close(found[name][k], right, rtol=1e-8, atol=1e-9)


def test_an_ensemble_in_one_call():
    modules = [dense()[0] for _ in range(3)]
    for k, module in enumerate(modules):
        with torch.no_grad():
            module.layer.A.mul_(1 - k / 4)
    u = dense()[1]
    parameters, buffers = torch.func.stack_module_state(modules)

    def call(parameters, buffers):
        return functional_call(modules[0], (parameters, buffers), (u,))

    expected = torch.stack([module(u) for module in modules])
    torch.testing.assert_close(vmap(call)(parameters, buffers), expected)


def test_solves_inside_transforms_warn():
    A, s = problem(4)
    with pytest.warns(ConvergenceWarning, match="after 1 steps"):
        vmap(lambda s: equilibrium(A, s[None], "tanh", tol=1e-13, max_steps=1))(s)


# Autocast and half precision


@pytest.mark.parametrize("compiled", [False, True])
def test_training_under_autocast(compiled):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), ImplicitNetwork(5, 12, 3, gamma=0.5))
    implicit = network[2].layer
    u, labels = torch.rand(40, 6), torch.randint(3, (40,))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    project_after_step(optimizer, network)
    scaler = torch.amp.GradScaler("cpu")
    run = torch.compile(network, backend="aot_eager", fullgraph=True) if compiled else network
    losses, changed = [], 0
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16):
            y = run(u)
            loss = functional.cross_entropy(y.float(), labels)
            loss = loss + 1e-3 * (penalty := lipschitz_penalty(network[2]))
        assert y.dtype == torch.bfloat16
        assert penalty.dtype == torch.float32
        torch.testing.assert_close(y.float(), network(u), rtol=0.05, atol=0.1)
        losses.append(loss.item())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        assert all(p.grad.dtype == torch.float32 for p in network.parameters())
        assert all(bool(p.grad.isfinite().all()) for p in network.parameters())
        scaler.step(optimizer)
        scaler.update()
        assert implicit.A.dtype == torch.float32
        assert implicit.constraint().contains(implicit.A.detach().numpy())
        measure = matrix_measure(implicit.A.detach().numpy())
        changed += measure > 0.49
    assert losses[-1] < losses[0]
    assert changed > 0


def test_states_under_autocast_meet_the_tolerance_of_the_weights():
    torch.manual_seed(0)
    layer = ImplicitLayer(5, 30, tol=1e-6)
    u = torch.rand(7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        x, s = layer(u), layer.drive(u).float()
        tangent = jvp(layer, (u,), (torch.ones_like(u),))[1]
    assert x.dtype == tangent.dtype == torch.float32
    defect = (x - torch.relu(x @ layer.A.T + s)).abs().max()
    assert defect <= 2e-6 * x.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_half_precision_modules_solve_in_single_precision(kind, dtype):
    torch.manual_seed(0)
    if kind == "dense":
        module, u = ImplicitNetwork(5, 8, 3, activation="tanh"), torch.rand(4, 5)
    else:
        module, u = ImplicitConv2d(2, 3, activation="tanh"), torch.rand(4, 2, 5, 6)
    expected = outputs_and_gradients(module, u, list(module.parameters()))
    module.to(dtype)
    u = u.to(dtype)
    found = outputs_and_gradients(module, u, list(module.parameters()))
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == dtype
        torch.testing.assert_close(
            left.float(), right, rtol=0.05, atol=0.05 * float(right.detach().abs().max())
        )
    result = getattr(module, "layer", module).solve(u, tol=1e-6)
    assert result.converged
    assert result.x.dtype == torch.float32
    assert result.error_bound < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_projections_in_half_precision_are_refused(dtype):
    network = ImplicitNetwork(2, 3, 1).to(dtype)
    before = network.layer.A.clone()
    with pytest.raises(ValueError, match=r"expected float32 or float64.*autocast"):
        project_(network)
    with pytest.raises(ValueError, match="expected float32 or float64"):
        project_after_step(torch.optim.SGD(network.parameters(), 0.1), network)
    with pytest.raises(ValueError, match="expected float32 or float64"):
        ImplicitLayer(2, 3, dtype=dtype)
    assert torch.equal(before, network.layer.A)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parametrized_layers_stay_inside_in_half_precision(dtype):
    torch.manual_seed(0)
    layer = contracting(ImplicitLayer(2, 30, eta=np.linspace(0.5, 2, 30)), gamma=0.9)
    with torch.no_grad():
        layer.parametrizations.A.original.normal_(std=2)
    layer.to(dtype)
    assert float(layer.parametrizations.A[0].gamma) == 0.9
    assert layer.constraint().contains(layer.A.detach().double().numpy())


# Several processes

PARALLEL = """
import sys, torch, torch.distributed as distributed
from contraction_nets import ImplicitNetwork, project_after_step
distributed.init_process_group(
    "gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
torch.manual_seed(0)
network = ImplicitNetwork(5, 8, 3, gamma=0.3)
parallel = torch.nn.parallel.DistributedDataParallel(network)
optimizer = torch.optim.SGD(network.parameters(), lr=5.0)
project_after_step(optimizer, parallel)
u = torch.rand(8, 5)[int(sys.argv[2])::2]
for _ in range(3):
    optimizer.zero_grad()
    parallel(u).square().mean().backward()
    optimizer.step()
assert network.layer.constraint().contains(network.layer.A.detach().numpy())
print(*network.layer.A.flatten().tolist())
distributed.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path):
    """Gradients averaged by DistributedDataParallel, and the same projection in each process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PARALLEL, str(tmp_path / "meet"), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    printed = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    first, second = (torch.tensor([float(a) for a in out.split()]) for out, _ in printed)
    assert torch.equal(first, second)
    torch.manual_seed(0)
    network = ImplicitNetwork(5, 8, 3, gamma=0.3)
    optimizer = torch.optim.SGD(network.parameters(), lr=5.0)
    project_after_step(optimizer, network)
    start, u = network.layer.A.detach().clone(), torch.rand(8, 5)
    for _ in range(3):
        optimizer.zero_grad()
        network(u).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(start, network.layer.A, atol=1e-3)
    torch.testing.assert_close(first, network.layer.A.detach().flatten(), rtol=1e-3, atol=1e-4)
