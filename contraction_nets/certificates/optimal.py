"""The weights η that minimize μ_{∞,η}(A), and why no others do better (THEORY §2).

Upper bound: the weights. Lower bound: x ≥ 0 with M(A) x ≥ λ x, so that no weights attain less
than λ. Both come from the Perron vector of the strongly connected block of largest abscissa.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import matrix_balance
from scipy.sparse import csr_array, eye_array, issparse
from scipy.sparse.csgraph import connected_components

from contraction_nets.certificates.exact import prove_abscissa, prove_measure
from contraction_nets.certificates.systems import System, system_of
from contraction_nets.errors import SolverError
from contraction_nets.geometry.measures import matrix_measure, metzler_majorant
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import LipschitzProblem
from contraction_nets.solving.solution import Status

Array = NDArray[np.float64]

_STEPS = 60
_POWERS = 300  # steps on a sparse matrix before anything is solved or factored
_SLACKS = (1e-6, 1e-9, 1e-12)


@dataclass(frozen=True, eq=False)
class OptimalWeights:
    """Weights η with the measure they really attain, and a bound on what any weights can.

    Attributes
    ----------
    eta : (n,) array
        Positive weights, normalized to max η = 1.
    measure : float
        μ_{∞,η}(A) at these weights, in float64.
    abscissa : float
        Spectral abscissa α(M(A)) = inf over η of μ_{∞,η}(A), in float64.
    lower : float
        No weights attain less: proved by `prove_abscissa(A, lower, x)`.
    x : (n,) array
        Its witness: nonnegative, and zero outside the states of `block`.
    block : (k,) integer array
        The strongly connected states whose abscissa is largest.
    """

    eta: Array
    measure: float
    abscissa: float
    lower: float
    x: Array
    block: NDArray[np.intp]

    @property
    def gap(self) -> float:
        """Measure minus lower bound: how far from optimal these weights can be at most."""
        return self.measure - self.lower


@dataclass(frozen=True, eq=False)
class Perron:
    """The dominant strongly connected block of a Metzler matrix, and bounds on its abscissa.

    Attributes
    ----------
    block : (k,) integer array
    vector : (k,) array
        Positive.
    lower, upper : float
        Smallest and largest (M x)_i / x_i: bounds on the abscissa of the block, in float64.
    """

    block: NDArray[np.intp]
    vector: Array
    lower: float
    upper: float


def optimal_weights(A: Any, *, solver: str = "perron", tol: float = 1e-6) -> OptimalWeights:
    """Weights η whose measure is within `tol` of the infimum α(M(A)) (THEORY §2).

    For irreducible M the Perron vector attains the infimum. For reducible M it need not be
    attained; with γ just above α(M) the vector η = (γI − M)⁻¹ 1 is positive and M η < γ η.

    Parameters
    ----------
    A : (n, n) array or scipy.sparse matrix
    solver : str
        "perron", or any of ``available_solvers("linear program")``: then γ is bisected, and η a
        feasible point of the linear program ``M η ≤ γ η − 1``.
    tol : float
        Wanted gap, relative to max(1, |α|). Floating point may leave more where the states have
        wildly different scales: the attributes say what was attained.

    Returns
    -------
    OptimalWeights

    Raises
    ------
    ValueError
        A is not a finite square matrix.
    UnknownSolverError, SolverError
        No such backend, or it did not solve a linear program.

    Examples
    --------
    >>> found = optimal_weights([[-1.0, 0.5], [2.0, 0.0]])
    >>> round(found.measure, 6), found.gap < 1e-6
    (0.618034, True)
    """
    from contraction_nets.solving.registry import get_backend

    M = metzler_majorant(A)
    n = M.shape[0]
    backend = None if solver == "perron" else get_backend(solver, LipschitzProblem.kind)
    perron = dominant_block(M)
    x = np.zeros(n)
    x[perron.block] = perron.vector
    candidates = [np.ones(n)]
    if backend is not None:
        candidates.append(_by_linear_programs(M, perron, backend, tol))
    elif len(perron.block) == n:
        candidates.append(perron.vector)
    else:
        for slack in (tol, *_SLACKS):
            gamma = perron.upper + slack * max(1.0, abs(perron.upper))
            candidates += _resolvent(M, gamma)
    best = min(candidates, key=lambda eta: matrix_measure(A, eta))
    lower = _provable_lower(A, x, perron.lower)
    return OptimalWeights(
        eta=best,
        measure=matrix_measure(A, best),
        abscissa=perron.upper,
        lower=lower,
        x=x,
        block=perron.block,
    )


def attained(A: Any, eta: Array) -> float:
    """The least float64 above μ_{∞,η}(A) that a few roundings find and exact arithmetic proves."""
    measure = matrix_measure(A, eta)
    for step in range(60):
        gamma = measure + 2.0**step * (2.0**-52 * abs(measure) + 5e-324) if step else measure
        if math.isfinite(gamma) and prove_measure(A, gamma, eta):
            return float(gamma)
    return math.inf


def dominant_block(M: Any) -> Perron:
    """The strongly connected block of largest spectral abscissa of a Metzler matrix.

    Parameters
    ----------
    M : (n, n) array or csr_array
        Nonnegative off the diagonal.
    """
    graph = csr_array(M)
    count, block_of = connected_components(graph, directed=True, connection="strong")
    order = np.argsort(block_of, kind="stable")
    starts = np.searchsorted(block_of[order], np.arange(count + 1))
    diagonal = np.asarray(M.diagonal())
    sizes = np.diff(starts)
    alone = order[starts[:-1][sizes == 1]]
    best: Perron | None = None
    if len(alone):
        i = alone[np.argmax(diagonal[alone])]
        best = Perron(np.array([i]), np.ones(1), float(diagonal[i]), float(diagonal[i]))
    for k in np.flatnonzero(sizes > 1):
        block = np.sort(order[starts[k] : starts[k + 1]])
        found = _noda(graph[block][:, block] if issparse(M) else M[np.ix_(block, block)], block)
        if best is None or found.upper > best.upper:
            best = found
    assert best is not None
    return best


def _noda(M: Any, block: NDArray[np.intp]) -> Perron:
    """Noda's iteration x ← (γI − M)⁻¹ x with γ = max (M x)_i / x_i, which converges quadratically.

    Where it stops short, plain power steps on M shifted to be nonnegative are tried. With a sparse
    matrix they come first: the systems end next to singular, and a matrix whose factors fill up has
    few slow directions.
    """
    best = _powers(M, block) if issparse(M) else _bounds(M, _balance(M), block)
    for _ in range(_STEPS):
        width = best.upper - best.lower
        if not width > _tolerance(M, best):
            break
        with np.errstate(all="ignore"):
            system = _shifted(M, math.nextafter(best.upper, math.inf))
            y = None if system is None else system.solve(best.vector)
            if y is None or not (np.isfinite(y).all() and (y > 0).all()):
                y = _power(M, best)
            found = _bounds(M, y / y.max(), block)
        # In exact arithmetic both bounds only ever get closer.
        if not found.upper - found.lower < width:
            break
        best = found
    return best


def _powers(M: Any, block: NDArray[np.intp]) -> Perron:
    """The closest bounds of power steps from ones."""
    best = found = _bounds(M, np.ones(M.shape[0]), block)
    for _ in range(_POWERS):
        if not best.upper - best.lower > _tolerance(M, best):
            break
        with np.errstate(all="ignore"):
            y = _power(M, found)
            found = _bounds(M, y / y.max(), block)
        if not (np.isfinite(found.vector).all() and (found.vector > 0).all()):
            break
        if found.upper - found.lower < best.upper - best.lower:
            best = found
    return best


def _power(M: Any, perron: Perron) -> Array:
    """M x with a multiple of x added, without negative or periodic directions."""
    shift = max(0.0, -float(M.diagonal().min())) + abs(perron.upper) / 2
    step: Array = M @ perron.vector + shift * perron.vector
    return step


def _tolerance(M: Any, perron: Perron) -> float:
    """The width of the bounds that ends the iteration: some roundings of (M x)_i / x_i."""
    if not issparse(M):
        return 2.0**-50 * max(abs(perron.upper), abs(perron.lower))
    with np.errstate(all="ignore"):
        return 2.0**-46 * float(((abs(M) @ perron.vector) / perron.vector).max())


def _balance(M: Array) -> Array:
    """Positive weights that make the entries of an irreducible matrix comparable: a start."""
    with np.errstate(all="ignore"):  # scipy casts the scales to integers, for a permutation
        _, (scale, _) = matrix_balance(M, permute=False, separate=True)
    scaled: Array = scale / scale.max()
    return scaled if (scaled > 0).all() else np.ones(len(M))


def _bounds(M: Any, x: Array, block: NDArray[np.intp]) -> Perron:
    with np.errstate(all="ignore"):
        ratios = (M @ x) / x
    return Perron(block, x, float(ratios.min()), float(ratios.max()))


def _shifted(M: Any, gamma: float) -> System | None:
    """The system of γI − M."""
    n = M.shape[0]
    identity = eye_array(n, format="csr") if issparse(M) else np.eye(n)
    return system_of(M + (1.0 - gamma) * identity)


def _resolvent(M: Any, gamma: float) -> list[Array]:
    with np.errstate(all="ignore"):
        system = _shifted(M, gamma)
        eta = None if system is None else system.refined(np.ones(M.shape[0]))
        if eta is None or not (np.isfinite(eta).all() and (eta > 0).all()):
            return []
        scaled = eta / eta.max()
    return [scaled] if (scaled > 0).all() else []


def _by_linear_programs(M: Any, perron: Perron, backend: Backend, tol: float) -> Array:
    """η ≥ 0 with (γI − M) η ≥ 1 for the least γ that bisection finds to be feasible."""
    n = M.shape[0]
    identity = eye_array(n, format="csr") if issparse(M) else np.eye(n)
    best, low, high = np.ones(n), float(M.diagonal().max()), matrix_measure(M)
    while high - low > tol * max(1.0, abs(perron.upper)) / 2:
        gamma = (low + high) / 2
        problem = LipschitzProblem(M + (1.0 - gamma) * identity, np.ones(n), identity, np.zeros(n))
        solution = backend.solve(problem)
        if solution.status in (Status.TIME_LIMIT, Status.ITERATION_LIMIT):
            raise SolverError(
                f"solver '{backend.name}' ended with status '{solution.status}' at "
                f"γ = {gamma:.9g}, expected 'optimal' or 'infeasible'; use solver='perron'."
            )
        eta = solution.x if solution.found else None
        if eta is not None and (eta > 0).all() and matrix_measure(M, eta) < high:
            best, high = eta / eta.max(), matrix_measure(M, eta)
        else:
            low = gamma
    return best


def _provable_lower(A: Any, x: Array, lower: float) -> float:
    """The largest float64 below `lower` that a few roundings find and exact arithmetic proves."""
    for step in range(60):
        rho = lower - 2.0**step * (2.0**-52 * abs(lower) + 5e-324) if step else lower
        if math.isfinite(rho) and prove_abscissa(A, rho, x):
            return float(rho)
    return -math.inf
