"""Sphinx extension: what the themes and other extensions leave to be mended on every page."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

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


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handler."""
    app.connect("html-page-context", mend_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
