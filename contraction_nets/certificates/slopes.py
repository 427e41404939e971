"""Bounds on the largest gain over all slopes, as close as one cares to wait (THEORY §4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.certificates.branching import BranchAndBound
from contraction_nets.certificates.lipschitz import LipschitzCertificate, lipschitz_certificate
from contraction_nets.certificates.reduction import ScaledNetwork
from contraction_nets.certificates.weights import ImplicitWeights, full

Array = NDArray[np.float64]


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
        The bound of `lipschitz_certificate`, which has a proof in integers.
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
    polynomial time, never above `lp`. Without limits the search ends at the exact value up to
    tol; 20 states take less than a second as a rule, but the worst case is exponential.

    The upper bound is sound in float64: the errors of every solve are bounded, every
    factorization is checked, all roundings are taken against it. Proofs in integers come with
    `lp`, and with the semidefinite bound alone: ``certificate.statement("sectors")``.

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
    (1.105, 1.105, 20.0)
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
        return _only_direct(certificate, tol)
    search = BranchAndBound(network, tol)
    try:
        search.start()
        while time.monotonic() < deadline and search.step(max_nodes):
            if on_progress is not None:
                on_progress(_result(search, certificate))
    except KeyboardInterrupt:
        pass
    return _result(search, certificate)


def _result(search: BranchAndBound, certificate: LipschitzCertificate) -> LipschitzBounds:
    """What is known now, in the units of the weights."""
    best, exponent = search.best, search.network.exponent
    # A power of two loses no bit, short of underflow.
    upper = float(np.nextafter(np.ldexp(search.upper, exponent), np.inf))
    return LipschitzBounds(
        lower=float(np.nextafter(np.ldexp(best.gain, exponent), 0.0)),
        upper=min(upper, certificate.bound),
        slopes=best.pattern.astype(np.float64),
        output=best.output,
        inputs=best.inputs,
        nodes=search.nodes,
        exact=search.exact,
        lp=certificate.bound,
    )


def _only_direct(certificate: LipschitzCertificate, tol: float) -> LipschitzBounds:
    """What is left next to the limit of well-posedness: all slopes zero, and the program."""
    weights, lp = certificate.weights, certificate.bound
    shape = weights.output_dim, weights.input_dim
    D = np.zeros(shape) if weights.D is None else full(weights.D)
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
