"""Files that are whole or not there, and JSON objects in them."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole.

    Raises
    ------
    ValueError
        The folder does not exist or cannot be written, or the path is a device or a folder.
    """
    target = check_target(path)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb") as stream:
            try:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(partial, target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:  # no folder, no right, no room
        raise _cannot_write(target, error.strerror or str(error)) from error


def check_target(path: str | os.PathLike[str]) -> Path:
    """Where a file of this path is written: to be known before hours of work.

    Raises
    ------
    ValueError
        The folder does not exist or cannot be written, or the path is a device or a folder.
    """
    try:
        target = Path(os.path.realpath(path, strict=False))  # a symbolic link stays one
        there, regular, folder = target.exists(), target.is_file(), target.parent.is_dir()
    except (OSError, ValueError) as error:  # a name too long, a null character
        raise _cannot_write(Path(path), getattr(error, "strerror", None) or str(error)) from error
    if there and not regular:
        raise _cannot_write(target, "not a regular file")
    if not folder:
        raise _cannot_write(target, "there is no such folder")
    if not os.access(target.parent, os.W_OK):
        raise _cannot_write(target, "the folder is read-only")
    return target


def _cannot_write(target: Path, reason: str) -> ValueError:
    return ValueError(
        f"cannot write {target} ({reason}), expected a file in an existing folder with room; "
        "create the folder or choose another."
    )


def check_regular(path: Path) -> None:
    """Refuse what is there but no file: a device or a pipe may have no end.

    Raises
    ------
    ValueError
        A folder, a device, a pipe or a socket.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} cannot be read (not a regular file), expected a file.")


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file cannot be read or does not hold one JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"there is no {path.name} in {path.parent}, expected the folder of a run; "
            "check the path."
        ) from None
    except (ValueError, RecursionError, OSError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} is not a JSON object, expected what training wrote; restore or remove it."
        )
    return value
