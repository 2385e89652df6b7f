"""The archive holds what was executed, and is the same whenever that is."""

import json
import zipfile
from pathlib import Path

import nbformat

from companion.archive import write_archive
from companion.chapters import find_chapters
from companion.execution import executed_path
from companion.ledger import ledger

ROOT = Path(__file__).parents[2]


def test_the_archive_holds_every_executed_chapter_and_the_ledger() -> None:
    first = write_archive(ROOT).read_bytes()
    archive = write_archive(ROOT)
    assert archive.read_bytes() == first
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        for chapter in find_chapters(ROOT):
            content = packed.read(chapter.path.as_posix())
            assert content == executed_path(chapter).read_bytes()
            assert any(cell.get("outputs") for cell in nbformat.reads(content.decode(), 4).cells)
        claims = json.loads(packed.read("claims.json"))
    assert [claim["id"] for claim in claims] == [claim.id for claim in ledger(ROOT)]
