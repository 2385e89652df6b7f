"""Paired measurements: this library against what a user would otherwise pick, in one process and on one thread.

A benchmark is a module `benchmarks.NAME`, run from the project's root with `python -m benchmarks.NAME`: it calls
`one_thread()` first, `compare()` for each case and `report()` at the end, which prints the table and writes
`benchmarks/results/NAME.json` for the book's appendix.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from companion.tables import format_duration

# Where an environment sets them they force the kernels of older processors; unset together, never one alone.
FORCED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

RESULTS = Path(__file__).parent / "results"
OURS = "ours"
# Optional, see the extras `bench` and `compiled`.
_OPTIONAL = ("jax", "numba")

# A sample shorter than this would measure the clock and the interpreter's caches rather than the work.
_SHORTEST_SAMPLE = 0.02
_MOST_REPETITIONS = 500


@dataclass(frozen=True)
class Comparison:
    """What one case showed.

    Attributes:
        case: the problem's size in words.
        facts: numbers that belong to the case (P, a bound, an error), by name.
        seconds: median time of one call, by contestant; `OURS` first.
        ratios: median over rounds of (peer's time / our time in the same round), by peer.
        spread: the smallest and the largest of those ratios, by peer.
        goal: the ratio over the best peer that was aimed at, if there was one.
    """

    case: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    spread: dict[str, tuple[float, float]]
    goal: float | None = None
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        """The fastest of the peers."""
        return min(self.ratios, key=self.ratios.__getitem__)

    @property
    def met(self) -> bool | None:
        """Whether the ratio over the best peer reaches the goal; None without a goal."""
        return None if self.goal is None else self.ratios[self.best_peer] >= self.goal


def one_thread() -> None:
    """Hold torch and every BLAS of this process to one thread, for all contestants alike.

    OpenBLAS reads its environment when it is loaded: where that forces a kernel the process starts anew without.
    """
    if any(name in os.environ for name in FORCED):
        kept = {name: value for name, value in os.environ.items() if name not in FORCED}
        os.execve(sys.executable, sys.orig_argv, kept)
    torch.set_num_threads(1)
    threadpool_limits(1)


def compare(
    case: str,
    ours: Callable[[], object],
    peers: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    goal: float | None = None,
    facts: Mapping[str, float] | None = None,
) -> Comparison:
    """Time `ours` and its peers in turn, `rounds` times, and take medians.

    Time is the CPU time of this process. On a machine that others use too, a wall clock would favour the shorter
    side, which fits between two interruptions; on an idle machine and one thread both clocks agree. The order
    is reversed in every other round, so that a slow drift of the machine's speed cancels.

    Args:
        case: the problem's size in words.
        ours: runs this library once.
        peers: run the same work by other means, by name.
        rounds: number of paired samples, at least 5.
        goal: the ratio over the best peer that is aimed at.
        facts: numbers to show beside the times.

    Raises:
        ValueError: for fewer than 5 rounds.
    """
    if rounds < 5:
        raise ValueError(f"rounds: a median needs at least 5 paired samples, got {rounds}")
    contestants = {OURS: ours, **peers}
    repetitions = {name: _repetitions(run) for name, run in contestants.items()}
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in list(contestants)[:: 1 if turn % 2 == 0 else -1]:
            samples[name].append(seconds(contestants[name], repetitions[name]))
    ratios = {peer: [theirs / own for theirs, own in zip(samples[peer], samples[OURS])] for peer in peers}
    result = Comparison(
        case,
        {name: statistics.median(values) for name, values in samples.items()},
        {peer: statistics.median(values) for peer, values in ratios.items()},
        {peer: (min(values), max(values)) for peer, values in ratios.items()},
        goal,
        dict(facts or {}),
    )
    print(_line(result), flush=True)
    return result


def _repetitions(run: Callable[[], object]) -> int:
    """Calls per sample; the call that measures it also warms up caches and allocators."""
    once = seconds(run, 1)
    if once > _SHORTEST_SAMPLE:
        return 1
    once = min(once, seconds(run, 1))
    return min(_MOST_REPETITIONS, 1 + int(_SHORTEST_SAMPLE / max(once, 1e-9)))


def seconds(run: Callable[[], object], repetitions: int = 1) -> float:
    """CPU time of one call, the mean over some repetitions."""
    start = time.process_time()
    for _ in range(repetitions):
        run()
    return (time.process_time() - start) / repetitions


def machine() -> dict[str, object]:
    """The machine and the versions that a table's figures belong to."""
    return {
        "processor": _processor(),
        "on": time.strftime("%Y-%m-%d"),
        "at commit": _commit(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load average at the end": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "BLAS kernels": ", ".join(sorted({_kernel(pool) for pool in threadpool_info() if pool["user_api"] == "blas"})),
        **{name: version(name) for name in ("torch", "numpy", "scipy", *_OPTIONAL) if find_spec(name)},
    }


def _commit() -> str:
    """The commit of the project that is measured, and whether the library differs from it."""
    try:
        commit, changes = (_git(*words) for words in (("rev-parse", "--short", "HEAD"), ("status", "--short", "src")))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with changes" if changes else commit


def _git(*words: str) -> str:
    command = ("git", "-C", str(Path(__file__).parents[1]), *words)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _kernel(pool: Mapping[str, object]) -> str:
    """A BLAS library and the kernels that it chose for this processor."""
    return f"{pool['internal_api']} {pool['version']} {pool.get('architecture') or ''}".strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in cpuinfo.read_text(encoding="utf-8").splitlines() if ":" in line)
    details = {key.strip(): value.strip() for key, value in lines.items()}
    numbers = [f"{key} {details[key]}" for key in ("cpu family", "model", "stepping") if key in details]
    return ", ".join([details.get("model name", platform.machine()), *numbers])


def report(name: str, title: str, rows: Sequence[Comparison]) -> None:
    """Print the table and the machine's description, and write both to `benchmarks/results/NAME.json`.

    The file keeps what was measured on other processors, and forgets what was measured on this kind before.
    """
    description = machine()
    print(f"\n{title}\n\n| case | ours | best peer | ratio (range) | goal |\n|---|---|---|---|---|")
    for row in rows:
        print(_line(row))
    print("\n" + "; ".join(f"{key}: {value}" for key, value in description.items()))
    RESULTS.mkdir(exist_ok=True)
    extended = [{**asdict(row), "best_peer": row.best_peer, "met": row.met} for row in rows]
    measurements = [*_elsewhere(RESULTS / f"{name}.json"), {"machine": description, "rows": extended}]
    measurements.sort(key=lambda measured: str(measured["machine"]["processor"]), reverse=True)
    content = {"title": title, "measurements": measurements}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _elsewhere(path: Path) -> list[dict[str, Any]]:
    """The measurements of a file of results that were made on other processors."""
    if not path.exists():
        return []
    try:
        measurements = json.loads(path.read_text(encoding="utf-8"))["measurements"]
        return [measured for measured in measurements if measured["machine"]["processor"] != _processor()]
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not what a benchmark writes ({error!r}); take it from version control, or remove it")


def _line(row: Comparison) -> str:
    peer = row.best_peer
    low, high = row.spread[peer]
    facts = "".join(f", {key} {value:.4g}" for key, value in row.facts.items())
    goal = "" if row.goal is None else f"{row.goal:g}: {'met' if row.met else 'missed'}"
    return (
        f"| {row.case}{facts} | {format_duration(row.seconds[OURS])} | {peer}: {format_duration(row.seconds[peer])} "
        f"| {row.ratios[peer]:.3g} ({low:.3g}–{high:.3g}) | {goal} |"
    )
