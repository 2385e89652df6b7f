"""Sphinx extension: what the themes and other extensions leave to be mended on every page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from companion.slimming import slim_site

# Found → instead, each with its reason.
MENDED = {
    # A name must hold the words that are seen: "Show code cell source" (MyST-NB).
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # A list may hold list items alone, and citations have a role of their own (docutils).
    '<div role="list" class="citation-list">': '<div class="citation-list">',
}


def mend_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:  # the signature is Sphinx's
    """Mend the HTML of a page's text (handler of Sphinx's ``html-page-context``)."""
    for found, instead in MENDED.items():
        context["body"] = context.get("body", "").replace(found, instead)


def finish_site(app: Sphinx, exception: Exception | None) -> None:
    """Take from the finished pages what no reader uses (handler of Sphinx's ``build-finished``)."""
    if exception is None and app.builder.format == "html":
        slim_site(Path(app.outdir))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handlers."""
    app.connect("html-page-context", mend_page)
    app.connect("build-finished", finish_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
