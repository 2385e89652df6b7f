"""The notebooks that readers download: the chapters with readable text, with and without their outputs."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from companion.chapters import Chapter, find_chapters
from companion.claims import format_number
from companion.execution import claims_of, executed_path, read_copy
from companion.measuring import CERTIFICATES_MIME, GLUE_PREFIX, MEASURED_MIME
from companion.readable import Directive, Meaning, directives_in, quoted, readable
from companion.repository import bootstrap

MISSING = "(not computed)"
LEFT = (MEASURED_MIME, CERTIFICATES_MIME)  # what is left for the pages, and shown by them


@dataclass(frozen=True)
class Label:
    """What a label means.

    Args:
        kind: "Theorem", "Figure" or another word; empty for a page.
        title: in MyST.
        chapter: name of the page that it stands on.
    """

    kind: str
    title: str
    chapter: str


@dataclass(frozen=True)
class Downloads:
    """Makes the notebooks of a project.

    Args:
        root: directory of the project.
        numbers: label → number on the pages, as ``7.1``, for theorems, figures and exercises.
        run: a copy that was executed with a reader's parameters, to be shown in the place of its chapter's.
        repository: the repository's address, if the build was given one: Colab is then provided for.
    """

    root: Path
    numbers: Mapping[str, str]
    run: Path | None = None
    repository: str | None = None

    def to_run(self, chapter: Chapter) -> NotebookNode:
        """The chapter without outputs; its code is that of the book, byte for byte."""
        notebook = self._readable(chapter)
        if self.repository:
            cell = nbformat.v4.new_code_cell(
                bootstrap(self.repository), id="bootstrap", metadata={"tags": ["bootstrap"]}
            )
            notebook.cells.insert(2, cell)
        return notebook

    def executed(self, chapter: Chapter) -> NotebookNode:
        """The chapter with the outputs of its executed copy."""
        notebook, done = self._readable(chapter), self._copy(chapter)
        outputs = {cell.id: cell for cell in done.cells if cell.cell_type == "code"} if done else {}
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.id in outputs:
                cell.execution_count = outputs[cell.id].execution_count
                cell.outputs = list(_shown(outputs[cell.id].outputs))
        return notebook

    @cached_property
    def macros(self) -> dict[str, tuple[str, int]]:
        """The macros that `_config.yml` gives to MathJax."""
        config = yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8")) or {}
        tex = config.get("sphinx", {}).get("config", {}).get("mathjax3_config", {}).get("tex", {})
        pairs = {name: said if isinstance(said, list) else [said, 0] for name, said in tex.get("macros", {}).items()}
        return {name: (text, count) for name, (text, count, *_) in pairs.items()}

    @cached_property
    def labels(self) -> dict[str, Label]:
        """Everything that a reference can mean, in all chapters and pages."""
        found: dict[str, Label] = {}
        for chapter in find_chapters(self.root):
            cells = chapter.notebook.cells
            prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
            found |= _labels(chapter.name, prose)
            for cell in cells:
                figure = cell.metadata.get("mystnb", {}).get("figure", {})
                if "name" in figure:
                    found[figure["name"]] = Label("Figure", "", chapter.name)
            claims = {f"claim-{name.lower()}": said.title for name, said in chapter.declarations.items()}
            found |= {label: Label("Claim", title, chapter.name) for label, title in claims.items()}
        for page in sorted((self.root / "book").rglob("*.md")):
            found |= _labels(Chapter(self.root, page.relative_to(self.root)).name, [page.read_text(encoding="utf-8")])
        return found

    @cached_property
    def bibliography(self) -> dict[str, tuple[str, str, str]]:
        """Key → authors, year and address."""
        from pybtex.database import parse_file

        entries = {}
        for path in sorted((self.root / "book").glob("*.bib")):
            for key, entry in parse_file(str(path), bib_format="bibtex").entries.items():
                names = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
                authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
                entries[key] = authors, entry.fields.get("year", ""), _address(entry.fields)
        return entries

    def _readable(self, chapter: Chapter) -> NotebookNode:
        notebook = copy.deepcopy(chapter.notebook)
        kernel = notebook.metadata["kernelspec"]
        notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
        meaning = self._meaning(chapter)
        notebook.cells = [new for cell in notebook.cells for new in self._cells(cell, meaning)]
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(self._note(chapter), id="about-this-notebook"))
        return notebook

    def _meaning(self, chapter: Chapter) -> Meaning:
        return Meaning(
            macros=self.macros,
            value=lambda name: self._value(chapter, name),
            citation=self._citation,
            reference=lambda label: self._reference(chapter, label),
            claim=lambda name: self._claim(chapter, name),
            number=lambda label: self.numbers.get(label, ""),
        )

    def _cells(self, cell: NotebookNode, meaning: Meaning) -> Iterator[NotebookNode]:
        """A cell as it is downloaded; behind one that draws a figure its caption."""
        if cell.cell_type == "markdown":
            cell.source = readable(cell.source, meaning)
            yield cell
            return
        settings = cell.metadata.pop("mystnb", {})
        yield cell
        if figure := settings.get("figure"):
            caption = readable(figure.get("caption", ""), meaning)
            text = f"**Figure {meaning.number(figure.get('name', ''))}".rstrip() + f".** {caption}"
            yield nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-caption"[-64:])

    def _copy(self, chapter: Chapter) -> NotebookNode | None:
        return read_copy(self._place(chapter))

    def _place(self, chapter: Chapter) -> Path:
        mine = self.run is not None and self.run.name == chapter.path.name
        return self.run if mine and self.run else executed_path(chapter)

    def _note(self, chapter: Chapter) -> str:
        done = self._copy(chapter)
        when = f" of {done.metadata['companion']['executed_at'][:10]}" if done else ""
        return quoted(
            "About this notebook.",
            f"It is the chapter `{chapter.name}` of *Embedding Principle in Depth: a reproducibility companion*. The "
            f"numbers in the text and the verdicts are those of the execution{when}; what you execute does not change "
            "them, and `python -m companion run` compares. The code needs the book's packages `embedding_principle` "
            "and `companion`.",
        )

    def _value(self, chapter: Chapter, content: str) -> str:
        """A glued value in its format: ``name:format``, or ``page::name:format`` for one of another chapter."""
        page, _, rest = content.rpartition("::")
        name, _, form = rest.partition(":")
        if page:
            path = Path(page.lstrip("/")) if page.startswith("/") else Path(chapter.path.parent, page)
            chapter = Chapter(self.root, path)
        done = self._copy(chapter)
        for output in (output for cell in (done.cells if done else []) for output in cell.get("outputs", [])):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                return format(_literal(output["data"][f"{GLUE_PREFIX}text/plain"]), form)
        return MISSING

    def _citation(self, keys: str, inner: bool) -> str:
        texts = []
        for key in (key.strip() for key in keys.split(",")):
            authors, year, address = self.bibliography.get(key, (key, "", ""))
            text = f"{authors}, {year}" if inner else f"{authors} ({year})"
            texts.append(f"[{text}]({address})" if address else text)
        return f"({'; '.join(texts)})" if inner else ", ".join(texts)

    def _reference(self, chapter: Chapter, target: str) -> str:
        label = self.labels.get(target) or self.labels.get(target.removeprefix("/book/"))
        if label is None:
            return target
        meaning = self._meaning(chapter)
        title = readable(label.title, meaning)
        if label.kind in ("", "Claim", "Section"):
            return f"*{title}*"
        text = f"{label.kind} {self.numbers[target]}" if target in self.numbers else f"{label.kind} ({title})"
        page = self.labels.get(label.chapter)
        return text if label.chapter == chapter.name or page is None else f"{text} in *{readable(page.title, meaning)}*"

    def _claim(self, chapter: Chapter, name: str) -> list[str]:
        said = chapter.declarations[name]
        claims = {claim.id: claim for claim in claims_of(chapter, self._place(chapter))[0]}
        claim = claims.get(name)
        facts = {
            "Measured": f"{format_number(claim.measured)}; bound {claim.bound}" if claim else MISSING,
            "Control": said.control + (f": {claim.control}" if claim else ""),
            "Source": said.source,
            "Conditions": said.conditions,
            "Seal": ". ".join(filter(None, [", ".join(claim.seals.values()) if claim else "", said.true_object])),
            "Trusted": said.trusted,
        }
        heading = f"Claim {name}: {said.title}. {claim.verdict.capitalize() if claim else 'Not measured'}."
        lines = [said.statement, "", *(f"- {fact}: {text}" for fact, text in facts.items() if text)]
        return quoted(heading, "\n".join(lines)).split("\n")


def _labels(page: str, texts: list[str]) -> dict[str, Label]:
    """Label → meaning for a page's title, its sections and its directives."""
    titles = [line.lstrip("# ") for text in texts for line in text.split("\n") if line.startswith("# ")]
    found = {page: Label("", titles[0] if titles else page, page)}
    for text in texts:
        for label, title in re.findall(r"^\(([\w-]+)\)=\s*\n+#+ (.*)$", text, re.MULTILINE):
            found[label] = Label("Section", title, page)
        for directive in directives_in(text):
            if directive.label:
                found[directive.label] = _label(directive, page)
    return found


def _label(directive: Directive, page: str) -> Label:
    return Label(directive.kind, directive.argument, page)


def _address(fields: Mapping[str, str]) -> str:
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    return f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else fields.get("url", "")


def _shown(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """What a viewer of notebooks can show: values that were only left for the prose are not."""
    for output in copy.deepcopy(outputs):
        data: Any = output.get("data")
        if data is not None:
            for kind in [kind for kind in data if kind in LEFT or kind.startswith(GLUE_PREFIX)]:
                del data[kind]
            if not data:
                continue
        yield output


def _literal(text: str) -> Any:
    """The value that :func:`companion.measuring.glue` left; what is no literal (nan, inf) as the number it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return float(text)
