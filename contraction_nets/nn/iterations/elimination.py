"""Linear equations x = d ∘ (A x + s) of a batch, solved by one factorization where all share d."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 16
"""Samples looked at first."""


def eliminated(A: Tensor, factor: Tensor, s: Tensor) -> Tensor:
    """x = factor ∘ (A x + s) for every sample; not finite where there is none."""
    places = factor.nonzero()[:, 0]
    if len(places) == len(factor):
        return solve_shared(A, factor, factor * s)
    block, factor = A.index_select(0, places).index_select(1, places), factor[places]
    solved = solve_shared(block, factor, factor * s.index_select(1, places))
    return torch.zeros_like(s).index_copy_(1, places, solved)


def solve_shared(A: Tensor, slope: Tensor, right: Tensor) -> Tensor:
    """x with (I − D A) x = right for every sample, D = diag(slope); not finite where there is none.

    Parameters
    ----------
    A : (n, n) tensor
    slope : (n,) tensor
    right : (batch, n) tensor
    """
    block = A * -slope[:, None]
    block.diagonal().add_(1)
    solved, _ = torch.linalg.solve_ex(block, right.T)
    return solved.T


def sharing(slope: Tensor) -> tuple[int, bool]:
    """States with a slope, on average over the first few samples, and whether all share theirs."""
    if len(slope) == 1:
        return int(torch.count_nonzero(slope)), True
    active = int(torch.count_nonzero(slope[:FEW])) // min(FEW, len(slope))
    return active, torch.equal(slope[0], slope[-1]) and bool((slope == slope[0]).all())
