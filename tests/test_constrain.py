"""Projection hooks in other people's loops, the parametrization, and the penalty."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from torch.nn.utils import parametrize

from contraction_nets import (
    ImplicitConv2d,
    ImplicitLayer,
    ImplicitNetwork,
    ImplicitWeights,
    NotWellPosedError,
    UnknownSolverError,
    available_solvers,
    contracting,
    lipschitz_certificate,
    lipschitz_penalty,
    project_,
    project_after_step,
)

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, max_iter=4),
    "LBFGS, line search": lambda p: torch.optim.LBFGS(p, max_iter=4, line_search_fn="strong_wolfe"),
}


def inside(layer):
    return layer.constraint().contains(layer.A.detach().numpy())


def make(seed=0, **options):
    torch.manual_seed(seed)
    network = ImplicitNetwork(4, 12, 3, gamma=0.3, **options)
    u = torch.rand(32, 4, dtype=network.C.dtype)
    y = torch.randn(32, 3, dtype=network.C.dtype)

    def loss():
        return 10 * (network(u) - y).square().mean()

    return network, loss


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_constraint_holds_after_every_step(name):
    network, loss = make()
    A, address = network.layer.A, network.layer.A.data_ptr()
    optimizer = OPTIMIZERS[name](network.parameters())
    project_after_step(optimizer, network)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
    start, touched = loss().item(), 0

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(15):
        before = A.detach().clone()
        optimizer.step(closure)
        schedule.step()
        assert inside(network.layer)
        touched += not torch.equal(before, A)
    assert network.layer.A is A
    assert A.data_ptr() == address
    assert touched > 10
    # Without a line search L-BFGS may diverge, and on which seeds it does is a matter of rounding.
    assert name == "LBFGS" or loss().item() < start


def test_l_bfgs_without_a_line_search_trains_on_most_seeds():
    """It evaluates no network outside of the set, where none of these runs would train."""
    trained = 0
    for seed in range(8):
        network, loss = make(seed)
        optimizer = OPTIMIZERS["LBFGS"](network.parameters())
        project_after_step(optimizer, network)
        start = loss().item()

        def closure(optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        for _ in range(15):
            optimizer.step(closure)
        trained += loss().item() < start
    assert trained > 4


def test_gradient_scaling_skips_step_and_projection_together():
    network, loss = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    project_after_step(optimizer, network)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for factor in (1.0, torch.inf, 1.0):
        before = network.layer.A.detach().clone()
        optimizer.zero_grad()
        scaler.scale(loss() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, network.layer.A) == (factor == torch.inf)
        assert inside(network.layer)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_is_evaluated_inside_the_set_only(by_name):
    network, loss = make(dtype=torch.float64)
    optimizer = torch.optim.LBFGS(network.parameters(), line_search_fn="strong_wolfe")
    handle = project_after_step(optimizer, network)
    seen = []

    def closure():
        seen.append(inside(network.layer))
        optimizer.zero_grad()
        value = loss() - 20 * network.layer.A.diagonal().sum()
        value.backward()
        return value

    def step():
        optimizer.step(closure=closure) if by_name else optimizer.step(closure)

    step()
    assert len(seen) > 5
    assert all(seen)
    handle.remove()
    with torch.no_grad():
        network.layer.A += 1
    optimizer.step(lambda: seen.append(inside(network.layer)) or torch.zeros(()))
    assert not seen[-1]


def test_every_and_remove():
    network, loss = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    handle = project_after_step(optimizer, network, every=3)
    seen = []

    def step():
        optimizer.zero_grad()
        (loss() - 20 * network.layer.A.diagonal().sum()).backward()
        optimizer.step()
        return inside(network.layer)

    seen = [step() for _ in range(6)]
    assert seen == [False, False, True, False, False, True]
    handle.remove()
    assert not step()
    assert not step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", available_solvers("projection"))
def test_backends_agree_and_count_rows(solver, dtype):
    torch.manual_seed(1)
    layer = ImplicitLayer(2, 9, dtype=dtype, eta=np.linspace(0.5, 2, 9))
    with torch.no_grad():
        layer.A[:6].add_(torch.randn(6, 9, dtype=dtype) * 2)
        layer.A[4].zero_()
    start, twin = layer.A.detach().clone(), ImplicitLayer(2, 9, dtype=dtype)
    twin.load_state_dict(layer.state_dict())
    changed = project_(layer, solver=solver)
    assert inside(layer)
    assert changed == int((start != layer.A).any(dim=1).sum())
    assert torch.equal(start[[4, 6, 7, 8]], layer.A[[4, 6, 7, 8]])
    assert 0 < changed <= 5
    assert project_(twin) == changed
    size = 1e-8 if dtype == torch.float64 else 1e-6
    assert (layer.A - twin.A).abs().max().item() <= size
    assert project_(layer, solver=solver) == 0


def test_every_layer_of_a_module_is_projected():
    torch.manual_seed(0)
    module = torch.nn.Sequential(ImplicitConv2d(1, 2), torch.nn.Flatten(), ImplicitLayer(32, 5))
    with torch.no_grad():
        module[0].A.add_(1.0)
        module[2].A.add_(1.0)
    assert project_(module) == 7
    assert inside(module[0])
    assert inside(module[2])


def test_bad_use_is_refused():
    network, _ = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="every"):
        project_after_step(optimizer, network, every=0)
    with pytest.raises(ValueError, match="no state matrix"):
        project_after_step(optimizer, torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="updates no state matrix"):
        project_after_step(optimizer, make()[0])
    with pytest.raises(UnknownSolverError, match="expected one of"):
        project_after_step(optimizer, network, solver="simplex")
    with pytest.raises(ValueError, match="no option"):
        project_after_step(optimizer, network, solver="cvxpy", tolerance=1)
    with torch.no_grad():
        network.layer.A[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        project_(network)


@given(seeds, st.sampled_from([1e-6, 1.0, 1e3, 1e6]), st.integers(1, 12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_contracting_is_inside_for_any_parameter(seed, scale, n, single):
    rng = np.random.default_rng(seed)
    dtype = torch.float32 if single else torch.float64
    layer = ImplicitLayer(2, n, eta=10.0 ** rng.uniform(-2, 2, n), dtype=dtype)
    contracting(layer, gamma=float(rng.uniform(-2, 0.99)))
    free = layer.parametrizations.A.original
    with torch.no_grad():
        free.copy_(torch.from_numpy(scale * rng.normal(size=(n, n))))
    assert inside(layer)


def test_contracting_starts_where_the_layer_is_and_has_no_dead_gradients():
    torch.manual_seed(0)
    layer = ImplicitLayer(3, 6, dtype=torch.float64, eta=np.linspace(0.5, 2, 6))
    with torch.no_grad():
        layer.A[1:].mul_(0.9)
    before = layer.A.detach().clone()
    assert contracting(layer) is layer
    torch.testing.assert_close(layer.A[1:].detach(), before[1:], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.A[0].detach(), before[0], rtol=0, atol=1.01e-4)
    free = layer.parametrizations.A.original
    for sign in (-5.0, 0.0, 5.0):
        with torch.no_grad():
            free.diagonal().fill_(sign)
        (gradient,) = torch.autograd.grad(layer.A.diagonal().sum(), free)
        assert bool((gradient.diagonal() != 0).all())
        assert float(gradient.diagonal().max()) < 0
    assert project_(layer) == 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no state matrix"):
        project_after_step(optimizer, layer)
    with pytest.raises(ValueError, match="already"):
        contracting(layer)
    parametrize.remove_parametrizations(layer, "A")
    assert inside(layer)
    project_after_step(torch.optim.SGD(layer.parameters(), lr=0.1), layer)


def test_contracting_reaches_the_border_and_trains():
    network, loss = make(dtype=torch.float64)
    contracting(network.layer, gamma=0.9)
    assert float(network.layer.gamma) == 0.9
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    start = loss().item()
    for _ in range(40):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        assert inside(network.layer)
    assert loss().item() < 0.9 * start
    with torch.no_grad():
        network.layer.parametrizations.A.original.diagonal().fill_(-40.0)
    sums = network.layer.operator(network.layer.A.detach()).row_sums(network.layer.eta)
    torch.testing.assert_close(sums, torch.full_like(sums, 0.9), rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, float("nan"), float("-inf")])
def test_contracting_refuses(gamma):
    with pytest.raises(ValueError, match="below one"):
        contracting(ImplicitLayer(2, 3), gamma)
    with pytest.raises(ValueError, match="expected an ImplicitLayer"):
        contracting(ImplicitConv2d(1, 2))


@given(seeds, st.booleans())
@settings(max_examples=60, deadline=None)
def test_penalty_is_the_certified_bound_and_its_gradient_is_right(seed, feedthrough):
    torch.manual_seed(seed % 2**31)
    network = ImplicitNetwork(4, 7, 3, feedthrough=feedthrough, dtype=torch.float64)
    with torch.no_grad():
        network.layer.A.add_(torch.randn(7, 7, dtype=torch.float64))
    project_(network)
    value = lipschitz_penalty(network)
    bound = lipschitz_certificate(ImplicitWeights.from_module(network)).bound
    assert value.item() == pytest.approx(bound, rel=1e-9)
    value.backward()
    for parameter in network.parameters():
        if parameter.grad is None:
            continue
        direction = torch.randn_like(parameter) * (parameter != 0)
        step = 1e-7
        with torch.no_grad():
            parameter.add_(step * direction)
            above = lipschitz_penalty(network).item()
            parameter.sub_(2 * step * direction)
            below = lipschitz_penalty(network).item()
            parameter.add_(step * direction)
        slope = float((parameter.grad * direction).sum())
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-4 * bound)


def test_penalty_refuses():
    network, _ = make()
    with torch.no_grad():
        network.layer.A.fill_(1.0)
    with pytest.raises(NotWellPosedError, match="not well-posed"):
        lipschitz_penalty(network)
    with pytest.raises(ValueError, match="expected an ImplicitNetwork"):
        lipschitz_penalty(network.layer)
