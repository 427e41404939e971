"""The shape of the package: what imports what, and what strangers can do to it."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import contraction_nets

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "contraction_nets"

BELOW = {
    "errors": set(),
    "geometry": set(),
    "solving": {"geometry"},
    "certificates": {"geometry", "solving"},
    "nn": {"geometry", "solving", "certificates"},
    "training": {"geometry", "solving", "certificates", "nn"},
    "robustness": {"geometry", "solving", "certificates", "nn"},
    "viz": {"geometry", "solving", "certificates", "nn", "training", "robustness"},
    "cli": {"geometry", "solving", "certificates", "nn", "training", "robustness", "viz"},
}
"""What each part may import, besides errors and itself."""

UPWARDS = {
    (
        "certificates/weights.py",
        "contraction_nets.nn.convert",
    ): "conversions need torch",
    ("certificates/weights.py", "contraction_nets.nn.layers"): "for type checkers",
    ("certificates/files.py", "contraction_nets.nn.convert"): "reading .pt files needs torch",
}
"""Imports against the arrows, all of them inside functions or for type checkers."""


def python(script, *, cwd=None, path=None):
    environment = {"PATH": "", "PYTHONPATH": str(path or ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, env=environment
    )


def imported(file):
    """Every module of this project that a file imports, and whether at its top."""
    tree = ast.parse(file.read_text("utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module]
            if node.module == "contraction_nets":
                names = [f"contraction_nets.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("contraction_nets"):
                yield name, id(node) in top


def home(name):
    """The part of the package that a dotted name is in; public names count by their home."""
    parts = name.split(".")
    if len(parts) == 1:
        return None
    return contraction_nets._MODULE_OF.get(parts[1], parts[1]).split(".")[0]


def test_arrows_go_one_way():
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for name, at_top in imported(file):
            other = home(name)
            if other in (None, part, "errors") or other in BELOW[part]:
                continue
            assert (str(relative), name) in UPWARDS, f"{relative} imports {name}"
            assert not at_top, f"{relative} imports {name} at its top"


def test_backends_know_no_torch():
    for file in sorted((ROOT / "solvers").glob("*.py")):
        parts = {home(name) for name, _ in imported(file)}
        assert parts <= {"errors", "geometry", "solving"}, file


def test_importing_the_package_imports_nothing_heavy():
    done = python(
        "import sys, contraction_nets, contraction_nets.errors\n"
        "heavy = {'torch', 'cvxpy', 'scipy', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr


def test_lower_parts_never_import_torch():
    modules = [
        f"contraction_nets.{part}.{file.stem}"
        for part in ("geometry", "certificates", "solving")
        for file in (PACKAGE / part).glob("[a-z]*.py")
    ] + [f"solvers.{file.stem}" for file in (ROOT / "solvers").glob("[a-z]*.py")]
    assert len(modules) > 20
    script = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    assert 'torch' not in sys.modules, name
import numpy as np
from contraction_nets import lipschitz_certificate, project
assert 'cvxpy' not in sys.modules
A = project(np.full((3, 3), 0.7), 0.9)
assert lipschitz_certificate(A, np.ones((3, 1)), np.ones((1, 3))).verify()
project(A + 1, 0.9, solver='cvxpy')
assert 'torch' not in sys.modules
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


def test_public_names_agree_and_are_documented():
    listed = {name for names in contraction_nets._HOME.values() for name in names}
    assert sorted(listed) == contraction_nets.__all__ == dir(contraction_nets)
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    checked = {
        (node.module.removeprefix("contraction_nets."), alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    homes = {(home, name) for home, names in contraction_nets._HOME.items() for name in names}
    assert checked == homes
    for name in contraction_nets.__all__:
        value = getattr(contraction_nets, name)
        assert inspect.getdoc(value), name
        if inspect.isfunction(value) and inspect.signature(value).parameters:
            for section in ("Parameters\n", "Returns\n", "Raises\n"):
                assert section in value.__doc__, f"{name}: {section}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = contraction_nets.nothing


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_stranger_called_solvers(tmp_path, kind):
    trap = "raise SystemExit('the stranger ran')\n"
    if kind == "module":
        stranger = tmp_path / "solvers.py"
    else:
        (tmp_path / "solvers").mkdir()
        stranger = tmp_path / "solvers" / "__init__.py"
    stranger.write_text(trap)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import contraction_nets
from contraction_nets import matrix_measure, project, UnknownSolverError
assert matrix_measure([[0.5]]) == 0.5
assert 0.5 - 1e-14 < project([[2.0]], 0.5)[0, 0] <= 0.5
try:
    project([[2.0]], 0.5, solver='clarabel')
except UnknownSolverError as error:
    assert {str(stranger)!r} in str(error), error
else:
    raise SystemExit('no error')
"""
    done = python(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr or done.stdout


def test_linter_and_formatter_are_content():
    ruff = Path(sys.executable).with_name("ruff")
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *arguments, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
