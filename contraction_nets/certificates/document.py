"""The certificate as a file: a statement, its witness, and the hash of the weights.

Numbers that the proof needs are hexadecimal floats, which lose no bit. Whoever has the file
and the weights can check the statement with `verify_document`: no solver, integers only.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contraction_nets.certificates.statements import STATEMENTS, LipschitzBound, Statement
from contraction_nets.certificates.storage import check_regular, write_atomically

if TYPE_CHECKING:
    from contraction_nets.certificates.weights import ImplicitWeights

FORMAT = "contraction-nets certificate"
VERSION = 1
_SLOPES = "[0, 1]"
_UNITS = "inputs as given to the network"
_PARTS = (
    "format",
    "version",
    "statement",
    "assumptions",
    "shapes",
    "weights_sha256",
    "witness",
    "report",
)


@dataclass(frozen=True, eq=False)
class CertificateDocument:
    """What a certificate file says; nothing here is proved until it is verified.

    Attributes
    ----------
    statement : Statement
        What is claimed, with its witness.
    activation : str
    shapes : dict
        Name of each weight array → its shape.
    weights_sha256 : str
    report : dict
        The numbers of ``certify --json``; no part of the proof.
    """

    statement: Statement
    activation: str
    shapes: dict[str, list[int]]
    weights_sha256: str
    report: dict[str, Any]

    @property
    def assumptions(self) -> dict[str, str]:
        """What the claim takes for granted: activation, its slopes, units."""
        return {"activation": self.activation, "slopes": _SLOPES, "units": _UNITS}

    def objection(self, weights: ImplicitWeights) -> str | None:
        """Why the statement is not proved for these weights; None where it is.

        Decided by the hash of the weights and by integer arithmetic, without any solver.
        """
        if self.shapes != weights.shapes:
            return f"the certificate is about weights of other shapes than {weights.shapes}"
        if self.activation != weights.activation:
            return (
                f"the certificate assumes the activation {self.activation}, "
                f"the weights have {weights.activation}"
            )
        if self.weights_sha256 != weights.sha256:
            return (
                f"the certificate is about other weights: its sha256 is {self.weights_sha256}, "
                f"that of the weights {weights.sha256}"
            )
        try:
            proved = self.statement.prove(weights)
        except ValueError as error:
            return f"the certificate does not fit the weights: {str(error).rstrip('.')}"
        if not proved:
            return "the witness in the certificate does not prove its statement for these weights"
        return None

    def verify(self, weights: ImplicitWeights) -> bool:
        """Whether it is about these weights and its witness proves it, in integer arithmetic."""
        return self.objection(weights) is None


def save_statement(
    statement: Statement,
    weights: ImplicitWeights,
    path: str | os.PathLike[str],
    report: dict[str, Any] | None = None,
) -> None:
    """Write a statement about weights and its witness as JSON, atomically.

    Raises
    ------
    ValueError
        The folder does not exist or cannot be written, or a number is not finite.
    """
    claimed = statement.part(statement.claims)
    witnesses = {name: _hexed(value) for name, value in statement.part(statement.witnesses).items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "statement": {
            "kind": statement.kind,
            "norms": statement.norms,
            "text": statement.text,
            **{name: _hexed(value) for name, value in claimed.items()},
            # People read decimals, which say the same to the last bit.
            **{f"{name}_decimal": plain(value) for name, value in claimed.items()},
        },
        "assumptions": {"activation": weights.activation, "slopes": _SLOPES, "units": _UNITS},
        "shapes": weights.shapes,
        "weights_sha256": weights.sha256,
        "witness": witnesses if len(statement.witnesses) > 1 else next(iter(witnesses.values())),
        "report": report or {},
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def load_certificate(path: str | os.PathLike[str]) -> CertificateDocument:
    """Read a certificate file, checking its form but not its claim.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not a certificate of this version, or malformed.
    """
    file = Path(path)
    check_regular(file)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {file}, expected a certificate; check the path."
        ) from None
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}), expected a file.") from error
    try:
        content = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file.name} is not JSON ({str(error)[:200]}), expected a certificate; save it again."
        ) from error
    try:
        return _parse(content)
    except _Malformed as error:
        raise ValueError(
            f"{file.name} is not a certificate of version {VERSION}: {error}, expected what "
            "certify --out writes; save it again."
        ) from None


def verify_document(path: str | os.PathLike[str], weights: ImplicitWeights) -> bool:
    """Whether the certificate file is about these weights and proves what it states.

    Parameters
    ----------
    path : path
        A file written by `LipschitzCertificate.save`.
    weights : ImplicitWeights
        The weights, for example from `ImplicitWeights.load`.

    Returns
    -------
    bool
        False where the hash differs or the witness does not prove the bound.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_certificate`.
    """
    return load_certificate(path).verify(weights)


class _Malformed(Exception):
    """What is wrong with the content, as half a sentence."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A reader that keeps the first of two equal keys would see another statement.
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"the number {text}")


def _parse(content: Any) -> CertificateDocument:
    _require(isinstance(content, dict), "it is not an object")
    _require(content.get("format") == FORMAT, "its format is another")
    version = content.get("version")
    _require(type(version) is int and version == VERSION, f"its version is {version!r:.60}")
    assumptions = _field(content, "assumptions", dict)
    _require(assumptions.get("slopes") == _SLOPES, f"its slopes are not {_SLOPES}")
    _require(assumptions.get("units") == _UNITS, f"its units are not '{_UNITS}'")
    for part, known in ((content, _PARTS), (assumptions, ("activation", "slopes", "units"))):
        _require(set(part) <= set(known), "it has parts that it should not have")
    report = _field(content, "report", dict)
    stated = _field(content, "statement", dict)
    statement = _statement(stated, content.get("witness"))
    if isinstance(statement, LipschitzBound):
        reported = report.get("lipschitz")
        _require(
            isinstance(reported, dict) and _equal(reported.get("bound"), statement.bound),
            "statement.bound and report.lipschitz.bound differ",
        )
    return CertificateDocument(
        statement=statement,
        activation=_field(assumptions, "activation", str),
        shapes=_field(content, "shapes", dict),
        weights_sha256=_field(content, "weights_sha256", str),
        report=report,
    )


def _statement(stated: dict[str, Any], witness: Any) -> Statement:
    name = stated.get("kind")
    kind = STATEMENTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise _Malformed(f"its statement.kind is not one of {', '.join(STATEMENTS)}")
    values: dict[str, Any] = {}
    for name, ndim in kind.claims.items():
        if name in stated:
            values[name] = _array(stated[name], ndim, f"statement.{name}")
            _require(
                _equal(stated.get(f"{name}_decimal"), plain(values[name])),
                f"statement.{name} and statement.{name}_decimal differ",
            )
    named = witness if len(kind.witnesses) > 1 else dict.fromkeys(kind.witnesses, witness)
    _require(isinstance(named, dict), "its witness is not an object")
    _require(set(named) <= set(kind.witnesses), "its witness has parts that it should not have")
    for name, ndim in kind.witnesses.items():
        if name in named:
            values[name] = _array(named[name], ndim, "witness")
    needed = {field.name for field in fields(kind) if field.default is MISSING}  # type: ignore[arg-type]
    missing = sorted(needed - set(values))
    _require(not missing, f"{', '.join(missing)} is missing")
    statement = kind(**values)
    _require(stated.get("norms") == statement.norms, f"its norms are not '{statement.norms}'")
    _require(stated.get("text") == statement.text, f"its text is not '{statement.text}'")
    claimed = set(statement.part(kind.claims))
    decimals = {f"{name}_decimal" for name in claimed}
    extra = sorted(set(stated) - {"kind", "norms", "text"} - claimed - decimals)
    _require(not extra, f"its statement has parts that it should not have: {extra}")
    return statement


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise _Malformed(problem)


def _field(content: dict[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    _require(isinstance(value, kind), f"'{key}' is missing or no {kind.__name__}")
    return value


def _array(value: Any, ndim: int, name: str) -> Any:
    """A float, or a full array of `ndim` dimensions, from hexadecimal text."""
    if ndim == 0:
        _require(isinstance(value, str), f"{name} is not text")
        return _hexadecimal(value)
    _require(isinstance(value, list) and len(value) > 0, f"{name} is not a list of {ndim} levels")
    rows = [_array(inner, ndim - 1, name) for inner in value]
    _require(ndim == 1 or len({len(row) for row in rows}) == 1, f"{name} has rows of many lengths")
    return np.array(rows)


def _hexed(value: Any) -> Any:
    """The float or array of floats as (lists of) hexadecimal text, which loses no bit."""
    numbers = plain(value)
    return [_hexed(inner) for inner in numbers] if isinstance(numbers, list) else numbers.hex()


def plain(value: Any) -> Any:
    """A float, or an array as lists of floats."""
    return np.asarray(value, dtype=np.float64).tolist()


def _equal(found: Any, expected: Any) -> bool:
    """Whether numbers from JSON are these floats; true and false are no numbers."""
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(map(_equal, found, expected))
        )
    return type(found) in (int, float) and bool(found == expected)


def _hexadecimal(text: str) -> float:
    """The finite float that `float.hex` writes as this text, and no other spelling."""
    try:
        value = float.fromhex(text)
    except (ValueError, OverflowError):
        value = math.nan
    _require(math.isfinite(value) and value.hex() == text, f"{text[:40]!r} is no hexadecimal float")
    return value
