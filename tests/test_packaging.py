"""What is installed: the wheel, the types, the pinned environment."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that was built from a copy of the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("contraction_nets", "solvers", "tests", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=SKIPPED)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_two_packages_and_nothing_else(wheel):
    expected = {
        str(path.relative_to(ROOT))
        for package in ("contraction_nets", "solvers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in wheel if ".dist-info/" not in name} == expected
    assert {"contraction_nets/py.typed", "contraction_nets/viz/report.html"} <= wheel


def test_types_are_followed_from_outside(tmp_path):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from contraction_nets import available_solvers, matrix_measure, project\n"
        "reveal_type(matrix_measure([[1.0]]))\n"
        "reveal_type(available_solvers())\n"
        "project([[1.0]], gamma='large')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", snippet],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    assert any('note: Revealed type is "float"' in line.replace("builtins.", "") for line in lines)
    assert any("list[str]" in line.replace("builtins.", "") for line in lines)
    (error,) = [line for line in lines if "error:" in line]
    assert 'Argument "gamma" to "project"' in error


def test_the_strict_packages_type_check():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_everything_installed_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().split()
    assert all("==" in pin for pin in pins)
    names = [pin.partition("==")[0].lower().replace("_", "-") for pin in pins]
    assert len(set(names)) == len(names)
    for name in ("torch", "cvxpy", "numpy", "scipy", "clarabel", "osqp", "setuptools"):
        assert name in names


def test_no_registry_is_named():
    words = ["--index" + "-url", "--extra" + "-index", "/sim" + "ple"]
    for path in ROOT.rglob("*"):
        ours = not {".git", ".venv", "runs"} & set(path.relative_to(ROOT).parts)
        if ours and path.is_file() and path.suffix in (".py", ".txt", ".cfg", ".toml", ".md", ""):
            text = path.read_text("utf-8", errors="ignore")
            assert not [word for word in words if word in text], path
