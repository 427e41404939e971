"""The weights that a command is given: the argument, its keys, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contraction_nets.certificates.weights import ImplicitWeights

WeightsPath = Annotated[
    Path,
    typer.Argument(
        help="A .npz, .safetensors, .pt or .pth file, the folder of a run, a matrix A (.mtx, .npy, "
        ".npz) or a folder of such matrices A, B, C, …"
    ),
]
Keys = Annotated[
    str,
    typer.Option(
        help="Keys of the file where they do not end in A, B, C, D, b or c: A=mon.W,B=U.weight,…"
    ),
]


Transpose = Annotated[
    str,
    typer.Option(
        help="Matrices that are stored transposed, as in A,B, where their shape does not tell."
    ),
]
Activation = Annotated[
    str | None, typer.Option(help="φ, where the file does not tell it; relu otherwise.")
]


def read(
    path: Path, keys: str = "", transpose: str = "", activation: str | None = None
) -> ImplicitWeights:
    """The weights in a file, their keys as ``A=mon.W,B=U.weight``.

    Raises
    ------
    ValueError
        Malformed keys, or a file that cannot be read as weights.
    FileNotFoundError
        There is no such file.
    """
    from contraction_nets.certificates.weights import ImplicitWeights

    named: dict[str, str] = {}
    for pair in filter(None, keys.split(",")):
        name, equals, key = pair.partition("=")
        if not equals or name in named:
            raise ValueError(f"got the keys {keys!r}, expected the form A=mon.W,B=U.weight.")
        named[name] = key
    turned = list(filter(None, transpose.split(",")))
    return ImplicitWeights.load(path, keys=named, transpose=turned, activation=activation)
