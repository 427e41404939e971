"""What is installed: the wheel, the types, backends from elsewhere, the pinned environment."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fresh import python
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from contraction_nets import available_solvers
from contraction_nets.geometry.sets import MatrixMeasureSet
from contraction_nets.solving import registry
from contraction_nets.solving.problems import ProjectionProblem

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")

BACKEND = """
from dataclasses import dataclass
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.solution import Solution, Status

@dataclass(frozen=True)
class Lazy(Backend):
    name = "lazy"
    solves = ("projection",)
    value: float = 0.0

    def solve(self, problem):
        return Solution(problem, self.name, Status.OPTIMAL, 0 * problem.point + self.value)
"""
"""A backend whose every answer is one constant matrix: not a good one."""

USE = """
from contraction_nets import available_solvers, project
assert "lazy" in available_solvers("projection"), available_solvers()
assert "lazy" not in available_solvers("linear program")
assert project([[3.0]], 0.5, solver="lazy", value=-2.0).tolist() == [[-2.0]]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder with the contents of a wheel that was built from a copy of the sources."""
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
    unpacked = out / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
    return unpacked


def names_of_files(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_wheel_holds_the_two_packages_and_nothing_else(wheel):
    expected = {
        f"{package}/{name}"
        for package in ("contraction_nets", "solvers")
        for name in names_of_files(ROOT / package)
    }
    found = names_of_files(wheel)
    assert {name for name in found if ".dist-info/" not in name} == expected
    typed = {"contraction_nets/py.typed", "solvers/py.typed"}
    assert typed | {"contraction_nets/viz/report.html"} <= found
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in found)


def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    script = f"""
import contraction_nets
assert contraction_nets.__file__.startswith({str(wheel)!r})
assert contraction_nets.available_solvers() == {available_solvers()!r}
from importlib.metadata import distribution
(command,) = distribution("contraction-nets").entry_points.select(group="console_scripts")
assert command.name == "contraction-nets" and callable(command.load())
"""
    done = python(script, [wheel], tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_backend_is_one_new_file(wheel, tmp_path):
    shutil.copytree(wheel, tmp_path / "copy")
    (tmp_path / "copy" / "solvers" / "lazy_.py").write_text(BACKEND)
    done = python(USE, [tmp_path / "copy"], tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_backend_in_another_package_is_found(tmp_path):
    (tmp_path / "elsewhere.py").write_text(BACKEND)
    information = tmp_path / "elsewhere-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINT_GROUP}]\nlazy = elsewhere:Lazy\n"
    )
    done = python(USE, [tmp_path, ROOT], tmp_path)
    assert done.returncode == 0, done.stderr


def test_entry_points_are_read_once(monkeypatch):
    calls = []

    def counted(*, group):
        calls.append(group)
        return []

    monkeypatch.setattr(registry, "entry_points", counted)
    registry._homes.cache_clear()
    try:
        for _ in range(3):
            problem = ProjectionProblem(np.ones((2, 2)), MatrixMeasureSet(0.5))
            assert registry.solve(problem, "closed_form").found
            assert "highs" in available_solvers()
        assert calls == [registry.ENTRY_POINT_GROUP]
    finally:
        registry._homes.cache_clear()


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
    lines = done.stdout.replace("builtins.", "").splitlines()
    revealed = [line.partition("Revealed type is ")[2] for line in lines if "Revealed" in line]
    assert revealed == ['"float"', '"list[str]"'], done.stdout + done.stderr
    (error,) = [line for line in lines if "error:" in line]
    assert 'Argument "gamma" to "project"' in error


def test_the_strict_packages_type_check():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_requirement_is_pinned():
    """What `make` installs is one version each, and one that setup.cfg allows."""
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    assert len(pins) == len(lines)
    assert all(pins.values())
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = metadata["options.extras_require"]
    wanted = [
        metadata["options"]["install_requires"],
        *(extras[e] for e in ("data", "plots", "solvers")),
    ]
    wanted.append(extras["test"])
    requirements = [Requirement(line) for text in wanted for line in text.split("\n") if line]
    assert len(requirements) > 15
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        assert name == "contraction-nets" or requirement.specifier.contains(pins[name]), name


def texts():
    """Every text file of the checkout, whatever git knows of it."""
    passing = {"__pycache__", "build", "data", "dist", "runs"}
    for folder, below, files in os.walk(ROOT):
        below[:] = [
            name
            for name in below
            if name not in passing
            and not name.endswith(".egg-info")
            and not (name.startswith(".") and name not in (".ci", ".github"))
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        ]
        for name in files:
            yield Path(folder) / name


def test_no_registry_and_no_workplace_is_named():
    # Spelled in two halves: this file is among those that are read.
    words = ["--index" + "-url", "--extra" + "-index", "/sim" + "ple/", "pypi" + ".org"]
    words += ["python" + "hosted", "/wo" + "rk/", "/ro" + "ot/"]
    read = {path: path.read_text("utf-8", errors="ignore") for path in texts()}
    assert {"setup.cfg", "Makefile", "run", "registry.py", "report.html"} <= {p.name for p in read}
    found = [(path, word) for path, text in read.items() for word in words if word in text]
    assert not found
