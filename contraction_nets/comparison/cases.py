"""Equilibrium problems from easy to hard, each drawn from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.solving.projection import project
from contraction_nets.training.data import load_data
from contraction_nets.training.loop import fit

SIZES = (100, 500, 2000)
BATCHES = (1, 100, 1000)

_EPOCHS = 5


@dataclass(frozen=True)
class Case:
    """One equilibrium problem x = φ(A x + s) of a family, made by `build`.

    Attributes
    ----------
    family : str
        One of `FAMILIES`.
    states, batch : int
    seed : int
    """

    family: str
    states: int
    batch: int
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.family}, n = {self.states}, batch {self.batch}"

    def build(self, dtype: torch.dtype = torch.float32) -> Problem:
        """The matrix and the drives.

        Raises
        ------
        ValueError
            No such family.
        """
        if self.family not in FAMILIES:
            raise ValueError(f"got family {self.family!r}, expected one of {', '.join(FAMILIES)}.")
        rng = np.random.default_rng([self.seed, self.states])
        if self.family == "trained":
            A, drive = _trained(self.states, self.seed)
            return Problem(A.to(dtype), drive(rng, self.batch).to(dtype), case=self)
        matrix = FAMILIES[self.family](rng, self.states)
        s = rng.normal(size=(self.batch, self.states))
        return Problem(torch.from_numpy(matrix).to(dtype), torch.from_numpy(s).to(dtype), case=self)


@dataclass(frozen=True, eq=False)
class Problem:
    """What an iteration is given.

    Attributes
    ----------
    A : (n, n) tensor
    s : (batch, n) tensor
    case : Case
    activation : str
    """

    A: Tensor = field(repr=False)
    s: Tensor = field(repr=False)
    case: Case
    activation: str = "relu"


def cases(
    families: Iterable[str] | None = None,
    sizes: Iterable[int] = SIZES,
    batches: Iterable[int] = BATCHES,
    seed: int = 0,
) -> Iterator[Case]:
    """All combinations; trained networks only up to 500 states."""
    for family, n, batch in itertools.product(families or FAMILIES, sizes, batches):
        if family != "trained" or n <= 500:
            yield Case(family, n, batch, seed)


def _projected(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return project(rng.normal(size=(n, n)), 0.95)


def _heavy(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Off the diagonal as in a projected matrix, on it down to −100."""
    A = _projected(rng, n)
    np.fill_diagonal(A, np.minimum(A.diagonal(), -rng.uniform(0, 100, n)))
    return A


def _positive(rng: np.random.Generator, n: int, measure: float) -> NDArray[np.float64]:
    """Every entry positive, every row sum the measure: the Perron root is that number."""
    A = rng.uniform(size=(n, n))
    return measure * A / A.sum(axis=1, keepdims=True)


def _mixed(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Random signs, absolute row sums 0.999, a diagonal of zeros."""
    A = rng.normal(size=(n, n))
    np.fill_diagonal(A, 0.0)
    return 0.999 * A / np.abs(A).sum(axis=1, keepdims=True)


def _cyclic(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """One entry ±0.999 a row, in one cycle: eigenvalues on a circle, where Krylov methods fail."""
    order, A = rng.permutation(n), np.zeros((n, n))
    A[order, np.roll(order, 1)] = 0.999 * np.where(rng.uniform(size=n) < 1 / n, -1, 1)
    return A


@lru_cache
def _trained(n: int, seed: int) -> tuple[Tensor, Callable[[np.random.Generator, int], Tensor]]:
    """The state matrix of a network trained on the digits, and drives from its test images."""
    data = load_data("digits")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ImplicitNetwork(data.in_features, n, data.out_features)
    fit(network, data, epochs=_EPOCHS, audit=False, seed=seed)
    layer = network.layer

    def drive(rng: np.random.Generator, batch: int) -> Tensor:
        rows = rng.integers(len(data.test_inputs), size=batch)
        with torch.no_grad():
            return layer.drive(data.test_inputs[torch.from_numpy(rows)])

    return layer.A.detach(), drive


FAMILIES: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "projected": _projected,
    "trained": _projected,
    "diagonally heavy": _heavy,
    "positive 0.99": lambda rng, n: _positive(rng, n, 0.99),
    "positive 0.999": lambda rng, n: _positive(rng, n, 0.999),
    "mixed 0.999": _mixed,
    "cyclic 0.999": _cyclic,
}
"""Families of state matrices; "trained" needs scikit-learn and is made by training."""
