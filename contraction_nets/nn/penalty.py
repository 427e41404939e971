"""Certified gains of a network as differentiable functions of its weights, for losses."""

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
    A = _network(module).layer.A
    with torch.autocast(A.device.type, enabled=False):
        z, C, D = _solved(module)
        return (C.abs() @ z + D.abs().sum(dim=1)).max().to(A.dtype)


def pairwise_gains(module: ImplicitNetwork) -> Tensor:
    """How fast outputs can move apart: |Δ(y_i − y_j)| ≤ G_ij max|Δu|, differentiable.

    G_ij = |C_i − C_j|(I − M)⁻¹|B|1 + |D_i − D_j|1 (THEORY §4), by one linear solve.

    Parameters
    ----------
    module : ImplicitNetwork

    Returns
    -------
    (q, q) tensor
        In output units per input unit, in the dtype of the network, with a diagonal of zero;
        without the proof that ``lipschitz_certificate(weights).pairwise_gains()`` has.

    Raises
    ------
    ValueError, NotWellPosedError
        As `lipschitz_penalty`.
    """
    A = _network(module).layer.A
    with torch.autocast(A.device.type, enabled=False):
        z, C, D = _solved(module)
        gains = (C[:, None] - C).abs() @ z + (D[:, None] - D).abs().sum(dim=2)
        return gains.to(A.dtype)


def _network(module: ImplicitNetwork) -> ImplicitNetwork:
    if not isinstance(module, ImplicitNetwork):
        raise ValueError(
            f"got a {type(module).__name__}, expected an ImplicitNetwork; pass the whole network."
        )
    return module


def _solved(module: ImplicitNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """(I − M)⁻¹|B|1, and C and D (without columns where there is none), for computing in."""
    dtype = solving_dtype(module.layer.A.dtype)
    A, B, C = (W.to(dtype) for W in (module.layer.A, module.layer.B, module.C))
    D = C[:, :0] if module.D is None else module.D.to(dtype)
    majorant = A.abs() + torch.diag(A.diagonal() - A.diagonal().abs())
    system = torch.eye(len(A), device=A.device, dtype=dtype) - majorant
    z = torch.linalg.solve(system, B.abs().sum(dim=1))
    if not bool((z >= 0).all()):
        raise _not_well_posed(A.detach())
    return z, C, D


def _not_well_posed(A: Tensor) -> NotWellPosedError:
    measure = float(Dense(A).row_sums(A.new_ones(len(A), dtype=torch.float64)).max())
    return NotWellPosedError(
        f"the network is not well-posed: μ∞(A) = {measure:.6g}, expected below 1; "
        "keep it there with project_after_step or contracting.",
        measure=measure,
        abscissa=float("nan"),
    )
