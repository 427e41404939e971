"""Tables of numbers that commands are given, and tables that they write."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_table(path: Path, what: str) -> NDArray[np.float64]:
    """The numbers in a .csv, .npy or .npz file of one array, as float64, (m, k) or (m,).

    A first line of names in a .csv file is passed over.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Another suffix, or a file that is not a table of finite numbers.
    """
    import numpy as np

    from contraction_nets.certificates.matrix_files import FileError, read_matrix
    from contraction_nets.certificates.storage import check_regular
    from contraction_nets.geometry.measures import as_finite

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}, expected {what}; check the path.")
    check_regular(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npy", ".npz"):
        raise ValueError(f"got the file {path.name}, expected {what} as .csv, .npy or .npz.")
    try:
        table: Any = _read_csv(path) if suffix == ".csv" else read_matrix(path)
        if not np.size(table):
            raise ValueError("it has no numbers")
        return as_finite(table, what)
    except (FileError, FileNotFoundError):
        raise
    except Exception as error:  # damaged files raise anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise ValueError(
            f"{path.name} cannot be read as {what} ({first}), expected a table of finite numbers."
        ) from error


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table as .csv, atomically; floats keep every bit."""
    from contraction_nets.certificates.storage import write_atomically

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _read_csv(path: Path) -> list[list[float]]:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        lines = [line for line in csv.reader(stream) if line]
    if lines and not _numbers(lines[0]):
        lines = lines[1:]
    if len({len(line) for line in lines}) != 1:
        raise ValueError("its lines are none or of different lengths")
    return [[float(value) for value in line] for line in lines]


def _numbers(line: list[str]) -> bool:
    try:
        return bool([float(value) for value in line])
    except ValueError:
        return False
