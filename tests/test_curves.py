"""Accuracy over ε, and one sample between proofs and attacks: proved below attacked, drawn so."""

import json

import numpy as np
import pytest
import torch

from contraction_nets import ImplicitNetwork, attack, fit, verify_robustness
from contraction_nets.robustness.attacks import Noise, Pgd
from contraction_nets.robustness.bisection import RobustnessGap, robustness_gap
from contraction_nets.robustness.curves import AccuracyCurves, accuracy_curves
from contraction_nets.training.data import load_data
from contraction_nets.viz.metrics import NothingToDrawError
from contraction_nets.viz.robustness import plot_accuracy_curves, plot_robustness_ladder

RADII = [0.1, 0.0, 0.03]


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network, data = ImplicitNetwork(64, 15, 10), load_data("digits")
    fit(network, data, epochs=5, learning_rate=1e-2, lipschitz_weight=1e-2, audit=False)
    network.layer.tol = 1e-6
    return network, data.test_inputs[:30], data.test_targets[:30]


@pytest.fixture(scope="module")
def curves(trained):
    steps = []
    found = accuracy_curves(
        *trained, RADII, attacks=("fgsm", "inversion", Noise(3), Pgd(steps=10)), ladder_samples=20,
        on_step=lambda *now: steps.append(now),
    )  # fmt: skip
    assert steps == [(k, 21) for k in range(1, 22)]
    return found


def test_curves_are_what_attacks_and_proofs_say(trained, curves):
    network, x, y = trained
    assert curves.radii.tolist() == sorted(RADII)
    assert (curves.samples, curves.ladder_samples) == (30, 20)
    assert set(curves.attacked) == {"fgsm", "inversion", "noise", "pgd"}
    assert set(curves.certified) == {"global", "interval", "ladder"}
    assert curves.clean == (network(x).argmax(dim=1) == y).double().mean().item() > 0.8
    for values in curves.attacked.values():
        assert values[0] == curves.clean
    for epsilon, share in zip(curves.radii, curves.attacked["fgsm"], strict=True):
        lost = attack(network, x, y, float(epsilon), method="fgsm").success
        assert share == pytest.approx(1 - lost.double().mean().item())
    for name in ("global", "interval"):
        for epsilon, share in zip(curves.radii, curves.certified[name], strict=True):
            found = verify_robustness(network, x.double(), y, float(epsilon), method=name)
            assert share == found.counts()["certified"] / 30
    first = verify_robustness(network, x[:20].double(), y[:20], 0.03)
    assert curves.certified["ladder"][1] == first.counts()["certified"] / 20
    assert json.loads(json.dumps(curves.as_dict()))["attacked"]["pgd"][0] == curves.clean


def test_what_is_proved_is_never_above_what_is_left(curves):
    for proof in ("global", "interval"):
        for values in curves.attacked.values():
            assert (curves.certified[proof] <= values).all()
    for values in (curves.attacked["pgd"], *curves.certified.values()):
        assert (np.diff(values) <= 0).all()


def test_bad_curves_are_refused(trained):
    for change in ({"radii": []}, {"radii": [-0.1]}, {"proofs": ["luck"]}, {"attacks": ["luck"]}):
        with pytest.raises(ValueError, match="expected"):
            accuracy_curves(*trained, **({"radii": [0.1]} | change))


@pytest.fixture(scope="module")
def gap(trained):
    network, x, y = trained
    return robustness_gap(network, x[0], int(y[0]), resolution=4e-3)


def test_a_gap_is_between_proofs_and_a_confirmed_attack(trained, gap):
    network, x, y = trained
    radii = list(gap.certified.values())
    assert list(gap.certified) == ["global", "interval", "lp", "milp"]
    assert radii == sorted(radii)
    assert 0 < radii[-1] < gap.attacked < np.inf
    assert gap.attacked - radii[-1] < 0.01
    moved = torch.from_numpy(gap.adversarial).to(x.dtype)
    assert network(moved[None]).argmax().item() == gap.adversarial_label != gap.label == y[0]
    assert abs(gap.adversarial - gap.input).max() == gap.attacked
    for rung, radius in gap.certified.items():
        for epsilon, expected in ((radius, {"certified"}), (radius + 5e-3, {"unknown"})):
            found = verify_robustness(network, x[:1].double(), y[:1], epsilon, method=rung)
            status = found.verdicts[0].status
            assert status in expected or (status == "falsified" and epsilon > radius)


def test_a_gap_ends_where_nobody_looks_further(trained):
    network, x, y = trained
    near = robustness_gap(network, x[0], int(y[0]), largest=1e-4, rungs=("interval", "milp"))
    assert near.certified == {"interval": 1e-4, "milp": 1e-4}
    assert (near.attacked, near.adversarial, near.adversarial_label) == (np.inf, None, None)
    with pytest.raises(ValueError, match="expected its label"):
        robustness_gap(network, x[0], (int(y[0]) + 1) % 10)
    with pytest.raises(ValueError, match="expected a positive number"):
        robustness_gap(network, x[0], int(y[0]), resolution=0.0)


def texts(figure):
    return " ".join(
        text.get_text().replace("\n", " ").replace("\u00a0", " ")
        for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))
    )


def test_curves_are_drawn_side_by_side(curves):
    k = len(curves.radii)
    nothing = AccuracyCurves(
        curves.radii, 0.5, {"pgd": np.full(k, 0.5)}, {"ladder": np.zeros(k)}, 30, 30
    )
    for methods in (
        {"penalty": curves},
        {"penalty": curves, "nothing": nothing},
        {"penalty": curves, "nothing": nothing, "again": curves},
    ):
        figure = plot_accuracy_curves(methods)
        figure.canvas.draw()
        written = texts(figure)
        for part in (*methods, "ε, in units of an input", "PGD", "by global gains"):
            assert part in written
    best = 100 * max(values[0] for values in curves.certified.values())
    assert f"Proved at ε = 0: {best:.1f} %" in written
    assert "0 % (nothing)" in written
    for none in ({}, {"one": AccuracyCurves(np.zeros(1), 1.0, {}, {}, 1, 1)}):
        with pytest.raises(NothingToDrawError, match="expected"):
            plot_accuracy_curves(none)


def test_a_ladder_is_drawn_with_its_numbers_on_the_safe_side(gap):
    figure = plot_robustness_ladder(gap)
    figure.canvas.draw()
    written = texts(figure)
    for part in ("intervals", "exact search", "attack found", "pixels in [0, 1]", "difference"):
        assert part in written
    words = figure.get_suptitle().replace("\u00a0", " ").replace("\n", " ")
    proved, broken = (float(part.split("ε = ")[1].split(",")[0]) for part in words.split(", read"))
    assert proved <= gap.certified["milp"]
    assert broken >= gap.attacked
    wide = RobustnessGap(np.zeros(6), 1, {"interval": 0.0}, np.inf, None, None)
    figure = plot_robustness_ladder(wide, shape=(2, 3))
    figure.canvas.draw()
    assert "read as" not in texts(figure)
    with pytest.raises(ValueError, match="pass shape"):
        plot_robustness_ladder(wide)
    with pytest.raises(NothingToDrawError, match="expected some"):
        plot_robustness_ladder(RobustnessGap(np.zeros(4), 1, {}, np.inf, None, None))
