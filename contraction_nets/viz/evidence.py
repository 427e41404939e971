"""What the files of a run prove, read again from the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from contraction_nets.certificates.document import load_certificate
from contraction_nets.certificates.lipschitz import lipschitz_certificate
from contraction_nets.certificates.statements import LipschitzBound
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.errors import NotWellPosedError, SolverError
from contraction_nets.geometry.measures import as_finite, as_weights
from contraction_nets.viz.rounding import at_most

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Proof:
    """Whether the certificate of a run is proved for its model.

    Attributes
    ----------
    state : str
    sentence : str
    bound : float or None
        What the certificate claims, in output units per input unit.
    """

    state: Literal["proved", "not proved", "missing"]
    sentence: str
    bound: float | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """The weights of a run, and the constraint they were trained under.

    Attributes
    ----------
    weights : ImplicitWeights
    gamma : float or None
        Bound on μ_{∞,η}(A), where the file tells it.
    eta : (n,) array or None
    """

    weights: ImplicitWeights
    gamma: float | None
    eta: Array | None

    def gains(self) -> Array | None:
        """The (q, p) gains of the outputs, None where the network cannot be certified."""
        try:
            return lipschitz_certificate(self.weights).gains
        except (NotWellPosedError, SolverError, ValueError):
            return None


def read_model(path: Path) -> Model | None:
    """The model in a file that training wrote, None where there is none.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    if not path.exists():
        return None
    weights = ImplicitWeights.load(path)
    with safe_open(path, framework="numpy") as tensors:
        found = {
            name: as_finite(tensors.get_tensor(f"layer.{name}"), name)
            for name in ("gamma", "eta")
            if f"layer.{name}" in tensors.keys()  # noqa: SIM118
        }
    gamma, eta = found.get("gamma"), found.get("eta")
    if gamma is not None and gamma.shape != ():
        raise ValueError(
            f"gamma in {path.name} has shape {gamma.shape}, expected one number; "
            "save the network again."
        )
    return Model(
        weights,
        None if gamma is None else float(gamma),
        None if eta is None else as_weights(eta, weights.state_dim),
    )


def check_certificate(path: Path, model: Model | None) -> Proof:
    """Verify a certificate file against a model, in exact integer arithmetic.

    Raises
    ------
    ValueError
        The file is no certificate, or one of another statement.
    """
    document = load_certificate(path) if path.exists() else None
    if document is None or model is None:
        absent = [
            name for name, thing in (("model", model), ("certificate", document)) if thing is None
        ]
        return Proof(
            "missing", f"There is no {' and no '.join(absent)} in this folder: nothing is proved."
        )
    claim = document.statement
    if not isinstance(claim, LipschitzBound) or claim.epsilon is not None:
        raise ValueError(
            f"{path} states something else ({claim.text}), expected the Lipschitz bound of this "
            "run; restore it."
        )
    bound = at_most(claim.bound)
    if document.verify(model.weights):
        return Proof(
            "proved",
            f"No output moves by more than {bound} per unit of input, both measured by their "
            "largest entry: proved for the model in this folder, in exact integer arithmetic, "
            "when this page was written.",
            claim.bound,
        )
    return Proof(
        "not proved",
        f"The certificate claims that no output moves by more than {bound} per unit of input, but "
        "it does not prove this for the model in this folder: one of the two files was changed.",
        claim.bound,
    )
