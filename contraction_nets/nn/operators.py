"""The linear map x ↦ A x of a state, as one object per kind of layer.

States are batches: the first axis is the sample. A new kind of layer is one subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from contraction_nets.nn.products import fused, least_rows

KINDS: dict[str, type[StateOperator]] = {}
"""Every kind by its key."""


class StateOperator(ABC):
    """A square linear map on states, given by one weight tensor."""

    weight: Tensor

    def __init_subclass__(cls) -> None:
        KINDS[cls.key()] = cls

    @classmethod
    def key(cls) -> str:
        """What `KINDS` knows this kind by."""
        return f"{cls.__module__}.{cls.__qualname__}"

    @abstractmethod
    def affine(self, x: Tensor, s: Tensor) -> Tensor:
        """A x + s for every sample."""

    def repeated(self, batch: int) -> StateOperator:
        """The same map, for many products without gradients of so many samples."""
        return self

    @property
    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal of A, broadcastable against a state."""

    @abstractmethod
    def row_sums(self, eta: Tensor) -> Tensor:
        """A_ii + Σ_{j≠i} (η_j/η_i) |A_ij| for every row, in float64; the largest is μ_{∞,η}(A)."""

    @abstractmethod
    def without_diagonal(self, gain: Tensor | None = None) -> StateOperator:
        """The map of A minus its diagonal, with every row times its gain (of a state) if any."""

    @abstractmethod
    def transposed(self) -> StateOperator:
        """The map of Aᵀ."""

    @property
    def entries(self) -> int:
        """Numbers that the weight holds."""
        return self.weight.numel()

    @abstractmethod
    def multiplications(self, x: Tensor) -> int:
        """Multiplications in A x for one of the samples of x."""

    @abstractmethod
    def weight_gradient(self, w: Tensor, x: Tensor) -> Tensor:
        """Gradient of ⟨w, A x⟩, summed over the samples, with respect to the weight."""


@dataclass(frozen=True, eq=False)
class Dense(StateOperator):
    """A as an (n, n) matrix; states are (batch, n)."""

    weight: Tensor

    @cached_property
    def _right(self) -> Tensor:
        # A copy in the other order would take longer than it saves in a hundred products.
        return self.weight.T

    def affine(self, x: Tensor, s: Tensor) -> Tensor:
        return torch.addmm(s, x, self._right)

    def repeated(self, batch: int) -> Dense:
        rows = least_rows(self.weight)
        return self if rows is None or batch < rows else Fused(self.weight, rows)

    @property
    def diagonal(self) -> Tensor:
        return self.weight.diagonal()

    def row_sums(self, eta: Tensor) -> Tensor:
        majorant = self.without_diagonal().weight.to(torch.float64).abs()
        eta = eta.to(torch.float64)
        return self.diagonal + majorant @ eta.expand(len(majorant)) / eta

    def without_diagonal(self, gain: Tensor | None = None) -> Dense:
        weight = self.weight.clone() if gain is None else self.weight * gain[:, None]
        weight.diagonal().zero_()
        return Dense(weight)

    def transposed(self) -> Dense:
        return Dense(self.weight.T)

    def multiplications(self, x: Tensor) -> int:
        return self.weight.numel()

    def weight_gradient(self, w: Tensor, x: Tensor) -> Tensor:
        return w.T @ x


@dataclass(frozen=True, eq=False)
class Fused(Dense):
    """`Dense` for many products without gradients.

    Attributes
    ----------
    rows : int
        Samples from which on the product of oneDNN is faster.
    """

    rows: int = 0

    def affine(self, x: Tensor, s: Tensor) -> Tensor:
        product = fused() if len(x) >= self.rows else None
        return super().affine(x, s) if product is None else product(s, x, self.weight)


@dataclass(frozen=True, eq=False)
class Sparse(StateOperator):
    """A as an (n, n) sparse tensor of coordinates, coalesced; states are (batch, n)."""

    weight: Tensor

    @property
    def _on_diagonal(self) -> Tensor:
        rows, columns = self.weight.indices()
        return rows == columns

    def affine(self, x: Tensor, s: Tensor) -> Tensor:
        return torch.sparse.mm(self.weight, x.T).T + s

    @property
    def diagonal(self) -> Tensor:
        return self._summed(torch.where(self._on_diagonal, self.weight.values(), 0.0))

    def row_sums(self, eta: Tensor) -> Tensor:
        values = self.weight.values().to(torch.float64)
        majorant = torch.where(self._on_diagonal, values, values.abs())
        weights = eta.to(torch.float64).expand(self.weight.shape[0])
        return self._summed(majorant * weights[self.weight.indices()[1]]) / weights

    def without_diagonal(self, gain: Tensor | None = None) -> Sparse:
        values = torch.where(self._on_diagonal, 0.0, self.weight.values())
        return self._with(values if gain is None else values * gain[self.weight.indices()[0]])

    def transposed(self) -> Sparse:
        return Sparse(self.weight.t().coalesce())

    @property
    def entries(self) -> int:
        return self.weight.values().numel()

    def multiplications(self, x: Tensor) -> int:
        return self.entries

    def weight_gradient(self, w: Tensor, x: Tensor) -> Tensor:
        rows, columns = self.weight.indices()
        return self._with((w[:, rows] * x[:, columns]).sum(dim=0)).weight

    def _summed(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.weight.shape[0]).index_add(0, self.weight.indices()[0], values)

    def _with(self, values: Tensor) -> Sparse:
        places, shape = self.weight.indices(), self.weight.shape
        return Sparse(
            torch.sparse_coo_tensor(places, values, shape, is_coalesced=True, check_invariants=True)
        )


@dataclass(frozen=True, eq=False)
class Convolution(StateOperator):
    """A as a zero-padded, stride-1 convolution (THEORY §9); states are (batch, c, h, w).

    The weight is a kernel (c, c, k, k) with odd k, whose centre taps are the diagonal.
    """

    weight: Tensor

    @property
    def _padding(self) -> tuple[int, int]:
        return self.weight.shape[2] // 2, self.weight.shape[3] // 2

    @property
    def _centre(self) -> tuple[Any, Any, int, int]:
        channels = torch.arange(self.weight.shape[0], device=self.weight.device)
        return channels, channels, *self._padding

    def affine(self, x: Tensor, s: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, padding=self._padding) + s

    @property
    def diagonal(self) -> Tensor:
        return self.weight[self._centre][:, None, None]

    def row_sums(self, eta: Tensor) -> Tensor:
        """One sum per channel, that of an interior pixel; eta must be one number."""
        rest = self.without_diagonal().weight.to(torch.float64).abs().sum(dim=(1, 2, 3))
        return self.diagonal.flatten() + rest

    def without_diagonal(self, gain: Tensor | None = None) -> Convolution:
        weight = self.weight.clone() if gain is None else self.weight * gain[..., None]
        weight[self._centre] = 0.0
        return Convolution(weight)

    def transposed(self) -> Convolution:
        return Convolution(self.weight.transpose(0, 1).flip(2, 3))

    def multiplications(self, x: Tensor) -> int:
        return self.weight.numel() * x.shape[2] * x.shape[3]

    def weight_gradient(self, w: Tensor, x: Tensor) -> Tensor:
        return conv2d_weight(x, list(self.weight.shape), w, padding=self._padding)
