"""Training under a hard Lipschitz budget: a proved bound of at most L after every step (THEORY §5).

For a fixed witness z > 0 the weights with ``(I − M(A)) z ≥ |B|1`` and ``|C|z + |D|1 ≤ L`` are a
product of row polytopes, onto which gradient steps are projected as onto {μ∞(A) ≤ γ}; z itself
proves the bound then. It is renewed now and then, so that it follows the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from contraction_nets.certificates.exact import prove_bound
from contraction_nets.geometry.projection import project_violating
from contraction_nets.geometry.rows import Rows
from contraction_nets.geometry.sets import LipschitzOutputSet, LipschitzStateSet, RowSet
from contraction_nets.nn.constrain import hook_steps, refuse_half
from contraction_nets.nn.fresh_witness import fresh_witness
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.options import is_number, whole
from contraction_nets.solving.projection import CLOSED_FORM, project_onto
from contraction_nets.solving.registry import get_backend

Array = NDArray[np.float64]

_SLACK = 2.0**-10  # of z in every state row: μ_{∞,z}(A) ≤ 1 − slack
_MARGIN = 2.0**-20  # of L: more than `lipschitz_certificate` may round its bound up by
_DEEPEST = 128.0  # no A_ii is below minus that, or rounding could eat the slack of its row
_SMALLEST, _LARGEST = 1e-12, 1e12  # of budgets


class LipschitzBudget:
    """Keeps the certified ℓ∞ Lipschitz bound of a network at or below L, whatever the steps.

    The rows of [A, B] are projected onto ``M(A) z + |B|1 ≤ (1 − 2⁻¹⁰) z`` with A_ii ≥ −128, and
    those of [C, D] onto ``|C|z + |D|1 ≤ (1 − 2⁻²⁰) L``, exactly and as stored. So the witness z
    proves well-posedness and the bound L, and the slack is more than `lipschitz_certificate` may
    round up: its bound, the optimum over all witnesses, is at most L as well.

    The budget takes the place of {μ_{∞,η}(A) ≤ γ}: γ and η of the layer become 1 − 2⁻¹⁰ and z up
    to a power of two, for which the rows above imply it. μ∞(A), with η = 1, may exceed one.

    Parameters
    ----------
    module : ImplicitNetwork
        Projected at once; A, B, C and D in float32 or float64.
    bound : float
        L, in output units per input unit (pixels in [0, 1], say), from 1e-12 to 1e12.
    refresh : int
        The witness is renewed after every so many projections; see `refresh_`.
    solver : str
        Any of ``available_solvers("projection")``.
    **options
        Options of the backend, checked by name.

    Attributes
    ----------
    module : ImplicitNetwork
    bound : float
    witness : (n,) array
        z, in state units per input unit.
    state_set : LipschitzStateSet
        The inequalities of z on [A, B].

    Raises
    ------
    ValueError
        Not an `ImplicitNetwork`, one with a parametrized A, in half precision or with NaN or Inf,
        a bound or `refresh` out of range, an unknown option.
    UnknownSolverError, SolverError
        No such backend, or it found no optimum.

    Examples
    --------
    >>> network = ImplicitNetwork(2, 8, 1)
    >>> budget = LipschitzBudget(network, 3.0)
    >>> handle = budget.after_step(torch.optim.Adam(network.parameters()))
    >>> budget.verify()
    True
    """

    def __init__(
        self,
        module: ImplicitNetwork,
        bound: float,
        *,
        refresh: int = 100,
        solver: str = CLOSED_FORM,
        **options: Any,
    ) -> None:
        if not isinstance(module, ImplicitNetwork) or parametrize.is_parametrized(module.layer):
            raise ValueError(
                f"got a {type(module).__name__}, expected an ImplicitNetwork without "
                "parametrization; pass the whole network, as it was made."
            )
        self.bound = as_bound(bound)
        get_backend(solver, "projection", **options)
        self.module, self.refresh = module, whole(refresh, "refresh")
        self._solver, self._options = solver, options
        self._projections = 0
        refuse_half(self._parameters())
        weights = [self.states(), self._outputs()]
        for tensor in weights:
            if not bool(tensor.isfinite().all()):
                raise ValueError("the network contains NaN or Inf, expected finite weights.")
        self._adopt(fresh_witness(*map(_numpy, weights), _SLACK, self._limit))
        self._project()

    def project_(self) -> int:
        """Project the weights in place, and renew the witness where it is time to.

        Returns
        -------
        int
            Number of rows of [A, B] and [C, D] that changed; all others keep every bit.

        Raises
        ------
        ValueError
            Weights that are NaN or Inf or in half precision; nothing has been written then.
        SolverError
            The backend found no optimum; nothing has been written then.
        """
        changed = self._project()
        self._projections += 1
        if self._projections % self.refresh == 0:
            self.refresh_()
        return changed

    def after_step(self, optimizer: Optimizer) -> RemovableHandle:
        """Call `project_` after every optimizer step, by a hook on the optimizer.

        As `project_after_step`, also where L-BFGS evaluates a closure at several points.

        Returns
        -------
        torch.utils.hooks.RemovableHandle
            ``handle.remove()`` ends it.

        Raises
        ------
        ValueError
            The optimizer updates neither of A, B, C and D.
        """
        ours = {id(p) for p in self._parameters()}
        if not any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
            raise ValueError(
                "the optimizer updates no weight of the budget, expected those of its network; "
                "make the optimizer from module.parameters()."
            )
        return hook_steps(optimizer, after=self.project_, before_closure=self._project)

    def refresh_(self) -> bool:
        """Renew the witness, z ← √(L / bound) · (I − M)⁻¹(|B|1 + δ), where that is feasible.

        The weights stay as they are. What z left unused, as rows far from their limit, becomes
        room: one half of it for the states, one for the outputs.

        Returns
        -------
        bool
            Whether there is a new one. It is not, for instance, where the weights have no room.
        """
        states, outputs = self.states(), self._outputs()
        z = fresh_witness(_numpy(states), _numpy(outputs), _SLACK, self._limit)
        new, out = LipschitzStateSet(z, _SLACK), LipschitzOutputSet(z, self._limit)
        feasible = new.contains(_numpy(states)) and out.contains(_numpy(outputs))
        if feasible:
            self._adopt(z)
        return feasible

    def verify(self) -> bool:
        """Whether the witness proves the bound for the stored weights, in integer arithmetic."""
        layer, D = self.module.layer, self.module.D
        A, B, C = (_numpy(p) for p in (layer.A, layer.B, self.module.C))
        return prove_bound(A, B, C, None if D is None else _numpy(D), self.witness, self.bound)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on, bit for bit, besides the state of the module."""
        return {
            "bound": self.bound,
            "witness": torch.from_numpy(self.witness.copy()),
            "projections": self._projections,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, after the weights of the module.

        Raises
        ------
        ValueError
            The state is damaged, of another bound or network, or does not prove the bound for the
            present weights; nothing has changed then.
        """
        problem = self._problem(state)
        if problem is not None:
            raise ValueError(
                f"the state of the budget {problem}, expected what state_dict() returned for a "
                "network with these weights; load the weights first, or make a new budget."
            )
        self._adopt(_numpy(state["witness"]).copy())
        self._projections = state["projections"]

    def _problem(self, state: dict[str, Any]) -> str | None:
        """What is wrong with a state, if anything."""
        if not isinstance(state, dict):
            return f"is a {type(state).__name__}"
        if state.keys() != self.state_dict().keys():
            return f"has the fields {', '.join(sorted(map(str, state)))!r:.60}"
        z, count = state["witness"], state["projections"]
        if not is_number(state["bound"]) or state["bound"] != self.bound:
            return f"is of the bound {state['bound']!r:.60}, not {self.bound:g}"
        if type(count) is not int or count < 0:
            return f"has counted {count!r:.60} projections"
        vector = isinstance(z, Tensor) and z.dtype == torch.float64 and z.layout == torch.strided
        if not vector or z.is_meta or z.shape != self.witness.shape:
            return f"has no witness of {len(self.witness)} numbers in float64"
        if not bool((z.isfinite() & (z > 0)).all()):
            return "has a witness that is not positive"
        sets = _sets(_numpy(z), self._limit)
        try:
            proved = all(
                rows.contains(_numpy(matrix))
                for rows, matrix in zip(sets, (self.states(), self._outputs()), strict=True)
            )
        except ValueError:  # weights that are not finite, a witness beyond all range
            proved = False
        return None if proved else "does not prove the bound for the weights of the network"

    @property
    def _limit(self) -> float:
        return self.bound * (1.0 - _MARGIN)

    def _parameters(self) -> list[Tensor]:
        layer, module = self.module.layer, self.module
        return [p for p in (layer.A, layer.B, module.C, module.D) if p is not None]

    def states(self) -> Tensor:
        """A copy of [A, B], which `state_set` is about."""
        return torch.cat([self.module.layer.A.detach(), self.module.layer.B.detach()], dim=1)

    def _outputs(self) -> Tensor:
        C, D = self.module.C.detach(), self.module.D
        return C if D is None else torch.cat([C, D.detach()], dim=1)

    def _adopt(self, z: Array) -> None:
        """Make z the witness, and tell the layer which set its A is in."""
        z.setflags(write=False)
        self.witness = z
        self.state_set, self._output_set = _sets(z, self._limit)
        layer = self.module.layer
        # By a power of two, which rounds nothing: the rows imply μ_{∞,η}(A) ≤ γ to the last bit.
        eta = np.ldexp(z, -np.frexp(z.max())[1])
        layer.eta.copy_(torch.from_numpy(eta))
        layer.gamma.fill_(1.0 - _SLACK)

    def _project(self) -> int:
        refuse_half(self._parameters())
        layer, module = self.module.layer, self.module
        n = layer.hidden_features
        # All are computed before any is written.
        states = self._project_states(self.states())
        outputs = self._changes(self._outputs(), self._output_set)
        D = None if module.D is None else module.D
        with torch.no_grad():
            for (index, rows), left, right in ((states, layer.A, layer.B), (outputs, module.C, D)):
                if len(index):
                    left[index] = rows[:, :n]
                    if right is not None:
                        right[index] = rows[:, n:]
        return len(states[0]) + len(outputs[0])

    def _project_states(self, joint: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers and values of the rows of [A, B] that change.

        Where the projection onto a row's inequality takes its A_ii below −128, that of the row
        onto both has A_ii = −128 (the distance is convex in A_ii), and the others share the rest.
        """
        index, rows = self._changes(joint, self.state_set)
        joint[index] = rows
        deep = (joint.diagonal() < -_DEEPEST).nonzero()[:, 0]
        if len(deep):
            rest, here = joint[deep], torch.arange(len(deep), device=deep.device)
            rest[here, deep] = 0.0
            z, which = self.witness, deep.cpu().numpy()
            weights = np.concatenate([z, np.ones(joint.shape[1] - len(z))])
            room = Rows(weights, _DEEPEST + (1.0 - _SLACK), z[which])
            wrong, values = project_violating(_viewed(rest), room)
            rest[torch.as_tensor(wrong)] = torch.as_tensor(values)
            rest[here, deep] = -_DEEPEST
            joint[deep] = rest
            index = torch.cat([index, deep]).unique()
        return index, joint[index]

    def _changes(self, joint: Tensor, rows: RowSet) -> tuple[Tensor, Tensor]:
        """Numbers (k,) and values of the rows that a projection changes."""
        if self._solver == CLOSED_FORM and not self._options:
            view = _viewed(joint)
            index, values = project_violating(view, rows.cached_rows(tuple(view.shape)))
            return torch.as_tensor(index), torch.as_tensor(values)
        array = _numpy(joint)
        found = project_onto(array, rows, solver=self._solver, **self._options)
        changed = np.flatnonzero((found != array).any(axis=1))
        return tuple(torch.from_numpy(x).to(joint.device) for x in (changed, found[changed]))  # type: ignore[return-value]


def as_bound(bound: float) -> float:
    """L as a float; ValueError unless it is a number from 1e-12 to 1e12."""
    if not is_number(bound) or not _SMALLEST <= bound <= _LARGEST:
        raise ValueError(
            f"got the bound {bound!r:.60}, expected a number from {_SMALLEST:g} to {_LARGEST:g}, "
            "in output units per input unit."
        )
    return float(bound)


def _sets(z: Array, limit: float) -> tuple[LipschitzStateSet, LipschitzOutputSet]:
    return LipschitzStateSet(z, _SLACK), LipschitzOutputSet(z, limit)


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


def _viewed(tensor: Tensor) -> Any:
    """The memory of a tensor on a CPU as a numpy array, on which the kernel is faster."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor
