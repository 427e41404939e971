"""What every test shares: one thread, no window, the MNIST files where there are any."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_dir():
    """Folder of the four MNIST files: MNIST_DIR, or shared/data/mnist beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("MNIST_DIR", beside))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("no MNIST files; set MNIST_DIR to their folder")
    return folder
