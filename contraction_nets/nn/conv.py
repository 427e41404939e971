"""Implicit convolutional layer: A and B are convolutions (THEORY §9)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from contraction_nets.geometry.sets import ConvolutionSet
from contraction_nets.nn.activations import Activation
from contraction_nets.nn.constrain import project_
from contraction_nets.nn.iterations import Iteration
from contraction_nets.nn.layers import StateLayer
from contraction_nets.nn.operators import Convolution
from contraction_nets.nn.options import whole


class ImplicitConv2d(StateLayer):
    """The equilibrium x = φ(A ∗ x + B ∗ u + b) of zero-padded convolutions with stride 1.

    The constraint is on the kernel: every row sum of the convolution, as a matrix on images
    of any size, is at most that of an interior pixel.

    Parameters
    ----------
    in_channels, hidden_channels : int
        Of the input u and the state x, images of the same height and width.
    kernel_size : int
        Odd.
    activation, gamma, tol, backward_tol, max_steps, iteration, device, dtype
        As in `ImplicitLayer`.

    Attributes
    ----------
    A : (c, c, k, k) parameter
    B : (c, in_channels, k, k) parameter
    b : (c,) parameter
    gamma : () buffer, eta : () buffer
        In float64; η is one, all pixels and channels weigh the same.

    Raises
    ------
    ValueError
        A size below one, an even kernel_size, γ ≥ 1, an unknown activation.

    Warns
    -----
    ConvergenceWarning
        In forward and backward, when a tolerance is not reached within `max_steps`.
    """

    operator = Convolution

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int = 3,
        *,
        activation: str | Activation = "relu",
        gamma: float = 0.95,
        tol: float = 1e-4,
        backward_tol: float | None = None,
        max_steps: int = 1000,
        iteration: str | Iteration = "diagonal_resolvent",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            activation,
            gamma,
            torch.ones((), dtype=torch.float64),
            iteration,
            tol,
            backward_tol,
            max_steps,
        )
        self.in_channels = whole(in_channels, "in_channels")
        self.hidden_channels = whole(hidden_channels, "hidden_channels")
        self.kernel_size = whole(kernel_size, "kernel_size")
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"got kernel_size {kernel_size}, expected an odd number: the state keeps its size."
            )
        c, k, like = self.hidden_channels, self.kernel_size, {"device": device, "dtype": dtype}
        self.A = nn.Parameter(torch.empty(c, c, k, k, **like))
        self.B = nn.Parameter(torch.empty(c, self.in_channels, k, k, **like))
        self.b = nn.Parameter(torch.empty(c, **like))
        self.to(device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A well inside its set, B and b as in `torch.nn.Conv2d`."""
        inside, fan = 1 / self.A[0].numel(), 1 / math.sqrt(self.B[0].numel())
        nn.init.uniform_(self.A, -inside, inside)
        nn.init.uniform_(self.B, -fan, fan)
        nn.init.uniform_(self.b, -fan, fan)
        project_(self)

    def drive(self, u: Tensor) -> Tensor:
        return functional.conv2d(u, self.B, self.b, padding=self.kernel_size // 2)

    def constraint(self) -> ConvolutionSet:
        """The kernels with μ∞ ≤ γ on images of any size."""
        return ConvolutionSet(float(self.gamma))

    def forward(self, u: Tensor) -> Tensor:
        """The equilibrium x (batch, c, h, w) for inputs u (batch, in_channels, h, w)."""
        return super().forward(u)

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}"
        return f"{sizes}, {self._settings()}"
