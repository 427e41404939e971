"""Implicit networks that are provably well-posed and robust in the infinity norm.

Everything public is listed below and loaded on first use: importing this package imports
neither torch nor cvxpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contraction_nets.certificates.document import verify_document
    from contraction_nets.certificates.equilibrium import equilibrium_statement
    from contraction_nets.certificates.lipschitz import LipschitzCertificate, lipschitz_certificate
    from contraction_nets.certificates.optimal import OptimalWeights, optimal_weights
    from contraction_nets.certificates.slopes import LipschitzBounds, lipschitz_bounds
    from contraction_nets.certificates.weights import ImplicitWeights
    from contraction_nets.errors import (
        ContractionNetsError,
        ConvergenceWarning,
        NotWellPosedError,
        SolverError,
        UnknownSolverError,
    )
    from contraction_nets.geometry.measures import matrix_measure
    from contraction_nets.nn.budget import LipschitzBudget
    from contraction_nets.nn.constrain import project_, project_after_step
    from contraction_nets.nn.contracting import contracting
    from contraction_nets.nn.conv import ImplicitConv2d
    from contraction_nets.nn.layers import ImplicitLayer, ImplicitNetwork
    from contraction_nets.nn.penalty import lipschitz_penalty
    from contraction_nets.robustness.attacks.run import AttackResult, attack
    from contraction_nets.robustness.intervals import (
        IntervalBounds,
        interval_bounds,
        interval_margins,
    )
    from contraction_nets.robustness.ladder import verify_robustness
    from contraction_nets.robustness.radius import CertifiedRadii, certified_radii
    from contraction_nets.robustness.result import RobustnessResult, Verdict
    from contraction_nets.solving.projection import project
    from contraction_nets.solving.registry import available_solvers
    from contraction_nets.training.interval_loss import IntervalLoss
    from contraction_nets.training.loop import TrainingResult, fit
    from contraction_nets.training.small_boxes import SmallBoxes

_HOME = {
    "certificates.document": ("verify_document",),
    "certificates.equilibrium": ("equilibrium_statement",),
    "certificates.lipschitz": ("LipschitzCertificate", "lipschitz_certificate"),
    "certificates.optimal": ("OptimalWeights", "optimal_weights"),
    "certificates.slopes": ("LipschitzBounds", "lipschitz_bounds"),
    "certificates.weights": ("ImplicitWeights",),
    "errors": (
        "ContractionNetsError",
        "ConvergenceWarning",
        "NotWellPosedError",
        "SolverError",
        "UnknownSolverError",
    ),
    "geometry.measures": ("matrix_measure",),
    "nn.budget": ("LipschitzBudget",),
    "nn.constrain": ("project_", "project_after_step"),
    "nn.contracting": ("contracting",),
    "nn.conv": ("ImplicitConv2d",),
    "nn.layers": ("ImplicitLayer", "ImplicitNetwork"),
    "nn.penalty": ("lipschitz_penalty",),
    "robustness.attacks.run": ("AttackResult", "attack"),
    "robustness.intervals": ("IntervalBounds", "interval_bounds", "interval_margins"),
    "robustness.ladder": ("verify_robustness",),
    "robustness.radius": ("CertifiedRadii", "certified_radii"),
    "robustness.result": ("RobustnessResult", "Verdict"),
    "solving.projection": ("project",),
    "solving.registry": ("available_solvers",),
    "training.interval_loss": ("IntervalLoss",),
    "training.loop": ("TrainingResult", "fit"),
    "training.small_boxes": ("SmallBoxes",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AttackResult",
    "CertifiedRadii",
    "ContractionNetsError",
    "ConvergenceWarning",
    "ImplicitConv2d",
    "ImplicitLayer",
    "ImplicitNetwork",
    "ImplicitWeights",
    "IntervalBounds",
    "IntervalLoss",
    "LipschitzBounds",
    "LipschitzBudget",
    "LipschitzCertificate",
    "NotWellPosedError",
    "OptimalWeights",
    "RobustnessResult",
    "SmallBoxes",
    "SolverError",
    "TrainingResult",
    "UnknownSolverError",
    "Verdict",
    "attack",
    "available_solvers",
    "certified_radii",
    "contracting",
    "equilibrium_statement",
    "fit",
    "interval_bounds",
    "interval_margins",
    "lipschitz_bounds",
    "lipschitz_certificate",
    "lipschitz_penalty",
    "matrix_measure",
    "optimal_weights",
    "project",
    "project_",
    "project_after_step",
    "verify_document",
    "verify_robustness",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
