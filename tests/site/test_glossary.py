"""The glossary and the links to it: on a small project, on the page's source, and in the rendered book."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sphinx.application import Sphinx

from companion.sphinx_glossary import GLOSSARY

WORDS = """# Words

```{glossary}
decade
epoch of ten
  A factor of *ten*, such as 2.5 to 25. It has no unit.

plateau
  A stretch of some {term}`decades <decade>`.
```

[no term](https://book.invalid)
"""
PAGE = "# Page\n\nFor a {term}`Decade`, an {term}`epoch of ten`, on the {term}`plateau`.\n"


def titles(html: str) -> list[tuple[str, str | None]]:
    """The links of a page to terms: their text and their title."""
    links = re.findall(r'<a class="reference internal" ([^>]*)><span class="xref std std-term">([^<]*)<', html)
    found = [(text, re.search('title="([^"]*)"', attributes)) for attributes, text in links]
    return [(text, title[1] if title else None) for text, title in found]


def built(folder: Path, **pages: str) -> Path:
    """A small project rendered with the extension; returns the folder of the pages."""
    (folder / GLOSSARY).parent.mkdir(parents=True)
    for name, text in pages.items():
        (folder / (f"{GLOSSARY}.md" if name == "glossary" else f"{name}.md")).write_text(text, encoding="utf-8")
    settings = {"extensions": ["myst_parser", "companion.sphinx_glossary"], "html_theme": "basic", "root_doc": "page"}
    out = folder / "out"
    Sphinx(folder, None, out, folder / "doctrees", "html", settings, status=None, warning=None).build(force_all=True)
    return out


def test_a_link_to_a_term_has_the_first_sentence_of_the_definition_as_title(tmp_path: Path) -> None:
    out = built(tmp_path, page=PAGE, glossary=WORDS)
    ten, stretch = "A factor of ten, such as 2.5 to 25.", "A stretch of some decades."
    page = (out / "page.html").read_text(encoding="utf-8")
    assert titles(page) == [("Decade", ten), ("epoch of ten", ten), ("plateau", stretch)]
    # On the glossary's own page too, and no other link gets a title.
    words = (out / f"{GLOSSARY}.html").read_text(encoding="utf-8")
    assert titles(words) == [("decades", ten)]
    assert 'title="A' not in words.replace(f'title="{ten}"', "")


def test_a_draft_without_the_glossary_is_rendered_without_titles(tmp_path: Path) -> None:
    page = (built(tmp_path, page=PAGE) / "page.html").read_text(encoding="utf-8")
    assert "Decade" in page
    assert titles(page) == []


def test_first_sentences_read_well_as_plain_text(root: Path) -> None:
    """A title shows no formula and no link, and is short enough to be read at a glance."""
    entries = re.findall(r"^\w[^\n]*\n  ((?:[^\n]|\n  )+)", (root / f"{GLOSSARY}.md").read_text("utf-8"), re.MULTILINE)
    sentences = [re.split(r"(?<=[.!?])\s+(?=[A-Z{])", entry, maxsplit=1)[0] for entry in entries]
    assert len(sentences) > 50
    assert not [sentence for sentence in sentences if re.search(r"[$`{\\]", sentence) or len(sentence) > 200]


@pytest.mark.rendered
def test_every_link_to_a_term_says_what_it_means(site: Path) -> None:
    found = {path: titles(path.read_text(encoding="utf-8")) for path in site.glob("book/**/*.html")}
    assert any(found.values())
    assert not {path: links for path, links in found.items() if not all(title for _, title in links)}
