"""The picture for shared links says what became of the claims."""

import struct
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from companion import figures
from companion.claims import Claim, Declaration, Measurement
from companion.preview import SIZE, draw_preview


def claim(value: float) -> Claim:
    said = Declaration("D1-one", "A title", "A statement.", "<=", 1e-12, "moved", 1e3, "this book")
    return Claim("part/one", said, Measurement("D1-one", value, 2e-3))


def test_it_has_the_size_that_is_asked_for_and_counts_the_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    text = Figure.text

    def heard(self: Figure, x: float, y: float, words: str, **options: object) -> object:
        said.append(words)
        return text(self, x, y, words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "text", heard)
    figures.use_style()  # the style of the chapters, in which Matplotlib lays figures out by itself, changes nothing
    draw_preview("A book", [claim(1e-15), claim(1e-15), claim(1.0)], tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == SIZE
    assert said[:2] == ["A book", "3 claims, executed, each with a control"]
    assert "2 reproduced" in said
    draw_preview("A book", [], tmp_path / "b.png")  # a book without claims has a picture, too
