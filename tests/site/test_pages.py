"""The rendered pages as files: complete, up to date, linked, and free of anything from another host."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from fontTools.ttLib import TTFont
from jinja2 import Environment
from sphinx.application import Sphinx

from companion.chapters import find_chapters
from companion.claims import format_number
from companion.ledger import ledger
from companion.rendering import STAMP, rendering_digest
from companion.slimming import icon_signs
from companion.sphinx_pages import dress_page

LOADING = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
    ("embed", "src"),
}
LOADED_LINKS = {"stylesheet", "preload", "icon", "modulepreload", "prefetch", "preconnect", "dns-prefetch"}


class Page(HTMLParser):
    """What the tests ask of a page: its elements, the headings of its article, the text outside code and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.headings: list[int] = []
        self.hidden = self.in_article = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.hidden += tag in ("script", "style", "pre", "code")
        self.in_article += tag == "article"
        if self.in_article and re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style", "pre", "code")
        self.in_article -= tag == "article"

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.text.append(data)

    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.elements if "id" in attributes}

    def loaded(self) -> Iterator[str]:
        """Addresses that a browser fetches by itself when it shows the page."""
        for tag, attributes in self.elements:
            yield from (value for name, value in attributes.items() if (tag, name) in LOADING)
            if tag == "link" and LOADED_LINKS & set(attributes.get("rel", "").split()):
                yield attributes["href"]


@cache
def parsed(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def path(site: Path, page_name: str) -> Path:
    path = site / page_name
    assert path.is_file(), f"_toc.yml lists {page_name}, but the book was rendered without it"
    return path


@pytest.mark.rendered
def test_the_book_is_rendered_from_the_present_files(root: Path) -> None:
    rendered = json.loads((root / STAMP).read_text(encoding="utf-8"))["inputs"]
    assert rendered == rendering_digest(root), "the pages are older than their sources; run `make book`"


def test_the_index_leads_to_the_first_page(site: Path, first_page: str) -> None:
    assert first_page in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_another_host(path: Path) -> None:
    foreign = [address for address in parsed(path).loaded() if urlsplit(address).netloc]
    assert not foreign


def test_no_style_sheet_loads_from_another_host(site: Path) -> None:
    loads = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^)"'\s]+)""")
    found = {sheet.name: loads.findall(sheet.read_text(encoding="utf-8")) for sheet in site.rglob("*.css")}
    assert found
    assert not {name: addresses for name, addresses in found.items() if addresses}


def test_the_book_is_light(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.is_file()]
    read = [path for path in files if path.relative_to(site).parts[0] not in ("_sources", "_downloads")]
    assert sum(path.stat().st_size for path in read) <= 12e6
    assert not [path.name for path in files if path.suffix == ".map"]


def test_every_icon_has_its_sign(site: Path) -> None:
    """The fonts hold only icons that are used; one that a page names and no font has would be an empty box."""
    css = (site / "_static/styles/pydata-sphinx-theme.css").read_text(encoding="utf-8")
    fonts = (site / "_static/vendor/fontawesome/webfonts").glob("*.woff")
    signs = {sign for font in fonts for sign in TTFont(font).getBestCmap()}
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    classes = {
        word for page in pages for found in re.findall(r'class="([^"]*\bfa-[^"]*)"', page) for word in found.split()
    }
    named = {name for name in classes if name.startswith("fa-")} - {"fa-solid", "fa-regular", "fa-brands", "fa-lg"}
    assert {"fa-magnifying-glass", "fa-bars", "fa-sun"} <= named
    for name in named:
        (rule,) = re.findall(rf'\.{name}:+before[^{{}}]*\{{(content:"[^"]*")\}}', css)
        assert icon_signs(rule) <= signs, name


def test_links_within_the_book_lead_somewhere(path: Path) -> None:
    broken = []
    for tag, attributes in parsed(path).elements:
        address = urlsplit(attributes.get("href", ""))
        if tag != "a" or address.scheme or address.netloc or "href" not in attributes:
            continue
        target = (path.parent / unquote(address.path)).resolve() if address.path else path
        anchor = unquote(address.fragment)
        if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in parsed(target).ids()):
            broken.append(attributes["href"])
    assert not broken


def test_every_number_in_the_prose_is_glued(path: Path) -> None:
    text = "".join(parsed(path).text)
    missing = re.findall(r"pasted text not found[^.]*|glue:text|\{glue[^}]*\}|key not found[^.]*", text, re.IGNORECASE)
    assert not missing


def test_headings_descend_one_level_at_a_time(path: Path) -> None:
    levels = parsed(path).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    skipped = [(above, below) for above, below in zip(levels, levels[1:]) if below > above + 1]
    assert not skipped


def test_the_page_names_its_language(path: Path) -> None:
    assert dict(parsed(path).elements)["html"]["lang"].startswith("en")


def test_the_page_describes_itself(path: Path) -> None:
    said = {tag.get("name") or tag.get("property"): tag.get("content", "") for tag in metas(path)}
    assert len(said["description"]) >= 40
    assert said["og:description"] == said["description"]
    assert said["og:title"]
    # Absolute addresses are the publisher's: `make book` is given none.
    assert "og:url" not in said


def metas(path: Path) -> list[dict[str, str]]:
    return [attributes for tag, attributes in parsed(path).elements if tag == "meta"]


def test_every_claim_shows_its_address(site: Path, root: Path) -> None:
    for claim in ledger(root):
        elements = parsed(site / "book" / f"{claim.chapter}.html").elements
        links = [entry for tag, entry in elements if tag == "a" and entry.get("class") == "headerlink"]
        assert [link["aria-label"] for link in links if link["href"] == f"#claim-{claim.id}"] == [
            f"Link to claim {claim.id}"
        ]


def test_the_executed_book_can_be_downloaded(site: Path, root: Path) -> None:
    elements = parsed(site / "book/appendix/licence.html").elements
    (address,) = [entry["href"] for tag, entry in elements if tag == "a" and entry["href"].endswith(".zip")]
    with zipfile.ZipFile(site / "book/appendix" / address) as archive:
        assert {chapter.path.as_posix() for chapter in find_chapters(root)} < set(archive.namelist())


def test_the_table_of_claims_shows_every_claim(site: Path, root: Path) -> None:
    claims = ledger(root)
    assert claims
    page = parsed(site / "book/claims.html")
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a" and "href" in attributes}
    text = " ".join(" ".join(page.text).split())
    for claim in claims:
        assert any(link.endswith(f"{claim.chapter}.html#claim-{claim.id}") for link in links), claim.id
        assert format_number(claim.measured) in text, claim.id
        assert claim.bound in text, claim.id
        assert claim.verdict in text, claim.id


def test_the_ledger_lies_beside_the_first_page(site: Path, root: Path) -> None:
    entries = json.loads((site / "claims.json").read_text(encoding="utf-8"))
    assert entries == [claim.as_json() for claim in ledger(root)]


def test_the_certificates_beside_the_pages_are_those_of_the_ledger(site: Path) -> None:
    entries = json.loads((site / "claims.json").read_text(encoding="utf-8"))
    seals = [entry["seal"] for entry in entries if entry["seal"] and entry["seal"]["address"]]
    assert seals
    for seal in seals:
        assert hashlib.sha256((site / seal["address"]).read_bytes()).hexdigest() == seal["sha256"], seal["address"]
        with zipfile.ZipFile(site / seal["address"]) as archive:
            assert len(archive.namelist()) == seal["certificates"] > 0, seal["address"]


def test_every_claim_has_one_box_in_its_chapter(site: Path, root: Path) -> None:
    for claim in ledger(root):
        page = parsed(site / "book" / f"{claim.chapter}.html")
        boxes = [attributes for _, attributes in page.elements if attributes.get("id") == f"claim-{claim.id}"]
        assert [box["aria-label"] for box in boxes] == [f"Claim {claim.id}, {claim.verdict}"]


def test_the_status_page_names_every_chapter_and_the_versions(site: Path, root: Path) -> None:
    text = " ".join(" ".join(parsed(site / "book/appendix/status.html").text).split())
    for chapter in {claim.chapter for claim in ledger(root)}:
        assert chapter in text
    for package in ("python", "torch", "numpy"):
        assert re.search(rf"{package} \d+\.\d+", text)


def test_every_chapter_says_how_to_rerun_it(site: Path, root: Path) -> None:
    for chapter in {claim.chapter for claim in ledger(root)}:
        html = (site / "book" / f"{chapter}.html").read_text(encoding="utf-8")
        assert "Rerun this chapter" in html
        assert f"{chapter}.ipynb" in html


def test_every_chapter_offers_its_notebooks(site: Path, root: Path) -> None:
    for chapter in find_chapters(root):
        links = {attributes.get("href") for _, attributes in parsed(site / "book" / f"{chapter.name}.html").elements}
        for kind in ("", ".executed"):
            notebook = nbformat.read(site / f"_sources/book/{chapter.name}{kind}.ipynb", as_version=4)
            nbformat.validate(notebook)
            code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
            assert code == [cell.source for cell in chapter.code_cells]
            assert any(cell.get("outputs") for cell in notebook.cells) == bool(kind)
            assert f"../../_sources/book/{chapter.name}{kind}.ipynb" in links


def test_with_an_address_every_page_names_the_preview(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make book` is given no address, so the template is rendered here with what a page would hand it."""
    app = cast(Sphinx, SimpleNamespace(builder=SimpleNamespace(get_target_uri=lambda name: f"{name}.html")))
    for address, expected in (("", []), ("https://github.com/owner/name", ["https://owner.github.io/name/"])):
        monkeypatch.setenv("BOOK_REPOSITORY_URL", address)
        context: dict[str, Any] = {"title": "A page", "docstitle": "A book"}
        dress_page(app, "book/intro", "page.html", context, None)
        layout = (root / "book/templates/layout.html").read_text(encoding="utf-8")
        own = layout.replace('{% extends "!layout.html" %}', "")
        html = Environment(autoescape=True).from_string(own).render(context)
        named = re.findall('property="og:image" content="([^"]*)"', html)
        assert named == [f"{one}_static/preview.png" for one in expected]
