"""The certificate as a file: a statement, its witness, and the hash of the weights.

Numbers that the proof needs are hexadecimal floats, which lose no bit. Whoever has the file
and the weights can check the statement with `verify_document`: no solver, integers only.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contraction_nets.certificates.exact import prove_bound
from contraction_nets.certificates.storage import write_atomically

if TYPE_CHECKING:
    from contraction_nets.certificates.lipschitz import LipschitzCertificate
    from contraction_nets.certificates.weights import ImplicitWeights

FORMAT = "contraction-nets certificate"
VERSION = 1
_CLAIM = {
    "kind": "lipschitz",
    "norms": "linf->linf",
    "text": "well-posed, and max|y(u) - y(v)| <= bound * max|u - v| for all inputs u, v",
}
_SLOPES = "[0, 1]"
_UNITS = "inputs as given to the network"


@dataclass(frozen=True, eq=False)
class CertificateDocument:
    """What a certificate file says; nothing here is proved until it is verified.

    Attributes
    ----------
    bound : float
        Claimed ℓ∞ → ℓ∞ Lipschitz bound, in output units per input unit.
    witness : (n,) array
    activation : str
    shapes : dict
        Name of each weight array → its shape.
    weights_sha256 : str
    report : dict
        The numbers of ``certify --json``; no part of the proof.
    """

    bound: float
    witness: NDArray[np.float64]
    activation: str
    shapes: dict[str, list[int]]
    weights_sha256: str
    report: dict[str, Any]

    @property
    def statement(self) -> str:
        """What is claimed, in words."""
        return _CLAIM["text"]

    @property
    def assumptions(self) -> dict[str, str]:
        """What the claim takes for granted: activation, its slopes, units."""
        return {"activation": self.activation, "slopes": _SLOPES, "units": _UNITS}

    def objection(self, weights: ImplicitWeights) -> str | None:
        """Why the statement is not proved for these weights; None where it is.

        Decided by the hash of the weights and by integer arithmetic, without any solver.
        """
        if self.shapes != weights.shapes or self.witness.shape != (weights.state_dim,):
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
        arrays = weights.A, weights.B, weights.C, weights.D
        if not prove_bound(*arrays, self.witness, self.bound):
            return "the witness in the certificate does not prove its bound for these weights"
        return None

    def verify(self, weights: ImplicitWeights) -> bool:
        """Whether it is about these weights and its witness proves it, in integer arithmetic."""
        return self.objection(weights) is None


def save_certificate(certificate: LipschitzCertificate, path: str | os.PathLike[str]) -> None:
    """Write a certificate as JSON, atomically."""
    weights = certificate.weights
    content = {
        "format": FORMAT,
        "version": VERSION,
        "statement": {
            **_CLAIM,
            "bound": certificate.bound.hex(),
            "bound_decimal": certificate.bound,
        },
        "assumptions": {"activation": weights.activation, "slopes": _SLOPES, "units": _UNITS},
        "shapes": weights.shapes,
        "weights_sha256": weights.sha256,
        "witness": [value.hex() for value in certificate.witness.tolist()],
        "report": certificate.as_dict(),
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
            f"{file.name} is not a certificate of version {VERSION}: {error}; save it again."
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
    _require(type(version) is int and version == VERSION, f"its version is {version!r}")
    statement = _field(content, "statement", dict)
    for key, expected in _CLAIM.items():
        _require(statement.get(key) == expected, f"its statement.{key} is not '{expected}'")
    bound = _hexadecimal(_field(statement, "bound", str))
    # People read the decimal: it must be the number that is proved.
    decimal = statement.get("bound_decimal")
    _require(
        isinstance(decimal, int | float) and not isinstance(decimal, bool) and decimal == bound,
        "statement.bound and statement.bound_decimal differ",
    )
    assumptions = _field(content, "assumptions", dict)
    _require(assumptions.get("slopes") == _SLOPES, f"its slopes are not {_SLOPES}")
    _require(assumptions.get("units") == _UNITS, f"its units are not '{_UNITS}'")
    report = _field(content, "report", dict)
    reported = report.get("lipschitz")
    _require(
        isinstance(reported, dict) and reported.get("bound") == bound,
        "statement.bound and report.lipschitz.bound differ",
    )
    witness = _field(content, "witness", list)
    _require(len(witness) > 0 and all(isinstance(v, str) for v in witness), "witness is not text")
    return CertificateDocument(
        bound=bound,
        witness=np.array([_hexadecimal(value) for value in witness]),
        activation=_field(assumptions, "activation", str),
        shapes=_field(content, "shapes", dict),
        weights_sha256=_field(content, "weights_sha256", str),
        report=report,
    )


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise _Malformed(problem)


def _field(content: dict[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    _require(isinstance(value, kind), f"'{key}' is missing or no {kind.__name__}")
    return value


def _hexadecimal(text: str) -> float:
    """The finite float that `float.hex` writes as this text, and no other spelling."""
    try:
        value = float.fromhex(text)
    except (ValueError, OverflowError):
        value = math.nan
    _require(math.isfinite(value) and value.hex() == text, f"{text[:40]!r} is no hexadecimal float")
    return value
