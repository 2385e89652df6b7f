"""Many notebooks at once: what this library adds to each of them, and the speed-up of two workers.

Measured with a clock on the wall, unlike the other benchmarks: the kernels are processes of their own, whose CPU time
is not this one's. On a machine that others use too the figures hold for that load, which the report names.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask
import nbformat
from benchmarks.timing import OURS, Comparison, report
from distributed import LocalCluster

from companion import notebooks
from companion.chapters import Chapter
from companion.cluster import connect
from companion.execution import Engine, LocalKernels, run_chapters

PROJECT = Path(__file__).parents[1]
REAL = Path("book/depth/lifting.ipynb")  # a chapter with its import closure, data and parameters
TASKS = (10, 100, 1000)
CHAPTERS = 4  # of equal length
ROUNDS = 5
GOAL = 1.8
LENGTHS = {  # a cell each
    "compute": "print(sum(i * i for i in range(40_000_000)))",
    "are empty": "print(k)",
}
# Dask's own bookkeeping would take a tenth of a two-core machine from the kernels.
QUIET = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


class NoKernels:
    """Gives each notebook back as it is, so that what is left is this library's own work here."""

    capacity = 2

    def execute(self, chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> notebooks.Execution:
        """Write the notebook as it is."""
        nbformat.write(chapter.notebook, output)
        return notebooks.Execution(error=None, seconds=0.0, executed_at="", versions={}, machine="")

    def cancel(self) -> None:
        """Nothing is on its way."""


def give_back(bundle: bytes, source: str, *_: object) -> tuple[bytes, dict[str, Any]]:
    """The same on a worker, in the place of `notebooks.execute_bundle`."""
    fields = {"error": None, "seconds": 0.0, "executed_at": "", "versions": {}, "machine": ""}
    return source.encode(), fields


@contextmanager
def project(*notebooks: Path) -> Iterator[Path]:
    """A copy of this project in a directory of its own, for executions that leave nothing behind."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in ("src", "data"):
            shutil.copytree(PROJECT / name, root / name)
        for name in ("constraints.txt", *notebooks):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, root / name)
        yield root


def write_chapter(root: Path, code: str) -> Chapter:
    """A chapter with one parameter, `k`, and one cell."""
    cells = [
        nbformat.v4.new_code_cell("k = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    path = Path("book/chapter.ipynb")
    (root / path).parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), root / path)
    return Chapter(root, path)


def wall_time(chapter: Chapter, tasks: int, engine: Engine, *, force: bool = True) -> float:
    """Seconds for so many parameter sets of a chapter; each must run to its end."""
    start = time.perf_counter()
    outcomes = list(run_chapters([chapter] * tasks, [{"k": k + 1} for k in range(tasks)], engine=engine, force=force))
    elapsed = time.perf_counter() - start
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if errors or any(outcome.executed != force for outcome in outcomes):
        raise AssertionError(f"{tasks} sets of {chapter.name}: not what was to be measured: {errors[:3]}")
    return elapsed


def comparison(
    case: str, samples: dict[str, list[float]], goal: float | None = None, facts: dict[str, float] | None = None
) -> Comparison:
    """Medians, and the ratio within each round, of two contestants; the first is ours."""
    ours, peer = samples
    ratios = [theirs / own for theirs, own in zip(samples[peer], samples[ours])]
    seconds = {OURS: statistics.median(samples[ours]), peer: statistics.median(samples[peer])}
    spread = {peer: (min(ratios), max(ratios))}
    result = Comparison(f"{case}, {ours}", seconds, {peer: statistics.median(ratios)}, spread, goal, facts or {})
    print(result, flush=True)
    return result


def costs(address: str) -> Iterator[Comparison]:
    """Seconds a task, without kernels: here and on the cluster; as a fact, for sets that are finished."""
    with project(REAL) as root, patch.object(notebooks, "execute_bundle", give_back):
        for tasks in TASKS:
            samples: dict[str, list[float]] = {"this machine": [], "Dask cluster": []}
            finished = []
            for _ in range(ROUNDS):
                chapter = Chapter(root, REAL)
                with connect(address, [chapter]) as cluster:
                    samples["Dask cluster"].append(wall_time(chapter, tasks, cluster) / tasks)
                chapter = Chapter(root, REAL)
                samples["this machine"].append(wall_time(chapter, tasks, NoKernels()) / tasks)
                chapter = Chapter(root, REAL)
                finished.append(wall_time(chapter, tasks, NoKernels(), force=False) / tasks)
            facts = {"ms a task that is finished": 1e3 * statistics.median(finished)}
            yield comparison(f"overhead a task, {tasks} tasks", samples, facts=facts)


def speed_ups() -> Iterator[Comparison]:
    """Two workers against one, for chapters of equal length: here, on Dask clusters, and what bare processes reach.

    A cluster lives only while it is measured: its idle processes would take their share of the other runs.
    """
    places = {"this machine": on_this_machine, "Dask cluster": on_new_cluster, "bare processes": in_bare_processes}
    for length, code in LENGTHS.items():
        samples: dict[str, dict[str, list[float]]] = {place: {"two workers": [], "one worker": []} for place in places}
        with project() as root:
            on_this_machine(root, LENGTHS["are empty"], 2)  # imports papermill here, once for all that follows
            for _ in range(ROUNDS):
                for (place, run), (workers, name) in product(places.items(), ((2, "two workers"), (1, "one worker"))):
                    samples[place][name].append(run(root, code, workers))
        for place, seconds in samples.items():
            goal = None if place == "bare processes" else GOAL
            yield comparison(f"{CHAPTERS} chapters that {length}, {place}", seconds, goal)


def on_this_machine(root: Path, code: str, workers: int) -> float:
    """Seconds with local kernels."""
    return wall_time(write_chapter(root, code), CHAPTERS, LocalKernels(workers))


def in_bare_processes(root: Path, code: str, workers: int) -> float:
    """Seconds for the same code in processes without notebook or kernel: what the machine allows."""
    command = [sys.executable, "-c", f"k = 0\n{code}"]
    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        done = [pool.submit(subprocess.run, command, cwd=root, stdout=subprocess.DEVNULL) for _ in range(CHAPTERS)]
    if any(future.result().returncode for future in done):
        raise AssertionError("a bare process failed")
    return time.perf_counter() - start


def on_new_cluster(root: Path, code: str, workers: int) -> float:
    """Seconds on a new Dask cluster, after empty chapters: a worker imports papermill once, for all that follows."""
    seconds = 0.0
    with local_cluster(workers) as local:
        for each in (LENGTHS["are empty"], code):
            chapter = write_chapter(root, each)
            with connect(local.scheduler_address, [chapter]) as cluster:
                seconds = wall_time(chapter, CHAPTERS, cluster)
    return seconds


def local_cluster(workers: int) -> LocalCluster:
    """A Dask cluster of so many processes, set up as the book's appendix on clusters recommends."""
    dask.config.set(QUIET)
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")


if __name__ == "__main__":
    with local_cluster(2) as cluster:
        rows = [*costs(cluster.scheduler_address)]
    rows += speed_ups()
    report("cluster", "Many notebooks at once (time on the wall)", rows)
