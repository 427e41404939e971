"""Training: gradient steps that alternate with exact projections, in one plain loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contraction_nets.certificates.lipschitz import LipschitzCertificate, lipschitz_certificate
from contraction_nets.certificates.storage import read_json, write_json
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.errors import ContractionNetsError, SolverError
from contraction_nets.geometry.sets import RowSet
from contraction_nets.nn.budget import LipschitzBudget, as_bound
from contraction_nets.nn.constrain import constrained_modules, project_
from contraction_nets.nn.equilibrium import EquilibriumResult
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.operators import Dense
from contraction_nets.nn.options import as_seed, at_least_zero, whole
from contraction_nets.nn.penalty import lipschitz_penalty
from contraction_nets.solving.projection import CLOSED_FORM, project_onto
from contraction_nets.solving.registry import get_backend
from contraction_nets.training import checkpoint as files
from contraction_nets.training.data import Dataset
from contraction_nets.training.objectives import Loss, Objective, PlainLoss, loss_function

_TEST_BATCH = 1000
_LARGEST_AUDIT = 300  # columns; beyond, the cvxpy projection takes longer than the epoch

Metrics = dict[str, Any]
OnStep = Callable[[int, int, int], None]
"""Called with the epoch (from one), the steps done in it, and the steps it has."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network, what its training measured, and what is proved about it.

    Attributes
    ----------
    network : ImplicitNetwork
    metrics : list of dict
        One per epoch; the fields of metrics.jsonl.
    certificate : LipschitzCertificate
        Of the final weights; the bound is in output units per input unit (pixels in [0, 1]).
    """

    network: ImplicitNetwork
    metrics: list[Metrics]
    certificate: LipschitzCertificate


def fit(
    module: ImplicitNetwork,
    data: Dataset,
    *,
    epochs: int = 20,
    batch_size: int = 50,
    learning_rate: float = 5e-3,
    objective: Objective | None = None,
    lipschitz_weight: float = 0.0,
    lipschitz_budget: float | None = None,
    projection: str = CLOSED_FORM,
    audit: bool | None = None,
    seed: int = 0,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_epoch: Callable[[Metrics], None] | None = None,
) -> TrainingResult:
    """Train with Adam and a cosine schedule, projecting onto μ_{∞,η}(A) ≤ γ after every step.

    Minimized is the objective plus `lipschitz_weight` times the certified Lipschitz bound.

    Parameters
    ----------
    module : ImplicitNetwork
        Trained in place, on its device.
    data : Dataset
        Inputs in [0, 1]; moved to the device of the module.
    epochs, batch_size : int
    learning_rate : float
        Of Adam at the start; the cosine schedule ends at zero.
    objective : Objective, optional
        One of `contraction_nets.training.objectives`; by default `PlainLoss`, the cross-entropy
        for class numbers and the mean squared error for function values.
    lipschitz_weight : float
        Weight of `lipschitz_penalty` in the loss.
    lipschitz_budget : float, optional
        Keep the certified Lipschitz bound at or below this after every step: `LipschitzBudget`
        takes the place of {μ_{∞,η}(A) ≤ γ}, and sets γ and η of the module.
    projection : str
        Any of ``available_solvers("projection")``.
    audit : bool, optional
        Whether to project the last weights of every epoch by both the closed form and cvxpy,
        in float64, and to record the largest difference; by default up to 300 states, or
        states and inputs together where there is a budget.
    seed : int
        Of the order of the samples.
    run : path, optional
        Folder for model, metrics, certificate and checkpoint, written after every epoch. One
        training at a time: a second one that starts in a new folder before the first epoch of
        another ends is not noticed.
    resume : bool
        Continue from the checkpoint in `run`; ends with the same weights, bit for bit, as a
        run that was never interrupted.
    on_step : callable, optional
        Called after every step with epoch (from one), steps done and steps in the epoch.
    on_epoch : callable, optional
        Called with the metrics of every epoch, once they are on disk.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ValueError
        An argument out of range, data that the objective is not defined on, or a checkpoint
        that does not fit.
    FileExistsError
        `run` holds a run of an epoch or more already and `resume` is False.
    FileNotFoundError
        Nothing to resume from.
    ContractionNetsError
        The loss became NaN or infinite.

    Examples
    --------
    >>> from contraction_nets.training.data import load_data
    >>> network = ImplicitNetwork(64, 20, 10)
    >>> result = fit(network, load_data("digits"), epochs=1)
    >>> result.certificate.verify()
    True
    """
    objective = PlainLoss() if objective is None else objective
    if not isinstance(objective, Objective):
        raise ValueError(
            f"got the objective {objective!r:.60}, expected an Objective such as IntervalLoss(0.1)."
        )
    objective.check(data)
    epochs, batch_size = whole(epochs, "epochs"), whole(batch_size, "batch_size")
    if lipschitz_budget is not None:
        lipschitz_budget = as_bound(lipschitz_budget)
    config = {
        "data": data.name,
        "objective": objective.config(),
        "network": module.config,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": at_least_zero(learning_rate, "learning_rate"),
        "lipschitz_weight": at_least_zero(lipschitz_weight, "lipschitz_weight"),
        "lipschitz_budget": lipschitz_budget,
        "projection": projection,
        "seed": as_seed(seed),
    }
    get_backend(projection, "projection")
    ImplicitWeights.from_module(module)  # refuses now what no epoch could be certified for
    budget = None
    if lipschitz_budget is not None:
        budget = LipschitzBudget(module, lipschitz_budget, solver=projection)
    device, samples = module.C.device, len(data.train_inputs)
    inputs, targets = data.train_inputs.to(device), data.train_targets.to(device)
    steps = math.ceil(samples / batch_size)
    optimizer = torch.optim.Adam(module.parameters(), learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    if audit is None:
        projected = module.layer.A if budget is None else budget.states()
        audit = max(projected.shape) <= _LARGEST_AUDIT
    folder = None if run is None else Path(run)
    metrics: list[Metrics] = []
    if folder is not None:
        _open_run(folder, config, resume)
        if resume:
            metrics = files.load_checkpoint(folder, module, optimizer, scheduler, budget)
            _write_results(folder, module, _certificate(module), metrics)  # if it was killed before
    elif resume:
        raise ValueError("got resume=True without a run folder, expected both; pass run.")

    for epoch in range(len(metrics) + 1, epochs + 1):
        meter = _Meter(module)
        module.train()
        for done, batch in enumerate(_batches(samples, batch_size, seed, epoch), start=1):
            with meter.gradient():
                u, y = inputs[batch], targets[batch]
                progress = ((epoch - 1) * steps + done - 1) / (epochs * steps)
                loss = objective.loss(module, u, y, progress)
                meter.add(loss, y)
                value = loss.value
                if lipschitz_weight:
                    value = value + lipschitz_weight * lipschitz_penalty(module)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                scheduler.step()
            before = _constrained(module, budget) if audit and done == steps else None
            with meter.projection():
                if budget is None:
                    meter.rows += project_(module, solver=projection)
                else:
                    meter.rows += budget.project_()
            if on_step is not None:
                on_step(epoch, done, steps)
        meter.close()
        certificate = _certificate(module)
        if budget is not None:
            _prove(budget, certificate)
        test_loss, test_accuracy = evaluate(module, data.test_inputs, data.test_targets)
        metrics.append(
            {
                "epoch": epoch,
                "train_loss": meter.loss / samples,
                "train_accuracy": meter.correct / samples if data.classifies else None,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "mu_inf": _measure(module),
                "gamma": float(module.layer.gamma),
                "lipschitz_bound": certificate.bound,
                "norm_product_bound": _finite(certificate.norm_product_bound),
                "rows_projected": meter.rows,
                "seconds_gradient": meter.seconds_gradient,
                "seconds_projection": meter.seconds_projection,
                "iterations_forward": meter.mean("forward"),
                "iterations_backward": meter.mean("backward"),
                "projection_audit": None if before is None else _audit(*before),
                **{name: total / samples for name, total in meter.extra.items()},
            }
        )
        if folder is not None:
            files.save_checkpoint(folder, module, optimizer, scheduler, metrics, budget)
            _write_results(folder, module, certificate, metrics)
        if on_epoch is not None:
            on_epoch(metrics[-1])
    return TrainingResult(module, metrics, _certificate(module))


@torch.no_grad()
def evaluate(module: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float | None]:
    """Mean loss and, for class numbers, accuracy in [0, 1]; on the device of the module."""
    device = next(module.parameters()).device
    module.eval()
    loss, correct = 0.0, 0
    for u, y in zip(inputs.split(_TEST_BATCH), targets.split(_TEST_BATCH), strict=True):
        output, y = module(u.to(device)), y.to(device)
        loss += float(loss_function(output, y)) * len(u)
        if not y.is_floating_point():
            correct += int((output.argmax(dim=1) == y).sum())
    samples = len(inputs)
    return loss / samples, None if targets.is_floating_point() else correct / samples


class _Meter:
    """What one epoch measures."""

    def __init__(self, module: ImplicitNetwork) -> None:
        self.loss, self.correct, self.rows = 0.0, 0, 0
        self.extra: dict[str, float] = {}
        self.seconds_gradient = self.seconds_projection = 0.0
        self._steps: dict[str, list[int]] = {"forward": [], "backward": []}
        self._layer = module.layer
        self._previous, self._layer.monitor = module.layer.monitor, self._count

    def _count(self, direction: str, result: EquilibriumResult) -> None:
        self._steps[direction].append(result.steps)

    def close(self) -> None:
        self._layer.monitor = self._previous

    def gradient(self) -> _Clock:
        return _Clock(self, "seconds_gradient")

    def projection(self) -> _Clock:
        return _Clock(self, "seconds_projection")

    def add(self, loss: Loss, targets: Tensor) -> None:
        value, output = loss.value.item(), loss.output
        if not math.isfinite(value):
            raise ContractionNetsError(
                f"the training loss became {value}, expected a finite number; "
                "lower the learning rate or clean the data."
            )
        self.loss += value * len(output)
        for name, mean in loss.metrics.items():
            self.extra[name] = self.extra.get(name, 0.0) + mean.item() * len(output)
        if not targets.is_floating_point():
            self.correct += int((output.argmax(dim=1) == targets).sum())

    def mean(self, direction: str) -> float:
        steps = self._steps[direction]
        return sum(steps) / len(steps)


class _Clock:
    """Adds the time of a block to an attribute."""

    def __init__(self, meter: _Meter, name: str) -> None:
        self.meter, self.name = meter, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self.start
        setattr(self.meter, self.name, getattr(self.meter, self.name) + spent)


def _batches(samples: int, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Sample numbers in an order that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    yield from torch.randperm(samples, generator=generator).split(size)


def _certificate(module: ImplicitNetwork) -> LipschitzCertificate:
    return lipschitz_certificate(ImplicitWeights.from_module(module))


def _measure(module: ImplicitNetwork) -> float:
    """μ_{∞,η}(A) at the weights η of the layer, in float64."""
    layer = module.layer
    return float(Dense(layer.A.detach().double()).row_sums(layer.eta).max())


def _prove(budget: LipschitzBudget, certificate: LipschitzCertificate) -> None:
    """Have the witness proved in integers, and compare the optimum over all witnesses."""
    if not (budget.verify() and certificate.bound <= budget.bound):
        raise ContractionNetsError(
            f"the bound {certificate.bound:.6g} is not proved to be within the budget "
            f"{budget.bound:.6g}, expected it after every projection; report this as a defect."
        )


def _constrained(
    module: ImplicitNetwork, budget: LipschitzBudget | None
) -> tuple[Tensor, RowSet] | None:
    """The weights that are about to be projected, and the set that they go into."""
    if budget is not None:
        return budget.states(), budget.state_set
    for layer in constrained_modules(module):
        return layer.A.detach().clone(), layer.constraint()
    return None


def _audit(before: Tensor, constraint: RowSet) -> float | None:
    """Largest difference between the closed form and cvxpy on these weights, in float64.

    None where cvxpy finds no optimum, as on weights that have grown beyond its tolerances.
    """
    point = before.cpu().double().numpy()
    exact = project_onto(point, constraint)
    try:
        reference = project_onto(point, constraint, solver="cvxpy")
    except SolverError:
        return None
    return float(abs(exact - reference).max())


def _open_run(folder: Path, config: dict[str, Any], resume: bool) -> None:
    """Make the folder and note the configuration, or check that it is the one of the run."""
    path = folder / files.CONFIG
    if resume:
        # What runs had that are older than the choice of it.
        older = {"objective": PlainLoss().config(), "lipschitz_budget": None}
        recorded = {**older, **read_json(path)}
        for name, value in config.items():
            if recorded.get(name) != value:
                raise ValueError(
                    f"the run in {folder} has {name} = {recorded.get(name)}, got {value}; resume "
                    "with the arguments it was started with."
                )
        return
    # A configuration alone is what a run leaves that ended in its first epoch.
    if any((folder / name).exists() for name in (files.MODEL, files.METRICS, files.CHECKPOINT)):
        raise FileExistsError(
            f"{folder} holds a run already, expected an empty folder; resume it, or choose "
            "another one."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder {folder} ({error.strerror}), expected a path that can be "
            "written; choose another."
        ) from error
    write_json(path, config)


def _write_results(
    folder: Path,
    module: ImplicitNetwork,
    certificate: LipschitzCertificate,
    metrics: list[Metrics],
) -> None:
    """What follows from a checkpoint, and is written after it: a kill between loses nothing."""
    files.save_network(module, folder / files.MODEL)
    certificate.save(folder / files.CERTIFICATE)
    files.write_metrics(folder / files.METRICS, metrics)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
