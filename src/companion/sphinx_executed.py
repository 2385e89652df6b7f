"""Sphinx extension: prose from the committed chapters, outputs from their executed copies.

The renderer runs no kernel. While Sphinx reads a chapter, the outputs in ``_build/executed/`` are put into its cells,
matched by cell id, so the page and the tests show one and the same execution; a missing or stale copy fails the build.
The directive ``claim`` shows what the prose declares with what the copy measured. ``claims-table`` and ``status-table``
are made from the same copies; ``benchmark-tables`` shows what ``make benchmark`` left in ``benchmarks/results``, and
``trust-report`` what ``make trust`` left in ``trust/results.json``.

With the configuration value ``companion_draft`` a page shows what there is, stale or missing: for authors. With
``companion_run``, the path of a copy that was executed with a reader's parameters, a chapter shows that one.
"""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.patches import Figure
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.typing import ExtensionMetadata

from companion.campaign import trust_markdown
from companion.certificates import FOLDER, archive_address, find_checker
from companion.chapters import Chapter, ProjectError
from companion.claims import Claim, Declaration, format_number
from companion.downloads import Downloads
from companion.execution import claims_of, executed_path, read_copy, why_stale
from companion.interactive import KINDS
from companion.ledger import ledger, status
from companion.measuring import MEASURED_MIME
from companion.plain_yaml import write_yaml
from companion.printable import make_printable
from companion.repository import colab_url
from companion.tables import (
    badge,
    benchmarks_markdown,
    claims_markdown,
    code_span,
    list_table,
    plain,
    seal_span,
    status_markdown,
)

EXPLAINED = "book/certificates/proof"  # the page that says what the checker does
REMEDY = "`make book` executes what is stale and renders again"
STYLES = ("uplot/uPlot.min.css", "interactive/interactive.css")
SCRIPTS = (
    "uplot/uPlot.iife.min.js",
    *(f"interactive/{name}.js" for name in ("page", "network", *KINDS)),  # each uses those before it
)


def show_executed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a chapter's source by the same notebook with outputs (handler of Sphinx's ``source-read``).

    Raises:
        ExtensionError: no executed copy, or one made from other code, library files, data or versions; not for a draft.
    """
    chapter = Chapter(Path(app.srcdir), Path(f"{docname}.ipynb"))
    if Path(app.env.doc2path(docname)).suffix != ".ipynb":
        return
    notebook = nbformat.reads(source[0], as_version=4)
    copy = _shown_copy(chapter, app.config)
    executed = read_copy(copy)
    if executed is None and not app.config.companion_draft:
        found = "its executed copy was changed after its execution" if copy.is_file() else "it has no executed copy"
        raise ExtensionError(f"{chapter.path}: {found}; {REMEDY}")
    if executed is not None:
        app.env.note_dependency(str(copy))
        differing = insert_outputs(notebook, executed)
        if not app.config.companion_draft:
            _require_fresh(chapter, differing)
    _open_with_result(notebook)
    if app.builder.format == "latex":
        make_printable(notebook)
    if app.config.companion_run and executed is not None:
        _insert_given(notebook, executed)
    box = f"{rerun_box(chapter)}\n{downloads_line(docname)}"
    notebook.cells.append(nbformat.v4.new_markdown_cell(box))
    source[0] = nbformat.writes(notebook)


def _shown_copy(chapter: Chapter, config: Config) -> Path:
    """The executed copy that the pages show of a chapter: the book's own, or a reader's run."""
    return chapter.root / config.companion_run if config.companion_run else executed_path(chapter)


def _insert_given(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Below the title say that this is a run of the reader's own; behind the book's parameters show those given."""
    given = [cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    places = [i for i, cell in enumerate(notebook.cells, 1) if "parameters" in cell.metadata.get("tags", [])]
    for place in places:
        notebook.cells[place:place] = given
    note = ["````{admonition} A run with other parameters than the book's", ":class: rerun", "", "```python"]
    note += [cell.source.strip() for cell in given] + ["```", "````"]
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("\n".join(note)))


def _open_with_result(notebook: NotebookNode) -> None:
    """Below the title the list of the chapter's claims and, moved up from its cell, the figure tagged ``headline``."""
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    opening = [nbformat.v4.new_markdown_cell(f"{title}\n\n```{{chapter-claims}}\n```")]
    for cell in notebook.cells:
        if "headline" in cell.metadata.get("tags", []):
            figures = [output for output in cell.outputs if "image/svg+xml" in output.get("data", {})]
            cell.outputs = [output for output in cell.outputs if output not in figures]
            metadata = {"tags": ["remove-input"], "mystnb": cell.metadata.pop("mystnb", {})}
            # Not empty, or the renderer would pass over it; the reader sees the outputs alone.
            opening.append(nbformat.v4.new_code_cell("...", outputs=figures, metadata=metadata))
    first.source = rest
    notebook.cells[:0] = opening


def _require_fresh(chapter: Chapter, differing: list[str]) -> None:
    if differing:
        raise ExtensionError(f"{chapter.path}: code cell {differing[0]!r} differs from the executed copy; {REMEDY}")
    if reason := why_stale(chapter, executed_path(chapter)):
        raise ExtensionError(f"{chapter.path}: {reason}; {REMEDY}")


def insert_outputs(notebook: NotebookNode, executed: NotebookNode) -> list[str]:
    """Put the outputs of ``executed`` into the code cells of ``notebook``, in place, matched by cell id.

    What was measured of a claim stays behind: the claim's box shows it.

    Returns:
        The ids of the code cells that are missing from the executed copy or differ from it; they have no outputs.
    """
    done = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    differing = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        if cell.id not in done or done[cell.id].source != cell.source:
            differing.append(cell.id)
            continue
        shown = [output for output in done[cell.id].outputs if MEASURED_MIME not in output.get("data", {})]
        cell.outputs, cell.execution_count = shown, done[cell.id].execution_count
    notebook.metadata["language_info"] = executed.metadata["language_info"]
    return differing


def rerun_box(chapter: Chapter) -> str:
    """The box at a chapter's end, in MyST Markdown: its commands, as a shell takes them, and its parameters."""
    code = "\n".join(["```bash", *(shlex.join(command) for command in _rerun_commands(chapter)), "```"])
    rows = [
        (code_span(p.name), code_span(p.code), code_span(str(p.range)) if p.range else "", plain(p.help))
        for p in chapter.parameter_cell.values()
    ]
    table = list_table(("Parameter", "Book", "Range", "Meaning"), rows, "parameters-table")
    return f"````{{admonition}} Rerun this chapter\n:class: rerun\n\n{code}\n\n{table}\n````\n"


def _rerun_commands(chapter: Chapter) -> list[list[str]]:
    """Commands that run a chapter, with the first of its parameters that both can set in a line as an example."""
    path, here, there = chapter.path.as_posix(), [], []
    for name, default in chapter.parameters.items():
        if (default is None or type(default) in (bool, int, float, str)) and str(default).isprintable():
            here = ["-p", f"{name}={write_yaml(default)}"]
            # What papermill takes for a number, it would put in as one.
            there = ["-r" if isinstance(default, str) else "-p", name, str(default)]
            break
    return [
        ["python", "-m", "companion", "run", chapter.name, *here],
        ["papermill", path, "rerun.ipynb", *there],
        ["jupyter", "lab", path],
    ]


def downloads_line(docname: str) -> str:
    """The links to a chapter's notebooks, which :func:`write_downloads` puts there."""
    to_run, executed = (f"{'../' * docname.count('/')}{path}" for path in _downloads(docname))
    return (
        f'Download this chapter: <a href="{to_run}" download>the notebook to run</a> (no outputs), or '
        f'<a href="{executed}" download>the executed notebook</a>.\n'
    )


def _downloads(docname: str) -> tuple[str, str]:
    """Where the notebook to run and the executed one are, relative to the pages' folder."""
    place = f"_sources/{quote(docname)}"
    return f"{place}.ipynb", f"{place}.executed.ipynb"


def offer_downloads(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Name both notebooks in the theme's menu of downloads (handler of ``html-page-context``)."""
    groups = [button for button in context.get("header_buttons", []) if button.get("label") == "download-buttons"]
    if not groups or not context.get("page_source_suffix", "").endswith(".ipynb"):
        return
    texts = ("Notebook to run", "Executed notebook")
    links = [
        {
            "type": "link",
            "url": f"{'../' * pagename.count('/')}{path}",
            "text": text,
            "tooltip": f"Download: {text.lower()}",
            "icon": "fas fa-file",
            "label": f"download-{text.split()[0].lower()}-button",
        }
        for path, text in zip(_downloads(pagename), texts, strict=True)
    ]
    (group,) = groups
    for launch in context["header_buttons"] if app.config.companion_repository else []:
        if launch.get("label") == "launch-buttons":
            launch["buttons"].append(_colab_button(app, pagename))
    group["buttons"] = links + [button for button in group["buttons"] if button["label"] != "download-source-button"]


def _colab_button(app: Sphinx, pagename: str) -> dict[str, str]:
    """Colab opens the notebook to run, which brings what it needs; the theme's own button opens the bare source."""
    name = Chapter(Path(app.srcdir), Path(f"{pagename}.ipynb")).name
    return {
        "type": "link",
        "url": colab_url(app.config.companion_repository, name),
        "text": "Colab",
        "tooltip": "Launch on Colab",
        "icon": "_static/images/logo_colab.png",
    }


def write_downloads(app: Sphinx, exception: Exception | None) -> None:
    """Put what the pages offer beside them: notebooks, and certificates (handler of ``build-finished``)."""
    if exception is not None or app.builder.format != "html":
        return
    counted = [labels for kinds in app.env.toc_fignumbers.values() for labels in kinds.values()]
    numbers = {label: ".".join(map(str, number)) for labels in counted for label, number in labels.items()}
    root = Path(app.srcdir)
    run = root / app.config.companion_run if app.config.companion_run else None
    downloads = Downloads(root, numbers, run, app.config.companion_repository)
    for docname in sorted(app.env.found_docs):
        path = Path(app.env.doc2path(docname)).relative_to(root)
        if path.suffix == ".ipynb":
            chapter = Chapter(root, path)
            for notebook, place in zip((downloads.to_run, downloads.executed), _downloads(docname), strict=True):
                target = Path(app.outdir, unquote(place))
                target.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook(chapter), target)
            _write_certificates(app, chapter)


def _write_certificates(app: Sphinx, chapter: Chapter) -> None:
    """Put the certificates of a chapter's claims beside the pages, and the checker beside them."""
    for claim in claims_of(chapter, _shown_copy(chapter, app.config))[0]:
        if carried := claim.measurement.certificates:
            target = Path(app.outdir, archive_address(claim.id))
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(carried.archive(claim.id))
            checker = find_checker()
            target.with_name(checker.name).write_bytes(checker.read_bytes())


def fresh_project(env: BuildEnvironment) -> Path:
    """The project's directory, when every chapter is executed; the page that asks is read again in each build.

    Raises:
        ExtensionError: naming a chapter whose executed copy is not good: a table would be silent about it.
    """
    env.note_reread()
    root = Path(env.srcdir)
    for chapter in [] if env.config.companion_draft else status(root):
        if chapter.state != "fresh":
            facts = "".join(f"; {problem}" for problem in chapter.problems)
            raise ExtensionError(f"{chapter.path}: its executed copy is {chapter.state}{facts}; {REMEDY}")
    return root


class ClaimBox(SphinxDirective):
    """Directive ``claim``: the box of a claim, at the place where the prose declares it.

    The declaration is read by :mod:`companion.declarations`, as everywhere; docutils sees neither options nor content.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Join the declaration with what the executed copy measured, and make the claim a target of ``{ref}``."""
        name = self.arguments[0]
        chapter = Chapter(Path(self.env.srcdir), Path(f"{self.env.docname}.ipynb"))
        try:
            declared = chapter.declarations.get(name) if (chapter.root / chapter.path).is_file() else None
        except ProjectError as error:
            raise ExtensionError(str(error)) from error
        if declared is None:
            raise self.error(f"claim {name}: declare it in a Markdown cell of a chapter, in a fence of its own")
        claims = claims_of(chapter, _shown_copy(chapter, self.config))[0]
        anchor = f"claim-{name}"
        labels: Any = self.env.domains["std"]
        labels.note_hyperlink_target(anchor.lower(), self.env.docname, anchor, declared.title)
        return list(self._box(declared, next((claim for claim in claims if claim.id == name), None)))

    def _box(self, declared: Declaration, claim: Claim | None) -> Iterator[nodes.Node]:
        verdict = claim.verdict if claim else "not measured"
        label = html.escape(f"Claim {declared.id}, {verdict}")
        kind = verdict.replace(" ", "-")
        yield _html(f'<div class="claim claim-{kind}" id="claim-{declared.id}" role="group" aria-label="{label}">')
        header = (("title", declared.title), ("id", declared.id), ("verdict", verdict))
        spans = " ".join(f'<span class="claim-{part}">{html.escape(text)}</span>' for part, text in header)
        link = f'<a class="headerlink" href="#claim-{declared.id}" aria-label="Link to claim {declared.id}">#</a>'
        yield _html(f'<p class="claim-header">{spans}{link}</p>')
        printed = self.env.app.builder.format != "html"  # paper gets words in the place of the frame
        if printed:
            yield nodes.paragraph("", "", nodes.strong("", declared.title), nodes.Text(f" ({declared.id}): {verdict}"))
        yield from self._parsed(declared.statement, "claim-statement")
        yield from self._seals(declared, claim)
        yield _html('<dl class="claim-facts">')
        for name, text in _facts(declared, claim):
            yield _html(f'<div class="claim-fact"><dt>{name}</dt><dd>')
            yield from self._parsed(f"**{name}:** {text}" if printed else text)
            yield _html("</dd></div>")
        yield _html("</dl></div>")

    def _seals(self, declared: Declaration, claim: Claim | None) -> Iterator[nodes.Node]:
        """A paragraph for each seal: of which object it holds and where the files are, or what is trusted."""
        texts = {"checked": declared.true_object, "computed": f"Trusted: {declared.trusted}"}
        for kind, words in (claim.seals if claim else {}).items():
            for paragraph in self._parsed(f"{seal_span(kind, words)} {texts[kind] or ''}", "claim-seal"):
                paragraph += self._files(claim) if claim and kind == "checked" else []
                yield paragraph

    def _files(self, claim: Claim) -> list[nodes.Node]:
        """The end of a paragraph: where the certificates are, and the page that explains how they are checked."""
        address, carried = archive_address(claim.id), claim.measurement.certificates
        if carried is None or self.env.app.builder.format != "html":
            return [nodes.Text(f" Files: {address}, beside the pages of the book.")]
        place = f"{'../' * self.env.docname.count('/')}{FOLDER}"
        archive, checker = (
            nodes.reference("", name, refuri=f"{place}/{name}") for name in (Path(address).name, find_checker().name)
        )
        size = nodes.Text(f" ({_size(len(carried.archive(claim.id)))}); checker: ")
        files = [nodes.Text(" Files: "), archive, size, checker]
        if EXPLAINED in self.env.found_docs and self.env.docname != EXPLAINED:
            (how,) = self._parsed(f"{{doc}}`how they are checked </{EXPLAINED}>`")
            files += [nodes.Text("; "), *how.children]
        return [*files, nodes.Text(".")]

    def _parsed(self, text: str, *classes: str) -> list[nodes.Node]:
        """The text as one paragraph; HTML that a substitution makes is refused here, all other by the declaration."""
        parsed = self.parse_text_to_nodes(text)
        for paragraph in parsed:
            if any(paragraph.findall(nodes.raw)):
                raise self.error(f"claim {self.arguments[0]} holds HTML ({text!r}); write it in Markdown")
            paragraph["classes"] += classes
        return parsed


def _facts(declared: Declaration, claim: Claim | None) -> list[tuple[str, str]]:
    facts = [
        ("Source", declared.source),
        ("Measured", format_number(claim.measured) if claim else "not yet"),
        ("Bound", declared.printed_bound),
        ("Control", declared.control + (f": {claim.control}" if claim else "")),
    ]
    return facts + ([("Conditions", declared.conditions)] if declared.conditions else [])


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"


def _html(text: str) -> nodes.Node:
    return nodes.raw("", text, format="html")


class ClaimsTable(SphinxDirective):
    """Directive ``claims-table``: every claim of the book."""

    def run(self) -> list[Any]:
        """Make the table from the executed copies as they are now."""
        table = self.parse_text_to_nodes(claims_markdown(ledger(fresh_project(self.env))))
        if any(list(node.findall(nodes.raw)) for node in table):
            raise self.error("a claim's statement holds HTML; write it in Markdown")
        if self.env.app.builder.format == "latex":
            _share_width(table)
        return table


def _share_width(parts: list[nodes.Node]) -> None:
    """Give the statements of the ledger half of a printed page."""
    for table in (table for part in parts for table in part.findall(nodes.table)):
        table["classes"].append("colwidths-given")
        for column, width in zip(table.findall(nodes.colspec), (20, 36, 12, 12, 11, 9)):
            column["colwidth"] = width


class ChapterClaims(SphinxDirective):
    """Directive ``chapter-claims``: what the chapter examines and what became of it, in a few lines below its title."""

    def run(self) -> list[nodes.Node]:
        """Make the list from the declarations and the executed copy."""
        chapter = Chapter(Path(self.env.srcdir), Path(f"{self.env.docname}.ipynb"))
        claims = claims_of(chapter, _shown_copy(chapter, self.config))[0]
        verdicts = {claim.id: claim.verdict for claim in claims}
        lines = [
            f"- {badge(verdicts.get(name, 'not measured'))} {{ref}}`claim-{name.lower()}`"
            for name in chapter.declarations
        ]
        if not lines:
            return []
        frame = '<nav class="chapter-claims" aria-label="Claims of this chapter">'
        return [_html(frame), *self.parse_text_to_nodes("\n".join(lines)), _html("</nav>")]


class Verdict(SphinxRole):
    """Role ``verdict``: the verdict of a claim, on any page."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Look the claim up in the ledger."""
        claims = {claim.id: claim for claim in ledger(fresh_project(self.env))}
        verdict = claims[self.text].verdict if self.text in claims else "not measured"
        classes = ["verdict", f"verdict-{verdict.replace(' ', '-')}"]
        return [nodes.inline(self.rawtext, verdict, classes=classes)], []


class ChapterFigure(Figure):
    """Directive ``chapter-figure``: the figure of a chapter's cell, named by ``chapter cell-id``, on another page."""

    def run(self) -> list[nodes.Node]:
        """Take the figure from the executed copy; options and caption are those of ``figure``."""
        name, cell = self.arguments[0].split()
        env = self.state.document.settings.env
        chapter = Chapter(Path(env.srcdir), Path("book", f"{name}.ipynb"))
        copy = executed_path(chapter)
        env.note_dependency(str(copy))
        executed = read_copy(copy)
        cells = executed.cells if executed else []
        outputs = (output.get("data", {}) for one in cells if one.id == cell for output in one.get("outputs", []))
        images = [data["image/svg+xml"] for data in outputs if "image/svg+xml" in data]
        if not images:
            raise self.error(f"chapter-figure: the executed copy of {name} has no figure in a cell {cell!r}")
        place = Path("_build", "figures", f"{chapter.path.stem}-{cell}.svg")
        (chapter.root / place).parent.mkdir(parents=True, exist_ok=True)
        (chapter.root / place).write_text(images[0], encoding="utf-8")
        self.arguments[0] = f"/{place.as_posix()}"
        return list(super().run())


class StatusTable(SphinxDirective):
    """Directive ``status-table``: what was executed when, how long it took, and on what."""

    def run(self) -> list[Any]:
        """Make the tables from the executed copies as they are now."""
        root = fresh_project(self.env)
        return self.parse_text_to_nodes(status_markdown(status(root), ledger(root)))


class BenchmarkTables(SphinxDirective):
    """Directive ``benchmark-tables``: the paired measurements in ``benchmarks/results``."""

    def run(self) -> list[Any]:
        """Make a section of each file, in the order of their names."""
        files = sorted(Path(self.env.srcdir, "benchmarks", "results").glob("*.json"))
        for path in files:
            self.env.note_dependency(str(path))
        sections = benchmarks_markdown([_benchmark(path) for path in files])
        return self.parse_text_to_nodes(sections, allow_section_headings=True)


class TrustReport(SphinxDirective):
    """Directive ``trust-report``: what `make trust` left in ``trust/results.json``."""

    def run(self) -> list[Any]:
        """Make a section of each part of the campaign; the sources that it compares may change at any time."""
        root = Path(self.env.srcdir)
        self.env.note_reread()
        try:
            sections = trust_markdown(root)
        except ValueError as error:
            raise ExtensionError(str(error)) from error
        return self.parse_text_to_nodes(sections, allow_section_headings=True)


def _benchmark(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        benchmarks_markdown([result])  # alone, so that the file that is none is named
        return result
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExtensionError(f"{path}: not what `make benchmark` writes ({error!r}); run it again") from error


def load_scripts(app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Load the scripts of interactive figures where there is one (handler of Sphinx's ``html-page-context``)."""
    if 'class="interactive"' in context.get("body", ""):
        for style in STYLES:
            app.add_css_file(style)
        for script in SCRIPTS:
            app.add_js_file(script, loading_method="defer")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handlers and the directives."""
    app.connect("source-read", show_executed)
    app.connect("html-page-context", load_scripts)
    app.connect("html-page-context", offer_downloads, priority=502)  # behind the theme, which makes the menu
    app.connect("build-finished", write_downloads)
    app.add_config_value("companion_draft", False, "env", bool)
    app.add_config_value("companion_run", "", "env", str)
    app.add_config_value("companion_repository", "", "html", str)
    app.add_directive("claim", ClaimBox)
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("chapter-claims", ChapterClaims)
    app.add_directive("chapter-figure", ChapterFigure)
    app.add_role("verdict", Verdict())
    app.add_directive("status-table", StatusTable)
    app.add_directive("benchmark-tables", BenchmarkTables)
    app.add_directive("trust-report", TrustReport)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
