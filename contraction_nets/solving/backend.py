"""What a file in the folder `solvers` defines: one backend with its options as fields."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

from contraction_nets.solving.problems import Problem
from contraction_nets.solving.solution import Solution


@dataclass(frozen=True)
class Backend(ABC):
    """A solver with its options; subclasses are frozen dataclasses, one per file."""

    name: ClassVar[str]
    """The name users pass as ``solver=``."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Import names of the packages it needs."""
    solves: ClassVar[tuple[str, ...]]
    """The problem kinds it solves: "projection", "linear program"."""

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Solve the problem; never raise for a numerical failure, return its status."""

    @classmethod
    def missing(cls) -> list[str]:
        """Required packages that are not installed."""
        return [name for name in cls.requires if importlib.util.find_spec(name) is None]

    @classmethod
    def options(cls) -> list[str]:
        """Names of the options."""
        return [field.name for field in fields(cls)]
