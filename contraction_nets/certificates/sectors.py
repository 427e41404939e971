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
_SHRINK = 0.03


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
    """Newton's method on w θ / ε − log det H(θ), θ = (λ, μ), for a batch; nothing here is proved.

    H(θ) = (ΘF + FᵀΘ)/2 − ccᵀ with rows x_i − v_i and u_j in F. With P = H⁻¹ and W = FP the
    gradient is w/ε − diag W and the Hessian (W∘Wᵀ + (WFᵀ)∘P)/2.
    """

    def __init__(self, reduced: Reduced) -> None:
        self.k, self.m = reduced.free.shape
        self.size = reduced.output.shape[1]
        m = self.m
        A, B = reduced.states[:, :, :m], reduced.states[:, :, m:]
        self.F = np.broadcast_to(np.eye(self.size), (self.k, self.size, self.size)).copy()
        self.F[:, :m] -= reduced.states
        self.active = np.ones((self.k, self.size), dtype=bool)
        self.active[:, :m] = reduced.free
        self.cost = np.zeros(self.size)
        self.cost[m:] = 1.0
        diagonal = np.arange(m)
        K = np.eye(m) - np.abs(A)
        K[:, diagonal, diagonal] = 1.0 - A[:, diagonal, diagonal]
        z = _solve(K, np.abs(B).sum(axis=2) + _START)
        size = (np.abs(reduced.output[:, :m]) * z).sum(axis=1)
        size += np.abs(reduced.output[:, m:]).sum(axis=1)
        self.exponent = np.where(size > 0, np.frexp(size)[1], 0)[:, None]
        self.c = np.ldexp(reduced.output, -self.exponent)
        weights = np.abs(self.c) + _START / self.size
        y = _solve(K.transpose(0, 2, 1), weights[:, :m])
        t = (weights[:, :m] * z).sum(axis=1) + weights[:, m:].sum(axis=1)
        passed = (y[:, None] @ np.abs(B))[:, 0] + weights[:, m:]
        self.theta = t[:, None] * np.concatenate([2.0 * y / z, passed], axis=1)
        self.theta[~self.active] = 1.0
        self.P = np.zeros_like(self.F)
        self.epsilon = np.zeros(self.k)

    def matrix(self, theta: Array) -> Array:
        """(ΘF + FᵀΘ)/2."""
        scaled = theta[..., None] * self.F
        return (scaled + scaled.transpose(0, 2, 1)) / 2

    def run(self, accuracy: float, goal: float) -> None:
        """Follow the central path until Σμ is within 2 · accuracy of its infimum, or 1% below
        the goal.
        """
        enough = np.ldexp(0.99 * goal, -self.exponent[:, 0]) ** 2
        outer = self.c[:, :, None] * self.c[:, None, :]
        self.epsilon = epsilon = self.theta @ self.cost / self.size
        running = np.ones(self.k, dtype=bool)
        for _ in range(_STEPS):
            try:
                P = _inverse(self.matrix(self.theta) - outer)
                direction, decrement = self._direction(P, epsilon)
                step = self._step(P, direction, epsilon)
            except np.linalg.LinAlgError:
                break
            usable = running & np.isfinite(step) & np.isfinite(direction).all(axis=1)
            self.P = np.where(usable[:, None, None], P, self.P)
            self.epsilon = np.where(usable, epsilon, self.epsilon)
            moved = self.theta + step[:, None] * direction
            self.theta = np.where(usable[:, None], moved, self.theta)
            target = accuracy * (self.theta @ self.cost) / self.size
            running = usable & ~((epsilon <= 2 * target) & (decrement < 1.0))
            running &= self.theta @ self.cost > enough
            if not running.any():
                break
            # Without centring first, the next steps would jam at the boundary.
            near = decrement < 0.7
            epsilon = np.where(near, np.maximum(epsilon * _SHRINK, target), epsilon)

    def _direction(self, P: Array, epsilon: Array) -> tuple[Array, Array]:
        W = self.F @ P
        gradient = self.cost / epsilon[:, None] - np.diagonal(W, axis1=1, axis2=2)
        gradient = np.where(self.active, gradient, 0.0)
        hessian = (W * W.transpose(0, 2, 1) + (W @ self.F.transpose(0, 2, 1)) * P) / 2
        scale = 1.0 / np.sqrt(np.diagonal(hessian, axis1=1, axis2=2))
        direction = -scale * _solve(_scaled(hessian, scale), scale * gradient)
        return direction, np.sqrt(np.maximum(-(gradient * direction).sum(axis=1), 0.0))

    def _step(self, P: Array, direction: Array, epsilon: Array) -> Array:
        """Minimizer of the barrier along the direction, by Newton in the eigenvalues of PΔH."""
        L = np.linalg.cholesky(P)
        e = np.linalg.eigvalsh(L.transpose(0, 2, 1) @ self.matrix(direction) @ L)
        lowest = np.minimum(e.min(axis=1), -0.099)
        largest = -0.99 / lowest
        step = np.minimum(1.0, largest)
        slope = direction @ self.cost / epsilon
        for _ in range(5):
            rates = e / (1.0 + step[:, None] * e)
            change = (slope - rates.sum(axis=1)) / (rates**2).sum(axis=1)
            step = np.clip(step - change, 0.01 * np.minimum(1.0, largest), largest)
        return step

    def moments(self) -> tuple[Array, Array]:
        """Slopes E x² / E v² that the moments εP of (x, u) suggest, and λ (E x² − slope E x²)."""
        m = self.m
        Y = self.epsilon[:, None, None] * self.P
        rows = np.eye(self.size)[:m] - self.F[:, :m]
        x = np.diagonal(Y, axis1=1, axis2=2)[:, :m]
        v = ((rows @ Y) * rows).sum(axis=2)
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
    bounds = np.ldexp(np.sqrt(square), search.exponent[:, 0])
    bounds = bounds + (reduced.output_radius * widths).sum(axis=1)
    bounds = np.nextafter(bounds * (1.0 + (4 * N + 16) * 2.0**-52), np.inf)
    proved = (theta >= 0).all(axis=1) & (lost >= 0) & _positive(H) & np.isfinite(bounds)
    return np.where(proved, bounds, np.inf)


def _positive(matrices: Array) -> NDArray[np.bool_]:
    """Where the Cholesky factorization runs to its end."""
    found = np.isfinite(matrices).all(axis=(1, 2))
    for i in np.flatnonzero(found):
        try:
            np.linalg.cholesky(matrices[i])
        except np.linalg.LinAlgError:
            found[i] = False
    return found


def _inverse(matrices: Array) -> Array:
    """Symmetric inverses of positive definite matrices, whatever their units."""
    scale = 1.0 / np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    inverse = _scaled(np.linalg.inv(_scaled(matrices, scale)), scale)
    return (inverse + inverse.transpose(0, 2, 1)) / 2


def _scaled(matrices: Array, scale: Array) -> Array:
    return scale[:, :, None] * matrices * scale[:, None, :]


def _solve(matrices: Array, right: Array) -> Array:
    solution: Array = np.linalg.solve(matrices, right[..., None])[..., 0]
    return solution
