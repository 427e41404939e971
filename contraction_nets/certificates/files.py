"""Reading and writing weights files, without trusting a byte of them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save as safetensors_bytes

from contraction_nets.certificates.storage import write_atomically

_NAMES = ("A", "B", "C", "D", "b", "c")
_METADATA = "contraction_nets"
_VERSION = 1
_LARGE = 256 * 2**20  # bytes
_RATIO = 100  # trained weights compress by less than 2


def read_weights(
    path: str | os.PathLike[str], named: dict[str, str] | None = None
) -> dict[str, Any]:
    """The arrays of a weights file by name, and its activation where the file tells it.

    Parameters
    ----------
    path : path
    named : dict, optional
        Name → key, for arrays whose key does not end in their name.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not readable, not of a known format, keys ambiguous or missing, or a declared size
        that the file cannot hold.
    """
    named = named or {}
    if unknown := sorted(set(named) - set(_NAMES)):
        raise ValueError(
            f"got a key for {unknown[0]!r}, expected keys for some of {', '.join(_NAMES)}."
        )
    file = Path(path)
    if file.is_dir():
        file = file / "model.safetensors"
        if not file.exists():
            raise FileNotFoundError(
                f"the folder {file.parent} has no model.safetensors, expected a run folder; "
                "pass the weights file itself."
            )
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}, expected weights; check the path.")
    reader = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".pt": _read_torch,
        ".pth": _read_torch,
    }.get(file.suffix.lower())
    if reader is None:
        raise ValueError(
            f"got the file {file.name}, expected .npz, .safetensors, .pt or .pth; convert it first."
        )
    try:
        return reader(file, named)
    except _FileError:
        raise
    except Exception as error:  # damaged files raise anything, from zlib to the tokenizer
        raise ValueError(
            f"{file.name} cannot be read as a {file.suffix} file of weights "
            f"({_first_line(error)}), expected one that is whole; save it again."
        ) from error


def write_weights(
    path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]], activation: str
) -> None:
    """Write arrays and activation to .npz or .safetensors, atomically and reproducibly.

    Raises
    ------
    ValueError
        Another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        data = _npz_bytes({**arrays, "activation": np.array(activation)})
    elif suffix == ".safetensors":
        about = json.dumps({"version": _VERSION, "activation": activation})
        data = safetensors_bytes(dict(arrays), {_METADATA: about})
    else:
        raise ValueError(
            f"got the file {Path(path).name}, expected the suffix .npz or .safetensors."
        )
    write_atomically(path, data)


class _FileError(ValueError):
    """A sentence of this module, as opposed to what a parser says."""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _choose(keys: list[str], names: tuple[str, ...], named: dict[str, str]) -> dict[str, str]:
    """Name → the key it is given, or the one key that ends in it after its last dot."""
    chosen: dict[str, str] = {}
    for key in keys:
        name = key.rpartition(".")[2]
        if name in names and name not in named and key not in named.values():
            if name in chosen:
                raise _FileError(
                    f"the keys '{chosen[name]}' and '{key}' both end in '{name}', expected one; "
                    "save the network on its own."
                )
            chosen[name] = key
    for name, key in named.items():
        if key not in keys:
            raise _FileError(
                f"there is no key '{key}' for {name}, expected one of those in the file: "
                f"{_shown(keys)}."
            )
        chosen[name] = key
    if missing := [name for name in "ABC" if name not in chosen]:
        raise _FileError(
            f"there is no key ending in {' or '.join(missing)}, expected A, B and C; "
            f"the keys are: {_shown(keys)}; name them, as in A=mon.W."
        )
    return chosen


def _shown(keys: list[str]) -> str:
    return ", ".join(sorted(keys)[:20]) or "none"


def _read_npz(file: Path, named: dict[str, str]) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise _FileError(f"{file.name} holds two members of one name, expected one of each.")
        chosen = _choose(list(members), (*_NAMES, "activation"), named)
        found: dict[str, Any] = {
            name: _read_member(archive, members[key], name) for name, key in chosen.items()
        }
    if "activation" in found:
        text = found["activation"]
        if text.ndim != 0 or text.dtype.kind != "U":
            raise _FileError(
                f"the activation in {file.name} has dtype {text.dtype} and shape {text.shape}, "
                "expected a string of shape ()."
            )
        found["activation"] = str(text)
    return found


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    """One array, after checking that what its header declares is what the member holds."""
    if info.file_size > max(_LARGE, _RATIO * info.compress_size):
        raise _FileError(
            f"{name} unpacks from {info.compress_size} to {info.file_size} bytes, expected at "
            f"most {_RATIO} times more; save it uncompressed."
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(stream)
        declared = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
        if (
            dtype.hasobject
            or declared != info.file_size - stream.tell()
            or min(shape, default=1) < 0
        ):
            raise _FileError(
                f"{name} declares shape {shape} and dtype {dtype} but holds {info.file_size} "
                "bytes, expected numbers of that size; save it again."
            )
        data = stream.read(declared)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _read_safetensors(file: Path, named: dict[str, str]) -> dict[str, Any]:
    with safe_open(file, framework="numpy") as tensors:
        about = json.loads((tensors.metadata() or {}).get(_METADATA, "{}"))
        if not isinstance(about, dict) or about.get("version", _VERSION) != _VERSION:
            raise _FileError(
                f"the metadata '{_METADATA}' of {file.name} is not of version {_VERSION}, expected "
                "that; update contraction-nets or save the weights again."
            )
        chosen = _choose(list(tensors.keys()), _NAMES, named)
        found: dict[str, Any] = {
            name: _bfloat16(file, key)
            if tensors.get_slice(key).get_dtype() == "BF16"  # which numpy does not have
            else tensors.get_tensor(key)
            for name, key in chosen.items()
        }
    if "activation" in about:
        found["activation"] = about["activation"]
    return found


def _bfloat16(file: Path, key: str) -> NDArray[Any]:
    from contraction_nets.nn.convert import load_safetensor

    return load_safetensor(file, key)


def _read_torch(file: Path, named: dict[str, str]) -> dict[str, Any]:
    from contraction_nets.nn.convert import load_torch

    tensors = load_torch(file)
    return {name: tensors[key] for name, key in _choose(list(tensors), _NAMES, named).items()}


def _npz_bytes(arrays: dict[str, NDArray[Any]]) -> bytes:
    """An .npz archive without compression and with a fixed date: equal arrays, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()
