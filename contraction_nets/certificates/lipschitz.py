"""The ℓ∞ Lipschitz bound of an implicit network: one linear program (THEORY §4)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from contraction_nets.certificates.certificate import LipschitzCertificate
from contraction_nets.certificates.exact import exact_bound
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.certificates.well_posed import well_posed_witness
from contraction_nets.certificates.witness import ScaledProgram
from contraction_nets.errors import SolverError
from contraction_nets.geometry.measures import as_finite, matrix_measure, metzler_majorant
from contraction_nets.solving.problems import LipschitzProblem
from contraction_nets.solving.solution import Solution

__all__ = ["LipschitzCertificate", "lipschitz_certificate"]

Array = NDArray[np.float64]

_FEASIBLE = 1e-10  # violation of a dual constraint that counts as rounding


def lipschitz_certificate(
    weights: ImplicitWeights | ArrayLike,
    B: ArrayLike | None = None,
    C: ArrayLike | None = None,
    D: ArrayLike | None = None,
    *,
    epsilon: ArrayLike | None = None,
    solver: str = "m_matrix",
    **options: Any,
) -> LipschitzCertificate:
    """Prove that a network is well-posed and bound its ℓ∞ → ℓ∞ Lipschitz constant (THEORY §4).

    The bound is the optimum of ``min t  s.t.  (I − M) z ≥ |B|ε,  |C| z + |D|ε ≤ t 1,  z ≥ 0``.
    The solver's z is a proposal, refined, inflated by a few roundings and then proved in exact
    integer arithmetic: what is returned is proved, whoever solved. Next to the limit of
    well-posedness, and where products of weights leave the range of float64, the bound may
    exceed the optimum by more than rounding; it stays a bound. Where the optimum is zero, as
    without inputs, the bound is some 1e-270: a witness is positive.

    Parameters
    ----------
    weights : ImplicitWeights or (n, n) array
        The network, or its state matrix A followed by B (n, p), C (q, n) and maybe D (q, p).
    epsilon : float or (p,) array, optional
        Radii of the inputs, in input units, not negative and not all zero: the bound is then on
        |Δy| where |Δu_j| ≤ ε_j. All ones by default, which makes it a Lipschitz constant.
    solver : str
        Any of ``available_solvers("linear program")``.
    **options
        Options of the backend, checked by name.

    Returns
    -------
    LipschitzCertificate

    Raises
    ------
    ValueError
        Malformed weights or radii, an unknown option, or a bound above the largest float64.
    NotWellPosedError
        Well-posedness cannot be proved: the spectral abscissa of M(A) is not below one.
    UnknownSolverError, SolverError
        No such backend, or it found no optimum.

    Examples
    --------
    >>> certificate = lipschitz_certificate([[0.5]], [[1.0]], [[3.0]])
    >>> round(certificate.bound, 9), certificate.verify()
    (6.0, True)
    """
    network = _as_weights(weights, B, C, D)
    radii = None if epsilon is None else _radii(epsilon, network.input_dim)
    with np.errstate(all="ignore"):
        measure = matrix_measure(network.A)
    system, v = well_posed_witness(network.A)
    program = ScaledProgram.of(network, radii, v, system)
    solution = _solved(program.problem, solver, options)
    product = _norm_product_bound(network, radii)
    for witness in program.witnesses(solution.point()):
        dual, output_dual = _multipliers(program, solution, witness)
        certificate = LipschitzCertificate(
            weights=network,
            bound=_finite_bound(network, witness, radii),
            witness=_read_only(witness),
            norm_product_bound=product,
            measure=measure,
            dual=_read_only(program.unscaled_dual(dual)),
            output_dual=_read_only(output_dual),
            dual_value=program.dual_value(dual, output_dual),
            solver=solver,
            epsilon=None if radii is None else _read_only(radii),
        )
        if certificate.verified:
            return certificate
    raise SolverError(
        "no witness in float64 proves a bound although the weights are well-posed, expected the "
        "entries of (I − M)⁻¹|B|1 to be in its range; rescale the inputs or the states."
    )


def _radii(epsilon: ArrayLike, p: int) -> Array:
    radii = as_finite(epsilon, "epsilon")
    if radii.ndim == 0:
        radii = np.full(p, float(radii))
    if radii.shape != (p,) or not (radii >= 0).all() or not radii.any():
        raise ValueError(
            f"epsilon has shape {radii.shape} and minimum {radii.min(initial=math.inf):.3g}, "
            f"expected {p} radii of at least zero, one of them above, in input units."
        )
    return radii


def _as_weights(
    weights: ImplicitWeights | ArrayLike,
    B: ArrayLike | None,
    C: ArrayLike | None,
    D: ArrayLike | None,
) -> ImplicitWeights:
    if isinstance(weights, ImplicitWeights):
        if B is not None or C is not None or D is not None:
            raise ValueError(
                "got ImplicitWeights and matrices besides, expected one of them; "
                "pass the weights alone."
            )
        return weights
    if B is None or C is None:
        raise ValueError("got A without B or C, expected A, B and C; pass the three matrices.")
    return ImplicitWeights(weights, B, C, D)


def _solved(problem: LipschitzProblem, solver: str, options: dict[str, Any]) -> Solution:
    """The answer of a solver, an optimum by its own account and not NaN."""
    from contraction_nets.solving.registry import solve

    solution = solve(problem, solver, **options)
    z = solution.point()
    if z.shape != problem.b.shape or not np.isfinite(z).all():
        raise SolverError(
            f"solver '{solver}' returned z of shape {z.shape}, expected {problem.b.shape} finite "
            "numbers; use another solver."
        )
    return solution


def _multipliers(program: ScaledProgram, solution: Solution, witness: Array) -> tuple[Array, Array]:
    """The solver's multipliers where they are feasible, else such as its output rows suggest.

    An infeasible dual point can have an objective above the optimum, which nothing proves.
    """
    dual, output_dual = solution.dual, solution.output_dual
    if dual is None or output_dual is None:
        return program.duals(program.worst_output(witness))
    if dual.shape != program.problem.b.shape or output_dual.shape != program.problem.d.shape:
        raise SolverError(
            f"solver '{solution.solver}' returned multipliers of shapes {dual.shape} and "
            f"{output_dual.shape}, expected {program.problem.b.shape} and "
            f"{program.problem.d.shape}; use another solver."
        )
    with np.errstate(all="ignore"):
        feasible = solution.dual_residual <= _FEASIBLE * max(1.0, float(np.abs(dual).max()))
        shares = output_dual.clip(0.0) / output_dual.clip(0.0).sum()
    if feasible:
        return dual, output_dual
    return program.duals(shares if np.isfinite(shares).all() else program.worst_output(witness))


def _finite_bound(weights: ImplicitWeights, z: Array, radii: Array | None) -> float:
    """The least bound that z can prove."""
    bound = exact_bound(weights.C, weights.D, z, radii)
    if not math.isfinite(bound):
        raise ValueError(
            "the Lipschitz bound exceeds the largest float64, expected a smaller one; "
            "rescale the inputs or the outputs."
        )
    return bound


def _norm_product_bound(weights: ImplicitWeights, radii: Array | None) -> float:
    """‖B‖∞‖C‖∞ / (1 − μ∞(A)₊) + ‖D‖∞, times max ε, every rounding upwards."""
    M = metzler_majorant(weights.A)
    try:
        slack = 1 - Fraction(max(_largest_row_sum(M), 0.0))
        if slack <= 0:
            return math.inf
        norms = [
            Fraction(_largest_row_sum(abs(matrix)))
            for matrix in (weights.B, weights.C, weights.D)
            if matrix is not None
        ]
        exact = norms[0] * norms[1] / slack + sum(norms[2:])
        exact *= 1 if radii is None else Fraction(float(radii.max()))
        nearest = float(exact)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


def _largest_row_sum(matrix: Any) -> float:
    """Largest row sum, rounded up; OverflowError where it is out of range."""
    rows = (
        np.split(matrix.data, matrix.indptr[1:-1]) if issparse(matrix) else (row for row in matrix)
    )
    largest = max(math.fsum(row.tolist()) for row in rows)
    return largest if largest == 0 else math.nextafter(largest, math.inf)


def _read_only(values: Array) -> Array:
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy
