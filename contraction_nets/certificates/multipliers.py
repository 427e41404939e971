"""The search for the multipliers of sectors.py: a semidefinite program for each network.

Floating point proposes here and nowhere decides: whatever this file returns is then verified,
or refused, by sectors.py, or proved in integers by way of sector_proof.py.
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
    scaled,
    symmetric,
    symmetric_corner,
    symmetric_product,
    units,
)
from contraction_nets.certificates.reduction import Reduced

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_STEPS = 60
_START = 0.05  # how far inside the feasible set the search starts
_FEASIBLE = 1e-8  # error of the moments up to which they bound the optimum


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


class MultiplierSearch:
    """A primal-dual interior-point method for a batch of networks; nothing here is proved.

    minimize Σμ over θ = (λ, μ) with H(θ) ⪰ 0, beside the moments Y ⪰ 0 of (x, y, u), for which
    those of x_i (x_i − v_i) are 0 and those of u_j² are 1. θ is feasible from the start. With
    P = H⁻¹, the step of Helmberg, Rendl, Vanderbei and Wolkowicz is ΔY = σP − Y − YΔHP,
    symmetrized, from an equation in Δθ of size n + p only: all constraints have rank two. No two
    inputs meet in H, so Y is known where they do not, and completed (Fukuda, Kojima, Murota,
    Nakata 2001).
    """

    def __init__(self, reduced: Reduced) -> None:
        k, m = reduced.free.shape
        size = reduced.output.shape[1]
        A, B = reduced.states[:, :, :m], reduced.states[:, :, m:]
        self.m, self.size = m, size
        active = np.ones((k, size), dtype=bool)
        active[:, :m] = reduced.free
        self.cost = np.zeros((k, size))
        self.cost[:, m:] = 1.0
        diagonal = np.arange(m)
        K = np.eye(m) - np.abs(A)
        K[:, diagonal, diagonal] = 1.0 - A[:, diagonal, diagonal]
        arriving = np.abs(B).sum(axis=2)
        stiffness = K[:, diagonal, diagonal]
        most = (arriving / stiffness).max(axis=1, keepdims=True, initial=0.0)
        z = _solve(K, arriving + _START * stiffness * np.where(most > 0, most, 1.0))
        self.units = np.where(reduced.free, z**2, 0.0)
        bounds = (np.abs(reduced.output[:, :m]) * z).sum(axis=1)
        bounds += np.abs(reduced.output[:, m:]).sum(axis=1)
        self.exponent = np.where(bounds > 0, np.frexp(bounds)[1], 0)
        c = np.ldexp(reduced.output, -self.exponent[:, None])
        self.sectors = Sectors(np.eye(m) - A, B, c, active)
        weights = np.abs(c) + _START / size
        y = _solve(K.transpose(0, 2, 1), weights[:, :m])
        t = (weights[:, :m] * z).sum(axis=1) + weights[:, m:].sum(axis=1)
        passed = (y[:, None] @ np.abs(B))[:, 0] + weights[:, m:]
        self.theta = t[:, None] * np.concatenate([2.0 * y / z, passed], axis=1)
        self.theta[~active] = 1.0
        self.inside = self.theta.copy()
        self.Y = Arrow(*(np.zeros_like(X) for X in self.sectors.change(self.theta)))

    def run(self, accuracy: float, goal: float) -> None:
        """Until Σμ is within 2 · accuracy of its optimum, or 1% below the square of the goal."""
        # A little cost keeps multipliers of states that hardly matter from growing for ever.
        self.cost[:, : self.m] = 1e-3 * accuracy * self.units
        enough = 0.99 * np.ldexp(goal, -self.exponent) ** 2
        running = np.arange(len(self.theta))
        for step in range(_STEPS):
            sectors, theta, cost = self.sectors.at(running), self.theta[running], self.cost[running]
            H = sectors.form(theta)
            try:
                P = inverse(H)
                if step == 0:
                    level = (theta * cost).sum(axis=1) / self.size
                    zero = Arrow(*(0.0 * X for X in H))
                    self.Y = zero.moved(level, P.diagonal())
                theta, Y, alive = _advance(sectors, H, P, theta, self.Y.at(running), cost)
            except np.linalg.LinAlgError:
                break
            running, sectors = running[alive], sectors.at(np.flatnonzero(alive))
            theta, Y, cost = theta[alive], Y.at(alive), cost[alive]
            self.theta[running] = theta
            self.Y.put(running, Y)
            value = (theta * cost).sum(axis=1)
            missed = np.abs(sectors.traces(Y) - cost) * sectors.active
            feasible = missed.max(axis=1, initial=0.0) < _FEASIBLE
            below = np.where(feasible, sectors.value(Y), -np.inf)
            accurate = value - below <= 2.0 * accuracy * value
            running = running[~accurate & (value > enough[running])]
            if not running.size:
                break

    def moments(self) -> tuple[Array, Array]:
        """Slopes E x² / E v² that the moments Y suggest, and λ (E x² − slope E x²)."""
        m, sectors = self.m, self.sectors
        Y = completed(self.Y)[0]
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
        change = _equilibrated(matrix, np.where(sectors.active, right, 0.0))
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


def _equilibrated(matrices: Array, right: Array) -> Array:
    """Solutions for matrices with positive diagonals, whatever their units."""
    scale = units(matrices)
    return scale * _solve(scaled(matrices, scale), scale * right)


def _solve(matrices: Array, right: Array) -> Array:
    return np.asarray(np.linalg.solve(matrices, right[..., None])[..., 0])
