"""What a command needs of a RUN folder: the trained network and the test set it was trained for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from contraction_nets.nn.layers import ImplicitNetwork


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled inputs of a test set, one a row.

    Attributes
    ----------
    name : str
        Of the data set.
    inputs : (m, p) tensor
        In the dtype of the network.
    labels : (m,) int64 tensor
    domain : (float, float) or None
        The interval of every input: [0, 1] for pixels.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    domain: tuple[float, float] | None

    def __len__(self) -> int:
        return len(self.inputs)

    def identity(self, sample: int) -> dict[str, Any]:
        """Label of a sample, and sixteen digits of the SHA-256 of its input in this dtype."""
        digits = hashlib.sha256(self.inputs[sample].cpu().numpy().tobytes()).hexdigest()
        return {"label": int(self.labels[sample]), "input": digits[:16]}


def trained(run: Path) -> ImplicitNetwork:
    """The trained network of a RUN folder, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or no network in it.
    ValueError
        Not a folder, or a damaged file.
    """
    from contraction_nets.training.checkpoint import load_network

    if not run.exists():
        raise FileNotFoundError(
            f"there is no folder {run}, expected that of a run; check the path."
        )
    if not run.is_dir():
        raise ValueError(f"got the file {run}, expected the folder of a run; pass its folder.")
    return load_network(run).eval()


def held_out(
    run: Path,
    network: ImplicitNetwork,
    *,
    data_dir: Path | None = None,
    samples: int | None = None,
) -> Samples:
    """The first test samples of the data set that the run was trained on.

    Parameters
    ----------
    run : path
        The folder; its config.json names the data set and the seed that held samples out.
    network : ImplicitNetwork
        Of the run; inputs come in its dtype, on its device.
    data_dir : path, optional
        Folder of the MNIST files.
    samples : int, optional
        How many; all of them by default, and at most those there are.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        A data set without labels, one that does not fit the network, or no sample.
    """
    from contraction_nets.certificates.storage import read_json
    from contraction_nets.training.checkpoint import CONFIG
    from contraction_nets.training.data import load_data

    if samples is not None and samples < 1:
        raise ValueError(f"got {samples} samples, expected at least 1.")
    config = read_json(run / CONFIG)
    name, seed = config.get("data"), config.get("seed", 0)
    if not isinstance(name, str) or not isinstance(seed, int):
        raise ValueError(
            f"{run / CONFIG} names no data set, expected what training wrote; restore it."
        )
    data = load_data(name, data_dir=data_dir, seed=seed)
    if not data.classifies:
        raise ValueError(
            f"the run in {run} estimates the function {name!r}, expected a classifier: labels are "
            "what an attack changes."
        )
    sizes = network.layer.in_features, network.out_features
    if (data.in_features, data.out_features) != sizes:
        raise ValueError(
            f"the data set {name!r} has {data.in_features} inputs and {data.out_features} classes, "
            f"the network in {run} {sizes[0]} and {sizes[1]}, expected the same; check --data-dir."
        )
    inputs = data.test_inputs[:samples].to(network.C)
    return Samples(name, inputs, data.test_targets[:samples].to(network.C.device), data.domain)


def parse_radii(text: str) -> list[float]:
    """The ℓ∞ radii of "0.05,0.1", in input units, as they were given.

    Raises
    ------
    ValueError
        Not finite numbers of at least zero, separated by commas.
    """
    try:
        radii = parse_numbers(text)
    except ValueError:
        radii = []
    if not radii or not all(0 <= radius < math.inf for radius in radii):
        raise ValueError(
            f"got --epsilon {text!r}, expected radii of at least 0 separated by commas, such as "
            "0.05,0.1."
        )
    return radii


def parse_numbers(text: str) -> list[float]:
    """The numbers of "0.05,0.1"; ValueError where a part is none, as 0.0_5, which Python reads."""
    if "_" in text:
        raise ValueError("numbers have no underscores")
    return [float(part) for part in text.split(",")]
