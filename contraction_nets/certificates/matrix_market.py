"""Matrix Market files (.mtx), read to the last character or refused.

The format is that of https://math.nist.gov/MatrixMarket/formats.html. Readers in C++ are faster,
but take ``-6.2x`` for a number.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

_LINE = 1024  # characters of a line of the header, which the format limits as well
_FIELDS = {"real": np.float64, "double": np.float64, "integer": np.int64, "pattern": None}
_SYMMETRIES = ("general", "symmetric", "skew-symmetric")


def read_market(file: Path) -> Any:
    """The array or the coo_array in a Matrix Market file of real numbers.

    Memory stays within a multiple of the size of the file, whatever it declares.

    Raises
    ------
    ValueError
        Half a sentence: what is wrong with the file.
    """
    size = file.stat().st_size
    with open(file, encoding="ascii", errors="backslashreplace") as stream:
        layout, field, symmetry = _banner(stream)
        sizes = _sizes(stream, 2 if layout == "array" else 3)
        rows, columns = sizes[:2]
        if symmetry != "general" and rows != columns:
            raise ValueError(f"{rows} × {columns} is declared {symmetry}")
        entries = sizes[2] if layout == "coordinate" else _stored(rows, columns, symmetry)
        # A line of an array has two characters or more, one of coordinates four.
        least = entries * (2 if layout == "array" else 4) - 1
        if not 0 < min(rows, columns) <= max(rows, columns) <= size or least > size:
            raise ValueError(
                f"it declares {rows} × {columns} with {entries} entries, more or less than "
                f"{size} bytes hold"
            )
        if layout == "array":
            values = _table(stream, [("value", _FIELDS[field])], entries)["value"]
            return _array(values, rows, columns, symmetry)
        kind = _FIELDS[field]
        columns_of_text: list[Any] = [("row", np.int64), ("column", np.int64)]
        columns_of_text += [] if kind is None else [("value", kind)]
        return _coordinates(_table(stream, columns_of_text, entries), (rows, columns), symmetry)


def _banner(stream: TextIO) -> tuple[str, str, str]:
    """Layout, field and symmetry."""
    words = stream.readline(_LINE).lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        raise ValueError("its first line is no '%%MatrixMarket matrix …'")
    layout, field, symmetry = words[2:]
    if field not in _FIELDS:
        raise ValueError(f"it holds {field!r:.40} numbers, not real ones")
    known = layout in ("array", "coordinate") and symmetry in _SYMMETRIES
    if not known or (layout == "array" and field == "pattern"):
        raise ValueError(f"it is of the kind {layout!r:.40}, {field}, {symmetry!r:.40}")
    return layout, field, symmetry


def _sizes(stream: TextIO, count: int) -> list[int]:
    """The line of sizes, after comments and empty lines."""
    line = stream.readline()
    while line.startswith("%") or (line and not line.strip()):
        line = stream.readline()
    words = line[:_LINE].split()
    if len(words) != count or not all(word.isdigit() for word in words):
        raise ValueError(f"its line of sizes is {line[:40].strip()!r}, not {count} integers")
    return [int(word) for word in words]


def _stored(rows: int, columns: int, symmetry: str) -> int:
    """Number of entries that a full array is written with: its lower part, where that is all."""
    if symmetry == "general":
        return rows * columns
    return rows * (rows + 1 if symmetry == "symmetric" else rows - 1) // 2


def _table(stream: TextIO, columns: list[Any], entries: int) -> NDArray[Any]:
    """The other lines, as a structured array of so many entries."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="loadtxt: input contained no data")
        found = np.loadtxt(stream, np.dtype(columns), comments="%", ndmin=1)
    if len(found) != entries:
        raise ValueError(f"it declares {entries} entries and has {len(found)}")
    return found


def _array(values: NDArray[Any], rows: int, columns: int, symmetry: str) -> NDArray[Any]:
    """The array, whose columns are written one after the other."""
    if symmetry == "general":
        return values.reshape(columns, rows).T
    sign = 1 if symmetry == "symmetric" else -1
    matrix = np.zeros((rows, rows), values.dtype)
    # Columns of the lower part are rows of the upper one.
    upper = np.triu_indices(rows, 0 if sign == 1 else 1)
    matrix[upper] = sign * values
    matrix.T[upper] = values
    return matrix


def _coordinates(table: NDArray[Any], shape: tuple[int, int], symmetry: str) -> coo_array:
    row, column = table["row"] - 1, table["column"] - 1
    for places, length in ((row, shape[0]), (column, shape[1])):
        if len(table) and not 0 <= places.min() <= places.max() < length:
            raise ValueError(f"it has entries outside of {shape[0]} × {shape[1]}")
    names = table.dtype.names or ()
    values = table["value"] if "value" in names else np.ones(len(table))
    if symmetry != "general":
        other = row != column
        if symmetry == "skew-symmetric" and not other.all():
            raise ValueError("it is skew-symmetric with entries on the diagonal")
        sign = 1 if symmetry == "symmetric" else -1
        values = np.concatenate([values, sign * values[other]])
        row, column = (
            np.concatenate([row, column[other]]),
            np.concatenate([column, row[other]]),
        )
    return coo_array((values, (row, column)), shape=shape)
