"""Sphinx extension: what stands around the text of every page, and what helps to cite and keep the book.

Pages are mended where themes and other extensions leave barriers, described for search engines and previews, and made
light. The directive ``citations`` shows how to cite, ``executed-archive`` offers the executed notebooks in one file.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from companion.archive import write_archive
from companion.citation import FILE, citations_markdown, read_citations
from companion.slimming import slim_site

# Found → instead, each with its reason.
MENDED = {
    # A name must hold the words that are seen: "Show code cell source" (MyST-NB).
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # A list may hold list items alone, and citations have a role of their own (docutils).
    '<div role="list" class="citation-list">': '<div class="citation-list">',
}
# Sphinx lists the parameters of a long signature as definitions of nothing.
PARAMETERS = re.compile(r'<dl>\n((?:<dd><em class="sig-param">.*?</em>,</dd>\n)+)</dl>')


def dress_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Mend the HTML of a page's text and describe the page (handler of Sphinx's ``html-page-context``)."""
    for found, instead in MENDED.items():
        context["body"] = context.get("body", "").replace(found, instead)
    context["body"] = PARAMETERS.sub(_as_lines, context["body"])
    context["description"] = describe(doctree) if doctree else ""
    site = site_address(os.environ.get("BOOK_REPOSITORY_URL", ""))
    context["address"] = f"{site}{app.builder.get_target_uri(pagename)}" if site else ""


def _as_lines(signature: re.Match[str]) -> str:
    return signature[1].replace("<dd>", '<span class="parameter">').replace("</dd>", "</span>")


def describe(page: nodes.document) -> str:
    """The first paragraph of a page's text without a formula, cut after a word within 200 characters."""
    for paragraph in page.findall(nodes.paragraph):
        prose = isinstance(paragraph.parent, nodes.section) and not any(paragraph.findall(nodes.math))
        # What is shorter leads over to something.
        if prose and len(paragraph.astext()) >= 60:
            return textwrap.shorten(paragraph.astext(), 200, placeholder=" …")
    return ""


def site_address(repository: str) -> str:
    """Where GitHub publishes the pages of a repository; empty for none, or one that lies elsewhere.

    >>> site_address("https://github.com/someone/book"), site_address("")
    ('https://someone.github.io/book/', '')
    """
    parts = urlsplit(repository.removesuffix(".git"))
    names = parts.path.strip("/").split("/")
    if parts.netloc != "github.com" or len(names) != 2:
        return ""
    return f"https://{names[0].lower()}.github.io/{names[1]}/"


class Citations(SphinxDirective):
    """Directive ``citations``: how to cite the book and what it examines, from ``CITATION.cff``."""

    def run(self) -> list[Any]:
        """Make a block of BibTeX and one of text for each record."""
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / FILE))
        return self.parse_text_to_nodes(citations_markdown(read_citations(root)))


class ExecutedArchive(SphinxDirective):
    """Directive ``executed-archive``: a link to all executed notebooks and the ledger, in one file."""

    def run(self) -> list[Any]:
        """Pack the archive as the executed copies are now."""
        self.env.note_reread()
        archive = write_archive(Path(self.env.srcdir))
        place = archive.relative_to(self.env.srcdir).as_posix()
        size = archive.stat().st_size / 1e6
        return self.parse_text_to_nodes(f"{{download}}`{archive.name} ({size:.1f} MB) </{place}>`")


def finish_site(app: Sphinx, exception: Exception | None) -> None:
    """Take from the finished pages what no reader uses (handler of Sphinx's ``build-finished``)."""
    if exception is None and app.builder.format == "html":
        slim_site(Path(app.outdir))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handlers and the directives."""
    app.connect("html-page-context", dress_page)
    app.add_directive("citations", Citations)
    app.add_directive("executed-archive", ExecutedArchive)
    # Last: the theme writes the colours of code when all else is done.
    app.connect("build-finished", finish_site, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
