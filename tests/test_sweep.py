"""The sweep over λ: no slope above its bound, the same figures after a file, true titles."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from contraction_nets import ImplicitNetwork, ImplicitWeights, lipschitz_certificate
from contraction_nets.comparison.sweep import RegularizerSweep, SweepRow, regularizer_sweep
from contraction_nets.robustness.steepness import steepest_found
from contraction_nets.training.data import Dataset
from contraction_nets.viz.metrics import NothingToDrawError
from contraction_nets.viz.sweep import plot_sweep


@given(seeds, st.sampled_from(["relu", "tanh", "softplus", "leaky_relu(0.1)"]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_slope_is_above_the_certified_bound(seed, activation, feedthrough):
    torch.manual_seed(seed)
    network = ImplicitNetwork(3, 6, 2, activation=activation, feedthrough=feedthrough)
    before = [p.clone() for p in network.parameters()]
    found = steepest_found(network, torch.rand(4, 3), steps=5, step_size=0.3)
    bound = lipschitz_certificate(ImplicitWeights.from_module(network)).bound
    assert 0 < found <= bound * (1 + 1e-6)
    assert all(map(torch.equal, before, network.parameters()))
    assert all(p.requires_grad for p in network.parameters())


def test_the_steepest_slope_of_a_chain_is_its_bound():
    # x = relu(u₁ + u₂), y = 3 x: steepest where x is positive, 3 · 2 per unit of ℓ∞.
    network = ImplicitNetwork(2, 1, 1)
    with torch.no_grad():
        layer = network.layer
        for parameter, value in ((layer.A, 0), (layer.B, 1), (layer.b, 0), (network.C, 3)):
            parameter.fill_(value)
    assert math.isclose(steepest_found(network, torch.ones(1, 2)), 6.0, rel_tol=1e-6)
    assert steepest_found(network, -torch.ones(1, 2), steps=1) == 0.0


def test_steepness_refuses_nonsense():
    network = ImplicitNetwork(2, 3, 1)
    for inputs, options in (
        (torch.zeros(0, 2), {}),
        (torch.zeros(1, 2), {"steps": 0}),
        (torch.zeros(1, 2), {"step_size": 0.0}),
    ):
        with pytest.raises(ValueError, match="expected at least one input"):
            steepest_found(network, inputs, **options)


def _blobs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(80)
    centres = torch.rand(3, 4, generator=generator)
    inputs = centres[labels] + 0.05 * torch.randn(240, 4, generator=generator)
    return Dataset("blobs", inputs[:180], labels[:180], inputs[180:], labels[180:])


@pytest.fixture(scope="module")
def sweep():
    return regularizer_sweep(
        _blobs(), weights=(0.0, 0.1), seeds=(0, 1), hidden=8, epochs=6, learning_rate=3e-2
    )


def test_a_larger_weight_gives_a_smaller_bound(sweep):
    assert [(row.weight, row.seed) for row in sweep.rows] == [(0, 0), (0, 1), (0.1, 0), (0.1, 1)]
    for seed in (0, 1):
        free, held = (row for row in sweep.rows if row.seed == seed)
        assert held.lipschitz_bound < free.lipschitz_bound
    for row in sweep.rows:
        assert row.steepest_found <= row.lipschitz_bound <= (row.norm_product_bound or math.inf)
        assert row.test_accuracy > 0.5
        assert row.iterations > 0


def test_a_sweep_depends_on_its_seeds_alone(sweep):
    torch.manual_seed(123)
    state, calls = torch.random.get_rng_state(), []
    again = regularizer_sweep(
        _blobs(), weights=(0.1,), seeds=(1,), hidden=8, epochs=6, learning_rate=3e-2,
        progress=lambda *at: calls.append(at),
    )  # fmt: skip
    assert again.rows[0].lipschitz_bound == sweep.rows[3].lipschitz_bound
    assert torch.equal(torch.random.get_rng_state(), state)
    assert calls == [(k + 1, 24) for k in range(24)]


def test_files_keep_every_number(sweep, tmp_path):
    sweep.save(tmp_path / "sweep.json")
    assert RegularizerSweep.load(tmp_path / "sweep.json") == sweep
    (tmp_path / "other.json").write_text('{"rows": [{}]}')
    with pytest.raises(ValueError, match="holds no sweep"):
        RegularizerSweep.load(tmp_path / "other.json")


def _row(weight, seed, accuracy, bound):
    product = None if weight == 0 else 3 * bound
    return SweepRow(weight, seed, accuracy, accuracy, 0.1, 0.1, bound, product, bound / 2, 5.0, 1.0)


def test_means_and_titles_are_those_of_the_rows():
    rows = (
        _row(0.0, 0, 0.97, 100.0), _row(0.0, 1, 0.98, 400.0), _row(1e-3, 0, 0.97, 10.0),
        _row(1e-3, 1, 0.97, 10.0), _row(1e-1, 0, 0.5, 1.0), _row(1e-1, 1, 0.5, 1.0),
    )  # fmt: skip
    sweep = RegularizerSweep("blobs", 8, 6, rows)
    assert sweep.mean("test_accuracy", 0.0) == pytest.approx(0.975)
    assert sweep.mean("lipschitz_bound", 0.0) == pytest.approx(200.0)
    assert sweep.mean("norm_product_bound", 0.0) is None
    with pytest.raises(KeyError):
        sweep.mean("test_accuracy", 0.5)
    figure = plot_sweep(sweep)
    title = " ".join(figure.get_suptitle().split())
    assert title == "λ = 1e-3 lowers the certified bound 20 times and costs 0.5 points of accuracy"
    (ax,) = figure.axes
    curve = next(line for line in ax.get_lines() if line.get_label() == "certified bound")
    assert curve.get_xdata() == pytest.approx([200, 10, 1])
    assert curve.get_ydata() == pytest.approx([97.5, 97.0, 50.0])
    assert {text.get_text() for text in ax.texts} >= {"λ = 0", "1e-3", "0.1"}


def test_a_sweep_over_functions_has_no_accuracy_to_draw():
    row = SweepRow(0.0, 0, None, None, 0.1, 0.1, 1.0, 1.0, 0.5, 5.0, 1.0)
    with pytest.raises(NothingToDrawError):
        plot_sweep(RegularizerSweep("function", 8, 6, (row,)))
