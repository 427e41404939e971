"""Attacks: what they return is in the ball, in the domain, and found; the network is untouched."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contraction_nets import ImplicitNetwork, attack, contracting
from contraction_nets.robustness.attacks import Attack, Fgsm, Inversion, Noise, Pgd, get_attack
from contraction_nets.robustness.attacks.ball import ball

ATTACKS = ("fgsm", "inversion", "noise", "pgd")


def network(q=3, p=6, seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    tol = 1e-9 if dtype == torch.float64 else 1e-5
    return ImplicitNetwork(p, 12, q, tol=tol, dtype=dtype, **options)


def samples(module, m=20, p=6, seed=1):
    x = torch.rand(m, p, generator=torch.Generator().manual_seed(seed), dtype=module.C.dtype)
    with torch.no_grad():
        return x, module(x).argmax(dim=1)


floats = st.floats(-4, 4) | st.floats(0, 1) | st.sampled_from([0.0, 1.0, -0.0, 5e-324, 1e-30, 0.1])
radii = st.floats(0, 2) | st.sampled_from([0.0, 0.1, 1 / 3, 1e-9, 5e-324, 1e30])


@settings(deadline=None, max_examples=300)
@given(st.lists(floats, min_size=1, max_size=6), radii, st.sampled_from(["float32", "float64"]))
def test_corners_of_the_ball_are_the_outermost_numbers_in_it(values, epsilon, name):
    u = torch.tensor([values], dtype=getattr(torch, name))
    lower, upper = ball(u, epsilon, None)
    for v, beyond in ((lower, -np.inf), (upper, np.inf)):
        for at, centre in zip(v[0].tolist(), u[0].tolist(), strict=True):
            assert abs(Fraction(at) - Fraction(centre)) <= Fraction(epsilon)
            next_one = float(np.nextafter(np.dtype(name).type(at), np.dtype(name).type(beyond)))
            assert abs(Fraction(next_one) - Fraction(centre)) > Fraction(epsilon)


@settings(deadline=None, max_examples=100)
@given(st.floats(-1, 0), st.floats(0.5, 2), st.lists(st.floats(0, 0.5), min_size=1, max_size=4))
def test_corners_are_in_the_domain(low, high, values):
    for dtype in (torch.float32, torch.float64):
        u = torch.tensor([values], dtype=dtype)
        lower, upper = ball(u, 3.0, (low, high))
        assert all(Fraction(low) <= Fraction(v) <= Fraction(high) for v in lower[0].tolist())
        assert all(Fraction(low) <= Fraction(v) <= Fraction(high) for v in upper[0].tolist())


@pytest.mark.parametrize("method", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1 / 3])
def test_what_is_returned_is_in_the_ball_and_confirmed(method, dtype, epsilon):
    module = network(dtype=dtype)
    x, y = samples(module)
    y[::5] = (y[::5] + 1) % 3
    found = attack(module, x, y, epsilon, method=method)
    assert found.inputs.dtype == dtype
    assert not found.inputs.requires_grad
    for row, at in zip(found.inputs.tolist(), x.tolist(), strict=True):
        for v, u in zip(row, at, strict=True):
            assert abs(Fraction(v) - Fraction(u)) <= Fraction(epsilon)
            assert 0 <= v <= 1
    assert (found.distances <= epsilon).all()
    with torch.no_grad():
        labels = module(found.inputs).argmax(dim=1)
        assert torch.equal(found.clean_labels, module(x).argmax(dim=1))
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.success, labels != y)
    # Misclassified samples are not attacked, nor are those replaced that hold.
    for kept in (found.clean_labels != y, ~found.success):
        assert torch.equal(found.inputs[kept], x[kept])


@pytest.mark.parametrize("method", ATTACKS)
def test_the_module_is_untouched(method):
    for parametrized in (False, True):
        module = network()
        if parametrized:
            contracting(module.layer)
        module.eval()
        module.layer.train()
        module.c.requires_grad_(False)
        module.C.grad = torch.ones_like(module.C)
        before = {k: v.clone() for k, v in module.state_dict().items()}
        x, y = samples(module)
        held = x.clone()
        with torch.no_grad():
            assert attack(module, x, y, 0.3, method=method).success.any() or method != "pgd"
        assert (module.training, module.layer.training) == (False, True)
        assert [p.requires_grad for p in module.parameters()] == [
            name != "c" for name, _ in module.named_parameters()
        ]
        for name, parameter in module.named_parameters():
            assert (parameter.grad is not None) == (name == "C")
        assert torch.equal(module.C.grad, torch.ones_like(module.C))
        assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
        assert torch.equal(x, held)
        assert not x.requires_grad


def test_random_numbers_come_from_the_seed_alone():
    module = network()
    x, y = samples(module)
    for method in (Pgd(steps=2, targets=0), Noise(draws=1)):
        torch.manual_seed(5)
        state = torch.get_rng_state()
        one, two, other = (
            method.perturb(module, x, y, 0.3, None, torch.Generator().manual_seed(seed))
            for seed in (3, 3, 4)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        runs = [attack(module, x, y, 0.6, method=method, seed=3) for _ in range(2)]
        assert torch.equal(runs[0].inputs, runs[1].inputs)
        assert torch.equal(state, torch.get_rng_state())
        # Without a generator it is torch's, which training seeds and checkpoints.
        assert not torch.equal(method.perturb(module, x, y, 0.3), x)
        assert not torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("method", ATTACKS)
def test_gradients_are_taken_where_the_caller_wants_none(method):
    module = network()
    x, y = samples(module)
    expected = attack(module, x, y, 0.3, method=method)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(attack(module, x.clone(), y, 0.3, method=method).inputs,
                               expected.inputs)  # fmt: skip


class Linear(nn.Module):
    """Class k is as high as k·u: the worst point of a ball is known."""

    def __init__(self, W):
        super().__init__()
        self.W = torch.as_tensor(W, dtype=torch.float64)

    def forward(self, u):
        return u @ self.W.T


def test_on_linear_maps_gradient_attacks_find_the_exact_radius():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(4, 7))
    module = Linear(W)
    x = torch.from_numpy(rng.normal(size=(30, 7)))
    y = module(x).argmax(dim=1)
    others = [[k for k in range(4) if k != t] for t in y.tolist()]
    radii = torch.tensor([
        min(float((module.W[t] - module.W[k]) @ u) / abs(W[t] - W[k]).sum() for k in ks)
        for u, t, ks in zip(x, y.tolist(), others, strict=True)
    ])  # fmt: skip
    for share, expected in ((1.01, True), (0.99, False)):
        for u, t, radius in zip(x, y, radii, strict=True):
            found = attack(module, u[None], t[None], share * float(radius), domain=None)
            assert found.success.item() is expected
    two = Linear(W[:2])
    y = two(x).argmax(dim=1)
    radii = (two(x)[:, 0] - two(x)[:, 1]).abs() / abs(W[0] - W[1]).sum()
    for method in ("fgsm", Pgd(steps=3, targets=0)):
        for u, t, radius in zip(x, y, radii, strict=True):
            for share, expected in ((1.01, True), (0.99, False)):
                epsilon = share * float(radius)
                found = attack(two, u[None], t[None], epsilon, method=method, domain=None)
                assert found.success.item() is expected


def test_targets_find_what_the_largest_difference_misses():
    """Class 1 is in front at the start and never wins; class 2 is behind and does."""

    def module(u):
        a, b = u[:, 0], u[:, 1]
        zero = torch.zeros_like(a)
        return torch.stack([zero, -0.1 - a.abs() - 0.1 * b, -0.5 + 0.6 * b], dim=1)

    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    cheap = Pgd(targets=0, random_start=False)
    assert not attack(module, x, y, 1.0, method=cheap, domain=None).success
    assert attack(module, x, y, 1.0, domain=None).success
    assert attack(module, x, y, 1.0, method=Pgd(targets=2, random_start=False), domain=None).success


def test_fgsm_is_not_blind_where_the_network_is_certain():
    """The cross-entropy is zero in floating point, and so is its gradient."""
    module = Linear(1000 * np.array([[1.0, 2.0], [-1.0, 3.0]]))
    x, y = torch.tensor([[0.5, 0.1]], dtype=torch.float64), torch.tensor([0])
    u = x.clone().requires_grad_()
    nn.functional.cross_entropy(module(u), y).backward()
    assert (u.grad == 0).all()
    found = Fgsm().perturb(module, x, y, 0.2)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.3]], dtype=torch.float64))


def test_inversion_moves_towards_the_negative_and_not_beyond():
    u = torch.tensor([[0.0, 0.1, 0.45, 0.5, 0.6, 1.0]], dtype=torch.float64)
    y = torch.zeros(1, dtype=torch.int64)
    for epsilon, expected in [
        (0.2, [[0.2, 0.3, 0.55, 0.5, 0.4, 0.8]]),
        (1.0, (1 - u).tolist()),
        (0.0, u.tolist()),
    ]:
        moved = Inversion().perturb(lambda u: u, u, y, epsilon, (0.0, 1.0))
        torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected that of the pixels"):
        Inversion().perturb(lambda u: u, u, y, 0.1)


def test_more_work_never_finds_less():
    module = network(q=5)
    x, y = samples(module, 60)
    rates = [
        float(attack(module, x, y, 0.25, method=method).success.double().mean())
        for method in (Noise(1), Noise(50), Pgd(steps=1, targets=0), Pgd(), Pgd(restarts=3))
    ]
    assert rates[0] <= rates[1] < rates[3] <= rates[4]
    assert rates[2] <= rates[3]


def test_images_and_any_module_are_attacked():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, bias=False))
    x = torch.rand(5, 1, 4, 4)
    y = module(x).argmax(dim=1)
    for method in ATTACKS:
        found = attack(module, x, y, 1.0, method=method)
        assert found.inputs.shape == x.shape
        assert method != "pgd" or found.success.any()


def test_batches_are_told_and_joined(monkeypatch):
    monkeypatch.setattr("contraction_nets.robustness.attacks.run._BATCH", 8)
    module, told = network(), []
    x, y = samples(module)
    found = attack(module, x, y, 0.2, method="fgsm", on_batch=lambda *now: told.append(now))
    assert told == [(8, 20), (16, 20), (20, 20)]
    monkeypatch.undo()
    assert torch.equal(found.inputs, attack(module, x, y, 0.2, method="fgsm").inputs)


def test_attacks_are_found_by_name_with_their_options():
    assert sorted(Attack.known()) == list(ATTACKS)
    assert get_attack("pgd") == Pgd()
    assert get_attack("pgd(7)") == Pgd(steps=7)
    assert get_attack(Noise(3)) == Noise(3)
    for bad in ("deepfool", 3, "pgd(x)", "pgd(0)", "noise(1.5)", "fgsm(2)"):
        with pytest.raises(ValueError, match="expected"):
            get_attack(bad)
    for options in (
        {"steps": 0}, {"restarts": 0}, {"targets": -1}, {"targets": 1.5}, {"first_step": 0.0},
        {"last_step": float("nan")},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            Pgd(**options)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epsilon": -0.1}, "got epsilon"),
        ({"epsilon": float("nan")}, "got epsilon"),
        ({"epsilon": "0.1"}, "got epsilon"),
        ({"domain": (0.0,)}, "got the domain"),
        ({"domain": (1.0, 0.0)}, "got the domain"),
        ({"domain": ("0", "1")}, "got the domain"),
        ({"domain": (0.5, 1.0)}, "expected the domain"),
        ({"method": "deepfool"}, "expected one of"),
        ({"method": 5}, "expected one of"),
        ({"seed": 1.5}, "got the seed"),
        ({"seed": "1"}, "got the seed"),
        ({"seed": -1}, "got the seed"),
        ({"x": np.zeros((20, 6))}, "expected samples and labels as tensors"),
        ({"x": torch.zeros(20)}, "one a row"),
        ({"x": torch.zeros(0, 6), "y": torch.zeros(0, dtype=torch.int64)}, "at least one"),
        ({"x": torch.zeros(20, 6)}, "expected torch.float64 on cpu"),
        ({"x": torch.full((20, 6), torch.nan, dtype=torch.float64)}, "not finite"),
        (
            {"x": torch.zeros(20, 6, dtype=torch.float16), "module": lambda u: u[:, :3]},
            "float32 or float64",
        ),
        ({"y": torch.zeros(19, dtype=torch.int64)}, "one a row"),
        ({"y": torch.zeros(20)}, "expected whole numbers"),
        ({"y": torch.full((20,), -1)}, "expected whole numbers"),
        ({"y": torch.full((20,), 3)}, "expected labels below 3"),
        ({"module": lambda u: u[:, :1]}, "two outputs or more"),
        ({"module": lambda u: u.sum()}, "one row a sample"),
        ({"module": lambda u: u / 0}, "outputs that are not finite"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(change, reason):
    module = network()
    x, y = samples(module)
    arguments = {"module": module, "x": x, "y": y, "epsilon": 0.1} | change
    with pytest.raises(ValueError, match=reason) as caught:
        attack(**arguments)
    assert "expected" in str(caught.value)
