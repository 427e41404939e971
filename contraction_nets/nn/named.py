"""Small frozen objects that are written as "name" or "name(number)"."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar

_SPEC = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")

N = TypeVar("N", bound="Named")


@dataclass(frozen=True)
class Named:
    """Options only, at most one of them; `str` gives the spec that `parse` reads back.

    Attributes
    ----------
    name : str
        What the spec starts with.
    """

    name: ClassVar[str]

    def __str__(self) -> str:
        changed = [
            repr(float(getattr(self, field.name)))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{self.name}({changed[0]})" if changed else self.name

    @classmethod
    def known(cls: type[N]) -> dict[str, type[N]]:
        """The subclasses by name: a new one is one class and no other edit."""
        found: dict[str, type[N]] = {}
        for child in cls.__subclasses__():
            found.update({child.name: child} if "name" in vars(child) else child.known())
        return found


def parse(base: type[N], spec: str | N) -> N:
    """The object that a spec describes; objects pass through.

    Raises
    ------
    ValueError
        No such name, a parameter that is not a number, or one out of range.
    """
    if isinstance(spec, base):
        return spec
    known, kind = base.known(), base.__name__.lower()
    match = _SPEC.fullmatch(spec) if isinstance(spec, str) else None
    if match is None or match[1] not in known:
        raise ValueError(f"got {kind} {spec!r}, expected one of {', '.join(known)}.")
    chosen, text = known[match[1]], match[2]
    if text is None:
        return chosen()
    if not fields(chosen):
        raise ValueError(f"got {kind} {spec!r}, expected '{match[1]}': it takes no parameter.")
    try:
        return chosen(float(text))
    except ValueError as error:
        if "expected" in str(error):
            raise
        raise ValueError(
            f"got {kind} {spec!r}, expected one number in the brackets, as in '{match[1]}(0.5)'."
        ) from None
