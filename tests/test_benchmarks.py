"""The benchmarks are not run by the tests, but they must follow the library: each module is imported."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORCED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def test_every_benchmark_imports_what_there_is() -> None:
    modules = sorted(f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    assert len(modules) > 5
    command = [sys.executable, "-c", f"import {', '.join(modules)}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tables_name_threads_instruction_set_and_kernels_and_force_none() -> None:
    """Where the environment forces a kernel, the process starts anew without it, and comes to the same lines."""
    code = "from benchmarks import timing; timing.one_thread(); print(timing.machine())"
    command, forced = [sys.executable, "-c", code], dict.fromkeys(FORCED, "Haswell")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | forced)
    free = {name: value for name, value in os.environ.items() if name not in FORCED}
    expected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=free)
    found, other = (ast.literal_eval(run.stdout) for run in (done, expected))
    assert found["BLAS kernels"] == other["BLAS kernels"] != ""
    assert found["threads"] == 1
    assert found["instruction set"] == other["instruction set"]
