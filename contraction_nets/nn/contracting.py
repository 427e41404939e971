"""The unconstrained alternative: A as a function of a free matrix T, always in its set."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parametrize

from contraction_nets.nn.layers import Constraint, ImplicitLayer

_SMALLEST_GAP = 1e-4


class Contracting(Constraint):
    """T ↦ A with μ_{∞,η}(A) ≤ γ, onto the matrices that keep every row below γ.

    ``A_ij = (η_i/η_j) T_ij`` off the diagonal and
    ``A_ii = γ − softplus(T_ii) − Σ_{j≠i} |T_ij|``: the parametrization of [NEMON], Theorem 1,
    with the scaling in the direction of THEORY §2. In its printed form A_ii = γ + T_ii − |T|1
    the diagonal of T has no gradient wherever it is positive; softplus has one everywhere.

    Parameters
    ----------
    gamma : float
    eta : (n,) tensor of float64
        Positive weights.
    """

    def __init__(self, gamma: float, eta: Tensor) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.full((), gamma, dtype=torch.float64))
        self.register_buffer("eta", eta.clone())

    def forward(self, T: Tensor) -> Tensor:
        """A, whose row sums stay below γ in exact arithmetic, in the dtype of T."""
        off = T - torch.diag(T.diagonal())
        A = off * (self.eta[:, None] / self.eta).to(T.dtype)
        # Of the stored entries, in float64: rounding them must not break the inequality.
        total = (A.abs().to(torch.float64) * self.eta).sum(dim=1) / self.eta
        gap = functional.softplus(T.diagonal()).to(torch.float64)
        diagonal = self.gamma.to(torch.float64) - gap - total
        unit = torch.finfo(T.dtype).eps + (T.shape[0] + 8) * torch.finfo(torch.float64).eps
        lost = unit * (diagonal.detach().abs() + total.detach() + self.gamma.abs())
        return A + torch.diag((diagonal - lost).to(T.dtype))

    def right_inverse(self, A: Tensor) -> Tensor:
        """The T of an A; rows at or above γ are moved just below by their diagonal entry."""
        T = A * (self.eta / self.eta[:, None]).to(A.dtype)
        off = T - torch.diag(T.diagonal())
        gap = self.gamma.to(A.dtype) - A.diagonal() - off.abs().sum(dim=1)
        gap = gap.clamp_min(_SMALLEST_GAP)
        return off + torch.diag(gap + torch.log(-torch.expm1(-gap)))


def contracting(layer: ImplicitLayer, gamma: float | None = None) -> ImplicitLayer:
    """Parametrize the A of a layer so that μ_{∞,η}(A) ≤ γ for any value of its parameter.

    An alternative to projection: any optimizer may be used as it is, and
    `project_after_step` leaves the layer alone. ``torch.nn.utils.parametrize`` undoes it.

    Parameters
    ----------
    layer : ImplicitLayer
        Changed in place; starts from its present A, with rows that are less than 1e-4 below γ
        moved down by their diagonal entry.
    gamma : float, optional
        New bound, below one; that of the layer by default.

    Returns
    -------
    ImplicitLayer
        The same layer.

    Raises
    ------
    ValueError
        Not an `ImplicitLayer`, already parametrized, γ not below one.

    Examples
    --------
    >>> layer = contracting(ImplicitLayer(2, 8), gamma=0.9)
    >>> layer.constraint().contains(layer.A.detach().numpy())
    True
    """
    if not isinstance(layer, ImplicitLayer):
        raise ValueError(
            f"got a {type(layer).__name__}, expected an ImplicitLayer; "
            "pass network.layer, and project convolutions."
        )
    if parametrize.is_parametrized(layer, "A"):
        raise ValueError(
            "the A of this layer is parametrized already, expected a plain parameter; call "
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'A') first."
        )
    bound = float(layer.gamma) if gamma is None else float(gamma)
    if not bound < 1 or math.isinf(bound):
        raise ValueError(f"got gamma {bound}, expected a number below one.")
    layer.gamma.fill_(bound)
    parametrize.register_parametrization(layer, "A", Contracting(bound, layer.eta))
    return layer
