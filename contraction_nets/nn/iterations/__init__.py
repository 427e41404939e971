"""Iterations for x = φ(A x + s), one file each; a file in this folder is found by itself.

- "diagonal_resolvent", the default: the cheapest step; best unless A is nearly critical
- "auto": the same, and something faster where the way turns out to be long
- "reduced_rank(k)", "anderson(m)", "broyden(m)", "newton": accelerated, and safeguarded so
  that they converge for every well-posed A
- "average(α)" [NEMON], "forward_backward(α)", "peaceman_rachford(α)" [MON], "picard"

"newton" and "peaceman_rachford" factor A, which must be dense.
"""

import importlib
import pkgutil

from contraction_nets.nn.iterations.base import Elementwise, Iteration, Prepared, get_iteration

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from contraction_nets.nn.iterations.anderson import Anderson  # noqa: E402
from contraction_nets.nn.iterations.auto import Auto  # noqa: E402
from contraction_nets.nn.iterations.average import Average  # noqa: E402
from contraction_nets.nn.iterations.broyden import Broyden  # noqa: E402
from contraction_nets.nn.iterations.diagonal_resolvent import DiagonalResolvent  # noqa: E402
from contraction_nets.nn.iterations.forward_backward import ForwardBackward  # noqa: E402
from contraction_nets.nn.iterations.loop import Solved  # noqa: E402
from contraction_nets.nn.iterations.newton import Newton  # noqa: E402
from contraction_nets.nn.iterations.peaceman_rachford import PeacemanRachford  # noqa: E402
from contraction_nets.nn.iterations.picard import Picard  # noqa: E402
from contraction_nets.nn.iterations.reduced_rank import ReducedRank  # noqa: E402

__all__ = [
    "Anderson", "Auto", "Average", "Broyden", "DiagonalResolvent", "Elementwise", "ForwardBackward",
    "Iteration", "Newton", "PeacemanRachford", "Picard", "Prepared", "ReducedRank", "Solved",
    "get_iteration",
]  # fmt: skip
