"""Executing chapters: one kernel each, here or on a cluster, and a copy that is replaced only by a better one.

The executed copy of a chapter is what the tests assert and what the book shows. It is written beside its place
and moved there only when the chapter ran to its end, so whatever interrupts a run leaves the last good copy. A failed
run is kept next to it for inspection. A copy names the code, files and versions that it was made from, and it is fresh
as long as they are what they were. It carries a seal, a digest of all that is in it: what was changed by hand counts
for nothing. What was measured is judged by the chapter's declarations whenever a copy is read: a copy is good as long
as its inputs are, and a claim that is not as declared is a problem of the present prose.
"""

from __future__ import annotations

import copy as copying
import hashlib
import importlib.metadata
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import nbformat
from filelock import FileLock, Timeout

from companion.chapters import Chapter, ProjectError, code_digest
from companion.claims import Claim, join
from companion.files import file_digest, file_stamp, write_through
from companion.measuring import measurements_of
from companion.notebooks import (
    VARIED,
    Execution,
    Kernels,
    changed_meanwhile,
    differing_versions,
    execute_notebook,
    in_words,
    installed_versions,
)

LOCK_SECONDS = 7200  # longer than any chapter
SECONDS = Path("benchmarks/seconds.json")
OnCell = Callable[[Chapter, Mapping[str, Any]], object]


class EngineError(Exception):
    """The place where notebooks are executed is of no use any more: the run ends, and keeps what is finished."""


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
        """Execute into ``output``.

        Raises:
            EngineError: when it cannot execute any other notebook either.
        """

    def cancel(self) -> None:
        """Give up what is being executed, so that the threads that wait for it go on."""


class LocalKernels:
    """Kernels on this machine.

    Args:
        capacity: kernels at a time.
        on_cell: called with chapter and parameters, in the thread of its execution, when one of its cells has run.
        environment: threads and instructions that the kernels are to use instead of the book's, by variable. What was
            executed so says it, and is no copy of the book's: the campaign `make trust` compares it with one.

    Raises:
        ValueError: for a variable that is not one of these.
    """

    def __init__(
        self, capacity: int = 1, on_cell: OnCell | None = None, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._environment = dict(environment or {})
        if unknown := sorted(self._environment.keys() - VARIED):
            raise ValueError(f"environment: {', '.join(unknown)} cannot be varied; {', '.join(sorted(VARIED))} can")
        self.capacity = capacity
        self._kernels = Kernels()
        self._on_cell = on_cell or (lambda chapter, parameters: None)

    def execute(self, chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> Execution:
        """Execute the notebook where it is, with the project's ``src``."""
        return execute_notebook(
            nbformat.writes(chapter.notebook),
            output,
            parameters,
            root=chapter.root,
            path=chapter.path,
            timeout=chapter.timeout,
            providers=providers(),
            kernels=self._kernels,
            on_cell=lambda: self._on_cell(chapter, parameters),
            environment=self._environment,
        )

    def cancel(self) -> None:
        """End the kernels."""
        self._kernels.end()


@cache
def providers() -> Mapping[str, Sequence[str]]:
    """Top-level name of a module → the distributions that bring it; takes a second, once."""
    return importlib.metadata.packages_distributions()


def executed_path(chapter: Chapter, parameters: Mapping[str, Any] | None = None) -> Path:
    """Where the executed copy lives; parameters that differ from the defaults have a place of their own.

    Only the run with default parameters is the book's copy.
    """
    if not parameters:
        return chapter.root / "_build" / "executed" / chapter.path
    digest = code_digest(chapter, parameters)[:12]
    return chapter.root / "_build" / "runs" / chapter.name / digest / chapter.path.name


def state_of(chapter: Chapter, parameters: Mapping[str, Any] | None = None) -> str:
    """State of the copy: "fresh", "stale" (older inputs), "failed" (with the present inputs) or "missing"."""
    target = executed_path(chapter, parameters)
    if why_stale(chapter, _failed_path(target), parameters) is None:
        return "failed"
    if not os.path.lexists(target):
        return "missing"
    return "fresh" if why_stale(chapter, target, parameters) is None else "stale"


def why_stale(chapter: Chapter, copy: Path, parameters: Mapping[str, Any] | None = None) -> str | None:
    """Why a copy is not what an execution would give now, in words; ``None`` when it is fresh."""
    noted = stored_metadata(copy)
    if not noted:
        return "there is no executed copy, or it was changed after its execution"
    if noted["code"] != code_digest(chapter, parameters):
        return "its code or parameters changed since the execution"
    if changed := [name for name, digest in noted["files"].items() if file_digest(chapter.root / name) != digest]:
        return f"{', '.join(changed)} changed since the execution"
    if differing := _differing_here(frozenset(noted["versions"].items())):
        return f"it was made with {', '.join(differing)}"
    if varied := noted.get("environment"):
        return f"it was made with {', '.join(f'{name}={value}' for name, value in varied.items())}"
    return None


def read_copy(copy: Path) -> nbformat.NotebookNode | None:
    """An executed copy as it was written; ``None`` where there is none, or something else than an execution left."""
    try:
        return _read_sealed(copy, file_stamp(copy))
    # Whatever was made of the file by hand, it is not a copy.
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError, nbformat.ValidationError):
        return None


def sealed(
    notebook: nbformat.NotebookNode, chapter: Chapter, parameters: Mapping[str, Any], execution: Execution
) -> bytes:
    """An executed notebook as the file that is its copy: with all that it was made from, and a seal."""
    notebook = copying.deepcopy(notebook)
    noted = {"code": code_digest(chapter, parameters), **asdict(execution)}
    notebook.metadata["companion"] = {**notebook.metadata.get("companion", {}), **noted}
    content = json.loads(nbformat.writes(notebook))
    content["metadata"]["companion"]["seal"] = _seal(content)
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def stored_metadata(copy: Path) -> dict[str, Any]:
    """What an execution noted in its copy (code, files, seconds, executed_at, versions); empty without a copy."""
    notebook = read_copy(copy)
    return dict(notebook.metadata["companion"]) if notebook else {}


def run_chapters(
    chapters: Sequence[Chapter],
    parameters: Sequence[Mapping[str, Any]] | None = None,
    *,
    workers: int = 1,
    engine: Engine | None = None,
    force: bool = False,
    on_cell: OnCell | None = None,
) -> Iterator[Outcome]:
    """Execute what is not fresh, several kernels at a time; yields each outcome as it comes.

    What takes longest starts first, so that no kernel waits at the end for a long chapter that began late.

    Args:
        chapters: what to run; a chapter may come several times, with other parameters.
        parameters: for each of them the values that differ from the defaults; none by default.
        workers: kernels at a time on this machine.
        engine: where to execute instead.
        force: execute fresh chapters too.
        on_cell: as of :class:`LocalKernels`; what runs elsewhere does not call it.

    Raises:
        ProjectError: before anything runs, when a declaration of one of the chapters cannot be used.
        EngineError: when nothing can be executed any more.
    """
    if not chapters:
        return
    for chapter in chapters:
        _ = chapter.declarations
    engine = engine or LocalKernels(min(workers, len(chapters)), on_cell)
    stop = Event()
    work = zip(chapters, parameters or [{}] * len(chapters), strict=True)
    longest_first = sorted(work, key=lambda item: -expected_seconds(item[0]))
    with ThreadPoolExecutor(engine.capacity) as pool:
        try:
            futures = [
                pool.submit(run_chapter, chapter, values, engine=engine, force=force, stop=stop)
                for chapter, values in longest_first
            ]
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

    Returns:
        The outcome; whatever else goes wrong with this chapter alone is its error.

    Raises:
        CancelledError: when ``stop`` was set before the chapter came to its end.
        EngineError: when nothing can be executed any more.
    """
    parameters, stop = parameters or {}, stop or Event()
    try:
        return _fresh_or_executed(chapter, parameters, engine or LocalKernels(), force, stop)
    except (CancelledError, EngineError):
        raise
    except Exception as error:
        if stop.is_set():
            raise CancelledError from error
        said = str(error) if isinstance(error, ProjectError) else in_words(error)
        return Outcome(chapter, parameters, True, said, 0.0, (), chapter.root / chapter.path, ())


def claims_of(chapter: Chapter, copy: Path) -> tuple[list[Claim], list[str]]:
    """The claims of a chapter as an executed copy has them, and what keeps them from being as declared.

    A copy that was changed after its execution has none.
    """
    notebook = read_copy(copy)
    try:
        measurements = measurements_of(notebook) if notebook else []
    except ValueError as error:
        return [], [str(error)]
    return join(chapter.name, chapter.declarations, measurements)


def expected_seconds(chapter: Chapter) -> float:
    """About how long the chapter takes: as its last execution here, else as the committed table says, else 0."""
    here = stored_metadata(executed_path(chapter)).get("seconds")
    return float(committed_seconds(chapter.root).get(chapter.name, 0.0) if here is None else here)


def committed_seconds(root: Path) -> dict[str, float]:
    """Chapter → seconds, from the table that ``status --save-seconds`` writes for the first run of a fresh clone.

    Raises:
        ProjectError: when the file holds something else.
    """
    try:
        return {name: float(seconds) for name, seconds in json.loads((root / SECONDS).read_text("utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        remedy = "`python -m companion status --save-seconds` writes it anew"
        raise ProjectError(f"{SECONDS}: no table of seconds: {in_words(error)}; {remedy}") from error


@contextmanager
def lock(target: Path, *, cancelled: Callable[[], bool] | None = None, seconds: float | None = None) -> Iterator[None]:
    """Wait for whoever else is making ``target``; the system releases the lock of a process that dies.

    Args:
        target: what is to be made.
        cancelled: asked again and again whether to give up waiting.
        seconds: how long to wait; by default two hours.

    Raises:
        ProjectError: when it is still held after that time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    file, seconds = target.with_name(f".{target.stem}.lock"), LOCK_SECONDS if seconds is None else seconds
    try:
        held = FileLock(file).acquire(timeout=seconds, cancel_check=cancelled)
    except Timeout as error:
        raise ProjectError(f"{file}: another run has held it for {seconds} s; end that run and repeat") from error
    with held:
        yield


def _fresh_or_executed(
    chapter: Chapter, parameters: Mapping[str, Any], engine: Engine, force: bool, stop: Event
) -> Outcome:
    target = executed_path(chapter, parameters)

    def fresh() -> bool:
        return not force and state_of(chapter, parameters) == "fresh"

    # Without the lock at first: what is fresh can be read where nothing can be written.
    if not fresh():
        with lock(target, cancelled=stop.is_set):
            if not fresh():
                return _execute(chapter, parameters, target, engine, stop)
    _remove_leftovers(target)
    claims, problems = claims_of(chapter, target)
    seconds = stored_metadata(target)["seconds"]
    return Outcome(chapter, parameters, False, None, seconds, tuple(problems), target, tuple(claims))


def _execute(chapter: Chapter, parameters: Mapping[str, Any], target: Path, engine: Engine, stop: Event) -> Outcome:
    for leftover in _leftovers(target):
        leftover.unlink()
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part.ipynb")
    try:
        execution = engine.execute(chapter, parameters, part)
        if stop.is_set():
            raise CancelledError
        # Whatever was read elsewhere must be what is here now.
        changed = [name for name, digest in execution.files.items() if file_digest(chapter.root / name) != digest]
        if changed and not execution.error:
            execution = replace(execution, error=changed_meanwhile(changed))
        notebook = nbformat.read(part, as_version=4) if part.is_file() else chapter.notebook
    finally:
        part.unlink(missing_ok=True)
    copy = _failed_path(target) if execution.error else target
    _put(copy, sealed(notebook, chapter, parameters, execution))
    if not execution.error:
        _failed_path(target).unlink(missing_ok=True)
    claims, problems = claims_of(chapter, copy) if not execution.error else ([], [])
    return Outcome(chapter, parameters, True, execution.error, execution.seconds, tuple(problems), copy, tuple(claims))


def _put(path: Path, content: bytes) -> None:
    """Write a copy, also where somebody has made a directory of its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    write_through(path, content)


def _leftovers(target: Path) -> list[Path]:
    """What runs that were killed left beside a copy, as far as nobody holds its lock."""
    return list(target.parent.glob(f".{target.stem}.*.part.ipynb"))


def _remove_leftovers(target: Path) -> None:
    """Remove leftovers unless they are in use, or nothing can be changed here."""
    if _leftovers(target):
        with suppress(ProjectError, OSError), lock(target, seconds=0):
            for leftover in _leftovers(target):
                leftover.unlink()


def _failed_path(target: Path) -> Path:
    return target.with_name(f"{target.stem}.failed.ipynb")


@lru_cache(maxsize=16)
def _read_sealed(copy: Path, stamp: tuple[int, ...]) -> nbformat.NotebookNode | None:
    text = copy.read_text(encoding="utf-8")
    content = json.loads(text)
    if content["metadata"]["companion"]["seal"] != _seal(content):
        return None
    notebook: nbformat.NotebookNode = nbformat.reads(text, as_version=4)
    return notebook


def _seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of a notebook but for its seal."""
    noted = {key: value for key, value in content["metadata"]["companion"].items() if key != "seal"}
    rest = {**content, "metadata": {**content["metadata"], "companion": noted}}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# The copies of a sweep have the same versions: they are looked up once.
@lru_cache(maxsize=64)
def _differing_here(versions: frozenset[tuple[str, str]]) -> list[str]:
    made_with = dict(versions)
    return differing_versions(made_with, installed_versions(made_with.keys() - {"python"}))
