"""Executing chapters: one kernel each, here or on a cluster, and a copy that is replaced only by a better one.

The executed copy of a chapter is what the tests assert and what the book shows. It is written beside its place
and moved there only when the chapter ran to its end and recorded exactly the claims it declares, so whatever
interrupts a run leaves the last good copy. A failed run is kept next to it for inspection. With parameters of the
reader's own, a chapter that ran to its end is finished, whatever became of its claims: that is the result.
"""

from __future__ import annotations

import fcntl
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
import yaml

from companion.chapters import Chapter, ProjectError, inputs_digest
from companion.claims import claims_of, format_number
from companion.notebooks import execute_notebook, search_path

# One thread a kernel: results do not depend on the number of cores, and small matrices are slower on two.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Outcome:
    """What became of one chapter.

    Args:
        chapter: the chapter.
        parameters: values that differed from the defaults.
        executed: whether it was executed now; a fresh copy is not executed again.
        finished: whether it ran to its end.
        seconds: time of the execution that made the copy.
        problems: why it failed, or which of its claims came out otherwise than declared.
        copy: the executed notebook, or the failed one.
        claims: the claims that it recorded.
    """

    chapter: Chapter
    parameters: Mapping[str, Any]
    executed: bool
    finished: bool
    seconds: float
    problems: tuple[str, ...]
    copy: Path
    claims: tuple[dict[str, Any], ...]


class Engine(Protocol):
    """Where notebooks are executed."""

    @property
    def capacity(self) -> int:
        """How many notebooks at a time."""

    def execute(
        self, chapter: Chapter, parameters: Mapping[str, Any], output: Path
    ) -> tuple[list[str], dict[str, Any]]:
        """Execute into ``output``; returns what went wrong, and the provenance."""

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

    def execute(
        self, chapter: Chapter, parameters: Mapping[str, Any], output: Path
    ) -> tuple[list[str], dict[str, Any]]:
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


def parse_parameters(chapter: Chapter, given: Mapping[str, str]) -> dict[str, Any]:
    """Values for a chapter's parameters from texts in YAML; those equal to the default are left out.

    Raises:
        ProjectError: as :func:`check_parameters`, and when a text does not parse.
    """
    values = {}
    for name, text in given.items():
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ProjectError(f"{chapter.name}: parameter {name}: cannot read {text!r}: {error}") from error
    return changed_parameters(chapter, check_parameters(chapter, values))


def check_parameters(chapter: Chapter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a chapter's parameters, each as the type of its default.

    Raises:
        ProjectError: naming the parameter that the chapter does not have, or whose value has another type than
            the default.
    """
    for name in given:
        if name not in chapter.parameters:
            known = ", ".join(chapter.parameters) or "none"
            raise ProjectError(f"{chapter.name} has no parameter {name!r}; its parameters are: {known}")
    return {name: _like_default(chapter, name, value) for name, value in given.items()}


def changed_parameters(chapter: Chapter, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the chapter's defaults."""
    return {name: value for name, value in values.items() if value != chapter.parameters[name]}


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
    """
    if not chapters:
        return
    engine = engine or LocalKernels(min(workers, len(chapters)))
    stop = Event()
    work = zip(chapters, parameters or [{}] * len(chapters), strict=True)
    longest_first = sorted(work, key=lambda item: -item[0].expected_seconds)
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
            notebook = nbformat.read(target, as_version=4)
            claims = claims_of(notebook)
            problems, seconds = check_claims(chapter, claims), notebook.metadata.companion.seconds
            return Outcome(chapter, parameters, False, True, seconds, tuple(problems), target, tuple(claims))
        return _execute(chapter, parameters, target, engine or LocalKernels(), stop or Event())


def check_claims(chapter: Chapter, recorded: list[dict[str, Any]]) -> list[str]:
    """What keeps the recorded claims from being exactly the declared ones; empty when nothing does."""
    declared = chapter.declared_claims
    ids = [claim["id"] for claim in recorded]
    problems = [f"claim {name} is declared but not recorded" for name in declared if name not in ids]
    problems += [f"claim {name} is recorded more than once" for name in sorted(set(ids)) if ids.count(name) > 1]
    for claim in recorded:
        name, verdict = claim["id"], claim["verdict"]
        if name not in declared:
            problems.append(f"claim {name} is recorded but not declared in the metadata companion.claims")
        elif verdict != declared[name]:
            problems.append(f"claim {name} is {verdict}, declared {declared[name]}: {_measurement(claim)}")
    return problems


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Wait for whoever else is making ``target``; the system releases the lock of a process that dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.stem}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _execute(chapter: Chapter, parameters: Mapping[str, Any], target: Path, engine: Engine, stop: Event) -> Outcome:
    _remove_leftovers(target)
    # Taken before: inputs that change while the chapter runs must leave a stale copy, not a fresh one.
    inputs = inputs_digest(chapter, parameters)
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part.ipynb")
    try:
        problems, noted = engine.execute(chapter, parameters, part)
        if stop.is_set():
            raise CancelledError
        notebook = nbformat.read(part if part.is_file() else chapter.root / chapter.path, as_version=4)
        recorded, finished = claims_of(notebook), not problems
        problems = problems or check_claims(chapter, recorded)
        notebook.metadata["companion"] = {**notebook.metadata.get("companion", {}), "inputs": inputs, **noted}
        nbformat.write(notebook, part)
        good = finished and (bool(parameters) or not problems)
        copy = target if good else _failed_path(target)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
    if good:
        _failed_path(target).unlink(missing_ok=True)
    return Outcome(chapter, parameters, True, finished, noted["seconds"], tuple(problems), copy, tuple(recorded))


def _remove_leftovers(target: Path) -> None:
    """Remove what killed runs left behind; the caller holds the lock, so none of it is in use."""
    for leftover in target.parent.glob(f".{target.stem}.*.part.ipynb"):
        leftover.unlink()


def _failed_path(target: Path) -> Path:
    return target.with_name(f"{target.stem}.failed.ipynb")


def _stored_inputs(notebook: Path) -> str | None:
    return stored_metadata(notebook).get("inputs")


def _measurement(claim: Mapping[str, Any]) -> str:
    control = claim["control"]
    return (
        f"measured {format_number(claim['measured'])}, bound {claim['relation']} {format_number(claim['bound'])}, "
        f"control {format_number(control['measured'])} ({'flips' if control['flipped'] else 'does not flip'})"
    )


def _like_default(chapter: Chapter, name: str, value: Any) -> Any:
    """One value; a float may be written 1 or 1e-3, which YAML 1.1 reads as an integer and a text."""
    default, given = chapter.parameters[name], value
    if isinstance(default, float) and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            value = float(value)
        except ValueError as error:
            raise ProjectError(f"{chapter.name}: parameter {name}: cannot read {given!r}: {error}") from error
    value = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
    if default is not None and type(value) is not type(default):
        kinds = f"a value of type {type(default).__name__} like its default {default!r}"
        raise ProjectError(f"{chapter.name}: parameter {name} takes {kinds}, not {given!r}")
    return value
