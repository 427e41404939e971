"""Bounds on the largest gain over all slopes, as close as one cares to wait (THEORY §4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.certificates.ascent import ascend
from contraction_nets.certificates.lipschitz import lipschitz_certificate
from contraction_nets.certificates.reduction import FREE, TINY, Patterns, ScaledNetwork
from contraction_nets.certificates.sectors import sector_bounds
from contraction_nets.certificates.weights import ImplicitWeights

Array = NDArray[np.float64]

_NOTHING = 2.0**-900  # of the certified bound: less is rounding
_STARTS = 6  # random starts of the local search per output
_BATCH = 16  # nodes split at a time, fewer in large networks


@dataclass(frozen=True, eq=False)
class LipschitzBounds:
    """Two bounds on the largest ℓ∞ → ℓ∞ gain of a network over all slopes in [0, 1].

    lower ≤ max over slopes ≤ upper ≤ lp. Every Lipschitz constant of the network is at most
    `upper`; `lower` is attained by slopes, which an activation need not take together.

    Attributes
    ----------
    lower : float
        In output units per input unit; attained by `slopes`, rounded down.
    upper : float
        In output units per input unit; sound in float64 with all roundings against it.
    slopes : (n,) array of zeros and ones
        With S = diag(slopes), row `output` of C (I − SA)⁻¹ S B + D has the ℓ1 norm `lower`.
    output : int
        The output that moves.
    inputs : (p,) array
        The signs ±1 of Δu that move it most.
    nodes : int
        Networks with some slopes decided that were bounded.
    exact : bool
        Whether upper ≤ lower · (1 + tol).
    lp : float
        The bound of `lipschitz_certificate`, the only one with a proof in integers.
    """

    lower: float
    upper: float
    slopes: Array
    output: int
    inputs: Array
    nodes: int
    exact: bool
    lp: float


OnProgress = Callable[[LipschitzBounds], object]


def lipschitz_bounds(
    weights: ImplicitWeights | ArrayLike,
    B: ArrayLike | None = None,
    C: ArrayLike | None = None,
    D: ArrayLike | None = None,
    *,
    max_nodes: int | None = None,
    time_limit: float | None = None,
    tol: float = 1e-6,
    on_progress: OnProgress | None = None,
) -> LipschitzBounds:
    """Bound the largest gain over all slopes, by branch and bound on slopes 0 and 1.

    In every slope the gain of an output is linear-fractional for fixed signs of the inputs, so
    that it is largest at slopes 0 or 1. A slope that is decided leaves a smaller network, whose
    linear program is never worse; on top of it comes the semidefinite bound of sectors.py. With
    ``max_nodes`` equal to the number of outputs nothing is branched on: that is the bound in
    polynomial time, never above `lp`. Without limits the search ends at the exact value, for
    which 20 states take seconds and 60 may take for ever.

    The upper bound is sound in float64: the errors of every solve are bounded, every
    factorization is checked, all roundings are taken against it. A proof in integers, as
    `LipschitzCertificate.verify` checks it, comes only with `lp`.

    Whatever ends the search, KeyboardInterrupt included, the bounds found so far are returned.

    Parameters
    ----------
    weights : ImplicitWeights or (n, n) array
        The network, or its state matrix A followed by B (n, p), C (q, n) and maybe D (q, p).
        All slopes in [0, 1] count, also for leaky_relu.
    max_nodes : int, optional
        At most so many networks with decided slopes are bounded.
    time_limit : float, optional
        Seconds after which no further node is begun.
    tol : float
        Relative distance of the bounds at which they count as equal.
    on_progress : callable, optional
        Called with the bounds so far.

    Returns
    -------
    LipschitzBounds

    Raises
    ------
    ValueError
        A negative limit, a tol that is not positive, or as `lipschitz_certificate`.
    NotWellPosedError, SolverError
        As `lipschitz_certificate`.

    Examples
    --------
    >>> bounds = lipschitz_bounds([[0.0, -0.9], [0.9, 0.0]], [[1.0], [1.0]], [[1.0, 1.0]])
    >>> round(bounds.lower, 4), round(bounds.upper, 4), round(bounds.lp, 4)
    (1.9, 1.9, 20.0)
    """
    for name, limit in (("max_nodes", max_nodes), ("time_limit", time_limit)):
        if limit is not None and not limit >= 0:
            raise ValueError(f"got {name} = {limit!r}, expected a number of at least 0 or None.")
    if not 0 < tol < 1:
        raise ValueError(f"got tol = {tol!r}, expected a number between 0 and 1.")
    deadline = np.inf if time_limit is None else time.monotonic() + time_limit
    certificate = lipschitz_certificate(weights, B, C, D)
    network = ScaledNetwork.of(certificate)
    if network is None:
        return _only_direct(certificate.weights, certificate.bound, tol)
    search = _Search(network, certificate.bound, tol)
    try:
        search.start()
        while time.monotonic() < deadline and search.step(max_nodes):
            if on_progress is not None:
                on_progress(search.bounds())
    except KeyboardInterrupt:
        pass
    return search.bounds()


class _Node(NamedTuple):
    """A network with some slopes decided.

    `branch` is the state to split it on, or FREE where it has not been bounded itself.
    """

    bound: float
    output: int
    pattern: Patterns
    branch: int


class _Attained(NamedTuple):
    value: float
    pattern: Patterns
    output: int
    inputs: Array


class _Search:
    """Best-first branch and bound; whatever interrupts it, `bounds` holds."""

    def __init__(self, network: ScaledNetwork, lp: float, tol: float) -> None:
        self.network, self.lp, self.tol = network, lp, tol
        q, n = network.C.shape
        size = n + network.B.shape[1]
        self.batch = max(1, min(_BATCH, 2**16 // size**2))
        free = np.full(n, FREE, dtype=np.int8)
        limits = _linear_bounds(network)
        nodes = [_Node(float(limits[k]), k, free, FREE) for k in range(q)]
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
        cutoff = self.best.value * (1.0 + self.tol) + _NOTHING
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

    def bounds(self) -> LipschitzBounds:
        """What is known now, in the units of the weights."""
        nodes, done, dropped = self.state
        best = self.best
        upper = max([best.value, dropped, *(node.bound for node in nodes[:1])])
        exact = upper <= best.value * (1.0 + self.tol) + _NOTHING
        # A power of two loses no bit, short of underflow.
        lower = float(np.nextafter(np.ldexp(best.value, self.network.exponent), 0.0))
        upper = float(np.nextafter(np.ldexp(upper, self.network.exponent), np.inf))
        return LipschitzBounds(
            lower=lower,
            upper=min(upper, self.lp),
            slopes=best.pattern.astype(np.float64),
            output=best.output,
            inputs=best.inputs,
            nodes=done,
            exact=exact,
            lp=self.lp,
        )

    def _bounded(self, parts: list[_Node], cutoff: float) -> list[_Node]:
        """The nodes with bounds of their own; branch is FREE where nothing is left to split."""
        patterns = np.stack([node.pattern for node in parts])
        outputs = np.array([node.output for node in parts])
        reduced = self.network.reduce(patterns, outputs)
        accuracy = float(np.clip(self.tol / 4, 1e-8, 1e-3))
        found, slopes, scores = sector_bounds(reduced, self.network.z, accuracy, goal=cutoff)
        bounds = np.minimum(found, [node.bound for node in parts])
        guesses = np.where(patterns == FREE, slopes > 0.5, patterns).astype(np.int8)
        self._improve(guesses, outputs)
        decided = (patterns != FREE).all(axis=1)
        branches = np.where(decided, FREE, scores.argmax(axis=1))
        return [
            _Node(float(bound), node.output, node.pattern, int(branch))
            for bound, node, branch in zip(bounds, parts, branches, strict=True)
        ]

    def _improve(self, patterns: Patterns, outputs: NDArray[np.intp]) -> None:
        patterns, gains = ascend(self.network, patterns, outputs)
        k = int(gains.argmax())
        found = _attained(self.network, patterns[k : k + 1], outputs[k : k + 1])
        if found.value > self.best.value:
            self.best = found


def _bound(node: _Node) -> float:
    return node.bound


def _parts(node: _Node) -> list[_Node]:
    """The node itself where it has not been bounded, else with one more slope decided."""
    if node.branch == FREE:
        return [node]
    patterns = np.repeat(node.pattern[None], 2, axis=0)
    patterns[:, node.branch] = 0, 1
    return [node._replace(pattern=pattern, branch=FREE) for pattern in patterns]


def _attained(network: ScaledNetwork, patterns: Patterns, outputs: NDArray[np.intp]) -> _Attained:
    """The gain of one output at slopes 0 and 1, rounded down."""
    reduced = network.reduce(patterns, outputs)
    n = len(network.A)
    row, radius = reduced.output[0, n:], reduced.output_radius[0, n:]
    with np.errstate(all="ignore"):
        value = np.maximum(np.abs(row) - radius, 0.0).sum() * (1.0 - (len(row) + 4) * 2.0**-52)
    inputs = np.where(row < 0, -1.0, 1.0)
    return _Attained(float(np.nan_to_num(value)), patterns[0], int(outputs[0]), inputs)


def _linear_bounds(network: ScaledNetwork) -> Array:
    """The linear program of every output, from its witness or from the bound on the inverse."""
    magnitudes, inputs = np.abs(network.C), np.abs(network.B).sum(axis=1)
    with np.errstate(all="ignore"):
        gains = np.fmin(magnitudes @ network.z, magnitudes @ (network.inverse @ inputs))
        gains += np.abs(network.D).sum(axis=1)
    terms = 2 * len(network.A) + sum(network.D.shape) + 16
    bounds: Array = gains * (1.0 + terms * 2.0**-52) + TINY
    return bounds


def _only_direct(weights: ImplicitWeights, lp: float, tol: float) -> LipschitzBounds:
    """What is left next to the limit of well-posedness: all slopes zero, and the program."""
    D = np.zeros((weights.output_dim, weights.input_dim)) if weights.D is None else weights.D
    D = D.astype(np.float64)
    gains = np.abs(D).sum(axis=1) * (1.0 - (D.shape[1] + 4) * 2.0**-52)
    k = int(gains.argmax())
    return LipschitzBounds(
        lower=float(np.nextafter(gains[k], 0.0)),
        upper=lp,
        slopes=np.zeros(weights.state_dim),
        output=k,
        inputs=np.where(D[k] < 0, -1.0, 1.0),
        nodes=0,
        exact=lp <= gains[k] * (1.0 + tol),
        lp=lp,
    )
