"""Best-first branch and bound over slopes 0 and 1, in the units of the scaled network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.ascent import ascend
from contraction_nets.certificates.reduction import (
    FREE,
    TINY,
    Patterns,
    Reduced,
    ScaledNetwork,
)
from contraction_nets.certificates.sectors import sector_bounds

Array = NDArray[np.float64]

_NOTHING = 2.0**-900  # of the certified bound: less is rounding
_STARTS = 6  # random starts of the local search per output
_BATCH = 16  # nodes split at a time, fewer in large networks


class Node(NamedTuple):
    """A network with some slopes decided.

    `branch` is the state to split it on, or FREE where it has not been bounded itself.
    """

    bound: float
    output: int
    pattern: Patterns
    branch: int


class Attained(NamedTuple):
    """The gain of one output at slopes 0 and 1, rounded down, and the inputs that give it."""

    gain: float
    pattern: Patterns
    output: int
    inputs: Array


class BranchAndBound:
    """The search; its bounds hold whenever it is left, in the middle of a step as well.

    Attributes
    ----------
    network : ScaledNetwork
    tol : float
        Relative distance of the bounds at which they count as equal.
    best : Attained
    """

    def __init__(self, network: ScaledNetwork, tol: float) -> None:
        self.network, self.tol = network, tol
        q, n = network.C.shape
        size = n + network.B.shape[1]
        self.batch = max(1, min(_BATCH, 2**16 // size**2))
        free = np.full(n, FREE, dtype=np.int8)
        limits = _linear_bounds(network)
        nodes = [Node(float(limits[k]), k, free, FREE) for k in range(q)]
        # Nodes still open, best first, how many were bounded, and the largest bound of those
        # that were dropped; replaced as a whole.
        self.state = sorted(nodes, key=_bound, reverse=True), 0, 0.0
        outputs = np.array([np.abs(network.D).sum(axis=1).argmax()])
        self.best = _attained(network, np.zeros((1, n), dtype=np.int8), outputs)

    def start(self) -> None:
        """Look for good slopes from the corners 0 and 1 and from random ones."""
        q, n = self.network.C.shape
        starts = np.random.default_rng(0).integers(0, 2, (_STARTS + 2, n)).astype(np.int8)
        starts[0], starts[1] = 0, 1
        self._improve(np.repeat(starts, q, axis=0), np.tile(np.arange(q), len(starts)))

    def step(self, max_nodes: int | None) -> bool:
        """Bound the parts of the worst nodes; False where that is done or not allowed."""
        nodes, done, dropped = self.state
        cutoff = self._cutoff()
        room = len(nodes) * 2 if max_nodes is None else max_nodes - done
        taken = [node for node in nodes[: self.batch] if node.bound > cutoff]
        costs = np.cumsum([1 if node.branch == FREE else 2 for node in taken])
        taken = taken[: int((costs <= room).sum())]
        if not taken:
            return False
        parts = [part for node in taken for part in _parts(node)]
        children = self._bounded(parts, cutoff)
        dropped = max([dropped, *(c.bound for c in children if c.branch == FREE)])
        rest = nodes[len(taken) :] + [c for c in children if c.branch != FREE]
        self.state = sorted(rest, key=_bound, reverse=True), done + len(parts), dropped
        return True

    @property
    def upper(self) -> float:
        """No output moves farther for any slopes, in the units of the network."""
        nodes, _, dropped = self.state
        return max([self.best.gain, dropped, *(node.bound for node in nodes[:1])])

    @property
    def nodes(self) -> int:
        """How many networks were bounded."""
        return self.state[1]

    @property
    def exact(self) -> bool:
        """Whether the bounds are equal up to the tolerance."""
        return self.upper <= self._cutoff()

    def _cutoff(self) -> float:
        return self.best.gain * (1.0 + self.tol) + _NOTHING

    def _bounded(self, parts: list[Node], cutoff: float) -> list[Node]:
        """The nodes with bounds of their own; branch is FREE where nothing is left to split."""
        patterns = np.stack([node.pattern for node in parts])
        outputs = np.array([node.output for node in parts])
        reduced = self.network.reduce(patterns, outputs)
        accuracy = float(np.clip(self.tol / 4, 1e-10, 1e-3))
        found, slopes, scores = sector_bounds(reduced, self.network.z, accuracy, goal=cutoff)
        found = np.minimum(found, _direct_bounds(reduced))
        bounds = np.minimum(found, [node.bound for node in parts])
        guesses = np.where(patterns == FREE, slopes > 0.5, patterns).astype(np.int8)
        self._improve(guesses, outputs)
        branches = np.where(reduced.free.any(axis=1), scores.argmax(axis=1), FREE)
        return [
            Node(float(bound), node.output, node.pattern, int(branch))
            for bound, node, branch in zip(bounds, parts, branches, strict=True)
        ]

    def _improve(self, patterns: Patterns, outputs: NDArray[np.intp]) -> None:
        patterns, gains = ascend(self.network, patterns, outputs)
        k = int(gains.argmax())
        found = _attained(self.network, patterns[k : k + 1], outputs[k : k + 1])
        if found.gain > self.best.gain:
            self.best = found


def _bound(node: Node) -> float:
    return node.bound


def _parts(node: Node) -> list[Node]:
    """The node itself where it has not been bounded, else with one more slope decided."""
    if node.branch == FREE:
        return [node]
    patterns = np.repeat(node.pattern[None], 2, axis=0)
    patterns[:, node.branch] = 0, 1
    return [node._replace(pattern=pattern, branch=FREE) for pattern in patterns]


def _attained(network: ScaledNetwork, patterns: Patterns, outputs: NDArray[np.intp]) -> Attained:
    """The gain of one output at slopes 0 and 1, rounded down."""
    reduced = network.reduce(patterns, outputs)
    n = len(network.A)
    row, radius = reduced.output[0, n:], reduced.output_radius[0, n:]
    with np.errstate(all="ignore"):
        gain = np.maximum(np.abs(row) - radius, 0.0).sum() * (1.0 - (len(row) + 4) * 2.0**-52)
    inputs = np.where(row < 0, -1.0, 1.0)
    return Attained(float(np.nan_to_num(gain)), patterns[0], int(outputs[0]), inputs)


def _direct_bounds(reduced: Reduced) -> Array:
    """The gains of networks without free states, rounded up; inf for others."""
    with np.errstate(all="ignore"):
        gains = (np.abs(reduced.output) + reduced.output_radius).sum(axis=1)
        gains = gains * (1.0 + (reduced.output.shape[1] + 4) * 2.0**-52)
    usable = np.isfinite(gains) & ~reduced.free.any(axis=1)
    return np.where(usable, gains, np.inf)


def _linear_bounds(network: ScaledNetwork) -> Array:
    """The linear program of every output, from its witness or from the bound on the inverse."""
    magnitudes, inputs = np.abs(network.C), np.abs(network.B).sum(axis=1)
    with np.errstate(all="ignore"):
        gains: Array = np.fmin(magnitudes @ network.z, magnitudes @ (network.inverse @ inputs))
        gains += np.abs(network.D).sum(axis=1)
    terms = 2 * len(network.A) + sum(network.D.shape) + 16
    return gains * (1.0 + terms * 2.0**-52) + TINY
