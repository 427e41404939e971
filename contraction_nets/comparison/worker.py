"""Another process that runs functions and can be stopped, whatever hangs or crashes in it.

A solver in compiled code cannot be interrupted from Python, and not every one has a time
limit. Every method has a process of its own, so that no method's threads disturb another's.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from contraction_nets.errors import SolverError

_START = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from contraction_nets.comparison.worker import serve; serve()"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TimedOut(SolverError):
    """A call was stopped at its limit."""


class Worker:
    """A process that lives from call to call, with whatever it has imported and set up.

    Parameters
    ----------
    threads : int
        Of its linear algebra.
    """

    def __init__(self, threads: int = 1) -> None:
        self._environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[tuple[bool, Any] | None] = queue.Queue()

    def call(
        self, function: Callable[..., Any], *arguments: Any, limit: float | None = None
    ) -> Any:
        """The result of a function of a module in that process, started where there is none.

        Parameters
        ----------
        limit : float, optional
            Seconds after which the process is killed.

        Raises
        ------
        TimedOut
            The limit has passed.
        SolverError
            The function raised an error, or the process died.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(pickle.dumps((function, arguments)))
            process.stdin.flush()
            answer = self._answers.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise TimedOut(f"stopped after {limit:g} seconds.") from None
        except BrokenPipeError:
            answer = None
        if answer is None:
            code = process.wait()
            self.close()
            raise SolverError(f"its process ended with code {code}.")
        succeeded, value = answer
        if not succeeded:
            raise SolverError(value)
        return value

    def close(self) -> None:
        """End the process; the next call starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        self._process, self._answers = process, queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, self._answers), daemon=True).start()
        return process

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _read(stream: Any, answers: queue.Queue[tuple[bool, Any] | None]) -> None:
    try:
        while True:
            answers.put(pickle.load(stream))
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        answers.put(None)


def serve() -> None:
    """Answer calls until standard input ends; what solvers print goes nowhere."""
    stream = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for printed in (1, 2):
        os.dup2(nowhere, printed)
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        except Exception as error:  # a function or argument that this process does not know
            answer: tuple[bool, Any] = False, f"{type(error).__name__}: {error}"
        else:
            answer = _answer(function, arguments)
        pickle.dump(answer, stream)
        stream.flush()


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:  # reported where the call was made
        return False, f"{type(error).__name__}: {error}"
