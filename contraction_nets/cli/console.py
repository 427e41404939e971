"""What the commands share: exit codes, one-sentence errors, tables, JSON."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from contraction_nets.errors import (
    ContractionNetsError,
    NotWellPosedError,
    SolverError,
    UnknownSolverError,
)

DONE, NOT_PROVED, BAD_INPUT, SOLVER_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
_LONGEST = 1000  # characters of a sentence that quotes a name from a file or an argument
_TAKEN = ("A", "B", "C", "D", "epsilon", "eta", "gamma", "name", "solver", "weights")
"""Arguments of what the options are passed on to."""


def guarded(command: Callable[[], Any]) -> int:
    """Run a command; every error that its input can cause is one sentence on stderr.

    Returns
    -------
    int
        The exit code of DESIGN: 0 done, 1 not proved, 2 bad input, 3 a solver failed.
    """
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no terminal is worth a failure
    try:
        try:
            command()
        finally:
            _flush()
    except NotWellPosedError as error:
        return _fail(error, NOT_PROVED)
    except UnknownSolverError as error:
        return _fail(error, BAD_INPUT)
    except SolverError as error:
        return _fail(error, SOLVER_FAILED)
    except (ContractionNetsError, ValueError, OSError, ImportError) as error:
        return _fail(error, BAD_INPUT)
    except MemoryError:
        return _fail("the input needs more memory than there is, expected less.", BAD_INPUT)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def print_json(value: Any) -> None:
    """One JSON object on stdout, and nothing else."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Two columns on stdout: what, and how much."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: in a string rich takes [x] of a file's name for markup, and :x: for an emoji.
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=False,
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    Console().print(table)


def say(line: str) -> None:
    """A line for people, on stderr."""
    print(line, file=sys.stderr)


def say_error(sentence: str) -> None:
    """One sentence on stderr, whatever names from a file or an argument it quotes."""
    line = " ".join(sentence.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    say(f"error: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)}")


def number(value: float | None, digits: int = 6) -> str:
    """A number as people read it; infinite where there is none."""
    return "∞" if value is None else f"{value:.{digits}g}"


def finite(value: float) -> float | None:
    """The value, or None (JSON null) where it is infinite or NaN."""
    return value if math.isfinite(value) else None


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """`key=value` options of a backend; values are numbers, true or false, or text.

    Raises
    ------
    ValueError
        No equals sign.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key in _TAKEN:
            raise ValueError(
                f"got the option {pair!r}, expected key=value with an option of the backend."
            )
        try:
            options[key] = json.loads(text)
        except (ValueError, RecursionError):
            options[key] = text
    return options


def _flush() -> None:
    """Write what was printed, or raise the error that the interpreter would end with."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if isinstance(sys.stdout, io.TextIOWrapper):  # drop it, or it is tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ValueError(
            f"cannot print the result ({error.strerror}), expected an output that can be written."
        ) from error


def _fail(error: object, code: int) -> int:
    sentence = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        sentence = f"{sentence}, expected a file that can be read and written."
    say_error(sentence)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")
