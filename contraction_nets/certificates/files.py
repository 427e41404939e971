"""Reading and writing weights files, without trusting a byte of them."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save as safetensors_bytes
from scipy.sparse import csr_array, eye_array, issparse

from contraction_nets.certificates.matrix_files import (
    MATRICES,
    PARTS,
    Archive,
    FileError,
    belongs,
    is_sparse_matrix,
    printable,
    read_matrix,
    sparse_groups,
    sparse_matrix,
    sparse_parts,
)
from contraction_nets.certificates.storage import check_regular, write_atomically
from contraction_nets.errors import TransposedWarning

_NAMES = ("A", "B", "C", "D", "b", "c")
_MATRICES = ("A", "B", "C", "D")
_METADATA = "contraction_nets"
_VERSION = 1


def read_weights(
    path: str | os.PathLike[str],
    named: dict[str, str] | None = None,
    transpose: Iterable[str] = (),
) -> dict[str, Any]:
    """The arrays of weights by name, and their activation where the file tells it.

    Parameters
    ----------
    path : path
        A file of weights, a run folder, a file of one matrix, or a folder of such files.
    named : dict, optional
        Name → key, for arrays whose key does not end in their name.
    transpose : iterable of str
        Names of matrices that are stored transposed. B, C and D that only fit A transposed are
        taken that way without being named.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not readable, not of a known format, keys ambiguous or missing, or a declared size
        that the file cannot hold.
    """
    named, turned = named or {}, set(transpose)
    for names, known, what in ((named, _NAMES, "a key"), (turned, _MATRICES, "a transpose")):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"got {what} for {unknown[0]!r}, expected one of {', '.join(known)}.")
    file = Path(path)
    if file.is_dir():
        if not (file / "model.safetensors").exists():
            return _oriented(_read_folder(file, named), turned)
        file = file / "model.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}, expected weights; check the path.")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(
            f"got the file {file.name}, expected {', '.join(_READERS)} or a folder; "
            "convert it first."
        )
    check_regular(file)
    with _refusing(file):
        return _oriented(reader(file, named), turned)


def write_weights(path: str | os.PathLike[str], arrays: dict[str, Any], activation: str) -> None:
    """Write arrays and activation to .npz or .safetensors, atomically and reproducibly.

    A sparse matrix A is written by rows, as A.data, A.indices, A.indptr and A.shape.

    Raises
    ------
    ValueError
        Another suffix.
    """
    suffix = Path(path).suffix.lower()
    flat: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        flat |= sparse_parts(array, name) if issparse(array) else {name: array}
    if suffix == ".npz":
        data = _npz_bytes({**flat, "activation": np.array(activation)})
    elif suffix == ".safetensors":
        about = json.dumps({"version": _VERSION, "activation": activation})
        data = safetensors_bytes(flat, {_METADATA: about})
    else:
        raise ValueError(
            f"got the file {Path(path).name}, expected the suffix .npz or .safetensors."
        )
    write_atomically(path, data)


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Whatever a parser says of a damaged file becomes one sentence of ours."""
    try:
        yield
    except FileError:
        raise
    except Exception as error:  # damaged files raise anything, from zlib to the tokenizer
        raise ValueError(
            f"{file.name} cannot be read as a {file.suffix} file of weights "
            f"({_first_line(error)}), expected one that is whole; save it again."
        ) from error


def _first_line(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 200).rstrip(
        "."
    )


def _oriented(found: dict[str, Any], turned: set[str]) -> dict[str, Any]:
    """The arrays as A (n, n), B (n, p), C (q, n), D (q, p); a matrix alone is A, B = C = I."""
    if missing := sorted(turned - set(found)):
        raise FileError(
            f"got a transpose for {missing[0]}, expected a matrix of the file; leave it out."
        )
    shapes = {name: np.shape(found[name]) for name in _MATRICES if name in found}
    if set(found) == {"A"} and len(shapes["A"]) != 2:
        raise FileError(
            f"A has shape {shapes['A']}, expected (n, n), two dimensions; save it again."
        )
    if any(len(shape) != 2 for shape in shapes.values()):
        return found  # refused later, with the shape
    n, asked = shapes["A"][0], set(turned)
    if set(found) == {"A"}:
        identity = csr_array(eye_array(n, dtype=np.float32))
        found, shapes = (
            {**found, "B": identity, "C": identity},
            {**shapes, "B": (n, n), "C": (n, n)},
        )
    rows, columns = shapes["B"], shapes["C"]
    turned |= {"B"} if rows[0] != n and rows[1] == n else set()
    turned |= {"C"} if columns[1] != n and columns[0] == n else set()
    if "D" in found:
        p, q = rows["B" not in turned], columns["C" in turned]
        turned |= {"D"} if shapes["D"] != (q, p) and shapes["D"] == (p, q) else set()
    if turned > asked and "A" not in asked and n > 1:
        fitted = ", ".join(sorted(turned - asked))
        warnings.warn(
            f"{fitted} fit only transposed and were transposed, A has been read as it is stored: "
            f"where it is stored transposed too, ask for A as a transpose; else name {fitted}.",
            TransposedWarning,
            stacklevel=2,
        )
    return {name: value.T if name in turned else value for name, value in found.items()}


def _choose(keys: list[str], names: tuple[str, ...], named: dict[str, str]) -> dict[str, str]:
    """Name → the key it is given, or the one key that ends in it after its last dot."""
    chosen: dict[str, str] = {}
    for key in keys:
        name = key.rpartition(".")[2]
        if name in names and name not in named and key not in named.values():
            if name in chosen:
                raise FileError(
                    f"the keys '{printable(chosen[name])}' and '{printable(key)}' both end in "
                    f"'{name}', expected one; save the network on its own."
                )
            chosen[name] = key
    for name, key in named.items():
        if key not in keys:
            raise FileError(
                f"there is no key '{printable(key)}' for {name}, expected one of those in the "
                f"file: {_shown(keys)}."
            )
        chosen[name] = key
    if missing := [name for name in "ABC" if name not in chosen]:
        raise FileError(
            f"there is no key ending in {' or '.join(missing)}, expected A, B and C; "
            f"the keys are: {_shown(keys)}; name them, as in A=mon.W."
        )
    return chosen


def _shown(keys: list[str]) -> str:
    return ", ".join(map(printable, sorted(keys)[:20])) or "none"


def _read_folder(folder: Path, named: dict[str, str]) -> dict[str, Any]:
    """A folder with one file a matrix: A.mtx, B.npz, C.npy, …"""
    if named:
        raise ValueError(
            f"got keys for the folder {folder.name}, expected its files to be named A, B, C; "
            "rename them."
        )
    found: dict[str, Any] = {}
    for name in _NAMES:
        files = [
            file for suffix in MATRICES for file in [folder / f"{name}{suffix}"] if file.exists()
        ]
        if len(files) > 1:
            raise ValueError(
                f"the folder {folder.name} has {files[0].name} and {files[1].name}, expected one."
            )
        for file in files:
            check_regular(file)
            with _refusing(file):
                found[name] = read_matrix(file)
    if found and set(found) != {"A"} and not {"A", "B", "C"} <= set(found):
        raise FileNotFoundError(
            f"the folder {folder} has the matrices {', '.join(found)}, expected A, B and C, or A "
            "alone; add the others."
        )
    if not found:
        raise FileNotFoundError(
            f"the folder {folder} has neither model.safetensors nor a matrix A "
            f"({', '.join(f'A{suffix}' for suffix in MATRICES)}), expected a run folder or "
            "matrices; pass the weights file itself."
        )
    for name in "bc":
        if name in found and np.ndim(found[name]) == 2 and 1 in np.shape(found[name]):
            found[name] = np.ravel(found[name].toarray() if issparse(found[name]) else found[name])
    return found


def _read_alone(file: Path, named: dict[str, str]) -> dict[str, Any]:
    if named:
        raise FileError(f"got keys for {file.name}, which holds one matrix; leave them out.")
    return {"A": read_matrix(file)}


def _read_npz(file: Path, named: dict[str, str]) -> dict[str, Any]:
    if is_sparse_matrix(file):
        return _read_alone(file, named)
    with Archive(file) as archive:
        groups = sparse_groups(archive.keys)
        whole = [key for key in archive.keys if not belongs(key, groups)]
        chosen = _choose([*whole, *groups], (*_NAMES, "activation"), named)
        found: dict[str, Any] = {
            name: archive.sparse(key) if key in groups else archive.read(key)
            for name, key in chosen.items()
        }
    if "activation" in found:
        text = found["activation"]
        if text.ndim != 0 or text.dtype.kind != "U":
            raise FileError(
                f"the activation in {file.name} has dtype {text.dtype} and shape {text.shape}, "
                "expected a string of shape ()."
            )
        found["activation"] = str(text)
    return found


def _read_safetensors(file: Path, named: dict[str, str]) -> dict[str, Any]:
    with safe_open(file, framework="numpy") as tensors:
        about = json.loads((tensors.metadata() or {}).get(_METADATA, "{}"))
        if not isinstance(about, dict) or about.get("version", _VERSION) != _VERSION:
            raise FileError(
                f"the metadata '{_METADATA}' of {file.name} is not of version {_VERSION}, expected "
                "that; update contraction-nets or save the weights again."
            )
        keys = list(tensors.keys())
        groups = sparse_groups(keys)
        whole = [key for key in keys if not belongs(key, groups)]
        chosen = _choose([*whole, *groups], _NAMES, named)

        def read(key: str) -> NDArray[Any]:
            if tensors.get_slice(key).get_dtype() == "BF16":  # which numpy does not have
                return _bfloat16(file, key)
            array: NDArray[Any] = tensors.get_tensor(key)
            return array

        found: dict[str, Any] = {
            name: sparse_matrix(
                {part: read(f"{key}.{part}") for part in PARTS}, file.stat().st_size, key
            )
            if key in groups
            else read(key)
            for name, key in chosen.items()
        }
    if "activation" in about:
        found["activation"] = about["activation"]
    return found


def _bfloat16(file: Path, key: str) -> NDArray[Any]:
    from contraction_nets.nn.torch_files import load_safetensor

    return load_safetensor(file, key)


def _read_torch(file: Path, named: dict[str, str]) -> dict[str, Any]:
    from contraction_nets.nn.torch_files import as_matrix, load_torch

    tensors, size = load_torch(file), file.stat().st_size
    chosen = _choose(list(tensors), _NAMES, named)
    return {name: as_matrix(tensors[key], name, size) for name, key in chosen.items()}


_READERS = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".mtx": _read_alone,
    ".npy": _read_alone,
}


def _npz_bytes(arrays: dict[str, NDArray[Any]]) -> bytes:
    """An .npz archive without compression and with a fixed date: equal arrays, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()
