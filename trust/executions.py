"""The whole book, executed again: on equal terms, with two threads, with plain instructions, with other versions.

On equal terms every measured value is the same bit for bit. With anything else the verdicts are the same, and a table
shows the largest change of every value beside its bound. Each execution has a copy of the project of its own. With
`python -m trust.executions VARIANT CHAPTER FOLDER` one chapter is executed there, and its claims are printed as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any

from companion.campaign import BOOK
from companion.chapters import choose_chapters, find_chapters
from companion.execution import LocalKernels, run_chapter
from companion.notebooks import ONE_THREAD, installed_versions
from companion.reports import changes
from trust.pieces import ROOT, Found, Piece, Scope

NAME = "executions"
MINUTES = 40
PARALLEL = True
TESTED = ("src/embedding_principle", "src/companion", BOOK, "data", "constraints.txt", "trust/executions.py")
FIRST, AGAIN, THREADS, PLAIN, OTHER = "first", "again", "two threads", "plain instructions", "other versions"
VARIANTS = (FIRST, AGAIN, THREADS, PLAIN, OTHER)
# The last releases of the minor versions before those of constraints.txt.
OTHER_VERSIONS = {"torch": "2.12.1", "numpy": "2.3.5"}
LEFT_OUT = (".*", "_build", "__pycache__", "*.egg-info")


def pieces(scope: Scope) -> Iterator[Piece]:
    """A piece a variant and chapter."""
    if scope.sample:
        yield from _sample()
        return
    every = {chapter.name: chapter for chapter in find_chapters(ROOT)}
    for variant in VARIANTS:
        for chapter in choose_chapters(ROOT, scope.chapters) if scope.chapters else every.values():
            yield Piece(
                f"{variant}: {chapter.name}",
                lambda variant=variant, name=chapter.name: executed(variant, name, scope.place),
            )


def _sample() -> Iterator[Piece]:
    """One chapter of the small book, twice on equal terms."""
    from trust.minibook import minibook

    def run(variant: str) -> Found:
        with minibook() as root:
            return _claims(sys.executable, variant, "left", root)

    for variant in (FIRST, AGAIN):
        yield Piece(f"{variant}: left", lambda variant=variant: run(variant))


def executed(variant: str, chapter: str, place: Path) -> Found:
    """The claims of one chapter, executed in a project of the variant's own."""
    python = sys.executable
    if variant == OTHER:
        found, problem = other_interpreter(place / "versions")
        if found is None:
            return {"claims": [], "untried": problem, "problems": []}
        python = str(found)
    root = project(place / "projects" / variant.replace(" ", "-"))
    with _cores(2 if variant == THREADS else 1):
        outcome = _claims(python, variant, chapter, root)
    if variant == OTHER and not OTHER_VERSIONS.items() <= _releases(outcome).items():
        outcome["problems"].append(f"it was made with {outcome.get('versions')}")
    return outcome


def _releases(found: Found) -> dict[str, str]:
    """The versions of an execution, without their builds."""
    return {name: version.partition("+")[0] for name, version in found.get("versions", {}).items()}


@contextmanager
def _cores(count: int) -> Iterator[None]:
    """Wait for cores: two executions with two threads each would be in each other's way on two."""
    with _queue:
        for _ in range(count):
            _free.acquire()
    try:
        yield
    finally:
        _free.release(count)


_queue, _free, _making = Lock(), Semaphore(2), Lock()


def _claims(python: str, variant: str, chapter: str, root: Path) -> Found:
    done = subprocess.run(
        [python, "-m", "trust.executions", variant, chapter, str(root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"claims": [], "problems": [f"it cannot be executed: {done.stderr[-500:]}"]}
    found: Found = json.loads(done.stdout)
    return found


def main(variant: str, chapter: str, folder: str) -> None:
    """Execute one chapter and print what it measured."""
    engine = LocalKernels(environment=environment(variant))
    (chosen,) = choose_chapters(Path(folder), [chapter])
    outcome = run_chapter(chosen, engine=engine, force=True)
    problems = [outcome.error] if outcome.error else list(outcome.problems)
    claims = [claim.as_json() for claim in outcome.claims]
    print(json.dumps({"claims": claims, "versions": installed_versions(OTHER_VERSIONS), "problems": problems}))


def environment(variant: str) -> dict[str, str]:
    """What a variant's kernels have instead of the book's threads and instructions."""
    if variant == THREADS:
        return dict.fromkeys(ONE_THREAD, "2")
    return plain_instructions() if variant == PLAIN else {}


def plain_instructions() -> dict[str, str]:
    """Variables by which torch, NumPy and the BLAS of both use no instructions that the oldest processors lack."""
    from numpy._core import _multiarray_umath as umath

    features = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]
    return {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "OPENBLAS_CORETYPE": "Nehalem",
    }


def project(folder: Path) -> Path:
    """A fresh copy of the project, made once in a campaign's process."""
    with _making:
        return _project(folder)


@functools.cache
def _project(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT)))


def other_interpreter(folder: Path) -> tuple[Path | None, str]:
    """An environment with the other versions, in which all else is this interpreter's own; or why there is none."""
    with _making:
        return _other_interpreter(folder)


@functools.cache
def _other_interpreter(folder: Path) -> tuple[Path | None, str]:
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        site = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        # Behind its own packages those that this interpreter has.
        Path(site.strip(), "zz_others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        wanted = [f"{name}=={version}" for name, version in OTHER_VERSIONS.items()]
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return None, f"{', '.join(wanted)} cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
        (folder / "complete").touch()
    return python, ""


def summary(outcomes: Mapping[str, Found]) -> Found:
    """The verdicts, the largest change of every value beside its bound, and what is wrong with them."""
    ledgers = {variant: _ledger(variant, outcomes) for variant in VARIANTS}
    first = ledgers.pop(FIRST)
    tried = {variant: ledger for variant, ledger in ledgers.items() if ledger}
    untried = {found["untried"] for found in outcomes.values() if "untried" in found}
    return {
        "executions": 1 + len(tried),
        "claims": len(first),
        "untried": sorted(untried),
        "other versions": ", ".join(f"{name} {version}" for name, version in OTHER_VERSIONS.items()),
        "variants": list(tried),
        "changes": [_row(name, claim, tried) for name, claim in first.items()],
        "problems": [*_differences(first, tried)],
    }


def _ledger(variant: str, outcomes: Mapping[str, Found]) -> dict[str, dict[str, Any]]:
    of = [found for name, found in outcomes.items() if name.startswith(f"{variant}: ")]
    return {claim["id"]: claim for found in of for claim in found["claims"]}


def _differences(first: Mapping[str, Any], tried: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for variant, ledger in tried.items():
        for change in changes(dict(first), dict(ledger)):
            if change.weighs:
                yield f"{variant}: {change.id}: {' → '.join(change.verdicts)}"
            elif variant == AGAIN:
                yield f"{variant}: {change.id}: {change.before!r} → {change.after!r}"
        if variant == AGAIN:
            yield from (
                f"{variant}: the control of {name} is another one"
                for name in first.keys() & ledger.keys()
                if first[name]["control"] != ledger[name]["control"]
            )


def _row(name: str, claim: Mapping[str, Any], tried: Mapping[str, Mapping[str, Any]]) -> Found:
    """One claim: what was measured, its bound, and by how much each variant's value differs."""
    moved = {}
    for variant, ledger in tried.items():
        values = claim["measured"], ledger.get(name, {}).get("measured")
        moved[variant] = None if None in values else abs(values[1] - values[0])
    facts = {key: claim[key] for key in ("chapter", "measured", "relation", "bound")}
    return {"id": name, **facts, "changes": moved}


if __name__ == "__main__":
    main(*sys.argv[1:])
