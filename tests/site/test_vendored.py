"""What the book keeps of others' scripts is what their authors released, byte for byte."""

import hashlib
import re
from pathlib import Path

UPLOT = Path("book", "assets", "uplot")


def test_uplot_is_what_its_readme_says(root: Path) -> None:
    folder = root / UPLOT
    sums = dict(re.findall(r"^\| `(.+)` \| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text("utf-8"), re.M))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del found["README.md"]
    assert found == sums
    assert (folder / "LICENSE").read_text("utf-8").startswith("The MIT License")
