"""What a certificate can state, each with its witness and the proof that decides it.

A statement is a frozen dataclass of numbers: what is claimed, and what proves it. Adding one is
adding a class; the file format, `verify` and the command line follow from its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates import exact
from contraction_nets.certificates.exact_equilibrium import prove_equilibrium
from contraction_nets.certificates.exact_sectors import prove_sectors

if TYPE_CHECKING:
    from contraction_nets.certificates.weights import ImplicitWeights

Array = NDArray[np.float64]


class Statement(ABC):
    """A claim about weights, and a witness of it."""

    kind: ClassVar[str]
    """Its name in files and on the command line."""
    norms: ClassVar[str] = "linf->linf"
    claims: ClassVar[dict[str, int]]
    """Field → number of its dimensions; one that is None is left out of the file."""
    witnesses: ClassVar[dict[str, int]]

    @property
    @abstractmethod
    def text(self) -> str:
        """The claim in words, about the names in `claims`."""

    @abstractmethod
    def prove(self, weights: ImplicitWeights) -> bool:
        """Whether the witness proves the claim for these weights, in exact arithmetic.

        Raises
        ------
        ValueError
            Shapes that do not fit these weights.
        """

    def part(self, names: dict[str, int]) -> dict[str, Any]:
        """The fields of these names that are there."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, eq=False, kw_only=True)
class RadiusStatement(Statement):
    """A claim about all pairs of inputs that are at most ε_j t apart, for every t.

    Attributes
    ----------
    epsilon : (p,) array, optional
        In input units; all ones where it is None, which makes the bounds Lipschitz constants.
    """

    moves: ClassVar[str]
    """What moves, and the bound on it per unit of t."""

    epsilon: Array | None = None

    @property
    def text(self) -> str:
        size = "max|u - v| for all inputs u, v"
        if self.epsilon is not None:
            size = "t for all t and all inputs u, v with |u_j - v_j| <= epsilon_j * t"
        return f"well-posed, {self.moves} * {size}"

    def _some_input_moves(self) -> bool:
        """Whether an ε is above zero: if none is, equal inputs refute the text where t < 0."""
        return self.epsilon is None or bool(np.any(np.asarray(self.epsilon) > 0))


@dataclass(frozen=True, eq=False)
class LipschitzBound(RadiusStatement):
    """No output moves by more than `bound` while no input j moves by more than ε_j.

    Attributes
    ----------
    bound : float
        In output units; without ε per unit of input.
    z : (n,) array
    """

    kind = "lipschitz"
    moves = "and max|y(u) - y(v)| <= bound"
    claims: ClassVar = {"bound": 0, "epsilon": 1}
    witnesses: ClassVar = {"z": 1}

    bound: float
    z: Array

    def prove(self, weights: ImplicitWeights) -> bool:
        proved = exact.prove_bound(*_matrices(weights), self.z, self.bound, self.epsilon)
        return proved and self._some_input_moves()


@dataclass(frozen=True, eq=False)
class PairwiseGains(RadiusStatement):
    """No difference y_i − y_j moves by more than gains_ij while no input j moves by more than ε_j.

    Attributes
    ----------
    gains : (q, q) array
        In output units; without ε per unit of input.
    z : (n,) array
    """

    kind = "pairs"
    moves = "and |y_i(u) - y_j(u) - y_i(v) + y_j(v)| <= gains_ij"
    claims: ClassVar = {"gains": 2, "epsilon": 1}
    witnesses: ClassVar = {"z": 1}

    gains: Array
    z: Array

    def prove(self, weights: ImplicitWeights) -> bool:
        proved = exact.prove_pairs(*_matrices(weights), self.z, self.gains, self.epsilon)
        return proved and self._some_input_moves()


@dataclass(frozen=True, eq=False)
class SectorBounds(RadiusStatement):
    """No output k moves by more than bounds_k while no input j moves by more than ε_j.

    Signs of the weights are kept, where `LipschitzBound` takes absolute values. An output whose
    multipliers prove nothing may have its bound from z alone, as there.

    Attributes
    ----------
    bound : float
        At least every one of the bounds.
    bounds : (q,) array
        In output units; without ε per unit of input.
    z : (n,) array
    multipliers : (q, n) array
        κ of every output, as `prove_sectors` takes them.
    input_multipliers, inverses : (q, p) arrays
        μ and ν ≥ 1/μ.
    factors : (q, (n + 1)(n + 2)/2) array
        Lower triangles, row by row.
    """

    kind = "sectors"
    moves = "bounds_k <= bound, and |y_k(u) - y_k(v)| <= bounds_k"
    claims: ClassVar = {"bound": 0, "bounds": 1, "epsilon": 1}
    witnesses: ClassVar = {
        "z": 1,
        "multipliers": 2,
        "input_multipliers": 2,
        "inverses": 2,
        "factors": 2,
    }

    bound: float
    bounds: Array
    z: Array
    multipliers: Array
    input_multipliers: Array
    inverses: Array
    factors: Array

    def prove(self, weights: ImplicitWeights) -> bool:
        largest = exact.read_number(self.bound, "bound")
        bounds = exact.entries(exact.read_vector(self.bounds, "bounds"))
        within = all(exact.at_most(bound, largest) for bound in bounds)
        if not (within and self._some_input_moves()):
            return False
        if self._sectors(weights, slice(None)):
            return True
        q = weights.output_dim
        if np.shape(self.bounds) != (q,):
            raise ValueError(f"got bounds of shape {np.shape(self.bounds)}, expected {q} of them.")
        return all(
            self._sectors(weights, slice(k, k + 1)) or self._row(weights, k) for k in range(q)
        )

    def _sectors(self, weights: ImplicitWeights, rows: slice) -> bool:
        """Whether the multipliers prove the bounds of these outputs."""
        A, B, C, D = _matrices(weights)
        return prove_sectors(
            A,
            B,
            C[rows],
            None if D is None else D[rows],
            self.z,
            self.multipliers[rows],
            self.input_multipliers[rows],
            self.inverses[rows],
            self.factors[rows],
            self.bounds[rows],
            self.epsilon,
        )

    def _row(self, weights: ImplicitWeights, k: int) -> bool:
        """Whether z proves the bound of this output as it proves a `LipschitzBound`."""
        A, B, C, D = _matrices(weights)
        row = C[[k]], None if D is None else D[[k]]
        return exact.prove_bound(A, B, *row, self.z, float(self.bounds[k]), self.epsilon)


@dataclass(frozen=True, eq=False)
class GainMatrix(Statement):
    """|Δy| ≤ gains |Δu| entry by entry: every other bound on norms follows from it.

    Attributes
    ----------
    gains : (q, p) array
        In output units per input unit.
    z : (n,) array
    Y : (q, n) array
        Y (I − M(A)) ≥ |C|.
    """

    kind = "gains"
    norms = "entrywise"
    claims: ClassVar = {"gains": 2}
    witnesses: ClassVar = {"z": 1, "Y": 2}

    gains: Array
    z: Array
    Y: Array

    @property
    def text(self) -> str:
        return (
            "well-posed, and |y_k(u) - y_k(v)| <= sum_j gains_kj * |u_j - v_j| for all inputs u, v"
        )

    def prove(self, weights: ImplicitWeights) -> bool:
        return exact.prove_gains(*_matrices(weights), self.z, self.Y, self.gains)


@dataclass(frozen=True, eq=False)
class WeightedMeasure(Statement):
    """μ_{∞,η}(A) ≤ gamma for the η given, and no weights attain less than `lower`.

    Attributes
    ----------
    gamma : float
    eta : (n,) array
    lower : float, optional
    x : (n,) array, optional
        x ≥ 0, not zero, with M(A) x ≥ lower · x.
    """

    kind = "measure"
    claims: ClassVar = {"gamma": 0, "lower": 0}
    witnesses: ClassVar = {"eta": 1, "x": 1}

    gamma: float
    eta: Array
    lower: float | None = None
    x: Array | None = None

    @property
    def text(self) -> str:
        least = "" if self.lower is None else ", and with no weights is it < lower"
        return f"the matrix measure of A with the weights eta is <= gamma{least}"

    def prove(self, weights: ImplicitWeights) -> bool:
        if (self.lower is None) != (self.x is None):
            return False
        attained = exact.prove_measure(weights.A, self.gamma, self.eta)
        if self.lower is None or self.x is None:
            return attained
        return attained and exact.prove_abscissa(weights.A, self.lower, self.x)


@dataclass(frozen=True, eq=False)
class NotContracting(Statement):
    """No weights η give μ_{∞,η}(A) < lower: with lower ≥ 1, no certificate in ℓ∞ exists.

    Attributes
    ----------
    lower : float
    x : (n,) array
        x ≥ 0, not zero, with M(A) x ≥ lower · x.
    """

    kind = "not_contracting"
    claims: ClassVar = {"lower": 0}
    witnesses: ClassVar = {"x": 1}

    lower: float
    x: Array

    @property
    def text(self) -> str:
        return "with no weights eta is the matrix measure of A < lower"

    def prove(self, weights: ImplicitWeights) -> bool:
        return exact.prove_abscissa(weights.A, self.lower, self.x)


@dataclass(frozen=True, eq=False)
class EquilibriumError(Statement):
    """The computed state is within `distance` of the only equilibrium, in the maximum norm.

    Attributes
    ----------
    distance : float
    input : (p,) array
    state : (n,) array
        The computed one.
    z : (n,) array
    w : (n,) array
        Bound on the error of every state.
    """

    kind = "equilibrium"
    norms = "linf"
    claims: ClassVar = {"distance": 0, "input": 1, "state": 1}
    witnesses: ClassVar = {"z": 1, "w": 1}

    distance: float
    input: Array
    state: Array
    z: Array
    w: Array

    @property
    def text(self) -> str:
        return "well-posed, and max|state - equilibrium of input| <= distance"

    def prove(self, weights: ImplicitWeights) -> bool:
        from contraction_nets.certificates.weights import parse_activation

        return prove_equilibrium(
            weights.A,
            weights.B,
            weights.b,
            parse_activation(weights.activation),
            self.input,
            self.state,
            self.z,
            self.w,
            self.distance,
        )


def _kinds(base: type[Any]) -> Iterator[type[Statement]]:
    """Every class below that has a kind of its own; what they share has none."""
    for child in base.__subclasses__():
        if "kind" in vars(child):
            yield child
        yield from _kinds(child)


STATEMENTS: dict[str, type[Statement]] = {found.kind: found for found in _kinds(Statement)}
"""Kind → class."""


def _matrices(weights: ImplicitWeights) -> tuple[Any, Any, Any, Any]:
    return weights.A, weights.B, weights.C, weights.D
