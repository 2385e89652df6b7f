"""The loops that numba compiles: without numba, where nothing can be written, from the cache, by several processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedding_principle import compiled_steps
from embedding_principle.critical_points import search
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from embedding_principle.trust_region import descent_step

SOURCE = Path(compiled_steps.__file__).parent

STEP = """
import torch
from embedding_principle.trust_region import descent_step
from embedding_principle import compiled_steps
saddle = torch.diag(torch.tensor([2.0, -1.0]))[None]
step, _, _ = descent_step(saddle, torch.tensor([[2.0, 0.5]]), torch.ones(1), torch.zeros(1), compiled=True)
print(step[0].tolist(), sum(compiled_steps._settle.stats.cache_hits.values()))
"""

BROKEN = """
import sys
sys.modules["numba"] = None
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the library, whose machine code is kept there."""
    shutil.copytree(SOURCE, tmp_path / "embedding_principle", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def started(code: str, library: Path, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": str(library), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, cwd=library, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: "subprocess.Popen[str]") -> tuple[list[float], int]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    numbers, _, hits = out.strip().rpartition(" ")
    return [float(number) for number in numbers.strip("[]").split(",")], int(hits)


def expected() -> list[float]:
    saddle = torch.diag(torch.tensor([2.0, -1.0]))[None]
    step, _, _ = descent_step(saddle, torch.tensor([[2.0, 0.5]]), torch.ones(1), torch.zeros(1), compiled=True)
    return list(step[0].tolist())


def test_machine_code_is_kept_and_two_processes_may_write_it_at_once(library: Path) -> None:
    both = [started(STEP, library) for _ in range(2)]
    for step, _ in [finished(process) for process in both]:
        assert step == expected()
    assert finished(started(STEP, library)) == (expected(), 1)


def test_where_no_folder_can_be_written_loops_are_compiled_anew(library: Path) -> None:
    # A file where a folder is wanted stops the superuser as well.
    (library / "embedding_principle" / "__pycache__").write_text("")
    (library / "file").write_text("")
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "IPYTHONDIR"), str(library / "file" / "none"))
    for _ in range(2):
        assert finished(started(STEP, library, PYTHONDONTWRITEBYTECODE="1", **homes)) == (expected(), 0)


def test_without_numba_the_module_can_be_read_and_its_steps_are_refused(library: Path) -> None:
    _, err = (process := started(BROKEN + STEP, library)).communicate(timeout=300)
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        'ValueError: compiled: needs numba; install it with pip install "embedding-principle-companion[compiled]", or '
        "leave compiled=True out"
    )


def test_without_numba_a_search_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_steps, "INSTALLED", False)
    x = torch.linspace(-1, 1, 5)[:, None]
    for options in ({"descend": False}, {"max_iterations": 0}):
        with pytest.raises(ValueError, match="compiled: needs numba"):
            search(Risk(Network((1, 1)), x, x), torch.zeros(1, 2), compiled=True, **options)  # type: ignore[arg-type]


def test_arrays_of_another_layout_are_not_compiled_for_again() -> None:
    matrix, gradient = np.stack([np.eye(3)] * 4), np.ones((4, 3))
    for other in (gradient, np.asfortranarray(gradient), np.ones((8, 3))[::2]):
        step, _, _ = compiled_steps.settle(matrix, other, np.full(4, 9.0), np.zeros(4), 0.02)
        np.testing.assert_array_equal(step, -1.0)
    assert len(compiled_steps._settle.signatures) == 1


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_the_factor_is_lapacks_and_solves(size: int) -> None:
    generator = np.random.default_rng(size)
    half, vector = generator.standard_normal((size, size + 2)), generator.standard_normal(size)
    matrix, factor = half @ half.T, np.zeros((size, size))
    assert compiled_steps._factorize(matrix, 0.5, factor)
    expected = np.linalg.cholesky(matrix + 0.5 * np.eye(size))
    np.fill_diagonal(expected, 1 / np.diag(expected))
    np.testing.assert_allclose(factor, expected, rtol=1e-10)
    solution = vector.copy()
    energy = compiled_steps._solve(factor, solution)
    np.testing.assert_allclose(matrix @ solution + 0.5 * solution, vector, rtol=1e-8, atol=1e-10)
    assert energy == pytest.approx(vector @ solution)


@pytest.mark.parametrize("entry", [0.0, -1.0, np.nan, -np.inf])
def test_what_is_not_positive_definite_has_no_factor(entry: float) -> None:
    assert not compiled_steps._factorize(np.diag([1.0, entry]), 0.0, np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("low", "high", "newton", "guess"),
    [
        (1.0, 4.0, 3.0, 3.0),
        (1.0, 4.0, 5.0, 2.0),
        (1.0, 4.0, np.nan, 2.0),
        (-1.0, 1.0, -2.0, 0.0),
        (-1.0, 1.0, 2.0, 0.01),
    ],
)
def test_the_next_guess_lies_between_the_bounds(low: float, high: float, newton: float, guess: float) -> None:
    assert compiled_steps._guess(float(low), float(high), float(newton)) == pytest.approx(guess)
