"""The regularizer's price: accuracy against the certified bound as the weight λ grows.

The family of [NEMON], minimize loss + λ · Lip, with the linear program of THEORY §4 as Lip in place
of the norm product ‖B‖∞‖C‖∞/(1 − μ∞(A)₊).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from contraction_nets.certificates.storage import read_json, write_json
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.robustness.steepness import steepest_found
from contraction_nets.training.data import Dataset
from contraction_nets.training.loop import TrainingResult, fit

WEIGHTS = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_CLIMBERS = 20  # test inputs from which the steepest slope is looked for

Progress = Callable[[int, int], None]
"""Called with the number of steps done and the number there are."""


@dataclass(frozen=True)
class SweepRow:
    """One training.

    Attributes
    ----------
    weight : float
        λ.
    seed : int
    train_accuracy, test_accuracy : float or None
        In [0, 1]; None for functions.
    train_loss, test_loss : float
        Without the regularizer.
    lipschitz_bound : float
        Certified, ℓ∞ → ℓ∞, in output units per input unit (pixels in [0, 1]).
    norm_product_bound : float or None
        The bound of [NEMON] for the same weights; None where μ∞(A) ≥ 1 leaves none.
    steepest_found : float
        A slope between two inputs, which every bound must exceed.
    iterations : float
        Of a forward equilibrium, the mean of the last epoch.
    seconds : float
        Of the training.
    """

    weight: float
    seed: int
    train_accuracy: float | None
    test_accuracy: float | None
    train_loss: float
    test_loss: float
    lipschitz_bound: float
    norm_product_bound: float | None
    steepest_found: float
    iterations: float
    seconds: float


@dataclass(frozen=True)
class RegularizerSweep:
    """Trainings that differ in λ and seed alone.

    Attributes
    ----------
    data : str
        Name of the data set.
    hidden, epochs : int
    rows : tuple of SweepRow
    """

    data: str
    hidden: int
    epochs: int
    rows: tuple[SweepRow, ...]

    @property
    def weights(self) -> tuple[float, ...]:
        """Every λ, from the smallest."""
        return tuple(sorted({row.weight for row in self.rows}))

    def mean(self, name: str, weight: float) -> float | None:
        """The mean over seeds of a column at λ, None where a seed has no number; KeyError without.

        Bounds span powers of ten: theirs, and that of the slope, is the geometric mean.
        """
        found = [getattr(row, name) for row in self.rows if row.weight == weight]
        if not found:
            raise KeyError(weight)
        if None in found:
            return None
        if name.endswith(("_bound", "_found")) and min(found) > 0:
            return statistics.geometric_mean(found)
        return statistics.mean(found)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}

    def save(self, path: str | Path) -> None:
        """Write a JSON file, atomically; ValueError where that cannot be."""
        write_json(Path(path), self.as_dict())

    @classmethod
    def load(cls, path: str | Path) -> RegularizerSweep:
        """Read what `save` wrote; further entries of the object are skipped.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It holds no sweep.
        """
        value = read_json(Path(path))
        try:
            rows = tuple(SweepRow(**row) for row in value["rows"])
            return cls(value["data"], value["hidden"], value["epochs"], rows)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no sweep ({error}), expected data, hidden, epochs and rows; "
                "write it with RegularizerSweep.save."
            ) from None


def regularizer_sweep(
    data: Dataset,
    *,
    weights: Iterable[float] = WEIGHTS,
    seeds: Sequence[int] = (0,),
    hidden: int = 60,
    epochs: int = 10,
    learning_rate: float = 5e-3,
    progress: Progress | None = None,
) -> RegularizerSweep:
    """Train the same network with every weight λ of the certified bound, and every seed.

    Parameters
    ----------
    data : Dataset
    weights : iterable of float
        λ ≥ 0; zero is training without regularizer.
    seeds : sequence of int
        Of the initial weights and of the order of samples.
    hidden, epochs : int
        Number of states, passes over the data.
    learning_rate : float
        Of `fit`.
    progress : callable, optional

    Returns
    -------
    RegularizerSweep
        One row per weight and seed.

    Raises
    ------
    ValueError
        An argument that `fit` refuses.
    """
    pairs = [(weight, seed) for weight in weights for seed in seeds]
    rows = []
    for k, (weight, seed) in enumerate(pairs):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ImplicitNetwork(data.in_features, hidden, data.out_features)

        def on_step(epoch: int, done: int, steps: int, k: int = k) -> None:
            if progress is not None:
                each = epochs * steps
                progress(k * each + (epoch - 1) * steps + done, len(pairs) * each)

        result = fit(
            network,
            data,
            epochs=epochs,
            learning_rate=learning_rate,
            lipschitz_weight=weight,
            audit=False,
            seed=seed,
            on_step=on_step,
        )
        rows.append(sweep_row(result, data, weight, seed))
    return RegularizerSweep(data.name, hidden, epochs, tuple(rows))


def sweep_row(result: TrainingResult, data: Dataset, weight: float, seed: int) -> SweepRow:
    """The row of a training that used this λ and this seed."""
    last, product = result.metrics[-1], result.certificate.norm_product_bound
    return SweepRow(
        weight=weight,
        seed=seed,
        train_accuracy=last["train_accuracy"],
        test_accuracy=last["test_accuracy"],
        train_loss=last["train_loss"],
        test_loss=last["test_loss"],
        lipschitz_bound=result.certificate.bound,
        norm_product_bound=product if math.isfinite(product) else None,
        steepest_found=steepest_found(result.network, data.test_inputs[:_CLIMBERS]),
        iterations=last["iterations_forward"],
        seconds=sum(m["seconds_gradient"] + m["seconds_projection"] for m in result.metrics),
    )
