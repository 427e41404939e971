"""The weights of one implicit network as stored: what a certificate is about."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

if TYPE_CHECKING:
    from contraction_nets.nn.layers import ImplicitNetwork

Matrix = Any
"""An array, or a scipy.sparse.csr_array."""

_SMALL = ("bool", "int8", "uint8", "int16", "uint16", "float16", "float32")
"""Dtypes that float32 holds exactly."""
_CHUNK = 2**20  # entries hashed at a time
_PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0}
"""Activations with a parameter, and its default."""
_PLAIN = ("relu", "tanh", "sigmoid", "softplus")


def parse_activation(spec: str) -> tuple[str, float | None]:
    """Name and parameter of an activation whose slopes are all in [0, 1].

    Parameters
    ----------
    spec : str
        "relu", "leaky_relu", "leaky_relu(0.2)", "tanh", "sigmoid", "softplus", "elu" or
        "elu(0.5)".

    Returns
    -------
    tuple of str and float or None
        The slope of leaky_relu below zero or the α of elu; None for the others.

    Raises
    ------
    ValueError
        Another activation, or a parameter outside [0, 1]: its slopes leave [0, 1].

    Examples
    --------
    >>> parse_activation("leaky_relu(0.2)")
    ('leaky_relu', 0.2)
    """
    match = re.fullmatch(r"(\w+)(?:\(([^()]*)\))?", spec) if isinstance(spec, str) else None
    name, text = match.groups() if match else ("", None)
    if name in _PLAIN and text is None:
        return name, None
    if name in _PARAMETERS:
        try:
            parameter = _PARAMETERS[name] if text is None else float(text)
        except ValueError:
            parameter = math.nan
        if 0.0 <= parameter <= 1.0:
            return name, abs(parameter)  # zero has one sign
    raise ValueError(
        f"got activation {spec!r:.60}, expected one with slopes in [0, 1]: {', '.join(_PLAIN)}, "
        "leaky_relu, leaky_relu(slope), elu or elu(alpha) with the number in [0, 1]."
    )


def canonical_activation(spec: str) -> str:
    """The one spelling of an activation: no default parameter, no digit more than needed.

    Raises
    ------
    ValueError
        As `parse_activation`.

    Examples
    --------
    >>> canonical_activation("leaky_relu(0.01)"), canonical_activation("elu(0.50)")
    ('leaky_relu', 'elu(0.5)')
    """
    name, parameter = parse_activation(spec)
    return name if parameter == _PARAMETERS.get(name) else f"{name}({parameter!r})"


@dataclass(frozen=True, eq=False)
class ImplicitWeights:
    """Weights of x = φ(A x + B u + b), y = C x + D u + c (THEORY §1), read-only.

    Float32 and float64 arrays keep every bit; float16, integers and booleans are converted to
    the smaller of the two that holds them exactly.

    Parameters
    ----------
    A : (n, n) matrix
        State matrix. It and the other matrices are arrays or scipy.sparse matrices, which are
        stored as `scipy.sparse.csr_array`.
    B : (n, p) matrix
        Input matrix.
    C : (q, n) matrix
        Output matrix.
    D : (q, p) matrix, optional
        Feed-through.
    b : (n,) array, optional
        State bias; it has no part in any Lipschitz bound.
    c : (q,) array, optional
        Output bias.
    activation : str
        φ, as in `parse_activation`; kept in its one spelling.

    Raises
    ------
    ValueError
        Shapes that do not fit, entries that are not finite real numbers, an activation whose
        slopes leave [0, 1].
    """

    A: Matrix
    B: Matrix
    C: Matrix
    D: Matrix | None = None
    b: NDArray[Any] | None = None
    c: NDArray[Any] | None = None
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation", canonical_activation(self.activation))
        for name in ("A", "B", "C", "D", "b", "c"):
            value = getattr(self, name)
            if value is not None or name in "ABC":
                object.__setattr__(self, name, _stored(value, name))
        for name, ndim in (("A", 2), ("B", 2), ("C", 2)):
            if getattr(self, name).ndim != ndim:
                _refuse_shape(name, getattr(self, name), "two dimensions")
        n, p, q = self.state_dim, self.input_dim, self.output_dim
        expected = {"A": (n, n), "B": (n, p), "C": (q, n), "D": (q, p), "b": (n,), "c": (q,)}
        for name, array in self.arrays().items():
            if array.shape != expected[name] or 0 in array.shape:
                _refuse_shape(name, array, _wanted(expected[name]))

    @property
    def state_dim(self) -> int:
        """Number of states n."""
        return int(self.A.shape[0])

    @property
    def input_dim(self) -> int:
        """Number of inputs p."""
        return int(self.B.shape[1])

    @property
    def output_dim(self) -> int:
        """Number of outputs q."""
        return int(self.C.shape[0])

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of every array that is there, by name."""
        return {name: list(array.shape) for name, array in self.arrays().items()}

    def arrays(self) -> dict[str, Matrix]:
        """The arrays and sparse matrices that are there, by name, in the order A, B, C, D, b, c."""
        named = {name: getattr(self, name) for name in ("A", "B", "C", "D", "b", "c")}
        return {name: array for name, array in named.items() if array is not None}

    @property
    def is_sparse(self) -> bool:
        """Whether A is stored as a sparse matrix."""
        return bool(issparse(self.A))

    @cached_property
    def sha256(self) -> str:
        """Hash over the activation and the name, dtype, shape and entries of every array.

        Entries that are +0.0 do not count, so that a sparse matrix and the same one in full
        have the same hash.
        """
        digest = hashlib.sha256(f"activation {self.activation}\n".encode())
        for name, array in self.arrays().items():
            digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            places, values = hashlib.sha256(), hashlib.sha256()
            for place, value in _entries(array):
                places.update(place.astype("<i8", copy=False).tobytes())
                values.update(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
            digest.update(places.digest() + values.digest())
        return digest.hexdigest()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        keys: Mapping[str, str] | None = None,
        transpose: Iterable[str] = (),
        activation: str | None = None,
    ) -> ImplicitWeights:
        """Read a .npz, .safetensors, .pt or .pth file, or a RUN folder (`model.safetensors`).

        Or matrices: a folder with one file each (A.mtx, B.npz of `scipy.sparse.save_npz`, C.npy,
        …), or one such file, which is A of ``x = φ(A x + u), y = x``. Keys are matched by what
        follows their last dot, "layer.A" is A; others are ignored. B, C and D that fit A only
        when transposed are transposed. Nothing in a file is ever executed.

        Parameters
        ----------
        path : path
        keys : mapping, optional
            Keys of arrays that are called otherwise, such as ``{"A": "mon.W"}``.
        transpose : iterable of str
            Names of matrices that are stored transposed, where their shape does not tell.
        activation : str, optional
            φ, where the file does not tell it; relu otherwise.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file cannot be read as weights.
        """
        from contraction_nets.certificates.files import read_weights

        found = read_weights(path, dict(keys or {}), transpose)
        told = found.setdefault("activation", activation or "relu")
        if activation is not None and parse_activation(told) != parse_activation(activation):
            raise ValueError(
                f"got the activation {activation}, expected {told}, which the file tells; leave it "
                "out."
            )
        return cls(**found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a .npz or .safetensors file, atomically; equal weights give equal bytes.

        Raises
        ------
        ValueError
            Another suffix.
        """
        from contraction_nets.certificates.files import write_weights

        write_weights(path, self.arrays(), self.activation)

    @classmethod
    def from_module(cls, network: ImplicitNetwork) -> ImplicitWeights:
        """The weights of an `ImplicitNetwork`, in their stored dtype."""
        from contraction_nets.nn.convert import from_module

        return cls(**from_module(network))

    @classmethod
    def from_sequential(
        cls, sequential: Any, *, input_shape: Sequence[int] | None = None
    ) -> ImplicitWeights:
        """A feed-forward `torch.nn.Sequential` of affine layers and activations (THEORY §1).

        Linear, Conv2d, BatchNorm1d, BatchNorm2d, AvgPool2d, ZeroPad2d, Flatten, Identity and
        Dropout layers, in evaluation, with one kind of activation. Linear and Conv2d layers keep
        every bit; BatchNorm, AvgPool2d and affine layers in a row are folded in float64, and
        what is certified are the folded weights, rounded to float64.

        Parameters
        ----------
        sequential : torch.nn.Sequential
        input_shape : (channels, height, width), optional
            Of the images, for a network that begins with layers of images; the input u is one,
            flattened in this order.

        Raises
        ------
        ValueError
            Another kind of layer, layers that do not fit, BatchNorm in training mode, images
            without `input_shape`, activations of different kinds.
        """
        from contraction_nets.nn.convert import from_sequential

        return cls(**from_sequential(sequential, input_shape=input_shape))

    def to_module(self) -> ImplicitNetwork:
        """An `ImplicitNetwork` with these weights."""
        from contraction_nets.nn.convert import to_module

        return to_module(self)


def _wanted(shape: tuple[int, ...]) -> str:
    return str(shape) if all(shape) else "at least one row and column"


def full(matrix: Matrix) -> NDArray[np.float64]:
    """The matrix as an array of float64, which holds every stored value."""
    dense: NDArray[np.float64] = (matrix.toarray() if issparse(matrix) else matrix).astype(
        np.float64
    )
    return dense


def _entries(array: Matrix) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Places, row by row, and values of the entries that are not +0.0, some at a time."""
    if issparse(array):
        rows = np.repeat(np.arange(array.shape[0]), np.diff(array.indptr))
        yield rows * array.shape[1] + array.indices, array.data
        return
    flat = array.ravel()
    bits = flat.view(f"u{flat.itemsize}")
    for start in range(0, flat.size, _CHUNK):
        place = np.flatnonzero(bits[start : start + _CHUNK]) + start
        yield place, flat[place]


def _stored(values: Any, name: str) -> Matrix:
    """A read-only copy in native float32 or float64, equal to the values."""
    if issparse(values):
        return _stored_sparse(values, name)
    try:
        raw = np.asarray(values)
    except Exception as error:  # array-likes raise whatever they like
        raise ValueError(
            f"{name} cannot be read as an array, expected one of real numbers; "
            "detach tensors that require a gradient."
        ) from error
    if raw.dtype.kind not in "biuf" or raw.dtype.itemsize > 8:
        raise ValueError(
            f"{name} has dtype {raw.dtype}, expected float32 or float64; convert it first."
        )
    array = np.array(raw, dtype=np.float32 if raw.dtype.name in _SMALL else np.float64, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or Inf, expected finite entries; clean it first.")
    # Compared as Python integers: numpy would compare int64 with float64 after rounding.
    if (
        raw.dtype.name not in _SMALL
        and raw.dtype.kind in "iu"
        and [int(v) for v in array.flat] != raw.ravel().tolist()
    ):
        raise ValueError(
            f"{name} has integers that float64 cannot hold, expected magnitudes up to 2**53; "
            "convert it to float64 first."
        )
    array.setflags(write=False)
    return array


def _stored_sparse(values: Any, name: str) -> csr_array:
    """The same by rows, columns in order, no entry twice and none that is zero."""
    if values.ndim != 2:
        _refuse_shape(name, values, "two dimensions")
    rows = values.tocsr()
    try:
        rows.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(
            f"{name} is a damaged sparse matrix ({error}), expected one whose indices fit its "
            "shape; build it again."
        ) from error
    # The data are converted first: duplicates are added in the dtype that is stored.
    data = _stored(rows.data, name)
    stored = csr_array((data.copy(), rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)
    stored.sum_duplicates()
    stored.eliminate_zeros()
    if not np.isfinite(stored.data).all():
        raise ValueError(f"{name} has duplicates whose sum is not finite, expected finite entries.")
    for part in (stored.data, stored.indices, stored.indptr):
        part.setflags(write=False)
    return stored


def _refuse_shape(name: str, array: Matrix, expected: str) -> NoReturn:
    raise ValueError(
        f"{name} has shape {array.shape}, expected {expected}; "
        "A is (n, n), B (n, p), C (q, n), D (q, p), b (n,), c (q,)."
    )
