"""The search for a witness z of THEORY §4, in units in which the linear program is tame.

Floating point proposes here and nowhere decides: whatever this file returns is then proved,
or refused, by exact.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, issparse

from contraction_nets.certificates.systems import System
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.solving.problems import LipschitzProblem

Array = NDArray[np.float64]
Exponents = NDArray[np.int64]

_ROUNDING = 2.0**-50
_LOWEST = -1000  # smallest exponent of a witness: all of its entries stay normal numbers


def well_posed_witnesses(system: System) -> Iterator[Array]:
    """Proposals for v > 0 with (I − M(A)) v > 0.

    Yields
    ------
    (n,) array
        About the solution of (I − M) v = diag(I − M), which is at least one in every component.
    """
    diagonal = system.K.diagonal()
    yield from _inflations(system, system.refined(diagonal), diagonal)


@dataclass(frozen=True, eq=False)
class ScaledProgram:
    """The linear program of a network with state i in units of 2**state_exponents[i].

    With these units close to a witness v of well-posedness, the rows of I − M are diagonally
    dominant and no entry is large, whatever the weights looked like. Powers of two change no
    bit of any of them short of underflow.

    Attributes
    ----------
    problem : LipschitzProblem
        Scaled data; its largest right-hand side and largest gain are of order one.
    system : System
        That of I − M in these units.
    state_exponents : (n,) integer array
    input_exponent, output_exponent : int
        Units of the input and of the bound.
    """

    problem: LipschitzProblem
    system: System
    state_exponents: Exponents
    input_exponent: int
    output_exponent: int

    @classmethod
    def of(
        cls, weights: ImplicitWeights, epsilon: Array | None, v: Array, system: System
    ) -> ScaledProgram:
        """The program in the units of v, a witness that these weights are well-posed.

        `epsilon` are the radii of the inputs, all ones where it is None; `system` is that of
        I − M in the units of the network.
        """
        B, C = _magnitudes(weights.B), _magnitudes(weights.C)
        D = csr_array((C.shape[0], B.shape[1])) if weights.D is None else _magnitudes(weights.D)
        states = np.frexp(v)[1].astype(np.int64)
        radii = np.zeros(B.shape[1], np.int64) if epsilon is None else _exponents(epsilon)
        inputs = _largest_exponent(_largest(B, radii) - states)
        outputs = _largest_exponent(
            np.append(_largest(C, states + inputs), _largest(D, radii).max())
        )
        factors = np.ones(B.shape[1]) if epsilon is None else epsilon
        with np.errstate(all="ignore"):
            scaled = system.scaled(states)
            one: Any = eye_array(len(v), format="csr")
            if not issparse(scaled.K):
                one, C = one.toarray(), C.toarray() if issparse(C) else C
            problem = LipschitzProblem(
                M=one - scaled.K,
                b=_weighted_sums(B, -(states + inputs), factors),
                C=_shifted(C, np.full(C.shape[0], inputs - outputs), states),
                d=_weighted_sums(D, np.full(D.shape[0], -outputs), factors),
            )
        return cls(problem, scaled, states, inputs, outputs)

    def witnesses(self, proposal: Array) -> Iterator[Array]:
        """Proposals for z in the units of the network, tightest first.

        The solver's z is refined to (I − M)⁻¹ b, then inflated by more and more.
        """
        units = self.state_exponents + self.input_exponent
        b = self.problem.b.copy()
        with np.errstate(all="ignore"):
            # Where no input arrives z is zero and proves nothing: it gets the smallest input.
            floor = np.ldexp(1.0, np.maximum(_LOWEST - units, -900))
            z = self.system.refined(b, start=proposal)
            # Rounding noise of the proposal in such a state would be amplified like an input.
            z = np.where(self.system.solve(b) > 0, z, 0.0)
            if (z < floor).any():
                b = np.where(z < floor, np.maximum(b, floor * self.system.K.diagonal()), b)
                z = self.system.refined(b)
        for inflated in _inflations(self.system, z, b):
            with np.errstate(all="ignore"):
                candidate = np.ldexp(inflated, units)
            if np.isfinite(candidate).all():
                yield candidate

    def output_witnesses(self) -> Iterator[Array]:
        """Proposals for Y with Y (I − M) ≥ |C| in the units of the network, tightest first."""
        system = self.system.transposed()
        C = self.problem.C
        right = np.ascontiguousarray((C.toarray() if issparse(C) else C).T)
        shift = self.output_exponent - self.input_exponent - self.state_exponents
        for inflated in _inflations(system, system.refined(right), right, strict=False):
            with np.errstate(all="ignore"):
                Y = np.ldexp(inflated.T, shift)
            if np.isfinite(Y).all():
                yield Y

    def worst_output(self, witness: Array) -> Array:
        """Multipliers (q,) of the output rows that are optimal beside this witness: one counts."""
        with np.errstate(all="ignore"):
            z = np.ldexp(witness, -(self.state_exponents + self.input_exponent))
            selected = np.zeros(len(self.problem.d))
            selected[np.argmax(self.problem.C @ z + self.problem.d)] = 1.0
        return selected

    def duals(self, output_dual: Array) -> tuple[Array, Array]:
        """The best multipliers beside these (q,) of the output rows, in the units of the program.

        Those of the state rows are (I − M)⁻ᵀ Cᵀπ: no feasible ones are larger in any component.
        """
        return self.system.transposed().solve(self.problem.C.T @ output_dual), output_dual

    def dual_value(self, dual: Array, output_dual: Array) -> float:
        """The dual objective in the units of the network."""
        with np.errstate(all="ignore"):
            value = self.problem.b @ dual + self.problem.d @ output_dual
            return float(np.ldexp(value, self.output_exponent))

    def unscaled_dual(self, dual: Array) -> Array:
        """Multipliers of the state rows in the units of the network."""
        with np.errstate(all="ignore"):
            shift = self.output_exponent - self.input_exponent - self.state_exponents
            return np.ldexp(dual, shift)


def _inflations(system: System, z: Array, b: Array, *, strict: bool = True) -> Iterator[Array]:
    """z + δ K⁻¹ w with growing δ, where it seems to satisfy K z > b (or ≥ b).

    w = |K| z + b is the scale of the rounding errors row by row, so that δ w beats them with
    a δ of a few roundings in all rows alike.
    """
    with np.errstate(all="ignore"):
        direction = system.solve(abs(system.K) @ z + b)
    for step in range(17):
        # Entered anew each time: around a yield it would also cover whoever iterates.
        with np.errstate(all="ignore"):
            inflated = z + _ROUNDING * 8.0**step * direction
            slack = system.K @ inflated - b
            plausible = np.isfinite(inflated).all() and (slack > 0 if strict else slack >= 0).all()
        if plausible:
            yield inflated


def _magnitudes(values: Any) -> Any:
    return abs(values.astype(np.float64))


def _exponents(values: Any) -> Exponents:
    """Binary exponents; far below that of any float for zeros."""
    return np.where(values == 0, -(2**20), np.frexp(values)[1]).astype(np.int64)


def _largest_exponent(exponents: Exponents) -> int:
    """The largest, or zero where every number is zero."""
    largest = int(exponents.max())
    return largest if largest > -(2**19) else 0


def _largest(matrix: Any, columns: Exponents) -> Exponents:
    """Largest exponent in every row of a nonnegative matrix whose column j has units 2**columns."""
    if not issparse(matrix):
        return np.asarray((_exponents(matrix) + columns).max(axis=1))
    exponents = _exponents(matrix.data) + columns[matrix.indices]
    largest = np.full(matrix.shape[0], -(2**20), np.int64)
    np.maximum.at(largest, np.repeat(np.arange(len(largest)), np.diff(matrix.indptr)), exponents)
    return largest


def _shifted(matrix: Any, rows: Exponents, columns: Exponents) -> Any:
    """The matrix with entry (i, j) times 2**(rows[i] + columns[j])."""
    if not issparse(matrix):
        return np.ldexp(matrix, rows[:, None] + columns)
    each_row = np.repeat(rows, np.diff(matrix.indptr))
    data = np.ldexp(matrix.data, each_row + columns[matrix.indices])
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _weighted_sums(matrix: Any, rows: Exponents, factors: Array) -> Array:
    """Row i of matrix @ factors, times 2**rows[i]; no product overflows that should not."""
    exponents = np.frexp(factors)[1].astype(np.int64)
    scaled = _shifted(matrix, rows, exponents)
    return np.asarray(scaled @ np.ldexp(factors, -exponents))
