"""The shape of the package: what imports what, and what strangers can do to it."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import python

import contraction_nets

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "contraction_nets"

BELOW = {
    "errors": set(),
    "geometry": set(),
    "solving": {"geometry"},
    "certificates": {"geometry", "solving"},
    "nn": {"geometry", "solving", "certificates"},
    "training": {"geometry", "solving", "certificates", "nn", "robustness"},
    "robustness": {"geometry", "solving", "certificates", "nn"},
    "comparison": {"geometry", "solving", "certificates", "nn", "training", "robustness"},
    "viz": {"geometry", "solving", "certificates", "nn", "training", "robustness", "comparison"},
    "cli": {"geometry", "solving", "certificates", "nn", "training", "robustness", "viz"}
    | {"comparison"},
}
"""What each part may import, besides errors and itself."""

WITHOUT_TORCH = ("errors", "geometry", "solving", "certificates")

UPWARDS = {
    ("certificates/weights.py", "contraction_nets.nn.convert"): "conversions need torch",
    ("certificates/weights.py", "contraction_nets.nn.layers"): "for type checkers",
    ("certificates/files.py", "contraction_nets.nn.torch_files"): "reading .pt files needs torch",
}
"""Imports against the arrows, none of which happens when the file is imported."""


def imports(node, lazy=False):
    """Every (name, lazy) below a node; lazy imports do not run when the file is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative import"
            if child.module == "contraction_nets":
                for alias in child.names:
                    yield f"contraction_nets.{alias.name}", lazy
            else:
                yield child.module, lazy
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, lazy
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from imports(child, lazy or function or typing)


def imports_of(file):
    return list(imports(ast.parse(file.read_text("utf-8"))))


def part_of(name):
    """The part of the package that a dotted name is in; public names count by their home."""
    parts = name.split(".")
    if parts[0] != "contraction_nets" or len(parts) == 1:
        return None
    return contraction_nets._MODULE_OF.get(parts[1], parts[1]).split(".")[0]


def library_files():
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part != "__init__":
            yield file, relative.as_posix(), part


def test_lazy_imports_are_told_from_others():
    source = """
import a
try:
    import b
except ImportError:
    from c import d
if TYPE_CHECKING:
    from e.f import g
class K:
    import h
    def method(self):
        from contraction_nets import project, i
"""
    assert list(imports(ast.parse(source))) == [
        ("a", False),
        ("b", False),
        ("c", False),
        ("e.f", True),
        ("h", False),
        ("contraction_nets.project", True),
        ("contraction_nets.i", True),
    ]
    assert part_of("contraction_nets.project") == "solving"
    assert part_of("contraction_nets.nn.layers") == "nn"
    assert part_of("contraction_nets") is part_of("numpy") is None


def test_arrows_go_one_way():
    used = set()
    for file, relative, part in library_files():
        for name, lazy in imports_of(file):
            other = part_of(name)
            if other in (None, part, "errors") or other in BELOW[part]:
                continue
            assert (relative, name) in UPWARDS, f"{relative} imports {name}"
            assert lazy, f"{relative} imports {name} at its top"
            used.add((relative, name))
    assert used == set(UPWARDS), "an exception that nothing needs"


def test_backends_know_problems_and_sets_only():
    files = sorted((ROOT / "solvers").glob("*.py"))
    assert len(files) > 5
    for file in files:
        parts = {part_of(name) for name, _ in imports_of(file)}
        assert parts <= {None, "errors", "geometry", "solving"}, file


def test_lower_parts_name_no_torch_and_only_the_registry_loads_backends():
    for file, relative, part in library_files():
        roots = {name.split(".")[0] for name, _ in imports_of(file)}
        assert "solvers" not in roots, relative
        assert "torch" not in roots or part not in WITHOUT_TORCH, relative
    for file in (ROOT / "solvers").glob("*.py"):
        assert "torch" not in {name.split(".")[0] for name, _ in imports_of(file)}, file


def test_importing_the_package_imports_nothing_heavy():
    done = python(
        "import sys, contraction_nets, contraction_nets.errors\n"
        "heavy = {'torch', 'cvxpy', 'scipy', 'numpy', 'matplotlib', 'solvers'} & set(sys.modules)\n"
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


def test_public_names_agree():
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
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = contraction_nets.nothing


def section(docstring, title):
    """The text of one section of a numpy docstring, None where it has none."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", docstring, re.M | re.S)
    return found and found[1]


@pytest.mark.parametrize("name", contraction_nets.__all__)
def test_public_names_are_documented(name):
    value = getattr(contraction_nets, name)
    docstring = inspect.getdoc(value)
    assert docstring
    if inspect.isfunction(value):
        arguments, titles = value, ["Parameters", "Returns", "Raises"]
    else:
        members = [m for key, m in vars(value).items() if not key.startswith("_")]
        kinds = (classmethod, staticmethod, property, type(lambda: None))
        assert all(inspect.getdoc(member) for member in members if isinstance(member, kinds))
        if "__init__" not in vars(value):
            return
        # What the library makes for its users lists attributes; what they make, parameters.
        made = section(docstring, "Parameters") is None
        arguments = value.__init__
        titles = ["Attributes"] if made else ["Parameters", "Raises"]
    texts = [section(docstring, title) for title in titles]
    assert all(texts), titles
    # Not only before colons: one entry may present several, as `weights` does A, B, C and D.
    named = set(re.findall(r"\w+", texts[0]))
    assert set(inspect.signature(arguments).parameters) <= named | {"self", "message"}


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_stranger_called_solvers_is_named_and_never_run(tmp_path, kind):
    stranger = tmp_path / ("solvers.py" if kind == "module" else "solvers/__init__.py")
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("raise SystemExit('the stranger ran')\n")
    script = f"""
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
    done = python(script, cwd=tmp_path, path=[tmp_path, ROOT])
    assert done.returncode == 0, done.stderr


def test_a_stranger_that_is_loaded_already_is_named(tmp_path):
    stranger = tmp_path / "solvers.py"
    stranger.write_text("mine = True\n")
    script = f"""
import solvers
from contraction_nets import available_solvers, UnknownSolverError
assert solvers.mine
try:
    available_solvers()
except UnknownSolverError as error:
    assert {str(stranger)!r} in str(error), error
else:
    raise SystemExit('no error')
assert solvers.mine
"""
    done = python(script, cwd=tmp_path, path=[tmp_path, ROOT])
    assert done.returncode == 0, done.stderr


def test_a_folder_called_solvers_without_code_is_harmless(tmp_path):
    (tmp_path / "solvers").mkdir()
    script = "import contraction_nets; assert 'highs' in contraction_nets.available_solvers()"
    done = python(script, cwd=tmp_path, path=[tmp_path, ROOT])
    assert done.returncode == 0, done.stderr


def test_linter_and_formatter_are_content():
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "."],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
