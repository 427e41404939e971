"""The search of multipliers.py where inputs are many: no two of them meet in the form H.

A step costs n p², one system of n + p equations, and no eigenvalues of n + p rows. With few inputs
those cost little, and the search of multipliers.py is the faster one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.arrows import (
    Arrow,
    Product,
    completed,
    inner,
    inverse,
    positive_form,
    positive_moments,
    product,
    reach,
    symmetric_corner,
    symmetric_product,
)
from contraction_nets.certificates.multipliers import (
    FEASIBLE,
    STEPS,
    MultiplierSearch,
    equilibrated,
    symmetric,
)
from contraction_nets.certificates.reduction import Reduced

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MANY = 100
"""Inputs from which on, where they are also more than the states, this search is the faster."""


def multiplier_search(reduced: Reduced) -> MultiplierSearch:
    """The search for multipliers that suits the number of inputs."""
    n = reduced.free.shape[1]
    many = reduced.output.shape[1] - n >= max(n, _MANY)
    return InputSearch(reduced) if many else MultiplierSearch(reduced)


@dataclass(frozen=True, eq=False)
class Sectors:
    """The forms H(θ) of a batch of k networks, as arrows of (x, y) and u.

    H(θ) = Σ λ_i x_i (x_i − v_i) + Σ μ_j u_j² + y² + 2 y (c x + d u): without y, which is free,
    y² less than it.

    Attributes
    ----------
    E, B : (k, m, m) and (k, m, p) arrays
        x − v = E x − B u.
    c : (k, m + p) array
    active : (k, m + p) bool array
        The multipliers that may change.
    """

    E: Array
    B: Array
    c: Array
    active: Flags

    def at(self, chosen: NDArray[np.intp]) -> Sectors:
        """Some of the batch."""
        return Sectors(self.E[chosen], self.B[chosen], self.c[chosen], self.active[chosen])

    def form(self, theta: Array) -> Arrow:
        """H(θ)."""
        m, H = self.E.shape[1], self.change(theta)
        H.core[:, m, :m] = H.core[:, :m, m] = self.c[:, :m]
        H.core[:, m, m] = 1.0
        H.side[:, m] = self.c[:, m:]
        return H

    def change(self, theta: Array) -> Arrow:
        """What is linear in θ."""
        k, m, p = self.B.shape
        core, side = np.zeros((k, m + 1, m + 1)), np.zeros((k, m + 1, p))
        core[:, :m, :m] = symmetric(theta[:, :m, None] * self.E)
        side[:, :m] = -theta[:, :m, None] * self.B / 2
        return Arrow(core, side, theta[:, m:])

    def rows(self, Y: Arrow) -> tuple[Array, Array]:
        """The moments of x − v with x and with u, of Y with a full corner."""
        m = self.E.shape[1]
        states = self.E @ Y.core[:, :m, :m] - self.B @ Y.side[:, :m].mT
        return states, self.E @ Y.side[:, :m] - self.B @ Y.corner

    def traces(self, Y: Arrow) -> Array:
        """The derivative of the trace of H(θ) Y with respect to θ."""
        m = self.E.shape[1]
        states = (self.E * Y.core[:, :m, :m]).sum(axis=2) - (self.B * Y.side[:, :m]).sum(axis=2)
        return np.concatenate([states, Y.corner], axis=1)

    def equations(self, Y: Arrow, P: Arrow) -> Array:
        """The derivative of `traces` of (Y H P + P H Y)/2; both with full corners."""
        k, m, p = self.B.shape
        (states_Y, inputs_Y), (states_P, inputs_P) = self.rows(Y), self.rows(P)
        squares_Y = symmetric(states_Y @ self.E.mT - inputs_Y @ self.B.mT)
        squares_P = symmetric(states_P @ self.E.mT - inputs_P @ self.B.mT)
        matrix = np.empty((k, m + p, m + p))
        matrix[:, :m, :m] = symmetric(states_Y * states_P.mT) / 2
        matrix[:, :m, :m] += (squares_Y * P.core[:, :m, :m] + Y.core[:, :m, :m] * squares_P) / 4
        matrix[:, :m, m:] = (inputs_Y * P.side[:, :m] + Y.side[:, :m] * inputs_P) / 2
        matrix[:, m:, :m] = matrix[:, :m, m:].mT
        matrix[:, m:, m:] = Y.corner * P.corner
        return np.where(self.active[:, :, None] & self.active[:, None], matrix, np.eye(m + p))

    def value(self, Y: Arrow) -> Array:
        """What these moments bound the optimum by, from below."""
        m = self.E.shape[1]
        row = np.concatenate([Y.core[:, m, :m], Y.side[:, m]], axis=1)
        return np.asarray(-2.0 * (self.c * row).sum(axis=1) - Y.core[:, m, m])


class InputSearch(MultiplierSearch):
    """The same steps, from moments of (x, y, u) that are known where two inputs do not meet.

    They are completed in every step (Fukuda, Kojima, Murota, Nakata 2001).
    """

    def __init__(self, reduced: Reduced) -> None:
        super().__init__(reduced)
        m = self.m
        E, B = self.F[:, :m, :m], -self.F[:, :m, m:]
        self.sectors = Sectors(E, B, self.c, self.active)
        self.known = Arrow(*(np.zeros_like(X) for X in self.sectors.change(self.theta)))

    def run(self, accuracy: float, goal: float) -> None:
        """Until Σμ is within 2 · accuracy of its optimum, or 1% below the square of the goal."""
        # A little cost keeps multipliers of states that hardly matter from growing for ever.
        self.cost[:, : self.m] = 1e-3 * accuracy * self.units
        enough = 0.99 * np.ldexp(goal, -self.exponent) ** 2
        running = np.arange(len(self.theta))
        for step in range(STEPS):
            sectors, theta, cost = self.sectors.at(running), self.theta[running], self.cost[running]
            H = sectors.form(theta)
            try:
                P = inverse(H)
                if step == 0:
                    level = (theta * cost).sum(axis=1) / self.size
                    zero = Arrow(*(0.0 * X for X in H))
                    self.known = zero.moved(level, P.diagonal())
                theta, Y, alive = _advance(sectors, H, P, theta, self.known.at(running), cost)
            except np.linalg.LinAlgError:
                break
            running, sectors = running[alive], sectors.at(np.flatnonzero(alive))
            theta, Y, cost = theta[alive], Y.at(alive), cost[alive]
            self.theta[running] = theta
            self.known.put(running, Y)
            value = (theta * cost).sum(axis=1)
            missed = np.abs(sectors.traces(Y) - cost) * sectors.active
            feasible = missed.max(axis=1, initial=0.0) < FEASIBLE
            below = np.where(feasible, sectors.value(Y), -np.inf)
            accurate = value - below <= 2.0 * accuracy * value
            running = running[~accurate & (value > enough[running])]
            if not running.size:
                break

    def moments(self) -> tuple[Array, Array]:
        """Slopes E x² / E v² that the moments Y suggest, and λ (E x² − slope E x²)."""
        m, sectors = self.m, self.sectors
        Y = completed(self.known)[0]
        states, inputs = sectors.rows(Y)
        x = np.diagonal(Y.core, axis1=1, axis2=2)[:, :m]
        # With r = x − v: E v² = E x² − 2 E x r + E r².
        squares = (states * sectors.E).sum(axis=2) - (inputs * sectors.B).sum(axis=2)
        v = x - 2.0 * np.diagonal(states, axis1=1, axis2=2) + squares
        slopes = np.clip(np.sqrt(np.where(v > 0, x / v, 0.0)), 0.0, 1.0)
        return slopes, self.theta[:, :m] * x * (1.0 - slopes)


def _advance(
    sectors: Sectors, H: Arrow, P: Arrow, theta: Array, Y: Arrow, cost: Array
) -> tuple[Array, Arrow, Flags]:
    """Predictor and corrector of Mehrotra; the last array says where they can be trusted."""
    full, good = completed(Y)
    matrix = sectors.equations(full, P)
    size = theta.shape[1] + 1
    gap = inner(H, Y) / size
    thin = P.diagonal()
    centre = sectors.traces(thin)

    def direction(sigma: Array, second: Arrow) -> tuple[Array, Arrow, Arrow, Product]:
        right = sigma[:, None] * centre - cost - sectors.traces(second)
        change = equilibrated(matrix, np.where(sectors.active, right, 0.0))
        slack = sectors.change(change)
        turned = product(slack, H, P)
        moments = Arrow(*(-y - s for y, s in zip(Y, second, strict=True))).moved(sigma, thin)
        one = np.ones(len(sigma))
        return change, slack, moments.moved(-one, symmetric_product(full, turned)), turned

    nothing = Arrow(*(np.zeros_like(y) for y in Y))
    _, slack, moments, turned = direction(np.zeros(len(theta)), nothing)
    later = H.moved(reach(H, slack, positive_form), slack)
    after = inner(later, Y.moved(reach(Y, moments, positive_moments), moments)) / size
    sigma = gap * np.clip(after / gap, 1e-2, 1.0) ** 2
    corner = -full.corner - symmetric_corner(full, turned)
    second = symmetric_product(Arrow(moments.core, moments.side, corner), turned)
    change, slack, moments, _ = direction(sigma, second)
    theta = theta + reach(H, slack, positive_form)[:, None] * change
    Y = Y.moved(reach(Y, moments, positive_moments), moments)
    finite = np.isfinite(theta).all(axis=1)
    for part in Y:
        finite &= np.isfinite(part).reshape(len(part), -1).all(axis=1)
    return theta, Y, good & finite
