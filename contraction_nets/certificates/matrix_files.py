"""Reading one matrix, dense or sparse, without trusting a byte of its file.

No more memory is asked for than the file itself accounts for, whatever it declares.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_array

from contraction_nets.certificates.matrix_market import read_market

PARTS = ("data", "indices", "indptr", "shape")
"""What a sparse matrix by rows is stored as, each after the key of the matrix and a dot."""
MATRICES = (".npy", ".npz", ".mtx")
"""Suffixes of files of one matrix."""

_LARGE = 8 * 2**20  # bytes
_HEADER = 2**15  # bytes
_RATIO = 100  # trained weights compress by less than 2


class FileError(ValueError):
    """A sentence about a file in our words, as opposed to what a parser says."""


def read_matrix(file: Path) -> Any:
    """The array or the scipy.sparse matrix in a .npy, .npz (of save_npz) or .mtx file.

    Raises
    ------
    FileError
        Not a matrix of that format, or one that the file cannot hold. Parsers raise anything.
    """
    suffix = file.suffix.lower()
    if suffix == ".npy":
        with open(file, "rb") as stream:
            return _read_npy(stream, file.stat().st_size, file.name)
    if suffix == ".mtx":
        return read_market(file)
    if not is_sparse_matrix(file):
        with Archive(file) as archive:
            if len(archive.keys) != 1:
                raise FileError(
                    f"{file.name} holds {len(archive.keys)} arrays, expected one, or a matrix that "
                    "scipy.sparse.save_npz wrote."
                )
            return archive.read(archive.keys[0])
    with Archive(file) as archive:
        return archive.saved_by_scipy()


def is_sparse_matrix(file: Path) -> bool:
    """Whether an .npz archive is what scipy.sparse.save_npz writes."""
    with Archive(file) as archive:
        return {"format", "shape", "data"} <= set(archive.keys)


def printable(text: str, length: int = 60) -> str:
    """Text from a file as part of a sentence: cut, and nothing in it moves the cursor."""
    cut = text if len(text) <= length else f"{text[:length]}…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


class Archive:
    """An .npz archive; its arrays are read one at a time and never unpickled.

    Raises
    ------
    FileError
        Two members of one name, or a member that unpacks to far more than it holds.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file)
        self._left = max(_LARGE, _RATIO * file.stat().st_size)
        members = self._zip.infolist()
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        if len(self._members) < len(members):
            self._zip.close()
            raise FileError(f"{file.name} holds two members of one name, expected one of each.")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def keys(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def read(self, key: str) -> NDArray[Any]:
        """One array."""
        info = self._members[key]
        self._left -= info.file_size  # of all arrays together: members may share their bytes
        if self._left < 0:
            raise FileError(
                f"{printable(key)} unpacks from {info.compress_size} to {info.file_size} bytes, "
                f"expected at most {_RATIO} times more than the file; save it uncompressed."
            )
        with self._zip.open(info) as stream:
            return _read_npy(stream, info.file_size, printable(key))

    def sparse(self, key: str) -> csr_array:
        """One sparse matrix that is stored as its parts."""
        parts = {part: self.read(f"{key}.{part}") for part in PARTS}
        return sparse_matrix(parts, self._size(), key)

    def saved_by_scipy(self) -> Any:
        """The matrix that save_npz wrote, in any of the formats csr, csc and coo."""
        layout = self.read("format")
        name = layout.item() if layout.ndim == 0 else None
        name = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
        axes = {"csr": ("indices", "indptr"), "csc": ("indices", "indptr"), "coo": ("row", "col")}
        if name not in axes or not set(axes[name]) <= set(self._members):
            raise FileError(
                f"{self._file.name} holds a sparse matrix of format '{printable(name, 20)}', "
                "expected csr, csc or coo; call .tocsr() before saving it."
            )
        first, second = (self.read(axis) for axis in axes[name])
        parts = {"data": self.read("data"), "indices": first, "indptr": second}
        if name == "coo":
            return _coordinates(self.read("shape"), parts, self._size(), self._file.name)
        return sparse_matrix(
            {**parts, "shape": self.read("shape")},
            self._size(),
            self._file.name,
            kind=csr_array if name == "csr" else csc_array,
        )

    def _size(self) -> int:
        return sum(info.file_size for info in self._members.values())


def sparse_groups(keys: Iterable[str]) -> list[str]:
    """Keys of the matrices that are stored as their parts."""
    there = set(keys)
    starts = [key.removesuffix(".indptr") for key in there if key.endswith(".indptr")]
    return sorted(key for key in starts if all(f"{key}.{part}" in there for part in PARTS))


def belongs(key: str, groups: list[str]) -> bool:
    """Whether a key is one part of such a matrix."""
    whole, _, part = key.rpartition(".")
    return part in PARTS and whole in groups


def sparse_parts(matrix: Any, key: str) -> dict[str, NDArray[Any]]:
    """A csr_array as arrays: what `sparse_matrix` reads."""
    return {
        f"{key}.data": np.ascontiguousarray(matrix.data),
        f"{key}.indices": matrix.indices.astype(np.int64),
        f"{key}.indptr": matrix.indptr.astype(np.int64),
        f"{key}.shape": np.array(matrix.shape, np.int64),
    }


def sparse_matrix(
    parts: dict[str, NDArray[Any]], size: int, name: str, kind: type = csr_array
) -> Any:
    """The sparse matrix of these parts, from a file of so many bytes, its indices checked.

    Raises
    ------
    FileError
        Parts that are no matrix.
    """
    shape = _shape(parts["shape"], size, name)
    data, indices, starts = (parts[part] for part in ("data", "indices", "indptr"))
    _check_indices(name, indices, starts)
    if data.ndim != 1 or data.shape != indices.shape:
        raise FileError(
            f"{name} has {data.size} entries at {indices.size} places, expected one each."
        )
    try:
        matrix = kind((data, indices.astype(np.int64), starts.astype(np.int64)), shape=shape)
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise FileError(
            f"{name} is a damaged sparse matrix ({error}), expected indices that fit its shape; "
            "save it again."
        ) from error
    return matrix


def _coordinates(shape: NDArray[Any], parts: dict[str, NDArray[Any]], size: int, name: str) -> Any:
    rows, columns, data = parts["indices"], parts["indptr"], parts["data"]
    _check_indices(name, rows, columns)
    if not data.shape == rows.shape == columns.shape:
        raise FileError(f"{name} has {data.size} entries at {rows.size} places, expected one each.")
    places = rows.astype(np.int64), columns.astype(np.int64)
    return coo_array((data, places), shape=_shape(shape, size, name))


def _check_indices(name: str, *indices: NDArray[Any]) -> None:
    for index in indices:
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise FileError(
                f"{name} has indices of dtype {index.dtype} and shape {index.shape}, expected a "
                "vector of integers; save it again."
            )
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < 2**63:
            raise FileError(
                f"{name} has indices from {index.min()} to {index.max()}, expected what fits its "
                "shape; save it again."
            )


def _shape(shape: NDArray[Any], size: int, name: str) -> tuple[int, int]:
    values = shape.tolist() if shape.dtype.kind in "iu" and shape.shape == (2,) else [0, 0]
    if not 0 < min(values) <= max(values) <= size:
        raise FileError(
            f"{name} declares the shape {shape.tolist()!r:.60}, expected two sizes that a file of "
            f"{size} bytes can fill; save it again."
        )
    return values[0], values[1]


def _read_npy(stream: Any, size: int, name: str) -> NDArray[Any]:
    """One array, after checking that what its header declares is what the stream holds."""
    # A header may declare gigabytes of itself; numpy takes 10 000 characters.
    start = io.BytesIO(stream.read(min(size, _HEADER)))
    version = np.lib.format.read_magic(start)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_header(start)
    stream.seek(start.tell())
    declared = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
    if dtype.hasobject or declared != size - stream.tell() or min(shape, default=1) < 0:
        raise FileError(
            f"{name} declares shape {shape} and dtype {dtype} but holds {size} bytes, expected "
            "numbers of that size; save it again."
        )
    return np.frombuffer(stream.read(declared), dtype).reshape(shape, order="F" if fortran else "C")
