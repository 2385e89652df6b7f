"""Every command of the companion on spoilt ground: a full disk, a read-only folder, corrupt, missing and changed files.

A command that cannot do its work says so in one sentence, without a traceback, and ends with 1 or 2; one that can, does
it. Whatever happens, no good copy and nothing of the project is lost.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from companion.chapters import Chapter, ProjectError
from companion.execution import executed_path
from trust import minibook
from trust.pieces import Found, Piece, Scope

NAME = "faults"
MINUTES = 16
PARALLEL = False
TESTED = ("src/companion", "src/embedding_principle/certificates/check.py", "trust/faults.py", "trust/minibook.py")
COMMANDS: Mapping[str, Sequence[str]] = {
    "run": ["run", "--workers", "1"],
    "run -p": ["run", "left", "-p", "k=3"],
    "parameters": ["parameters", "left"],
    "sweep": ["sweep", "sweep.yml", "--workers", "1"],
    "status": ["status"],
    "status --save-seconds": ["status", "--save-seconds"],
    "claims": ["claims"],
    "claims --json": ["claims", "--json"],
    "check": ["check", "--junit", "report.xml", "--workers", "1"],
    "compare": ["compare", "ledger.json", "ledger.json"],
    "build": ["build", "--workers", "1"],
    "page": ["page", f"{minibook.PART}/left"],
    "pdf": ["pdf"],
    "new": ["new", f"{minibook.PART}/more"],
    "verify": ["verify", "proof.json"],
}
# A machine without LaTeX has no PDF, whatever the ground is.
FREE = {"pdf"}
# What they need that has to be written.
WRITING = {"run", "run -p", "sweep", "status --save-seconds", "check", "build", "page", "pdf", "new"}
EXECUTING = {"run", "run -p", "sweep", "check", "build"}
BOOK = set(COMMANDS) - {"compare", "verify"}
TAMPERED = 7e-13  # a value within the bound, which nobody has measured


@dataclass(frozen=True)
class Fault:
    """One way in which the ground is spoilt.

    Attributes:
        spoil: changes the book's folder.
        refused: the commands that cannot do their work then; the others can.
        limit: bytes that a file may grow to.
        output: where the standard output goes.
        mount: how the project's folder is mounted: "" as it is, "ro" read-only, "full" on a disk without room.
        outside: whether the command is given beside the project.
    """

    spoil: Callable[[Path], object] = lambda root: None
    refused: frozenset[str] | set[str] = frozenset()
    limit: int | None = None
    output: str | None = None
    mount: str = ""
    outside: bool = False


def torn(name: str) -> Callable[[Path], object]:
    """Leaves the first half of a file, and a byte that no text has."""

    def spoil(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2] + b"\xff")

    return spoil


def missing(name: str) -> Callable[[Path], object]:
    """Takes a file away."""
    return lambda root: (root / name).unlink()


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Changes a passage of a file."""

    def spoil(root: Path) -> None:
        content = (root / name).read_text(encoding="utf-8")
        if old not in content:
            raise ValueError(f"{name}: nothing to change")
        (root / name).write_text(content.replace(old, new), encoding="utf-8")

    return spoil


def written(name: str, text: str) -> Callable[[Path], object]:
    """Puts a text in the place of a file."""

    def spoil(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")

    return spoil


def both(*spoils: Callable[[Path], object]) -> Callable[[Path], object]:
    """One after the other."""
    return lambda root: [spoil(root) for spoil in spoils]


COPY = f"_build/executed/book/{minibook.PART}/left.ipynb"
NOTEBOOK = f"book/{minibook.PART}/left.ipynb"
STALE = replaced(NOTEBOOK, "read_text())", "read_text()) ")
# With a copy that has to be made, or there would be nothing to write.
FAULTS: Mapping[str, Fault] = {
    "nothing": Fault(),
    "no file may grow": Fault(STALE, refused=WRITING, limit=0),
    "files end after 4 kB": Fault(STALE, refused={"run", "run -p", "check", "build", "page", "sweep"}, limit=4096),
    "a disk without room": Fault(STALE, refused=WRITING, mount="full"),
    "a read-only project": Fault(STALE, refused=WRITING, mount="ro"),
    "an output without room": Fault(refused=set(COMMANDS), output="/dev/full"),
    "a torn table of contents": Fault(torn("_toc.yml"), refused=BOOK - {"page"}),
    "no project": Fault(refused=set(COMMANDS), outside=True),
    "a torn notebook": Fault(
        torn(NOTEBOOK), refused=EXECUTING | {"parameters", "claims", "claims --json", "page", "pdf"}
    ),
    "no notebook": Fault(missing(NOTEBOOK), refused=BOOK),
    "a torn copy": Fault(torn(COPY)),
    "no copy": Fault(missing(COPY)),
    "a copy with a value that was changed": Fault(replaced(COPY, "1e-15", str(TAMPERED))),
    "a copy that is a folder": Fault(both(missing(COPY), lambda root: (root / COPY).mkdir())),
    "no data": Fault(missing("data/a.txt"), refused=EXECUTING),
    "corrupt data": Fault(written("data/a.txt", "half a num"), refused=EXECUTING),
    "changed data": Fault(written("data/a.txt", "0.5"), refused={"run", "check", "build"}),
    "torn settings": Fault(written("_config.yml", "sphinx: ["), refused={"build", "page", "pdf"}),
    "a torn table of seconds": Fault(
        both(missing(COPY), written("benchmarks/seconds.json", '{"small/left": ')), refused=EXECUTING
    ),
    "a torn sweep": Fault(written("sweep.yml", "small/left: {k: [3"), refused={"sweep"}),
    "no sweep": Fault(missing("sweep.yml"), refused={"sweep"}),
    "a torn ledger": Fault(torn("ledger.json"), refused={"compare"}),
    "no ledger": Fault(missing("ledger.json"), refused={"compare"}),
    "a torn certificate": Fault(torn("proof.json"), refused={"verify"}),
    "a changed certificate": Fault(replaced("proof.json", "0x1.0", "0x1.1"), refused={"verify"}),
    "no certificate": Fault(missing("proof.json"), refused={"verify"}),
}
SAMPLE = (("no file may grow", "run"), ("a torn copy", "claims"), ("a changed certificate", "verify"))


def pieces(scope: Scope) -> Iterator[Piece]:
    """A piece a command and fault."""
    chosen = SAMPLE if scope.sample else [(fault, command) for fault in FAULTS for command in COMMANDS]
    for fault, command in chosen:
        yield Piece(f"{fault}: {command}", lambda fault=fault, command=command: tried(FAULTS[fault], command))


def summary(outcomes: Mapping[str, Found]) -> Found:
    """How many commands were tried on how many faults, and what they did."""
    kinds = Counter(found.get("kind", "neither") for found in outcomes.values())
    faults, commands = ({name.split(": ")[i] for name in outcomes} for i in (0, 1))
    return {"faults": len(faults), "commands": len(commands), "tried": len(outcomes), **kinds}


def tried(fault: Fault, command: str) -> Found:
    """One command on spoilt ground, and what is wrong with what it did."""
    with minibook.minibook() as made:
        before = minibook.copies(made)
        fault.spoil(made)
        if fault.mount and os.geteuid() != 0:
            return {"kind": "not tried, which needs the right to mount", "problems": []}
        with mounted(made, fault.mount) as root:
            kept = contents(root)
            done = _run(root, fault, command)
            problems = [*_said(fault, command, done), *_lost(root, before, kept)]
    kind = "refused" if done.returncode else "done"
    return {"kind": kind, "status": done.returncode, "problems": problems}


def _run(root: Path, fault: Fault, command: str) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if fault.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, fault.limit))

    with Path(fault.output or os.devnull).open("w") as output:
        stdout = output if fault.output else subprocess.PIPE
        at = root.parent if fault.outside else root
        return minibook.run(root, COMMANDS[command], at=at, stdout=stdout, preexec_fn=limit)


def _said(fault: Fault, command: str, done: subprocess.CompletedProcess[str]) -> Iterator[str]:
    """What is wrong with the status and the words of a command."""
    said = f"{done.stdout or ''}\n{done.stderr}".strip()
    if re.search("Traceback|Exception ignored", said):
        yield f"a traceback: {said[-400:]}"
    if str(TAMPERED) in said or f"{TAMPERED:g}" in said:
        yield "a value is shown that nobody measured"
    if command in fault.refused and done.returncode not in (1, 2):
        yield f"status {done.returncode} where nothing can be done: {said[-300:]}"
    if command not in fault.refused | FREE and done.returncode:
        yield f"status {done.returncode} where it could be done: {said[-300:]}"
    if done.returncode and not done.stderr.strip() and command != "verify":
        yield "a refusal without a word"


def _lost(root: Path, before: Mapping[str, bytes], kept: Mapping[str, bytes]) -> Iterator[str]:
    """What of the project was changed that no command is to change, and what good copies are lost."""
    now = contents(root)
    changed = [
        name for name in kept if now.get(name) != kept[name] and name not in ("_toc.yml", "benchmarks/seconds.json")
    ]
    if changed:
        yield f"changed: {', '.join(changed)}"
    if left := [path.name for path in root.rglob("*.part*")]:
        yield f"half-written files are left: {', '.join(left)}"
    copies = {name: path for name, path in _places(root).items() if name in before}
    for name, path in copies.items():
        # The fault itself may have spoilt one.
        if name != "left" and (not path.is_file() or path.read_bytes() != before[name]):
            yield from _unlike(root, name)


def _unlike(root: Path, name: str) -> Iterator[str]:
    try:
        if minibook.lost(root, {name: b""}):
            yield f"the good copy of {name} is lost"
    except ProjectError as error:
        yield f"the good copy of {name} changed, and nothing says what it is: {error}"


def _places(root: Path) -> dict[str, Path]:
    return {
        name: executed_path(Chapter(root, Path(f"book/{minibook.PART}/{name}.ipynb"))) for name in minibook.CHAPTERS
    }


def contents(root: Path) -> dict[str, bytes]:
    """The committed files of the book."""
    folders = [root / name for name in ("book", "data", "benchmarks")]
    paths = [path for folder in folders for path in folder.rglob("*")] + [*root.glob("*.yml"), *root.glob("*.json")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


@contextmanager
def mounted(root: Path, how: str) -> Iterator[Path]:
    """The book's folder, mounted read-only, or copied to a disk that is full; needs the right to mount."""
    if not how:
        yield root
        return
    place = root.with_name("mounted")
    place.mkdir()
    if how == "ro":
        _mount("--bind", str(root), str(place))
    else:
        _mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place))
    try:
        if how == "ro":
            _mount("-o", "remount,bind,ro", str(place))
        else:
            shutil.copytree(root, place, symlinks=True, dirs_exist_ok=True)
            _fill(place / "_build" / "filler")
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _fill(path: Path) -> None:
    """Write until there is no room."""
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(b"0" * 4096):
                pass
    except OSError:
        return
