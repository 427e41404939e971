"""Implicit layer and network: x = φ(A x + B u + b), y = C x + D u + c (THEORY §1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from contraction_nets.geometry.measures import as_weights
from contraction_nets.geometry.sets import MatrixMeasureSet, RowSet, measure_set
from contraction_nets.nn.activations import Activation, get_activation
from contraction_nets.nn.constrain import project_
from contraction_nets.nn.equilibrium import equilibrium, solve_equilibrium
from contraction_nets.nn.iterations import Iteration, get_iteration
from contraction_nets.nn.operators import Dense, StateOperator
from contraction_nets.nn.options import is_number, positive, whole
from contraction_nets.nn.solves import EquilibriumResult, Monitor, solving_dtype


class Constraint(nn.Module):
    """γ and η as buffers: their device follows the module, their dtype stays float64."""

    gamma: Tensor
    eta: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = {name: getattr(self, name) for name in ("gamma", "eta")}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            moved = getattr(self, name)
            if moved.dtype != torch.float64:
                setattr(self, name, value.to(moved.device))
        return self


class StateLayer(Constraint):
    """What dense and convolutional layers share: the state matrix A, its set, the solve."""

    operator: type[StateOperator]
    A: Tensor

    def __init__(
        self,
        activation: str | Activation,
        gamma: float,
        eta: Tensor,
        iteration: str | Iteration,
        tol: float,
        backward_tol: float | None,
        max_steps: int,
    ) -> None:
        super().__init__()
        self.activation = get_activation(activation)
        self.iteration = get_iteration(iteration)
        self.iteration.check(self.operator)
        self.tol, self.max_steps = positive(tol, "tol"), whole(max_steps, "max_steps")
        self.backward_tol = self.tol if backward_tol is None else positive(backward_tol, "tol")
        self.monitor: Monitor | None = None
        if not is_number(gamma) or not -math.inf < gamma < 1:
            raise ValueError(
                f"got gamma {gamma!r:.60}, expected a number below one; only then is every A with "
                "μ∞(A) ≤ γ well-posed."
            )
        self.register_buffer("gamma", torch.full((), gamma, dtype=torch.float64))
        self.register_buffer("eta", eta)

    def drive(self, u: Tensor) -> Tensor:
        """s = B u + b of the state equation x = φ(A x + s)."""
        raise NotImplementedError

    def constraint(self) -> RowSet:
        """The set that A is kept in."""
        raise NotImplementedError

    def forward(self, u: Tensor) -> Tensor:
        """The equilibrium x for each input u."""
        return equilibrium(
            self.A,
            self.drive(u),
            self.activation,
            kind=self.operator,
            iteration=self.iteration,
            tol=self.tol,
            backward_tol=self.backward_tol,
            max_steps=self.max_steps,
            monitor=self.monitor,
        )

    def solve(
        self,
        u: Tensor,
        *,
        tol: float | None = None,
        max_steps: int | None = None,
        iteration: str | Iteration | None = None,
    ) -> EquilibriumResult:
        """The equilibrium for one batch with steps, residual and error bound, no gradient.

        Parameters
        ----------
        u : tensor
            Inputs, as for `forward`.
        tol, max_steps, iteration
            For this call; those of the layer by default.

        Returns
        -------
        EquilibriumResult
            In float32 where the layer is in half precision.
        """
        dtype = solving_dtype(self.A.dtype)
        with torch.no_grad():
            return solve_equilibrium(
                self.operator(self.A.detach().to(dtype)),  # type: ignore[call-arg]
                self.drive(u).to(dtype),
                self.activation,
                iteration=self.iteration if iteration is None else iteration,
                tol=self.tol if tol is None else positive(tol, "tol"),
                max_steps=self.max_steps if max_steps is None else max_steps,
                eta=self.eta,
            )

    def _settings(self) -> str:
        return f"activation={self.activation}, gamma={float(self.gamma):g}"


class ImplicitLayer(StateLayer):
    """The equilibrium x = φ(A x + B u + b) as a layer u ↦ x.

    Parameters
    ----------
    in_features : int
        Number of inputs p.
    hidden_features : int
        Number of states n.
    activation : str or Activation
        "relu", "leaky_relu(slope)", "tanh", "sigmoid", "softplus" or "elu(alpha)".
    gamma : float
        Bound of the constraint μ_{∞,η}(A) ≤ γ < 1, which holds at construction; keep it
        with `project_after_step` or `contracting`.
    eta : (n,) array, optional
        Positive weights of the norm, ones by default.
    tol, backward_tol : float
        Relative tolerances of the equilibrium and of its gradient (the same by default).
    max_steps : int
        Cap on iterations, forward and backward each.
    iteration : str or Iteration
        One of `contraction_nets.nn.iterations`: "diagonal_resolvent", "auto", "anderson(m)", …
    device, dtype
        Of the parameters.

    Attributes
    ----------
    A : (n, n) parameter
    B : (n, p) parameter
    b : (n,) parameter
    gamma : () buffer, eta : (n,) buffer
        In float64, whatever the dtype of the module.
    monitor : callable or None
        Called with "forward" or "backward" and the `EquilibriumResult` of every solve, outside
        of the graph where the layer is compiled.

    Raises
    ------
    ValueError
        A size below one, γ ≥ 1, weights that are not positive, an unknown activation, a dtype
        of half precision: a layer made in float32 may be cast to it, but not projected.

    Warns
    -----
    ConvergenceWarning
        In forward and backward, when a tolerance is not reached within `max_steps`.

    Examples
    --------
    >>> layer = ImplicitLayer(784, 100)
    >>> layer(torch.rand(32, 784)).shape
    torch.Size([32, 100])
    """

    operator = Dense

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str | Activation = "relu",
        gamma: float = 0.95,
        eta: ArrayLike | None = None,
        tol: float = 1e-4,
        backward_tol: float | None = None,
        max_steps: int = 1000,
        iteration: str | Iteration = "diagonal_resolvent",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        n = whole(hidden_features, "hidden_features")
        p = whole(in_features, "in_features")
        weights = torch.from_numpy(as_weights(eta, n).copy())
        super().__init__(activation, gamma, weights, iteration, tol, backward_tol, max_steps)
        self.in_features, self.hidden_features = p, n
        like = {"device": device, "dtype": dtype}
        self.A = nn.Parameter(torch.empty(n, n, **like))
        self.B = nn.Parameter(torch.empty(n, p, **like))
        self.b = nn.Parameter(torch.empty(n, **like))
        self.to(device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A well inside its set, B and b as in `torch.nn.Linear`."""
        n, p = self.B.shape
        nn.init.uniform_(self.A, -1 / n, 1 / n)
        nn.init.uniform_(self.B, -1 / math.sqrt(p), 1 / math.sqrt(p))
        nn.init.uniform_(self.b, -1 / math.sqrt(p), 1 / math.sqrt(p))
        project_(self)

    def drive(self, u: Tensor) -> Tensor:
        s = functional.linear(u, self.B, self.b)
        return s if s.ndim == 2 else s.reshape(-1, self.hidden_features)

    def constraint(self) -> MatrixMeasureSet:
        """{A : μ_{∞,η}(A) ≤ γ} for the γ and η of this layer."""
        return measure_set(self.gamma.item(), self.eta.cpu().numpy().tobytes())

    def forward(self, u: Tensor) -> Tensor:
        """The equilibrium x for each input.

        Parameters
        ----------
        u : (..., p) tensor

        Returns
        -------
        (..., n) tensor
        """
        x = super().forward(u)
        return x if u.ndim == 2 else x.reshape(*u.shape[:-1], self.hidden_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, hidden_features={self.hidden_features}, " + (
            self._settings()
        )


class ImplicitNetwork(nn.Module):
    """An implicit layer and its output: y = C x + D u + c.

    Parameters
    ----------
    in_features, hidden_features, out_features : int
        p inputs, n states, q outputs.
    feedthrough : bool
        Whether there is a D; none by default.
    device, dtype
        Of the parameters.
    **options
        Of `ImplicitLayer`.

    Attributes
    ----------
    layer : ImplicitLayer
    C : (q, n) parameter
    D : (q, p) parameter or None
    c : (q,) parameter

    Raises
    ------
    ValueError
        As `ImplicitLayer`.

    Examples
    --------
    >>> network = ImplicitNetwork(784, 100, 10)
    >>> network(torch.rand(32, 784)).shape
    torch.Size([32, 10])
    """

    D: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        feedthrough: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        like = {"device": device, "dtype": dtype}
        self.out_features = whole(out_features, "out_features")
        self.layer = ImplicitLayer(in_features, hidden_features, **like, **options)
        n, p, q = self.layer.hidden_features, self.layer.in_features, self.out_features
        self.C = nn.Parameter(torch.empty(q, n, **like))
        self.c = nn.Parameter(torch.empty(q, **like))
        self.register_parameter(
            "D", nn.Parameter(torch.empty(q, p, **like)) if feedthrough else None
        )
        for parameter in (self.C, self.c):
            nn.init.uniform_(parameter, -1 / math.sqrt(n), 1 / math.sqrt(n))
        if self.D is not None:
            nn.init.uniform_(self.D, -1 / math.sqrt(p), 1 / math.sqrt(p))

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (..., q) for inputs u (..., p)."""
        y = functional.linear(self.layer(u), self.C, self.c)
        return y if self.D is None else y + functional.linear(u, self.D)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a network of the same shape, activation and constraint."""
        return {
            "in_features": self.layer.in_features,
            "hidden_features": self.layer.hidden_features,
            "out_features": self.out_features,
            "feedthrough": self.D is not None,
            "activation": str(self.layer.activation),
            "gamma": float(self.layer.gamma),
        }

    def extra_repr(self) -> str:
        return f"out_features={self.out_features}, feedthrough={self.D is not None}"
