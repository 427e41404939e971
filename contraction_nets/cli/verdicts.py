"""The verdict file of `contraction-nets robustness`: a sample a row, to go on from."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contraction_nets.cli.counterexamples import CounterexampleFile
    from contraction_nets.robustness.result import Verdict

Row = dict[str, Any]

COLUMNS = (
    *("epsilon", "sample", "label", "input", "status", "rung", "margin", "seconds", "reason"),
    *("method", "domain", "weights"),
)
"""Every row says what it is about: the last three are the same in all of them."""
_EVERY = 5.0  # seconds between two writes of the whole file


@dataclass
class VerdictFile:
    """Rows by radius and number of the sample, written whole and atomically now and then.

    Attributes
    ----------
    path : Path or None
        A .csv or .json file; nothing is written without one.
    about : dict
        The columns method, domain and weights of every row.
    report : callable
        What a .json file says besides the rows.
    counterexamples : CounterexampleFile or None
        Written whenever this one is, before it: no verdict without its counterexample.
    rows : dict
    """

    path: Path | None
    about: Row
    report: Callable[[], dict[str, Any]]
    counterexamples: CounterexampleFile | None = None
    rows: dict[tuple[float, int], Row] = field(default_factory=dict)
    _written: float = field(default_factory=time.monotonic)

    def load(self) -> None:
        """Take over the rows of the file, if it is there; a last row cut off is dropped.

        Raises
        ------
        ValueError
            Another damaged row, or rows about something else.
        """
        if self.path is None or not self.path.exists():
            return
        for number, fields in enumerate(_raw_rows(self.path), start=1):
            try:
                row = _checked(fields)
                key = row["epsilon"], row["sample"]
                if key in self.rows:
                    raise ValueError("a sample twice")
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise ValueError(
                    f"row {number} of {self.path.name} is damaged ({error}), expected what "
                    "robustness wrote; remove the row, or the file to begin anew."
                ) from error
            if any(row[name] != value for name, value in self.about.items()):
                raise ValueError(
                    f"{self.path.name} is about other weights, another method or domain than "
                    "asked for, expected the same; choose another --out."
                )
            self.rows[key] = row

    def add(self, epsilon: float, sample: int, identity: Row, verdict: Verdict) -> None:
        """Note a verdict, and write the file if it was not written lately.

        An unknown one does not replace what was proved. The identity is that of `Samples`.
        """
        if verdict.status == "unknown" and self._status(epsilon, sample) != "unknown":
            return
        if self.counterexamples is not None and verdict.counterexample is not None:
            self.counterexamples.add(epsilon, sample, verdict.counterexample)
        named = {"epsilon": epsilon, "sample": sample} | identity
        self.rows[epsilon, sample] = named | verdict.as_dict() | self.about
        if time.monotonic() - self._written > _EVERY:
            self.save()

    def is_open(self, epsilon: float, sample: int) -> bool:
        """Whether a sample is to be decided: it is unknown, or its counterexample is missing."""
        status = self._status(epsilon, sample)
        beside = self.counterexamples
        missing = beside is not None and (epsilon, sample) not in beside.rows
        return status == "unknown" or (status == "falsified" and missing)

    def check(self) -> None:
        """Refuse verdicts that cannot all be true, whatever file they come from.

        Raises
        ------
        ValueError
            A sample is certified at a radius within which it is falsified, or a counterexample in
            the file is proved to be one.
        """
        certified: dict[int, float] = {}
        for (radius, sample), row in sorted(self.rows.items()):
            if row["status"] == "certified":
                certified[sample] = radius
        beside = {} if self.counterexamples is None else self.counterexamples.rows
        for radius, sample in sorted(self.rows.keys() | beside.keys()):
            if radius <= certified.get(sample, -math.inf) and self._is_lost(radius, sample):
                raise ValueError(
                    f"sample {sample} is certified at ε = {certified[sample]:g} and falsified at "
                    f"ε = {radius:g}, expected one of the two; begin anew with other files, and "
                    "report it as a defect if it remains."
                )

    def _is_lost(self, epsilon: float, sample: int) -> bool:
        """Whether it is proved that the sample does not keep its label."""
        beside = self.counterexamples
        return self._status(epsilon, sample) == "falsified" or (
            beside is not None and beside.is_proved(epsilon, sample)
        )

    def _status(self, epsilon: float, sample: int) -> str:
        row = self.rows.get((epsilon, sample))
        return "unknown" if row is None else str(row["status"])

    def save(self) -> None:
        """Write all rows, in order; without any there is no file, for nothing is known."""
        from contraction_nets.certificates.storage import write_atomically

        if not self.rows:
            return
        if self.counterexamples is not None:
            self.counterexamples.save()
        if self.path is not None:
            write_atomically(self.path, self._text(self.path.suffix).encode())
        self._written = time.monotonic()

    def _text(self, suffix: str) -> str:
        rows = [self.rows[key] for key in sorted(self.rows)]
        if suffix == ".json":
            return json.dumps(self.report() | {"verdicts": rows}, indent=1, allow_nan=False) + "\n"
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()


def _raw_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as they are in the file, but for a last one without its end."""
    from contraction_nets.certificates.storage import check_regular, read_json

    check_regular(path)
    if path.suffix == ".json":
        rows = read_json(path).get("verdicts")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path.name} has no verdicts, expected what robustness wrote.")
        return rows
    try:
        data = path.read_bytes()
        text = data[: data.rfind(b"\n") + 1].decode()
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found, names = list(reader), reader.fieldnames
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(
            f"{path.name} cannot be read as verdicts ({error}), expected what robustness wrote."
        ) from error
    if data and tuple(names or ()) != COLUMNS:
        raise ValueError(f"{path.name} has other columns, expected {', '.join(COLUMNS)}.")
    return found


def _checked(fields: dict[str, Any]) -> Row:
    """A row with its numbers as such; ValueError, TypeError or KeyError where it is damaged."""
    from contraction_nets.robustness.result import DECIDED_BY, STATUSES

    if set(fields) != set(COLUMNS) or any(
        fields[name] is None for name in COLUMNS if name != "margin"
    ):
        raise ValueError("it has other columns")
    if not isinstance(fields["reason"], str):
        raise ValueError("its reason is no text")
    margin = fields["margin"]
    row = {
        **{name: fields[name] for name in COLUMNS},
        "epsilon": _number(fields["epsilon"], float),
        "sample": _number(fields["sample"], int),
        "label": _number(fields["label"], int),
        "margin": None if margin in ("", None) else _number(margin, float),
        "seconds": _number(fields["seconds"], float),
    }
    known = row["status"] in STATUSES and row["rung"] in DECIDED_BY
    numbers = (row["epsilon"], row["seconds"], row["margin"] or 0.0)
    if not known or not all(map(math.isfinite, numbers)) or min(row["sample"], row["label"]) < 0:
        raise ValueError("it says nothing that a verdict can say")
    sign = row["margin"] or 0.0
    if (row["status"] == "certified" and not sign > 0) or (
        row["status"] == "falsified" and not sign < 0
    ):
        raise ValueError(f"{row['status']} with the margin {margin}")
    return row


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    """A number of a file; ValueError or TypeError for what Python alone takes for one."""
    found = kind(value)
    rounded = isinstance(value, float) and found != value
    if rounded or isinstance(value, bool) or "_" in str(value):
        raise ValueError(f"{value!r} is not such a number")
    return found
