"""One notebook in a kernel of its own: what runs wherever a chapter is executed, here or on a worker of a cluster.

A worker gets these functions by value and has this package nowhere on its path. So the module imports the standard
library alone at its top, and what else it needs where it needs it.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "papermill", "jupyter-book")


class OtherVersionsError(Exception):
    """This machine has other versions of packages than the results are to be made with; the message lists them."""


@dataclass(frozen=True)
class Execution:
    """How an execution went.

    Args:
        error: why the notebook did not run to its end, in words; ``None`` when it did.
        seconds: how long it took.
        executed_at: when, as an ISO date.
        versions: package → version.
        machine: processor, cores and system.
    """

    error: str | None
    seconds: float
    executed_at: str
    versions: Mapping[str, str]
    machine: str


def execute_notebook(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any],
    *,
    timeout: int,
    environment: Mapping[str, str],
    managers: Any,
) -> Execution:
    """Execute a notebook with papermill, in its own directory.

    Args:
        notebook: what to execute.
        output: where the executed notebook goes; nothing is written when no kernel started.
        parameters: values for the cell tagged ``parameters``.
        timeout: seconds that one cell may take.
        environment: variables of the kernel beside those of this process.
        managers: a set to which the manager of the kernel is added, for a caller who may want to end it.
    """
    start = time.perf_counter()
    error = _run_papermill(notebook, output, parameters, timeout, _kernel_manager(environment, managers))
    return Execution(
        error=error,
        seconds=round(time.perf_counter() - start, 2),
        executed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed_versions(),
        machine=f"{_processor()}, {available_cores()} cores, {platform.system()}",
    )


def execute_bundle(
    bundle: bytes, path: str, parameters: Mapping[str, Any], timeout: int, wanted: Mapping[str, str]
) -> tuple[bytes | None, dict[str, Any]]:
    """Execute a notebook that came as bytes with the files it needs, on a machine that has neither.

    Args:
        bundle: a zip archive of the project's files.
        path: the notebook's place in it.
        parameters: values for the cell tagged ``parameters``.
        timeout: seconds that one cell may take.
        wanted: package → version that the results are to be made with.

    Returns:
        The executed notebook (or ``None``, when no kernel started), and the fields of the :class:`Execution`: to send
        an object, pickle would look for its class in this package, if the machine has some version of it.

    Raises:
        OtherVersionsError: before anything runs, where other versions are installed.
    """
    if differing := differing_versions(installed_versions(), wanted):
        raise OtherVersionsError(", ".join(differing))
    with tempfile.TemporaryDirectory(prefix="bundle-") as directory:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            archive.extractall(directory)
        output = Path(directory, "executed.ipynb")
        # How many threads a kernel starts is up to the worker's own variables; Dask sets them to one.
        environment = {"PYTHONPATH": search_path(Path(directory))}
        execution = execute_notebook(
            Path(directory, path), output, parameters, timeout=timeout, environment=environment, managers=set()
        )
        return output.read_bytes() if output.is_file() else None, asdict(execution)


def search_path(root: Path) -> str:
    """``PYTHONPATH`` with a project's ``src`` first.

    A chapter must import the very files that its digest covers, wherever the package is installed from.
    """
    return os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on, as far as installed.

    Example:
        >>> "python" in installed_versions()
        True
    """
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **installed}


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


def _run_papermill(
    notebook: Path, output: Path, parameters: Mapping[str, Any], timeout: int, manager: type
) -> str | None:
    """Execute into ``output``; returns what went wrong in words."""
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    # The default ipc path is shared: without a directory of its own a kernel answers its neighbour's requests.
    # The event loop is the one that nbclient makes for this thread and leaves open.
    with tempfile.TemporaryDirectory(prefix="kernel-") as directory, closing(ensure_event_loop()):
        channel = {"transport": "ipc", "ip": f"{directory}/k"}
        try:
            papermill.execute_notebook(
                str(notebook),
                str(output),
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=timeout,
                # papermill's own cwd changes the whole process's directory, which the other threads share.
                resources={"metadata": {"path": str(notebook.parent)}},
                kernel_manager_class=manager,
                config=Config({"AsyncKernelManager": channel}),
            )
        except papermill.PapermillExecutionError as error:
            return f"cell [{error.exec_count}] raised {error.ename}: {error.evalue}"
        except CellTimeoutError:
            return f"a cell took longer than {timeout} s (metadata companion.timeout)"
        except DeadKernelError:
            return "the kernel died (out of memory, or killed)"
        except RuntimeError as error:
            return f"the kernel failed: {error}"
    return None


def _kernel_manager(environment: Mapping[str, str], managers: Any) -> type:
    """A class of kernel managers whose kernels have these variables, and whose instances add themselves to a set."""
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
            managers.add(self)
            return await super()._async_pre_start_kernel(env={**os.environ, **environment}, **options)

    return Manager


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
