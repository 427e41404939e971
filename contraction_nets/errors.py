"""The errors the library raises; each message says what was got, expected, and what to do."""

from __future__ import annotations


class ContractionNetsError(Exception):
    """Base class of every error that is particular to this library."""


class NotWellPosedError(ContractionNetsError):
    """No weights η give μ_{∞,η}(A) < 1, so no ℓ∞ certificate exists.

    Attributes
    ----------
    measure : float
        μ_∞(A), unweighted.
    abscissa : float
        Spectral abscissa of the Metzler majorant of A: the infimum of μ_{∞,η}(A) over η.
    """

    def __init__(self, message: str, *, measure: float, abscissa: float) -> None:
        super().__init__(message)
        self.measure = measure
        self.abscissa = abscissa


class SolverError(ContractionNetsError):
    """A solver failed, ran out of time, or does not solve the problem it was given."""


class UnknownSolverError(SolverError, ValueError):
    """No backend of that name is registered, or its package is not installed."""


class ConvergenceWarning(UserWarning):
    """An equilibrium iteration stopped before it reached its tolerance."""


class TransposedWarning(UserWarning):
    """Matrices of a file were transposed to fit, while the shape of A says nothing."""
