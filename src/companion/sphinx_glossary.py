"""Sphinx extension: a link to a term of the glossary says what the term means, before anybody follows it.

The first sentence of the definition becomes the link's title: browsers show it under a pointer and give it to assistive
technology as the link's description; ``custom.css`` shows it to who comes by the keyboard.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import glossary
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.typing import ExtensionMetadata

GLOSSARY = "book/appendix/glossary"


def first_sentence(text: str) -> str:
    r"""The text up to the first full stop, question or exclamation mark that is followed by a capital letter.

    Args:
        text: a paragraph; all of it is its first sentence if nothing follows.

    Returns:
        The sentence in one line.

    Example:
        >>> first_sentence("A factor of 1.5, e.g. of\nsteps. It has no unit.")
        'A factor of 1.5, e.g. of steps.'
    """
    line = " ".join(text.split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", line, maxsplit=1)[0]


def definitions(document: nodes.document) -> dict[str, str]:
    """The first sentence of each definition in a page's glossaries, by the identifier that links to the term use."""
    items = (item for table in document.findall(glossary) for item in table.findall(nodes.definition_list_item))
    return {
        identifier: first_sentence(item[-1][0].astext())
        for item in items
        for term in item.findall(nodes.term)
        for identifier in term["ids"]
    }


class TermTitles(SphinxPostTransform):
    """Give each link to a term the first sentence of its definition as title."""

    # After Sphinx's ReferencesResolver (10), which makes the links.
    default_priority = 11

    def run(self, **_options: Any) -> None:
        """Look the definitions up in the glossary's page as it was read; a draft may be without."""
        links = [link for link in self.document.findall(nodes.reference) if _is_term(link)]
        if links and GLOSSARY in self.env.found_docs:
            meanings = definitions(self.env.get_doctree(GLOSSARY))
            for link in links:
                link["reftitle"] = meanings[link.get("refid") or link["refuri"].partition("#")[2]]


def _is_term(link: nodes.reference) -> bool:
    return any("std-term" in child.get("classes", []) for child in link.findall(nodes.inline))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transform."""
    app.add_post_transform(TermTitles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
