"""Executing chapters: one kernel each, here or on a cluster, and a copy that is replaced only by a better one.

The executed copy of a chapter is what the tests assert and what the book shows. It is written beside its place
and moved there only when the chapter ran to its end, so whatever interrupts a run leaves the last good copy. A failed
run is kept next to it for inspection. What was measured is judged by the chapter's declarations whenever a copy is
read: a copy is good as long as its inputs are, and a claim that is not as declared is a problem of the present prose.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol
from weakref import WeakSet

import nbformat
from filelock import FileLock, Timeout

from companion.chapters import Chapter, ProjectError, inputs_digest
from companion.claims import Claim, join
from companion.measuring import measurements_of
from companion.notebooks import Execution, execute_notebook, search_path

# One thread a kernel: results do not depend on the number of cores, and small matrices are slower on two.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
LOCK_SECONDS = 7200  # longer than any chapter
SECONDS = Path("benchmarks/seconds.json")


@dataclass(frozen=True)
class Outcome:
    """What became of one chapter.

    Args:
        chapter: the chapter.
        parameters: values that differed from the defaults.
        executed: whether it was executed now; a fresh copy is not executed again.
        error: why it did not run to its end; ``None`` when it did.
        seconds: time of the execution that made the copy.
        problems: which of its claims are not as declared.
        copy: the executed notebook, or the failed one.
        claims: the claims that are declared and measured.
    """

    chapter: Chapter
    parameters: Mapping[str, Any]
    executed: bool
    error: str | None
    seconds: float
    problems: tuple[str, ...]
    copy: Path
    claims: tuple[Claim, ...]

    @property
    def failed(self) -> bool:
        """Whether it did not run to its end or, with the book's own parameters, a claim is not as declared.

        With parameters of the reader's own the verdicts are the result, whatever they are.
        """
        return self.error is not None or (bool(self.problems) and not self.parameters)


class Engine(Protocol):
    """Where notebooks are executed."""

    @property
    def capacity(self) -> int:
        """How many notebooks at a time."""

    def execute(self, chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> Execution:
        """Execute into ``output``."""

    def cancel(self) -> None:
        """Give up what is being executed, so that the threads that wait for it go on."""


class LocalKernels:
    """Kernels on this machine.

    Args:
        capacity: kernels at a time.
    """

    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity
        self._managers: WeakSet[Any] = WeakSet()

    def execute(self, chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> Execution:
        """Execute the notebook where it is, with the project's ``src``."""
        return execute_notebook(
            chapter.root / chapter.path,
            output,
            parameters,
            timeout=chapter.timeout,
            environment={"PYTHONPATH": search_path(chapter.root), **ONE_THREAD},
            managers=self._managers,
        )

    def cancel(self) -> None:
        """End the kernels."""
        for manager in self._managers:
            process = getattr(manager.provisioner, "process", None)  # None before the start and after the end
            if process is not None:
                process.kill()


def executed_path(chapter: Chapter, parameters: Mapping[str, Any] | None = None) -> Path:
    """Where the executed copy lives; parameters that differ from the defaults have a place of their own.

    Only the run with default parameters is the book's copy.
    """
    if not parameters:
        return chapter.root / "_build" / "executed" / chapter.path
    digest = inputs_digest(chapter, parameters)[:12]
    return chapter.root / "_build" / "runs" / chapter.name / digest / chapter.path.name


def state_of(chapter: Chapter, parameters: Mapping[str, Any] | None = None) -> str:
    """State of the copy: "fresh", "stale" (older inputs), "failed" (with the present inputs) or "missing"."""
    target = executed_path(chapter, parameters)
    digest = inputs_digest(chapter, parameters)
    if _stored_inputs(_failed_path(target)) == digest:
        return "failed"
    if not target.is_file():
        return "missing"
    return "fresh" if _stored_inputs(target) == digest else "stale"


def stored_metadata(notebook: Path) -> dict[str, Any]:
    """What an execution noted in its copy (inputs, seconds, executed_at, versions); empty without a copy."""
    if not notebook.is_file():
        return {}
    return dict(nbformat.read(notebook, as_version=4).metadata.get("companion", {}))


def run_chapters(
    chapters: Sequence[Chapter],
    parameters: Sequence[Mapping[str, Any]] | None = None,
    *,
    workers: int = 1,
    engine: Engine | None = None,
    force: bool = False,
) -> Iterator[Outcome]:
    """Execute what is not fresh, several kernels at a time; yields each outcome as it comes.

    What takes longest starts first, so that no kernel waits at the end for a long chapter that began late.

    Args:
        chapters: what to run; a chapter may come several times, with other parameters.
        parameters: for each of them the values that differ from the defaults; none by default.
        workers: kernels at a time on this machine.
        engine: where to execute instead.
        force: execute fresh chapters too.

    Raises:
        ProjectError: before anything runs, when a declaration of one of the chapters cannot be used.
    """
    if not chapters:
        return
    for chapter in chapters:
        _ = chapter.declarations
    engine = engine or LocalKernels(min(workers, len(chapters)))
    stop = Event()
    work = zip(chapters, parameters or [{}] * len(chapters), strict=True)
    longest_first = sorted(work, key=lambda item: -expected_seconds(item[0]))
    with ThreadPoolExecutor(engine.capacity) as pool:
        futures = [
            pool.submit(run_chapter, chapter, values, engine=engine, force=force, stop=stop)
            for chapter, values in longest_first
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            engine.cancel()
            raise


def run_chapter(
    chapter: Chapter,
    parameters: Mapping[str, Any] | None = None,
    *,
    engine: Engine | None = None,
    force: bool = False,
    stop: Event | None = None,
) -> Outcome:
    """Execute a chapter unless its copy is fresh, and check the claims it records.

    Args:
        chapter: what to run.
        parameters: values that differ from the defaults.
        engine: where to execute; by default one kernel on this machine.
        force: execute even when the copy is fresh.
        stop: set by a caller that ends the kernels: what they were running has not failed.

    Raises:
        CancelledError: when ``stop`` was set before the chapter came to its end.
    """
    parameters = parameters or {}
    target = executed_path(chapter, parameters)
    with lock(target):
        if not force and state_of(chapter, parameters) == "fresh":
            claims, problems = claims_of(chapter, target)
            seconds = stored_metadata(target)["seconds"]
            return Outcome(chapter, parameters, False, None, seconds, tuple(problems), target, tuple(claims))
        return _execute(chapter, parameters, target, engine or LocalKernels(), stop or Event())


def claims_of(chapter: Chapter, copy: Path) -> tuple[list[Claim], list[str]]:
    """The claims of a chapter as an executed copy has them, and what keeps them from being as declared."""
    measurements = measurements_of(nbformat.read(copy, as_version=4))
    return join(chapter.name, chapter.declarations, measurements)


def expected_seconds(chapter: Chapter) -> float:
    """About how long the chapter takes: as its last execution here, else as the committed table says, else 0."""
    here = stored_metadata(executed_path(chapter)).get("seconds")
    return float(committed_seconds(chapter.root).get(chapter.name, 0.0) if here is None else here)


def committed_seconds(root: Path) -> dict[str, float]:
    """Chapter → seconds, from the table that ``status --save-seconds`` writes for the first run of a fresh clone."""
    path = root / SECONDS
    table: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    return table


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Wait for whoever else is making ``target``; the system releases the lock of a process that dies.

    Raises:
        ProjectError: when it is still held after two hours.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.with_name(f".{target.stem}.lock")
    try:
        held = FileLock(file).acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ProjectError(f"{file}: another run has held it for {LOCK_SECONDS} s; end that run and repeat") from error
    with held:
        yield


def _execute(chapter: Chapter, parameters: Mapping[str, Any], target: Path, engine: Engine, stop: Event) -> Outcome:
    _remove_leftovers(target)
    # Taken before: inputs that change while the chapter runs must leave a stale copy, not a fresh one.
    inputs = inputs_digest(chapter, parameters)
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part.ipynb")
    try:
        execution = engine.execute(chapter, parameters, part)
        if stop.is_set():
            raise CancelledError
        notebook = nbformat.read(part if part.is_file() else chapter.root / chapter.path, as_version=4)
        noted = dataclasses.asdict(execution)
        notebook.metadata["companion"] = {**notebook.metadata.get("companion", {}), "inputs": inputs, **noted}
        nbformat.write(notebook, part)
        copy = _failed_path(target) if execution.error else target
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
    if not execution.error:
        _failed_path(target).unlink(missing_ok=True)
    claims, problems = claims_of(chapter, copy) if not execution.error else ([], [])
    return Outcome(chapter, parameters, True, execution.error, execution.seconds, tuple(problems), copy, tuple(claims))


def _remove_leftovers(target: Path) -> None:
    """Remove what killed runs left behind; the caller holds the lock, so none of it is in use."""
    for leftover in target.parent.glob(f".{target.stem}.*.part.ipynb"):
        leftover.unlink()


def _failed_path(target: Path) -> Path:
    return target.with_name(f"{target.stem}.failed.ipynb")


def _stored_inputs(notebook: Path) -> str | None:
    return stored_metadata(notebook).get("inputs")
