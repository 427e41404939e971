"""`contraction-nets report`: the pictures of a run in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Write a self-contained HTML report of a run and print its path."""
    from contraction_nets.viz.report import write_report

    typer.echo(write_report(run))
