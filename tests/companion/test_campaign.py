"""The page of the campaign says what was tried, of which sources, and what was found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from companion.campaign import NOT_YET, RESULTS, digest_of, trust_markdown

PART = {
    "commit": "abc",
    "date": "2026-01-02",
    "machine": "a machine",
    "versions": {"torch": "2.0"},
    "seconds": 120,
    "problems": [],
}


@pytest.fixture
def root(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    made: Path = tiny.project(tmp_path, {"one": {"code": ["1"]}})
    (made / "trust").mkdir()
    return made


def write(root: Path, parts: dict[str, dict[str, Any]]) -> None:
    (root / RESULTS).write_text(json.dumps({"parts": parts}), encoding="utf-8")


def test_before_the_campaign_the_page_says_so(root: Path) -> None:
    assert trust_markdown(root) == NOT_YET


def test_the_shortest_part_took_one_minute(root: Path) -> None:
    write(root, {"kills": PART | {"seconds": 20, "tested": {}, "summary": {"kills": 1}}})
    assert "in 1 minute: " in trust_markdown(root)


def test_another_state_of_the_sources_is_said_plainly(root: Path, tiny: SimpleNamespace) -> None:
    tested = {name: digest_of(root, name) for name in ("src/toy", "book", "constraints.txt")}
    write(root, {"kills": PART | {"tested": tested, "summary": {"kills": 1234}}})
    text = trust_markdown(root)
    assert "Done at commit `abc` on 2026-01-02 in 2 minutes" in text
    assert "1,234" in text
    assert "What it tried is as it was then." in text
    assert "Not run yet: *Faults put into the source*" in text
    (root / "book/intro.md").write_text("# Other prose", encoding="utf-8")
    assert "as it was then" in trust_markdown(root)
    (root / "src/toy/third.py").write_text("VALUE = 5", encoding="utf-8")
    tiny.notebook(root / "book/one.ipynb", ["2"])
    assert "**The book is another by now**: `src/toy`, `book` changed since." in trust_markdown(root)


def test_what_is_wrong_is_listed_as_it_is(root: Path) -> None:
    write(root, {"calls": PART | {"problems": ["f: *a* <b>"], "tested": {}, "summary": {"calls": 3}}})
    assert "**Found to be wrong** (1):\n\n- f\\: \\*a\\* \\<b\\>" in trust_markdown(root)


def test_every_value_stands_beside_its_bound_with_its_largest_changes(root: Path) -> None:
    row = {"id": "D1-one", "chapter": "one", "measured": 1e-15, "relation": "<=", "bound": 1e-12}
    changes = [row | {"changes": {"again": 0.0, "two threads": 2e-15}}]
    summary = {"variants": ["again", "two threads", "other versions"], "changes": changes, "untried": ["no network"]}
    write(root, {"executions": PART | {"tested": {}, "summary": summary}})
    text = trust_markdown(root)
    assert "* - `D1-one`\n  - 1e-15\n  - ≤ 1e-12\n  - 0\n  - 2e-15\n  - —" in text
    assert "no network" in text


def test_licences_are_a_table(root: Path) -> None:
    write(root, {"supply": PART | {"tested": {}, "summary": {"packages": [["a", "1", "MIT"]]}}})
    assert "* - a\n  - 1\n  - MIT" in trust_markdown(root)


@pytest.mark.parametrize("content", ["", "[]", '{"parts": {"kills": {}}}'])
def test_a_file_that_is_none_is_named(root: Path, content: str) -> None:
    (root / RESULTS).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"trust/results.json: not what `make trust` writes"):
        trust_markdown(root)
