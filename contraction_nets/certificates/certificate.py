"""What `lipschitz_certificate` returns: a bound, its witness, and what follows from the two."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.document import save_statement
from contraction_nets.certificates.exact import prove_well_posed
from contraction_nets.certificates.gains import gain_matrix_statement, output_differences
from contraction_nets.certificates.norms import induced_norm
from contraction_nets.certificates.optimal import OptimalWeights, attained, optimal_weights
from contraction_nets.certificates.statements import (
    GainMatrix,
    LipschitzBound,
    PairwiseGains,
    Statement,
    WeightedMeasure,
)
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.errors import SolverError
from contraction_nets.geometry.measures import matrix_measure

Array = NDArray[np.float64]

_SMALL = float(np.finfo(np.float32).tiny)


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

        Proved in exact arithmetic when they are first asked for; ``statement("gains")`` has the
        witness. Radii ε have no part in it.

        Raises
        ------
        SolverError
            No witness in float64 proves them, as happens next to the limit of well-posedness.
        """
        return self._gain_matrix.gains

    @cached_property
    def _gain_matrix(self) -> GainMatrix:
        return gain_matrix_statement(self.weights)

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
            "lipschitz": lambda: LipschitzBound(self.bound, self.witness, epsilon=self.epsilon),
            "pairs": lambda: PairwiseGains(
                self.pairwise_gains(), self.witness, epsilon=self.epsilon
            ),
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
        """Whether the witness proves the bound for the stored weights, in integer arithmetic.

        Proved anew in every call, whatever became of the arrays.
        """
        return self.statement().prove(self.weights)

    @cached_property
    def verified(self) -> bool:
        """The answer of `verify` when the certificate was made, for reports."""
        return self.verify()

    def as_dict(self) -> dict[str, Any]:
        """The object that ``contraction-nets certify --json`` prints; null where infinite."""
        return {
            "well_posed": self.verified or prove_well_posed(self.weights.A, self.witness),
            "mu_inf": _finite(self.measure),
            "mu_weighted": _finite(self.measure_weighted),
            "eta": self.eta.tolist(),
            "abscissa": _finite(self.abscissa),
            "lipschitz": {
                "bound": self.bound,
                "norm_product_bound": _finite(self.norm_product_bound),
                "solver": self.solver,
                "primal_dual_gap": _finite(self.primal_dual_gap),
                "verified": self.verified,
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
        SolverError
            A statement that cannot be proved in float64; nothing is written then.
        """
        statement = self.statement(kind)
        known = kind == "gains" or (kind == "lipschitz" and self.verified)  # proved when made
        if not (known or _proved(statement, self.weights)):
            raise SolverError(
                f"no witness in float64 proves the statement '{kind}', expected weights whose "
                "abscissa is below one by more than rounding; state the lipschitz bound."
            )
        save_statement(statement, self.weights, path, self.as_dict())


def measure_statement(weights: ImplicitWeights, optimal: OptimalWeights) -> WeightedMeasure:
    """The measure that these weights η attain, and what no weights can, as a statement to prove."""
    gamma = attained(weights.A, optimal.eta)
    if not math.isfinite(optimal.lower):
        return WeightedMeasure(gamma, optimal.eta)
    return WeightedMeasure(gamma, optimal.eta, optimal.lower, optimal.x)


def _proved(statement: Statement, weights: ImplicitWeights) -> bool:
    """Whether the witness proves the statement; numbers that overflowed prove nothing."""
    try:
        return statement.prove(weights)
    except ValueError:
        return False


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
