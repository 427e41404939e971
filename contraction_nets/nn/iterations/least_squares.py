"""Small least-squares problems, one for every sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contraction_nets.nn.options import is_number

_RIDGE = 16
"""In units of rounding, against directions that are copies of one another."""


def mixing(directions: Sequence[Tensor], target: Tensor) -> Tensor:
    """argmin_γ ‖target − Σ_k γ_k directions_k‖₂ for every sample.

    Parameters
    ----------
    directions : m tensors (batch, n)
    target : (batch, n) tensor

    Returns
    -------
    (batch, m) tensor
        Zero for directions that vanish.
    """
    m = len(directions)
    gram = target.new_empty(len(target), m, m)
    right = torch.stack([(d * target).sum(dim=1) for d in directions], dim=1)
    for i in range(m):
        for j in range(i + 1):
            gram[:, i, j] = gram[:, j, i] = (directions[i] * directions[j]).sum(dim=1)
    return solve_normal(gram, right)


def solve_normal(gram: Tensor, right: Tensor) -> Tensor:
    """γ of the normal equations (batch, m, m) γ = (batch, m), scaled and regularised."""
    size = gram.diagonal(dim1=1, dim2=2).sqrt()
    filled = size > 0
    scale = torch.where(filled, size, 1).reciprocal()
    ridge = torch.where(filled, _RIDGE * torch.finfo(gram.dtype).eps, 1.0)
    if gram.shape[1] == 1:
        return right * scale * scale / (1 + ridge)
    normal = gram * scale[:, :, None] * scale[:, None, :]
    normal.diagonal(dim1=1, dim2=2).add_(ridge)
    gamma, _ = torch.linalg.solve_ex(normal, (right * scale)[:, :, None])
    return gamma[:, :, 0] * scale


def whole_memory(memory: float, name: str) -> int:
    """The memory as an int, where it is a whole number from 1 to 100."""
    if not is_number(memory) or not 1 <= memory <= 100 or int(memory) != memory:
        raise ValueError(f"got {name}({memory!r:.60}), expected a whole number from 1 to 100.")
    return int(memory)
