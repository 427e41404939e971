"""Pictures say what the data say; a report needs nothing but itself."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.training.data import Dataset, load_data
from contraction_nets.viz import plots
from contraction_nets.viz.report import write_report
from contraction_nets.viz.rounding import at_least, at_most
from contraction_nets.viz.svg import to_svg

METRIC_PLOTS = [
    plots.plot_learning, plots.plot_measure, plots.plot_iterations, plots.plot_certificate,
    plots.plot_time, plots.plot_audit,
]  # fmt: skip


def metrics_of(seed, epochs, *, classifies=True, audited=True):
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.arange(epochs) / 5)
    return [
        {
            "epoch": k + 1,
            "train_loss": float(decay[k] * rng.uniform(0.5, 2)),
            "train_accuracy": float(1 - 0.5 * decay[k]) if classifies else None,
            "test_loss": float(0.1 + decay[k] * rng.uniform(0.5, 2)),
            "test_accuracy": float(0.97 - 0.5 * decay[k]) if classifies else None,
            "mu_inf": float(0.95 - 0.1 * rng.uniform()),
            "gamma": 0.95,
            "lipschitz_bound": float(10 ** rng.uniform(0, 4)),
            "norm_product_bound": float(10 ** rng.uniform(4, 6)) if rng.uniform() < 0.9 else None,
            "rows_projected": int(rng.integers(0, 1000)),
            "seconds_gradient": float(rng.uniform(0.1, 5)),
            "seconds_projection": float(rng.uniform(0, 5)),
            "iterations_forward": float(rng.uniform(2, 50)),
            "iterations_backward": float(rng.uniform(2, 50)),
            "projection_audit": float(10 ** rng.uniform(-16, -9)) * (k % 3 != 1)
            if audited
            else None,
        }
        for k in range(epochs)
    ]


def title_of(figure):
    return " ".join(figure.get_suptitle().split())


@given(seeds, st.sampled_from([1, 2, 12, 70]), st.booleans())
@settings(max_examples=8, deadline=None)
def test_every_picture_of_metrics_draws(seed, epochs, classifies):
    metrics = metrics_of(seed, epochs, classifies=classifies)
    for plot in METRIC_PLOTS:
        svg = to_svg(plot(metrics), plot.__name__)
        assert svg.startswith("<svg")
        assert "NaN" not in svg


def test_titles_are_true():
    metrics = metrics_of(0, 10)
    best = max(range(10), key=lambda k: metrics[k]["test_accuracy"])
    assert f"{100 * metrics[-1]['test_accuracy']:.1f} %" in title_of(plots.plot_learning(metrics))
    assert best == 9
    assert "stays within" in title_of(plots.plot_measure(metrics))
    metrics[4]["mu_inf"] = 0.96
    assert "exceeds γ = 0.95 in 1 of 10" in title_of(plots.plot_measure(metrics))
    bound = metrics[-1]["lipschitz_bound"]
    shown = re.search(r"ends at ([\d.e+]+)", title_of(plots.plot_certificate(metrics)))[1]
    assert bound <= float(shown.rstrip(".")) <= 1.001 * bound
    spent = [sum(m[f"seconds_{k}"] for m in metrics) for k in ("projection", "gradient")]
    share = re.search(r"takes (\S+) %", title_of(plots.plot_time(metrics)))[1]
    assert float(share) == pytest.approx(100 * spent[0] / sum(spent), rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (10, 64), (10, 784), (1, 1000), (40, 3)])
def test_gains_of_any_shape_draw(shape):
    gains = np.random.default_rng(0).uniform(size=shape)
    figure = plots.plot_gains(gains)
    top = int(gains.sum(axis=1).argmax())
    start = f"Output {top} can move most" if shape[0] > 1 else "The output can move"
    assert title_of(figure).startswith(start)
    assert to_svg(figure, "gains").startswith("<svg")


@pytest.mark.parametrize("n", [1, 2, 30, 900])
def test_state_matrices_of_any_size_draw(n):
    A = np.random.default_rng(0).normal(size=(n, n)) / n
    assert to_svg(plots.plot_state_matrix(A), "state").startswith("<svg")
    figure = plots.plot_state_matrix(A + 2 * np.eye(n), gamma=0.5)
    assert f"{n} of {n} rows of A exceed" in title_of(figure)


@pytest.mark.parametrize("plot", METRIC_PLOTS)
def test_data_that_cannot_be_drawn_are_refused(plot):
    for bad in ([], [{"epoch": 1}]):
        with pytest.raises(ValueError, match="expected"):
            plot(bad)


@given(st.floats(1e-300, 1e300), st.integers(1, 6))
def test_published_bounds_are_rounded_to_the_safe_side(value, digits):
    assert float(at_most(value, digits=digits)) >= value
    assert float(at_least(value, digits=digits)) <= value


class References(HTMLParser):
    """Everything in a page that would make a browser fetch something."""

    def __init__(self):
        super().__init__()
        self.found, self.scripts, self.text = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        for name, value in attributes:
            fetches = name in ("src", "href", "xlink:href", "srcset", "action")
            if fetches and not value.startswith(("#", "data:")):
                self.found.append(value)
            if value and re.search(r"url\((?!#)", value):
                self.found.append(value)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = load_data("digits")
    few = Dataset("digits", data.train_inputs[:100], data.train_targets[:100],
                  data.test_inputs[:50], data.test_targets[:50])  # fmt: skip
    torch.manual_seed(0)
    fit(ImplicitNetwork(64, 8, 10), few, epochs=2, run=folder)
    return folder


def parsed(path):
    page = path.read_text("utf-8")
    reader = References()
    reader.feed(page)
    return page, reader


def copy_of(run, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("metrics.jsonl", "config.json", "model.safetensors", "certificate.json"):
        (folder / name).write_bytes((run / name).read_bytes())
    return folder


def test_report_is_self_contained_and_says_the_result(run, tmp_path):
    folder = copy_of(run, tmp_path)
    page, reader = parsed(write_report(folder))
    assert reader.found == []
    assert reader.scripts == 0
    assert "url(http" not in page
    assert "@import" not in page
    assert page.count("<svg") == 8
    text = " ".join(" ".join(reader.text).split())
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"{100 * last['test_accuracy']:.1f} % test accuracy" in text
    assert "proved for the model in this folder" in text
    first = page
    assert parsed(write_report(folder))[0] == first
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_a_changed_model_is_not_proved(run, tmp_path):
    folder = copy_of(run, tmp_path)
    model = bytearray((folder / "model.safetensors").read_bytes())
    model[-1] ^= 1
    (folder / "model.safetensors").write_bytes(model)
    page, _ = parsed(write_report(folder))
    assert "does not prove this for the model in this folder" in page
    assert "proved for the model in this folder" not in page
    assert "; claimed bound" in page
    assert "not proved</h1>" in page


def test_values_are_escaped(run, tmp_path):
    folder = copy_of(run, tmp_path)
    (folder / "config.json").write_text(json.dumps({"data": "<script>alert(1)</script> ü"}))
    page, reader = parsed(write_report(folder))
    assert reader.scripts == 0
    assert "&lt;script&gt;" in page


def test_what_is_missing_is_left_out(run, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "metrics.jsonl").write_bytes(
        (run / "metrics.jsonl").read_bytes() + b'{"epoch": 3, "tr'
    )
    page, _ = parsed(write_report(folder))
    for sentence in ("no model and no certificate in this folder", "no config.json", "cut off"):
        assert sentence in page
    assert page.count("<svg") == 6


def test_damaged_runs_are_refused(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        write_report(tmp_path)
    folder = copy_of(run, tmp_path)
    for name, content in [
        ("metrics.jsonl", b""), ("metrics.jsonl", b"[1]\n{}"), ("metrics.jsonl", b"\xff\n{}\n"),
        ("config.json", b"[]"), ("certificate.json", b"{}"), ("model.safetensors", b"x"),
    ]:  # fmt: skip
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"expected|is not a certificate"):
            write_report(folder)
        (folder / name).write_bytes(kept)
    assert not (folder / "report.html").exists()
