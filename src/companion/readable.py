r"""MyST Markdown as plain Markdown: for notebooks that are read where no Sphinx is.

Roles become text, directives become quotations with a bold heading, and the book's macros are written out: viewers of
notebooks know none of them. What is plain Markdown already stays as it is, to the letter: the parser says where in the
text roles, formulas and directives stand, and only these places are rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

_OPTION = re.compile(r":([\w-]+):[ \t]*(.*)")
_DIRECTIVE = re.compile(r"\{([\w:.-]+)\}\s*(.*?)\s*")
_TITLED = re.compile(r"(.*?)\s*<([^<>]+)>")
_FORMULAS = ("math_block", "math_block_label", "amsmath")
_DROPPED = ("myst_target", "myst_line_comment", "myst_block_break")
_DEEPEST = 10  # macros within macros


@dataclass(frozen=True)
class Meaning:
    """What the roles and directives of a page stand for.

    Args:
        macros: name of a macro → its text and the number of its arguments.
        value: the text of a glued value, from what stands in ``{glue:text}``.
        citation: the text of a citation, from its keys and whether it stands in parentheses.
        reference: the text of a label or page to which there is no other.
        claim: the lines of a claim's box, in MyST, from its id.
        number: the number of a theorem, figure or exercise, from its label; empty where it has none.
    """

    macros: Mapping[str, tuple[str, int]]
    value: Callable[[str], str]
    citation: Callable[[str, bool], str]
    reference: Callable[[str], str]
    claim: Callable[[str], list[str]]
    number: Callable[[str], str]


@dataclass(frozen=True)
class Directive:
    """A directive of the text.

    Args:
        name: as ``prf:theorem``.
        argument: what follows it in its line.
        options: by name.
        content: its lines, without the options.
    """

    name: str
    argument: str
    options: Mapping[str, str]
    content: str

    @property
    def label(self) -> str:
        """The name by which references mean it."""
        return self.options.get("label") or self.options.get("name") or ""

    @property
    def kind(self) -> str:
        """The word for what it holds: ``Theorem``."""
        return self.name.rpartition(":")[2].replace("-", " ").capitalize()


def readable(text: str, meaning: Meaning) -> str:
    r"""The text in plain Markdown.

    Args:
        text: of a Markdown cell.
        meaning: of what stands in it.

    Example:
        >>> nothing = Meaning({"R": (r"\mathbb{R}", 0)}, lambda name: "7", lambda keys, inner: keys, str, list, str)
        >>> print(readable("In $\\R^n$ there are {glue:text}`count`.", nothing))
        In $\mathbb{R}^n$ there are 7.
    """
    lines = text.split("\n")
    edits = [edit for token in _MARKDOWN.parse(text) if (edit := _edit(token, lines, meaning))]
    for start, end, new in sorted(edits, reverse=True):
        lines[start:end] = new
    return "\n".join(lines)


def directives_in(text: str) -> Iterator[Directive]:
    """The directives of a text, those within others behind them."""
    for token in _MARKDOWN.parse(text):
        if directive := _directive(token):
            yield directive
            yield from directives_in(directive.content)


def expand(formula: str, macros: Mapping[str, tuple[str, int]]) -> str:
    r"""A formula without macros of the book's own.

    Example:
        >>> expand(r"\norm{x}\le\R", {"R": (r"\mathbb{R}", 0), "norm": (r"\lVert #1\rVert", 1)})
        '\\lVert x\\rVert\\le\\mathbb{R}'
    """
    for _ in range(_DEEPEST):
        before, formula = formula, _expand_once(formula, macros)
        if formula == before:
            break
    return formula


def plain_text(text: str) -> str:
    r"""A text as Markdown that shows just this text, with few escapes.

    Example:
        >>> print(plain_text("a_b [c] 1.5e-3"))
        a\_b \[c\] 1.5e-3
    """
    return re.sub(r"([\\`*_$<>\[\]])", r"\\\1", text)


def quoted(heading: str, content: str) -> str:
    """A quotation with a bold heading."""
    lines = [f"**{heading}**", "", *content.strip().split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _parser() -> MarkdownIt:
    """A parser that notes where in a paragraph its roles and formulas stand."""
    parser = MarkdownIt().use(dollarmath_plugin).use(amsmath_plugin)
    parser = parser.use(myst_block_plugin).use(myst_role_plugin).use(colon_fence_plugin)
    rules = {rule.name: rule.fn for rule in parser.inline.ruler.__rules__}
    for name in ("math_inline", "myst_role"):
        parser.inline.ruler.at(name, _placed(rules[name]))
    return parser


def _placed(rule: Callable[..., bool]) -> Callable[..., bool]:
    def placed(state: Any, silent: bool) -> bool:
        start, found = state.pos, rule(state, silent)
        if found and not silent:
            state.tokens[-1].meta = {**state.tokens[-1].meta, "place": (start, state.pos)}
        return found

    return placed


_MARKDOWN = _parser()


def _edit(token: Token, lines: list[str], meaning: Meaning) -> tuple[int, int, list[str]] | None:
    """Lines from, to, and what stands there instead."""
    if token.map is None:
        return None
    start, end = token.map
    indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())] if start < len(lines) else ""
    if directive := _directive(token):
        new = _written(directive, meaning).split("\n")
        return start, end, [(indent + line).rstrip() for line in new]
    if token.type in _FORMULAS:
        formula = "\n".join(lines[start:end])
        formula = re.sub(r"\$\$\s*\([^()]*\)\s*$", "$$", formula) if token.type == "math_block_label" else formula
        return start, end, expand(formula, meaning.macros).split("\n")
    if token.type in _DROPPED:
        return start, end, []
    if token.type == "inline":
        return start, end, _paragraph(token, lines[start:end], meaning)
    return None


def _paragraph(token: Token, lines: list[str], meaning: Meaning) -> list[str]:
    """The lines of a paragraph, each behind what stood before it: spaces, signs of a list, a heading or a quotation."""
    before = [line[: max(line.find(part), 0)] for line, part in zip(lines, token.content.split("\n"), strict=False)]
    new = _inline(token, meaning).split("\n")
    return [before[min(i, len(before) - 1)] + line for i, line in enumerate(new)]


def _inline(token: Token, meaning: Meaning) -> str:
    text = token.content
    for part in reversed([part for part in token.children or () if "place" in part.meta]):
        start, end = part.meta["place"]
        if part.type == "myst_role":
            new = _role(part.meta["name"], part.content, meaning)
        else:
            new = expand(text[start:end], meaning.macros)
        text = text[:start] + new + text[end:]
    return text


def _role(name: str, content: str, meaning: Meaning) -> str:
    content = content if name == "code" else " ".join(content.split())
    titled = _TITLED.fullmatch(content)
    match name:
        case "glue:text":
            return plain_text(meaning.value(content))
        case "cite:t" | "cite:p":
            return meaning.citation(content, name == "cite:p")
        case "math":
            return f"${expand(content, meaning.macros)}$"
        case "code":
            return f"`{content}`"
        case _ if titled:
            return titled[1]
        case "ref" | "prf:ref" | "numref" | "doc" | "eq":
            return meaning.reference(content)
        case _:
            return content


def _directive(token: Token) -> Directive | None:
    found = _DIRECTIVE.fullmatch(token.info) if token.type in ("fence", "colon_fence") else None
    if not found:
        return None
    lines, options = token.content.split("\n"), {}
    while lines and (option := _OPTION.fullmatch(lines[0])):
        options[option[1]] = option[2]
        lines.pop(0)
    return Directive(found[1], found[2], options, "\n".join(lines))


def _written(directive: Directive, meaning: Meaning) -> str:
    """A directive as a quotation; what is folded on the page is unfolded."""
    name, argument = directive.name, readable(directive.argument, meaning)
    match name:
        case "claim":
            return readable("\n".join(meaning.claim(directive.argument)), meaning)
        case "math":
            return f"$$\n{expand(directive.content.strip(), meaning.macros)}\n$$"
        case "code" | "code-block" | "code-cell":
            return f"```{directive.argument}\n{directive.content.strip()}\n```"
    content = readable(directive.content, meaning)
    match name:
        case "prf:proof":
            return quoted("Proof.", content)
        case "solution":
            return quoted(f"Solution of exercise {meaning.number(directive.argument)}".rstrip() + ".", content)
        # A proof says itself what it is.
        case "dropdown" if re.match(r"\s*> \*\*Proof\.\*\*", content):
            return content.strip()
        case "dropdown" | "admonition":
            return quoted(argument, content)
    heading = f"{directive.kind} {meaning.number(directive.label)}".rstrip()
    return quoted(heading + (f" ({argument})" if argument else "") + ".", content)


def _expand_once(formula: str, macros: Mapping[str, tuple[str, int]]) -> str:
    """Every macro replaced by its text; a macro within the text stays for the next time."""
    parts: list[str] = []
    place = 0
    for found in re.finditer(r"\\([A-Za-z]+)", formula):
        if found.start() < place or found[1] not in macros:
            continue
        text, count = macros[found[1]]
        arguments, end = _arguments(formula, found.end(), count)
        for i, argument in enumerate(arguments, 1):
            text = text.replace(f"#{i}", argument)
        before = formula[place : found.start()]
        # An exponent takes one group, and a name does not run into the letter behind it.
        script = (parts[-1] if not before and parts else before).rstrip().endswith(("^", "_"))
        runs_on = re.search(r"\\[A-Za-z]+$", text) and formula[end : end + 1].isalpha()
        parts += [before, f"{{{text}}}" if script else text + " " * bool(runs_on)]
        place = end
    return "".join([*parts, formula[place:]])


def _arguments(formula: str, place: int, count: int) -> tuple[list[str], int]:
    """The arguments of a macro that ends at a place, and where they end: groups in braces, names, or single signs."""
    arguments = []
    for _ in range(count):
        while formula[place : place + 1].isspace():
            place += 1
        end = _end_of_group(formula, place)
        group = formula[place:end]
        arguments.append(group[1:-1] if group.startswith("{") else group)
        place = end
    return arguments, place


def _end_of_group(formula: str, place: int) -> int:
    if formula[place : place + 1] != "{":
        found = re.compile(r"\\[A-Za-z]+|\\?.", re.DOTALL).match(formula, place)
        return found.end() if found else place
    depth = 0
    for i in range(place, len(formula)):
        if formula[i] in "{}" and formula[i - 1 : i] != "\\":
            depth += 1 if formula[i] == "{" else -1
        if depth == 0:
            return i + 1
    return len(formula)
