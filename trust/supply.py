"""What the book is made of: the licences of all packages, the digests of vendored files, and known weaknesses."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path

from trust.pieces import ROOT, Found, Piece, Scope

NAME = "supply"
MINUTES = 2
PARALLEL = False
TESTED = ("constraints.txt", "data", "book/assets", "trust/supply.py")
LISTS = ("data/checksums.txt", "book/assets/mathjax/checksums.txt", "book/assets/uplot/checksums.txt")


def pieces(scope: Scope) -> Iterator[Piece]:
    """Licences, vendored files and weaknesses."""
    yield Piece("licences", licences)
    yield Piece("vendored files", vendored)
    if not scope.sample:
        yield Piece("known weaknesses", weaknesses)


def summary(outcomes: Mapping[str, Found]) -> Found:
    """All that was found."""
    return {
        key: value for found in outcomes.values() for key, value in found.items() if key not in ("problems", "seconds")
    }


def licences() -> Found:
    """Name, version and licence of every package of ``constraints.txt`` that is installed."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [found[1] for line in lines if (found := re.match(r"([\w.-]+)==", line))]
    rows = [row for name in names if (row := _row(name))]
    unknown = [f"{row[0]}: no licence is named" for row in rows if not row[2]]
    return {"packages": rows, "not installed here": len(names) - len(rows), "problems": unknown}


def _row(name: str) -> list[str] | None:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return [name, distribution.version, licence_of(distribution.metadata)]


def licence_of(metadata: Message) -> str:
    """A licence as a package's metadata names it: an SPDX expression, a classifier, or the first line of its text."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if text.startswith("License ::")
    ]
    text = (metadata.get("License") or "").strip().partition("\n")[0]
    return ", ".join(classifiers) or text[:80] or _title(metadata["Name"])


def _title(name: str) -> str:
    """The first line of the licence that comes with a package, where its metadata name none."""
    files = [file for file in importlib.metadata.files(name) or () if file.name.lower().startswith("licen")]
    return next((file.read_text().strip().partition("\n")[0] for file in files), "")


def vendored() -> Found:
    """Whether every vendored file is the one whose digest is recorded, and no other file is there."""
    problems, count = list[str](), 0
    for listed in LISTS:
        folder = (ROOT / listed).parent
        recorded = dict(
            reversed(line.split(maxsplit=1)) for line in (ROOT / listed).read_text(encoding="utf-8").splitlines()
        )
        count += len(recorded)
        problems += [f"{folder.name}/{name} is another file than recorded" for name in _differing(folder, recorded)]
    return {"vendored files": count, "problems": problems}


def _differing(folder: Path, recorded: Mapping[str, str]) -> Iterator[str]:
    for name, digest in recorded.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield name


def weaknesses() -> Found:
    """What pip-audit says of the installed versions, where it is installed; else that it was not asked."""
    if importlib.util.find_spec("pip_audit") is None:
        return {"pip-audit": "not installed", "problems": []}
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return {"pip-audit": f"gave no answer: {done.stderr.strip()[-200:]}", "problems": []}
    known = [f"{package['name']}: {fault['id']}" for package in packages for fault in package.get("vulns", [])]
    return {"pip-audit": f"{len(packages)} packages looked up", "problems": known}
