"""What the scripts of this folder share: arguments, training that resumes, result files.

A script needs nothing but::

    from common import finish, start, train, write

    def main() -> None:
        chosen = start(__doc__, epochs=12, hidden=100)  # more options, with their defaults
        data = load_data("mnist", data_dir=chosen.data_dir)
        network = train(chosen, "plain", make_network, data, epochs=chosen.epochs, …).network
        write(chosen, "accuracy", {"rows": rows})

    if __name__ == "__main__":
        finish(main)

Every script has --data-dir, --out (runs/reproduce), --seed (0) and --threads (1). Trained networks
are RUN folders OUT/NAME, results are OUT/NAME.json, pictures are OUT/NAME.svg; a script that was
interrupted goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contraction_nets import ImplicitNetwork, TrainingResult, fit
from contraction_nets.certificates.storage import write_atomically, write_json
from contraction_nets.cli.console import guarded
from contraction_nets.cli.progress import ProgressBar
from contraction_nets.comparison.machine import machine
from contraction_nets.nn.options import as_seed, whole
from contraction_nets.training.checkpoint import CHECKPOINT
from contraction_nets.training.data import Dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STARTED = time.perf_counter()


def start(description: str | None, *paths: str, **options: Any) -> argparse.Namespace:
    """Read the command line, set the threads and the seed of torch, make the folder.

    Parameters
    ----------
    description : str
        What --help says: the docstring of the script.
    *paths : str
        Names of arguments without dashes, each of one or more paths.
    **options
        Further options with their defaults, whose type they have; a tuple is an option that
        takes one or more of the type of its first element.

    Returns
    -------
    argparse.Namespace
        data_dir (Path or None), out (Path), seed, threads (int), and the options.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in paths:
        parser.add_argument(name, type=Path, nargs="+")
    parser.add_argument("--data-dir", type=Path, help="folder of the MNIST files; else OpenML")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    for name, default in options.items():
        first = default[0] if isinstance(default, tuple) else default
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(first),
            nargs="+" if isinstance(default, tuple) else None,
            default=default,
            help=f"default: {' '.join(map(str, default)) if default is not first else default}",
        )
    chosen = parser.parse_args()
    whole(chosen.threads, "threads")
    as_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    chosen.out.mkdir(parents=True, exist_ok=True)
    return chosen


def train(
    chosen: argparse.Namespace,
    name: str,
    network: Callable[[], ImplicitNetwork],
    data: Dataset,
    *,
    seed: int | None = None,
    epochs: int,
    **options: Any,
) -> TrainingResult:
    """Train in the RUN folder OUT/name with a progress bar, or go on where an earlier start was.

    Parameters
    ----------
    chosen : argparse.Namespace
        Of `start`.
    name : str
        Of the folder.
    network : callable
        Makes the network; called right after the seed is set.
    data : Dataset
    seed : int, optional
        Of the weights and of the order of the samples; that of the command line by default.
    epochs : int
    **options
        Of `fit`.
    """
    seed = chosen.seed if seed is None else seed
    torch.manual_seed(seed)
    run = chosen.out / name
    with progress(name) as tell:
        return fit(
            network(),
            data,
            epochs=epochs,
            seed=seed,
            run=run,
            resume=(run / CHECKPOINT).exists(),
            on_step=lambda epoch, done, steps: tell((epoch - 1) * steps + done, epochs * steps),
            **options,
        )


def write(
    chosen: argparse.Namespace, name: str, result: dict[str, Any], *, tell: bool = True
) -> None:
    """Write OUT/name.json: the machine, the arguments, the seconds so far, and the result.

    Says so on stderr, unless `tell` is false, as for one of many writes.
    """
    arguments = {
        key: [path.name for path in value] if _are_paths(value) else value
        for key, value in vars(chosen).items()
        if key not in ("data_dir", "out")
    }
    origin = {
        "script": Path(sys.argv[0]).name,
        "arguments": arguments,
        "machine": machine(chosen.threads),
        "seconds": round(time.perf_counter() - _STARTED, 1),
    }
    path = chosen.out / f"{name}.json"
    write_json(path, origin | result)
    if tell:
        print(f"wrote {path}", file=sys.stderr)


def draw(chosen: argparse.Namespace, name: str, figure: Figure) -> None:
    """Write OUT/name.svg, the same bytes for the same figure."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "contraction-nets"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    path = chosen.out / f"{name}.svg"
    write_atomically(path, buffer.getvalue())
    print(f"wrote {path}", file=sys.stderr)


def finish(main: Callable[[], None]) -> None:
    """Run a script and exit with its code; an error is one sentence, as in the commands."""
    sys.exit(guarded(main))


def _are_paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Path) for entry in value)


@contextmanager
def progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr: a function that takes how much is done, and how much there is."""
    with ProgressBar() as bar:
        yield lambda done, total: bar.update(name, done, total)
