"""The commands: run, parameters, sweep, status, claims, check, compare, build, pdf, page, new, verify."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import re
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from companion.certificates import verify
from companion.chapters import Chapter, ProjectError, choose_chapters, find_page, find_root
from companion.claims import Claim
from companion.cluster import ClusterError, connect
from companion.execution import Outcome, claims_of, executed_path, run_chapters, state_of
from companion.files import write_through
from companion.ledger import book_claims, ledger, save_seconds, status
from companion.new_chapter import NEXT_STEPS, new_chapter
from companion.notebooks import available_cores
from companion.parameters import parse_parameters
from companion.printing import render_pdf
from companion.progress import Progress
from companion.rendering import HTML, RenderingError, render, render_page
from companion.reports import changes, junit, ledger_json, read_ledger
from companion.repository import repository
from companion.sweeps import draw_figure, read_sweep, results_path, table_of, write_table
from companion.tables import changes_table, claims_table, comparison_table, parameters_table, status_table

DISTRIBUTION = "embedding-principle-companion"
CHAPTER_HELP = "path below book/ without suffix, or its last part, or the path of its file"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 when a chapter or the rendering fails, 2 for a refusal."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no ≤ or ä shows their codes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _main(arguments)
    except (ProjectError, RenderingError, ClusterError) as error:
        print(f"companion: {error}", file=sys.stderr)
        return 2 if isinstance(error, ProjectError) else 1
    except BrokenPipeError:
        # Who reads has enough, as `head`; the interpreter must not flush into the closed pipe once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"companion: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("companion: interrupted; the last good copies are as they were", file=sys.stderr)
        return 130


def _main(arguments: list[str] | None) -> int:
    try:
        options = _parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
        status_code: int = options.command(find_root(), options)
        return status_code
    finally:
        sys.stdout.flush()  # here, where a closed pipe is expected


def run_command(root: Path, options: argparse.Namespace) -> int:
    """``run``: execute what is not fresh."""
    chapters = choose_chapters(root, options.chapters)
    given = _given(options.parameters)
    parameters = [parse_parameters(chapter, given) if given else {} for chapter in chapters]
    outcomes = _run(chapters, parameters, options, force=options.force)
    status_code = _summary(root, outcomes)
    for outcome in outcomes if given else []:
        if not outcome.error:
            _answer(root, outcome)
    return status_code


def _answer(root: Path, outcome: Outcome) -> None:
    """What a reader's run found, beside the book; then the run as a page."""
    book, reason = book_claims(outcome.chapter)
    print(f"\n{_name(outcome)}: {_shown(root, outcome.copy)}\n")
    declared = outcome.chapter.declarations.values()
    print(comparison_table(declared, book, outcome.claims, encoding=_encoding()), flush=True)
    if reason:
        again = f"python -m companion run {shlex.quote(outcome.chapter.name)}"
        print(f"companion: no values of the book: {reason}; `{again}` makes them", file=sys.stderr)
    try:
        page, _ = render_page(root, outcome.chapter.path, run=outcome.copy)
        print(f"\nOpen {_shown(root, page)} ({page.as_uri()})")
    except (RenderingError, ProjectError, OSError) as error:  # what was executed is kept and was said
        print(f"companion: no page of this run: {error}", file=sys.stderr)


def parameters_command(root: Path, options: argparse.Namespace) -> int:
    """``parameters``: what can be set in a chapter."""
    (chapter,) = choose_chapters(root, [options.chapter])
    print(parameters_table(chapter.parameter_cell.values(), encoding=_encoding()))
    return 0


def sweep_command(root: Path, options: argparse.Namespace) -> int:
    """``sweep``: execute the parameter sets of a file that are not finished, and collect their claims."""
    file = Path(options.file)
    sets = read_sweep(root, file)
    outcomes = _run([chosen.chapter for chosen in sets], [chosen.parameters for chosen in sets], options)
    rows = table_of(sets, outcomes)
    target = results_path(root, file)
    written = [write_table(rows, target.with_name(f"{target.name}.csv"))]
    try:
        with warnings.catch_warnings(action="ignore"):
            written += draw_figure(rows, target.with_name(f"{target.name}.svg"))
    except Exception as error:  # whatever a plotting library makes of odd numbers: the results are in the table
        print(f"companion: no figure: {' '.join(str(error).split())}", file=sys.stderr)
    print(f"{sum(outcome.executed for outcome in outcomes)} of {len(sets)} parameter sets executed")
    print(f"claims: {_counts(outcomes)}")
    print("\n".join(_shown(root, path) for path in written))
    return _complain(root, [outcome for outcome in outcomes if outcome.error])


def status_command(root: Path, options: argparse.Namespace) -> int:
    """``status``: fresh, stale, failed or missing, and the seconds each chapter took."""
    entries = status(root)
    print(status_table(entries))
    for entry in entries:
        print("".join(f"{entry.chapter}: {problem}\n" for problem in entry.problems), end="")
    if options.save_seconds:
        print(_shown(root, save_seconds(root)))
    return 0


def claims_command(root: Path, options: argparse.Namespace) -> int:
    """``claims``: the ledger, as a table or as JSON; what cannot be read is named, and the others are shown."""
    claims, old, unreadable = list[Claim](), list[str](), list[ProjectError]()
    for chapter in choose_chapters(root, []):
        try:
            claims += claims_of(chapter, executed_path(chapter))[0]
            old += [] if state_of(chapter) == "fresh" else [chapter.name]
        except ProjectError as error:
            unreadable.append(error)
    if old:
        print(f"companion: not up to date: {', '.join(old)}; run `python -m companion run`", file=sys.stderr)
    print(ledger_json(claims) if options.json else claims_table(claims, encoding=_encoding()))
    for refusal in unreadable:
        print(f"companion: {refusal}", file=sys.stderr)
    return 1 if unreadable else 0


def check_command(root: Path, options: argparse.Namespace) -> int:
    """``check``: execute what is not fresh, and report every claim for continuous integration."""
    chapters = choose_chapters(root, options.chapters)
    if options.junit:
        _require_report(Path(options.junit))
    outcomes = _run(chapters, [{}] * len(chapters), options)
    if options.junit:
        write_through(Path(options.junit), junit(outcomes))
    status_code = _summary(root, outcomes)
    print(f"claims: {_counts(outcomes)}")
    return status_code


def _require_report(path: Path) -> None:
    """Refuse to write a report over a file that is none: its name was meant for something else."""
    if path.is_dir():
        raise ProjectError(f"--junit {path}: this is a folder; name a file in it")
    if path.is_file() and path.read_bytes()[:5] not in (b"", b"<?xml"):
        raise ProjectError(f"--junit {path}: this file is no report; choose another name, or remove it")


def compare_command(root: Path, options: argparse.Namespace) -> int:
    """``compare``: what differs between two ledgers; 1 if a verdict does, or a claim came or went."""
    before, after = (read_ledger(Path(name)) for name in (options.before, options.after))
    found = changes(before, after)
    print(changes_table(found, encoding=_encoding()) if found else f"all {len(after)} claims are equal")
    return int(any(change.weighs for change in found))


def build_command(root: Path, options: argparse.Namespace) -> int:
    """``build``: execute what is not fresh, then render the book unless the pages are up to date."""
    repository()  # refused now, if it cannot be used, and not after all chapters have run
    chapters = choose_chapters(root, [])
    failed = _summary(root, _run(chapters, [{}] * len(chapters), options))
    if failed:
        return failed
    print("rendered the book" if render(root) else "the pages are up to date")
    index = root / HTML / "index.html"
    print(f"\n{claims_table(ledger(root), encoding=_encoding())}\n\nOpen {_shown(root, index)} ({index.as_uri()})")
    return 0


def pdf_command(root: Path, options: argparse.Namespace) -> int:
    """``pdf``: the executed book as one file, through LaTeX."""
    for chapter in choose_chapters(root, []):
        _ = chapter.notebook  # what cannot be read, Jupyter Book would refuse in words of its own
    print(f"Open {_shown(root, root / render_pdf(root))}")
    return 0


def page_command(root: Path, options: argparse.Namespace) -> int:
    """``page``: render one page as a draft, and say where it is."""
    page, complaints = render_page(root, find_page(root, options.page))
    print(complaints + "\n" * bool(complaints) + f"Open {_shown(root, page)} ({page.as_uri()})")
    return 0


def new_command(root: Path, options: argparse.Namespace) -> int:
    """``new``: write the frame of a chapter, and say what is to be filled in."""
    path = new_chapter(root, options.name, options.title)
    print(f"wrote {_shown(root, path)} and listed it in _toc.yml\n{NEXT_STEPS.format(name=options.name)}")
    return 0


def verify_command(root: Path, options: argparse.Namespace) -> int:
    """``verify``: check certificates by a program of its own, which sees nothing of the project."""
    try:
        return int(not verify(options.files))
    except ValueError as error:
        raise ProjectError(str(error)) from error


def _run(
    chapters: Sequence[Chapter],
    parameters: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
    *,
    force: bool = False,
) -> list[Outcome]:
    """Run chapters below a progress bar, one line for each that was executed."""
    outcomes = []
    with (
        connect(options.scheduler, chapters) if options.scheduler else nullcontext() as engine,
        Progress(chapters, parameters) as progress,
    ):
        for outcome in run_chapters(
            chapters, parameters, workers=options.workers, engine=engine, force=force, on_cell=progress.cell
        ):
            outcomes.append(outcome)
            progress.chapter(outcome)
            if outcome.executed:
                progress.write(f"{_name(outcome):<32} {outcome.seconds:7.1f} s  {_verdict(outcome)}")
    return outcomes


def _name(outcome: Outcome) -> str:
    return " ".join([outcome.chapter.name, *(f"{name}={value}" for name, value in outcome.parameters.items())])


def _verdict(outcome: Outcome) -> str:
    return "FAILED" if outcome.failed else _counts([outcome])


def _counts(outcomes: list[Outcome]) -> str:
    counts = Counter(claim.verdict for outcome in outcomes for claim in outcome.claims)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no claims"


def _summary(root: Path, outcomes: list[Outcome]) -> int:
    """Say in a few lines what was executed and what failed; returns the exit status."""
    failed = [outcome for outcome in outcomes if outcome.failed]
    executed = sum(outcome.executed for outcome in outcomes)
    print(f"{executed} of {len(outcomes)} chapters executed, {len(failed)} failed")
    return _complain(root, failed)


def _complain(root: Path, failed: list[Outcome]) -> int:
    """Say why chapters failed; returns the exit status."""
    for outcome in failed:
        print(f"\n{_name(outcome)} failed; see {_shown(root, outcome.copy)}", file=sys.stderr)
        for problem in [outcome.error] if outcome.error else outcome.problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if failed else 0


def _shown(root: Path, path: Path) -> str:
    """A path as short as the working directory allows."""
    return os.path.relpath(path) if Path.cwd().is_relative_to(root) else str(path)


def _encoding() -> str:
    """Of the terminal; another stream in its place takes every sign."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``-p NAME VALUE``, as papermill has it, written as ``-p NAME=VALUE``."""
    joined, rest = [], list(arguments)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] == "--":
            return joined + rest
        if joined[-1] == "-p" and len(rest) > 1 and "=" not in rest[0]:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def _given(items: Sequence[str]) -> dict[str, str]:
    """Name → text of the options ``-p NAME=VALUE``."""
    given: dict[str, str] = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not (name and separator):
            raise ProjectError(f"-p takes NAME=VALUE or NAME VALUE, not {item!r}")
        if name in given:
            raise ProjectError(f"-p {name} is given twice: {given[name]!r} and {text!r}; keep one")
        given[name] = text
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m companion", description=__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="the version that is installed")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _add_run(commands)
    settable = commands.add_parser("parameters", help="the parameters of a chapter, their values and ranges")
    settable.add_argument("chapter", type=_not_empty, metavar="CHAPTER", help=CHAPTER_HELP)
    sweep = commands.add_parser("sweep", help="execute chapters with many parameter sets, and collect their claims")
    sweep.add_argument(
        "file", type=_not_empty, metavar="FILE", help="YAML: for each chapter a grid or a list of parameter sets"
    )
    show = commands.add_parser("status", help="fresh, stale, failed or missing, and the time each chapter took")
    show.add_argument(
        "--save-seconds", action="store_true", help="keep these times in benchmarks/seconds.json, for fresh clones"
    )
    claims = commands.add_parser("claims", help="the ledger of claims")
    claims.add_argument("--json", action="store_true", help="as strict JSON")
    check, compare, again = _add_reports(commands)
    build = commands.add_parser("build", help="run, then render the book")
    pdf = commands.add_parser("pdf", help="the executed book as a PDF, through LaTeX")
    page = commands.add_parser("page", help="render one page as a draft, without executing anything")
    page.add_argument("page", type=_not_empty, metavar="PAGE", help="as depth/lifting, or the path of its file")
    new = commands.add_parser("new", help="write the frame of a new chapter and list it in _toc.yml")
    new.add_argument("name", type=_not_empty, metavar="PART/NAME", help="as width/splitting")
    new.add_argument("--title", type=_not_empty, help="the chapter's title (default: from its name)")
    for command, function in [
        (run, run_command),
        (settable, parameters_command),
        (sweep, sweep_command),
        (show, status_command),
        (claims, claims_command),
        (check, check_command),
        (compare, compare_command),
        (build, build_command),
        (pdf, pdf_command),
        (page, page_command),
        (new, new_command),
        (again, verify_command),
    ]:
        command.set_defaults(command=function)
    for command in (run, sweep, check, build):
        _add_places(command)
    return parser


def _add_run(commands: Any) -> argparse.ArgumentParser:
    """The command that executes chapters, with the values that a reader gives to parameters."""
    run: argparse.ArgumentParser = commands.add_parser("run", help="execute the chapters that are not fresh")
    run.add_argument(
        "chapters",
        nargs="*",
        type=_not_empty,
        metavar="CHAPTER",
        help=CHAPTER_HELP,
    )
    run.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value in YAML, also as NAME VALUE; the result goes to _build/runs, never into the book",
    )
    run.add_argument("--force", action="store_true", help="execute fresh chapters too")
    return run


def _add_reports(commands: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """The commands that judge for machines: their exit statuses are told in their help."""
    check = commands.add_parser("check", help="run, and report every claim: 0 all as declared, 1 not all, 2 a refusal")
    check.add_argument("chapters", nargs="*", type=_not_empty, metavar="CHAPTER", help=CHAPTER_HELP)
    check.add_argument(
        "--junit", type=_not_empty, metavar="FILE", help="write a test case for each claim, in JUnit's XML"
    )
    compare = commands.add_parser("compare", help="what differs between two ledgers: 0 no verdict, 1 some, 2 a refusal")
    for name in ("before", "after"):
        compare.add_argument(name, type=_not_empty, metavar=name.upper(), help="a file that `claims --json` wrote")
    again = commands.add_parser("verify", help="check certificates again: 0 all proved, 1 not all")
    again.add_argument(
        "files", nargs="+", type=_not_empty, metavar="FILE", help="a certificate, or a zip archive of certificates"
    )
    return check, compare, again


class _Version(argparse.Action):
    """Prints the version when it is asked for: looking it up fails where nothing is installed."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        try:
            print(importlib.metadata.version(DISTRIBUTION))
        except importlib.metadata.PackageNotFoundError as error:
            raise ProjectError(f"{DISTRIBUTION} is not installed; `make book` installs it") from error
        parser.exit()


def _add_places(command: argparse.ArgumentParser) -> None:
    """The options that say where notebooks are executed: here or on a cluster."""
    place = command.add_mutually_exclusive_group()
    place.add_argument(
        "--workers",
        type=_positive,
        default=available_cores(),
        metavar="N",
        help="kernels at a time on this machine (default: one a core)",
    )
    place.add_argument(
        "--scheduler", type=_not_empty, metavar="ADDRESS", help="execute on a Dask cluster, as tcp://host:8786"
    )


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def _not_empty(text: str) -> str:
    """A text that says something: what is empty is an unset variable of a shell, not a wish for the default."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"must not be empty ({text!r}); leave it out for the default")
    return text
