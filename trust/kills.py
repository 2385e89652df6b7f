"""Kills at random moments of the runner, of a chapter's kernel and of a Dask worker, while a small book is executed.

After each kill nothing good is lost, the other chapters went on (unless the runner itself was killed), the next run
completes with the same ledger, and then no process, no temporary folder and no half-written file is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from companion.chapters import choose_chapters
from companion.execution import state_of
from trust import minibook
from trust.minibook import PATIENCE
from trust.pieces import Found, Piece, Scope

NAME = "kills"
MINUTES = 12
PARALLEL = False
TESTED = ("src/companion", "trust/kills.py", "trust/minibook.py")
KILLS = {
    ("runner", "SIGKILL"): 10,
    ("runner", "SIGINT"): 10,
    ("runner", "SIGTERM"): 10,
    ("kernel", "SIGKILL"): 12,
    ("kernel", "SIGTERM"): 6,
    ("worker", "SIGKILL"): 12,
}
SAMPLE = (("runner", "SIGKILL"), ("kernel", "SIGKILL"))
EDITED = ("left", "right")
CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def pieces(scope: Scope) -> Iterator[Piece]:
    """A piece a kill."""
    counts = dict.fromkeys(SAMPLE, 1) if scope.sample else KILLS
    for (target, name), count in counts.items():
        for i in range(count):
            yield Piece(
                f"{target} {name} {i}",
                lambda target=target, name=name, i=i: killed(target, name, random.Random(f"{target} {name} {i}")),
            )


def summary(outcomes: Mapping[str, Found]) -> Found:
    """How many kills met what, and how many ended something that was at work."""
    kinds = Counter(" ".join(name.split()[:2]) for name in outcomes)
    return {
        "kills": len(outcomes),
        "in mid-run": sum(found.get("in mid-run", False) for found in outcomes.values()),
        **kinds,
    }


def killed(target: str, name: str, draw: random.Random) -> Found:
    """One kill, and what is wrong after it."""
    with minibook.minibook() as root, cluster(root) if target == "worker" else nullcontext("") as address:
        before = minibook.copies(root)
        minibook.edit(root, *EDITED)
        where = ["--scheduler", address] if address else ["--workers", "2"]
        run = subprocess.Popen(
            minibook.command(["run", *where]),
            cwd=root,
            env=minibook.environment(root),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts its background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            struck = _strike(root, run, target, getattr(signal, name), draw)
            _, said = run.communicate(timeout=PATIENCE)
        finally:
            run.kill()
        problems = [*_after(root, run.returncode, said, target, before)]
        problems += _next(root)
    return {"in mid-run": struck, "status": run.returncode, "problems": problems}


def _strike(root: Path, run: subprocess.Popen[str], target: str, by: signal.Signals, draw: random.Random) -> bool:
    """Kill at a random moment; returns whether what was to be killed was still there."""
    if target == "runner":
        # The run of all three chapters took so long; this one executes two.
        time.sleep(draw.uniform(0.0, 0.9 * minibook.run_seconds))
        running = run.poll() is None
        if running:
            run.send_signal(by)
        return running
    _wait(lambda: bool(kernels(root)) or run.poll() is not None)
    time.sleep(draw.uniform(0.0, 1.5))
    for process in draw.sample(found := kernels(root), len(found)):
        with suppress(ProcessLookupError, OSError):
            os.kill(_parent(process) if target == "worker" else process, by)
            return True
    return False


def _after(root: Path, status: int, said: str, target: str, before: Mapping[str, bytes]) -> Iterator[str]:
    """What is wrong once the run has ended."""
    if not _wait(lambda: not kernels(root)):
        yield "kernels outlive their runner"
    yield from (f"the good copy of {name} is lost" for name in minibook.lost(root, before))
    if minibook.copies(root)["kept"] != before["kept"]:
        yield "a chapter that was not to be executed has another copy"
    if "Traceback" in said:
        yield f"a traceback: {said[-300:]}"
    states = Counter(state_of(chapter) for chapter in choose_chapters(root, EDITED))
    if target == "worker" and (status, states["fresh"]) != (0, 2):
        yield f"a worker that died cost more than its task: {dict(states)}, status {status}, {said[-300:]}"
    if target == "kernel" and states["fresh"] < 1:
        yield f"a kernel that died took its neighbour with it: {dict(states)}"
    if target == "kernel" and (status != 0) != (states["fresh"] < 2):
        yield f"status {status} for {dict(states)}"


def _next(root: Path) -> Iterator[str]:
    """What is wrong with the run after."""
    done = minibook.run(root, ["run", "--workers", "2"])
    if done.returncode:
        yield f"the next run fails: {done.stderr[-300:]}"
    if json.loads(minibook.run(root, ["claims", "--json"]).stdout) != json.loads((root / "ledger.json").read_text()):
        yield "the next run has another ledger"
    if left := [path for path in (root.parent / "tmp").iterdir() if path.name.startswith("companion")]:
        yield f"temporary files are left: {', '.join(path.name for path in left)}"
    if left := [
        path for path in (root / "_build").rglob("*") if path.name.endswith((".part", ".part.ipynb", ".failed.ipynb"))
    ]:
        yield f"half-written files are left: {', '.join(path.name for path in left)}"
    if kernels(root):
        yield "kernels are left"


@contextmanager
def cluster(root: Path) -> Iterator[str]:
    """A Dask cluster of two workers, whose temporary files lie beside the book; yields its address."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        cwd=root.parent,
        env=minibook.environment(root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def kernels(root: Path) -> list[int]:
    """The processes whose environment says that they execute a chapter of this book, here or on its cluster."""
    mark = f"COMPANION_ROOT={root.parent}/".encode()
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if mark in _environment(path)]


def _environment(process: Path) -> bytes:
    """A process's environment; empty for those that have ended or are another's."""
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _wait(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
