"""Scripts in a fresh interpreter, for what depends on what has been imported."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(script, path=(ROOT,), cwd=None):
    """Run a script in a fresh interpreter that finds modules in these folders first."""
    environment = {
        "PATH": "",
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, env=environment
    )
