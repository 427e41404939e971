"""What every test shares: one thread, no window, the command line, the MNIST files if any."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from contraction_nets.cli import main

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_dir():
    """Folder of the four MNIST files: MNIST_DIR, or shared/data/mnist beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("MNIST_DIR", beside))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("no MNIST files; set MNIST_DIR to their folder")
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["contraction-nets", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run
