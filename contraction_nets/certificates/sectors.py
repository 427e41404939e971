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

from contraction_nets.certificates.input_multipliers import multiplier_search
from contraction_nets.certificates.multipliers import MultiplierSearch, cholesky
from contraction_nets.certificates.reduction import TINY, Reduced

Array = NDArray[np.float64]

_BLENDS = (0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1.0)
"""How far to go back to where the search started, where rounding spoiled its last point."""


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
        try:
            problem = multiplier_search(small)
        except np.linalg.LinAlgError:
            return np.full(k, np.inf), slopes, np.where(reduced.free, 0.0, scores)
        problem.run(accuracy, goal)
        guess, score = problem.moments()
        bounds = np.full(k, np.inf)
        for blend in _BLENDS:
            theta = problem.theta + blend * (problem.inside - problem.theta)
            bounds = np.minimum(bounds, _verified(small, z[order], problem, theta))
            if np.isfinite(bounds).all():
                break
    slopes[lines, order] = guess
    scores[lines, order] = np.where(small.free, np.maximum(np.nan_to_num(score), 0.0), -1.0)
    return bounds, slopes, scores


def _verified(reduced: Reduced, z: Array, search: MultiplierSearch, theta: Array) -> Array:
    """√(Σμ + what rounding may have lost) for these multipliers; inf where they prove nothing.

    A Cholesky factorization that runs to its end proves H + ΔH ⪰ 0 with ‖ΔH‖ at most
    γ_{N+1} tr H (Rump 2006); |x| ≤ z and |u| ≤ 1 turn that, and the radii, into numbers.
    """
    m, N = search.m, search.size
    theta, c = np.where(search.active, theta, 0.0), search.c
    scaled = theta[..., None] * search.F
    outer = c[:, :, None] * c[:, None, :]
    H = (scaled + scaled.transpose(0, 2, 1)) / 2 - outer
    idle = ~search.active
    H[:, np.arange(N), np.arange(N)] += idle
    entries = np.abs(scaled) + np.abs(scaled).transpose(0, 2, 1) + np.abs(outer)
    trace = np.diagonal(H, axis1=1, axis2=2).sum(axis=1)
    lost = 2.0**-50 * entries.sum(axis=2).max(axis=1) + (N + 4) * 2.0**-51 * trace + TINY
    widths = np.concatenate([np.where(reduced.free, z, 0.0), np.ones((len(z), N - m))], axis=1)
    drift = (reduced.states_radius @ widths[..., None])[..., 0]
    square = theta[:, m:].sum(axis=1) + lost * (widths**2).sum(axis=1)
    square += (theta[:, :m] * widths[:, :m] * drift).sum(axis=1)
    bounds = np.ldexp(np.sqrt(square), search.exponent)
    bounds = bounds + (reduced.output_radius * widths).sum(axis=1)
    bounds = np.nextafter(bounds * (1.0 + (4 * N + 16) * 2.0**-52), np.inf)
    proved = (theta >= 0).all(axis=1) & (lost >= 0) & cholesky(H)[1] & np.isfinite(bounds)
    return np.where(proved, bounds, np.inf)
