"""Execution on a Dask cluster of several processes, with workers that die."""

from __future__ import annotations

import importlib.metadata
import io
import os
import signal
import socket
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import nbformat
import pytest
from distributed import CancelledError, LocalCluster

from companion.chapters import choose_chapters
from companion.cluster import ClusterError, DaskCluster, bundle, connect
from companion.commands import main
from companion.execution import Outcome, run_chapters
from companion.notebooks import Execution, OtherVersionsError, in_words

PATIENCE = 240  # seconds for a worker or a kernel to start on a machine that is busy with other things
# The notebook says who executes it, and goes on when the test hangs up.
CALL = """
import os, socket, toy.first
line = socket.create_connection(("127.0.0.1", {port}), timeout={patience})
line.sendall(f"{{k}} {{os.getppid()}}".encode())
line.recv(1)
print(toy.first.value(), toy.first.__file__)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace, server: socket.socket) -> Path:
    code = CALL.format(port=server.getsockname()[1], patience=PATIENCE)
    return tiny.project(tmp_path_factory.mktemp("cluster"), {"one": {"code": [code]}})


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local:
        yield local


def run_on(address: str, root: Path, *values: int) -> list[Outcome]:
    chapters = choose_chapters(root, ["one"]) * len(values)
    with connect(address, chapters) as engine:
        return list(run_chapters(chapters, [{"k": k} for k in values], engine=engine))


def answer(server: socket.socket, *, kill: bool = False, only: int | None = None) -> int:
    """Take the next call of a notebook and hang up; before that, kill its worker if asked to. Returns its k."""
    line, _ = server.accept()
    with line:
        k, worker = map(int, line.recv(100).split())
        if kill and only in (None, k):
            os.kill(worker, signal.SIGKILL)
    return k


def printed(outcome: Outcome) -> list[str]:
    cells = nbformat.read(outcome.copy, as_version=4).cells
    (text,) = (output.text for cell in cells for output in cell.get("outputs", []))
    return text.split()


def test_a_worker_that_dies_costs_only_its_task_and_what_is_finished_is_not_redone(
    cluster: LocalCluster, root: Path, server: socket.socket
) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_on, cluster.scheduler_address, root, 3, 4, 5)
        calls = []
        while len(calls) < 4:
            calls.append(answer(server, kill=3 not in calls, only=3))
        outcomes = running.result(PATIENCE)
    assert Counter(calls) == {3: 2, 4: 1, 5: 1}
    assert {outcome.parameters["k"]: (outcome.executed, outcome.error) for outcome in outcomes} == dict.fromkeys(
        [3, 4, 5], (True, None)
    )
    again = run_on(cluster.scheduler_address, root, 5, 4, 3)
    assert [outcome.executed for outcome in again] == [False] * 3


def test_workers_execute_what_travelled_and_need_nothing_of_the_project(
    cluster: LocalCluster, root: Path, server: socket.socket
) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_on, cluster.scheduler_address, root, 6)
        answer(server)
        (outcome,) = running.result(PATIENCE)
    value, file = printed(outcome)
    assert value == "1"
    assert "/companion-kernel-" in file
    assert not Path(file).exists()
    assert set(outcome.copy.parent.iterdir()) == {outcome.copy, outcome.copy.with_name(".one.lock")}
    with connect(cluster.scheduler_address, []) as engine:
        imported = engine._client.run(lambda: [name for name in sys.modules if name.startswith("companion")])
    assert list(imported.values()) == [[], []]


def test_every_worker_has_the_archive_before_tasks_are_placed(cluster: LocalCluster, root: Path) -> None:
    with connect(cluster.scheduler_address, choose_chapters(root, ["one"])) as engine:
        (holders,) = engine._client.who_has(engine._bundle).values()
        assert set(holders) == set(engine._client.nthreads())
        assert len(holders) == 2


def test_what_is_finished_needs_no_worker(root: Path, server: socket.socket) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: list(run_chapters(choose_chapters(root, ["one"]), [{"k": 9}])))
        answer(server)
        assert [outcome.executed for outcome in running.result(PATIENCE)] == [True]
    with LocalCluster(n_workers=0, dashboard_address=":0") as local:
        outcomes = run_on(local.scheduler_address, root, 9)
    assert [outcome.executed for outcome in outcomes] == [False]


@pytest.mark.parametrize("failure", [CancelledError(), OSError("closed")])
def test_a_scheduler_that_goes_away_at_the_start_is_one_clear_error(root: Path, failure: Exception) -> None:
    client = Mock(**{"replicate.side_effect": failure})
    with pytest.raises(ClusterError, match="lost the Dask scheduler"):
        DaskCluster(client, choose_chapters(root, ["one"]))


def test_a_notebook_whose_worker_dies_every_time_has_failed(
    cluster: LocalCluster, root: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_on, cluster.scheduler_address, root, 7)
        answer(server, kill=True)
        (outcome,) = running.result(PATIENCE)
    assert outcome.error == "its worker died (tries: 1; out of memory?)"
    assert outcome.copy.name == "one.failed.ipynb"


def test_workers_with_other_versions_are_named(
    cluster: LocalCluster, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "papermill" else installed(name))
    monkeypatch.chdir(root)
    assert main(["run", "one", "--scheduler", cluster.scheduler_address]) == 1
    said = f"a worker has papermill {installed('papermill')} (here 1.0): install the same versions there"
    assert said in capsys.readouterr().err
    # What another process raised is of the very class that this one knows, though it came by value.
    with connect(cluster.scheduler_address, []) as engine, pytest.raises(OtherVersionsError, match="papermill"):
        engine._submit(choose_chapters(root, ["one"])[0], {}).result()


def test_a_scheduler_that_goes_away_is_one_clear_error(root: Path, server: socket.socket) -> None:
    with LocalCluster(n_workers=1, dashboard_address=":0") as local, ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_on, local.scheduler_address, root, 8)
        line, _ = server.accept()
        local.close()
        with line, pytest.raises(ClusterError, match="lost the Dask scheduler; what was finished is kept"):
            running.result(PATIENCE)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:9",
        "nonsense",
        "gopher://127.0.0.1:9",
        "tls://127.0.0.1:9",
        "ucx://127.0.0.1:9",
        "tcp://:",
        "a b",
    ],
)
def test_a_scheduler_that_does_not_answer_is_one_clear_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("companion.cluster.CONNECT_SECONDS", 1)
    Path("sweep.yml").write_text("one: {k: [3]}")
    assert main(["sweep", "sweep.yml", "--scheduler", address]) == 2
    assert capsys.readouterr().err.startswith(f"companion: no Dask scheduler answers at {address}: ")


def test_without_dask_the_remedy_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["run", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "needs Dask: pip install -c constraints.txt -e '.[cluster]'" in capsys.readouterr().err


def test_a_bundle_holds_what_a_chapter_may_read_and_the_same_files_give_the_same_bytes(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    root = tiny.project(tmp_path, {"one": {"code": ["1"]}})
    made = {"data/a.csv": "1", "book/helper.py": "1", "data/.DS_Store": "", "src/toy/__pycache__/first.pyc": ""}
    for name, text in made.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    first = bundle(choose_chapters(root, ["one"]))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = archive.namelist()
    sources = [f"src/toy/{name}.py" for name in ("__init__", "first", "second", "third")]
    assert names == ["book/helper.py", "book/intro.md", "book/one.ipynb", "data/a.csv", *sources]
    os.utime(root / "data/a.csv", (1e9, 1e9))
    assert bundle(choose_chapters(root, ["one", "one"])) == first


class LostTask:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "No space left on device"), TypeError("odd"), KeyError(1)]
)
def test_what_goes_wrong_with_one_notebook_is_its_own_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A notebook whose task raises, and one whose task is fine."""
    client = Mock(status="running")
    engine = DaskCluster(client, choose_chapters(root, ["one"]))
    fine = Execution(None, 1.0, "", {}, "")
    good = (nbformat.writes(choose_chapters(root, ["one"])[0].notebook).encode(), asdict(fine))
    monkeypatch.setattr(
        engine, "_submit", lambda chapter, values: LostTask(error) if values == {"k": 70} else Mock(result=lambda: good)
    )
    outcomes = run_chapters(choose_chapters(root, ["one"]) * 2, [{"k": 70}, {"k": 71}], engine=engine)
    said = {outcome.parameters["k"]: outcome.error for outcome in outcomes}
    assert said == {70: in_words(error), 71: None}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'papermill'"), "a worker cannot execute notebooks: No module .* install"),
        (OtherVersionsError("torch 1.0 (here 2.0)"), r"a worker has torch 1.0 \(here 2.0\): install the same versions"),
    ],
)
def test_what_no_notebook_could_survive_ends_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    engine = DaskCluster(Mock(status="running"), choose_chapters(root, ["one"]))
    monkeypatch.setattr(engine, "_submit", lambda *arguments: LostTask(error))
    with pytest.raises(ClusterError, match=message):
        list(run_chapters(choose_chapters(root, ["one"]), [{"k": 72}], engine=engine))


def test_a_module_of_a_chapter_in_another_version_is_the_cluster_s(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = asdict(Execution(None, 1.0, "", {"pandas": "0.1"}, ""))
    engine = DaskCluster(Mock(status="running"), choose_chapters(root, ["one"]))
    monkeypatch.setattr(engine, "_submit", lambda *arguments: Mock(result=lambda: (None, noted)))
    with pytest.raises(ClusterError, match=r"a worker has pandas 0\.1 \(here"):
        list(run_chapters(choose_chapters(root, ["one"]), [{"k": 73}], engine=engine))
