"""One function per picture: data in, matplotlib Figure out, the finding as its title.

`metrics` is what a RUN folder's metrics.jsonl holds: one mapping per epoch, numbers or None.
Every function raises ValueError for data that are no metrics, NothingToDrawError (a ValueError)
for metrics without what it shows, and ImportError without matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contraction_nets.viz import findings
from contraction_nets.viz.matrices import plot_gains, plot_state_matrix
from contraction_nets.viz.metrics import (
    Metrics,
    NothingToDrawError,
    column,
    epochs_of,
)
from contraction_nets.viz.rounding import percent
from contraction_nets.viz.style import (
    COLOURS,
    bars,
    curve,
    epoch_axis,
    label_ends,
    limit_line,
    log_axis,
    name_axes,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_audit",
    "plot_certificate",
    "plot_gains",
    "plot_iterations",
    "plot_learning",
    "plot_measure",
    "plot_state_matrix",
    "plot_time",
]


def plot_learning(metrics: Metrics) -> Figure:
    """Loss and, for classifiers, accuracy per epoch, on training and test data."""
    epochs = epochs_of(metrics)
    accuracy, loss = 100 * column(metrics, "test_accuracy"), column(metrics, "test_loss")
    classifies = bool(np.isfinite(accuracy).any())
    if classifies:
        title = findings.accuracy_finding(epochs, accuracy)
    else:
        title = findings.loss_finding(epochs, column(metrics, "test_loss", needed=True))
    figure, axes = new_figure(
        title, height=3.9 if classifies else 2.7, panels=(1.0, 1.0) if classifies else (1.0,)
    )
    drawn = [("loss", "loss", column(metrics, "train_loss"), loss)]
    if classifies:
        train = 100 * column(metrics, "train_accuracy")
        drawn.insert(0, ("accuracy", "accuracy, per cent", train, accuracy))
    for ax, (kind, label, train, test) in zip(axes, drawn, strict=True):
        curve(ax, epochs, train, "sky")
        curve(ax, epochs, test, "blue")
        epoch_axis(ax, epochs)
        log = kind == "loss" and log_axis(ax, train, test)
        name_axes(ax, y=f"{label} (log scale)" if log else label)
        label_ends(ax, epochs, [("test", test, "blue"), ("train", train, "sky")])
    name_axes(axes[-1], x="epoch", y=axes[-1].get_title(loc="left"))
    return figure


def plot_measure(metrics: Metrics) -> Figure:
    """Matrix measure against its bound γ, and the rows each epoch's projections changed."""
    epochs = epochs_of(metrics)
    measure = column(metrics, "mu_inf", needed=True)
    gamma = column(metrics, "gamma", needed=True)
    rows = column(metrics, "rows_projected")
    projects = bool(np.isfinite(rows).any())
    figure, axes = new_figure(
        findings.measure_finding(measure, gamma),
        height=3.6 if projects else 2.7,
        panels=(1.6, 1.0) if projects else (1.0,),
    )
    epoch_axis(axes[0], epochs)
    curve(axes[0], epochs, measure, "blue")
    limit_line(axes[0], epochs, gamma, "vermilion")
    name_axes(axes[0], y="matrix measure of A")
    # At least a tenth is shown, so that differences in the fifth digit look like none.
    values = np.concatenate([measure, gamma])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axes[0].set_ylim(min(low - 0.1 * (high - low), high - 0.1), high + 0.15 * max(high - low, 0.1))
    axes[0].ticklabel_format(axis="y", useOffset=False)
    label_ends(axes[0], epochs, [("μ∞(A)", measure, "blue"), ("bound γ", gamma, "vermilion")])
    if projects:
        from matplotlib.ticker import MaxNLocator

        bars(axes[1], epochs, [(rows, "slate")])
        axes[1].yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    what = "rows changed by the projections of the epoch" if projects else "matrix measure of A"
    name_axes(axes[-1], x="epoch", y=what)
    return figure


def plot_iterations(metrics: Metrics) -> Figure:
    """Mean iterations per batch of the equilibrium (forward) and its gradient (backward)."""
    epochs = epochs_of(metrics)
    forward = column(metrics, "iterations_forward", needed=True)
    backward = column(metrics, "iterations_backward")
    figure, (ax,) = new_figure(findings.iterations_finding(epochs, forward, backward))
    curve(ax, epochs, backward, "green")
    curve(ax, epochs, forward, "blue")
    epoch_axis(ax, epochs)
    ax.set_ylim(0, 1.1 * float(np.nanmax([forward, backward])) or 1.0)
    name_axes(ax, x="epoch", y="iterations per batch, mean of the epoch")
    label_ends(ax, epochs, [("backward", backward, "green"), ("forward", forward, "blue")])
    return figure


def plot_certificate(metrics: Metrics) -> Figure:
    """Certified ℓ∞ Lipschitz bound beside the norm-product bound of the paper, log scale."""
    epochs = epochs_of(metrics)
    bound = column(metrics, "lipschitz_bound", needed=True)
    product = column(metrics, "norm_product_bound")
    figure, (ax,) = new_figure(findings.certificate_finding(epochs, bound, product))
    curve(ax, epochs, product, "vermilion")
    curve(ax, epochs, bound, "blue")
    epoch_axis(ax, epochs)
    scale = " (log scale)" if log_axis(ax, bound, product, span=1.0) else ""
    name_axes(ax, x="epoch", y=f"output change per input change{scale}")
    label_ends(ax, epochs, [("certified", bound, "blue"), ("norm product", product, "vermilion")])
    return figure


def plot_time(metrics: Metrics) -> Figure:
    """Seconds per epoch spent on gradient steps and on projections, stacked."""
    epochs = epochs_of(metrics)
    gradient, projection = (column(metrics, f"seconds_{k}") for k in ("gradient", "projection"))
    total = float(np.nansum(gradient) + np.nansum(projection))
    if not total > 0:
        raise NothingToDrawError(
            "metrics hold no training time, expected positive seconds_gradient; "
            "leave this picture out."
        )
    share = float(np.nansum(projection)) / total
    figure, (ax,) = new_figure(f"Projecting takes {percent(share)} of the training time")
    bars(ax, epochs, [(gradient, "slate"), (projection, "vermilion")])
    name_axes(ax, x="epoch", y="seconds per epoch")
    middle = np.nan_to_num(gradient) + np.nan_to_num(projection) / 2
    parts = [
        (f"gradient {percent(1 - share)}", np.nan_to_num(gradient) / 2, "muted"),
        (f"projection {percent(share)}", middle, "vermilion"),
    ]
    label_ends(ax, epochs, parts)
    return figure


def plot_audit(metrics: Metrics) -> Figure:
    """Largest entry of |cvxpy − closed form| in each audited epoch, log scale."""
    epochs, audit = epochs_of(metrics), column(metrics, "projection_audit", needed=True)
    worst = float(np.nanmax(audit))
    figure, (ax,) = new_figure(findings.audit_finding(audit))
    positive, zero = audit > 0, epochs[audit == 0]
    floor = max(float(np.nanmin(audit[positive])) / 10, 1e-300) if positive.any() else 1e-16
    ax.set_yscale("log")
    ax.vlines(epochs[positive], floor, audit[positive], color=COLOURS["grid"], linewidth=1.2)
    ax.plot(epochs[positive], audit[positive], "o", color=COLOURS["blue"], markersize=4.5)
    ax.plot(
        zero, np.full(zero.shape, floor), "o", markerfacecolor=COLOURS["paper"],
        markeredgecolor=COLOURS["blue"], markersize=4.5, clip_on=False, zorder=3,
    )  # fmt: skip
    ax.set_ylim(floor, 10 * max(worst, floor))
    epoch_axis(ax, epochs)
    hollow = "; hollow: exactly 0" if zero.size else ""
    name_axes(ax, x="epoch", y=f"largest difference of an entry (log scale{hollow})")
    return figure
