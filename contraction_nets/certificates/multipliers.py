"""The search for the multipliers of sectors.py: a semidefinite program for each network.

Floating point proposes here and nowhere decides: whatever this file returns is then verified,
or refused, by sectors.py, or proved in integers by way of sector_proof.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.reduction import Reduced

Array = NDArray[np.float64]

STEPS = 60
_START = 0.05  # how far inside the feasible set the search starts
FEASIBLE = 1e-8  # error of the moments up to which they bound the optimum


class MultiplierSearch:
    """A primal-dual interior-point method for a batch of networks; nothing here is proved.

    minimize Σμ over θ = (λ, μ) with H(θ) = (ΘF + FᵀΘ)/2 − ccᵀ ⪰ 0, rows x_i − v_i and u_j in F,
    beside the moments Y ⪰ 0 of (x, u), which maximize cᵀYc with diag(FY) = (0, 1). θ is feasible
    from the start. With P = H⁻¹, the step of Helmberg, Rendl, Vanderbei and Wolkowicz is
    ΔY = σP − Y − YΔHP, symmetrized, from an equation in Δθ of size n + p only: all constraints
    have rank two.
    """

    def __init__(self, reduced: Reduced) -> None:
        k, m = reduced.free.shape
        size = reduced.output.shape[1]
        A, B = reduced.states[:, :, :m], reduced.states[:, :, m:]
        self.m, self.size = m, size
        self.F = np.broadcast_to(np.eye(size), (k, size, size)).copy()
        self.F[:, :m] -= reduced.states
        self.active = np.ones((k, size), dtype=bool)
        self.active[:, :m] = reduced.free
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
        self.c = np.ldexp(reduced.output, -self.exponent[:, None])
        weights = np.abs(self.c) + _START / size
        y = _solve(K.transpose(0, 2, 1), weights[:, :m])
        t = (weights[:, :m] * z).sum(axis=1) + weights[:, m:].sum(axis=1)
        passed = (y[:, None] @ np.abs(B))[:, 0] + weights[:, m:]
        self.theta = t[:, None] * np.concatenate([2.0 * y / z, passed], axis=1)
        self.theta[~self.active] = 1.0
        self.inside = self.theta.copy()
        self.Y = np.zeros_like(self.F)

    def run(self, accuracy: float, goal: float) -> None:
        """Until Σμ is within 2 · accuracy of its optimum, or 1% below the square of the goal."""
        # A little cost keeps multipliers of states that hardly matter from growing for ever.
        self.cost[:, : self.m] = 1e-3 * accuracy * self.units
        enough = 0.99 * np.ldexp(goal, -self.exponent) ** 2
        running = np.arange(len(self.theta))
        for step in range(STEPS):
            F, c, theta, Y = self.F[running], self.c[running], self.theta[running], self.Y[running]
            cost = self.cost[running]
            H = symmetric(theta[..., None] * F) - c[:, :, None] * c[:, None, :]
            try:
                P = inverse_of(H)
                if step == 0:
                    Y = P * ((theta * cost).sum(axis=1) / self.size)[:, None, None]
                theta, Y, alive = self._advance(F, H, P, theta, Y, cost, self.active[running])
            except np.linalg.LinAlgError:
                break
            running, c, theta = running[alive], c[alive], theta[alive]
            Y, cost = Y[alive], cost[alive]
            self.theta[running], self.Y[running] = theta, Y
            value = (theta * cost).sum(axis=1)
            missed = np.abs((self.F[running] * Y).sum(axis=2) - cost) * self.active[running]
            feasible = missed.max(axis=1, initial=0.0) < FEASIBLE
            below = np.where(feasible, (c * (Y @ c[..., None])[..., 0]).sum(axis=1), -np.inf)
            accurate = value - below <= 2.0 * accuracy * value
            running = running[~accurate & (value > enough[running])]
            if not running.size:
                break

    def _advance(
        self,
        F: Array,
        H: Array,
        P: Array,
        theta: Array,
        Y: Array,
        cost: Array,
        active: NDArray[np.bool_],
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Predictor and corrector of Mehrotra; the last array says where they can be trusted."""
        FY, FP, T = F @ Y, F @ P, F.transpose(0, 2, 1)
        matrix = FY * FP.transpose(0, 2, 1)
        matrix = (matrix + matrix.transpose(0, 2, 1) + (FY @ T) * P + Y * (FP @ T)) / 4
        matrix = np.where(active[:, :, None] & active[:, None], matrix, np.eye(self.size))
        (of_P, good), (of_Y, fine) = cholesky(P), cholesky(Y)
        units = of_P.transpose(0, 2, 1), np.linalg.inv(of_Y).astype(np.float64)
        gap = (H * Y).sum(axis=(1, 2)) / self.size
        centre = np.diagonal(FP, axis1=1, axis2=2)

        def direction(sigma: Array, second: Array) -> tuple[Array, Array, Array]:
            right = sigma[:, None] * centre - cost
            right -= ((F @ second) * np.eye(self.size)).sum(axis=2)
            change = equilibrated(matrix, np.where(active, right, 0.0))
            slack = symmetric(change[..., None] * F)
            moments = sigma[:, None, None] * P - Y - symmetric(Y @ slack @ P) - second
            return change, slack, moments

        _, slack, moments = direction(np.zeros(len(Y)), np.zeros_like(Y))
        later = H + _reach(units[0], slack)[:, None, None] * slack
        later *= Y + _reach(units[1], moments)[:, None, None] * moments
        after = later.sum(axis=(1, 2)) / self.size
        sigma = gap * np.clip(after / gap, 1e-2, 1.0) ** 2
        change, slack, moments = direction(sigma, symmetric(moments @ slack @ P))
        theta = theta + _reach(units[0], slack)[:, None] * change
        Y = Y + _reach(units[1], moments)[:, None, None] * moments
        finite = np.isfinite(theta).all(axis=1) & np.isfinite(Y).all(axis=(1, 2))
        return theta, Y, good & fine & finite

    def moments(self) -> tuple[Array, Array]:
        """Slopes E x² / E v² that the moments Y suggest, and λ (E x² − slope E x²)."""
        m = self.m
        rows = np.eye(self.size)[:m] - self.F[:, :m]
        x = np.diagonal(self.Y, axis1=1, axis2=2)[:, :m]
        v = ((rows @ self.Y) * rows).sum(axis=2)
        slopes = np.clip(np.sqrt(np.where(v > 0, x / v, 0.0)), 0.0, 1.0)
        return slopes, self.theta[:, :m] * x * (1.0 - slopes)


def cholesky(matrices: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Lower factors, and where the factorization ran to its end; the identity elsewhere."""
    alive: NDArray[np.bool_] = np.asarray(np.isfinite(matrices).all(axis=(1, 2)))
    try:
        if alive.all():
            return np.linalg.cholesky(matrices).astype(np.float64), alive
    except np.linalg.LinAlgError:
        pass
    factors = np.broadcast_to(np.eye(matrices.shape[1]), matrices.shape).copy()
    for i in np.flatnonzero(alive):
        try:
            factors[i] = np.linalg.cholesky(matrices[i])
        except np.linalg.LinAlgError:
            alive[i] = False
    return factors, alive


def _reach(unit: Array, change: Array) -> Array:
    """The largest step in (0, 1] that stays well inside the cone, in units of the point."""
    relative = np.nan_to_num(unit @ change @ unit.transpose(0, 2, 1))
    lowest: Array = np.linalg.eigvalsh(relative).min(axis=1)
    return 1.0 / np.maximum(1.0, -lowest / 0.95)


def symmetric(matrices: Array) -> Array:
    """The symmetric part."""
    halves: Array = (matrices + matrices.transpose(0, 2, 1)) / 2
    return halves


def inverse_of(matrices: Array) -> Array:
    """Symmetric inverses of positive definite matrices, whatever their units."""
    scale = units_of(matrices)
    return symmetric(scaled(np.linalg.inv(scaled(matrices, scale)).astype(np.float64), scale))


def equilibrated(matrices: Array, right: Array) -> Array:
    """Solutions for matrices with positive diagonals, whatever their units."""
    scale = units_of(matrices)
    return scale * _solve(scaled(matrices, scale), scale * right)


def units_of(matrices: Array) -> Array:
    """Units in which the diagonal is one."""
    return np.asarray(1.0 / np.sqrt(np.diagonal(matrices, axis1=1, axis2=2)))


def scaled(matrices: Array, scale: Array) -> Array:
    """Rows and columns times `scale`."""
    return scale[:, :, None] * matrices * scale[:, None, :]


def _solve(matrices: Array, right: Array) -> Array:
    return np.asarray(np.linalg.solve(matrices, right[..., None])[..., 0])
