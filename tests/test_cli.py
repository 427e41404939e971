"""The command line: what it prints, how it ends, and what it does with bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import gammas, matrices

from contraction_nets import ImplicitWeights, available_solvers, matrix_measure
from contraction_nets.certificates.document import verify_document
from contraction_nets.certificates.exact import prove_bound
from contraction_nets.certificates.statements import STATEMENTS


@pytest.fixture
def weights(tmp_path):
    """A file with A, B, C, D, b of a well-posed network."""
    rng = np.random.default_rng(0)
    A = 0.1 * rng.normal(size=(5, 5))
    B, C, D, b = (rng.normal(size=shape) for shape in ((5, 3), (2, 5), (2, 3), (5,)))
    path = tmp_path / "weights.npz"
    ImplicitWeights(A, B, C, D, b).save(path)
    return path


def one_sentence(err):
    return err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err


def test_certify(command, weights, tmp_path):
    out = tmp_path / "certificate.json"
    code, text, err = command("certify", weights, "--out", out)
    assert (code, err) == (0, "")
    for part in ("well-posed", "proved in exact integer arithmetic", "norm-product", "sha256"):
        assert part in text
    assert verify_document(out, ImplicitWeights.load(weights))
    code, text, err = command("certify", weights, "--json")
    report = json.loads(text)
    assert (code, err, report["well_posed"]) == (0, "", True)
    assert set(report) == {
        "well_posed", "mu_inf", "mu_weighted", "eta", "abscissa", "lipschitz", "shapes",
        "weights_sha256",
    }  # fmt: skip
    assert set(report["lipschitz"]) == {
        "bound", "norm_product_bound", "solver", "primal_dual_gap", "verified",
    }  # fmt: skip
    assert report["lipschitz"]["verified"] is True


@pytest.mark.parametrize("kind", ["lipschitz", "gains", "measure"])
def test_one_run_proves_the_bound_once(command, weights, tmp_path, monkeypatch, kind):
    proved = []

    def counted(*arguments):
        proved.append(prove_bound(*arguments))
        return proved[-1]

    monkeypatch.setattr("contraction_nets.certificates.exact.prove_bound", counted)
    out = tmp_path / "certificate.json"
    code, text, _ = command("certify", weights, "--statement", kind, "--out", out, "--json")
    assert (code, proved) == (0, [True])
    assert json.loads(text)["lipschitz"]["verified"] is True


@pytest.mark.parametrize("solver", available_solvers("linear program"))
def test_certify_by_every_solver(command, weights, solver):
    code, text, _ = command("certify", weights, "--solver", solver, "--json")
    bound = json.loads(text)["lipschitz"]["bound"]
    exact = json.loads(command("certify", weights, "--json")[1])["lipschitz"]["bound"]
    assert code == 0
    assert bound == pytest.approx(exact, rel=1e-6)


def test_verify(command, weights, tmp_path):
    path = tmp_path / "certificate.json"
    assert command("certify", weights, "--out", path)[0] == 0
    code, text, err = command("verify", path, weights)
    assert (code, err) == (0, "")
    assert "in exact integer arithmetic" in text
    code, text, err = command("verify", path, weights, "--json")
    report = json.loads(text)
    assert (code, err, report["proved"], report["objection"]) == (0, "", True, None)
    assert report["bound"] == json.loads(path.read_text())["statement"]["bound_decimal"]


def test_keys_of_other_people(command, weights, tmp_path):
    names = {"A": "mon.W", "B": "U.weight", "C": "head.weight", "D": "skip", "b": "U.bias"}
    original = ImplicitWeights.load(weights).arrays()
    path, certificate = tmp_path / "theirs.npz", tmp_path / "certificate.json"
    np.savez(path, A=np.eye(2), **{names[name]: array for name, array in original.items()})
    keys = ",".join(f"{name}={key}" for name, key in names.items())
    assert command("certify", path, "--keys", keys, "--out", certificate)[0] == 0
    assert command("verify", certificate, path, "--keys", keys)[0] == 0
    assert command("verify", certificate, weights)[0] == 0
    out = tmp_path / "out.npz"
    assert command("project", path, "--keys", keys, "--gamma", 0.5, "--out", out)[0] == 0
    for bad in ("A", "A=none", "E=mon.W", "A=mon.W,A=mon.W", "A=mon.W"):
        code, text, err = command("certify", path, "--keys", bad)
        assert (code, text) == (2, "")
        assert one_sentence(err)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: {"B": np.nextafter(w.B, np.inf)}, "other weights"),
        (lambda w: {"A": w.A[:4, :4], "B": w.B[:4], "C": w.C[:, :4], "b": w.b[:4]}, "shapes"),
        (lambda w: {"activation": "tanh"}, "activation relu"),
    ],
)
def test_other_weights_are_not_proved(command, weights, tmp_path, change, reason):
    path, other = tmp_path / "certificate.json", tmp_path / "other.npz"
    assert command("certify", weights, "--out", path)[0] == 0
    original = ImplicitWeights.load(weights)
    ImplicitWeights(**{**original.arrays(), **change(original)}).save(other)
    code, text, err = command("verify", path, other)
    assert (code, text) == (1, "")
    assert one_sentence(err)
    assert reason in err
    code, text, err = command("verify", path, other, "--json")
    assert (code, json.loads(text)["proved"]) == (1, False)
    assert reason in json.loads(text)["objection"]


def test_a_smaller_bound_is_not_proved(command, weights, tmp_path):
    path = tmp_path / "certificate.json"
    assert command("certify", weights, "--out", path)[0] == 0
    content = json.loads(path.read_text())
    smaller = float(np.nextafter(content["statement"]["bound_decimal"], 0))
    content["statement"].update(bound=smaller.hex(), bound_decimal=smaller)
    content["report"]["lipschitz"]["bound"] = smaller
    path.write_text(json.dumps(content))
    code, _, err = command("verify", path, weights)
    assert code == 1
    assert "does not prove" in err


def test_not_well_posed_is_exit_1(command, tmp_path):
    path, out = tmp_path / "bad.npz", tmp_path / "certificate.json"
    ImplicitWeights([[1.5]], [[1.0]], [[1.0]]).save(path)
    code, text, err = command("certify", path, "--out", out)
    assert code == 1
    assert "what breaks it" in text
    assert "well-posed in ℓ2                   no" in text
    assert one_sentence(err)
    assert "1.5" in err
    code, text, err = command("certify", path, "--json")
    report = json.loads(text)
    assert report["why"] == {
        "states": [0],
        "abscissa": 1.5,
        "euclidean_measure": 1.5,
        "euclidean_bound": None,
    }
    assert (code, report["well_posed"], report["lipschitz"]) == (1, False, None)
    assert report["mu_inf"] == report["abscissa"] == 1.5
    assert not out.exists()


def test_without_a_certificate_it_is_said_what_was_written(command, tmp_path):
    path, out = tmp_path / "rotation.npz", tmp_path / "c.json"
    ImplicitWeights([[0.0, -1.5], [1.5, 0.0]], np.eye(2), np.eye(2)).save(path)
    code, _, err = command("certify", path)
    assert (code, "written" in err) == (1, False)
    for kind in ("lipschitz", "gains"):
        code, _, err = command("certify", path, "--out", out, "--statement", kind)
        assert code == 1
        assert one_sentence(err)
        assert "no certificate was written, and --statement measure writes the proof" in err
        assert not out.exists()
    code, text, err = command("certify", path, "--out", out, "--statement", "measure")
    assert code == 1
    assert one_sentence(err)
    assert err.endswith(f"no weights give a measure below 1.5: proved in {out}.\n")
    assert "with no weights below 1.5, proved" in text
    assert command("verify", out, path)[0] == 0
    code, text, err = command("certify", path, "--statement", "measure", "--json")
    assert json.loads(text)["not_contracting"] == {"lower": 1.5}
    assert err.endswith("below 1.5: proved.\n")


def test_next_to_the_limit_nothing_is_promised(command, tmp_path):
    path, out = tmp_path / "near.npz", tmp_path / "c.json"
    ImplicitWeights([[0.0, -1.0], [1.0 - 1e-16, 0.0]], np.eye(2), np.eye(2)).save(path)
    code, _, err = command("certify", path, "--out", out)
    assert (code, out.exists()) == (1, False)
    assert err.endswith("; no certificate was written.\n")
    code, _, err = command("certify", path, "--out", out, "--statement", "measure")
    assert (code, out.exists()) == (1, True)
    assert "below 0.9999999: proved" in err
    assert err.endswith("which does not exclude a certificate.\n")


def test_what_overflows_is_not_written(command, tmp_path):
    """The difference of two entries of C leaves the range of float64, the bound does not."""
    path, out = tmp_path / "weights.npz", tmp_path / "pairs.json"
    ImplicitWeights([[0.25]], [[1e-300]], [[1e308], [-1e308]]).save(path)
    assert command("certify", path)[0] == 0
    code, text, err = command("certify", path, "--statement", "pairs", "--out", out)
    assert (code, text) == (3, "")
    assert one_sentence(err)
    assert "no witness in float64 proves the statement 'pairs'" in err
    assert not out.exists()


@pytest.mark.parametrize("kind", ["pairs", "sectors", "measure"])
def test_a_statement_is_proved_before_it_is_written(command, weights, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(STATEMENTS[kind], "prove", lambda *_: False)
    out = tmp_path / "certificate.json"
    code, text, err = command("certify", weights, "--statement", kind, "--out", out)
    assert (code, text, out.exists()) == (3, "", False)
    assert one_sentence(err)


def test_names_of_files_are_printed_as_they_are(command, tmp_path):
    """Brackets and colons mean something to the library that draws tables."""
    folder = tmp_path / "a["
    folder.mkdir()
    path, out = folder / "b].npz", tmp_path / "[red]:smile:.json"
    ImplicitWeights([[0.25]], [[1.0]], [[1.0]]).save(path)
    code, text, err = command("certify", path, "--out", out)
    assert (code, err) == (0, "")
    assert "b].npz" in "".join(text.split())
    assert "[red]:smile:.json" in "".join(text.split())
    code, text, err = command("verify", out, path)
    assert (code, err) == (0, "")
    assert "[red]:smile:.json" in "".join(text.split())


def test_an_objection_cannot_move_the_cursor(command, weights, tmp_path):
    path, forged = tmp_path / "certificate.json", tmp_path / "forged.json"
    assert command("certify", weights, "--out", path)[0] == 0
    content = json.loads(path.read_text())
    content["weights_sha256"] = "\x1b[2K\rproved\nyes" + 2000 * "x"
    forged.write_text(json.dumps(content))
    code, _, err = command("verify", forged, weights)
    assert code == 1
    assert one_sentence(err)
    assert len(err) < 1100
    assert "\x1b" not in err
    assert "\r" not in err


@pytest.mark.parametrize(
    ("solver", "option"),
    [
        ("m_matrix", "problem=3"),
        ("m_matrix", "kind=3"),
        ("highs", "time_limit=abc"),
        ("clarabel", "tolerance=[1]"),
        ("clarabel", "max_iterations=-1"),
        ("clarabel", "max_iterations=1e400"),
        ("clarabel", f"max_iterations={10**30}"),
        ("clarabel", f"tolerance={10**400}"),
        ("scs", "max_iterations=null"),
        ("scs", "max_iterations=true"),
        ("scs", "polish=maybe"),
    ],
)
def test_values_that_no_option_takes_are_refused(command, weights, solver, option):
    code, text, err = command("certify", weights, "--solver", solver, "--option", option)
    assert (code, text) == (2, "")
    assert one_sentence(err)
    assert option.partition("=")[0] in err


def test_a_proof_that_fails_is_not_written(command, tmp_path, monkeypatch):
    path, out = tmp_path / "rotation.npz", tmp_path / "c.json"
    ImplicitWeights([[0.0, -1.5], [1.5, 0.0]], np.eye(2), np.eye(2)).save(path)
    monkeypatch.setattr("contraction_nets.certificates.exact.prove_abscissa", lambda *_: False)
    code, text, err = command("certify", path, "--out", out, "--statement", "measure", "--json")
    assert (code, out.exists()) == (1, False)
    assert json.loads(text)["not_contracting"] is None
    assert err.endswith("; no certificate was written.\n")


def test_a_monotone_network_learns_its_other_guarantee(command, tmp_path):
    path = tmp_path / "rotation.npz"
    ImplicitWeights([[0.0, -2.0], [2.0, 0.0]], np.eye(2), [[3.0, 4.0]]).save(path)
    code, text, err = command("certify", path)
    assert code == 1
    assert "2 of 2 states" in text
    assert "ℓ2 → ℓ2 bound 5" in " ".join(text.split())
    assert one_sentence(err)


def test_project(command, weights, tmp_path):
    out = tmp_path / "ünder.safetensors"
    code, text, err = command("project", weights, "--gamma", "-0.5", "--out", out)
    assert (code, err) == (0, "")
    assert "rows changed" in text
    before, after = ImplicitWeights.load(weights), ImplicitWeights.load(out)
    assert matrix_measure(after.A) <= -0.5 + 1e-15
    for name in "BCDb":
        assert np.array_equal(before.arrays()[name], after.arrays()[name])
    code, text, _ = command("project", weights, "--gamma", 50, "--out", out, "--json")
    assert json.loads(text)["rows_changed"] == 0
    assert np.array_equal(ImplicitWeights.load(out).A, before.A)


def test_project_with_weights(command, weights, tmp_path):
    eta, out = np.linspace(1, 2, 5), tmp_path / "out.npz"
    np.save(tmp_path / "eta.npy", eta)
    arguments = ("project", weights, "--gamma", "0.1", "--out", out, "--json")
    code, text, _ = command(*arguments, "--eta", tmp_path / "eta.npy")
    assert code == 0
    assert matrix_measure(ImplicitWeights.load(out).A, eta) <= 0.1 + 1e-15
    assert json.loads(text)["measure_after"] <= 0.1 + 1e-15
    assert command(*arguments, "--eta", "optimal")[0] == 0
    assert command(*arguments, "--eta", tmp_path / "none.npy")[0] == 2


def test_enormous_weights_project(command, tmp_path):
    path, out = tmp_path / "big.npz", tmp_path / "out.npz"
    ImplicitWeights(1e307 * np.eye(3), np.ones((3, 1)), np.ones((1, 3))).save(path)
    code, text, err = command("project", path, "--gamma", 0.5, "--out", out, "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["distance"] == pytest.approx(np.sqrt(3) * 1e307)
    assert command("certify", out)[0] == 0


def test_an_infinite_measure_is_null(command, tmp_path):
    path, out = tmp_path / "big.npz", tmp_path / "out.npz"
    ImplicitWeights(np.full((3, 3), 1e308), np.ones((3, 1)), np.ones((1, 3))).save(path)
    arguments = ("project", path, "--gamma", 0.5, "--out", out)
    code, text, err = command(*arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["measure_before"] is None
    assert "∞ →" in command(*arguments)[1]


@given(matrices((3, 3)), gammas)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_projected_weights_are_certified(command, tmp_path, A, gamma):
    path, out = tmp_path / "any.npz", tmp_path / "inside.npz"
    ImplicitWeights(A, np.ones((3, 1)), np.ones((1, 3))).save(path)
    code, _, err = command("project", path, "--gamma", gamma, "--out", out)
    assert (code, err) == (0, "")
    code, text, _ = command("certify", out, "--json")
    report = json.loads(text)
    assert report["well_posed"] or gamma >= 1 or max(np.abs(A).max(), 1) > 1e14
    assert report["mu_inf"] <= gamma + 1e-12 * max(1.0, np.abs(A).max())


def bad_files(folder):
    good = {"A": np.eye(2) / 2, "B": np.ones((2, 1)), "C": np.ones((1, 2))}
    np.savez(folder / "nan.npz", **{**good, "A": np.full((2, 2), np.nan)})
    np.savez(folder / "shape.npz", **{**good, "B": np.ones((3, 1))})
    np.savez(folder / "missing.npz", A=good["A"])
    np.savez(folder / "object.npz", **{**good, "A": np.array([[{}]], dtype=object)})
    np.savez(folder / "complex.npz", **{**good, "A": np.eye(2) * 1j})
    np.savez(folder / "empty.npz", **{**good, "A": np.zeros((0, 0))})
    np.savez(folder / "whole.npz", **good)
    whole = (folder / "whole.npz").read_bytes()
    (folder / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.safetensors").write_bytes(b"\xff" * 50)
    (folder / "noise.pt").write_bytes(b"noise")
    (folder / "text.csv").write_text("1,2")
    (folder / "folder").mkdir()
    return [path for path in folder.iterdir() if path.name != "whole.npz"]


def test_bad_files_are_exit_2_with_one_sentence(command, tmp_path):
    paths = [*bad_files(tmp_path), tmp_path / "nowhere.npz"]
    for path in paths:
        for arguments in (("certify", path), ("project", path, "--gamma", 0.5, "--out", "x.npz")):
            code, text, err = command(*arguments)
            assert (code, text) == (2, ""), path.name
            assert one_sentence(err), err
    assert not Path("x.npz").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("certify", "W", "--solver", "simplex"),
        ("certify", "W", "--solver", "closed_form"),
        ("certify", "W", "--solver", "highs", "--option", "nothing=1"),
        ("certify", "W", "--option", "nothing"),
        ("certify", "W", "--out", "nowhere/c.json"),
        ("verify", "W", "W"),
        ("verify", "none.json", "W"),
        ("verify", ".", "W"),
        ("project", "W", "--gamma", "nan", "--out", "x.npz"),
        ("project", "W", "--gamma", "0.5", "--out", "x.txt"),
        ("project", "W", "--gamma", "0.5", "--out", "nowhere/x.npz"),
        ("project", "W", "--gamma", "0.5", "--out", "x.npz", "--solver", "highs"),
        ("report", "nowhere"),
        ("train", "--out", "run", "--epochs", "0"),
        ("train", "--out", "run", "--hidden", "0"),
        ("train", "--out", "run", "--gamma", "1.0"),
        ("train", "--out", "run", "--seed", "-1"),
        ("train", "--out", "W/run"),
        ("train", "--out", "run", "--data", "cifar"),
        ("train", "--out", "run", "--data", "mnist", "--data-dir", "nowhere"),
        ("train", "--out", "run", "--projection", "simplex"),
        ("train", "--out", "run", "--activation", "swish"),
        ("train", "--out", "run", "--device", "abacus"),
        ("train", "--out", "run", "--resume"),
    ],
)
def test_bad_arguments(command, weights, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, text, err = command(*[a.replace("W", str(weights)) for a in arguments])
    assert (code, text) == (2, "")
    assert one_sentence(err), err
    assert {path.name for path in tmp_path.iterdir()} <= {"weights.npz"}


@pytest.mark.parametrize("arguments", [("certify",), ("project", "w.npz"), ("fly",), ("train",)])
def test_usage_errors_are_exit_2(command, arguments):
    code, text, err = command(*arguments)
    assert (code, text) == (2, "")
    assert "Traceback" not in err


def test_train_report_and_resume(command, tmp_path):
    run = tmp_path / "run"
    arguments = ("train", "--out", run, "--hidden", 10, "--epochs", 2, "--lipschitz-weight", 1e-3)
    code, text, err = command(*arguments, "--projection", "clarabel")
    assert code == 0, err
    for part in ("test accuracy", "well-posed", "certified Lipschitz bound", "cvxpy"):
        assert part in text
    assert "epoch" in err
    code, text, err = command("report", run)
    assert (code, err, Path(text.strip())) == (0, "", run / "report.html")
    assert command("certify", run)[0] == 0
    code, text, err = command(*arguments)
    assert code == 2
    assert "holds a run already" in err
    code, text, _ = command(*arguments, "--projection", "clarabel", "--resume", "--json")
    summary = json.loads(text)
    assert code == 0
    assert summary["lipschitz"]["verified"] is True
    assert summary["projection_audit"] <= 1e-7


def test_help_needs_neither_torch_nor_cvxpy():
    script = (
        "import sys; sys.argv = ['contraction-nets', '--help']\n"
        "from contraction_nets.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'cvxpy', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("train", "certify", "project", "report"):
        assert name in done.stdout


def test_installed_entry_point(weights):
    program = Path(sys.executable).with_name("contraction-nets")
    done = subprocess.run([program, "certify", weights, "--json"], capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads(done.stdout)["well_posed"] is True
    done = subprocess.run([program, "certify", "nowhere.npz"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_sentence(done.stderr)
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("contraction-nets ")
