"""Numbers that are options: the number itself, or one sentence about it."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether this is a real number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def positive(value: float, name: str) -> float:
    """The number itself; ValueError unless it is positive and finite."""
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"got {name} = {value!r:.60}, expected a positive number.")
    return value


def whole(value: int, name: str) -> int:
    """The number itself; ValueError unless it is a whole one of at least 1."""
    if not is_number(value) or not 1 <= value < math.inf or int(value) != value:
        raise ValueError(f"got {name} = {value!r:.60}, expected a whole number of at least 1.")
    return int(value)


def at_least_zero(value: float, name: str) -> float:
    """The number itself; ValueError where it is negative or not finite."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"got {name} = {value!r:.60}, expected a number of at least 0.")
    return float(value)


def share(value: float, name: str) -> float:
    """The number itself; ValueError where it is not in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"got {name} = {value!r:.60}, expected a number in [0, 1].")
    return value


def as_seed(seed: int) -> int:
    """The seed itself; ValueError unless it is one for numpy and torch alike."""
    if not is_number(seed) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise ValueError(f"got the seed {seed!r:.60}, expected a whole number from 0 to 2**32 − 1.")
    return int(seed)
