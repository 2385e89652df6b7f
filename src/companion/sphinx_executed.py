"""Sphinx extension: prose from the committed chapters, outputs from their executed copies.

The renderer runs no kernel. While Sphinx reads a chapter, the outputs in ``_build/executed/`` are put into its cells,
matched by cell id, so the page and the tests show one and the same execution; a missing or stale copy fails the build.
The directives ``claims-table`` and ``status-table`` are made from the same copies; ``benchmark-tables`` shows the
measurements that ``make benchmark`` left in ``benchmarks/results``.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from companion.chapters import Chapter, inputs_digest
from companion.claims import CLAIM_MIME, RELATIONS, claims_of, format_number
from companion.execution import executed_path
from companion.ledger import format_duration, ledger, status

REMEDY = "`make book` executes what is stale and renders again"


def show_executed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a chapter's source by the same notebook with outputs (handler of Sphinx's ``source-read``).

    Raises:
        ExtensionError: no executed copy, or one made from other code, library files, data or versions.
    """
    chapter = Chapter(Path(app.srcdir), Path(f"{docname}.ipynb"))
    if Path(app.env.doc2path(docname)).suffix != ".ipynb":
        return
    copy = executed_path(chapter)
    if not copy.is_file():
        raise ExtensionError(f"{chapter.path}: it has no executed copy; {REMEDY}")
    app.env.note_dependency(str(copy))
    notebook, executed = nbformat.reads(source[0], as_version=4), nbformat.read(copy, as_version=4)
    claims = claims_of(executed)
    insert_outputs(notebook, executed, str(chapter.path))
    if executed.metadata.get("companion", {}).get("inputs") != inputs_digest(chapter):
        raise ExtensionError(f"{chapter.path}: its library, data or versions changed since the execution; {REMEDY}")
    label_claims(app, docname, claims)
    notebook.cells.append(nbformat.v4.new_markdown_cell(rerun_box(chapter)))
    source[0] = nbformat.writes(notebook)


def insert_outputs(notebook: NotebookNode, executed: NotebookNode, name: str) -> None:
    """Put the outputs of ``executed`` into the code cells of ``notebook``, in place, matched by cell id.

    The JSON record of a claim stays behind: it is for the ledger, and myst-nb would warn of a type it cannot show.

    Raises:
        ExtensionError: a code cell is missing from the executed copy or differs from it.
    """
    done = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        if cell.id not in done or done[cell.id].source != cell.source:
            raise ExtensionError(f"{name}: code cell {cell.id!r} differs from the executed copy; {REMEDY}")
        cell.outputs, cell.execution_count = done[cell.id].outputs, done[cell.id].execution_count
        for output in cell.outputs:
            output.get("data", {}).pop(CLAIM_MIME, None)
    notebook.metadata["language_info"] = executed.metadata["language_info"]


def label_claims(app: Sphinx, docname: str, claims: Iterable[Mapping[str, Any]]) -> None:
    """Make the claim boxes of a chapter targets of ``{ref}``: claim D2 is ``{ref}`D2 <claim-d2>```."""
    labels: Any = app.env.domains["std"]
    for claim in claims:
        anchor = f"claim-{claim['id']}"
        labels.note_hyperlink_target(anchor.lower(), docname, anchor, f"Claim {claim['id']}")


def rerun_box(chapter: Chapter) -> str:
    """The box at a chapter's end, in MyST Markdown: its commands and its parameters."""
    parameters = list(papermill.inspect_notebook(str(chapter.root / chapter.path)).values())
    example = [(p["name"], shlex.quote(p["default"].strip("'\""))) for p in parameters[:1]]
    commands = [
        " ".join([f"python -m companion run {chapter.name}", *(f"-p {name}={value}" for name, value in example)]),
        " ".join([f"papermill {chapter.path} rerun.ipynb", *(f"-p {name} {value}" for name, value in example)]),
        f"jupyter lab {chapter.path}",
    ]
    code = "\n".join(["```bash", *commands, "```"])
    rows = [(f"`{p['name']}`", f"`{p['default']}`", p["help"]) for p in parameters]
    table = list_table(("Parameter", "Value in the book", "Meaning"), rows, "parameters-table")
    return f"````{{admonition}} Rerun this chapter\n:class: rerun\n\n{code}\n\n{table}\n````\n"


def claims_markdown(claims: Iterable[Mapping[str, Any]]) -> str:
    """The ledger as MyST Markdown, a table a chapter; each claim links to its box in its chapter."""
    claims = list(claims)
    verdicts = Counter(claim["verdict"] for claim in claims)
    summary = f"{len(claims)} claims: " + ", ".join(f"{count} {badge(verdict)}" for verdict, count in verdicts.items())
    chapters = itertools.groupby(claims, key=lambda claim: claim["chapter"])
    tables = [f"**{{doc}}`/book/{chapter}`**\n\n{_chapter_claims(entries)}" for chapter, entries in chapters]
    return "\n\n".join([summary, *tables]) if claims else "*none*"


def _chapter_claims(claims: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"{{ref}}`{claim['id']} <claim-{claim['id'].lower()}>`",
            claim["statement"],
            format_number(claim["measured"]),
            f"{RELATIONS[claim['relation']]} {format_number(claim['bound'])}",
            badge(claim["verdict"]),
        )
        for claim in claims
    ]
    return list_table(("Claim", "Statement", "Measured", "Bound", "Verdict"), rows, "claims-table")


def badge(verdict: str) -> str:
    """A verdict as a styled span.

    >>> badge("not reproduced")
    '[not reproduced]{.verdict .verdict-not-reproduced}'
    """
    return f"[{verdict}]{{.verdict .verdict-{verdict.replace(' ', '-')}}}"


def list_table(header: Iterable[str], rows: Iterable[Iterable[str]], css_class: str) -> str:
    """A MyST list-table, whose cells, unlike those of a pipe table, may hold ``|`` and formulas.

    >>> print(list_table(["a", "b"], [["1", "$|x|$"]], "plain"))
    ```{list-table}
    :header-rows: 1
    :class: plain
    * - a
      - b
    * - 1
      - $|x|$
    ```
    """
    body = list(rows)
    if not body:
        return "*none*"  # docutils refuses a table that is all header
    lines = ["```{list-table}", ":header-rows: 1", f":class: {css_class}"]
    for row in [header, *body]:
        lines += [f"{'  ' if i else '* '}- {' '.join(cell.split())}" for i, cell in enumerate(row)]
    return "\n".join([*lines, "```"])


def status_markdown(chapters: Iterable[Mapping[str, Any]], claims: Iterable[Mapping[str, Any]]) -> str:
    """The executions as MyST Markdown: a row a chapter, then a row a machine and set of versions."""
    chapters = list(chapters)
    verdicts: dict[str, Counter[str]] = {}
    for claim in claims:
        verdicts.setdefault(claim["chapter"], Counter())[claim["verdict"]] += 1
    rows = [
        (
            f"{{doc}}`{chapter['chapter']} </{chapter['path'].removesuffix('.ipynb')}>`",
            ", ".join(f"{n} {badge(verdict)}" for verdict, n in verdicts.get(chapter["chapter"], {}).items()) or "none",
            f"{chapter['seconds']:.1f}",
            f"{datetime.fromisoformat(chapter['executed_at']):%Y-%m-%d %H:%M %Z}",
        )
        for chapter in chapters
    ]
    header = ("Chapter", "Claims", "Seconds", "Executed at")
    return "\n\n".join([list_table(header, rows, "status-table"), environments_markdown(chapters)])


def environments_markdown(chapters: Iterable[Mapping[str, Any]]) -> str:
    """The machines and versions of the executions as MyST Markdown; usually all chapters share one."""
    environments: dict[tuple[str, ...], list[str]] = {}
    for chapter in chapters:
        versions = (f"{package} {version}" for package, version in chapter["versions"].items())
        environments.setdefault((chapter["machine"], ", ".join(versions)), []).append(chapter["chapter"])
    rows = [(machine, versions, ", ".join(names)) for (machine, versions), names in environments.items()]
    return list_table(("Machine", "Versions", "Chapters"), rows, "environments-table")


def benchmark_markdown(result: Mapping[str, Any]) -> str:
    """One file of ``benchmarks/results`` as MyST Markdown: title, a row a case, and the machine.

    Times are medians of one call; the ratio is the median over paired rounds, with its range; other peers follow.
    """
    rows = []
    for row in result["rows"]:
        peer = row["best_peer"]
        low, high = row["spread"][peer]
        facts = ", ".join(f"{name} {_fact(value)}" for name, value in row["facts"].items())
        others = "".join(f"; {name}: {ratio:.3g}" for name, ratio in row["ratios"].items() if name != peer)
        goal = "" if row["goal"] is None else f"{row['goal']:g}, {'met' if row['met'] else 'missed'}"
        rows.append(
            (
                row["case"] + (f" ({facts})" if facts else ""),
                format_duration(row["seconds"]["ours"]),
                f"{format_duration(row['seconds'][peer])} ({peer})",
                f"{row['ratios'][peer]:.3g} ({low:.3g}–{high:.3g}){others}",
                goal,
            )
        )
    header = ("Case", "Ours", "Best peer", "Ratio (range)", "Goal")
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    return f"## {result['title']}\n\n{list_table(header, rows, 'benchmark-table')}\n\n{machine}.\n"


def _fact(value: float) -> str:
    """A count in full, any other number to three digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.3g}"


def fresh_project(env: BuildEnvironment) -> Path:
    """The project's directory, when every chapter is executed; the page that asks is read again in each build.

    Raises:
        ExtensionError: naming a chapter whose executed copy is missing or stale: a table would be silent about it.
    """
    env.note_reread()
    root = Path(env.srcdir)
    for chapter in status(root):
        if chapter["state"] != "fresh":
            raise ExtensionError(f"{chapter['path']}: its executed copy is {chapter['state']}; {REMEDY}")
    return root


class ClaimsTable(SphinxDirective):
    """Directive ``claims-table``: every claim of the book."""

    def run(self) -> list[Any]:
        """Make the table from the executed copies as they are now."""
        return self.parse_text_to_nodes(claims_markdown(ledger(fresh_project(self.env))))


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
        sections = [benchmark_markdown(json.loads(path.read_text())) for path in files]
        return self.parse_text_to_nodes("\n".join(sections), allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handler and the directives."""
    app.connect("source-read", show_executed)
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("status-table", StatusTable)
    app.add_directive("benchmark-tables", BenchmarkTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
