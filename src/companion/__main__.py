"""``python -m companion run | status | claims | build``: execute, check and render the book."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from companion.chapters import Chapter, ProjectError, choose_chapters, find_root
from companion.execution import Outcome, available_cores, parse_parameters, run_chapters, state_of
from companion.ledger import claims_table, ledger, status, status_table
from companion.rendering import HTML, RenderingError, render


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 when a chapter or the rendering fails, 2 for a refusal."""
    options = _parser().parse_args(arguments)
    try:
        status_code: int = options.command(find_root(), options)
        return status_code
    except (ProjectError, RenderingError) as error:
        print(f"companion: {error}", file=sys.stderr)
        return 2 if isinstance(error, ProjectError) else 1
    except KeyboardInterrupt:
        print("companion: interrupted; the last good copies are as they were", file=sys.stderr)
        return 130


def run_command(root: Path, options: argparse.Namespace) -> int:
    """``run``: execute what is not fresh."""
    chapters = choose_chapters(root, options.chapters)
    given = dict(_split(item) for item in options.parameters)
    parameters = {chapter.name: parse_parameters(chapter, given) for chapter in chapters} if given else {}
    outcomes = _run(chapters, parameters, workers=options.workers, force=options.force)
    for outcome in outcomes:
        if parameters.get(outcome.chapter.name):
            print(f"{outcome.chapter.name} with {parameters[outcome.chapter.name]}: {_shown(root, outcome.copy)}")
    return _summary(root, outcomes)


def status_command(root: Path, options: argparse.Namespace) -> int:
    """``status``: fresh, stale, failed or missing, and the seconds each chapter took."""
    print(status_table(status(root)))
    return 0


def claims_command(root: Path, options: argparse.Namespace) -> int:
    """``claims``: the ledger, as a table or as JSON."""
    old = [chapter.name for chapter in choose_chapters(root, []) if state_of(chapter) != "fresh"]
    if old:
        print(f"companion: not up to date: {', '.join(old)}; run `python -m companion run`", file=sys.stderr)
    entries = ledger(root)
    print(json.dumps(entries, indent=2, allow_nan=False, ensure_ascii=False) if options.json else claims_table(entries))
    return 0


def build_command(root: Path, options: argparse.Namespace) -> int:
    """``build``: execute what is not fresh, then render the book unless the pages are up to date."""
    failed = _summary(root, _run(choose_chapters(root, []), {}, workers=options.workers, force=False))
    if failed:
        return failed
    print("rendered the book" if render(root) else "the pages are up to date")
    index = root / HTML / "index.html"
    print(f"\n{claims_table(ledger(root))}\n\nOpen {_shown(root, index)} ({index.as_uri()})")
    return 0


def _run(
    chapters: list[Chapter], parameters: dict[str, dict[str, object]], *, workers: int, force: bool
) -> list[Outcome]:
    """Run chapters below a progress bar, one line for each that was executed."""
    outcomes = []
    # disable=None: no bar where there is no terminal; the lines are written all the same.
    with tqdm(total=len(chapters), unit="chapter", disable=None) as bar:
        for outcome in run_chapters(chapters, parameters, workers=workers, force=force):
            outcomes.append(outcome)
            bar.update()
            if outcome.executed:
                tqdm.write(f"{outcome.chapter.name:<32} {outcome.seconds:7.1f} s  {_verdict(outcome)}")
    return outcomes


def _verdict(outcome: Outcome) -> str:
    if outcome.problems:
        return "FAILED"
    counts = Counter(claim["verdict"] for claim in outcome.claims)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no claims"


def _summary(root: Path, outcomes: list[Outcome]) -> int:
    """Say in a few lines what was executed and what failed; returns the exit status."""
    failed = [outcome for outcome in outcomes if outcome.problems]
    executed = sum(outcome.executed for outcome in outcomes)
    print(f"{executed} of {len(outcomes)} chapters executed, {len(failed)} failed")
    for outcome in failed:
        print(f"\n{outcome.chapter.name} failed; see {_shown(root, outcome.copy)}", file=sys.stderr)
        for problem in outcome.problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if failed else 0


def _shown(root: Path, path: Path) -> str:
    """A path as short as the working directory allows."""
    return os.path.relpath(path) if Path.cwd().is_relative_to(root) else str(path)


def _split(item: str) -> tuple[str, str]:
    name, separator, text = item.partition("=")
    if not (name and separator):
        raise ProjectError(f"-p takes NAME=VALUE, not {item!r}")
    return name, text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m companion", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="execute the chapters that are not fresh")
    run.add_argument("chapters", nargs="*", metavar="CHAPTER", help="path below book/ without suffix, or its last part")
    run.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value in YAML; the result goes to _build/runs, never into the book",
    )
    run.add_argument("--force", action="store_true", help="execute fresh chapters too")
    show = commands.add_parser("status", help="fresh, stale, failed or missing, and the time each chapter took")
    claims = commands.add_parser("claims", help="the ledger of claims")
    claims.add_argument("--json", action="store_true", help="as strict JSON")
    build = commands.add_parser("build", help="run, then render the book")
    for command, function in [
        (run, run_command),
        (show, status_command),
        (claims, claims_command),
        (build, build_command),
    ]:
        command.set_defaults(command=function)
    for command in (run, build):
        command.add_argument(
            "--workers",
            type=_positive,
            default=available_cores(),
            metavar="N",
            help="kernels at a time (default: one a core)",
        )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
