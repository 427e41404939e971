"""Functions estimated from noisy samples, with A kept in each of the four sets.

[IDL] fits a damped cosine of one variable with A in the norm ball ‖A‖∞ ≤ κ; here that ball, the
polytope of [NEMON], the same in its best weights, and the monotone matrices of [MON] fit the same
samples with the same network, initial weights, order of samples and number of steps. Whether
more matrices give a better estimate depends on γ: near one every set has room enough, and the seeds
matter more than the set; a small γ keeps the estimate flat, and the set decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contraction_nets.comparison.sets import SETS, Progress, Row, trainings
from contraction_nets.training.data import Dataset

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimation:
    """Estimates of one function.

    Attributes
    ----------
    data : Dataset
        Its test targets are the function without noise.
    hidden, epochs : int
    rows : tuple of dict
        Of `train_on_sets`, one per set, γ and seed, and `error`: the root of the mean squared
        distance from the function itself, without noise.
    estimates : tuple of (m,) arrays
        The estimate of each row at the test inputs.
    """

    data: Dataset
    hidden: int
    epochs: int
    rows: tuple[Row, ...]
    estimates: tuple[Array, ...]

    @property
    def gammas(self) -> tuple[float, ...]:
        """Every γ, from the smallest."""
        return tuple(sorted({row["gamma"] for row in self.rows}))

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets that are compared, in the order of `SETS`."""
        return tuple(name for name in SETS if any(row["set"] == name for row in self.rows))

    def column(self, key: str, name: str, gamma: float) -> list[Any]:
        """Entries of the rows of one set and γ, one per seed."""
        return [self.rows[k][key] for k in self._places(name, gamma)]

    def estimates_of(self, name: str, gamma: float) -> Array:
        """What the networks of one set and γ say at the test inputs: (seeds, m)."""
        return np.array([self.estimates[k] for k in self._places(name, gamma)])

    def _places(self, name: str, gamma: float) -> list[int]:
        return [
            k for k, row in enumerate(self.rows) if row["set"] == name and row["gamma"] == gamma
        ]

    def table(self) -> list[dict[str, Any]]:
        """One dict per γ and set over the seeds.

        Returns
        -------
        list of dict
            gamma, set, error (the mean), error_low, error_high, lipschitz_bound (the geometric
            mean of the certified ones; None where a seed has none), euclidean_bound (likewise, √p
            times the ℓ2 bound) and iterations (the mean).
        """
        lines = []
        for gamma in self.gammas:
            for name in self.sets:
                errors = self.column("error", name, gamma)
                if not errors:
                    continue
                lines.append(
                    {
                        "gamma": gamma,
                        "set": name,
                        "error": float(np.mean(errors)),
                        "error_low": min(errors),
                        "error_high": max(errors),
                        "lipschitz_bound": _middle(self.column("lipschitz_bound", name, gamma)),
                        "euclidean_bound": _middle(self.column("euclidean_bound", name, gamma)),
                        "iterations": float(np.mean(self.column("iterations", name, gamma))),
                    }
                )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; without the estimates."""
        return {
            "data": self.data.name,
            "hidden": self.hidden,
            "epochs": self.epochs,
            "table": self.table(),
            "rows": list(self.rows),
        }


def estimate_function(
    data: Dataset,
    *,
    hidden: int = 60,
    gammas: Sequence[float] = (0.3,),
    epochs: int = 40,
    learning_rate: float = 1e-2,
    seeds: Sequence[int] = (0, 1, 2),
    sets: Sequence[str] = tuple(SETS),
    progress: Progress | None = None,
) -> Estimation:
    """Estimate a function with every set, γ and seed; the same budget of steps for all.

    Parameters
    ----------
    data : Dataset
        "function" or "function2d" of `load_data`, or values of one output of your own.
    hidden : int
        Number of states n.
    gammas : sequence of float
        Bounds of all sets, below one.
    epochs : int
    learning_rate : float
        Of Adam at the start; the cosine schedule ends at zero.
    seeds : sequence of int
        Of the initial weights and of the order of the samples.
    sets : sequence of str
        Of the names in `SETS`.
    progress : callable, optional
        Called with the number of steps done and the number there are.

    Returns
    -------
    Estimation

    Raises
    ------
    ValueError
        Class numbers or several outputs instead of values, another set, or γ ≥ 1.
    """
    if data.classifies or data.out_features != 1:
        raise ValueError(
            f"the data set {data.name!r} is no function of one value, expected function or "
            "function2d; pass one of those, or targets of shape (N, 1)."
        )
    rows, estimates = [], []
    for k, gamma in enumerate(gammas):

        def tell(done: int, total: int, k: int = k) -> None:
            if progress is not None:
                progress(k * total + done, len(gammas) * total)

        for row, network in trainings(
            data,
            hidden=hidden,
            gamma=gamma,
            epochs=epochs,
            learning_rate=learning_rate,
            seeds=seeds,
            sets=sets,
            progress=tell,
        ):
            with torch.no_grad():
                estimates.append(network(data.test_inputs)[:, 0].double().numpy())
            rows.append(row | {"error": math.sqrt(row["test_loss"])})
    return Estimation(data, hidden, epochs, tuple(rows), tuple(estimates))


def _middle(values: list[float | None]) -> float | None:
    """The geometric mean, None where one is missing."""
    found = [value for value in values if value is not None]
    return math.exp(np.log(found).mean()) if len(found) == len(values) else None
