"""Style sheets lose what no page can use, and nothing else."""

from pathlib import Path

import pytest

from companion.purging import purge_site, purged

USED = {"card", "show", "a:b"}


@pytest.mark.parametrize(
    "rule",
    [
        "p{top:0}",
        ".card{top:0}",
        "#show .card>p{top:0}",
        ".card:not(.absent){top:0}",
        ":not(.absent,.other) p{top:0}",
        ":is(.absent,.card) p{top:0}",
        r".a\:b{top:0}",
        'a[href$=".absent"]{top:0}',
        "@font-face{font-family:x;src:url(x.woff)}",
        "@keyframes turn{from{top:0}to{top:1px}}",
        "@media print{.card{top:0}}",
    ],
)
def test_what_may_apply_stays(rule: str) -> None:
    assert purged(rule, USED.__contains__) == rule


@pytest.mark.parametrize(
    "rule",
    [
        ".absent{top:0}",
        ".card .absent{top:0}",
        ".card#absent{top:0}",
        "@media print{.absent{top:0}}",
        ".card:not(.show) .absent:hover{top:0}",
    ],
)
def test_what_needs_an_absent_name_goes(rule: str) -> None:
    assert purged(rule, USED.__contains__) == ""


def test_a_list_of_selectors_loses_those_that_cannot_apply() -> None:
    assert purged(".card,.absent,:is(p,.absent) a{top:0}", USED.__contains__) == ".card,:is(p,.absent) a{top:0}"


def test_names_come_from_pages_and_scripts(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p class='one two' id=three>", encoding="utf-8")
    (tmp_path / "b.js").write_text('x.classList.add("four"); x.className = `tip-${side}`', encoding="utf-8")
    sheet = tmp_path / "c.css"
    sheet.write_text("".join(f".{name}{{top:0}}" for name in ("one", "two", "four", "tip-left", "five", "x-y")))
    purge_site(tmp_path)
    assert sheet.read_text(encoding="utf-8") == ".one{top:0}.two{top:0}.four{top:0}.tip-left{top:0}"
