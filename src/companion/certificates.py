"""Certificates that a claim carries: checked by a program of its own, packed into the notebook, handed out as files.

A certificate is a text whose statement a short program proves or refuses. That program is part of the mathematics,
which this module finds and does not import; it runs as a process of its own and sees nothing of the project. What it
accepted travels in the executed notebook, under the seal of the copy, and lies as an archive beside the pages.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import io
import json
import lzma
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = "certificates"  # of the archives, beside the first page
SECONDS = 3600  # for all files of a claim; the largest takes seconds
LIMIT = 2**30  # bytes of an archive's content: whatever is larger is no set of certificates
REMEDY = "it is part of embedding_principle; run `pip install .` in the project"
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Certificates:
    r"""The certificates of a claim, as they travel: texts that have much in common take little room.

    Args:
        count: how many.
        packed: the list of texts as JSON, by LZMA, in Base64.

    Example:
        >>> carried = Certificates.of(["one\n", "two\n"])
        >>> carried.count, carried.texts()
        (2, ['one\n', 'two\n'])
    """

    count: int
    packed: str = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Certificates:
        """Pack texts; the same texts give the same."""
        content = json.dumps(list(texts)).encode()
        return cls(len(texts), base64.b64encode(lzma.compress(content)).decode("ascii"))

    def texts(self) -> list[str]:
        """The texts.

        Raises:
            ValueError: when they are not as :meth:`of` packs them.
        """
        try:
            texts = json.loads(lzma.decompress(base64.b64decode(self.packed, validate=True)))
        except (binascii.Error, lzma.LZMAError, ValueError) as error:
            raise ValueError(f"certificates are not packed as companion.certificates does it: {error}") from error
        if not _are_texts(texts) or len(texts) != self.count:
            raise ValueError(f"certificates are not packed as companion.certificates does it: no {self.count} texts")
        return list(texts)

    def archive(self, claim: str) -> bytes:
        """The texts as files of a zip archive, numbered; it notes no time, so the same texts give the same bytes."""
        return _archive(claim, self)


@lru_cache(maxsize=32)
def _archive(claim: str, carried: Certificates) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in zip(file_names(claim, carried.count), carried.texts(), strict=True):
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix, wherever it is made
            archive.writestr(entry, text.encode(), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()


def file_names(claim: str, count: int) -> list[str]:
    """The names of a claim's certificates, whose order is that of their numbers.

    >>> file_names("C2-lifts", 2)
    ['C2-lifts-001.json', 'C2-lifts-002.json']
    """
    digits = max(3, len(str(count)))
    return [f"{claim}-{i:0{digits}d}.json" for i in range(1, count + 1)]


def archive_address(claim: str) -> str:
    """Where the archive of a claim lies, from the first page.

    >>> archive_address("C2-lifts")
    'certificates/C2-lifts.zip'
    """
    return f"{FOLDER}/{claim}.zip"


def accepted(claim: str, texts: Sequence[str]) -> Certificates:
    """The certificates of a claim, after the checker has accepted all.

    Args:
        claim: its id, for errors.
        texts: the certificates.

    Raises:
        ValueError: naming the claim, the number of the certificate and why it is refused, or why there is no answer.
    """
    if isinstance(texts, str) or not _are_texts(list(texts)):
        raise ValueError(
            f"claim {claim}: certificates must be a list of texts; a result that is not proved has no document"
        )
    reasons = _refusals(claim, texts)
    if reasons:
        number, reason = min(reasons.items())
        more = f" ({len(reasons)} are refused)" if len(reasons) > 1 else ""
        raise ValueError(f"claim {claim}: certificate {number} of {len(texts)} is refused: {reason}{more}")
    return Certificates.of(texts)


def _are_texts(texts: Any) -> bool:
    return isinstance(texts, list) and all(isinstance(text, str) for text in texts)


def _refusals(claim: str, texts: Sequence[str]) -> dict[int, str]:
    """Number of a certificate → the checker's reason to refuse it."""
    names = file_names(claim, len(texts))
    with tempfile.TemporaryDirectory() as folder:
        for name, text in zip(names, texts, strict=True):
            Path(folder, name).write_bytes(text.encode("utf-8", "surrogatepass"))
        options: dict[str, Any] = {"cwd": folder, "capture_output": True, "text": True, "encoding": "utf-8"}
        try:
            done = run_checker(names, timeout=SECONDS, **options)
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"claim {claim}: its certificates cannot be checked: {error}") from error
    said = dict(re.findall(r"^(\S+): ((?:proved|refused): .*)$", done.stdout, re.MULTILINE))
    verdicts = [said.get(name, "") for name in names]
    reasons = {
        number: verdict.removeprefix("refused: ")
        for number, verdict in enumerate(verdicts, 1)
        if verdict.startswith("refused: ")
    }
    if not reasons and (done.returncode or not all(verdicts)):
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise ValueError(f"claim {claim}: the checker ended with {done.returncode} before it had answered: {last}")
    return reasons


def find_checker() -> Path:
    """The checker's file.

    Raises:
        ValueError: when there is none, with the remedy.
    """
    # The file is found and not imported: finding a module of a package would import the package.
    spec = importlib.util.find_spec("embedding_principle")
    path = Path(spec.origin or "").parent / "certificates" / "check.py" if spec else None
    try:
        if path is None:
            raise FileNotFoundError
        # Opened here, where a kernel's reads are noted: the checker is an input of the chapter that asks it.
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"the checker of certificates cannot be found; {REMEDY}") from error
    return path


def run_checker(files: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Start the checker on files, with the options of :func:`subprocess.run`.

    Raises:
        ValueError: when there is no checker, with the remedy.
    """
    return subprocess.run([sys.executable, "-S", "-I", str(find_checker()), *files], check=False, **options)


def verify(files: Sequence[str]) -> bool:
    """Check files, and every file of those that are zip archives; the checker's answers are printed.

    Returns:
        Whether all are proved.

    Raises:
        ValueError: when there is no checker, with the remedy.
    """
    plain = [name for name in files if Path(name).suffix.lower() != ".zip"]
    codes = [_answered(plain)] if plain else []
    return not any(codes + [_verify_archive(name) for name in files if name not in plain])


def _verify_archive(name: str) -> int:
    """The checker's exit status for what an archive holds; its answers name archive and member."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            members = _unpacked(Path(name), Path(folder))
        except (*_UNREADABLE, ValueError) as error:
            print(f"{name}: refused: {error or type(error).__name__}", flush=True)
            return 1
        return _answered(members, cwd=folder)


def _answered(files: Sequence[str], **options: Any) -> int:
    """The checker's exit status; its answers are passed on, since it says in its own way when an output is full."""
    done = run_checker(files, stdout=subprocess.PIPE, text=True, **options)
    print(done.stdout, end="", flush=True)
    return int(done.returncode)


def _unpacked(path: Path, folder: Path) -> list[str]:
    """Unpack certificates into a folder named as the archive; returns their names below ``folder``.

    Raises:
        ValueError: when it holds something else, or nothing.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        foreign = [name for name in names if not re.fullmatch(r"[\w.-]+\.json", name) or names.count(name) > 1]
        if foreign or not names:
            raise ValueError(f"it holds {foreign[0]!r}, which is no certificate" if foreign else "it is empty")
        if sum(entry.file_size for entry in entries) > LIMIT:
            raise ValueError(f"it holds more than {LIMIT >> 20} MB")
        (folder / path.name).mkdir()
        for entry in entries:
            (folder / path.name / entry.filename).write_bytes(archive.read(entry))
    return [f"{path.name}/{name}" for name in names]
