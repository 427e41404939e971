"""The embedded network of interval reachability as one more kind of state operator (THEORY §7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from contraction_nets.nn.operators import StateOperator


@dataclass(frozen=True, eq=False)
class Embedded(StateOperator):
    """The map of the lower and upper bounds of a state to those of A times it.

    The weight is (2, n, n): A and its Metzler majorant M, so that the map is linear in it;
    states are (batch, 2n), the lower bounds before the upper ones. With centre c and radius r of
    the box, the rows are A c − M r and A c + M r: M keeps the sign of the diagonal, which
    multiplies every bound by itself. The map has the diagonal of A twice, contracts as A does,
    and φ applies to it as it is, because it is nondecreasing.
    """

    weight: Tensor

    @cached_property
    def _right(self) -> Tensor:
        # Halved here, once, instead of in every centre and radius.
        return (0.5 * self.weight).transpose(1, 2).contiguous()

    def affine(self, x: Tensor, s: Tensor) -> Tensor:
        lower, upper = x.chunk(2, dim=-1)
        centre, radius = (lower + upper) @ self._right[0], (upper - lower) @ self._right[1]
        return torch.cat([centre - radius, centre + radius], dim=-1) + s

    @property
    def diagonal(self) -> Tensor:
        return self.weight[0].diagonal().repeat(2)

    def row_sums(self, eta: Tensor) -> Tensor:
        """Of the embedded map, whose weights are (2n,) or one number; those of A, twice."""
        off = self.without_diagonal().weight.to(torch.float64)
        same, other = (off[1] + off[0]) / 2, (off[1] - off[0]) / 2
        low, high = eta.to(torch.float64).expand(2 * off.shape[1]).chunk(2)
        sums = [
            (same @ own + other @ mirrored) / own for own, mirrored in ((low, high), (high, low))
        ]
        return self.diagonal + torch.cat(sums)

    def without_diagonal(self, gain: Tensor | None = None) -> Embedded:
        # Both bounds of a state have the diagonal of A, and so the same gain.
        weight = self.weight.clone()
        if gain is not None:
            weight *= gain[: weight.shape[1], None]
        weight.diagonal(dim1=1, dim2=2).zero_()
        return Embedded(weight)

    def transposed(self) -> Embedded:
        return Embedded(self.weight.transpose(1, 2))

    def multiplications(self, x: Tensor) -> int:
        return self.weight.numel()

    def weight_gradient(self, w: Tensor, x: Tensor) -> Tensor:
        (low, high), (lower, upper) = w.chunk(2, dim=-1), x.chunk(2, dim=-1)
        return 0.5 * torch.stack(
            [(low + high).T @ (lower + upper), (high - low).T @ (upper - lower)]
        )


def embedded_weight(A: Tensor) -> Tensor:
    """The weight of `Embedded` for a state matrix (n, n), differentiable."""
    diagonal = A.diagonal()
    return torch.stack([A, A.abs() + torch.diag(diagonal - diagonal.abs())])
