"""The command line `contraction-nets`: one thin file per command."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from contraction_nets.cli.attack import attack
from contraction_nets.cli.certify import certify
from contraction_nets.cli.compare import compare
from contraction_nets.cli.console import guarded
from contraction_nets.cli.project import project
from contraction_nets.cli.report import report
from contraction_nets.cli.robustness import robustness
from contraction_nets.cli.train import train
from contraction_nets.cli.verify import verify

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, certify, verify, project, robustness, attack, compare, report):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"contraction-nets {version('contraction-nets')}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Implicit networks that are provably well-posed and robust in the infinity norm."""


def main() -> None:
    """Entry point: exit codes 0 done, 1 not proved, 2 bad input, 3 a solver failed."""
    sys.exit(guarded(app))
