"""The constraint sets side by side (THEORY §10): what they contain, what training makes of them.

The same network, data, seeds and number of steps, projected onto each set after every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contraction_nets.certificates.diagnosis import diagnose
from contraction_nets.certificates.lipschitz import lipschitz_certificate
from contraction_nets.certificates.optimal import optimal_weights
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.errors import NotWellPosedError
from contraction_nets.geometry.sets import ConstraintSet, MonotoneSet, NormBall
from contraction_nets.nn.constrain import project_
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.training.data import Dataset
from contraction_nets.training.loop import evaluate
from contraction_nets.training.objectives import loss_function

Array = NDArray[np.float64]
Row = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with the number of steps done and the number there are."""

SETS = {
    "norm_ball": "‖A‖∞ ≤ γ [IDL]",
    "measure": "μ∞(A) ≤ γ [NEMON]",
    "adaptive": "μ_{∞,η}(A) ≤ γ for the best weights η, which is α(M(A)) ≤ γ",
    "monotone": "(A + Aᵀ)/2 ⪯ γI [MON]",
}
"""Name → the set."""

_REFRESH = 25  # steps after which the adaptive weights are computed anew
_SPREAD = 1e-3  # smallest weight, the largest being one
_BATCH = 50


def set_values(A: Array) -> dict[str, Array]:
    """What each set bounds by γ, for a stack of matrices (in float64).

    Parameters
    ----------
    A : (..., n, n) array

    Returns
    -------
    dict
        Name of the set, as in `SETS` → (...) array: ‖A‖∞, μ∞(A), the spectral abscissa of the
        Metzler majorant, and the largest eigenvalue of the symmetric part.
    """
    diagonal = np.eye(A.shape[-1], dtype=bool)
    majorant = np.where(diagonal, A, np.abs(A))
    return {
        "norm_ball": np.abs(A).sum(axis=-1).max(axis=-1),
        "measure": majorant.sum(axis=-1).max(axis=-1),
        "adaptive": np.linalg.eigvals(majorant).real.max(axis=-1),
        "monotone": np.linalg.eigvalsh((A + A.swapaxes(-1, -2)) / 2).max(axis=-1),
    }


def contained(
    n: int,
    *,
    gamma: float = 0.95,
    shift: float = 0.0,
    scales: Sequence[float] = tuple(np.geomspace(0.03, 3.0, 25).tolist()),
    samples: int = 500,
    seed: int = 0,
) -> list[Row]:
    """The share of a cloud of random matrices that each set contains, over the size of the cloud.

    Parameters
    ----------
    n : int
        Number of states.
    gamma : float
        Bound of all sets.
    shift : float
        Taken off the diagonal: at one, A = 0 becomes A = −I, which is further inside all sets
        but {‖A‖∞ ≤ γ}.
    scales : sequence of float
        Of the cloud: entries are independent and normal, of standard deviation scale / √n.
    samples : int
        Matrices a scale.
    seed : int
        The same matrices at every scale, but for the factor.

    Returns
    -------
    list of dict
        n, shift, scale, and for every name in `SETS` the share contained.
    """
    cloud = np.random.default_rng(seed).normal(size=(samples, n, n)) / math.sqrt(n)
    rows = []
    for scale in scales:
        values = set_values(scale * cloud - shift * np.eye(n))
        shares = {name: float((found <= gamma).mean()) for name, found in values.items()}
        rows.append({"n": n, "shift": shift, "scale": scale} | shares)
    return rows


def train_on_sets(
    data: Dataset,
    *,
    hidden: int = 60,
    gamma: float = 0.95,
    epochs: int = 10,
    learning_rate: float = 5e-3,
    seeds: Sequence[int] = (0,),
    sets: Sequence[str] = tuple(SETS),
    progress: Progress | None = None,
) -> list[Row]:
    """Train the same network by projection onto each set.

    Adam with a cosine schedule, batches of 50, the same initial weights and the same order of
    samples for every set.

    Parameters
    ----------
    data : Dataset
    hidden : int
        Number of states n.
    gamma : float
        Bound of all sets, below one.
    epochs : int
    learning_rate : float
    seeds : sequence of int
        One training a set and seed.
    sets : sequence of str
        Of the names in `SETS`.
    progress : callable, optional

    Returns
    -------
    list of dict
        set, seed, gamma, train_loss, test_loss, test_accuracy (None for functions), `values` of all
        four bounds of the trained A, lipschitz_bound (ℓ∞ → ℓ∞, proved; None where the network
        is not well-posed in ℓ∞), euclidean_bound (√p times the ℓ2 bound, which bounds ℓ∞ → ℓ∞
        too, in float64; None where the network is not monotone), norm_product_bound,
        iterations (mean over the training), seconds. Bounds are in output units per input unit
        (pixels in [0, 1]).

    Raises
    ------
    ValueError
        Another set, or γ ≥ 1.
    """
    return [
        row
        for row, _ in trainings(
            data,
            hidden=hidden,
            gamma=gamma,
            epochs=epochs,
            learning_rate=learning_rate,
            seeds=seeds,
            sets=sets,
            progress=progress,
        )
    ]


def trainings(
    data: Dataset,
    *,
    hidden: int,
    gamma: float,
    epochs: int,
    learning_rate: float,
    seeds: Sequence[int],
    sets: Sequence[str],
    progress: Progress | None = None,
) -> Iterator[tuple[Row, ImplicitNetwork]]:
    """The rows of `train_on_sets` one by one, each with its network; arguments as there."""
    if unknown := sorted(set(sets) - set(SETS)):
        raise ValueError(f"got the set {unknown[0]!r}, expected one of {', '.join(SETS)}.")
    steps = epochs * math.ceil(len(data.train_inputs) / _BATCH)
    total = steps * len(seeds) * len(sets)
    for k, (seed, name) in enumerate((seed, name) for seed in seeds for name in sets):
        row: Row = {"set": name, "seed": seed, "gamma": gamma}
        training = _Training(data, name, hidden, gamma, steps, learning_rate, seed)
        for done in training.run(row, epochs):
            if progress is not None:
                progress(k * steps + done, total)
        yield row, training.network


class _Training:
    """One network, kept in one set."""

    def __init__(
        self,
        data: Dataset,
        name: str,
        hidden: int,
        gamma: float,
        steps: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.data, self.name, self.seed = data, name, seed
        # Monotone networks are well-posed in ℓ2, where the other iterations may diverge.
        iteration = "peaceman_rachford" if name == "monotone" else "diagonal_resolvent"
        self.network = ImplicitNetwork(
            data.in_features, hidden, data.out_features, gamma=gamma, iteration=iteration
        )
        self.set: ConstraintSet | None = {
            "norm_ball": NormBall(gamma),
            "monotone": MonotoneSet(gamma),
        }.get(name)
        self.optimizer = torch.optim.Adam(self.network.parameters(), learning_rate)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.iterations: list[int] = []
        self.network.layer.monitor = lambda way, found: (
            self.iterations.append(found.steps) if way == "forward" else None
        )

    def run(self, row: Row, epochs: int) -> Iterator[int]:
        """Train, yielding the number of steps done; then fill in the row."""
        data, network, done, loss_sum = self.data, self.network, 0, 0.0
        started = time.perf_counter()
        order = torch.Generator().manual_seed(self.seed)
        self._keep(0)
        for _ in range(epochs):
            loss_sum = 0.0
            for batch in torch.randperm(len(data.train_inputs), generator=order).split(_BATCH):
                loss = loss_function(network(data.train_inputs[batch]), data.train_targets[batch])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
                done += 1
                self._keep(done)
                loss_sum += loss.item() * len(batch)
                yield done
        row["train_loss"] = loss_sum / len(data.train_inputs)
        row["seconds"] = time.perf_counter() - started
        row["iterations"] = float(np.mean(self.iterations))
        row["test_loss"], row["test_accuracy"] = evaluate(
            network, data.test_inputs, data.test_targets
        )
        row |= _bounds(network)

    def _keep(self, done: int) -> None:
        """Project A onto the set; every so often choose better weights η first."""
        layer = self.network.layer
        if self.set is not None:
            layer.A.data.copy_(self.set.project(layer.A.detach()))
            return
        if self.name == "adaptive" and done % _REFRESH == 0:
            project_(self.network)
            eta = optimal_weights(layer.A.detach().double().numpy()).eta
            layer.eta.copy_(torch.from_numpy(np.maximum(eta, _SPREAD)))
        project_(self.network)


def _bounds(network: ImplicitNetwork) -> Row:
    weights = ImplicitWeights.from_module(network)
    row: Row = {
        "values": {k: float(v) for k, v in set_values(weights.A.astype(np.float64)).items()}
    }
    try:
        certificate = lipschitz_certificate(weights)
        product = certificate.norm_product_bound
        row["lipschitz_bound"] = certificate.bound
        row["norm_product_bound"] = product if math.isfinite(product) else None
    except NotWellPosedError:
        row["lipschitz_bound"] = row["norm_product_bound"] = None
    euclidean = diagnose(weights).euclidean_bound * math.sqrt(weights.input_dim)
    row["euclidean_bound"] = euclidean if math.isfinite(euclidean) else None
    return row
