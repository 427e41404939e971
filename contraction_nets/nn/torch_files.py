"""Reading the tensors of torch files, without running or believing what is in them."""

from __future__ import annotations

import os
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.sparse import coo_array, csc_array, csr_array
from torch import Tensor

_MAKERS = ("bytearray", "UntypedStorage", "Tensor")
"""Ends of names whose calls torch allows and which give memory of any size, not initialized."""


def load_torch(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a .pt or .pth file by dotted name; nothing in it is executed.

    Raises
    ------
    ValueError
        Not a dictionary of tensors (possibly nested, as ``{"state_dict": …}``), a name that
        two tensors have, or a file of torch before 1.6.
    """
    file = Path(path)
    _check_archive(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(os.fspath(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged pickle makes it
        # Not in its own words: they advise to run what is in the file.
        raise _refused(file, type(error).__name__) from error
    found: dict[str, Tensor] = {}
    seen: set[int] = set()

    def collect(value: Any, name: str) -> None:
        if isinstance(value, Tensor):
            if name in found:
                raise ValueError(
                    f"got two tensors of the name {name[:60]!r}, expected one; save the network "
                    "on its own."
                )
            found[name] = value
        elif isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))  # a dictionary may be in itself, or in many places
            for key, inner in value.items():
                collect(inner, f"{name}.{key}" if name else str(key))

    collect(loaded, "")
    if not found:
        raise ValueError(
            f"got a {type(loaded).__name__} without tensors, expected a state_dict; "
            "save it with torch.save(network.state_dict(), path)."
        )
    return found


def load_safetensor(path: str | os.PathLike[str], key: str) -> NDArray[Any]:
    """One tensor of a .safetensors file; bfloat16 as the float32 that holds it exactly."""
    with safe_open(path, framework="pt") as tensors:
        return as_array(tensors.get_tensor(key))


def as_matrix(tensor: Tensor, name: str, size: int) -> Any:
    """The array of a tensor from a file of so many bytes; a sparse one as a scipy.sparse matrix.

    Raises
    ------
    ValueError
        Quantized, nested, on no device, of a dtype numpy has no match for, or larger than the
        file: some tensors repeat their entries.
    """
    kinds = (torch.strided, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
    if tensor.is_meta or tensor.is_quantized or tensor.layout not in kinds or tensor.is_nested:
        raise ValueError(
            f"{name} is a tensor of dtype {tensor.dtype} and layout {tensor.layout} on the device "
            f"{tensor.device}, expected plain numbers; convert it before saving it."
        )
    if tensor.layout == torch.strided:
        return as_array(_held(tensor, name, size))
    if tensor.ndim != 2 or tensor.dense_dim() or max(tensor.shape) > size:
        raise ValueError(
            f"{name} is a sparse tensor of shape {tuple(tensor.shape)}, expected a matrix that a "
            f"file of {size} bytes can fill; save it again."
        )
    shape = tuple(tensor.shape)
    if tensor.layout == torch.sparse_coo:
        parts = tensor._values(), *tensor._indices()
    elif tensor.layout == torch.sparse_csr:
        parts = tensor.values(), tensor.col_indices(), tensor.crow_indices()
    else:
        parts = tensor.values(), tensor.row_indices(), tensor.ccol_indices()
    data, first, second = (as_array(_held(part, name, size)) for part in parts)
    if tensor.layout == torch.sparse_coo:
        return coo_array((data, (first, second)), shape=shape)
    kind = csr_array if tensor.layout == torch.sparse_csr else csc_array
    matrix = kind((data, first, second), shape=shape)
    matrix.check_format(full_check=True)
    return matrix


def as_array(tensor: Tensor) -> NDArray[Any]:
    """A copy of a tensor; bfloat16 as the float32 that holds it exactly."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg()
    if dense.dtype == torch.bfloat16:  # which numpy does not have
        dense = dense.float()
    array: NDArray[Any] = np.array(dense.numpy())
    return array


def _held(tensor: Tensor, name: str, size: int) -> Tensor:
    if tensor.numel() * tensor.element_size() > size:
        raise ValueError(
            f"{name} has the shape {tuple(tensor.shape)}, expected one that a file of {size} bytes "
            "can fill; save a copy of it that is contiguous."
        )
    return tensor


def _check_archive(file: Path) -> None:
    """Refuse what would be given memory before anything is known of it."""
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"{file.name} is not a zip archive, expected what torch.save writes since torch 1.6; "
            "load and save it again with torch."
        )
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > file.stat().st_size:
            raise ValueError(
                f"{file.name} unpacks to more than its size, expected an archive without "
                "compression; save it again with torch.save."
            )
        for member in members:
            if member.filename.endswith(".pkl"):
                _check_pickle(file, archive.read(member))


def _check_pickle(file: Path, data: bytes) -> None:
    try:
        names = [str(arg) for code, arg, _ in pickletools.genops(data) if code.name == "GLOBAL"]
    except Exception as error:  # pickletools raises whatever a damaged pickle makes it
        raise _refused(file, type(error).__name__) from error
    for name in names:
        if name.endswith(_MAKERS):
            raise _refused(file, f"it calls {name[:60]!r}")


def _refused(file: Path, reason: str) -> ValueError:
    return ValueError(
        f"torch.load(weights_only=True) refuses {file.name} ({reason}), expected tensors and "
        "nothing else; save network.state_dict()."
    )
