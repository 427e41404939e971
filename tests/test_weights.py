"""Weights as stored: dtypes, hashes, and readers that trust no byte."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from damage import assert_loaded_or_refused, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from contraction_nets import ImplicitWeights, lipschitz_certificate, verify_document
from contraction_nets.certificates import matrix_files
from contraction_nets.certificates.storage import write_atomically
from contraction_nets.certificates.weights import parse_activation
from contraction_nets.nn.activations import get_activation


def example(dtype=np.float64, *, full=True, activation="relu"):
    rng = np.random.default_rng(0)
    A, B, C = rng.normal(size=(3, 3)), rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    rest = (rng.normal(size=(4, 2)), rng.normal(size=3), rng.normal(size=4)) if full else ()
    return ImplicitWeights(*(x.astype(dtype) for x in (A, B, C, *rest)), activation=activation)


def assert_equal(one, other):
    assert one.activation == other.activation
    assert list(one.arrays()) == list(other.arrays())
    for name, array in one.arrays().items():
        assert other.arrays()[name].dtype == array.dtype
        assert other.arrays()[name].tobytes() == array.tobytes()
    assert one.sha256 == other.sha256


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("full", [True, False])
def test_save_and_load_keep_every_bit(tmp_path, suffix, dtype, full):
    weights = example(dtype, full=full, activation="leaky_relu(0.2)")
    weights.save(tmp_path / f"w{suffix}")
    assert_equal(ImplicitWeights.load(tmp_path / f"w{suffix}"), weights)
    weights.save(tmp_path / f"again{suffix}")
    assert (tmp_path / f"w{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"again{suffix}", f"w{suffix}"]


def test_numpy_reads_what_was_saved(tmp_path):
    weights = example()
    weights.save(tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as archive:
        np.testing.assert_array_equal(archive["A"], weights.A)
        assert archive["activation"] == "relu"


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_archives_of_numpy_are_read(tmp_path, write):
    weights = example(np.float32)
    arrays = {f"layer.{name}": np.asfortranarray(x) for name, x in weights.arrays().items()}
    write(tmp_path / "w.npz", **arrays, gamma=np.array(0.9), **{"layer.eta": np.ones(3)})
    assert_equal(ImplicitWeights.load(tmp_path / "w.npz"), weights)


def test_a_run_folder_and_its_metadata(tmp_path):
    weights = example(np.float32, activation="tanh")
    named = {("layer." if n in "AB" else "") + n: x for n, x in weights.arrays().items()}
    named["layer.gamma"] = np.array(0.9)
    about = {"version": 1, "activation": "tanh", "hidden": 3}
    path = tmp_path / "model.safetensors"
    save_file(named, path, {"contraction_nets": json.dumps(about)})
    assert_equal(ImplicitWeights.load(tmp_path), weights)
    save_file(named, path, {"contraction_nets": json.dumps({**about, "version": 2})})
    with pytest.raises(ValueError, match="version"):
        ImplicitWeights.load(tmp_path)
    for text in ("{", "[]", json.dumps({"activation": "gelu"}), json.dumps({"activation": 3})):
        save_file(named, path, {"contraction_nets": text})
        with pytest.raises(ValueError, match="expected"):
            ImplicitWeights.load(tmp_path)


def test_the_hash_sees_every_change():
    weights = example()
    hashes = {weights.sha256, example(np.float32).sha256, example(full=False).sha256}
    hashes.add(example(activation="tanh").sha256)
    arrays = weights.arrays()
    for name, array in arrays.items():
        changed = array.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], 9.0)
        hashes.add(ImplicitWeights(**{**arrays, name: changed}).sha256)
    assert len(hashes) == 4 + len(arrays)
    zeros = np.zeros((1, 1))
    negative = ImplicitWeights(-zeros, zeros, zeros)
    assert ImplicitWeights(zeros, zeros, zeros).sha256 != negative.sha256
    swapped = {name: array.astype(">f8", order="F") for name, array in arrays.items()}
    assert ImplicitWeights(**swapped).sha256 == weights.sha256


def test_arrays_are_read_only_copies():
    A = np.zeros((2, 2))
    weights = ImplicitWeights(A, np.ones((2, 1)), np.ones((1, 2)))
    A[0, 0] = 5.0
    assert weights.A[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        weights.A[0, 0] = 1.0
    assert (weights.state_dim, weights.input_dim, weights.output_dim) == (2, 1, 1)
    assert weights.shapes == {"A": [2, 2], "B": [2, 1], "C": [1, 2]}


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (np.float16, np.float32),
        (np.bool_, np.float32),
        (np.int16, np.float32),
        (np.int32, np.float64),
        (np.uint64, np.float64),
        (np.float32, np.float32),
        (">f4", np.float32),
    ],
)
def test_conversion_is_exact(dtype, stored):
    info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else None
    value = info.smallest_subnormal if info else np.dtype(dtype).type(1)
    A = np.array([[value]], dtype=dtype)
    weights = ImplicitWeights(A, [[1.0]], [[1.0]])
    assert weights.A.dtype == stored
    assert float(weights.A[0, 0]) == float(value) != 0.0


@pytest.mark.parametrize(
    "A",
    [
        [[np.nan]],
        [[np.inf]],
        [[1j]],
        [["1"]],
        [[None]],
        None,
        1.0,
        [1.0],
        [[1.0, 2.0]],
        [[1.0], [2.0, 3.0]],
        np.zeros((0, 0)),
        [[2**53 + 1]],
        [[2**63 + 1]],
        np.array([[2**64 - 1]], dtype=np.uint64),
        np.ones((1, 1), dtype=np.longdouble),
        np.zeros((1, 1), dtype="datetime64[s]"),
    ],
)
def test_bad_matrices_are_refused(A):
    with pytest.raises(ValueError, match="expected"):
        ImplicitWeights(A, [[1.0]], [[1.0]])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("B", (2, 1)),
        ("B", (3, 0)),
        ("B", (3,)),
        ("C", (4, 2)),
        ("C", (0, 3)),
        ("D", (2, 4)),
        ("D", (4, 3)),
        ("b", (4,)),
        ("b", (3, 1)),
        ("c", (3,)),
        ("c", ()),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, shape):
    with pytest.raises(ValueError, match=f"{name} has shape"):
        ImplicitWeights(**{**example().arrays(), name: np.ones(shape)})


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("relu", ("relu", None)),
        ("leaky_relu", ("leaky_relu", 0.01)),
        ("leaky_relu(0.2)", ("leaky_relu", 0.2)),
        ("leaky_relu(1)", ("leaky_relu", 1.0)),
        ("elu", ("elu", 1.0)),
        ("elu(0.5)", ("elu", 0.5)),
        ("elu(0)", ("elu", 0.0)),
        ("tanh", ("tanh", None)),
        ("sigmoid", ("sigmoid", None)),
        ("softplus", ("softplus", None)),
    ],
)
def test_activations(spec, parsed):
    assert parse_activation(spec) == parsed


@pytest.mark.parametrize(
    ("spec", "spelled"),
    [
        ("relu", "relu"),
        ("leaky_relu(0.01)", "leaky_relu"),
        ("leaky_relu(1e-2)", "leaky_relu"),
        ("leaky_relu(0.20)", "leaky_relu(0.2)"),
        ("leaky_relu(-0.0)", "leaky_relu(0.0)"),
        ("elu(1)", "elu"),
        ("elu(.5)", "elu(0.5)"),
    ],
)
def test_an_activation_has_one_spelling(tmp_path, spec, spelled):
    weights, other = example(activation=spec), example(activation=spelled)
    assert weights.activation == spelled
    assert weights.sha256 == other.sha256
    assert str(get_activation(spelled)) == spelled
    path = tmp_path / "certificate.json"
    small = ImplicitWeights([[0.5]], [[1.0]], [[1.0]], activation=spec)
    lipschitz_certificate(small).save(path)
    assert verify_document(path, ImplicitWeights([[0.5]], [[1.0]], [[1.0]], activation=spelled))


def test_the_hash_of_relu_is_that_of_earlier_files():
    small = ImplicitWeights([[0.25, -0.5], [0.5, -1.0]], [[1.0], [1.0]], [[1.0, 1.0]])
    assert small.sha256 == "fbce8059a95ec6b5940964cfd03a13d7fadb2ab3634841f1f8133a531204d67e"


@pytest.mark.parametrize(
    "spec",
    [
        "gelu",
        "",
        "relu()",
        "relu(1)",
        "leaky_relu(-0.1)",
        "leaky_relu(1.5)",
        "elu(2)",
        "elu(nan)",
        "elu(",
        "elu()",
        "elu(x)",
        "elu(0.5))",
        "Relu",
        "relu\n",
        None,
        3,
        "leaky_relu(inf)",
    ],
)
def test_activations_that_are_no_contraction_are_refused(spec):
    with pytest.raises(ValueError, match="slopes in"):
        parse_activation(spec)
    with pytest.raises(ValueError, match="slopes in"):
        example(activation=spec)


def npz(members, **options):
    """An archive of raw members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def npy_header(shape, descr="<f8"):
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


ONE = npy(np.ones((1, 1)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 not a zip", "cannot be read"),
        (npz([]), "no key ending in A or B or C"),
        (npz([("A.npy", ONE), ("B.npy", ONE), ("weight.npy", ONE)]), "no key ending in C"),
        (npz([(f"{n}.npy", ONE) for n in ("x.A", "y.A", "B", "C")]), "both end in 'A'"),
        (npz([(f"{n}.npy", npy_header((10**9, 10**9))) for n in "ABC"]), "declares shape"),
        (npz([(f"{n}.npy", npy_header((2, 2)) + bytes(31)) for n in "ABC"]), "declares shape"),
        (npz([(f"{n}.npy", npy_header((-1, -1)) + bytes(8)) for n in "ABC"]), "expected"),
        (npz([(f"{n}.npy", npy_header((1, 1), "|O") + bytes(8)) for n in "ABC"]), "expected"),
        (npz([(f"{n}.npy", npy_header((1, 1), "<U2") + bytes(8)) for n in "ABC"]), "dtype <U2"),
        (npz([(f"{n}.npy", b"\x93NUMPY\x09\x00") for n in "ABC"]), "cannot be read"),
        (npz([(f"{n}.npy", b"junk") for n in "ABC"]), "cannot be read"),
        (npz([(f"{n}.npy", ONE) for n in ("A", "B", "C", "activation")]), "expected a string"),
    ],
)
def test_bad_archives_are_refused_in_one_sentence(tmp_path, data, message):
    path = tmp_path / "w.npz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        ImplicitWeights.load(path)
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    zeros = ImplicitWeights(np.zeros((300, 300)), np.zeros((300, 1)), np.zeros((1, 300)))
    np.savez_compressed(tmp_path / "w.npz", **zeros.arrays())
    assert_equal(ImplicitWeights.load(tmp_path / "w.npz"), zeros)
    monkeypatch.setattr(matrix_files, "_LARGE", 10**5)
    with pytest.raises(ValueError, match="unpacks from"):
        ImplicitWeights.load(tmp_path / "w.npz")
    zeros.save(tmp_path / "w.npz")
    assert_equal(ImplicitWeights.load(tmp_path / "w.npz"), zeros)


def test_pickled_arrays_are_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    objects = npy(np.array([[Bomb()]], dtype=object), allow_pickle=True)
    (tmp_path / "w.npz").write_bytes(npz([(f"{n}.npy", objects) for n in "ABC"]))
    with pytest.raises(ValueError, match="expected"):
        ImplicitWeights.load(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), cut=st.booleans())
def test_damaged_files_load_or_are_refused(tmp_path_factory, suffix, seed, cut):
    folder = tmp_path_factory.mktemp("damaged")
    example().save(folder / f"good{suffix}")
    rng, data = np.random.default_rng(seed), (folder / f"good{suffix}").read_bytes()
    path = folder / f"bad{suffix}"
    path.write_bytes(damaged(data, rng, "cut" if cut else "byte"))
    assert_loaded_or_refused(path)


def test_paths_that_cannot_be_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        ImplicitWeights.load(tmp_path / "w.npz")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        ImplicitWeights.load(tmp_path)
    (tmp_path / "w.txt").write_text("1")
    with pytest.raises(ValueError, match=r"expected \.npz"):
        ImplicitWeights.load(tmp_path / "w.txt")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        ImplicitWeights.load(tmp_path)
    with pytest.raises(ValueError, match="suffix"):
        example().save(tmp_path / "w.mat")
    for path in (tmp_path / "none" / "w.npz", tmp_path / "w.txt" / "w.npz"):
        with pytest.raises(ValueError, match="cannot write"):
            example().save(path)


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "w.npz")
    for name in ("w.npz", "folder.npz"):
        (tmp_path / "folder.npz").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="not a regular file"):
            example().save(tmp_path / name)
    assert (tmp_path / "w.npz").is_fifo()


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "link.npz").symlink_to("target.npz")
    example().save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert_equal(ImplicitWeights.load(tmp_path / "target.npz"), example())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.npz"
    example().save(path)
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]


def test_torch_files_and_modules_go_through_the_converter(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("contraction_nets.nn.convert")
    weights = example(np.float32)
    state = {f"layer.{n}": torch.tensor(x) for n, x in weights.arrays().items()}
    torch.save(state, tmp_path / "w.pt")
    assert_equal(ImplicitWeights.load(tmp_path / "w.pt"), weights)
    (tmp_path / "w.pth").write_bytes(b"junk")
    with pytest.raises(ValueError, match="expected"):
        ImplicitWeights.load(tmp_path / "w.pth")
    small = ImplicitWeights(**{**weights.arrays(), "A": weights.A / 10})
    assert_equal(ImplicitWeights.from_module(small.to_module()), small)
    chain = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4))
    stacked = ImplicitWeights.from_sequential(chain)
    np.testing.assert_array_equal(stacked.C, chain[2].weight.detach().numpy())
    assert (stacked.A == 0).all()
