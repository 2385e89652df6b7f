"""The benchmarks are not run by the tests, but they must follow the library: each module is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_imports_what_there_is(module: str) -> None:
    command = [sys.executable, "-c", f"import benchmarks.{module}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
