"""The page on certificates runs from top to bottom, and prints what it says it prints."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contraction_nets import ImplicitWeights
from contraction_nets.certificates.document import load_certificate
from contraction_nets.certificates.statements import STATEMENTS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "certificates.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def in_shell(script, folder):
    """What a block of commands prints, errors among it; all succeed where no code is printed."""
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "COLUMNS": "80",
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        ["sh", "-c" if "$?" in script else "-ec", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


def in_python(script, namespace):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(script, "docs/certificates.md", "exec"), namespace)
    return printed.getvalue()


def lines(text):
    """Lines without trailing blanks and without blank lines at either end of a table."""
    found = [line.rstrip() for line in text.splitlines()]
    return [line for line in found if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the page has been run."""
    folder = tmp_path_factory.mktemp("page")
    namespace = {"__name__": "page"}
    previous = Path.cwd()
    os.chdir(folder)
    try:
        for (kind, block), (next_kind, shown) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
            if kind == "python":
                printed = in_python(block, namespace)
            elif kind == "sh":
                printed = in_shell(block, folder)
            else:
                continue
            if next_kind == "text":
                assert lines(printed) == lines(shown), f"{block}\nprints\n{printed}"
    finally:
        os.chdir(previous)
    return folder


def test_every_block_is_run_or_compared():
    kinds = [kind for kind, _ in BLOCKS]
    assert set(kinds) == {"python", "sh", "text", "json"}
    assert PAGE.count("```") == 2 * len(BLOCKS)
    for before, kind in zip(["", *kinds], kinds, strict=False):
        assert kind != "text" or before in ("python", "sh")


def test_the_page_runs_and_prints_what_it_shows(folder):
    assert (folder / "small.json").exists()


def test_the_file_that_is_shown_is_the_one_that_is_written(folder):
    ((_, shown),) = (block for block in BLOCKS if block[0] == "json")
    assert json.loads(shown) == json.loads((folder / "small.json").read_text("utf-8"))
    # Elsewhere the last bits may differ; the file on the page is a proof all the same.
    path = folder / "shown.json"
    path.write_text(shown, "utf-8")
    assert load_certificate(path).objection(ImplicitWeights.load(folder / "small.npz")) is None


def test_every_kind_of_statement_is_explained_and_made(folder):
    made = {load_certificate(path).statement.kind for path in folder.glob("*.json")
            if path.name not in ("broken.json", "shown.json")}  # fmt: skip
    assert made == set(STATEMENTS)
    for kind, statement in STATEMENTS.items():
        assert f"| `{kind}`" in PAGE
        for name in statement.claims:
            assert f"`{name}`" in PAGE or f".{name}`" in PAGE


def test_links_lead_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"`((?:tests|contraction_nets|benchmarks|docs)/[\w/.]+\.\w+)`", PAGE):
        assert (ROOT / name).exists(), name
