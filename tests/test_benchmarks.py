"""The benchmarks are not run by the tests, but they must follow the library: each module is imported."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from companion.tables import benchmarks_markdown

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


def report_into(folder: Path) -> subprocess.CompletedProcess[str]:
    """Measure something small, and write it to `x.json` in this folder."""
    code = (
        "import sys; from pathlib import Path; from benchmarks import timing; timing.RESULTS = Path(sys.argv[1]);"
        "timing.report('x', 'T', [timing.compare('one', lambda: sum(range(99)), {'peer': lambda: None}, rounds=5)])"
    )
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_report_keeps_what_other_processors_measured_and_replaces_its_own(tmp_path: Path) -> None:
    other = {"machine": {"processor": "another"}, "rows": [{"case": "two"}]}
    (tmp_path / "x.json").write_text(json.dumps({"title": "old", "measurements": [other]}), encoding="utf-8")
    for _ in range(2):
        done = report_into(tmp_path)
        assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert written["title"] == "T"
    assert len(written["measurements"]) == 2
    assert other in written["measurements"]
    (own,) = (measured for measured in written["measurements"] if measured != other)
    assert own["rows"][0]["ratios"].keys() == {"peer"}
    assert own["machine"]["at commit"]
    benchmarks_markdown([{**written, "measurements": [own]}])


def test_results_that_are_none_are_named_and_left_alone(tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"measurements": [1]}'):
        (tmp_path / "x.json").write_text(content, encoding="utf-8")
        done = report_into(tmp_path)
        assert done.returncode == 1
        assert "x.json: not what a benchmark writes" in done.stderr
        assert "| one |" in done.stdout
        assert (tmp_path / "x.json").read_text(encoding="utf-8") == content
