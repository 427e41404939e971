"""`contraction-nets compare`: methods side by side, at equal accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraction_nets.cli.comparison_table import print_rows
from contraction_nets.cli.console import print_json
from contraction_nets.cli.tables import write_csv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

Row = dict[str, Any]

_SIZES = {
    "projections": (50, 100, 200),
    "certificates": (100, 300, 1000),
    "iterations": (100, 500),
    "sets": (60,),
}
_ACCURACY = {"projections": 1e-6, "certificates": 1e-6, "iterations": 1e-5}
_PICTURES = (".svg", ".png", ".pdf")


class Subject(StrEnum):
    """What is compared."""

    PROJECTIONS = "projections"
    CERTIFICATES = "certificates"
    ITERATIONS = "iterations"
    SETS = "sets"


def compare(
    subject: Annotated[
        Subject,
        typer.Argument(
            help="projections or certificates (every backend), iterations, or constraint sets."
        ),
    ],
    sizes: Annotated[str, typer.Option(help="Numbers of states, as 50,100,200.")] = "",
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this backend, iteration or set; repeatable."),
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(help="Relative error that answers may have to be compared.")
    ] = None,
    repetitions: Annotated[int, typer.Option(help="Timed solves of each, in turn.")] = 5,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for one solve; slower ones are shown as timed out.")
    ] = 30.0,
    gamma: Annotated[float, typer.Option(help="Bound on μ∞(A), below one.")] = 0.95,
    batches: Annotated[str, typer.Option(help="Batch sizes of iterations.")] = "1,100",
    family: Annotated[
        list[str] | None, typer.Option(help="Only this family of iterations' cases; repeatable.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="What sets are trained on: digits, mnist, function or function2d.")
    ] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the MNIST files; OpenML without one.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data of sets.")] = 10,
    seed: Annotated[int, typer.Option(help="Of iterations' cases and of the training.")] = 0,
    threads: Annotated[int, typer.Option(help="Of linear algebra.")] = 1,
    csv: Annotated[Path | None, typer.Option(help="Where to write the rows (.csv).")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Where to draw them (.svg, .png or .pdf).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare methods: untimed set-up, timed solve, untimed check of what was reached."""
    from contraction_nets.certificates.storage import check_target

    if csv is not None:
        check_target(csv)
    if plot is not None:
        check_target(plot)
        if plot.suffix.lower() not in _PICTURES:
            raise ValueError(f"got the picture {plot.name}, expected .svg, .png or .pdf.")
    for name, value in (("repetitions", repetitions), ("threads", threads), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"got {value} {name}, expected at least 1.")
    if not time_limit > 0:
        raise ValueError(f"got a time limit of {time_limit} seconds, expected more than 0.")
    asked = _whole(sizes, "sizes") or _SIZES[subject]
    level = _ACCURACY.get(subject) if accuracy is None else accuracy
    if level is not None and not 0 < level < 1:
        raise ValueError(f"got the accuracy {level}, expected a number between 0 and 1.")
    with _progress() as tell:
        if subject is Subject.SETS:
            result = _sets(data, data_dir, asked, method, gamma, epochs, seed, threads, tell)
        elif subject is Subject.ITERATIONS:
            result = _iterations(
                asked, _whole(batches, "batches"), family, method, level, repetitions,
                time_limit, seed, threads, tell,
            )  # fmt: skip
        else:
            result = _backends(
                subject, asked, method, gamma, level, repetitions, time_limit, threads, tell
            )
    figure = None if plot is None else _draw(subject, result)
    if csv is not None:
        header = [key for key, value in result["rows"][0].items() if not isinstance(value, dict)]
        write_csv(csv, header, ([row[key] for key in header] for row in result["rows"]))
    if plot is not None and figure is not None:
        _save(figure, plot)
    if as_json:
        from contraction_nets.comparison.machine import machine

        print_json({"subject": subject.value, "machine": machine(threads), **result})
    else:
        print_rows(subject.value, result["rows"])


def _backends(
    subject: Subject,
    sizes: Sequence[int],
    methods: list[str] | None,
    gamma: float,
    accuracy: float | None,
    repetitions: int,
    limit: float,
    threads: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    from contraction_nets.comparison.certificates import compare_certificates
    from contraction_nets.comparison.projections import compare_projections

    run = compare_projections if subject is Subject.PROJECTIONS else compare_certificates
    rows = run(
        sizes,
        gamma=gamma,
        accuracy=accuracy or 1e-6,
        repetitions=repetitions,
        limit=limit,
        solvers=methods,
        threads=threads,
        progress=tell,
    )
    return {"rows": rows}


def _iterations(
    sizes: Sequence[int],
    batches: Sequence[int],
    families: list[str] | None,
    methods: list[str] | None,
    accuracy: float | None,
    repetitions: int,
    limit: float,
    seed: int,
    threads: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    import torch

    from contraction_nets.comparison.cases import cases
    from contraction_nets.comparison.iterations import compare_iterations

    torch.set_num_threads(threads)
    chosen = {} if methods is None else {"iterations": methods}
    rows = compare_iterations(
        cases(families, sizes, batches, seed),
        tol=accuracy or 1e-5,
        repetitions=repetitions,
        time_limit=limit,
        progress=lambda case, name: tell(f"{case}: {name}"),
        **chosen,  # type: ignore[arg-type]
    )
    return {"rows": rows}


def _sets(
    data: str,
    data_dir: Path | None,
    sizes: Sequence[int],
    methods: list[str] | None,
    gamma: float,
    epochs: int,
    seed: int,
    threads: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    import torch

    from contraction_nets.comparison.sets import SETS, contained, train_on_sets
    from contraction_nets.training.data import load_data

    torch.set_num_threads(threads)
    samples = load_data(data, data_dir=data_dir, seed=seed)
    rows: list[Row] = []
    for n in sizes:
        found = train_on_sets(
            samples,
            hidden=n,
            gamma=gamma,
            epochs=epochs,
            seeds=(seed,),
            sets=tuple(methods or SETS),
            progress=lambda done, total, n=n: tell(f"n = {n}: training, step {done} of {total}"),  # type: ignore[misc]
        )
        rows += [{"n": n} | row for row in found]
    tell("random matrices")
    return {"rows": rows, "cloud": contained(20, gamma=gamma) + contained(20, gamma=gamma, shift=1)}


def _draw(subject: Subject, result: dict[str, Any]) -> Figure:
    from contraction_nets.viz import comparison

    if subject is Subject.SETS:
        return comparison.plot_sets(result["rows"], result["cloud"])
    if subject is Subject.ITERATIONS:
        return comparison.plot_compared_iterations(result["rows"])
    if subject is Subject.PROJECTIONS:
        return comparison.plot_projections(result["rows"])
    return comparison.plot_certificates(result["rows"])


def _save(figure: Figure, path: Path) -> None:
    import io

    from contraction_nets.certificates.storage import write_atomically

    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=200)
    write_atomically(path, buffer.getvalue())


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A function that shows what is being done on stderr, while it is."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("") as status:
        yield lambda text: status.update(text)


def _whole(text: str, name: str) -> tuple[int, ...]:
    """The positive whole numbers in "1,2,3"; none in an empty text."""
    try:
        numbers = tuple(json.loads(f"[{text}]"))
    except ValueError:
        numbers = (0,)
    if not all(type(n) is int and n > 0 for n in numbers):
        raise ValueError(f"got the {name} {text!r}, expected whole numbers such as 50,100.")
    return numbers
