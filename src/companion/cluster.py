"""Executing chapters on an existing Dask cluster: no shared file system, and nothing of this project installed there.

The notebooks and the files they need travel to the workers as one archive, executed notebooks come back as bytes. The
workers need Dask and the packages of ``constraints.txt``. What a dead worker was executing, Dask gives to another one.
"""

from __future__ import annotations

import asyncio
import io
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from companion import notebooks
from companion.chapters import Chapter, ProjectError

if TYPE_CHECKING:
    from distributed import Client, Future

# Notebooks at a time on their way. Each holds a lock, and macOS allows a process 256 open files.
IN_FLIGHT = 200
CONNECT_SECONDS = 20
LOST = "lost the Dask scheduler; what was finished is kept: run again to go on"


class ClusterError(Exception):
    """A cluster that stopped being of use in mid-run; what it finished before is kept."""


class DaskCluster:
    """A Dask cluster as the place where chapters are executed.

    Args:
        client: connected to the scheduler.
        chapters: the chapters to come.
    """

    capacity = IN_FLIGHT

    def __init__(self, client: Client, chapters: Sequence[Chapter]) -> None:
        self._client = client
        for chapter in chapters:
            _ = chapter.input_record  # before the files are read: if they change in between, the copies are stale
        self._versions = notebooks.installed_versions()
        # A task, not scattered data: the scheduler makes it anew when the only worker that held it dies.
        self._bundle = client.submit(bytes, bundle(chapters), key=f"bundle-{uuid.uuid4().hex}")
        self._spread_bundle()

    def execute(self, chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> notebooks.Execution:
        """Execute the notebook on a worker.

        Raises:
            ClusterError: the scheduler is gone, or a worker has no papermill or other versions.
        """
        content, execution = self._result(self._submit(chapter, dict(parameters)))
        if content is not None:
            output.write_bytes(content)
        return execution

    def cancel(self) -> None:
        """Forget what is on its way; workers end the notebook that they are executing, and take no other."""
        self._client.close()

    def _spread_bundle(self) -> None:
        """Copy the archive to all workers: Dask would queue tasks at the one that has it, while others are idle."""
        from distributed import CancelledError

        try:
            if self._client.nthreads():  # without workers a copy would be waited for, though none may be needed
                self._client.replicate(self._bundle)
        except (CancelledError, OSError) as error:
            raise ClusterError(LOST) from error

    def _submit(self, chapter: Chapter, parameters: dict[str, Any]) -> Future:
        execute = notebooks.execute_bundle
        return self._client.submit(
            # Dask sends a lambda by value; a named function by its name, which no worker knows.
            lambda *arguments: execute(*arguments),
            self._bundle,
            chapter.path.as_posix(),
            parameters,
            chapter.timeout,
            self._versions,
            key=f"{chapter.name}-{uuid.uuid4().hex}",
        )

    def _result(self, future: Future) -> tuple[bytes | None, notebooks.Execution]:
        from distributed import CancelledError, KilledWorker

        try:
            content, noted = future.result()
        except KilledWorker as error:
            died = f"its worker died (tries: {error.allowed_failures + 1}; out of memory?)"
            return None, notebooks.Execution(died, 0.0, "", {}, "")
        except notebooks.OtherVersionsError as error:
            raise ClusterError(
                f"a worker has {error}: install the same versions there, those of constraints.txt"
            ) from error
        except CancelledError as error:
            raise ClusterError(LOST) from error
        except Exception as error:
            raise ClusterError(
                f"a worker cannot execute notebooks: {error}; install the packages of constraints.txt there"
            ) from error
        return content, notebooks.Execution(**noted)


@contextmanager
def connect(address: str, chapters: Sequence[Chapter]) -> Iterator[DaskCluster]:
    """The cluster whose scheduler listens at an address, for as long as the context lasts.

    Args:
        address: of the scheduler, as ``tcp://host:8786``.
        chapters: the chapters to execute there.

    Raises:
        ProjectError: Dask is not installed, or no scheduler answers.
    """
    try:
        import cloudpickle
        from distributed import Client
    except ImportError as error:
        raise ProjectError("--scheduler needs Dask: pip install -c constraints.txt -e '.[cluster]'") from error
    try:
        asyncio.run(_greet(address))
    except (OSError, ValueError) as error:
        raise ProjectError(f"no Dask scheduler answers at {address}: {error}") from error
    cloudpickle.register_pickle_by_value(notebooks)
    with Client(address, timeout=CONNECT_SECONDS) as client:
        yield DaskCluster(client, chapters)


def bundle(chapters: Sequence[Chapter]) -> bytes:
    """A zip archive of the chapters and the files they depend on, at their places in the project."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for root, path in sorted({(chapter.root, path) for chapter in chapters for path in chapter.input_files()}):
            archive.write(root / path, path)
        for path, notebook in {chapter.path: chapter.notebook for chapter in chapters}.items():
            archive.writestr(path.as_posix(), nbformat.writes(notebook))
    return buffer.getvalue()


async def _greet(address: str) -> None:
    """Connect and leave: a client that cannot connect would go on trying while it is thrown away."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()
