"""Data sets: what is in them, and files that are not what they should be."""

import gzip
import struct

import numpy as np
import pytest
import torch

from contraction_nets.training.data import load_data

NAMES = ["digits", "function", "function2d"]


@pytest.mark.parametrize("name", NAMES)
def test_bundled_data(name):
    data, again, other = load_data(name), load_data(name), load_data(name, seed=1)
    assert torch.equal(data.train_inputs, again.train_inputs)
    assert not torch.equal(data.train_inputs, other.train_inputs)
    for inputs in (data.train_inputs, data.test_inputs):
        assert inputs.dtype == torch.float32
        assert inputs.shape[1] == data.in_features
        assert float(inputs.min()) >= 0
        assert float(inputs.max()) <= 1
    assert len(data.train_inputs) == len(data.train_targets)
    assert len(data.test_inputs) == len(data.test_targets)


def test_digits_are_split_without_overlap():
    data = load_data("digits")
    assert (len(data.train_inputs), len(data.test_inputs)) == (1437, 360)
    assert (data.in_features, data.out_features, data.classifies) == (64, 10, True)
    assert torch.bincount(data.test_targets).min() >= 34


def test_functions_are_noisy_in_training_only():
    data = load_data("function")
    u, y = data.test_inputs, data.test_targets
    torch.testing.assert_close(y, torch.sin(4 * torch.pi * u) * torch.exp(-2 * u))
    u, y = data.train_inputs, data.train_targets
    noise = y - torch.sin(4 * torch.pi * u) * torch.exp(-2 * u)
    assert 0.04 < float(noise.std()) < 0.06
    assert (data.out_features, data.classifies) == (1, False)
    assert load_data("function2d").test_inputs.shape == (41 * 41, 2)


def write_mnist(folder, packed=True, count=12):
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28) + rng.bytes(count * 784)
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(i % 10 for i in range(count))
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{name}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(tmp_path, packed):
    write_mnist(tmp_path, packed)
    data = load_data("mnist", data_dir=tmp_path)
    assert data.train_inputs.shape == (12, 784)
    assert data.test_targets.tolist() == [i % 10 for i in range(12)]
    assert 0.9 < float(data.train_inputs.max()) <= 1


def test_the_original_files(mnist_dir):
    data = load_data("mnist", data_dir=mnist_dir)
    assert (len(data.train_inputs), len(data.test_inputs)) == (60000, 10000)
    assert data.train_targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert float(data.train_inputs.mean()) == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize(
    "kind", ["truncated", "longer", "magic", "gzip", "huge", "empty", "labels"]
)
def test_damaged_files_are_refused(tmp_path, kind):
    write_mnist(tmp_path, packed=kind == "gzip")
    path = tmp_path / ("train-images-idx3-ubyte" + (".gz" if kind == "gzip" else ""))
    content = path.read_bytes()
    if kind == "labels":
        path = tmp_path / "train-labels-idx1-ubyte"
        content = struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"abc"
    path.write_bytes(
        {
            "truncated": content[:-1],
            "longer": content + b"x",
            "magic": b"\0\0\x0d" + content[3:],
            "gzip": content[:-20],
            "huge": content[:4] + b"\xff" * 12,
            "empty": b"",
            "labels": content,
        }[kind]
    )
    with pytest.raises(ValueError, match="expected"):
        load_data("mnist", data_dir=tmp_path)


def test_missing_files_and_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_data("mnist", data_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="train-images"):
        load_data("mnist", data_dir=tmp_path)
    with pytest.raises(ValueError, match="expected one of digits"):
        load_data("cifar")
