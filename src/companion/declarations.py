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
``verdict`` (by default "reproduced"), ``conditions``, ``true-object`` (with certificates: of which exact object the
claim holds) and ``trusted`` (what rests on a program alone). A long option goes on in indented lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

from companion.claims import Declaration, Number
from companion.plain_yaml import read_number

OPTIONS = ("title", "bound", "control", "factor", "source", "verdict", "conditions", "true-object", "trusted")
_REQUIRED = OPTIONS[:5]
_TEXTS = ("title", "control", "source", "conditions", "true-object", "trusted", "statement")
ROLES = frozenset({"cite:p", "cite:t", "code", "doc", "eq", "glue:text", "math", "numref", "prf:ref", "ref", "term"})
SCHEMES = ("https:", "http:", "mailto:")
_MARKDOWN = MarkdownIt().use(dollarmath_plugin)
_PROSE = MarkdownIt().use(dollarmath_plugin).use(myst_block_plugin).use(myst_role_plugin).use(colon_fence_plugin)
# A link that a page would not make stands there as text; the author is told all the same.
_PROSE.validateLink = lambda url: True  # type: ignore[method-assign]
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
        # JupyterLab keeps older states of the notebooks in directories beside them.
        if path.parent.name != ".ipynb_checkpoints":
            cells = _cells_that_name(claim, path)
            declared = declarations_in(cells) if cells else {}
            if claim in declared:
                return declared[claim]
    return None


def markup_problem(text: str) -> str | None:
    r"""What keeps a text from being shown within other texts, on any page; ``None`` when nothing does.

    It is one paragraph of MyST, without HTML and other ways to it: roles and directives that put in what is no text,
    and links that run scripts.

    Example:
        >>> markup_problem("equal where $a<b$, see {prf:ref}`thm-one`")
        >>> markup_problem("a <b>bold</b> claim")
        'holds HTML'
    """
    tokens = _PROSE.parse(text)
    parts = list(_parts(tokens))
    if any(part.type in {"html_inline", "html_block"} for part in parts):
        return "holds HTML"
    for part in parts:
        role = part.meta.get("name") if part.type == "myst_role" else None
        if role and role not in ROLES:
            return f"holds the role {{{role}}}; the roles that are read are {', '.join(sorted(ROLES))}"
        address = part.attrs.get("href") or part.attrs.get("src") or ""
        scheme = re.match(r"[a-z0-9+.\s-]*:", unquote(str(address)), re.IGNORECASE)
        if scheme and scheme[0].lower() not in SCHEMES:
            return f"holds a link that begins with {scheme[0]!r}, not with {' or '.join(SCHEMES)}"
    if [token.type for token in tokens] not in (["paragraph_open", "inline", "paragraph_close"], ["math_block"]):
        return "is no single paragraph: what it begins with stands for a block"
    return None


def _parts(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _parts(token.children or ())


def _cells_that_name(claim: str, path: Path) -> list[str]:
    """The sources of the Markdown cells of a notebook that speaks of a claim; none where there is no notebook."""
    try:
        text = path.read_text(encoding="utf-8")
        cells = json.loads(text)["cells"] if f"{{claim}} {claim}" in text else []
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


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
        if option in _TEXTS and text and (problem := markup_problem(text)):
            raise ValueError(f"claim {name}: {option} {problem} ({text!r}); write it in plain Markdown")
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
        true_object=options.get("true-object"),
        trusted=options.get("trusted"),
    )


def _literal(name: str, option: str, text: str) -> Number:
    try:
        number = read_number(text.strip())
    except ValueError as error:
        raise ValueError(f"claim {name}: :{option}: {error}") from error
    if number is None:
        raise ValueError(f"claim {name}: :{option}: must end in a number, not {text!r}")
    return number
