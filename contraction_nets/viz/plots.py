"""One function per picture: data in, matplotlib Figure out, the finding as its title.

`metrics` is what a RUN folder's metrics.jsonl holds: one mapping per epoch, numbers or None.
Every function raises ValueError for data it cannot draw and ImportError without matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.geometry.measures import (
    as_finite,
    as_square,
    as_weights,
    metzler_majorant,
)
from contraction_nets.viz.style import (
    COLOURS,
    at_least,
    at_most,
    bars,
    colour_bar,
    curve,
    epoch_axis,
    label_ends,
    log_axis,
    name_axes,
    new_figure,
    pixels,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Metrics = Sequence[Mapping[str, float | None]]

MEASURE_TOLERANCE = 1e-9
"""μ∞ in metrics is a floating-point sum: differences from γ below this are rounding."""

_MOST_NUMBERS = 60  # matrices up to this many entries show their numbers
_MOST_IMAGES = 12
_SMALLEST_IMAGE = 16  # pixels; fewer inputs are features rather than an image


def plot_learning(metrics: Metrics) -> Figure:
    """Loss and, for classifiers, accuracy per epoch, on training and test data."""
    epochs = _column(metrics, "epoch")
    accuracy = 100 * _column(metrics, "test_accuracy")
    loss = _column(metrics, "test_loss")
    classifies = bool(np.isfinite(accuracy).any())
    if classifies:
        best = int(np.nanargmax(accuracy))
        title = f"Test accuracy ends at {accuracy[-1]:.1f} % after {_epochs(epochs)}"
        if accuracy[best] > accuracy[-1] + 0.05:
            title += f" (best: {accuracy[best]:.1f} % in epoch {epochs[best]:.0f})"
    elif len(epochs) > 1:
        verb = "falls" if loss[-1] < loss[0] else "goes"
        title = f"Test loss {verb} from {loss[0]:.3g} to {loss[-1]:.3g} in {_epochs(epochs)}"
    else:
        title = f"Test loss is {loss[-1]:.3g} after {_epochs(epochs)}"
    figure, axes = new_figure(
        title, height=3.9 if classifies else 2.7, panels=(1.0, 1.0) if classifies else (1.0,)
    )
    kinds = [("accuracy", "accuracy, per cent", 100.0)] if classifies else []
    for ax, (kind, label, scale) in zip(axes, [*kinds, ("loss", "loss", 1.0)], strict=True):
        train = scale * _column(metrics, f"train_{kind}")
        test = scale * _column(metrics, f"test_{kind}")
        curve(ax, epochs, train, "sky")
        curve(ax, epochs, test, "blue")
        epoch_axis(ax, epochs)
        log = kind == "loss" and log_axis(ax, train, test)
        name_axes(ax, y=f"{label} (log scale)" if log else label)
        label_ends(ax, epochs, [("train", train, "sky"), ("test", test, "blue")])
    axes[-1].set_xlabel("epoch")
    return figure


def plot_measure(metrics: Metrics) -> Figure:
    """Matrix measure against its bound γ, and the rows each epoch's projections changed."""
    epochs = _column(metrics, "epoch")
    measure, gamma = _column(metrics, "mu_inf"), _column(metrics, "gamma")
    above = int((measure > gamma + MEASURE_TOLERANCE).sum())
    if above:
        title = f"μ∞ exceeds γ in {above} of {_epochs(epochs)}"
    else:
        title = f"μ∞ stays within γ = {gamma[-1]:.4g} in {_every(epochs)}"
    rows = _column(metrics, "rows_projected")
    projects = bool(np.isfinite(rows).any())
    figure, axes = new_figure(
        title, height=3.6 if projects else 2.7, panels=(1.6, 1.0) if projects else (1.0,)
    )
    curve(axes[0], epochs, gamma, "vermilion", dashed=True)
    curve(axes[0], epochs, measure, "blue")
    epoch_axis(axes[0], epochs)
    name_axes(axes[0], y="matrix measure of A")
    # At least a tenth is shown, so that differences in the fifth digit look like none.
    low, high = float(np.nanmin(measure)), float(np.nanmax([measure, gamma]))
    axes[0].set_ylim(min(low - 0.1 * (high - low), high - 0.1), high + 0.15 * max(high - low, 0.1))
    axes[0].ticklabel_format(axis="y", useOffset=False)
    label_ends(axes[0], epochs, [("bound γ", gamma, "vermilion"), ("μ∞(A)", measure, "blue")])
    if projects:
        bars(axes[1], epochs, [(rows, "slate")])
        name_axes(axes[1], y="rows changed by the projections of the epoch")
    axes[-1].set_xlabel("epoch")
    return figure


def plot_iterations(metrics: Metrics) -> Figure:
    """Mean iterations per batch of the equilibrium (forward) and its gradient (backward)."""
    epochs = _column(metrics, "epoch")
    forward = _column(metrics, "iterations_forward")
    backward = _column(metrics, "iterations_backward")
    _need(forward, "iterations_forward")
    title = f"An equilibrium takes {forward[-1]:.1f} iterations"
    if np.isfinite(backward[-1]):
        title += f", its gradient {backward[-1]:.1f}"
    figure, (ax,) = new_figure(title)
    curve(ax, epochs, backward, "green")
    curve(ax, epochs, forward, "blue")
    epoch_axis(ax, epochs)
    ax.set_ylim(0, 1.1 * float(np.nanmax([forward, backward])) or 1.0)
    name_axes(ax, x="epoch", y="iterations per batch, mean of the epoch")
    label_ends(ax, epochs, [("forward", forward, "blue"), ("backward", backward, "green")])
    return figure


def plot_certificate(metrics: Metrics) -> Figure:
    """Certified ℓ∞ Lipschitz bound beside the norm-product bound of the paper, log scale."""
    epochs = _column(metrics, "epoch")
    bound, product = _column(metrics, "lipschitz_bound"), _column(metrics, "norm_product_bound")
    _need(bound, "lipschitz_bound")
    title = f"The certified bound ends at {at_most(bound[-1])}"
    if 0 < bound[-1] < product[-1]:
        ratio = product[-1] / bound[-1]
        title += f", {at_least(ratio, digits=2)} times below the norm product"
    figure, (ax,) = new_figure(title)
    curve(ax, epochs, product, "vermilion")
    curve(ax, epochs, bound, "blue")
    epoch_axis(ax, epochs)
    log = log_axis(ax, bound, product, span=1.0)
    scale = " (log scale)" if log else ""
    name_axes(ax, x="epoch", y=f"largest change of an output per change of an input{scale}")
    label_ends(ax, epochs, [("norm product", product, "vermilion"), ("certified", bound, "blue")])
    return figure


def plot_time(metrics: Metrics) -> Figure:
    """Seconds per epoch spent on gradient steps and on projections, stacked."""
    epochs = _column(metrics, "epoch")
    gradient = _column(metrics, "seconds_gradient")
    projection = _column(metrics, "seconds_projection")
    total = float(np.nansum(gradient) + np.nansum(projection))
    if not total > 0:
        raise ValueError(
            "metrics hold no training time, expected positive seconds_gradient; "
            "leave this picture out."
        )
    share = 100 * float(np.nansum(projection)) / total
    figure, (ax,) = new_figure(f"Projecting takes {share:.2g} % of the training time")
    bars(ax, epochs, [(gradient, "slate"), (projection, "vermilion")])
    top = np.nan_to_num(gradient) + np.nan_to_num(projection)
    ax.set_ylim(0, 1.1 * float(top.max()))
    name_axes(ax, x="epoch", y="seconds per epoch")
    label_ends(
        ax,
        epochs,
        [
            (f"gradient {100 - share:.3g} %", gradient / 2, "muted"),
            (f"projection {share:.2g} %", gradient + projection / 2, "vermilion"),
        ],
    )
    return figure


def plot_audit(metrics: Metrics) -> Figure:
    """Largest entry of |cvxpy − closed form| in each audited epoch, log scale."""
    epochs, audit = _column(metrics, "epoch"), _column(metrics, "projection_audit")
    _need(audit, "projection_audit")
    worst, audited = float(np.nanmax(audit)), int(np.isfinite(audit).sum())
    where = "the audited epoch" if audited == 1 else f"all {audited} audited epochs"
    agreement = f"to {at_most(worst, digits=2)}" if worst > 0 else "bit for bit"
    figure, (ax,) = new_figure(f"Closed form and cvxpy agree {agreement} in {where}")
    positive = audit > 0
    floor = float(np.nanmin(audit[positive])) / 10 if positive.any() else 1e-16
    ax.set_yscale("log")
    ax.vlines(epochs[positive], floor, audit[positive], color=COLOURS["grid"], linewidth=1.2)
    ax.plot(epochs[positive], audit[positive], "o", color=COLOURS["blue"], markersize=4.5)
    if (audit == 0).any():
        zero = epochs[audit == 0]
        ax.plot(
            zero, np.full(zero.shape, floor), "o", markerfacecolor=COLOURS["paper"],
            markeredgecolor=COLOURS["blue"], markersize=4.5, clip_on=False,
        )  # fmt: skip
    ax.set_ylim(floor, max(10 * worst, 10 * floor))
    epoch_axis(ax, epochs)
    hollow = "; hollow: exactly 0" if (audit == 0).any() else ""
    name_axes(ax, x="epoch", y=f"largest difference of an entry (log scale{hollow})")
    return figure


def plot_state_matrix(
    A: ArrayLike, *, eta: ArrayLike | None = None, gamma: float | None = None
) -> Figure:
    """Heat map of A with the row sums whose maximum is μ_{∞,η}(A) at its side (THEORY §2).

    Parameters
    ----------
    A : (n, n) array
    eta : (n,) array, optional
        Positive weights, ones by default.
    gamma : float, optional
        Bound to draw beside the row sums.
    """
    matrix = as_square(A)
    n = matrix.shape[0]
    weights = as_weights(eta, n)
    sums = metzler_majorant(matrix) @ weights / weights
    if gamma is None:
        title = (
            f"The row sums of A reach {sums.max():.4g}; half of them exceed {np.median(sums):.3g}"
        )
    elif sums.max() > gamma + MEASURE_TOLERANCE:
        title = (
            f"{(sums > gamma + MEASURE_TOLERANCE).sum()} of {n} rows of A exceed γ = {gamma:.4g}"
        )
    else:
        pressed = int((sums > gamma - 1e-4 * max(1.0, abs(gamma))).sum())
        title = f"{pressed} of {n} rows of A press against γ = {gamma:.4g}, none exceeds it"
    figure, (heat, side) = new_figure(title, height=3.7, panels=(4.0, 1.0), across=True)
    # Clipping a few entries (often the diagonal) keeps the colours of all others apart.
    limit = float(np.quantile(np.abs(matrix), 0.995)) or float(np.abs(matrix).max()) or 1.0
    image = pixels(heat, matrix, "RdBu", -limit, limit)
    colour_bar(heat, image, "entry of A", clipped=bool((np.abs(matrix) > limit).any()))
    name_axes(heat, x="state j", y="state i")
    side.barh(np.arange(n), sums, height=1.0, color=COLOURS["slate"])
    side.set_ylim(n - 0.5, -0.5)
    side.set_yticks([])
    side.grid(False)
    if gamma is not None:
        side.axvline(gamma, color=COLOURS["vermilion"], linewidth=1.5)
        side.set_xticks(sorted({0.0, float(gamma)}), labels=None)
    name_axes(side, y="row sum", x="" if gamma is None else "γ")
    return figure


def plot_gains(gains: ArrayLike) -> Figure:
    """Gain matrix Γ: how far output k can move per unit of input j (THEORY §4).

    Parameters
    ----------
    gains : (q, p) array
        Nonnegative. When p is a square number of at least 16, up to twelve outputs are
        drawn as images of √p × √p inputs.
    """
    matrix = as_finite(gains, "gains")
    if matrix.ndim != 2 or matrix.size == 0 or (matrix < 0).any():
        raise ValueError(
            f"gains have shape {matrix.shape}, expected a nonnegative (q, p) matrix; "
            "pass the gains of a Lipschitz certificate."
        )
    q, p = matrix.shape
    top = int(matrix.sum(axis=1).argmax())
    row = np.sort(matrix[top])[::-1]
    total = float(row.sum())
    title = f"Output {top} reacts most: {total:.3g} per unit"
    if total > 0 and p >= _SMALLEST_IMAGE:
        half = int(np.searchsorted(np.cumsum(row), total / 2)) + 1
        title += f", half of it from {half} of {p} inputs"
    limit = float(matrix.max()) or 1.0
    side = isqrt(p)
    if side * side == p and p >= _SMALLEST_IMAGE:
        return _gain_images(matrix, side, title, limit)
    figure, (ax,) = new_figure(title, height=min(4.0, 1.5 + 0.25 * q))
    image = pixels(ax, matrix, "YlGnBu", 0.0, limit)
    colour_bar(ax, image, "gain")
    name_axes(ax, x="input j", y="output k")
    if matrix.size <= _MOST_NUMBERS:
        for (k, j), gain in np.ndenumerate(matrix):
            dark = gain > 0.55 * limit
            ax.text(
                j, k, f"{gain:.3g}", ha="center", va="center", fontsize=8,
                color="#ffffff" if dark else "#000000",
            )  # fmt: skip
    return figure


def _gain_images(matrix: Array, side: int, title: str, limit: float) -> Figure:
    shown = min(matrix.shape[0], _MOST_IMAGES)
    columns = min(shown, 5 if shown in (5, 9, 10) else 4)
    lines = -(-shown // columns)
    figure, (frame,) = new_figure(title, height=0.7 + 1.05 * lines * min(1.0, 5 / columns))
    frame.remove()
    grid = figure.subplots(lines, columns, squeeze=False)
    for k, ax in enumerate(grid.ravel()):
        ax.set_axis_off()
        if k < shown:
            image = pixels(ax, matrix[k].reshape(side, side), "YlGnBu", 0.0, limit)
            ax.set_title(f"{k}: {matrix[k].sum():.3g}", fontsize=9, color=COLOURS["muted"], pad=3)
    colour_bar(grid, image, "gain of an input")
    return figure


def _column(metrics: Metrics, key: str) -> Array:
    """The values of one key per epoch, NaN where there are none."""
    if not metrics:
        raise ValueError("metrics hold no epoch, expected at least one; train for one epoch first.")
    try:
        values = [metric[key] for metric in metrics]
    except KeyError:
        raise ValueError(
            f"metrics hold no {key!r}, expected it in every epoch; pass the lines of metrics.jsonl."
        ) from None
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _need(values: Array, key: str) -> None:
    if not np.isfinite(values).any():
        raise ValueError(
            f"metrics hold no finite {key}, expected it in at least one epoch; "
            "leave this picture out."
        )


def _epochs(epochs: Array) -> str:
    return "one epoch" if len(epochs) == 1 else f"{len(epochs)} epochs"


def _every(epochs: Array) -> str:
    return "the only epoch" if len(epochs) == 1 else f"all {len(epochs)} epochs"
