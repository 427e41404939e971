"""Functions estimated in the four sets: the figures are those of the networks and of the data."""

import json
import math

import numpy as np
import pytest
import torch

from contraction_nets.comparison.estimation import Estimation, estimate_function
from contraction_nets.comparison.sets import SETS
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.viz.estimation import plot_error_maps, plot_errors, plot_estimates
from contraction_nets.viz.metrics import NothingToDrawError


def _line(dimension):
    """The mean of the coordinates, from few samples."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(100, dimension, generator=generator)
    ticks = torch.linspace(0, 1, 7)
    grid = torch.cartesian_prod(*[ticks] * dimension).reshape(-1, dimension)
    means = [u.mean(dim=1, keepdim=True) for u in (inputs, grid)]
    return Dataset("line", inputs, means[0], grid, means[1])


@pytest.fixture(scope="module", params=[1, 2])
def estimation(request):
    calls = []
    found = estimate_function(
        _line(request.param), hidden=6, gammas=(0.2, 0.9), epochs=20, seeds=(0, 1),
        learning_rate=3e-2, progress=lambda *at: calls.append(at),
    )  # fmt: skip
    steps = 2 * 2 * len(SETS) * 40
    assert calls == [(k + 1, steps) for k in range(steps)]
    return found


def test_errors_are_distances_from_the_function(estimation):
    truth = estimation.data.test_targets[:, 0].double().numpy()
    assert estimation.gammas == (0.2, 0.9)
    assert estimation.sets == tuple(SETS)
    for name in SETS:
        for gamma in (0.2, 0.9):
            estimates = estimation.estimates_of(name, gamma)
            assert estimates.shape == (2, len(truth))
            errors = np.sqrt(np.mean((estimates - truth) ** 2, axis=1))
            assert estimation.column("error", name, gamma) == pytest.approx(errors, abs=1e-6)
            assert errors.max() < 0.1
            for row in estimation.rows:
                assert row["values"][row["set"]] <= row["gamma"] + 1e-5


def test_no_estimate_is_steeper_than_its_certified_bound(estimation):
    inputs = estimation.data.test_inputs.double()
    distances = torch.cdist(inputs, inputs, p=math.inf).numpy()
    for row, values in zip(estimation.rows, estimation.estimates, strict=True):
        if row["lipschitz_bound"] is not None:
            changes = np.abs(values[:, None] - values)
            assert (changes <= row["lipschitz_bound"] * distances + 1e-3).all()


def test_the_table_is_made_of_the_rows(estimation):
    table = estimation.table()
    assert [(line["gamma"], line["set"]) for line in table] == [
        (gamma, name) for gamma in (0.2, 0.9) for name in SETS
    ]
    for line in table:
        errors = estimation.column("error", line["set"], line["gamma"])
        assert line["error_low"] <= line["error"] <= line["error_high"]
        assert line["error"] == pytest.approx(sum(errors) / 2)
    assert json.loads(json.dumps(estimation.as_dict(), allow_nan=False))["table"] == table


def test_all_sets_start_and_train_alike():
    once, again = (
        estimate_function(_line(1), hidden=4, epochs=1, seeds=(3,), sets=("measure",))
        for _ in range(2)
    )
    assert np.array_equal(once.estimates[0], again.estimates[0])


def test_pictures_show_the_errors(estimation):
    plot = {1: plot_estimates, 2: plot_error_maps}
    dimension = estimation.data.in_features
    figure = plot[dimension](estimation, gamma=0.9)
    titles = [ax.get_title(loc="left") for ax in figure.axes[: len(SETS)]]
    for title, line in zip(titles, estimation.table()[len(SETS) :], strict=True):
        assert f"error {line['error']:.3f}" in title
        assert ("no ℓ∞ bound" in title) == (line["lipschitz_bound"] is None)
    with pytest.raises(NothingToDrawError, match=f"has {dimension} variables"):
        plot[3 - dimension](estimation)
    curves = {line.get_label() for line in plot_errors(estimation).axes[0].get_lines()}
    assert curves


def test_titles_are_true():
    rows = tuple(
        {"set": name, "gamma": gamma, "seed": 0, "error": error, "iterations": 5.0}
        | {"lipschitz_bound": 2.0, "euclidean_bound": None}
        for name, errors in (("norm_ball", (0.2, 0.1)), ("measure", (0.1, 0.1)))
        for gamma, error in zip((0.3, 0.9), errors, strict=True)
    )
    data = _line(1)
    estimation = Estimation(data, 4, 1, rows, (np.zeros(len(data.test_inputs)),) * 4)
    title = " ".join(plot_errors(estimation).get_suptitle().split())
    assert title == "At γ = 0.3 the polytope μ∞(A) ≤ γ errs 50 % less than the norm ball"
    title = " ".join(plot_estimates(estimation, gamma=0.9).get_suptitle().split())
    assert "estimates as well as" in title


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match="no function of one value"):
        estimate_function(load_data("digits"))
    with pytest.raises(ValueError, match="expected one of norm_ball"):
        estimate_function(_line(1), sets=("ball",))
