"""MyST as plain Markdown: what is rewritten, and that nothing else is."""

from __future__ import annotations

import pytest

from companion.readable import Meaning, directives_in, expand, readable

MACROS = {
    "R": (r"\mathbb{R}", 0),
    "T": (r"\mathsf{T}", 0),
    "rank": (r"\operatorname{rank}", 0),
    "norm": (r"\left\lVert #1 \right\rVert", 1),
    "pair": (r"(#1,#2)", 2),
    "Space": (r"\R^\T", 0),
    "half": (r"\tfrac12\alpha", 0),
}
MEANING = Meaning(
    macros=MACROS,
    value=lambda name: f"<{name}>",
    citation=lambda keys, inner: f"({keys})" if inner else keys,
    reference=lambda label: f"*{label}*",
    claim=lambda name: ["> **Claim.**", ">", rf"> In $\R$, {{glue:text}}`{name}`."],
    number=lambda label: "2.1" if label == "thm" else "",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{glue:text}`a:.1e` of {glue:text}`b`", r"\<a:.1e\> of \<b\>"),
        ("{cite:t}`A,B` and {cite:p}`C`", "A,B and (C)"),
        ("{prf:ref}`thm`, {ref}`the claim <claim-d1-a>`, {doc}`/book/x`", "*thm*, the claim, */book/x*"),
        (
            "{term}`plateau`, {abbr}`SGD (descent)`, {code}`x`, {math}`\\R`",
            r"plateau, SGD (descent), `x`, $\mathbb{R}$",
        ),
        ("a `{ref}` in code, `$\\R$` too, and \\$5", "a `{ref}` in code, `$\\R$` too, and \\$5"),
        ("- item $\\R$\n  goes on\n- *next* {ref}`x`", "- item $\\mathbb{R}$\n  goes on\n- *next* *x*"),
        ("> quoted {ref}`x`\n> $\\R$", "> quoted *x*\n> $\\mathbb{R}$"),
        ("## Heading in $\\R$\n\ntext", "## Heading in $\\mathbb{R}$\n\ntext"),
        ("from {glue:text}`a\n  long`\nto", "from \\<a long\\>\nto"),
        ("$$\n\\norm{x}\n$$", "$$\n\\left\\lVert x \\right\\rVert\n$$"),
        ("$$\\R$$ (eq-one)", "$$\\mathbb{R}$$"),
        ("(label)=\n# Title", "# Title"),
        ("\\begin{align}\n\\R\n\\end{align}", "\\begin{align}\n\\mathbb{R}\n\\end{align}"),
        ("```python\nx = {ref}\n```", "```python\nx = {ref}\n```"),
        ("![figure](a.png) [link](b.md)  \nbreak", "![figure](a.png) [link](b.md)  \nbreak"),
        ("", ""),
    ],
)
def test_roles_and_formulas_are_rewritten_and_the_rest_stays(text: str, expected: str) -> None:
    assert readable(text, MEANING) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "```{prf:theorem} On $\\R$\n:label: thm\n\nLet $x\\in\\R$.\n\n$$\\R$$\n```",
            "> **Theorem 2.1 (On $\\mathbb{R}$).**\n>\n> Let $x\\in\\mathbb{R}$.\n>\n> $$\\mathbb{R}$$",
        ),
        ("```{prf:lemma}\nNo label.\n```", "> **Lemma.**\n>\n> No label."),
        (
            "````{dropdown} Proof\n```{prf:proof}\nBy {prf:ref}`thm`.\n```\n````",
            "> **Proof.**\n>\n> By *thm*.",
        ),
        (":::{admonition} A note\n:class: tip\nText.\n:::", "> **A note**\n>\n> Text."),
        ("```{exercise}\n:label: ex\nFind $x$.\n```", "> **Exercise.**\n>\n> Find $x$."),
        ("```{solution} thm\n:class: dropdown\nIt is 3.\n```", "> **Solution of exercise 2.1.**\n>\n> It is 3."),
        ("```{claim} D1-a\n:title: x\n```", "> **Claim.**\n>\n> In $\\mathbb{R}$, \\<D1-a\\>."),
        ("```{math}\n:label: eq\n\\R\n```", "$$\n\\mathbb{R}\n$$"),
        ("```{code-block} python\nx = 1\n```", "```python\nx = 1\n```"),
        (
            "1. item\n\n   ```{note}\n   Inside.\n   ```\n2. next",
            "1. item\n\n   > **Note.**\n   >\n   > Inside.\n2. next",
        ),
    ],
)
def test_directives_become_quotations(text: str, expected: str) -> None:
    assert readable(text, MEANING) == expected


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (r"x^\T y", r"x^{\mathsf{T}} y"),
        (r"A^{\T}", r"A^{\mathsf{T}}"),
        (r"\rank A", r"\operatorname{rank} A"),
        (r"\norm x+\norm{\norm{y}}", r"\left\lVert x \right\rVert+\left\lVert \left\lVert y \right\rVert \right\rVert"),
        (r"\pair{a}{b^{2}}\pair\alpha 1", r"(a,b^{2})(\alpha,1)"),
        (r"\Space", r"\mathbb{R}^{\mathsf{T}}"),
        (r"\half x \halfx", r"\tfrac12\alpha x \halfx"),
        (r"\half{}x", r"\tfrac12\alpha{}x"),
        (r"\Rightarrow\ranks", r"\Rightarrow\ranks"),
        (r"\norm{\{x\}}", r"\left\lVert \{x\} \right\rVert"),
    ],
)
def test_macros_are_written_out(formula: str, expected: str) -> None:
    assert expand(formula, MACROS) == expected


def test_a_macro_of_itself_comes_to_an_end() -> None:
    assert r"\x" in expand(r"\x", {"x": (r"(\x)", 0)})


def test_labels_are_found_within_other_directives() -> None:
    text = "````{dropdown} Proof\n```{prf:lemma} Small\n:label: lem\nText.\n```\n````"
    assert [(one.kind, one.argument, one.label) for one in directives_in(text)] == [
        ("Dropdown", "Proof", ""),
        ("Lemma", "Small", "lem"),
    ]
