"""The Lipschitz budget: proved after every step, however wild, and resumed to the same bits."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from torch.nn.functional import mse_loss

from contraction_nets import (
    ContractionNetsError,
    ImplicitConv2d,
    ImplicitNetwork,
    ImplicitWeights,
    LipschitzBudget,
    UnknownSolverError,
    contracting,
    fit,
    lipschitz_certificate,
    project_,
)
from contraction_nets.training.data import Dataset, load_data

DTYPES = [torch.float32, torch.float64]


def make(seed=0, n=8, dtype=torch.float32, feedthrough=True, **options):
    torch.manual_seed(seed)
    return ImplicitNetwork(4, n, 3, feedthrough=feedthrough, dtype=dtype, **options)


def certificate(network):
    return lipschitz_certificate(ImplicitWeights.from_module(network))


def matrices(network):
    layer = network.layer
    weights = layer.A, layer.B, network.C, network.D
    return [None if w is None else w.detach().double().numpy() for w in weights]


def exactly(rows):
    return [[Fraction(v) for v in row] for row in rows.tolist()]


def excesses(network, z):
    """M z + |B|1 − z for every state and |C|z + |D|1 for every output, in fractions."""
    A, B, C, D = matrices(network)
    weights = [Fraction(v) for v in z.tolist()]
    states, outputs = [], []
    for i, (row, inputs) in enumerate(zip(exactly(A), exactly(B), strict=True)):
        terms = [v if i == j else abs(v) for j, v in enumerate(row)]
        drive = sum(map(abs, inputs))
        states.append(sum(map(Fraction.__mul__, terms, weights)) + drive - weights[i])
    feed = exactly(D) if D is not None else [[]] * len(C)
    for row, inputs in zip(exactly(C), feed, strict=True):
        total = sum(map(Fraction.__mul__, map(abs, row), weights))
        outputs.append(total + sum(map(abs, inputs)))
    return states, outputs


def assert_within(budget):
    """The witness proves the bound, in fractions and integers, and the certificate is below."""
    states, outputs = excesses(budget.module, budget.witness)
    assert max(states) < 0
    assert max(outputs) <= Fraction(budget.bound)
    assert budget.verify()
    proof = certificate(budget.module)
    assert Fraction(proof.bound) <= Fraction(budget.bound)
    assert proof.verify()


def wild_step(network, rng, scale, kind):
    """A step that training would never take."""
    with torch.no_grad():
        for parameter in network.parameters():
            step = scale * rng.normal(size=parameter.shape)
            if kind == "sparse":
                step *= rng.uniform(size=step.shape) < 0.2
            elif kind == "mixed":
                step *= 10.0 ** rng.integers(-12, 6, size=step.shape)
            elif kind == "one sign":
                step = abs(step) * rng.choice([-1, 1])
            parameter.add_(torch.from_numpy(step).to(parameter.dtype))
        if kind == "zero rows":
            network.layer.B[::2] = 0.0
            network.layer.A[::2] = 0.0
        if kind == "deep":
            network.layer.A.diagonal().sub_(float(abs(scale)))


KINDS = ["plain", "sparse", "mixed", "one sign", "zero rows", "deep"]


@given(
    seeds,
    st.integers(1, 9),
    st.sampled_from([1e-12, 1e-3, 1.0, 30.0, 1e6, 1e12]),
    st.lists(st.tuples(st.sampled_from([1e-6, 0.1, 3.0, 1e4, 1e15]), st.sampled_from(KINDS))),
    st.sampled_from(DTYPES),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_bound_holds_after_any_step(seed, n, bound, steps, dtype, feedthrough):
    network = make(seed % 2**31, n, dtype, feedthrough)
    budget = LipschitzBudget(network, bound, refresh=2)
    assert_within(budget)
    rng = np.random.default_rng(seed)
    for scale, kind in steps[:4]:
        wild_step(network, rng, scale, kind)
        budget.project_()
        assert_within(budget)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_hundred_adversarial_steps(dtype):
    """Gradient ascent on everything that the budget limits, at rates up to 1e15."""
    network = make(dtype=dtype, n=12)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.5)
    budget = LipschitzBudget(network, 5.0, refresh=7)
    budget.after_step(optimizer)
    rng = np.random.default_rng(0)
    for _ in range(200):
        optimizer.param_groups[0]["lr"] = 10.0 ** rng.uniform(-6, 15)
        for parameter in network.parameters():
            push = torch.from_numpy(rng.normal(size=parameter.shape)).to(dtype)
            parameter.grad = push - 3 * parameter.detach().sign()
        optimizer.step()
        with torch.no_grad():  # no bias is limited: kept where float32 is
            network.c.zero_()
            network.layer.b.zero_()
        assert budget.verify()
        assert certificate(network).bound <= 5.0
        assert network.layer.constraint().contains(network.layer.A.detach().numpy())


@given(seeds, st.sampled_from(DTYPES), st.booleans(), st.sampled_from([0.5, 40.0]))
@settings(max_examples=60, deadline=None)
def test_a_fresh_witness_is_feasible_and_leaves_the_weights(seed, dtype, feedthrough, bound):
    network = make(seed % 2**31, 6, dtype, feedthrough)
    budget = LipschitzBudget(network, bound)
    rng = np.random.default_rng(seed)
    wild_step(network, rng, 0.3, "sparse")
    budget.project_()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    budget.project_()
    before, old = [p.clone() for p in network.parameters()], certificate(network).bound
    assert budget.refresh_()
    assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))
    assert certificate(network).bound == old
    assert budget.project_() == 0
    assert_within(budget)


def test_refreshing_gains_room():
    """A budget whose witness never moves forbids what one with a fresh witness allows."""
    free = []
    for refresh in (10, 10**9):
        network = make(n=6, feedthrough=False, dtype=torch.float64)
        budget = LipschitzBudget(network, 5.0, refresh=refresh)
        for _ in range(400):
            with torch.no_grad():  # all that the outputs may grow goes through one state
                network.layer.A.mul_(0.99)
                network.layer.B[1:].mul_(0.9)
                network.layer.B[0].add_(1.0)
            budget.project_()
            assert certificate(network).bound <= 5.0
        free.append(float(network.layer.B[0].detach().sum()))
    assert free[0] > 2 * free[1]


def test_no_room_no_refresh():
    network = make(n=6)
    budget = LipschitzBudget(network, 1.0)
    with torch.no_grad():
        network.layer.B.mul_(1e3)
        network.C.mul_(1e3)
    budget.project_()
    old = budget.witness.copy()
    assert not budget.refresh_()
    assert np.array_equal(old, budget.witness)
    assert_within(budget)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feedthrough", [False, True])
def test_cvxpy_projects_to_the_same_weights(dtype, feedthrough):
    for seed, scale in enumerate([0.1, 1.0, 30.0]):
        networks = [make(seed, 6, dtype, feedthrough) for _ in range(2)]
        budgets = [
            LipschitzBudget(network, 8.0, solver=solver)
            for network, solver in zip(networks, ("closed_form", "cvxpy"), strict=True)
        ]
        for network, budget in zip(networks, budgets, strict=True):
            wild_step(network, np.random.default_rng(seed), scale, "plain")
            assert budget.project_() > 0
            assert_within(budget)
        size = 1e-6 if dtype == torch.float64 else 1e-4
        for ours, theirs in zip(*(net.parameters() for net in networks), strict=True):
            assert (ours - theirs).abs().max().item() <= size * max(1.0, scale)


@given(seeds, st.sampled_from([1.0, 200.0, 1e5]))
@settings(max_examples=60, deadline=None)
def test_projections_are_nearest_points(seed, scale):
    """⟨V − P, X − P⟩ ≤ 0 for every other point X of the set, diagonal limits included."""
    rng = np.random.default_rng(seed)
    network = make(seed % 2**31, 5, torch.float64)
    budget = LipschitzBudget(network, 4.0)
    names = ["layer.A", "layer.B", "C", "D"]

    def current():
        return [network.get_parameter(name).detach().clone() for name in names]

    wild_step(network, rng, scale, str(rng.choice(["plain", "deep"])))
    others = []
    for _ in range(5):
        point = current()
        budget.project_()
        others.append(current())
        assert budget.project_() == 0
        with torch.no_grad():
            for name, value in zip(names, point, strict=True):
                noise = torch.from_numpy(rng.normal(size=value.shape))
                network.get_parameter(name).copy_(value + scale * noise)
    with torch.no_grad():
        for name, value in zip(names, point, strict=True):
            network.get_parameter(name).copy_(value)
    budget.project_()
    nearest = current()
    for other in others:
        products = [
            ((v - p) * (x - p)).sum() for v, p, x in zip(point, nearest, other, strict=True)
        ]
        size = sum(float((v - p).abs().max()) for v, p in zip(point, nearest, strict=True))
        assert float(sum(products)) <= 1e-10 * size * scale


def test_the_diagonal_is_limited():
    network = make(n=5)
    budget = LipschitzBudget(network, 4.0)
    with torch.no_grad():
        network.layer.A[2, 2] = -1e9
        network.layer.A[3, 3] = -1e9
        network.layer.A[3, 0] = 1e9
    assert budget.project_() == 2
    assert network.layer.A.diagonal().min() == -128
    assert network.layer.A[3, 3] == -128
    assert network.layer.A[3, 0] > 10
    assert_within(budget)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4),
    "LBFGS, line search": lambda p: torch.optim.LBFGS(
        p, lr=0.1, max_iter=4, line_search_fn="strong_wolfe"
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_under_a_budget(name):
    network = make(n=10, dtype=torch.float64)
    optimizer = OPTIMIZERS[name](network.parameters())
    budget = LipschitzBudget(network, 2.0, refresh=5)
    handle = budget.after_step(optimizer)
    u, y = torch.rand(40, 4).double(), torch.randn(40, 3).double()
    losses, seen = [], []

    def closure():
        seen.append(budget.verify())
        optimizer.zero_grad()
        loss = mse_loss(network(u), y)
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(15):
        optimizer.step(closure)
        assert budget.verify()
        assert certificate(network).bound <= 2.0
    assert all(seen)
    assert min(losses) < 0.95 * losses[0]
    handle.remove()
    with torch.no_grad():
        network.C.add_(100.0)
    optimizer.step(closure)
    assert not budget.verify()


def test_the_layer_knows_the_set_of_its_matrix():
    network = make(gamma=0.5)
    budget = LipschitzBudget(network, 3.0)
    assert float(network.layer.gamma) == 1 - 2.0**-10
    ratio = network.layer.eta.numpy() / budget.witness
    assert (ratio == ratio[0]).all()
    assert np.frexp(ratio[0])[0] == 0.5
    for _ in range(3):
        wild_step(network, np.random.default_rng(0), 10.0, "plain")
        budget.project_()
        assert network.layer.constraint().contains(network.layer.A.detach().numpy())
        assert project_(network) == 0


def steps(network, budget, count, seed):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    handle = budget.after_step(optimizer)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        u = torch.rand(16, 4, generator=generator)
        optimizer.zero_grad()
        (network(u).square().mean() - 3 * network(u).mean()).backward()
        optimizer.step()
    handle.remove()


def test_a_resumed_budget_ends_with_the_same_bits(tmp_path):
    whole = make()
    budget = LipschitzBudget(whole, 3.0, refresh=4)
    steps(whole, budget, 10, 0)
    torch.save({"network": whole.state_dict(), "budget": budget.state_dict()}, tmp_path / "x.pt")
    steps(whole, budget, 10, 1)

    again = make(seed=9)
    other = LipschitzBudget(again, 3.0, refresh=4)
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    again.load_state_dict(state["network"])
    other.load_state_dict(state["budget"])
    assert other.verify()
    steps(again, other, 10, 1)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    assert np.array_equal(budget.witness, other.witness)
    assert budget.state_dict()["projections"] == other.state_dict()["projections"] == 20


def damaged():
    good = torch.linspace(1, 2, 8, dtype=torch.float64)
    return {
        "empty": lambda s: s.clear(),
        "no witness": lambda s: s.pop("witness"),
        "no counter": lambda s: s.pop("projections"),
        "a field too many": lambda s: s.update(more=1),
        "fields of several types": lambda s: s.update({1: 2}),
        "a bound in words": lambda s: s.update(bound="3"),
        "many bounds": lambda s: s.update(bound=torch.tensor([3.0, 3.0])),
        "sparse": lambda s: s.update(witness=s["witness"].to_sparse()),
        "without memory": lambda s: s.update(witness=s["witness"].to("meta")),
        "another bound": lambda s: s.update(bound=4.0),
        "NaN": lambda s: s["witness"].fill_(torch.nan),
        "infinite": lambda s: s["witness"].fill_(torch.inf),
        "zero": lambda s: s["witness"][3:].zero_(),
        "negative": lambda s: s["witness"][:1].neg_(),
        "too short": lambda s: s.update(witness=good[:7]),
        "two-dimensional": lambda s: s.update(witness=good[None]),
        "single precision": lambda s: s.update(witness=s["witness"].float()),
        "no tensor": lambda s: s.update(witness=good.tolist()),
        "counts backwards": lambda s: s.update(projections=-1),
        "counts in halves": lambda s: s.update(projections=0.5),
        "counts True": lambda s: s.update(projections=True),
        "proves nothing": lambda s: s["witness"].mul_(1.5),
        "far too large": lambda s: s["witness"].mul_(1e300),
        "all ranges": lambda s: s["witness"][:1].mul_(1e-300),
    }


@pytest.mark.parametrize("damage", damaged())
def test_a_damaged_state_is_refused(damage):
    network = make()
    budget = LipschitzBudget(network, 3.0)
    steps(network, budget, 3, 0)
    before, state = budget.witness.copy(), budget.state_dict()
    damaged()[damage](state)
    with pytest.raises(ValueError, match=r"^the state of the budget .*expected what state_dict"):
        budget.load_state_dict(state)
    assert np.array_equal(before, budget.witness)
    with pytest.raises(ValueError, match="the state of the budget"):
        budget.load_state_dict(None)


def test_a_witness_with_a_gradient_is_as_good_as_without():
    network = make()
    budget = LipschitzBudget(network, 3.0)
    state = budget.state_dict()
    state["witness"].requires_grad_()
    budget.load_state_dict(state)
    assert budget.verify()


def test_bad_use_is_refused():
    network = make()
    for bound in (0.0, -1.0, float("nan"), float("inf"), 1e-13, 1e13, "3", None, True, [3.0]):
        with pytest.raises(ValueError, match="got the bound"):
            LipschitzBudget(network, bound)
    for refresh in (0, -1, 1.5, "2", None):
        with pytest.raises(ValueError, match="refresh"):
            LipschitzBudget(network, 1.0, refresh=refresh)
    with pytest.raises(UnknownSolverError, match="expected one of"):
        LipschitzBudget(network, 1.0, solver="simplex")
    with pytest.raises(ValueError, match="no option"):
        LipschitzBudget(network, 1.0, solver="cvxpy", tolerance=1)
    with pytest.raises(ValueError, match="expected an ImplicitNetwork"):
        LipschitzBudget(ImplicitConv2d(1, 2), 1.0)
    free = make()
    contracting(free.layer)
    with pytest.raises(ValueError, match="without parametrization"):
        LipschitzBudget(free, 1.0)
    with pytest.raises(ValueError, match="expected float32 or float64"):
        LipschitzBudget(make().to(torch.bfloat16), 1.0)
    budget = LipschitzBudget(network, 1.0)
    with pytest.raises(ValueError, match="updates no weight"):
        budget.after_step(torch.optim.SGD(make().parameters(), lr=1.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layer.A", "layer.B", "C", "D"])
def test_weights_that_are_no_numbers_are_refused(name, value):
    network = make()
    budget = LipschitzBudget(network, 1.0)
    with torch.no_grad():
        network.layer.B.add_(1.0)
        network.get_parameter(name)[0, 0] = value
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="NaN"):
        budget.project_()
    after = network.state_dict()
    assert all(torch.equal(v.nan_to_num(), after[k].nan_to_num()) for k, v in before.items())
    with pytest.raises(ValueError, match="NaN"):
        LipschitzBudget(network, 1.0)


def digits(count=150):
    data = load_data("digits")
    train = data.train_inputs[:count], data.train_targets[:count]
    return Dataset("digits", *train, data.test_inputs[:100], data.test_targets[:100])


def network_for_digits():
    torch.manual_seed(0)
    return ImplicitNetwork(64, 12, 10)


def test_fit_keeps_the_budget_and_resumes_to_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    def stop(epoch, done, steps):
        if (epoch, done) == (3, 2):
            raise Killed

    options = {"epochs": 4, "lipschitz_budget": 2.0, "batch_size": 10, "learning_rate": 3e-2}
    whole, resumed, run = network_for_digits(), network_for_digits(), tmp_path / "run"
    expected = fit(whole, digits(), **options)
    assert all(metrics["lipschitz_bound"] <= 2.0 for metrics in expected.metrics)
    assert expected.metrics[-1]["lipschitz_bound"] > 1.9
    assert expected.metrics[-1]["train_loss"] < expected.metrics[0]["train_loss"]
    assert max(metrics["projection_audit"] for metrics in expected.metrics) <= 1e-7
    assert all(metrics["mu_inf"] <= metrics["gamma"] < 1 for metrics in expected.metrics)
    with pytest.raises(Killed):
        fit(network_for_digits(), digits(), run=run, on_step=stop, **options)
    result = fit(resumed, digits(), run=run, resume=True, **options)
    states = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert result.metrics[-1]["test_loss"] == expected.metrics[-1]["test_loss"]
    assert json.loads((run / "config.json").read_text())["lipschitz_budget"] == 2.0
    for other in (None, 3.0):
        options["lipschitz_budget"] = other
        with pytest.raises(ValueError, match="lipschitz_budget = 2"):
            fit(network_for_digits(), digits(), run=run, resume=True, **options)


def test_a_run_without_budget_is_not_resumed_with_one(tmp_path):
    options = {"epochs": 1, "run": tmp_path, "audit": False}
    fit(network_for_digits(), digits(), **options)
    with pytest.raises(ValueError, match="lipschitz_budget = None"):
        fit(network_for_digits(), digits(), resume=True, lipschitz_budget=2.0, **options)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["lipschitz_budget"]  # as a run from before budgets
    (tmp_path / "config.json").write_text(json.dumps(config))
    fit(network_for_digits(), digits(), resume=True, **options)


def test_a_checkpoint_with_a_damaged_witness_is_refused(tmp_path):
    options = {"epochs": 1, "run": tmp_path, "audit": False, "lipschitz_budget": 2.0}
    fit(network_for_digits(), digits(), **options)
    path = tmp_path / "checkpoint" / "latest.pt"
    state = torch.load(path, weights_only=True)
    state["budget"]["witness"][0] = -1.0
    torch.save(state, path)
    with pytest.raises(ValueError, match="cannot be resumed from"):
        fit(network_for_digits(), digits(), resume=True, **options)


def test_a_budget_that_is_not_kept_ends_the_training(monkeypatch):
    monkeypatch.setattr(LipschitzBudget, "project_", lambda self: 0)
    with pytest.raises(ContractionNetsError, match="not proved to be within the budget 2"):
        fit(network_for_digits(), digits(), epochs=1, audit=False, lipschitz_budget=2.0)


def test_the_command_line(command, tmp_path):
    arguments = ["train", "--hidden", 8, "--epochs", 1, "--lipschitz-budget", 12]
    code, out, _ = command(*arguments, "--out", tmp_path / "a")
    assert code == 0
    assert "12, proved" in out
    assert lipschitz_certificate(ImplicitWeights.load(tmp_path / "a")).bound <= 12
    code, out, _ = command(*arguments, "--out", tmp_path / "b", "--json")
    summary = json.loads(out)
    assert summary["lipschitz_budget"] == 12
    assert 0 < summary["lipschitz"]["bound"] <= 12
    code, _, err = command("train", "--lipschitz-budget", "-1", "--out", tmp_path / "c")
    assert code == 2
    assert "got the bound -1" in err
