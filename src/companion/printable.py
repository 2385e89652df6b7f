"""Outputs of a chapter as paper shows them: tables without HTML, and words in place of figures to touch."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode

from companion.tables import list_table, plain

FORMULA = re.compile(r"(\$[^$]+\$|\\\(.+?\\\))")


def make_printable(notebook: NotebookNode) -> None:
    """Give Markdown to every output that otherwise has HTML alone, in place."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data and "image/svg+xml" not in data:
                output["data"] = {"text/markdown": printed("".join(data["text/html"]))}


def printed(html: str) -> str:
    r"""A table in MyST Markdown, or else the words of what is no table.

    >>> print(printed("<table><tr><th>a</th></tr><tr><td>$x$ &lt; 1</td></tr></table>"))
    ```{list-table}
    :header-rows: 1
    :class: printed
    * - a
    * - $x$ \< 1
    ```
    >>> printed('<div><p>Two curves.</p><script type="application/json">{}</script></div>')
    'Two curves\\.'
    """
    page = BeautifulSoup(html, "html.parser")
    for unseen in page(["script", "style"]):
        unseen.decompose()
    if (table := page.find("table")) is None:
        return _text(page)
    rows = _rows(table)
    width = max(map(len, rows))
    header, *body = ([*row, *[""] * (width - len(row))] for row in rows)
    return list_table(header, body, "printed")


def _rows(table: Tag) -> list[list[str]]:
    """The texts of the cells; one that spans several rows or columns stands in the first, and the others are empty."""
    rows: list[list[str]] = []
    hanging: dict[tuple[int, int], None] = {}
    for i, row in enumerate(table.find_all("tr")):
        texts: list[str] = []
        for cell in row.find_all(["th", "td"]):
            while (i, len(texts)) in hanging:
                texts.append("")
            for below in range(1, int(str(cell.get("rowspan", "1")))):
                hanging[i + below, len(texts)] = None
            texts += [_text(cell), *[""] * (int(str(cell.get("colspan", "1"))) - 1)]
        rows.append(texts)
    return rows


def _text(element: Tag) -> str:
    """The words of an element as Markdown that shows just these, and its formulas."""
    parts = FORMULA.split(" ".join(element.get_text(" ").split()))
    return "".join(_formula(part) if i % 2 else _words(part) for i, part in enumerate(parts))


def _words(text: str) -> str:
    """Plain text beside a formula, from which spaces separate it."""
    return f"{' ' * text.startswith(' ')}{plain(text)}{' ' * text.endswith(' ')}" if text.strip() else text


def _formula(text: str) -> str:
    return text if text.startswith("$") else f"${text[2:-2]}$"
