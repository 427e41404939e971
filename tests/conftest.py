"""What every test shares: one thread, no window, the command line, the MNIST files if any."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from contraction_nets import ImplicitNetwork, fit
from contraction_nets.cli import main
from contraction_nets.training.data import load_data

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_dir():
    """Folder of the four MNIST files: MNIST_DIR, or shared/data/mnist beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("MNIST_DIR", beside))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("no MNIST files; set MNIST_DIR to their folder")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small classifier of the digits, trained anew for every module."""
    folder = tmp_path_factory.mktemp("[run]")
    torch.manual_seed(0)
    fit(
        ImplicitNetwork(64, 15, 10), load_data("digits"), epochs=6, learning_rate=1e-2,
        audit=False, run=folder,
    )  # fmt: skip
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
