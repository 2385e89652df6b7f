"""Executing chapters on an existing Dask cluster: no shared file system, and nothing of this project installed there.

Sources, data and book travel to the workers as one archive, executed notebooks come back as bytes. The workers need
Dask and the packages of ``constraints.txt``. What a dead worker was executing, Dask gives to another one.
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
from companion.execution import EngineError, providers

if TYPE_CHECKING:
    from distributed import Client, Future

# Notebooks at a time on their way. Each holds a lock, and macOS allows a process 256 open files.
IN_FLIGHT = 200
CONNECT_SECONDS = 20
FOLDERS = ("src", "data", "book")  # what travels
LOST = "lost the Dask scheduler; what was finished is kept: run again to go on"


class ClusterError(EngineError):
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
        self._versions = notebooks.installed_versions(notebooks.PACKAGES)
        # A task, not scattered data: the scheduler makes it anew when the only worker that held it dies.
        self._bundle = client.submit(bytes, bundle(chapters), key=f"bundle-{uuid.uuid4().hex}")
        self._spread_bundle()

    def execute(self, chapter: Chapter, parameters: Mapping[str, Any], output: Path) -> notebooks.Execution:
        """Execute the notebook on a worker.

        Raises:
            ClusterError: the scheduler is gone, or a worker has no papermill or other versions.
        """
        content, execution = self._result(chapter, dict(parameters))
        here = notebooks.installed_versions(execution.versions)
        if differing := notebooks.differing_versions(execution.versions, here):
            raise _other_versions(", ".join(differing))
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
            nbformat.writes(chapter.notebook),
            chapter.path.as_posix(),
            parameters,
            chapter.timeout,
            providers(),
            self._versions,
            key=f"{chapter.name}-{uuid.uuid4().hex}",
        )

    def _result(self, chapter: Chapter, parameters: dict[str, Any]) -> tuple[bytes | None, notebooks.Execution]:
        from distributed import CancelledError, KilledWorker

        try:
            content, noted = self._submit(chapter, parameters).result()
        except KilledWorker as error:
            died = f"its worker died (tries: {error.allowed_failures + 1}; out of memory?)"
            return None, notebooks.Execution(died, 0.0, "", {}, "")
        except notebooks.OtherVersionsError as error:
            raise _other_versions(str(error)) from error
        except ImportError as error:
            raise ClusterError(
                f"a worker cannot execute notebooks: {error}; install the packages of constraints.txt there"
            ) from error
        except CancelledError as error:
            raise ClusterError(LOST) from error
        except Exception as error:
            if self._client.status != "running":
                raise ClusterError(LOST) from error
            return None, notebooks.Execution(notebooks.in_words(error), 0.0, "", {}, "")
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
        client = Client(address, timeout=CONNECT_SECONDS)
    except Exception as error:  # each protocol has its own way of saying no
        said = notebooks.in_words(error)
        raise ProjectError(
            f"no Dask scheduler answers at {address}: {said}; an address is as tcp://host:8786"
        ) from error
    cloudpickle.register_pickle_by_value(notebooks)
    with client:
        yield DaskCluster(client, chapters)


def bundle(chapters: Sequence[Chapter]) -> bytes:
    """A zip archive of what chapters may read, at the places in the project: the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for root in {chapter.root for chapter in chapters}:
            for path in sorted(_travelling(root)):
                archive.writestr(zipfile.ZipInfo(path.as_posix()), (root / path).read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _travelling(root: Path) -> Iterator[Path]:
    """The files of the folders that travel, without what tools leave there, relative to the root."""
    for path in (path.relative_to(root) for folder in FOLDERS for path in (root / folder).rglob("*")):
        if (root / path).is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts):
            yield path


def _other_versions(differing: str) -> ClusterError:
    return ClusterError(f"a worker has {differing}: install the same versions there, those of constraints.txt")


async def _greet(address: str) -> None:
    """Connect and leave: a client that cannot connect would go on trying while it is thrown away."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()
