"""Every Python block of the README runs, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))


def test_there_are_blocks_and_examples():
    assert len(BLOCKS) >= 2
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks_run(number, tmp_path, capsys):
    namespace = {"__name__": "readme"}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), namespace)
    if "certificate" in namespace:
        assert capsys.readouterr().out.strip().endswith("True")
    else:
        layer = namespace["network"].layer
        assert layer.constraint().contains(layer.A.detach().numpy())


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert targets
    for target in targets:
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_commands_exist():
    for name, options in re.findall(r"^contraction-nets (\w+)(.*)$", README, re.MULTILINE):
        program = Path(sys.executable).with_name("contraction-nets")
        done = subprocess.run([program, name, "--help"], capture_output=True, text=True)
        assert done.returncode == 0
        for option in re.findall(r"--[\w-]+", options):
            assert option in done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # some leave a picture
        env={"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr


LONG = sorted(
    path
    for folder in ("benchmarks", "examples/reproduce")
    for path in (ROOT / folder).glob("*.py")
    if path.name != "common.py"
)


@pytest.mark.parametrize("path", LONG, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_long_scripts_find_what_they_import(path, tmp_path):
    """They take too long for a test; a name that has moved is found without running them."""
    done = subprocess.run(
        [sys.executable, path, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
