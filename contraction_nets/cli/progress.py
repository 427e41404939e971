"""A progress bar on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class ProgressBar:
    """One bar, which appears with the first `update` and stays where it ends.

    Bad input is found before the first step, and then refused without a bar.

    Examples
    --------
    >>> with ProgressBar() as bar:  # doctest: +SKIP
    ...     bar.update("attacking", 3, 10)
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # brackets stay brackets
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def update(self, description: str, done: int, total: int) -> None:
        """Say what is being done and how far it is."""
        self._progress.start()
        self._progress.update(self._task, description=description, completed=done, total=total)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        from rich.text import Text

        self._progress.console.print(Text(line), soft_wrap=True)
