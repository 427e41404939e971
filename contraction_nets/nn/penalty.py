"""The certified Lipschitz bound as a differentiable penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from contraction_nets.errors import NotWellPosedError
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.operators import Dense
from contraction_nets.nn.solves import solving_dtype


def lipschitz_penalty(module: ImplicitNetwork) -> Tensor:
    """The ℓ∞ Lipschitz bound ‖|C|(I − M)⁻¹|B| + |D|‖∞ of a network, differentiable.

    The optimum of the linear program of THEORY §4 by its one linear solve; the gradient is
    one more solve, with the transpose. Add ``weight * lipschitz_penalty(network)`` to a loss.

    Parameters
    ----------
    module : ImplicitNetwork

    Returns
    -------
    scalar tensor
        In output units per input unit (pixels in [0, 1], say), in the dtype of the network;
        without the proof that `lipschitz_certificate` gives.

    Raises
    ------
    ValueError
        Not an `ImplicitNetwork`.
    NotWellPosedError
        (I − M)⁻¹ is not nonnegative: no weights give μ_{∞,η}(A) < 1.
    """
    if not isinstance(module, ImplicitNetwork):
        raise ValueError(
            f"got a {type(module).__name__}, expected an ImplicitNetwork; pass the whole network."
        )
    A, dtype = module.layer.A, solving_dtype(module.layer.A.dtype)
    with torch.autocast(A.device.type, enabled=False):
        D = None if module.D is None else module.D.to(dtype)
        return _bound(A.to(dtype), module.layer.B.to(dtype), module.C.to(dtype), D).to(A.dtype)


def _bound(A: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> Tensor:
    majorant = A.abs() + torch.diag(A.diagonal() - A.diagonal().abs())
    system = torch.eye(len(A), device=A.device, dtype=A.dtype) - majorant
    z = torch.linalg.solve(system, B.abs().sum(dim=1))
    if not bool((z >= 0).all()):
        raise _not_well_posed(A.detach())
    gains = C.abs() @ z
    if D is not None:
        gains = gains + D.abs().sum(dim=1)
    return gains.max()


def _not_well_posed(A: Tensor) -> NotWellPosedError:
    measure = float(Dense(A).row_sums(A.new_ones(len(A), dtype=torch.float64)).max())
    return NotWellPosedError(
        f"the network is not well-posed: μ∞(A) = {measure:.6g}, expected below 1; "
        "keep it there with project_after_step or contracting.",
        measure=measure,
        abscissa=float("nan"),
    )
