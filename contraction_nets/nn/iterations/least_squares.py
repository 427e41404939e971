"""Small least-squares problems, one for every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from contraction_nets.nn.options import is_number

_RIDGE = 16
"""In units of rounding, against directions that are copies of one another."""


def mixing(vectors: Tensor) -> Tensor:
    """argmin_γ ‖v_m − Σ_{k<m} γ_k v_k‖₂ for every sample.

    Parameters
    ----------
    vectors : (batch, m + 1, n) tensor
        v_0, …, v_m.

    Returns
    -------
    (batch, m) tensor
        Zero for vectors that vanish.
    """
    products = vectors @ vectors.mT
    return solve_normal(products[:, :-1, :-1], products[:, :-1, -1])


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
