"""x Wᵀ + s by the fastest product that PyTorch has for a processor.

`torch.addmm` leaves half of a processor with AVX-512 unused where its BLAS does not know the
maker. The operator of oneDNN that `torch.compile` takes for linear layers does not, but costs as
much as ten small products to call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

LEAST = 2_000_000
"""Multiplications from which on oneDNN is faster."""
_LEAST_ROWS = 4

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of s, x and W."""


def least_rows(W: Tensor) -> int | None:
    """Rows of x from which on `fused` is the faster product, None where there is none.

    Parameters
    ----------
    W : (n, n) tensor
    """
    usable = W.device.type == "cpu" and W.dtype == torch.float32 and W.numel() > 0
    if not usable or not torch.backends.mkldnn.enabled or fused() is None:
        return None
    if torch.get_float32_matmul_precision() != "highest":
        return None  # addmm may then do with fewer digits
    if not W.is_contiguous() and not W.T.is_contiguous():
        return None  # it has no fast product for other strides
    return max(_LEAST_ROWS, -(-LEAST // W.numel()))


@cache
def fused() -> Product | None:
    """The product of oneDNN, without gradients; None where it is missing or is not what it was."""

    def product(s: Tensor, x: Tensor, W: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x.contiguous(), s.contiguous(), W, None, "add"
        )
        return y

    if not torch.backends.mkldnn.is_available():
        return None
    x, W = torch.arange(15.0).reshape(5, 3), torch.arange(9.0).reshape(3, 3)
    s = 1 + x.flip(0)
    try:
        found = product(s, x, W)
    except (AttributeError, RuntimeError, TypeError):  # it is no promise of PyTorch
        return None
    return product if torch.equal(found, torch.addmm(s, x, W.T)) else None
