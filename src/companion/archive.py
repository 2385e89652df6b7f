"""The executed book as one file to download."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from companion.chapters import find_chapters
from companion.execution import executed_path
from companion.files import write_through
from companion.ledger import ledger

ARCHIVE = Path("_build/archive/executed-book.zip")


def write_archive(root: Path) -> Path:
    """Pack the executed notebooks, with outputs, and the ledger of claims.

    The same executions give the same bytes: the archive notes no time of packing.

    Args:
        root: directory of the project.

    Returns:
        The archive's path.
    """
    copies = {chapter.path: executed_path(chapter) for chapter in find_chapters(root)}
    contents = {path.as_posix(): copy.read_bytes() for path, copy in copies.items() if copy.is_file()}
    claims = [claim.as_json() for claim in ledger(root)]
    contents["claims.json"] = (json.dumps(claims, indent=2, allow_nan=False) + "\n").encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    write_through(root / ARCHIVE, packed.getvalue())
    return root / ARCHIVE
