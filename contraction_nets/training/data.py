"""The data sets of the examples: digits (bundled), MNIST, and functions to estimate."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contraction_nets.nn.options import as_seed

_MNIST = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_PIXELS = ("digits", "mnist")
_FUNCTION_SAMPLES = 1000
_FUNCTION_NOISE = 0.05


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and targets in memory, one sample a row.

    Attributes
    ----------
    name : str
    train_inputs, test_inputs : (N, p) float32 tensors
        Pixels or coordinates in [0, 1].
    train_targets, test_targets : (N,) int64 or (N, q) float32 tensors
        Class numbers, or the values of a function.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    @property
    def classifies(self) -> bool:
        """Whether the targets are class numbers."""
        return not self.train_targets.is_floating_point()

    @property
    def domain(self) -> tuple[float, float] | None:
        """The interval that every input is in by its nature: [0, 1] for pixels, else None."""
        return (0.0, 1.0) if self.name in _PIXELS else None

    @property
    def in_features(self) -> int:
        """Number of inputs p."""
        return int(self.train_inputs.shape[1])

    @property
    def out_features(self) -> int:
        """Number of classes, or of function values."""
        if self.classifies:
            return int(self.train_targets.max()) + 1
        return int(self.train_targets.shape[1])


def load_data(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, seed: int = 0
) -> Dataset:
    """A data set by name.

    Parameters
    ----------
    name : {"digits", "mnist", "function", "function2d"}
        Digits: 8 × 8 images, bundled with scikit-learn, 360 of 1797 held out. MNIST: 28 × 28
        images, from the four IDX files in `data_dir` or, without one, from OpenML.
        Functions: 1000 noisy samples on [0, 1] or [0, 1]², tested without noise.
    data_dir : path, optional
        Folder of the MNIST files, compressed (.gz) or not.
    seed : int
        Of the held-out digits, and of the samples and noise of functions.

    Raises
    ------
    ValueError
        No such data set, or damaged files.
    FileNotFoundError
        A file is missing in `data_dir`.
    ImportError
        scikit-learn is not installed.
    """
    as_seed(seed)
    loaders: dict[str, Callable[[], Dataset]] = {
        "digits": lambda: _digits(seed),
        "mnist": lambda: _openml() if data_dir is None else _idx_files(Path(data_dir)),
        "function": lambda: _function("function", _wave, 1, seed),
        "function2d": lambda: _function("function2d", _saddle, 2, seed),
    }
    if name not in loaders:
        raise ValueError(f"got the data set {name!r}, expected one of {', '.join(loaders)}.")
    return loaders[name]()


def _digits(seed: int) -> Dataset:
    datasets = _scikit_learn()
    from sklearn.model_selection import train_test_split

    images, labels = datasets.load_digits(return_X_y=True)
    parts = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.2, stratify=labels, random_state=seed
    )
    train_inputs, test_inputs, train_labels, test_labels = map(torch.as_tensor, parts)
    return Dataset("digits", train_inputs, train_labels, test_inputs, test_labels)


def _openml() -> Dataset:
    datasets = _scikit_learn()
    try:
        images, labels = datasets.fetch_openml(
            "mnist_784", version=1, return_X_y=True, as_frame=False
        )
    except OSError as error:
        raise FileNotFoundError(
            f"MNIST could not be fetched from OpenML ({error}), expected a network connection; "
            "pass data_dir with the four IDX files instead."
        ) from error
    inputs = torch.from_numpy((images / 255).astype(np.float32))
    targets = torch.from_numpy(labels.astype(np.int64))
    return Dataset("mnist", inputs[:60000], targets[:60000], inputs[60000:], targets[60000:])


def _scikit_learn():  # type: ignore[no-untyped-def]
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "this data set comes with scikit-learn, which is not installed; "
            "run pip install 'contraction-nets[data]'."
        ) from error
    return datasets


def _idx_files(folder: Path) -> Dataset:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}, expected one with the four MNIST files; check the path."
        )
    parts = []
    for images_name, labels_name in _MNIST.values():
        images = _read_idx(folder / images_name, 3)
        labels = _read_idx(folder / labels_name, 1)
        if len(images) != len(labels) or len(images) == 0:
            raise ValueError(
                f"{folder} holds {len(images)} images and {len(labels)} labels, expected as many "
                "of one as of the other; download the files again."
            )
        pixels = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
        parts += [torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))]
    return Dataset("mnist", *parts)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes, compressed or not."""
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and not packed.exists():
        raise FileNotFoundError(
            f"there is no file {packed.name} (or {path.name}) in {path.parent}, expected the four "
            "original MNIST files; check the folder."
        )
    try:
        opener, found = (open, path) if path.exists() else (gzip.open, packed)
        with opener(found, "rb") as stream:
            header = stream.read(4 + 4 * dimensions)
            magic, shape = header[:4], np.frombuffer(header[4:], ">u4").astype(int).tolist()
            size = math.prod(shape) if len(shape) == dimensions else -1
            body = stream.read(size + 1) if size >= 0 else b""
    except (OSError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{path.name} cannot be read ({error}), expected a whole IDX file; download it again."
        ) from error
    if magic != bytes([0, 0, 8, dimensions]) or len(body) != size:
        raise ValueError(
            f"{path.name} is not an IDX file of bytes with {dimensions} dimensions, expected one "
            "of the original MNIST files; download it again."
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _function(name: str, values: Callable[[Tensor], Tensor], dimension: int, seed: int) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    train = torch.rand(_FUNCTION_SAMPLES, dimension, generator=generator)
    noise = _FUNCTION_NOISE * torch.randn(_FUNCTION_SAMPLES, 1, generator=generator)
    ticks = torch.linspace(0, 1, 501 if dimension == 1 else 41)
    test = torch.cartesian_prod(*[ticks] * dimension).reshape(-1, dimension)
    return Dataset(name, train, values(train) + noise, test, values(test))


def _wave(u: Tensor) -> Tensor:
    """sin(4πu) e^{−2u}, a decaying oscillation; its Lipschitz constant is 4π."""
    return torch.sin(4 * torch.pi * u) * torch.exp(-2 * u)


def _saddle(u: Tensor) -> Tensor:
    """sin(2πu₁) cos(πu₂) of two coordinates."""
    return torch.sin(2 * torch.pi * u[:, :1]) * torch.cos(torch.pi * u[:, 1:])
