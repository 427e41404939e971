"""What a RUN folder holds, written so that a killed run loses nothing but its last epoch."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from contraction_nets.certificates.storage import write_atomically
from contraction_nets.nn.budget import LipschitzBudget
from contraction_nets.nn.layers import ImplicitNetwork

MODEL = "model.safetensors"
METRICS = "metrics.jsonl"
CONFIG = "config.json"
CERTIFICATE = "certificate.json"
CHECKPOINT = Path("checkpoint") / "latest.pt"

_METADATA = "contraction_nets"
_VERSION = 1


def save_network(network: ImplicitNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network as safetensors, atomically, with what rebuilds it in the metadata.

    A parametrized A is written as the matrix that it is.
    """
    layer = network.layer
    tensors = {f"layer.{name}": getattr(layer, name) for name in ("A", "B", "b", "gamma", "eta")}
    tensors |= {"C": network.C, "c": network.c}
    if network.D is not None:
        tensors["D"] = network.D
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "version": _VERSION,
        "activation": str(layer.activation),
        "network": network.config,
    }
    write_atomically(path, safetensors_bytes(stored, {_METADATA: json.dumps(about)}))


def load_network(path: str | os.PathLike[str]) -> ImplicitNetwork:
    """The network of a file that `save_network` wrote, or of a RUN folder.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not one that `save_network` wrote.
    """
    file = Path(path) / MODEL if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}, expected a trained network.")
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads((opened.metadata() or {})[_METADATA])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        network = ImplicitNetwork(**about["network"], dtype=tensors["layer.A"].dtype)
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{file} cannot be read as a trained network ({type(error).__name__}), expected a file "
            "that training wrote; load other weights with ImplicitWeights.load."
        ) from error
    return network


def write_metrics(path: Path, metrics: list[dict[str, Any]]) -> None:
    """Write one JSON object an epoch, atomically."""
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in metrics)
    write_atomically(path, lines.encode())


def save_checkpoint(
    run: Path,
    module: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    metrics: list[dict[str, Any]],
    budget: LipschitzBudget | None = None,
) -> None:
    """Write everything that the epochs to come depend on, atomically."""
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "metrics": metrics,
        "budget": None if budget is None else budget.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (run / CHECKPOINT).parent.mkdir(exist_ok=True)
    write_atomically(run / CHECKPOINT, buffer.getvalue())


def load_checkpoint(
    run: Path,
    module: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    budget: LipschitzBudget | None = None,
) -> list[dict[str, Any]]:
    """Restore what `save_checkpoint` wrote; the metrics of the epochs behind.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint in the folder.
    ValueError
        The checkpoint is damaged, or of another network.
    """
    path = run / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(
            f"there is no checkpoint in {run}, expected {path}; start without resuming."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if budget is not None:
            budget.load_state_dict(state["budget"])
        torch.set_rng_state(state["random"])
        metrics: list[dict[str, Any]] = state["metrics"]
    except Exception as error:  # torch.load raises whatever a damaged pickle makes it
        raise ValueError(
            f"{path} cannot be resumed from ({type(error).__name__}), expected a checkpoint of the "
            "same network; start without resuming."
        ) from error
    return metrics
