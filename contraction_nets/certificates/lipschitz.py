"""The ℓ∞ Lipschitz certificate of an implicit network: one linear program (THEORY §4)."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contraction_nets.certificates.document import save_certificate
from contraction_nets.certificates.exact import exact_bound, prove_bound, prove_well_posed
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.certificates.witness import ScaledProgram, eliminated, well_posed_witnesses
from contraction_nets.errors import NotWellPosedError, SolverError
from contraction_nets.geometry.measures import (
    OptimalWeights,
    matrix_measure,
    metzler_majorant,
    optimal_weights,
    spectral_abscissa,
)
from contraction_nets.solving.problems import LipschitzProblem
from contraction_nets.solving.solution import Solution

Array = NDArray[np.float64]

_EIGENVALUE_LIMIT = 2000  # states; beyond, eigenvalues take longer than everything else
_POWER_STEPS = 200
_SMALL = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class LipschitzCertificate:
    """A proof that max|y(u) − y(v)| ≤ bound · max|u − v| for all inputs u and v.

    Attributes
    ----------
    weights : ImplicitWeights
        What it is about, as stored.
    bound : float
        In output units per input unit (pixels in [0, 1], say), rounded up.
    witness : (n,) array
        z > 0 with (I − M) z > 0, (I − M) z ≥ |B|1 and |C| z + |D|1 ≤ bound: the proof.
    norm_product_bound : float
        The bound ‖B‖∞‖C‖∞ / (1 − μ∞(A)₊) + ‖D‖∞ of [NEMON], rounded up; inf where μ∞(A) ≥ 1.
    measure : float
        μ∞(A), in float64.
    dual : (n,) array
        Multipliers of the state rows, from the solver.
    output_dual : (q,) array
        Multipliers of the output rows, from the solver.
    dual_value : float
        Dual objective: no witness can prove a bound below it (in float64, not proved).
    solver : str
        The backend that proposed witness and multipliers.
    """

    weights: ImplicitWeights
    bound: float
    witness: Array
    norm_product_bound: float
    measure: float
    dual: Array
    output_dual: Array
    dual_value: float
    solver: str

    @property
    def primal_dual_gap(self) -> float:
        """Bound minus dual objective, relative to the bound (absolute where it is below 1e-38)."""
        return (self.bound - self.dual_value) / max(self.bound, _SMALL)

    @cached_property
    def gains(self) -> Array:
        """Γ = |C|(I − M)⁻¹|B| + |D|, shape (q, p): |Δy| ≤ Γ|Δu| (in float64, not proved)."""
        found = eliminated(self.weights.A)
        if found is None:
            raise _not_well_posed(self.weights.A, self.measure)
        gains = ScaledProgram.of(self.weights, self.witness, found[1]).gains(self.weights)
        return gains if self.weights.D is None else gains + np.abs(self.weights.D)

    @cached_property
    def weighted(self) -> OptimalWeights:
        """Weights η, the measure μ_{∞,η}(A) < 1 they attain, and the spectral abscissa of M(A).

        In float64. Above 2000 states no eigenvalues are computed: η comes from a power
        iteration, and `abscissa` is its upper bound, the measure.
        """
        return _weighted(self.weights.A, self.witness)

    @property
    def measure_weighted(self) -> float:
        """μ_{∞,η}(A) at the weights `eta`, in float64."""
        return self.weighted.measure

    @property
    def eta(self) -> Array:
        """Weights η, at most one."""
        return self.weighted.eta

    @property
    def abscissa(self) -> float:
        """Spectral abscissa of M(A), the infimum of μ_{∞,η}(A); see `weighted`."""
        return self.weighted.abscissa

    def pairwise_gains(self) -> Array:
        """Bounds on the differences of outputs: |Δ(y_i − y_j)| ≤ G_ij max|Δu|.

        Returns
        -------
        (q, q) array
            G_ij = |C_i − C_j| z + |D_i − D_j|1 with the witness z, rounded up; tighter than the
            gains of y_i and y_j together. The diagonal is zero.
        """
        C, z = self.weights.C.astype(np.float64), self.witness
        D = self.weights.D
        feed = np.zeros((len(C), 1)) if D is None else D.astype(np.float64)
        gains = np.zeros((len(C), len(C)))
        terms = C.shape[1] + feed.shape[1]
        with np.errstate(all="ignore"):
            for i in range(len(C)):
                gains[i] = np.abs(C - C[i]) @ z + np.abs(feed - feed[i]).sum(axis=1)
            # All terms are nonnegative, so that any order of summation has a relative error of
            # at most one rounding per term, plus those of difference and product. Below the
            # normal numbers a rounding, or a flush to zero, is absolute.
            lost = terms * 2.0**-1021 * (1.0 + z.max())
            gains = np.nextafter(gains * (1.0 + (terms + 8) * 2.0**-52) + lost, np.inf)
        np.fill_diagonal(gains, 0.0)
        # Both triangles are valid; summed in another order they may differ in the last bit.
        return np.asarray(np.minimum(gains, gains.T))

    def verify(self) -> bool:
        """Whether the witness proves the bound for the stored weights, in integer arithmetic."""
        weights = self.weights
        return prove_bound(weights.A, weights.B, weights.C, weights.D, self.witness, self.bound)

    def as_dict(self) -> dict[str, Any]:
        """The object that ``contraction-nets certify --json`` prints; null where infinite."""
        return {
            "well_posed": prove_well_posed(self.weights.A, self.witness),
            "mu_inf": _finite(self.measure),
            "mu_weighted": _finite(self.measure_weighted),
            "eta": self.eta.tolist(),
            "abscissa": _finite(self.abscissa),
            "lipschitz": {
                "bound": self.bound,
                "norm_product_bound": _finite(self.norm_product_bound),
                "solver": self.solver,
                "primal_dual_gap": _finite(self.primal_dual_gap),
                "verified": self.verify(),
            },
            "shapes": self.weights.shapes,
            "weights_sha256": self.weights.sha256,
        }

    def to_json(self) -> str:
        """`as_dict` as JSON text."""
        return json.dumps(self.as_dict(), allow_nan=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate as JSON, atomically; check it with `verify_document`.

        Raises
        ------
        ValueError
            The folder does not exist or cannot be written.
        """
        save_certificate(self, path)


def lipschitz_certificate(
    weights: ImplicitWeights | ArrayLike,
    B: ArrayLike | None = None,
    C: ArrayLike | None = None,
    D: ArrayLike | None = None,
    *,
    solver: str = "m_matrix",
    **options: Any,
) -> LipschitzCertificate:
    """Prove that a network is well-posed and bound its ℓ∞ → ℓ∞ Lipschitz constant (THEORY §4).

    The bound is the optimum of ``min t  s.t.  (I − M) z ≥ |B|1,  |C| z + |D|1 ≤ t 1,  z ≥ 0``.
    The solver's z is a proposal, refined, inflated by a few roundings and then proved in exact
    integer arithmetic: what is returned is proved, whoever solved. Next to the limit of
    well-posedness, and where products of weights leave the range of float64, the bound may
    exceed the optimum by more than rounding; it stays a bound. Where the optimum is zero, as
    without inputs, the bound is some 1e-270: a witness is positive.

    Parameters
    ----------
    weights : ImplicitWeights or (n, n) array
        The network, or its state matrix A followed by B (n, p), C (q, n) and maybe D (q, p).
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
        Malformed weights, an unknown option, or a bound above the largest float64.
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
    with np.errstate(all="ignore"):
        measure = matrix_measure(network.A)
    found = eliminated(network.A)
    if found is None:
        raise _not_well_posed(network.A, measure)
    K, factors = found
    v = next((v for v in well_posed_witnesses(K, factors) if prove_well_posed(network.A, v)), None)
    if v is None:
        raise _not_well_posed(network.A, measure)
    program = ScaledProgram.of(network, v, factors)
    solution = _solved(program.problem, solver, options)
    witness, bound = _proved(network, program, solution.point())
    dual, output_dual = solution.dual, solution.output_dual
    if dual is None or output_dual is None:
        dual, output_dual = program.duals(witness)
    return LipschitzCertificate(
        weights=network,
        bound=bound,
        witness=_read_only(witness),
        norm_product_bound=_norm_product_bound(network),
        measure=measure,
        dual=_read_only(program.unscaled_dual(dual)),
        output_dual=_read_only(output_dual),
        dual_value=program.dual_value(dual, output_dual),
        solver=solver,
    )


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
    return ImplicitWeights(weights, B, C, D)  # type: ignore[arg-type]


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


def _proved(
    weights: ImplicitWeights, program: ScaledProgram, proposal: Array
) -> tuple[Array, float]:
    """The first proposed witness that proves its own bound exactly."""
    for z in program.witnesses(proposal):
        bound = exact_bound(weights.C, weights.D, z)
        if not math.isfinite(bound):
            raise ValueError(
                "the Lipschitz bound exceeds the largest float64, expected a smaller one; "
                "rescale the inputs or the outputs."
            )
        if prove_bound(weights.A, weights.B, weights.C, weights.D, z, bound):
            return z, bound
    raise SolverError(
        "no witness in float64 proves a bound although the weights are well-posed, expected the "
        "entries of (I − M)⁻¹|B|1 to be in its range; rescale the inputs or the states."
    )


def _not_well_posed(A: NDArray[Any], measure: float) -> NotWellPosedError:
    abscissa = _abscissa(A)
    if abscissa < 1.0:
        reason = "too close to 1, or states of too different scales, for a proof in float64"
    else:
        reason = "expected below 1"
    return NotWellPosedError(
        f"the weights cannot be proved well-posed: μ∞(A) = {measure:.6g} and the spectral abscissa "
        f"of its Metzler majorant is {abscissa:.12g}, {reason}; "
        "project A onto a γ < 1 or train with the constraint.",
        measure=measure,
        abscissa=abscissa,
    )


def _abscissa(A: NDArray[Any]) -> float:
    """Spectral abscissa of M(A), or an upper bound on it where eigenvalues are out of reach."""
    if len(A) <= _EIGENVALUE_LIMIT:
        try:
            return spectral_abscissa(A)
        except np.linalg.LinAlgError:
            pass
    return _power_weights(A, np.ones(len(A))).abscissa


def _weighted(A: NDArray[Any], witness: Array) -> OptimalWeights:
    found = _power_weights(A, witness)
    if len(A) > _EIGENVALUE_LIMIT:
        return found
    try:
        with np.errstate(all="ignore"):
            best = optimal_weights(A)
    except (np.linalg.LinAlgError, ValueError):
        return found
    # Rounding can push a computed eigenvalue above what the witness proves.
    abscissa = min(best.abscissa, found.measure, best.measure)
    chosen = best if best.measure <= found.measure else found
    return OptimalWeights(eta=chosen.eta, measure=chosen.measure, abscissa=abscissa)


def _power_weights(A: NDArray[Any], start: Array) -> OptimalWeights:
    """The best weights met by a power iteration on M(A), shifted to be nonnegative."""
    M = metzler_majorant(A)
    shift = 1.0 + max(0.0, -float(np.diagonal(M).min()))
    eta = best = start / start.max()
    measure = math.inf
    with np.errstate(all="ignore"):
        for _ in range(_POWER_STEPS):
            product = M @ eta
            # A weight that has underflowed to zero ends the iteration through NaN or Inf.
            here = float((product / eta).max())
            if not here < math.inf:
                break
            if here < measure:
                measure, best = here, eta
            eta = product + shift * eta
            eta = eta / eta.max()
    return OptimalWeights(eta=best, measure=measure, abscissa=measure)


def _norm_product_bound(weights: ImplicitWeights) -> float:
    """‖B‖∞‖C‖∞ / (1 − μ∞(A)₊) + ‖D‖∞, every rounding upwards."""
    M = metzler_majorant(weights.A)
    try:
        slack = 1 - Fraction(max(_largest_row_sum(M), 0.0))
        if slack <= 0:
            return math.inf
        norms = [
            Fraction(_largest_row_sum(np.abs(matrix)))
            for matrix in (weights.B, weights.C, weights.D)
            if matrix is not None
        ]
        exact = norms[0] * norms[1] / slack + sum(norms[2:])
        nearest = float(exact)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


def _largest_row_sum(matrix: NDArray[Any]) -> float:
    """Largest row sum, rounded up; OverflowError where it is out of range."""
    largest = max(math.fsum(row) for row in matrix.tolist())
    return largest if not matrix.any() else math.nextafter(largest, math.inf)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read_only(values: Array) -> Array:
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy
