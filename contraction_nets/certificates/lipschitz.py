"""The ℓ∞ Lipschitz certificate of an implicit network: one linear program (THEORY §4)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from contraction_nets.certificates.document import save_statement
from contraction_nets.certificates.exact import exact_bound, prove_bound, prove_well_posed
from contraction_nets.certificates.norms import induced_norm
from contraction_nets.certificates.optimal import OptimalWeights, attained, optimal_weights
from contraction_nets.certificates.rounding import rounded_up
from contraction_nets.certificates.statements import (
    GainMatrix,
    LipschitzBound,
    PairwiseGains,
    Statement,
    WeightedMeasure,
)
from contraction_nets.certificates.systems import system_of
from contraction_nets.certificates.weights import ImplicitWeights, full
from contraction_nets.certificates.witness import ScaledProgram, well_posed_witnesses
from contraction_nets.errors import NotWellPosedError, SolverError
from contraction_nets.geometry.measures import as_finite, matrix_measure, metzler_majorant
from contraction_nets.solving.problems import LipschitzProblem
from contraction_nets.solving.solution import Solution

Array = NDArray[np.float64]

_SMALL = float(np.finfo(np.float32).tiny)
_FEASIBLE = 1e-10  # violation of a dual constraint that counts as rounding


@dataclass(frozen=True, eq=False)
class LipschitzCertificate:
    """A proof that max|y(u) − y(v)| ≤ bound · max|u − v| for all inputs u and v.

    With radii ε the bound holds where |u_j − v_j| ≤ ε_j instead.

    Attributes
    ----------
    weights : ImplicitWeights
        What it is about, as stored.
    bound : float
        In output units per input unit (pixels in [0, 1], say), rounded up.
    witness : (n,) array
        z > 0 with (I − M) z > 0, (I − M) z ≥ |B|ε and |C| z + |D|ε ≤ bound: the proof.
    norm_product_bound : float
        The bound ‖B‖∞‖C‖∞ / (1 − μ∞(A)₊) + ‖D‖∞ of [NEMON], times max ε, rounded up; inf where
        μ∞(A) ≥ 1.
    measure : float
        μ∞(A), in float64.
    dual : (n,) array
        Multipliers of the state rows, from the solver; recomputed from those of the output rows
        where they violate the dual constraints by more than rounding.
    output_dual : (q,) array
        Multipliers of the output rows, from the solver.
    dual_value : float
        Dual objective: no witness can prove a bound below it (in float64, not proved).
    solver : str
        The backend that proposed witness and multipliers.
    epsilon : (p,) array or None
        Radii of the inputs; None stands for all ones.
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
    epsilon: Array | None = None

    @property
    def primal_dual_gap(self) -> float:
        """Bound minus dual objective, relative to the bound (absolute where it is below 1e-38)."""
        return (self.bound - self.dual_value) / max(self.bound, _SMALL)

    @cached_property
    def gains(self) -> Array:
        """Γ = |C|(I − M)⁻¹|B| + |D|, shape (q, p), rounded up: |Δy| ≤ Γ|Δu| entry by entry.

        ``statement("gains")`` has the witness that proves it in exact arithmetic. Radii ε have no
        part in it.
        """
        return self._gain_matrix.gains

    @cached_property
    def _gain_matrix(self) -> GainMatrix:
        weights = self.weights
        system = system_of(weights.A)
        assert system is not None  # these weights were proved well-posed
        v = next(v for v in well_posed_witnesses(system) if prove_well_posed(weights.A, v))
        program = ScaledProgram.of(weights, None, v, system)
        Y = next(program.output_witnesses(), None)
        if Y is None:
            raise SolverError(
                "no witness in float64 seems to prove the gains, expected the entries of "
                "|C|(I − M)⁻¹ in its range; rescale the inputs or the outputs."
            )
        gains = rounded_up(Y @ abs(weights.B.astype(np.float64)), weights.state_dim, Y.max())
        if weights.D is not None:
            D = full(weights.D)
            gains = rounded_up(gains + np.abs(D), 1, 0.0)
        return GainMatrix(gains, v, Y)

    @cached_property
    def weighted(self) -> OptimalWeights:
        """Weights η, the measure μ_{∞,η}(A) < 1 they attain, and the spectral abscissa of M(A)."""
        best = optimal_weights(self.weights.A)
        eta = self.witness / self.witness.max()
        with np.errstate(all="ignore"):
            measure = matrix_measure(self.weights.A, eta) if (eta > 0).all() else math.inf
        if measure < best.measure:
            best = replace(best, eta=eta, measure=measure)
        # Rounding can push a computed abscissa above what the weights attain.
        return replace(best, abscissa=min(best.abscissa, best.measure))

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
            G_ij = |C_i − C_j| z + |D_i − D_j|ε with the witness z, rounded up; tighter than the
            gains of y_i and y_j together. The diagonal is zero. ``statement("pairs")`` is the
            same to be proved in exact arithmetic.
        """
        return output_differences(self.weights.C, self.weights.D, self.witness, self.epsilon)

    @property
    def worst_output(self) -> int:
        """The output whose bound is largest (in float64)."""
        with np.errstate(all="ignore"):
            gains = abs(self.weights.C.astype(np.float64)) @ self.witness
            if self.weights.D is not None:
                D = abs(self.weights.D.astype(np.float64))
                gains = gains + D @ (np.ones(D.shape[1]) if self.epsilon is None else self.epsilon)
        return int(np.argmax(gains))

    @property
    def worst_pair(self) -> tuple[int, int]:
        """The output and the input with the largest gain Γ_kj ε_j."""
        gains = self.gains if self.epsilon is None else self.gains * self.epsilon
        k, j = np.unravel_index(int(np.argmax(gains)), gains.shape)
        return int(k), int(j)

    def norm(self, p: float = math.inf, q: float = math.inf) -> float:
        """Bound on the ℓp → ℓq Lipschitz constant that follows from the gains Γ, rounded up.

        Parameters
        ----------
        p, q : float
            At least one; ``math.inf`` for the maximum norm.

        Returns
        -------
        float
            In output units per input unit. For p = q = ∞ it is `bound` up to rounding.
        """
        return induced_norm(self.gains, p, q)

    def statement(self, kind: str = "lipschitz") -> Statement:
        """A statement with its witness, to be proved by anyone who has the weights.

        Parameters
        ----------
        kind : {"lipschitz", "pairs", "gains", "sectors", "measure"}
            The bound, the pairwise gains, the gain matrix, the semidefinite bounds of all outputs
            (smaller, and slower to find), or the weighted measure with a bound on what any
            weights can attain.

        Raises
        ------
        ValueError
            Another kind.
        SolverError
            Gains or semidefinite bounds that cannot be proved in float64.
        """
        made: dict[str, Callable[[], Statement]] = {
            "lipschitz": lambda: LipschitzBound(self.bound, self.witness, self.epsilon),
            "pairs": lambda: PairwiseGains(self.pairwise_gains(), self.witness, self.epsilon),
            "gains": lambda: self._gain_matrix,
            "sectors": self._sector_bounds,
            "measure": lambda: measure_statement(self.weights, self.weighted),
        }
        if kind not in made:
            raise ValueError(f"got the statement {kind!r}, expected one of {', '.join(made)}.")
        return made[kind]()

    def _sector_bounds(self) -> Statement:
        from contraction_nets.certificates.sector_proof import sector_bounds_statement

        return sector_bounds_statement(self)

    def verify(self) -> bool:
        """Whether the witness proves the bound for the stored weights, in integer arithmetic."""
        return self.statement().prove(self.weights)

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

    def save(self, path: str | os.PathLike[str], kind: str = "lipschitz") -> None:
        """Write a statement with its witness as JSON, atomically; check it with `verify_document`.

        Parameters
        ----------
        path : path
        kind : str
            As in `statement`.

        Raises
        ------
        ValueError
            Another kind, or the folder does not exist or cannot be written.
        """
        save_statement(self.statement(kind), self.weights, path, self.as_dict())


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
    system = system_of(network.A)
    if system is None:
        raise _not_well_posed(network.A, measure)
    v = next((v for v in well_posed_witnesses(system) if prove_well_posed(network.A, v)), None)
    if v is None:
        raise _not_well_posed(network.A, measure)
    program = ScaledProgram.of(network, radii, v, system)
    solution = _solved(program.problem, solver, options)
    witness, bound = _proved(network, radii, program, solution.point())
    dual, output_dual = _multipliers(program, solution, witness)
    return LipschitzCertificate(
        weights=network,
        bound=bound,
        witness=_read_only(witness),
        norm_product_bound=_norm_product_bound(network, radii),
        measure=measure,
        dual=_read_only(program.unscaled_dual(dual)),
        output_dual=_read_only(output_dual),
        dual_value=program.dual_value(dual, output_dual),
        solver=solver,
        epsilon=None if radii is None else _read_only(radii),
    )


def output_differences(C: Any, D: Any, z: Array, epsilon: Array | None) -> Array:
    """|C_i − C_j| z + |D_i − D_j|ε for all i and j, (q, q), rounded up; D may be None."""
    rows = full(C)
    feed = np.zeros((len(rows), 1)) if D is None else full(D)
    radii = np.ones(feed.shape[1]) if epsilon is None else epsilon
    sums = np.zeros((len(rows), len(rows)))
    with np.errstate(all="ignore"):
        for i in range(len(rows)):
            sums[i] = np.abs(rows - rows[i]) @ z
            if D is not None:
                sums[i] += np.abs(feed - feed[i]) @ radii
    sums = rounded_up(sums, rows.shape[1] + feed.shape[1], max(z.max(), radii.max()))
    np.fill_diagonal(sums, 0.0)
    # Both triangles are valid; summed in another order they may differ in the last bit.
    return np.asarray(np.minimum(sums, sums.T))


def measure_statement(weights: ImplicitWeights, optimal: OptimalWeights) -> WeightedMeasure:
    """The measure that these weights η attain, and what no weights can, as a statement to prove."""
    gamma = attained(weights.A, optimal.eta)
    if not math.isfinite(optimal.lower):
        return WeightedMeasure(gamma, optimal.eta)
    return WeightedMeasure(gamma, optimal.eta, optimal.lower, optimal.x)


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


def _proved(
    weights: ImplicitWeights, radii: Array | None, program: ScaledProgram, proposal: Array
) -> tuple[Array, float]:
    """The first proposed witness that proves its own bound exactly."""
    for z in program.witnesses(proposal):
        bound = exact_bound(weights.C, weights.D, z, radii)
        if not math.isfinite(bound):
            raise ValueError(
                "the Lipschitz bound exceeds the largest float64, expected a smaller one; "
                "rescale the inputs or the outputs."
            )
        if prove_bound(weights.A, weights.B, weights.C, weights.D, z, bound, radii):
            return z, bound
    raise SolverError(
        "no witness in float64 proves a bound although the weights are well-posed, expected the "
        "entries of (I − M)⁻¹|B|1 to be in its range; rescale the inputs or the states."
    )


def _not_well_posed(A: Any, measure: float) -> NotWellPosedError:
    abscissa = optimal_weights(A).abscissa
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read_only(values: Array) -> Array:
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy
