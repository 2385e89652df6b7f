"""One notebook in a kernel of its own: what runs wherever a chapter is executed, here or on a worker of a cluster.

A worker gets these functions by value and has this package nowhere on its path. So the module imports the standard
library alone at its top, and what else it needs where it needs it.

What could make a number depend on who runs it is fixed here: the interpreter, its environment, and one thread. What a
number does depend on, files and versions, is noted with it (:mod:`companion.recorder`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakSet

PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "papermill", "jupyter-book")
RECORDER = Path(__file__).with_name("recorder.py").read_text(encoding="utf-8")
WORKSPACE = "companion-kernel-"
END = "companion-end"  # id of a cell after the last one: what runs it has come to its end
AT_THE_END = 'assert not get_ipython().exit_now, "a cell ended the kernel (quit, exit)"'
# The variables of the caller that a kernel gets: what finds programs, a home, a language and certificates.
KEPT = {
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "XDG_CACHE_HOME"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROGRAMDATA"),
    *("USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA"),
}
# One thread a kernel: results do not depend on the number of cores, and small matrices are slower on two.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# What `make trust` varies, to see what depends on it; a caller's variables of these names reach no kernel.
VARIED = {
    *ONE_THREAD,
    *("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA"),
}


class OtherVersionsError(Exception):
    """This machine has other versions of packages than the results are to be made with; the message lists them."""


@dataclass(frozen=True)
class Execution:
    """How an execution went.

    Args:
        error: why the notebook did not run to its end, in words; ``None`` when it did.
        seconds: how long it took.
        executed_at: when, as an ISO date.
        versions: distribution → version of what the kernel loaded, of Python and of the packages that count anyway.
        machine: processor, cores and system.
        files: file of the project that was read → SHA-256 of what was read; ``None`` if it was not there.
        environment: the variables of :data:`VARIED` that were set to something else than for the book.
    """

    error: str | None
    seconds: float
    executed_at: str
    versions: Mapping[str, str]
    machine: str
    files: Mapping[str, str | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


class Kernels:
    """The kernels that are running, for a caller who may want to end them."""

    def __init__(self) -> None:
        self._managers: WeakSet[Any] = WeakSet()
        self._ended = False

    def add(self, manager: Any) -> None:
        """Add the manager of a kernel that has just been started; when all were to end, it ends too."""
        self._managers.add(manager)
        if self._ended:
            manager.provisioner.process.kill()

    def end(self) -> None:
        """End the kernels that there are, and those that are being started."""
        self._ended = True
        for manager in list(self._managers):
            process = manager.provisioner.process  # None after the end
            if process is not None:
                process.kill()


@dataclass(frozen=True)
class _Reading:
    """What the record of a kernel says.

    Args:
        files: as in :class:`Execution`.
        modules: top-level names of the modules that come from elsewhere.
        changed: files that were not all the time what they are now.
    """

    files: Mapping[str, str | None]
    modules: Sequence[str]
    changed: Sequence[str]


def execute_notebook(
    source: str,
    output: Path,
    parameters: Mapping[str, Any],
    *,
    root: Path,
    path: Path,
    timeout: int,
    providers: Mapping[str, Sequence[str]],
    kernels: Kernels,
    on_cell: Callable[[], object],
    environment: Mapping[str, str] | None = None,
) -> Execution:
    """Execute a notebook with papermill, in its own directory.

    Args:
        source: the notebook.
        output: where the executed notebook goes; nothing is written when no kernel started.
        parameters: values for the cell tagged ``parameters``.
        root: directory of the project.
        path: the notebook's place in it.
        timeout: seconds that one cell may take.
        providers: top-level name of a module → the distributions that bring it.
        kernels: to which the kernel is added.
        on_cell: called whenever a code cell has run to its end.
        environment: variables of :data:`VARIED` to set to something else than for the book.

    Raises:
        ImportError: when a package that executing needs is not installed.
    """
    environment = environment or {}
    start, began = time.perf_counter(), time.time()
    with workspace() as directory:
        variables = kernel_environment(root, directory) | dict(environment)
        executed, error = _run_papermill(
            source, parameters, root, path, timeout, directory, variables, kernels, on_cell
        )
        reading = _reading(directory / "record", root, path.parent, providers, began)
    if executed is not None:
        error = error or _unfinished(executed) or _without_figure(executed)
        _write_without_end(executed, output)
    if not error and not reading.files and not reading.modules:
        error = "the kernel left no record of what it read"
    if not error and reading.changed:
        error = changed_meanwhile(reading.changed)
    return Execution(
        error=error,
        seconds=round(time.perf_counter() - start, 2),
        executed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed_versions({*PACKAGES, *(name for top in reading.modules for name in providers[top])}),
        machine=machine(),
        files=reading.files,
        environment=environment,
    )


def execute_bundle(
    bundle: bytes,
    source: str,
    path: str,
    parameters: Mapping[str, Any],
    timeout: int,
    providers: Mapping[str, Sequence[str]],
    wanted: Mapping[str, str],
) -> tuple[bytes | None, dict[str, Any]]:
    """Execute a notebook that came with the files it needs as bytes, on a machine that has neither.

    Args:
        bundle: a zip archive of the project's files.
        source: the notebook.
        path: the notebook's place in the project.
        parameters: values for the cell tagged ``parameters``.
        timeout: seconds that one cell may take.
        providers: top-level name of a module → the distributions that bring it.
        wanted: package → version that the results are to be made with.

    Returns:
        The executed notebook (or ``None``, when no kernel started), and the fields of the :class:`Execution`: to send
        an object, pickle would look for its class in this package, if the machine has some version of it.

    Raises:
        OtherVersionsError: before anything runs, where other versions are installed.
        ImportError: when a package that executing needs is not installed.
    """
    if differing := differing_versions(installed_versions(PACKAGES), wanted):
        raise OtherVersionsError(", ".join(differing))
    with workspace() as directory:
        root, output = directory / "project", directory / "executed.ipynb"
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            archive.extractall(root)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        execution = execute_notebook(
            source,
            output,
            parameters,
            root=root,
            path=Path(path),
            timeout=timeout,
            providers=providers,
            kernels=Kernels(),
            on_cell=lambda: None,  # nobody looks on: the worker's caller hears of whole notebooks
        )
        return output.read_bytes() if output.is_file() else None, asdict(execution)


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary directory, removed at the end, or by the next one's user where this process is killed."""
    from filelock import FileLock

    _remove_abandoned()
    directory = Path(tempfile.gettempdir(), f"{WORKSPACE}{uuid.uuid4().hex[:8]}")
    lock = directory.with_suffix(".lock")
    # The lock is there before the directory, so that no other run takes it for abandoned.
    with FileLock(lock):
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _remove_abandoned() -> None:
    """Remove the workspaces of processes that were killed: nobody holds their locks."""
    from filelock import FileLock, Timeout

    for lock in Path(tempfile.gettempdir()).glob(f"{WORKSPACE}*.lock"):
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        except (OSError, Timeout):
            continue


def kernel_environment(root: Path, directory: Path) -> dict[str, str]:
    """The whole environment of a kernel, of which the caller's has but what :data:`KEPT` names.

    Makes the files that it points to.

    Args:
        root: directory of the project.
        directory: a directory of the kernel's own.
    """
    site, temporary, config = (directory / name for name in ("site", "tmp", "config"))
    for folder in (site, temporary, config):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(RECORDER, encoding="utf-8")
    settings = config / "matplotlibrc"
    settings.touch()  # says nothing: matplotlib's own defaults
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("LC_")}
    fixed = {
        "PYTHONPATH": os.pathsep.join([str(site), str(root / "src")]),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "IPYTHONDIR": str(config),
        "MATPLOTLIBRC": str(settings),
        "XDG_CONFIG_HOME": str(config),  # matplotlib's styles; its cache of fonts stays where it is
        "COMPANION_ROOT": str(root),
        "COMPANION_RECORD": str(directory / "record"),
    }
    return kept | fixed | ONE_THREAD | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))


def changed_meanwhile(files: Iterable[str]) -> str:
    """The error of a chapter whose files did not stay what they were."""
    return f"{', '.join(sorted(files))} changed while the chapter ran; run it again"


def in_words(error: BaseException) -> str:
    """One line for whatever was raised.

    Example:
        >>> in_words(KeyError("k")), in_words(MemoryError())
        ("KeyError: 'k'", 'MemoryError')
    """
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of these distributions, as far as installed.

    Example:
        >>> list(installed_versions(["torch", "no-such-thing"]))
        ['python', 'torch']
    """
    installed = {"python": platform.python_version()}
    for name in sorted(names):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def differing_versions(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """What is installed in another version than wanted; patches of Python and builds of a package are the same version.

    Example:
        >>> differing_versions({"python": "3.11.7", "torch": "2.9.0+cpu"}, {"python": "3.11.9", "torch": "2.9.0"})
        []
        >>> differing_versions({"torch": "2.8.0"}, {"torch": "2.9.0"})
        ['torch 2.8.0 (here 2.9.0)']
    """

    def release(name: str, version: str) -> str:
        """A Python version without its patch, any other without its build."""
        return version.rpartition(".")[0] if name == "python" else version.partition("+")[0]

    both = [name for name in wanted if name in found]
    differing = [name for name in both if release(name, found[name]) != release(name, wanted[name])]
    return [f"{name} {found[name]} (here {wanted[name]})" for name in differing]


def available_cores() -> int:
    """How many cores this process may use.

    Example:
        >>> available_cores() >= 1
        True
    """
    # macOS does not say which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Processor, cores and system.

    Example:
        >>> machine().endswith(platform.system())
        True
    """
    return f"{_processor()}, {available_cores()} cores, {platform.system()}"


def _run_papermill(
    source: str,
    parameters: Mapping[str, Any],
    root: Path,
    path: Path,
    timeout: int,
    directory: Path,
    variables: Mapping[str, str],
    kernels: Kernels,
    on_cell: Callable[[], object],
) -> tuple[Any, str | None]:
    """Execute; returns the notebook as far as it came (``None`` if nowhere), and what went wrong in words."""
    import nbformat
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    given, executed, error = directory / "given.ipynb", directory / "executed.ipynb", None
    # The event loop is the one that nbclient makes for this thread and leaves open.
    with closing(ensure_event_loop()):
        try:
            notebook = nbformat.reads(source, as_version=4)
            notebook.cells.append(nbformat.v4.new_code_cell(AT_THE_END, id=END))
            nbformat.write(notebook, given)
            papermill.execute_notebook(
                str(given),
                str(executed),
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=timeout,
                # papermill's own cwd changes the whole process's directory, which the other threads share.
                resources={"metadata": {"path": str(root / path.parent)}},
                kernel_manager_class=_kernel_manager(variables, kernels),
                config=_channel(directory),
                on_cell_executed=lambda **which: on_cell(),
            )
        except papermill.PapermillExecutionError as problem:
            error = f"cell [{problem.exec_count}] raised {problem.ename}: {problem.evalue}"
        except CellTimeoutError:
            error = f"a cell took longer than {timeout} s (metadata companion.timeout)"
        except DeadKernelError:
            error = "the kernel died (out of memory, killed, or ended by a cell)"
        except Exception as problem:  # what a notebook makes papermill raise is the notebook's failure
            error = f"it cannot be executed: {in_words(problem)}"
    return nbformat.read(executed, as_version=4) if executed.is_file() else None, error


def _channel(directory: Path) -> Any:
    """How a kernel is reached: by sockets in a directory of its own.

    The default path is shared: a kernel would answer its neighbour's requests.
    """
    import zmq
    from traitlets.config import Config

    ip = f"{directory}/k"
    if len(f"{ip}-1".encode()) > zmq.IPC_PATH_MAX_LEN:
        raise OSError(f"the path of temporary files is too long for sockets: set TMPDIR to a shorter one than {ip!r}")
    return Config(
        {"AsyncKernelManager": {"transport": "ipc", "ip": ip, "connection_file": str(directory / "kernel.json")}}
    )


def _kernel_manager(environment: Mapping[str, str], kernels: Kernels) -> type:
    """A class of managers whose kernels are this interpreter with this environment alone."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
        metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}},
    )

    class Manager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
            return await super()._async_pre_start_kernel(env=dict(environment), **options)

        async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
            await super()._async_launch_kernel(kernel_cmd, **kw)
            kernels.add(self)

    return Manager


def _unfinished(executed: Any) -> str | None:
    """Which cell keeps a notebook from having run as a whole, in order, in one kernel."""
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    for i, cell in enumerate(code, 1):
        if cell.execution_count != i:
            what = "the end was not reached" if cell.id == END else f"cell {cell.id!r} was not executed in its turn"
            return f"{what}: a cell before it ended the chapter or its kernel (sys.exit, quit), or is to be skipped"
    return None


def _without_figure(executed: Any) -> str | None:
    """Which cell announces a figure, by a text for those who do not see it, and shows none."""
    for cell in executed.cells:
        announced = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        kinds = [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
        if cell.cell_type == "code" and announced and not any(kind.startswith("image/") for kind in kinds):
            return f"cell {cell.id!r} has an alternative text (metadata mystnb.image.alt), but shows no figure"
    return None


def _write_without_end(executed: Any, output: Path) -> None:
    import nbformat

    executed.cells = [cell for cell in executed.cells if cell.get("id") != END]
    nbformat.write(executed, output)


def _reading(
    record: Path, root: Path, directory: Path, providers: Mapping[str, Sequence[str]], began: float
) -> _Reading:
    """What a kernel read, and whether it still is what it was; the files that the chapter made itself are not inputs.

    Args:
        record: what the recorder wrote.
        root: directory of the project.
        directory: the notebook's, relative to the root.
        providers: as in :func:`execute_notebook`.
        began: when the execution did.
    """
    lines = record.read_text(encoding="utf-8").split("\n")[:-1] if record.is_file() else []
    files: dict[str, str | None] = {}
    modules, asked, made, changed = set(), set(), set(), set()
    for kind, name, *digest in map(json.loads, lines):
        if kind in {"import", "own import"}:
            modules.add(name)
            asked |= {name} if kind == "own import" else set()
        elif kind == "write":
            made.add(name)
        elif name not in made and files.setdefault(name, digest[0]) != digest[0]:
            changed.add(name)
    ended = time.time()
    changed |= {name for name, digest in files.items() if _differs(root / name, digest, began, ended)}
    places = (root / directory, root / "src")
    ours = {name for name in modules if any(_module(place, name.partition(".")[0]) for place in places)}
    tops = {name.partition(".")[0] for name in modules - ours}
    nowhere = {name for name in asked - ours if name.partition(".")[0] not in {*providers, *sys.stdlib_module_names}}
    for path in (path for name in ours | nowhere for place in places for path in _absent_module(place, name)):
        files.setdefault(path.relative_to(root).as_posix(), None)
    return _Reading(dict(sorted(files.items())), sorted(tops & providers.keys()), sorted(changed))


def _differs(path: Path, digest: str | None, began: float, ended: float) -> bool:
    """Whether a file is not what was read, or may have been something else in between."""
    if not path.is_file():
        return digest is not None
    state = path.stat()
    touched = any(began < moment <= ended for moment in (state.st_mtime, state.st_ctime))
    return touched or hashlib.sha256(path.read_bytes()).hexdigest() != digest


def _module(place: Path, name: str) -> bool:
    """Whether a directory holds a module or a package."""
    return (place / name).is_dir() or (place / f"{name}.py").is_file()


def _absent_module(place: Path, name: str) -> Iterator[Path]:
    """The files that an import takes first, and that are not there: made later, they would be imported."""
    path = place.joinpath(*name.split("."))
    if path.parent.is_dir():
        yield from (file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if not file.exists())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
