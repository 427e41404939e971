"""What a gradient step minimizes: one frozen dataclass for each objective."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.training.data import Dataset


@dataclass(frozen=True, eq=False)
class Loss:
    """An objective on one batch.

    Attributes
    ----------
    value : scalar tensor
        What the step minimizes.
    output : (batch, q) tensor
        Outputs of the network for the inputs as they are, of which the accuracy is counted.
    metrics : dict of scalar tensors
        Means over the batch; metrics.jsonl has their means over the samples of an epoch.
    """

    value: Tensor
    output: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective(ABC):
    """A training objective: its options are its fields, and it has no other state.

    What it draws at random comes from torch's global generator, which checkpoints hold, so that
    a resumed run ends with the same weights as one that was never interrupted.

    Attributes
    ----------
    name : str
        Of the objective in config.json.
    """

    name: ClassVar[str]

    @abstractmethod
    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        """The objective on one batch, differentiable in the parameters of the network.

        Parameters
        ----------
        module : ImplicitNetwork
        u : (batch, p) tensor
            Inputs.
        y : (batch,) int64 or (batch, q) tensor
            Class numbers, or values.
        progress : float
            Share of all steps of the training that are behind, in [0, 1).
        """

    def check(self, data: Dataset) -> None:  # noqa: B027
        """Refuse data that the objective is not defined on.

        Raises
        ------
        ValueError
            The data do not suit; every data set suits, unless an objective says otherwise.
        """

    def config(self) -> dict[str, Any]:
        """Name and options as JSON; a run is resumed with an equal one only."""
        # Through JSON, where tuples are lists: it is compared with what a file holds.
        options = {"name": self.name, **asdict(self)}
        written: dict[str, Any] = json.loads(json.dumps(options, default=float))
        return written


@dataclass(frozen=True)
class PlainLoss(Objective):
    """Cross-entropy for class numbers, mean squared error for values."""

    name: ClassVar[str] = "plain"

    def loss(self, module: ImplicitNetwork, u: Tensor, y: Tensor, progress: float) -> Loss:
        output = module(u)
        return Loss(loss_function(output, y), output)


def loss_function(output: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy for class numbers, mean squared error for values."""
    if targets.is_floating_point():
        return functional.mse_loss(output, targets)
    return functional.cross_entropy(output, targets)


def growth(progress: float, ramp: float) -> float:
    """Share of its end that what grows linearly over a ramp has reached."""
    return min(1.0, progress / ramp) if ramp > 0 else 1.0


def refuse_values(data: Dataset, objective: str) -> None:
    """ValueError unless the targets of the data are class numbers."""
    if not data.classifies:
        raise ValueError(
            f"the data set {data.name} has values for targets, expected class numbers: the "
            f"objective {objective!r} is about labels; take the plain loss."
        )
