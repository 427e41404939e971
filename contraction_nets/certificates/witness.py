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

from contraction_nets.certificates.elimination import eliminate, solve_factored
from contraction_nets.certificates.weights import ImplicitWeights
from contraction_nets.geometry.measures import metzler_majorant
from contraction_nets.solving.problems import LipschitzProblem

Array = NDArray[np.float64]
Exponents = NDArray[np.int64]

_ROUNDING = 2.0**-50
_LOWEST = -1000  # smallest exponent of a witness: all of its entries stay normal numbers


def eliminated(A: NDArray[Any]) -> tuple[Array, Array] | None:
    """K = I − M(A) and its elimination, or None where K is seen to be no M-matrix."""
    K = np.eye(len(A)) - metzler_majorant(A)
    factors = eliminate(K)
    return None if factors is None else (K, factors)


def well_posed_witnesses(K: Array, factors: Array) -> Iterator[Array]:
    """Proposals for v > 0 with (I − M(A)) v > 0.

    Parameters
    ----------
    K, factors : (n, n) arrays
        I − M(A) and its elimination.

    Yields
    ------
    (n,) array
        About the solution of (I − M) v = diag(I − M), which is at least one in every component.
    """
    diagonal = np.diagonal(K)
    yield from _inflations(K, factors, _refined(K, factors, diagonal), diagonal)


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
    K, factors : (n, n) arrays
        I − M in these units, and its elimination.
    state_exponents : (n,) integer array
    input_exponent, output_exponent : int
        Units of the input and of the bound.
    """

    problem: LipschitzProblem
    K: Array
    factors: Array
    state_exponents: Exponents
    input_exponent: int
    output_exponent: int

    @classmethod
    def of(cls, weights: ImplicitWeights, v: Array, factors: Array) -> ScaledProgram:
        """The program in the units of v, a witness that these weights are well-posed.

        `factors` is the elimination of I − M in the units of the network.
        """
        B, C = _magnitudes(weights.B), _magnitudes(weights.C)
        D = np.zeros((len(C), 1)) if weights.D is None else _magnitudes(weights.D)
        states = np.frexp(v)[1].astype(np.int64)
        inputs = _largest_exponent(_exponents(B.max(axis=1)) - states)
        outputs = _largest_exponent(
            np.append(_exponents(C.max(axis=0)) + states + inputs, _exponents(D.max()))
        )
        M = metzler_majorant(weights.A)
        with np.errstate(all="ignore"):
            M = np.ldexp(M, states - states[:, None])
            factors = np.asfortranarray(np.ldexp(factors, states - states[:, None]))
            K = np.eye(len(M)) - M
            problem = LipschitzProblem(
                M=M,
                b=np.ldexp(B, -(states[:, None] + inputs)).sum(axis=1),
                C=np.ldexp(C, states + (inputs - outputs)),
                d=np.ldexp(D, -outputs).sum(axis=1),
            )
        return cls(problem, K, factors, states, inputs, outputs)

    def witnesses(self, proposal: Array) -> Iterator[Array]:
        """Proposals for z in the units of the network, tightest first.

        The solver's z is refined to (I − M)⁻¹ b, then inflated by more and more.
        """
        units = self.state_exponents + self.input_exponent
        b = self.problem.b.copy()
        with np.errstate(all="ignore"):
            # Where no input arrives z is zero and proves nothing: it gets the smallest input.
            floor = np.ldexp(1.0, np.maximum(_LOWEST - units, -900))
            z = _refined(self.K, self.factors, b, start=proposal)
            # Rounding noise of the proposal in such a state would be amplified like an input.
            z = np.where(solve_factored(self.factors, b) > 0, z, 0.0)
            if (z < floor).any():
                b = np.where(z < floor, np.maximum(b, floor * np.diagonal(self.K)), b)
                z = _refined(self.K, self.factors, b)
        for inflated in _inflations(self.K, self.factors, z, b):
            with np.errstate(all="ignore"):
                candidate = np.ldexp(inflated, units)
            if np.isfinite(candidate).all():
                yield candidate

    def gains(self, weights: ImplicitWeights) -> Array:
        """|C| (I − M)⁻¹ |B|, shape (q, p)."""
        B = _magnitudes(weights.B)
        with np.errstate(all="ignore"):
            scaled = np.ldexp(B, -(self.state_exponents[:, None] + self.input_exponent))
            left = solve_factored(self.factors, self.problem.C.T, transposed=True)
            return np.ldexp(left.T @ scaled, self.output_exponent)

    def duals(self, witness: Array) -> tuple[Array, Array]:
        """Multipliers, in the units of the program, that are optimal beside this witness.

        One output row counts, the largest; its state rows have (I − M)⁻ᵀ C_kᵀ.
        """
        with np.errstate(all="ignore"):
            z = np.ldexp(witness, -(self.state_exponents + self.input_exponent))
            k = int(np.argmax(self.problem.C @ z + self.problem.d))
        dual = solve_factored(self.factors, self.problem.C[k], transposed=True)
        return dual, np.eye(len(self.problem.d))[k]

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


def _inflations(K: Array, factors: Array, z: Array, b: Array) -> Iterator[Array]:
    """z + δ (I − M)⁻¹ w with growing δ, where it seems to satisfy (I − M) z > b.

    w = |I − M| z + b is the scale of the rounding errors row by row, so that δ w beats them with
    a δ of a few roundings in all rows alike.
    """
    with np.errstate(all="ignore"):
        direction = solve_factored(factors, np.abs(K) @ z + b)
    for step in range(17):
        # Entered anew each time: around a yield it would also cover whoever iterates.
        with np.errstate(all="ignore"):
            inflated = z + _ROUNDING * 8.0**step * direction
            plausible = np.isfinite(inflated).all() and (K @ inflated > b).all()
        if plausible:
            yield inflated


def _refined(K: Array, factors: Array, right: Array, start: Array | None = None) -> Array:
    """Solution of K x = right, refined until rounding is all that is left of the residual."""
    with np.errstate(all="ignore"):
        x = solve_factored(factors, right) if start is None else start
        for _ in range(10):
            residual = right - K @ x
            if not (np.abs(residual) > _ROUNDING * (np.abs(K) @ np.abs(x) + np.abs(right))).any():
                break
            x = x + solve_factored(factors, residual)
    return x


def _magnitudes(values: NDArray[Any]) -> Array:
    return np.abs(values.astype(np.float64))


def _exponents(values: Array | np.float64) -> Exponents:
    """Binary exponents; far below that of any float for zeros."""
    return np.where(values == 0, -(2**20), np.frexp(values)[1]).astype(np.int64)


def _largest_exponent(exponents: Exponents) -> int:
    """The largest, or zero where every number is zero."""
    largest = int(exponents.max())
    return largest if largest > -(2**19) else 0
