"""What metrics.jsonl holds: one record per epoch, each value a number or null."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Metrics = Sequence[Mapping[str, Any]]

FIELDS = (
    "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "mu_inf", "gamma",
    "lipschitz_bound", "norm_product_bound", "rows_projected", "seconds_gradient",
    "seconds_projection", "iterations_forward", "iterations_backward", "projection_audit",
)  # fmt: skip

CUT_OFF = "The last line of metrics.jsonl is cut off, as by a killed run; it was left out."


class NothingToDrawError(ValueError):
    """The data are well-formed, but a picture has nothing to show."""


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a metrics.jsonl, and a sentence for each thing that was left out.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A line other than a cut-off last one is no record, or there is no whole record.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no {path.name} in {path.parent}, expected the folder of a run; "
            "check the path."
        ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}), expected a file.") from error
    lines = data.split(b"\n")
    metrics: list[dict[str, Any]] = []
    notes: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            # Writing a line ends with its newline: without one it was not written to its end.
            if number == len(lines):
                notes.append(CUT_OFF)
                continue
            record = None
        if not isinstance(record, dict):
            raise ValueError(
                f"line {number} of {path} is not a JSON object, expected one for every epoch; "
                "restore the file."
            )
        metrics.append(record)
    if not metrics:
        raise ValueError(f"{path} holds no whole epoch, expected at least one; train first.")
    epochs_of(metrics)
    for key in FIELDS:
        column(metrics, key)
    return metrics, notes


def column(metrics: Metrics, key: str, *, needed: bool = False) -> Array:
    """The values of one field, shape (epochs,); NaN where there is no finite number.

    Raises
    ------
    ValueError
        No epoch, an epoch without this field, or a value that is no number.
    NothingToDrawError
        `needed`, and no epoch has a finite number.
    """
    if not metrics:
        raise ValueError("metrics hold no epoch, expected at least one; train for one epoch first.")
    if not all(key in record for record in metrics):
        raise ValueError(
            f"metrics hold no {key!r}, expected it in every epoch; pass the lines of metrics.jsonl."
        )
    values = np.array([_as_float(record[key], key) for record in metrics])
    values[~np.isfinite(values)] = np.nan
    if needed and np.isnan(values).all():
        raise NothingToDrawError(
            f"metrics hold no finite {key}, expected it in at least one epoch; "
            "leave this picture out."
        )
    return values


def epochs_of(metrics: Metrics) -> Array:
    """The epoch numbers, shape (epochs,).

    Raises
    ------
    ValueError
        They do not increase.
    """
    epochs = column(metrics, "epoch")
    if np.isnan(epochs).any() or (np.diff(epochs) <= 0).any():
        raise ValueError(
            f"metrics hold the epochs {epochs.tolist()[:20]}, expected increasing numbers; "
            "restore metrics.jsonl."
        )
    return epochs


def last_known(values: Array) -> int:
    """Index of the last finite value; of the last value where none is finite."""
    known = np.flatnonzero(np.isfinite(values))
    return int(known[-1]) if known.size else len(values) - 1


def _as_float(value: object, key: str) -> float:
    if value is None:
        return np.nan
    try:
        if isinstance(value, Real) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(
        f"metrics hold {key} = {str(value)[:40]!r}, expected a number or None; "
        "pass the lines of metrics.jsonl."
    )
