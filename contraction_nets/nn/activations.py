"""Activations φ: elementwise, nondecreasing, slope in [0, 1] (THEORY §1), with resolvents.

The resolvent of φ at a < 1 maps s to the solution of ``x = φ(a x + s)``: unique, because
``p − a φ(p)`` increases in p with a slope of at least ``min(1, 1 − a)`` (THEORY §6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contraction_nets.nn.named import Named, parse
from contraction_nets.nn.options import is_number

_MAX_NEWTON_STEPS = 400  # bisection alone needs fewer, from the widest bracket of a float64
_PLAIN_NEWTON_STEPS = 8  # before the bracket is built; enough unless |a| or |s| is large


@dataclass(frozen=True)
class Activation(Named, ABC):
    """One elementwise φ."""

    linear: ClassVar[None] = None
    homogeneous: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, y: Tensor) -> Tensor:
        """φ(y), elementwise."""

    @abstractmethod
    def slope(self, y: Tensor) -> Tensor:
        """φ′(y) in [0, 1], in the dtype of y; at a kink the slope on its left, as in torch."""

    @abstractmethod
    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        """`resolvent` at a fixed a, with everything that depends on a alone done once."""

    def take(self, rows: Tensor) -> Activation:
        """φ on some of the samples: φ itself, which is the same on all."""
        return self

    def resolvent(self, s: Tensor, a: Tensor) -> Tensor:
        """The solution x of ``x = φ(a x + s)``, elementwise.

        Parameters
        ----------
        s : (..., n) tensor of float32 or float64
        a : tensor that broadcasts against s
            Every entry below one.

        Returns
        -------
        tensor of the broadcast shape
            The residual is at the rounding level of s, x and a x in the dtype of s.

        Raises
        ------
        ValueError
            An entry of a is at least one, or NaN.
        """
        if not bool((a < 1).all()):
            raise ValueError(
                f"got a diagonal entry {float(a.max()):g}, expected entries below one; "
                "project the state matrix first."
            )
        return self.resolvent_map(a)(s)


def get_activation(spec: str | Activation) -> Activation:
    """The activation that a spec such as "relu" or "leaky_relu(0.2)" describes.

    Raises
    ------
    ValueError
        No such activation, or a parameter with which some slope leaves [0, 1].

    Examples
    --------
    >>> str(get_activation("leaky_relu(0.2)"))
    'leaky_relu(0.2)'
    """
    return parse(Activation, spec)


@dataclass(frozen=True)
class ReLU(Activation):
    """max(y, 0)."""

    name: ClassVar[str] = "relu"
    homogeneous: ClassVar[bool] = True

    def __call__(self, y: Tensor) -> Tensor:
        return torch.relu(y)

    def slope(self, y: Tensor) -> Tensor:
        # A third of the time that converting a comparison takes; its own slope is zero.
        return torch.relu(y.detach()).sign_()

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        gain = 1 / (1 - a)
        return lambda s: torch.relu(s).mul_(gain)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """y where positive, alpha·y elsewhere; alpha in [0, 1]."""

    alpha: float = 0.01
    name: ClassVar[str] = "leaky_relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _unit_interval(self.alpha, "leaky_relu"))

    def __call__(self, y: Tensor) -> Tensor:
        return functional.leaky_relu(y, self.alpha)

    def slope(self, y: Tensor) -> Tensor:
        return torch.full_like(y, self.alpha).masked_fill_(y > 0, 1.0)

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        # x, a x + s and s have one sign, so the sign of s selects the branch.
        above, below = 1 - a, 1 - self.alpha * a
        return lambda s: self(s) / torch.where(s > 0, above, below)


@dataclass(frozen=True)
class _Smooth(Activation):
    """Resolvent by Newton on ``G(p) = p − a φ(p) − s``, kept inside a bracket where needed."""

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda s: self(self._preactivation(s, a))

    def _preactivation(self, s: Tensor, a: Tensor) -> Tensor:
        s, a = torch.broadcast_tensors(s, a)
        p = s
        for _ in range(_PLAIN_NEWTON_STEPS):
            excess, derivative, done = self._newton(p, s, a)
            step = p - excess / derivative
            if bool(done.all()):
                return step  # iterations with small steps feel even what is left of the excess
            p = torch.where(done, p, step)
        *_, done = self._newton(p, s, a)
        left = (~done & torch.isfinite(s)).nonzero(as_tuple=True)
        if left[0].numel():
            p = p.index_put(left, self._bracketed(s[left], a[left]))
        return p

    def _newton(self, p: Tensor, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G, G′, and where G is at its rounding level (including that of p itself)."""
        pull, slope = a * self(p), self.slope(p)
        excess, derivative = p - pull - s, 1 - a * slope
        unit = 4 * torch.finfo(p.dtype).eps
        level = unit * (p.abs() * derivative.clamp_min(1) + pull.abs() + s.abs())
        return excess, derivative, excess.abs() <= level

    def _bracketed(self, s: Tensor, a: Tensor) -> Tensor:
        """Newton that bisects wherever a step leaves the bracket or does not halve |G|."""
        # G(s) = −a φ(s), and G′ ≥ min(1, 1 − a): the root is no further from s than this.
        reach = s + a * self(s) / (1 - a).clamp_max(1)
        low, high = torch.minimum(s, reach), torch.maximum(s, reach)
        p, previous = s, torch.full_like(s, torch.inf)
        for _ in range(_MAX_NEWTON_STEPS):
            excess, derivative, done = self._newton(p, s, a)
            low, high = torch.where(excess < 0, p, low), torch.where(excess > 0, p, high)
            middle = low / 2 + high / 2
            done |= (middle <= low) | (middle >= high)
            if bool(done.all()):
                break
            step = p - excess / derivative
            newton = (step > low) & (step < high) & (excess.abs() <= previous / 2)
            previous = excess.abs()
            p = torch.where(done, p, torch.where(newton, step, middle))
        return p


@dataclass(frozen=True)
class Tanh(_Smooth):
    """Hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def __call__(self, y: Tensor) -> Tensor:
        return torch.tanh(y)

    def slope(self, y: Tensor) -> Tensor:
        value = torch.tanh(y)
        return 1 - value * value


@dataclass(frozen=True)
class Sigmoid(_Smooth):
    """1 / (1 + exp(−y)), slope at most 1/4."""

    name: ClassVar[str] = "sigmoid"

    def __call__(self, y: Tensor) -> Tensor:
        return torch.sigmoid(y)

    def slope(self, y: Tensor) -> Tensor:
        value = torch.sigmoid(y)
        return value * (1 - value)


@dataclass(frozen=True)
class Softplus(_Smooth):
    """log(1 + exp(y))."""

    name: ClassVar[str] = "softplus"

    def __call__(self, y: Tensor) -> Tensor:
        # Torch's default threshold of 20 makes a downward jump of 2e-9: not monotone.
        return functional.softplus(y, threshold=40)

    def slope(self, y: Tensor) -> Tensor:
        return torch.sigmoid(y)


@dataclass(frozen=True)
class ELU(_Smooth):
    """y where positive, alpha (exp(y) − 1) elsewhere; alpha in [0, 1]."""

    alpha: float = 1.0
    name: ClassVar[str] = "elu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _unit_interval(self.alpha, "elu"))

    def __call__(self, y: Tensor) -> Tensor:
        return functional.elu(y, self.alpha)

    def slope(self, y: Tensor) -> Tensor:
        return torch.where(y > 0, 1.0, self.alpha * torch.exp(y.clamp_max(0)))

    def resolvent_map(self, a: Tensor) -> Callable[[Tensor], Tensor]:
        gap = 1 - a
        below = super().resolvent_map(a)
        return lambda s: torch.where(s > 0, s / gap, below(s.clamp_max(0)))


def _unit_interval(alpha: float, name: str) -> float:
    if not is_number(alpha) or not 0 <= alpha <= 1:
        raise ValueError(
            f"got {name}({alpha!r:.60}), expected a parameter in [0, 1]: "
            "no larger slope has a certificate."
        )
    return float(alpha)
