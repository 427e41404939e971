"""Affine maps, dense or sparse, and the implicit network that alternates them with φ."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

Array = NDArray[Any]

Blocks = list[tuple[int, int, Any]]
"""First row, first column and entries of each block; rows ascend and have one block at most."""


@dataclass(frozen=True, eq=False)
class Affine:
    """The map v ↦ matrix v + bias.

    Parameters
    ----------
    matrix : (m, n) array or csr_array
    bias : (m,) array
        Both in float32 or float64.
    """

    matrix: Any
    bias: Array

    @classmethod
    def identity(cls, size: int) -> Affine:
        """The map that changes nothing, in float32."""
        return cls(csr_array(eye_array(size, dtype=np.float32)), np.zeros(size, np.float32))

    @property
    def finite(self) -> bool:
        """Whether no entry is NaN or Inf."""
        entries = self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.data
        return bool(np.isfinite(entries).all() and np.isfinite(self.bias).all())

    def after(self, first: Affine | None) -> Affine:
        """First that map, then this one: as it is where there is no other, else in float64."""
        if first is None:
            return self
        matrix = self.matrix.astype(np.float64)
        with np.errstate(all="ignore"):  # what overflows is refused as Inf or NaN
            return Affine(matrix @ first.matrix, matrix @ first.bias + self.bias)


def stacked(
    inputs: int, hidden: list[Affine], output: Affine, *, sparse: bool
) -> dict[str, Array | csr_array]:
    """The implicit network y = output(φ(hidden_k(… φ(hidden_1(u))))) (THEORY §1).

    The state is what every φ puts out, in order, so that A is strictly block lower triangular.

    Parameters
    ----------
    inputs : int
        Size of u.
    hidden : list of Affine
        One before each φ; where there is none, the network has one state that is not used, and
        the output map is D.
    output : Affine
    sparse : bool
        Whether A, B, C and D become csr_array, canonical and without stored zeros.

    Returns
    -------
    dict
        A, B, C, b, c and perhaps D, in the widest dtype of the maps.
    """
    maps = [*hidden, output]
    dtype = np.result_type(*(value.dtype for map_ in maps for value in (map_.matrix, map_.bias)))
    starts = [0, *itertools.accumulate(len(map_.bias) for map_ in hidden)]
    n, q = starts[-1] or 1, len(output.bias)
    fill = _sparse if sparse else _dense
    blocks: dict[str, Blocks] = {
        "A": [
            (row, column, map_.matrix)
            for row, column, map_ in zip(starts[1:], starts, hidden[1:], strict=False)
        ],
        "B": [(0, 0, map_.matrix) for map_ in hidden[:1]],
        "C": [(0, starts[-2], output.matrix)] if hidden else [],
        "D": [(0, 0, output.matrix)],
    }
    shapes = {"A": (n, n), "B": (n, inputs), "C": (q, n), "D": (q, inputs)}
    return {
        **{name: fill(shapes[name], blocks[name], dtype) for name in ("ABC" if hidden else "ABCD")},
        "b": np.concatenate([map_.bias for map_ in hidden] or [np.zeros(1)]).astype(dtype),
        "c": output.bias.astype(dtype),
    }


def _dense(shape: tuple[int, int], blocks: Blocks, dtype: Any) -> Array:
    array = np.zeros(shape, dtype)
    for row, column, block in blocks:
        rows, columns = block.shape
        entries = block if isinstance(block, np.ndarray) else block.toarray()
        array[row : row + rows, column : column + columns] = entries
    return array


def _sparse(shape: tuple[int, int], blocks: Blocks, dtype: Any) -> csr_array:
    parts = [(row, column, csr_array(block)) for row, column, block in blocks]
    counts = np.zeros(shape[0] + 1, np.int64)
    for row, _, part in parts:
        counts[row + 1 : row + 1 + part.shape[0]] = np.diff(part.indptr)
    array = csr_array(
        (
            np.concatenate([np.zeros(0, dtype), *(part.data for _, _, part in parts)], dtype=dtype),
            np.concatenate(
                [np.zeros(0, np.int32), *(part.indices + column for _, column, part in parts)]
            ),
            np.cumsum(counts),
        ),
        shape=shape,
    )
    array.sum_duplicates()  # sorts as well; products of csr_arrays are not sorted
    array.eliminate_zeros()
    return array
