r"""Reading the claims that a chapter declares: ``{claim}`` directives in the Markdown cells of its notebook.

.. code-block:: markdown

    ```{claim} D1-output
    :title: Outputs are preserved
    :bound: <= 1e-12
    :control: one weight moved by $10^{-3}$
    :factor: 1e3
    :source: {cite:t}`Bai2024`; {prf:ref}`thm-lifting`

    For $\theta'\in\Lifted(\theta)$ the outputs on $S$ are those of $\theta$ (largest difference).
    ```

Options: ``title``, ``bound`` (relation and number), ``control``, ``factor``, ``source``, and where they apply
``verdict`` (by default "reproduced") and ``conditions``. A long option goes on in indented lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from companion.claims import Declaration, Number

OPTIONS = ("title", "bound", "control", "factor", "source", "verdict", "conditions")
_REQUIRED = OPTIONS[:5]
_MARKDOWN = MarkdownIt().use(dollarmath_plugin)
_OPTION = re.compile(r":([\w-]+):[ \t]*(.*(?:\n[ \t]+\S.*)*)\n?")


def declarations_in(cells: Iterable[str]) -> dict[str, Declaration]:
    r"""The declared claims by id, in the order of the prose.

    Args:
        cells: the sources of the Markdown cells.

    Raises:
        ValueError: naming the claim and the option that is missing, unknown or wrong, or an id that is used twice.

    Example:
        >>> options = ":title: One\n:bound: == 1\n:control: two\n:factor: 1\n:source: me"
        >>> declarations_in([f"```{{claim}} D1-one\n{options}\n\nIt is.\n```"])["D1-one"].bound
        1
    """
    declared: dict[str, Declaration] = {}
    for name, body in _directives(cells):
        if name in declared:
            raise ValueError(f"claim {name} is declared twice")
        declared[name] = _declaration(name, body)
    return declared


def declared_nearby(claim: str, start: Path) -> Declaration | None:
    """The declaration of a claim in the project around a directory, if there is one: for notebooks that run by hand.

    Args:
        claim: its id.
        start: a directory of the project, or of nothing.
    """
    roots = (directory for directory in (start, *start.parents) if (directory / "_toc.yml").is_file())
    for path in sorted(next(roots, Path("/nowhere")).glob("book/**/*.ipynb")):
        text = path.read_text(encoding="utf-8")
        # JupyterLab keeps older states of the notebooks in directories beside them.
        if f"{{claim}} {claim}" in text and path.parent.name != ".ipynb_checkpoints":
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
            declared = declarations_in("".join(cell["source"]) for cell in cells)
            if claim in declared:
                return declared[claim]
    return None


def _directives(cells: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Argument and body of every ``{claim}`` fence."""
    for cell in cells:
        for token in _MARKDOWN.parse(cell):
            found = re.fullmatch(r"\{claim\}\s*(.*?)\s*", token.info)
            if token.type == "fence" and found:
                yield found[1], token.content


def _declaration(name: str, body: str) -> Declaration:
    given, place = [], 0
    while found := _OPTION.match(body, place):
        given.append((found[1], " ".join(found[2].split())))
        place = found.end()
    options = dict(given)
    wrong = [f":{key}: is unknown" for key in options if key not in OPTIONS]
    wrong += [f":{key}: is given twice" for key in options if [name for name, _ in given].count(key) > 1]
    wrong += [f":{key}: is missing" for key in _REQUIRED if key not in options]
    if wrong:
        raise ValueError(f"claim {name}: {', '.join(wrong)}; the options are {', '.join(OPTIONS)}")
    statement = " ".join(body[place:].split())
    for option, text in {**options, "statement": statement}.items():
        if _holds_html(text):
            raise ValueError(f"claim {name}: {option} holds HTML ({text!r}); write it in Markdown")
    relation, _, bound = options["bound"].partition(" ")
    return Declaration(
        id=name,
        title=options["title"],
        statement=statement,
        relation=relation,
        bound=_literal(name, "bound", bound),
        control=options["control"],
        factor=_literal(name, "factor", options["factor"]),
        source=options["source"],
        verdict=options.get("verdict", "reproduced"),
        conditions=options.get("conditions"),
    )


def _holds_html(text: str) -> bool:
    """Whether a page would take a part of it for HTML: a tag in a line, or a beginning of one at its start."""
    tokens = [part for token in _MARKDOWN.parse(text) for part in (token, *(token.children or ()))]
    return any(token.type in {"html_inline", "html_block"} for token in tokens)


def _literal(name: str, option: str, text: str) -> Number:
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else float(text)
    except ValueError as error:
        raise ValueError(f"claim {name}: :{option}: must end in a number, not {text!r}") from error
