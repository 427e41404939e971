"""Damaged and malicious input: one sentence, exit code 2, nothing written, nothing run."""

import contextlib
import errno
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch
from damage import assert_loaded_or_refused, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from contraction_nets import ImplicitWeights
from contraction_nets.errors import TransposedWarning

RNG = np.random.default_rng(0)
A = 0.1 * RNG.normal(size=(4, 4)) * (RNG.uniform(size=(4, 4)) < 0.6) + 0.0  # no -0.0
B, C = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 4))
WEIGHTS = ImplicitWeights(A, B, C)
ALONE = ImplicitWeights(A, np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
TENSORS = {name: torch.tensor(array) for name, array in (("A", A), ("B", B), ("C", C))}
LAYOUTS = ("dense", "sparse_coo", "sparse_csr", "sparse_csc")
GENERAL = "%%MatrixMarket matrix coordinate real general\n"
ARRAY = "%%MatrixMarket matrix array real general\n"


def torch_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def laid_out(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its sparse tensors are new
        kind = getattr(torch, layout, torch.strided)
        return {
            name: tensor if layout == "dense" else tensor.to_sparse(layout=kind)
            for name, tensor in TENSORS.items()
        }


def valid_files(folder):
    """Path → the weights it holds, for every format."""
    files = {}
    sparse = ImplicitWeights(sp.csr_array(A), B, C)
    for suffix in ("npz", "safetensors"):
        for name, weights in (("full", WEIGHTS), ("sparse", sparse)):
            weights.save(folder / f"{name}.{suffix}")
            files[folder / f"{name}.{suffix}"] = WEIGHTS
    np.savez_compressed(folder / "turned.npz", A=A, B=np.asfortranarray(B.T), C=C.T)
    files[folder / "turned.npz"] = WEIGHTS
    for layout in LAYOUTS:
        path = folder / f"{layout}.pt"
        path.write_bytes(torch_bytes({"state_dict": {"layer": laid_out(layout)}, "epoch": 3}))
        files[path] = WEIGHTS
    for form in ("csr", "csc", "coo"):
        sp.save_npz(folder / f"{form}.npz", sp.coo_array(A).asformat(form))
        files[folder / f"{form}.npz"] = ALONE
    np.save(folder / "A.npy", A)
    scipy.io.mmwrite(folder / "places.mtx", sp.coo_array(A), precision=17)
    scipy.io.mmwrite(folder / "array.mtx", A, precision=17)
    files |= dict.fromkeys([folder / name for name in ("A.npy", "places.mtx", "array.mtx")], ALONE)
    matrices = folder / "matrices"
    matrices.mkdir()
    scipy.io.mmwrite(matrices / "A.mtx", sp.coo_array(A), precision=17)
    sp.save_npz(matrices / "B.npz", sp.csc_array(B))
    np.save(matrices / "C.npy", C)
    files[matrices] = WEIGHTS
    return files


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return valid_files(tmp_path_factory.mktemp("valid"))


def assert_refused(result):
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert "expected" in err
    assert len(err) < 1100
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()


@pytest.fixture
def refused(command, tmp_path):
    """Assert that no command takes this file, or writes anything because of it."""
    folder = tmp_path / "results"
    folder.mkdir()

    def check(path):
        assert_refused(command("certify", path, "--out", folder / "c.json"))
        assert_refused(command("project", path, "--gamma", 0.5, "--out", folder / "p.npz"))
        assert list(folder.iterdir()) == []

    return check


def test_every_format_holds_the_same_weights(valid):
    for path, weights in valid.items():
        turned = pytest.warns(TransposedWarning, match="A has been read as it is stored")
        with turned if path.stem == "turned" else contextlib.nullcontext():
            found = ImplicitWeights.load(path)
        assert found.sha256 == weights.sha256, path.name
        for name, array in weights.arrays().items():
            other = found.arrays()[name]
            assert np.array_equal(other.toarray() if sp.issparse(other) else other, array)


def test_who_names_what_is_transposed_is_not_warned(tmp_path):
    path = tmp_path / "turned.npz"
    np.savez(path, A=A.T, B=B.T, C=C.T)
    whole = ImplicitWeights.load(path, transpose="ABC")
    assert np.array_equal(whole.A, A)
    with pytest.warns(TransposedWarning):
        half = ImplicitWeights.load(path)
    assert np.array_equal(half.A, A.T)
    assert np.array_equal(ImplicitWeights.load(path, transpose="BC").A, A.T)


@pytest.mark.parametrize("kind", ["symmetric", "skew-symmetric"])
@pytest.mark.parametrize("form", [np.asarray, sp.coo_array])
def test_matrix_market_symmetries(tmp_path, kind, form):
    matrix = A + A.T if kind == "symmetric" else A - A.T
    scipy.io.mmwrite(tmp_path / "A.mtx", form(matrix), precision=17, symmetry=kind)
    found = ImplicitWeights.load(tmp_path / "A.mtx").A
    np.testing.assert_array_equal(found.toarray() if sp.issparse(found) else found, matrix)


SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=500, derandomize=True)
@given(seed=SEEDS, kind=st.sampled_from(["cut", "byte", "bytes", "hole", "splice", "number"]))
def test_damaged_files_of_every_format_load_or_are_refused(valid, tmp_path_factory, seed, kind):
    rng = np.random.default_rng(seed)
    paths = [path for path in valid if path.is_file()]
    path, other = (paths[i] for i in rng.integers(len(paths), size=2))
    bad = tmp_path_factory.mktemp("damaged") / f"w{path.suffix}"
    bad.write_bytes(damaged(path.read_bytes(), rng, kind, other.read_bytes()))
    assert_loaded_or_refused(bad)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GENERAL,
        GENERAL + "2 2 1\n1 1 .5x\n",
        GENERAL + "2 2 1\n1 1 0x1p-1\n",
        GENERAL + "2 2 1\n1 1 1_0\n",
        GENERAL + "2 2 1\n1 1 0,5\n",
        GENERAL + "2 2 1\n1 1 ０.5\n",
        GENERAL + "2 2 1\n1 1 nan\n",
        GENERAL + "2 2 1\n1 1 1e400\n",
        GENERAL + "2 2 1\n1.0 1 .5\n",
        GENERAL + "2 2 1\n0 1 .5\n",
        GENERAL + "2 2 1\n3 1 .5\n",
        GENERAL + "2 2 1\n99999999999999999999 1 .5\n",
        GENERAL + "2 2 2\n1 1 .5\n",
        GENERAL + "2 2 1\n1 1 .5\n1 2 .5\n",
        GENERAL + "2 2 2\n1 1\n.5 1 1 .5\n",
        GENERAL + "2 3 1\n1 1 .5\n",
        GENERAL + "0 0 0\n",
        GENERAL + f"{10**12} {10**12} 1\n1 1 1\n",
        GENERAL + f"2 2 {10**12}\n1 1 1\n",
        GENERAL + "9" * 10**5,
        GENERAL.replace("real", "complex") + "2 2 1\n1 1 1 0\n",
        GENERAL.replace("real", "integer") + "2 2 1\n1 1 9007199254740993\n",
        GENERAL.replace("general", "hermitian") + "2 2 1\n1 1 1\n",
        GENERAL.replace("general", "symmetric") + "2 3 1\n1 1 1\n",
        GENERAL.replace("general", "skew-symmetric") + "2 2 1\n1 1 1\n",
        GENERAL.replace("%%MatrixMarket", "%%MatrixMarket\x1b[31m") + "2 2 1\n1 1 1\n",
        ARRAY + f"{10**6} {10**6}\n1\n",
        ARRAY + "2 2\n1\n2\n3\n",
        ARRAY + "2 2\n1\n-6.2\x7f?5\n3\n4\n",
        ARRAY + "2 2\n1 2\n3 4\n",
    ],
)
def test_bad_matrix_market_files(refused, tmp_path, text):
    (tmp_path / "w.mtx").write_text(text, encoding="utf-8")
    refused(tmp_path / "w.mtx")


class Call:
    """What a pickle calls when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def torch_archive(pickled, method=zipfile.ZIP_STORED, data=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/version", "3\n")
        archive.writestr("w/data/0", data)
    return buffer.getvalue()


def test_pickles_run_nothing_and_get_no_memory(refused, tmp_path):
    ran = tmp_path / "ran"
    for call in (
        Call(open, str(ran), "w"),
        Call(torch.Tensor, 10**12),  # torch allows it, and does not initialize it
        Call(bytearray, 10**12),
    ):
        data = pickle.dumps({"A": call, "B": call, "C": call}, protocol=2)
        for content in (data, torch_archive(data)):
            (tmp_path / "w.pt").write_bytes(content)
            refused(tmp_path / "w.pt")
    bomb = torch_archive(pickle.dumps({}, 2), zipfile.ZIP_DEFLATED, bytes(10**6))
    (tmp_path / "w.pt").write_bytes(bomb)
    refused(tmp_path / "w.pt")
    assert not ran.exists()


def nested_dictionaries():
    inner = {"A": TENSORS["A"]}
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    return inner


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates them
        return torch.quantize_per_tensor(torch.zeros(1, 1), 0.1, 0, torch.qint8)


def test_torch_files_that_are_no_weights(refused, tmp_path):
    one, itself = torch.zeros(1, 1), {}
    itself["again"] = itself
    point = torch.sparse_coo_tensor(
        torch.tensor([[0], [0]]), torch.ones(1), (10**9, 10**9), check_invariants=True
    )
    for value in (
        {**TENSORS, "A": one.expand(10**6, 10**6)},
        {**TENSORS, "A": TENSORS["A"].to("meta")},
        {**TENSORS, "A": TENSORS["A"] + 1j},
        {**TENSORS, "A": TENSORS["A"] * float("nan")},
        {**TENSORS, "A": TENSORS["A"].to(torch.float8_e5m2)},
        {**TENSORS, "A": quantized()},
        {**TENSORS, "A": torch.tensor(1.0)},
        {**TENSORS, "A": point},
        {**TENSORS, "layer.A": one, "layer": {"A": one}},
        {"A": 1.0},
        itself,
        nested_dictionaries(),
        [one],
    ):
        (tmp_path / "w.pt").write_bytes(torch_bytes(value))
        refused(tmp_path / "w.pt")
    torch.save(TENSORS, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "w.pt")


def test_other_entries_of_a_torch_file_do_not_matter(tmp_path):
    others = {"repeated": torch.zeros(1, 1).expand(10**6, 10**6), "none": torch.zeros(2).to("meta")}
    torch.save({**TENSORS, **others}, tmp_path / "w.pt")
    assert ImplicitWeights.load(tmp_path / "w.pt").sha256 == WEIGHTS.sha256


def npy(header, data=b"", version=b"\x01\x00"):
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode() + data


def declared(shape, kind="'<f8'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        npy(declared((10**9, 10**9))),
        npy(declared((10**30, 0))),
        npy(declared((2,)), bytes(16)),
        npy(declared(()), bytes(8)),
        npy(declared((0, 3))),
        npy(declared((1, 1), "'<c16'"), bytes(16)),
        npy(declared((1, 1), "'|O'"), bytes(8)),
        npy(declared((1, 1), "[('a', 'O')]"), bytes(8)),
        npy(declared((1, 1), "'<U2000000000'"), bytes(8)),
        npy(declared("9**9**9"), bytes(8)),
        npy("(" * 9000 + ")" * 9000),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
    ],
)
def test_bad_arrays(refused, tmp_path, data):
    (tmp_path / "w.npy").write_bytes(data)
    refused(tmp_path / "w.npy")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("shape", [10**9, 10**9]),
        ("shape", [4]),
        ("indices", [-1, 0, 0, 0]),
        ("indices", [0, 1, 2, 4]),
        ("indptr", [0, 1, 2, 3, 2**64 - 1]),
        ("indptr", [0, 1, 2, 3, 99]),
        ("indptr", [0, 2, 1, 3, 4]),
        ("data", [np.nan, 1.0, 1.0, 1.0]),
        ("data", [1j, 1.0, 1.0, 1.0]),
    ],
)
def test_bad_sparse_parts(refused, tmp_path, part, value):
    parts = {"data": np.ones(4), "indices": np.arange(4), "indptr": np.arange(5), "shape": [4, 4]}
    named = {f"A.{name}": array for name, array in {**parts, part: np.array(value)}.items()}
    np.savez(tmp_path / "w.npz", B=B, C=C, **named)
    refused(tmp_path / "w.npz")


def test_names_in_archives_do_not_move_the_cursor(refused, tmp_path):
    names = ("a\nb\x1b[31m", "k" * 60000)
    for name in names:
        for keys in ((name,), (f"{name}.A", "x.A")):
            np.savez(tmp_path / "w.npz", B=B, C=C, **dict.fromkeys(keys, A))
            refused(tmp_path / "w.npz")


def test_pipes_devices_and_loops_are_refused(refused, command, valid, tmp_path):
    (weights, *_) = valid
    for suffix in (".npz", ".npy", ".mtx", ".pt", ".safetensors", ".csv", ".json"):
        pipe, loop, zero = (tmp_path / f"{name}{suffix}" for name in ("pipe", "loop", "zero"))
        os.mkfifo(pipe)
        loop.symlink_to(loop)
        zero.symlink_to("/dev/zero")
        for path in (pipe, loop, zero):
            refused(path)
            assert_refused(command("verify", path, weights))
            assert_refused(command("certify", weights, "--epsilon", path))
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "A.npy")
    refused(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a,b,c\n",
        b"1,2,3\n1,2\n",
        b"1,nan,3\n",
        b"1,1e400,3\n",
        b"1;2;3\n4;5;6\n",
        b"1,2,3,4\n",
        b"1,2,\x00\n",
        bytes(range(256)),
        "1,2,3\n".encode("utf-16"),
        b"1,2," + b"9" * 200000,
    ],
)
def test_bad_tables(command, valid, tmp_path, text):
    (weights, *_), out = valid, tmp_path / "out"
    out.mkdir()
    (tmp_path / "t.csv").write_bytes(text)
    arguments = ("certify", weights, "--out", out / "c.json")
    radii = ("--inputs", tmp_path / "t.csv", "--radii", out / "r.csv")
    assert_refused(command(*arguments, *radii))
    assert_refused(command(*arguments, "--epsilon", tmp_path / "t.csv"))
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--option", "weights=1"),
        ("--option", "epsilon=1"),
        ("--option", "name=x"),
        ("--option", "solver=highs"),
        ("--option", "x=" + "[" * 9999),
        ("--keys", "A=" + "x\x1b" * 9000),
        ("--activation", "x\n\x1b" * 1000),
        ("--norm", "nan,2"),
        ("--epsilon", "nan"),
        ("--inputs", "in.csv", "--radii", "none/r.csv"),
        ("--inputs", "in.csv", "--radii", "c.json"),
    ],
)
def test_bad_arguments_write_nothing(command, valid, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("1,2,3\n")
    (weights, *_) = valid
    assert_refused(command("certify", weights, "--out", "c.json", *arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_or_a_read_only_folder(command, valid, tmp_path, monkeypatch, code):
    (weights, *_) = valid

    def fails(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", fails)
    assert_refused(command("certify", weights, "--out", tmp_path / "c.json"))
    assert_refused(command("project", weights, "--gamma", 0.5, "--out", tmp_path / "p.npz"))
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK and access(path, mode))
    assert_refused(command("certify", weights, "--out", tmp_path / "c.json"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device(command, valid, monkeypatch):
    (weights, *_) = valid
    assert_refused(command("certify", weights, "--out", "/dev/full"))
    for arguments in ((), ("--json",)):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr("sys.stdout", full)
            code, _, err = command("certify", weights, *arguments)
            monkeypatch.undo()
        assert code == 2
        assert err.count("\n") == 1


def test_paths_of_any_letters(command, valid, tmp_path):
    (weights, *_) = valid
    path = tmp_path / "ünï 日本\n\x1b.npz"
    path.write_bytes(weights.read_bytes())
    out = tmp_path / os.fsdecode(b"\xff.json")
    assert command("certify", path, "--out", out)[0] == 0
    assert command("verify", out, path)[0] == 0


WRONG = [None, True, 10**400, "", "nan", "0x1p0", "x" * 5000, "\n\x1b", [], {}, [[]], ["0x0.0p+0"]]


@pytest.mark.parametrize("kind", ["lipschitz", "pairs", "gains", "measure"])
def test_changed_certificates_prove_nothing(command, valid, tmp_path, kind):
    (weights, *_), path = valid, tmp_path / "c.json"
    assert command("certify", weights, "--out", path, "--statement", kind)[0] == 0
    whole = json.loads(path.read_text())
    for part in ("format", "version", "assumptions", "shapes", "weights_sha256", "witness"):
        path.write_text(json.dumps({key: whole[key] for key in whole if key != part}))
        assert_refused(command("verify", path, weights))
    more = {**whole, "assumptions": {**whole["assumptions"], "inputs": "small"}}
    for extended in ({**whole, "more": 1}, more):
        path.write_text(json.dumps(extended))
        assert_refused(command("verify", path, weights))
    for name in whole["statement"]:
        for wrong in WRONG:
            changed = {**whole, "statement": {**whole["statement"], name: wrong}}
            path.write_text(json.dumps(changed))
            assert_refused(command("verify", path, weights))
    for wrong in WRONG:
        path.write_text(json.dumps({**whole, "witness": wrong}))
        assert command("verify", path, weights)[0] in (1, 2)
    for data in (b"", b"[" * 10**5, b'{"a":' * 10**4, b"9" * 10**4, b"NaN", b"\xff\xfe"):
        path.write_bytes(data)
        assert_refused(command("verify", path, weights))
