"""What the book keeps of others' scripts is what their authors released, byte for byte."""

import hashlib
from pathlib import Path

import pytest

ASSETS = Path("book", "assets")


@pytest.mark.parametrize(("name", "licence"), [("uplot", "The MIT License"), ("mathjax", "Apache License")])
def test_every_file_of_others_is_the_one_that_is_recorded(root: Path, name: str, licence: str) -> None:
    folder = root / ASSETS / name
    lines = (folder / "checksums.txt").read_text("utf-8").splitlines()
    recorded = {file: digest for digest, file in (line.split("  ") for line in lines)}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("README.md", "checksums.txt")]
    found = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == recorded
    assert licence in (folder / "LICENSE").read_text("utf-8")[:200]
