"""The ℓ∞ ball and the domain, in exact arithmetic."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from contraction_nets.nn.options import is_number
from contraction_nets.robustness.attacks.base import Domain


def ball(u: Tensor, epsilon: float, domain: Domain) -> tuple[Tensor, Tensor]:
    """Corners of the largest box of numbers of u's dtype in {v : |v − u| ≤ ε} and the domain.

    In exact arithmetic: u ± ε is rounded towards u, the ends of the domain into it. What is
    clamped to the corners is within ε of u, whatever was rounded on the way.

    Parameters
    ----------
    u : (batch, …) float32 or float64 tensor
    epsilon : float
        At least zero, finite.
    domain : (float, float) or None

    Returns
    -------
    lower, upper : (batch, …) tensors

    Raises
    ------
    ValueError
        Another dtype, inputs that are not finite or not in the domain, a negative ε, a domain
        that is not (low, high).
    """
    epsilon = as_radius(epsilon)
    if u.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"got inputs of {u.dtype}, expected float32 or float64; cast inputs and network."
        )
    if not bool(torch.isfinite(u).all()):
        raise ValueError("got inputs that are not finite, expected finite numbers; clean the data.")
    wide = u.double()
    lower = _inwards((wide - epsilon).to(u.dtype), u, epsilon)
    upper = _inwards((wide + epsilon).to(u.dtype), u, epsilon)
    if domain is None:
        return lower, upper
    low, high = as_domain(domain)
    if not bool(((wide >= low) & (wide <= high)).all()):
        raise ValueError(
            f"got inputs from {float(u.min()):g} to {float(u.max()):g}, expected the domain "
            f"[{low:g}, {high:g}]; scale the inputs, or pass domain=None."
        )
    return lower.clamp(min=_rounded(low, u, math.inf)), upper.clamp(
        max=_rounded(high, u, -math.inf)
    )


def as_radius(epsilon: float) -> float:
    """ε as a float; ValueError unless it is a finite number of at least zero."""
    if not is_number(epsilon) or not 0 <= epsilon < math.inf:
        raise ValueError(
            f"got epsilon {epsilon!r:.60}, expected a finite number of at least 0, in input units."
        )
    return float(epsilon)


def as_domain(domain: tuple[float, float]) -> tuple[float, float]:
    """Low and high ends; ValueError unless they are two finite numbers in this order."""
    pair = isinstance(domain, tuple | list) and len(domain) == 2 and all(map(is_number, domain))
    if not pair or not -math.inf < domain[0] < domain[1] < math.inf:
        raise ValueError(
            f"got the domain {domain!r:.60}, expected (low, high) with low < high, or None."
        )
    return float(domain[0]), float(domain[1])


def _inwards(v: Tensor, u: Tensor, epsilon: float) -> Tensor:
    """v, or its neighbour on the side of u where v is further than ε in exact arithmetic."""
    a, b = v.double(), u.double()
    difference = a - b
    # The rounding error of the difference, exactly (Knuth's two-sum).
    back = difference + b
    error = (a - back) - (b - (back - difference))
    size, beyond = difference.abs(), torch.where(difference > 0, error, -error)
    too_far = (size > epsilon) | ((size == epsilon) & (beyond > 0))
    return torch.where(too_far, torch.nextafter(v, u), v)


def _rounded(end: float, u: Tensor, inside: float) -> float:
    """An end of the domain in the dtype of u, rounded towards the inside."""
    near = torch.tensor(end, dtype=torch.float64).to(u.dtype)
    outside = near.double() < end if inside > 0 else near.double() > end
    return float(torch.nextafter(near, near.new_tensor(inside)) if outside else near)
