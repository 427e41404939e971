"""Safeguarded acceleration of the diagonal resolvent iteration, sample by sample."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from contraction_nets.nn.iterations.base import Prepared
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalMap

_PROGRESS = 0.9
_DIVERGED = 1e3
_FIRST_REST = 4


class Accelerated(Prepared):
    """Proposals in place of the steps x ← g of a base map g = J(A_off x + s).

    A sample whose defect max |g − x| has not fallen to 0.9 of its last mark within `patience`
    steps goes back to the best g it has seen and takes plain steps: 4, then 8, 16, … at every
    failure. The plain steps contract wherever the network is well-posed (THEORY §6), so enough
    of them reach the next mark, and every well-posed network is solved, whatever the proposals.

    Parameters
    ----------
    base : DiagonalMap
    patience : int
        At least one.
    """

    def __init__(self, base: DiagonalMap, patience: int) -> None:
        super().__init__(base.linear, base.s)
        self.base, self.patience = base, patience
        self._state: dict[str, Tensor] = {}
        self._resting = False

    @property
    def ahead(self) -> int:
        """Steps up to the next proposal, and with it."""
        return 1

    @abstractmethod
    def propose(self, x: Tensor, g: Tensor, f: Tensor, failed: Tensor | None) -> Tensor:
        """The next x of every sample; entries that are not finite are replaced.

        Parameters
        ----------
        x, g, f : (batch, n) tensors
            The point, its image under the base map, and g − x.
        failed : (batch,) tensor of bool, or None
            Samples whose past misled them, None where there are none.
        """

    def advance(self, x: Tensor, y: Tensor) -> Tensor:
        g = self.base.advance(x, y)
        shape, x, g = x.shape, x.flatten(1), g.flatten(1)
        f = g - x
        defect = f.abs().amax(dim=1)
        failed = self._judge(defect, g)
        step = self.propose(x, g, f, failed)
        # One sum tells whether every entry is finite.
        if self._resting or not math.isfinite(float(step.sum())):
            plain = (self._state["rest"] > 0) | ~torch.isfinite(step).all(dim=1)
            step = torch.where(plain[:, None], g, step)
        if failed is not None:
            step = torch.where(failed[:, None], self._state["anchor"], step)
        return step.reshape(shape)

    def image(self, x: Tensor, y: Tensor) -> Tensor:
        return self.base.image(x, y)

    def take(self, rows: Tensor) -> Accelerated:
        """This iteration, which forgets all samples but these."""
        self.base = self.base.take(rows)
        self.s = self.base.s
        self._state = {name: value[rows] for name, value in self._state.items()}
        return self

    def _judge(self, defect: Tensor, g: Tensor) -> Tensor | None:
        """Update marks and rests; the samples that go back to their anchor."""
        state = self._state
        if "mark" in state and not self._resting:
            progress = defect <= _PROGRESS * state["mark"]
            if bool(progress.all()):
                state.update(best=defect, mark=defect, anchor=g)
                state["stale"].zero_()
                return None
        if "mark" not in state:
            zero = torch.zeros_like(defect, dtype=torch.int64)
            state.update(best=defect, mark=defect, anchor=g, stale=zero, rest=zero)
            state["penalty"] = zero + _FIRST_REST
            return None
        lower = defect < state["best"]
        if bool(lower.all()):
            state["anchor"] = g
        else:
            state["anchor"] = torch.where(lower[:, None], g, state["anchor"])
        state["best"] = torch.where(lower, defect, state["best"])
        progress = defect <= _PROGRESS * state["mark"]
        state["mark"] = torch.where(progress, defect, state["mark"])
        resting = state["rest"] > 0
        stale = torch.where(progress | resting, 0, state["stale"] + 1)
        failed = (stale > self.patience) | (~resting & ~(defect <= _DIVERGED * state["mark"]))
        state["rest"] = torch.where(failed, state["penalty"], (state["rest"] - 1).clamp_min(0))
        state["penalty"] = torch.where(failed, 2 * state["penalty"], state["penalty"])
        state["stale"] = torch.where(failed, 0, stale)
        self._resting = bool((state["rest"] > 0).any())
        return failed if bool(failed.any()) else None
