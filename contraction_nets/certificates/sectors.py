"""The semidefinite bound: what sectors alone say about one output (THEORY §4).

A slope in [0, 1] is the inequality x_i (v_i − x_i) ≥ 0 with v = A x + B u. Multipliers λ, μ ≥ 0
with H = Σ λ_i x_i (x_i − v_i) + Σ μ_j u_j² − (c x + d u)² ⪰ 0 prove |c x + d u| ≤ √Σμ for
|u| ≤ 1: signs are kept, where the linear program takes absolute values.

It is never worse than the linear program. With z = (I − M)⁻¹|B|1, y = (I − M)⁻ᵀ|c|, t its bound
c z + |d|1, the multipliers λ_i = 2 t y_i / z_i and μ = t (|B|ᵀy + |d|) have Σμ = t² and H ⪰ 0:
bound every x_i A_ij x_j by |A_ij| (x_i² z_j/z_i + x_j² z_i/z_j) / 2 and (c x + d u)² by
t (Σ|c_i| x_i²/z_i + Σ|d_j| u_j²), Cauchy–Schwarz. The search starts there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.reduction import Reduced

Array = NDArray[np.float64]

_STEPS = 60
_START = 0.05  # how far inside the feasible set the search starts


def sector_bounds(
    reduced: Reduced, z: Array, accuracy: float, goal: float = 0.0
) -> tuple[Array, Array, Array]:
    """Bounds on |Δy| of the output of each network, for all |Δu| ≤ 1 and slopes in [0, 1].

    Sound in float64: whatever the search returns is checked, and every rounding is added.

    Parameters
    ----------
    reduced : Reduced
        k networks.
    z : (n,) array
        |Δx| ≤ z.
    accuracy : float
        Relative accuracy at which the search for multipliers ends.
    goal : float
        A bound that is small enough to end the search.

    Returns
    -------
    bounds : (k,) array
        Inf where no multipliers were verified.
    slopes : (k, n) array
        A guess at the slopes that attain the bound.
    scores : (k, n) array
        How much each free state blurs the bound; −1 for decided states.
    """
    k, n = reduced.free.shape
    count = int(reduced.free.sum(axis=1).max(initial=0))
    # Free states first, in their order: the others are dropped, up to the largest count.
    order = np.argsort(~reduced.free, axis=1, kind="stable")[:, :count]
    p = reduced.output.shape[1] - n
    index = np.concatenate([order, np.broadcast_to(np.arange(n, n + p), (k, p))], axis=1)
    lines = np.arange(k)[:, None]
    small = Reduced(
        reduced.free[lines, order],
        reduced.states[lines[..., None], order[:, :, None], index[:, None]],
        reduced.states_radius[lines[..., None], order[:, :, None], index[:, None]],
        reduced.output[lines, index],
        reduced.output_radius[lines, index],
    )
    slopes, scores = np.zeros((k, n)), np.full((k, n), -1.0)
    with np.errstate(all="ignore"):
        problem = _Search(small)
        problem.run(accuracy, goal)
        guess, score = problem.moments()
        bounds = _verified(small, z[order], problem)
    slopes[lines, order] = guess
    scores[lines, order] = np.where(small.free, np.maximum(np.nan_to_num(score), 0.0), -1.0)
    return bounds, slopes, scores


class _Search:
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
        self.cost = np.zeros(size)
        self.cost[m:] = 1.0
        diagonal = np.arange(m)
        K = np.eye(m) - np.abs(A)
        K[:, diagonal, diagonal] = 1.0 - A[:, diagonal, diagonal]
        z = _solve(K, np.abs(B).sum(axis=2) + _START)
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
        self.Y = np.zeros_like(self.F)

    def run(self, accuracy: float, goal: float) -> None:
        """Until Σμ is within 2 · accuracy of its optimum, or 1% below the square of the goal."""
        enough = 0.99 * np.ldexp(goal, -self.exponent) ** 2
        running = np.arange(len(self.theta))
        for step in range(_STEPS):
            F, c, theta, Y = self.F[running], self.c[running], self.theta[running], self.Y[running]
            H = _symmetric(theta[..., None] * F) - c[:, :, None] * c[:, None, :]
            P = _inverse(H)
            value = theta @ self.cost
            if step == 0:
                Y = P * (value / self.size)[:, None, None]
            moved, moments, alive = self._advance(F, H, P, theta, Y, self.active[running])
            running, moved, moments = running[alive], moved[alive], moments[alive]
            self.theta[running], self.Y[running] = moved, moments
            value = moved @ self.cost
            missed = np.abs(np.einsum("kij,kij->ki", self.F[running], moments) - self.cost)
            feasible = (missed * self.active[running]).max(axis=1, initial=0.0) < 1e-8
            c = self.c[running]
            below = np.where(feasible, ((c[:, None] @ moments)[:, 0] * c).sum(axis=1), -np.inf)
            accurate = value - below <= 2.0 * accuracy * value
            running = running[~accurate & (value > enough[running])]
            if not running.size:
                break

    def _advance(
        self, F: Array, H: Array, P: Array, theta: Array, Y: Array, active: NDArray[np.bool_]
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Predictor and corrector of Mehrotra; the last array says where they can be trusted."""
        FY, FP, T = F @ Y, F @ P, F.transpose(0, 2, 1)
        matrix = FY * FP.transpose(0, 2, 1)
        matrix = (matrix + matrix.transpose(0, 2, 1) + (FY @ T) * P + Y * (FP @ T)) / 4
        matrix = np.where(active[:, :, None] & active[:, None], matrix, np.eye(self.size))
        (of_P, good), (of_Y, fine) = _cholesky(P), _cholesky(Y)
        units = of_P.transpose(0, 2, 1), np.linalg.inv(of_Y)
        gap = np.einsum("kij,kij->k", H, Y) / self.size
        centre = np.diagonal(FP, axis1=1, axis2=2)

        def direction(sigma: Array, second: Array) -> tuple[Array, Array, Array]:
            right = sigma[:, None] * centre - self.cost
            right -= ((F @ second) * np.eye(self.size)).sum(axis=2)
            change = _equilibrated(matrix, np.where(active, right, 0.0))
            slack = _symmetric(change[..., None] * F)
            moments = sigma[:, None, None] * P - Y - _symmetric(Y @ slack @ P) - second
            return change, slack, moments

        _, slack, moments = direction(np.zeros(len(Y)), np.zeros_like(Y))
        after = np.einsum(
            "kij,kij->k",
            H + _reach(units[0], slack)[:, None, None] * slack,
            Y + _reach(units[1], moments)[:, None, None] * moments,
        )
        sigma = gap * np.clip(after / (gap * self.size), 1e-2, 1.0) ** 2
        change, slack, moments = direction(sigma, _symmetric(moments @ slack @ P))
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


def _verified(reduced: Reduced, z: Array, search: _Search) -> Array:
    """√(Σμ + what rounding may have lost) for the multipliers of the search.

    A Cholesky factorization that runs to its end proves H + ΔH ⪰ 0 with ‖ΔH‖ at most
    γ_{N+1} tr H (Rump 2006); |x| ≤ z and |u| ≤ 1 turn that, and the radii, into numbers.
    """
    m, N = search.m, search.size
    theta, c = np.where(search.active, search.theta, 0.0), search.c
    scaled = theta[..., None] * search.F
    outer = c[:, :, None] * c[:, None, :]
    H = (scaled + scaled.transpose(0, 2, 1)) / 2 - outer
    idle = ~search.active
    H[:, np.arange(N), np.arange(N)] += idle
    entries = np.abs(scaled) + np.abs(scaled).transpose(0, 2, 1) + np.abs(outer)
    trace = np.diagonal(H, axis1=1, axis2=2).sum(axis=1)
    lost = 2.0**-50 * entries.sum(axis=2).max(axis=1) + (N + 4) * 2.0**-51 * trace
    widths = np.concatenate([np.where(reduced.free, z, 0.0), np.ones((len(z), N - m))], axis=1)
    drift = (reduced.states_radius @ widths[..., None])[..., 0]
    square = theta[:, m:].sum(axis=1) + lost * (widths**2).sum(axis=1)
    square += (theta[:, :m] * widths[:, :m] * drift).sum(axis=1)
    bounds = np.ldexp(np.sqrt(square), search.exponent)
    bounds = bounds + (reduced.output_radius * widths).sum(axis=1)
    bounds = np.nextafter(bounds * (1.0 + (4 * N + 16) * 2.0**-52), np.inf)
    proved = (theta >= 0).all(axis=1) & (lost >= 0) & _cholesky(H)[1] & np.isfinite(bounds)
    return np.where(proved, bounds, np.inf)


def _cholesky(matrices: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Lower factors, and where the factorization ran to its end; the identity elsewhere."""
    alive = np.isfinite(matrices).all(axis=(1, 2))
    try:
        if alive.all():
            return np.linalg.cholesky(matrices), alive
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
    lowest = np.linalg.eigvalsh(unit @ change @ unit.transpose(0, 2, 1)).min(axis=1)
    return 1.0 / np.maximum(1.0, -lowest / 0.95)


def _symmetric(matrices: Array) -> Array:
    return (matrices + matrices.transpose(0, 2, 1)) / 2


def _inverse(matrices: Array) -> Array:
    """Symmetric inverses of positive definite matrices, whatever their units."""
    scale = 1.0 / np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    return _symmetric(_scaled(np.linalg.inv(_scaled(matrices, scale)), scale))


def _equilibrated(matrices: Array, right: Array) -> Array:
    """Solutions for matrices with positive diagonals, whatever their units."""
    scale = 1.0 / np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    return scale * _solve(_scaled(matrices, scale), scale * right)


def _scaled(matrices: Array, scale: Array) -> Array:
    return scale[:, :, None] * matrices * scale[:, None, :]


def _solve(matrices: Array, right: Array) -> Array:
    solution: Array = np.linalg.solve(matrices, right[..., None])[..., 0]
    return solution
