"""The certificate ladder: is the label the same for every input in reach? (THEORY §8)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

from joblib import Parallel, delayed
from numpy.typing import ArrayLike

from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.nn.layers import ImplicitNetwork
from contraction_nets.nn.options import is_number
from contraction_nets.robustness.attacks.ball import as_domain, as_radius
from contraction_nets.robustness.batch import BatchRungs, OpenSample
from contraction_nets.robustness.equation import Equation
from contraction_nets.robustness.result import RUNGS, RobustnessResult, Verdict
from contraction_nets.robustness.sample import decide
from contraction_nets.robustness.samples import Samples, as_samples

OnSample = Callable[[int, Verdict], object]

METHODS = (*RUNGS, "auto")
_BATCH = 256


def verify_robustness(
    network: ImplicitNetwork | ImplicitWeights,
    x: ArrayLike,
    y: ArrayLike,
    epsilon: float,
    *,
    method: str = "auto",
    domain: tuple[float, float] | None = (0.0, 1.0),
    time_limit: float | None = 60.0,
    n_jobs: int = 1,
    on_sample: OnSample | None = None,
) -> RobustnessResult:
    """Prove or refute, sample by sample, that the label is the same for every input in reach.

    In reach are inputs of the domain within the ℓ∞ distance ε. Each rung only decides what the
    one before left open: global gains (§4), intervals (§7), linear programs with the triangle
    relaxation, and branch and bound over the signs of the states, which is exact. The last two
    need relu or leaky relu. All proofs are sound in float64, whatever a solver returns, for the
    weights as stored; a counterexample is confirmed by its equilibrium with an error bound.

    Parameters
    ----------
    network : ImplicitNetwork or ImplicitWeights
    x : (m, p) array or tensor
        Inputs, in the units of the network (pixels in [0, 1]).
    y : (m,) array or tensor of whole numbers
        Their labels: the output that is to be the largest.
    epsilon : float
        At least zero, in input units.
    method : {"auto", "global", "interval", "lp", "milp"}
        The last rung; auto is the whole ladder.
    domain : (low, high) or None
        Interval of every input, which cuts down what is in reach; None for no limits.
    time_limit : float or None
        Seconds for the linear programs and the search of one sample.
    n_jobs : int
        Processes, as in joblib: −1 for all. ``joblib.parallel_config`` chooses a cluster.
    on_sample : callable, optional
        Called with the number of a sample and its `Verdict`, as they become known, in any order.

    Returns
    -------
    RobustnessResult
        One verdict a sample. A sample that fails, or takes too long, is unknown, with the reason.

    Raises
    ------
    ValueError
        Arguments that are not as above.
    NotWellPosedError
        Well-posedness of the network cannot be proved.

    Examples
    --------
    >>> weights = ImplicitWeights([[0.0]], [[1.0]], [[1.0], [-1.0]])
    >>> result = verify_robustness(weights, [[0.2], [0.6]], [0, 0], 0.1)
    >>> result.counts()
    {'certified': 2, 'falsified': 0, 'unknown': 0}
    """
    weights = _weights(network)
    check_options(method, time_limit, n_jobs)
    samples = as_samples(x, y, epsilon, domain, weights.input_dim, weights.output_dim)
    rung = RUNGS[-1] if method == "auto" else method
    seconds = math.inf if time_limit is None else float(time_limit)
    verdicts: list[Verdict | None] = [None] * len(samples)
    for number, verdict in _ladder(weights, samples, as_radius(epsilon), rung, seconds, n_jobs):
        verdicts[number] = verdict
        if on_sample is not None:
            on_sample(number, verdict)
    return RobustnessResult(
        epsilon=as_radius(epsilon),
        method=method,
        domain=None if domain is None else as_domain(domain),
        verdicts=tuple(verdict for verdict in verdicts if verdict is not None),
    )


def check_options(method: str, time_limit: float | None, n_jobs: int) -> None:
    """ValueError unless `verify_robustness` takes these: to be known before anything is loaded."""
    if method not in METHODS:
        raise ValueError(f"got the method {method!r:.60}, expected one of {', '.join(METHODS)}.")
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise ValueError(f"got n_jobs {n_jobs!r:.60}, expected a whole number other than zero.")
    if time_limit is not None and not (is_number(time_limit) and time_limit > 0):
        raise ValueError(
            f"got time_limit {time_limit!r:.60}, expected a positive number of seconds or None."
        )


def _weights(network: Any) -> ImplicitWeights:
    if isinstance(network, ImplicitWeights):
        return network
    if isinstance(network, ImplicitNetwork):
        return ImplicitWeights.from_module(network)
    raise ValueError(
        f"got a {type(network).__name__}, expected an ImplicitNetwork or ImplicitWeights; "
        "ImplicitWeights.load and .from_sequential make them."
    )


def _ladder(
    weights: ImplicitWeights,
    samples: Samples,
    radius: float,
    rung: str,
    seconds: float,
    n_jobs: int,
) -> Iterator[tuple[int, Verdict]]:
    """Verdicts with the numbers of their samples, as they become known."""
    rungs = BatchRungs.of(weights, radius, rung)
    for start in range(0, len(samples), _BATCH):
        batch = samples.take(slice(start, start + _BATCH))
        found, opened = rungs.decide(batch)
        for number, verdict in enumerate(found):
            if number not in opened:
                yield start + number, verdict
        left = {start + number: sample for number, sample in opened.items()}
        yield from _decided_one_by_one(rungs.equation, left, rung == "milp", seconds, n_jobs)


def _decided_one_by_one(
    equation: Equation, left: dict[int, OpenSample], exact: bool, seconds: float, n_jobs: int
) -> Iterator[tuple[int, Verdict]]:
    """Linear programs and search, on as many processes as there are."""
    waiting = dict(left)
    tasks = (
        delayed(_numbered)(number, equation, sample, exact, seconds)
        for number, sample in left.items()
    )
    try:
        for number, verdict in Parallel(n_jobs, return_as="generator_unordered")(tasks):
            del waiting[number]
            yield number, verdict
    except BrokenExecutor:
        # One sample ended a process, and with it the pool: find out which, each in its own.
        for number, sample in waiting.items():
            yield number, _alone(number, equation, sample, exact, seconds)


def _numbered(
    number: int, equation: Equation, sample: OpenSample, exact: bool, seconds: float
) -> tuple[int, Verdict]:
    return number, decide(equation, sample, exact, seconds)


def _alone(
    number: int, equation: Equation, sample: OpenSample, exact: bool, seconds: float
) -> Verdict:
    task = delayed(_numbered)(number, equation, sample, exact, seconds)
    try:
        return Parallel(2)([task])[0][1]
    except BrokenExecutor:
        margin = float(sample.margins.min())
        reason = "the process that worked on it died"
        return Verdict("unknown", "milp" if exact else "lp", margin, sample.seconds, reason)
