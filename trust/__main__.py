"""Try to break the book, and write what was found to `trust/results.json`, which its page shows.

Interrupt it and start it again: what is finished is not done again, unless what it tried has changed. Exit status 1 if
anything is wrong with the book.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from companion.campaign import RESULTS, digest_of
from companion.files import write_through
from companion.notebooks import available_cores, installed_versions, machine
from trust import calls, executions, faults, kills, mutants, options, supply
from trust.pieces import PLACE, ROOT, Found, Interrupted, Scope, done, end_in_order

PARTS: dict[str, ModuleType] = {
    part.NAME: part for part in (supply, calls, options, faults, kills, executions, mutants)
}


def main(arguments: list[str] | None = None) -> int:
    """Do the parts that are asked for; returns the exit status."""
    asked = _parser().parse_args(arguments)
    end_in_order()
    place = asked.place or (PLACE / "sample" if asked.sample else PLACE)
    scope = Scope(asked.sample, tuple(asked.chapters), asked.workers, place)
    chosen = asked.part or list(PARTS)
    if not asked.sample:
        minutes = {name: PARTS[name].MINUTES for name in chosen}
        listed = ", ".join(f"{name} {count}" for name, count in minutes.items())
        print(f"about {sum(minutes.values())} minutes on two cores: {listed}", flush=True)
    # What is no whole part is not what the page shows.
    target = place / "results.json" if asked.sample or asked.chapters else ROOT / RESULTS
    wrong = 0
    try:
        for name in chosen:
            result = carried_out(PARTS[name], scope)
            known = json.loads(target.read_text(encoding="utf-8"))["parts"] if target.is_file() else {}
            write_through(target, (json.dumps({"parts": known | {name: result}}, indent=1) + "\n").encode())
            wrong += len(result["problems"])
    except Interrupted as told:
        print("interrupted; what is finished is kept, and `make trust` takes it up again")
        return int(told.args[0])
    print(f"{wrong} problems; {target}")
    return 1 if wrong else 0


def carried_out(part: ModuleType, scope: Scope) -> Found:
    """Do one part and say what was found, of which sources, where and when."""
    tested = {name: digest_of(ROOT, name) for name in part.TESTED}
    outcomes, seconds = dict[str, Found](), 0.0
    for name, found in _done(part, scope):
        outcomes[name] = found
        seconds += found["seconds"]
        word = "PROBLEM" if found["problems"] else "good"
        print(f"{part.NAME:<10} {word:<8} {found['seconds']:7.1f} s  {name}", flush=True)
        print("".join(f"    {problem}\n" for problem in found["problems"]), end="", flush=True)
    summary = part.summary(outcomes)
    problems = [f"{name}: {problem}" for name, found in outcomes.items() for problem in found["problems"]]
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": installed_versions(("torch", "numpy", "scipy", "hypothesis", "distributed")),
        "seconds": round(seconds),
        "tested": tested,
        "problems": problems + summary.pop("problems", []),
        "summary": summary,
    }


def _done(part: ModuleType, scope: Scope) -> Iterator[tuple[str, Found]]:
    workers = scope.workers if part.PARALLEL else 1
    yield from done(part.pieces(scope), scope.place / f"{part.NAME}.jsonl", part.TESTED, workers)


def _commit() -> str:
    """The commit that is tried; with a mark when files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trust", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="this part alone; may be given several times")
    parser.add_argument("--sample", action="store_true", help="a small sample of each part, kept apart")
    parser.add_argument("--chapters", nargs="+", default=[], metavar="CHAPTER", help="execute these chapters alone")
    parser.add_argument("--place", type=Path, metavar="FOLDER", help="of the campaign's own files (_build/trust)")
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N", help="processes at a time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
