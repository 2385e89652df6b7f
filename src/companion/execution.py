"""Executing chapters: papermill, one kernel each, and a copy that is replaced only by a better one.

The executed copy of a chapter is what the tests assert and what the book shows. It is written beside its place
and moved there only when the chapter ran to its end and recorded exactly the claims it declares, so whatever
interrupts a run leaves the last good copy. A failed run is kept next to it for inspection.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, ClassVar
from weakref import WeakSet

import nbformat
import yaml
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop

from companion.chapters import Chapter, ProjectError, inputs_digest
from companion.claims import claims_of, format_number

PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "papermill", "jupyter-book")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of one chapter.

    Args:
        chapter: the chapter.
        executed: whether it was executed now; a fresh copy is not executed again.
        seconds: time of the execution that made the copy.
        problems: why it failed; empty when the copy is good.
        copy: the executed notebook, or the failed one.
        claims: the claims that it recorded.
    """

    chapter: Chapter
    executed: bool
    seconds: float
    problems: tuple[str, ...]
    copy: Path
    claims: tuple[dict[str, Any], ...]


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
        ProjectError: naming the parameter that the chapter does not have, or whose text does not parse or has
            another type than the default.
    """
    defaults = chapter.parameters
    for name in given:
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ProjectError(f"{chapter.name} has no parameter {name!r}; its parameters are: {known}")
    values = {name: _parse(chapter, name, text, defaults[name]) for name, text in given.items()}
    return {name: value for name, value in values.items() if value != defaults[name]}


def run_chapters(
    chapters: list[Chapter],
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    workers: int = 1,
    force: bool = False,
) -> Iterator[Outcome]:
    """Execute what is not fresh, several kernels at a time; yields each outcome as it comes.

    Args:
        chapters: what to run.
        parameters: chapter name → values that differ from the defaults.
        workers: kernels at a time; the processor's cores are shared among them.
        force: execute fresh chapters too.
    """
    if not chapters:
        return
    parameters = parameters or {}
    workers = min(workers, len(chapters))
    stop = Event()
    with _kernel_environment(chapters[0].root, workers), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run_chapter, c, parameters.get(c.name), force=force, stop=stop) for c in chapters]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            _kill_kernels()
            raise


def run_chapter(
    chapter: Chapter,
    parameters: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
    stop: Event | None = None,
) -> Outcome:
    """Execute a chapter unless its copy is fresh, and check the claims it records.

    Args:
        chapter: what to run.
        parameters: values that differ from the defaults.
        force: execute even when the copy is fresh.
        stop: set by a caller that ends the kernels: what they were running has not failed.

    Raises:
        CancelledError: when ``stop`` was set before the chapter came to its end.
    """
    target = executed_path(chapter, parameters)
    with lock(target):
        if not force and state_of(chapter, parameters) == "fresh":
            notebook = nbformat.read(target, as_version=4)
            seconds = notebook.metadata.companion.seconds
            return Outcome(chapter, False, seconds, (), target, tuple(claims_of(notebook)))
        return _execute(chapter, parameters or {}, target, stop or Event())


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


def _execute(chapter: Chapter, parameters: Mapping[str, Any], target: Path, stop: Event) -> Outcome:
    _remove_leftovers(target)
    # Taken before: inputs that change while the chapter runs must leave a stale copy, not a fresh one.
    inputs = inputs_digest(chapter, parameters)
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part.ipynb")
    start = time.perf_counter()
    try:
        problems = _run_papermill(chapter, parameters, part)
        if stop.is_set():
            raise CancelledError
        seconds = time.perf_counter() - start
        notebook = nbformat.read(part if part.is_file() else chapter.root / chapter.path, as_version=4)
        recorded = claims_of(notebook)
        problems = problems or check_claims(chapter, recorded)
        notebook.metadata["companion"] = _provenance(notebook, inputs, seconds)
        nbformat.write(notebook, part)
        copy = _failed_path(target) if problems else target
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
    if not problems:
        _failed_path(target).unlink(missing_ok=True)
    return Outcome(chapter, True, seconds, tuple(problems), copy, tuple(recorded))


def _run_papermill(chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> list[str]:
    """Execute into ``output``; returns what went wrong in words."""
    import papermill  # takes a second to import: only when something is executed
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    # The default ipc path is shared: without a directory of its own a kernel answers its neighbour's requests.
    # The event loop is the one that nbclient makes for this thread and leaves open.
    with tempfile.TemporaryDirectory(prefix="kernel-") as directory, closing(ensure_event_loop()):
        channel = {"transport": "ipc", "ip": f"{directory}/k"}
        try:
            papermill.execute_notebook(
                str(chapter.root / chapter.path),
                str(output),
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=chapter.timeout,
                # papermill's own cwd changes the whole process's directory, which the other threads share.
                resources={"metadata": {"path": str((chapter.root / chapter.path).parent)}},
                kernel_manager_class=_KernelManager,
                config=Config({"AsyncKernelManager": channel}),
            )
        except papermill.PapermillExecutionError as error:
            return [f"cell [{error.exec_count}] raised {error.ename}: {error.evalue}"]
        except CellTimeoutError:
            return [f"a cell took longer than {chapter.timeout} s (metadata companion.timeout)"]
        except DeadKernelError:
            return ["the kernel died (out of memory, or killed)"]
        except RuntimeError as error:
            return [f"the kernel failed: {error}"]
    return []


@contextmanager
def _kernel_environment(root: Path, workers: int) -> Iterator[None]:
    """Variables that kernels inherit: this project's ``src``, and a fair share of the cores each.

    A chapter must import the very files that its digest covers, wherever the package is installed from; and kernels
    that start one thread a core each would slow each other down.
    """
    cores = available_cores()
    search_path = os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))
    changed = {"PYTHONPATH": search_path, **dict.fromkeys(THREAD_VARIABLES, str(max(1, cores // workers)))}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _KernelManager(AsyncKernelManager):
    """Remembers the kernels of this process, so that an interrupted run can end them."""

    known: ClassVar[WeakSet[_KernelManager]] = WeakSet()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.known.add(self)


def _kill_kernels() -> None:
    """End this process's kernels, so that the threads waiting for them end too."""
    for manager in _KernelManager.known:
        process = getattr(manager.provisioner, "process", None)  # None before the start and after the end
        if process is not None:
            process.kill()


def _remove_leftovers(target: Path) -> None:
    """Remove what killed runs left behind; the caller holds the lock, so none of it is in use."""
    for leftover in target.parent.glob(f".{target.stem}.*.part.ipynb"):
        leftover.unlink()


def _provenance(notebook: nbformat.NotebookNode, inputs: str, seconds: float) -> dict[str, Any]:
    return {
        **notebook.metadata.get("companion", {}),
        "inputs": inputs,
        "seconds": round(seconds, 2),
        "executed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "machine": f"{_processor()}, {available_cores()} cores, {platform.system()}",
    }


def available_cores() -> int:
    """How many cores this process may use.

    Example:
        >>> available_cores() >= 1
        True
    """
    # macOS does not say which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **installed}


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


def _parse(chapter: Chapter, name: str, text: str, default: Any) -> Any:
    """One value: YAML, except that a float may be written 1e-3, which YAML 1.1 reads as a text."""
    try:
        value = float(text) if isinstance(default, float) else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ProjectError(f"{chapter.name}: parameter {name}: cannot read {text!r}: {error}") from error
    value = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
    if default is not None and type(value) is not type(default):
        kinds = f"a value of type {type(default).__name__} like its default {default!r}"
        raise ProjectError(f"{chapter.name}: parameter {name} takes {kinds}, not {text!r}")
    return value
