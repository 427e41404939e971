"""Sparse systems with an M-matrix: an iteration that needs little more memory than the matrix.

A full factorization may be as large as a dense matrix; with ten random entries a row it is.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.sparse.linalg import LinearOperator, bicgstab, spilu

Array = NDArray[np.float64]

_SWEEPS = 30
_ROUNDING = 2.0**-48
_FILL = 10.0  # of the incomplete factors, relative to the entries of the matrix


class SparseMMatrix:
    """K x = right for a sparse nonsingular M-matrix K, as far as it converges.

    Jacobi sweeps, which are exact for triangular matrices of few levels and keep right ≥ 0
    nonnegative; then BiCGSTAB on what they leave, at first preconditioned by the diagonal and,
    where that is not enough, by incomplete factors without pivoting, which are the whole ones
    where there is little fill. The sweeps between make small components as accurate as large ones.

    Parameters
    ----------
    K : (n, n) csr_array
        A positive diagonal, no positive entry off it.
    """

    def __init__(self, K: Any) -> None:
        self.K = K
        self._diagonal = K.diagonal()

    def solve(self, right: Array) -> Array:
        """An approximate solution, (n,); nothing is said where K is no M-matrix.

        Check the residual: it may be large where the iteration does not converge.
        """
        x, factored = np.zeros(len(right)), False
        with np.errstate(all="ignore"):
            for _ in range(8):
                x = self._swept(right, x)
                residual = right - self.K @ x
                size = abs(self.K) @ np.abs(x) + np.abs(right)
                large = np.abs(residual) > _ROUNDING * size
                if not np.isfinite(residual).all() or not large.any():
                    break
                better = x + self._krylov(residual, factored=factored)
                left = float(np.abs(right - self.K @ better).max())
                factored = factored or not left < 1e-3 * np.abs(residual).max()
                if left < np.abs(residual).max():
                    x = better
        return x

    def _swept(self, right: Array, x: Array) -> Array:
        for _ in range(_SWEEPS):
            new = x + (right - self.K @ x) / self._diagonal
            if np.array_equal(new, x):
                break
            x = new
        return x

    def _krylov(self, right: Array, *, factored: bool) -> Array:
        scale = float(np.abs(right).max())
        inverse = self._factors.solve if factored and self._factors else self._divided
        preconditioner = LinearOperator(self.K.shape, matvec=inverse)
        x, _ = bicgstab(self.K, right / scale, rtol=1e-12, atol=0.0, maxiter=300, M=preconditioner)
        correction: Array = np.where(np.isfinite(x), x, 0.0) * scale
        return correction

    def _divided(self, right: Array) -> Array:
        quotient: Array = right.ravel() / self._diagonal
        return quotient

    @cached_property
    def _factors(self) -> Any:
        """Incomplete factors, or None where a pivot is zero."""
        try:
            return spilu(
                csc_array(self.K),
                drop_tol=1e-8,
                fill_factor=_FILL,
                diag_pivot_thresh=0.0,
                permc_spec="MMD_AT_PLUS_A",
                options={"SymmetricMode": True},
            )
        except RuntimeError:
            return None
