"""The archive holds what was executed, and is the same whenever that is."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat

from companion.archive import write_archive
from companion.chapters import find_chapters
from companion.execution import executed_path, run_chapter
from companion.ledger import ledger

LONG_AGO = (1980, 1, 1, 0, 0, 0)


def test_the_archive_holds_every_executed_chapter_and_the_ledger(tmp_path: Path, tiny: SimpleNamespace) -> None:
    claim = {"code": [tiny.claim("D1-one")], "boxes": [tiny.box("D1-one")]}
    other = {"code": [tiny.claim("D1-two")], "boxes": [tiny.box("D1-two")]}
    root = tiny.project(tmp_path, {"one": claim, "broken": {"code": ["1 / 0"]}, "two": other})
    one, *_ = chapters = find_chapters(root)
    assert [run_chapter(chapter).failed for chapter in chapters] == [False, True, False]
    archive = write_archive(root)
    first = archive.read_bytes()
    assert write_archive(root).read_bytes() == first
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == ["book/one.ipynb", "book/two.ipynb", "claims.json"]
        assert {file.date_time for file in packed.infolist()} == {LONG_AGO}
        content = packed.read("book/one.ipynb")
        claims = json.loads(packed.read("claims.json"))
    assert content == executed_path(one).read_bytes()
    assert any(cell.get("outputs") for cell in nbformat.reads(content.decode(), 4).cells)
    assert [claim["id"] for claim in claims] == [claim.id for claim in ledger(root)] == ["D1-one", "D1-two"]
