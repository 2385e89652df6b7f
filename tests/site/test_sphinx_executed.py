"""The extension on a small project: what it puts into a page, and what it refuses."""

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import nbformat
import pytest
from nbformat import NotebookNode, v4
from papermill.cli import _resolve_type
from papermill.cli import papermill as papermill_cli
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from companion.chapters import Chapter, choose_chapters
from companion.claims import Claim, Declaration, Measurement
from companion.commands import _parser
from companion.execution import sealed
from companion.ledger import Status
from companion.measuring import MEASURED_MIME
from companion.notebooks import Execution
from companion.parameters import parse_parameters
from companion.sphinx_executed import rerun_box, show_executed
from companion.tables import badge, benchmarks_markdown, claims_markdown, environments_markdown, list_table

SOURCE = 'seeds = 4  # how many\nname = "relu"  # an activation'
PROSE = """# One chapter

See {ref}`the claim <claim-d2-line>`.

```{claim} D2-line
:title: Lines & more
:bound: <= 1e-12
:control: one point moved
:factor: 10
:source: Bai2024

Equal where $|x| < 1$.
```
"""


def chapter_notebook() -> NotebookNode:
    notebook = v4.new_notebook(metadata={"companion": {}})
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells = [
        v4.new_markdown_cell(PROSE, id="title"),
        v4.new_code_cell(SOURCE, id="parameters", metadata={"tags": ["parameters"]}),
        v4.new_code_cell("show()", id="claim"),
    ]
    return notebook


def execute(root: Path) -> Path:
    """Write the executed copy that papermill would leave, without a kernel."""
    notebook = chapter_notebook()
    bundle = {"text/plain": "judged", MEASURED_MIME: {"id": "D2-line", "value": 2.5e-16, "control": 0.5}}
    notebook.cells[2].outputs = [v4.new_output("display_data", data=bundle)]
    notebook.metadata["language_info"] = {"name": "python"}
    return write_copy(root, notebook)


def write_copy(root: Path, notebook: NotebookNode) -> Path:
    digest = hashlib.sha256((root / "data.csv").read_bytes()).hexdigest()
    execution = Execution(
        error=None,
        seconds=1.5,
        executed_at="2026-01-02T03:04:05+00:00",
        versions={"python": platform.python_version()},
        machine="a small machine",
        files={"data.csv": digest},
    )
    copy = root / "_build/executed/book/one.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(sealed(notebook, Chapter(root, Path("book/one.ipynb")), {}, execution))
    return copy


def execute_again(root: Path) -> None:
    """Make the copy fresh for the chapter as it is."""
    notebook = nbformat.read(root / "_build/executed/book/one.ipynb", as_version=4)
    chapter = Chapter(root, Path("book/one.ipynb"))
    for cell, committed in zip(notebook.cells, chapter.notebook.cells, strict=True):
        cell.source = committed.source
    write_copy(root, notebook)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n- file: book/one\n- file: book/status\n"
    )
    (tmp_path / "_config.yml").write_text("title: A book of one chapter\n")
    (tmp_path / "book/intro.md").write_text("# Intro\n\n```{claims-table}\n```\n")
    (tmp_path / "book/status.md").write_text("# Status\n\n```{status-table}\n```\n")
    (tmp_path / "data.csv").write_text("1")
    nbformat.write(chapter_notebook(), tmp_path / "book/one.ipynb")
    execute(tmp_path)
    return tmp_path


CONF = """
extensions = ["myst_nb", "sphinx_external_toc", "companion.sphinx_executed"]
external_toc_path = "_toc.yml"
exclude_patterns = ["_build"]
nb_execution_mode = "off"
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
"""


def render(root: Path, conf: str = "") -> subprocess.CompletedProcess[str]:
    (root / "conf.py").write_text(CONF + conf, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", ".", "_build/html"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def read_chapter(root: Path, *, draft: bool = False, builder: str = "html") -> NotebookNode:
    """Hand the chapter to the extension as Sphinx does before it parses a page; returns what Sphinx then parses."""
    path = root / "book/one.ipynb"
    env = SimpleNamespace(doc2path=lambda docname: str(root / f"{docname}.ipynb"), note_dependency=lambda path: None)
    config, made = SimpleNamespace(companion_draft=draft, companion_run=""), SimpleNamespace(format=builder)
    app = cast(Sphinx, SimpleNamespace(srcdir=root, env=env, config=config, builder=made))
    source = [path.read_text(encoding="utf-8")]
    show_executed(app, "book/one", source)
    return nbformat.reads(source[0], as_version=4)


def test_pages_are_made_of_present_prose_and_executed_outputs(project: Path) -> None:
    notebook = chapter_notebook()
    notebook.cells[0].source += " More prose, written after the execution."
    nbformat.write(notebook, project / "book/one.ipynb")
    done = render(project)
    assert done.returncode == 0, done.stderr
    chapter, intro, status = (
        (project / f"_build/html/book/{name}.html").read_text(encoding="utf-8") for name in ("one", "intro", "status")
    )
    assert "More prose" in chapter
    assert chapter.count('id="claim-D2-line"') == 1
    assert '<div class="claim claim-reproduced" id="claim-D2-line" role="group"' in chapter
    assert "judged" not in chapter, "what a notebook shows by hand is not for the page"
    assert 'href="#claim-D2-line"' in chapter
    assert "Rerun this chapter" in chapter
    assert 'href="one.html#claim-D2-line"' in intro
    for text in ("2.5e-16", "Lines &amp; more", "D2-line"):
        assert text in intro
        assert text in chapter
    assert '<span class="verdict verdict-reproduced">reproduced</span>' in intro
    for text in ("1.5", "2026-01-02 03:04 UTC", f"python {platform.python_version()}", "a small machine"):
        assert text in status
    assert outputs(project / "book/one.ipynb") == 0, "rendering must not touch the committed chapter"


def outputs(notebook: Path) -> int:
    return sum(len(cell.get("outputs", [])) for cell in nbformat.read(notebook, as_version=4).cells)


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>drawn</title></svg>'


@pytest.fixture
def illustrated(project: Path) -> Path:
    """The chapter with a figure that its last cell drew, tagged as its headline."""
    notebook = chapter_notebook()
    notebook.cells[2].metadata |= {
        "tags": ["hide-input", "headline"],
        "mystnb": {"image": {"alt": "A square."}, "figure": {"caption": "Nothing is seen.", "name": "fig-square"}},
    }
    nbformat.write(notebook, project / "book/one.ipynb")
    executed = nbformat.read(project / "_build/executed/book/one.ipynb", as_version=4)
    executed.cells[2].outputs.append(v4.new_output("display_data", data={"image/svg+xml": SVG, "text/plain": "figure"}))
    write_copy(project, executed)
    return project


def test_a_chapter_opens_with_its_claims_and_its_headline(illustrated: Path) -> None:
    title, figure, rest, *others = read_chapter(illustrated).cells
    assert title.source == "# One chapter\n\n```{chapter-claims}\n```"
    assert [output.data["image/svg+xml"] for output in figure.outputs] == [SVG]
    assert figure.metadata["mystnb"]["figure"]["name"] == "fig-square"
    assert "See {ref}" in rest.source
    drawing = next(cell for cell in others if cell.source == "show()")
    assert not any("image/svg+xml" in output.get("data", {}) for output in drawing.outputs)
    assert "figure" not in drawing.metadata.get("mystnb", {})


def test_figures_and_verdicts_are_shown_on_other_pages(illustrated: Path) -> None:
    figure = "```{chapter-figure} one claim\n:alt: A square.\n\nThe caption.\n```"
    (illustrated / "book/intro.md").write_text(
        f"# Intro\n\n{figure}\n\n{{verdict}}`D2-line` holds.\n", encoding="utf-8"
    )
    done = render(illustrated)
    assert done.returncode == 0, done.stderr
    intro = (illustrated / "_build/html/book/intro.html").read_text(encoding="utf-8")
    assert "The caption." in intro
    assert 'alt="A square."' in intro
    assert '<span class="verdict verdict-reproduced">reproduced</span>' in intro
    image = illustrated / "_build/html/_images/one-claim.svg"
    assert "drawn" in image.read_text(encoding="utf-8")
    chapter = (illustrated / "_build/html/book/one.html").read_text(encoding="utf-8")
    assert '<nav class="chapter-claims"' in chapter
    assert chapter.index("chapter-claims") < chapter.index("Nothing is seen.") < chapter.index("See ")


@pytest.mark.parametrize("line", ["```{chapter-figure} one parameters\n```", "```{chapter-figure} two claim\n```"])
def test_a_figure_that_is_not_there_fails_the_build(illustrated: Path, line: str) -> None:
    (illustrated / "book/intro.md").write_text(f"# Intro\n\n{line}\n", encoding="utf-8")
    done = render(illustrated)
    assert done.returncode != 0
    assert "has no figure in a cell" in done.stderr


def test_the_table_shows_the_verdict_of_each_claim() -> None:
    declared = Declaration("D2-line", "Lines", "They meet.", "<=", 1e-12, "one moved", 10, "this test")
    claims = [Claim("one", declared, Measurement("D2-line", value, 0.5)) for value in (1e-15, 0.1)]
    rows = claims_markdown(claims).split("* - ")[2:]
    assert [badge(verdict) in row for row, verdict in zip(rows, ("reproduced", "failed"), strict=True)] == [True, True]
    assert badge("reproduced") not in rows[1]


def lose_copy(root: Path) -> None:
    (root / "_build/executed/book/one.ipynb").unlink()


def edit_code(root: Path) -> None:
    notebook = chapter_notebook()
    notebook.cells[2].source = "show(2)"
    nbformat.write(notebook, root / "book/one.ipynb")


def change_data(root: Path) -> None:
    (root / "data.csv").write_text("2")


def change_copy(root: Path) -> None:
    copy = root / "_build/executed/book/one.ipynb"
    copy.write_text(copy.read_text().replace("2.5e-16", "1.5e-16"))


def cut_copy(root: Path) -> None:
    copy = root / "_build/executed/book/one.ipynb"
    copy.write_bytes(copy.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_copy, r"book/one\.ipynb: it has no executed copy; `make book`"),
        (edit_code, r"book/one\.ipynb: code cell 'claim' differs from the executed copy; `make book`"),
        (change_data, r"book/one\.ipynb: data\.csv changed since the execution; `make book`"),
        (change_copy, r"book/one\.ipynb: its executed copy was changed after its execution; `make book`"),
        (cut_copy, r"book/one\.ipynb: its executed copy was changed after its execution; `make book`"),
    ],
)
def test_a_missing_or_stale_copy_is_refused(project: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(project)
    with pytest.raises(ExtensionError, match=message):
        read_chapter(project)


def test_a_refusal_fails_the_build(project: Path) -> None:
    lose_copy(project)
    done = render(project)
    assert done.returncode != 0
    assert "book/one.ipynb: its executed copy is missing; `make book`" in done.stderr


def prose(root: Path, old: str, new: str) -> None:
    """Change the prose of the chapter, whose outputs stay."""
    notebook = chapter_notebook()
    assert old in notebook.cells[0].source
    notebook.cells[0].source = notebook.cells[0].source.replace(old, new)
    nbformat.write(notebook, root / "book/one.ipynb")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<= 1e-12", "<= 1e-20", "its executed copy is failed; claim D2-line is failed, expected reproduced:"),
        ("claim} D2-line", "claim} D2-other", "claim D2-other is declared but not measured"),
        ("<= 1e-12", "<= small", "book/one.ipynb: claim D2-line: :bound: must end in a number, not 'small'"),
        ("$|x| < 1$.", "<b>bold</b>.", "book/one.ipynb: claim D2-line: statement holds HTML"),
        ("Bai2024", "<script>alert(1)</script>", "book/one.ipynb: claim D2-line: source holds HTML"),
        ("See", "```{claim} D2-line\n```\n\nSee", "book/one.ipynb: claim D2-line: :title: is missing"),
        ("See", ":::{claim} D2-third\n:::\n\nSee", "claim D2-third: declare it in a Markdown cell of a chapter"),
    ],
)
def test_a_claim_that_is_not_as_declared_fails_the_build(project: Path, old: str, new: str, message: str) -> None:
    prose(project, old, new)
    done = render(project)
    assert done.returncode != 0
    assert message in done.stderr


def test_html_that_a_substitution_makes_is_refused_in_the_box_and_in_the_table(project: Path) -> None:
    prose(project, "Equal where", '{{ "<" ~ "b>" }}')
    done = render(project, 'myst_enable_extensions.append("substitution")\n')
    assert done.returncode != 0
    assert "a claim's statement holds HTML" in done.stderr
    (project / "book/intro.md").write_text("# Intro", encoding="utf-8")
    done = render(project, 'myst_enable_extensions.append("substitution")\n')
    assert done.returncode != 0
    assert "claim D2-line holds HTML" in done.stderr


def test_a_benchmark_file_that_is_none_is_named(project: Path) -> None:
    (project / "benchmarks/results").mkdir(parents=True)
    (project / "book/status.md").write_text("# Status\n\n```{benchmark-tables}\n```\n", encoding="utf-8")
    for content in ("", "[]", "{}", '{"title": "T", "measurements": [1]}'):
        (project / "benchmarks/results/x.json").write_text(content, encoding="utf-8")
        done = render(project)
        assert done.returncode != 0
        assert "benchmarks/results/x.json: not what `make benchmark` writes" in done.stderr, content


def test_a_claim_on_a_page_that_is_no_chapter_is_refused(project: Path) -> None:
    (project / "book/status.md").write_text(f"# Status\n\n{PROSE.partition('.')[2]}")
    done = render(project)
    assert done.returncode != 0
    assert "claim D2-line: declare it in a Markdown cell of a chapter" in done.stderr


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        (lose_copy, "not measured"),
        (edit_code, "reproduced"),
        (change_data, "reproduced"),
        (change_copy, "not measured"),
    ],
)
def test_a_draft_shows_what_there_is(project: Path, damage: Callable[[Path], None], verdict: str) -> None:
    damage(project)
    assert "Rerun this chapter" in read_chapter(project, draft=True).cells[-1].source
    done = render(project, "companion_draft = True\n")
    assert done.returncode == 0, done.stderr
    assert f'aria-label="Claim D2-line, {verdict}"' in (project / "_build/html/book/one.html").read_text(
        encoding="utf-8"
    )


def test_the_rerun_box_names_commands_and_parameters(project: Path) -> None:
    box = rerun_box(Chapter(project, Path("book/one.ipynb")))
    assert "python -m companion run one -p seeds=4\n" in box
    assert "papermill book/one.ipynb rerun.ipynb -p seeds 4\n" in box
    assert '* - `name`\n  - `"relu"`\n  - \n  - an activation' in box


@pytest.mark.parametrize(
    "source",
    [
        'colour = "#0072B2"',
        'text = "it\'s a=b; $HOME `x`"',
        'digits = "010"',
        'empty = ""',
        'lines = "a\\nb"',
        "rate: float = 1e-3",
        "shift = -3",
        "flag = True",
        "limit = None",
        "sizes = (1, 2); widths = [3]; k = 2",
        "widths = [3]",
        "",
    ],
)
@pytest.mark.parametrize("name", ["one", "deep/two words", "ä&b"])
def test_the_commands_in_the_rerun_box_are_accepted_and_mean_the_default(project: Path, name: str, source: str) -> None:
    path = project / f"book/{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    notebook = chapter_notebook()
    notebook.cells[1].source = source
    nbformat.write(notebook, path)
    toc = project / "_toc.yml"
    toc.write_text(toc.read_text(encoding="utf-8").replace("book/one", f"book/{name}"))
    chapter = Chapter(project, Path(f"book/{name}.ipynb"))
    ours, papermill, lab = rerun_box(chapter).split("```bash\n")[1].split("\n```")[0].splitlines()
    options = _parser().parse_args(shlex.split(ours)[3:])
    assert choose_chapters(project, options.chapters) == [chapter]
    assert parse_parameters(chapter, dict(item.split("=", 1) for item in options.parameters)) == {}
    shown = papermill_cli.make_context("papermill", shlex.split(papermill)[1:]).params
    given = {key: _resolve_type(text) for key, text in shown["parameters"]} | dict(shown["parameters_raw"])
    assert given == {key: chapter.parameters[key] for key in given}
    assert len(given) == len(options.parameters) == (source not in ("", "widths = [3]", r'lines = "a\nb"'))
    assert shlex.split(lab) == ["jupyter", "lab", f"book/{name}.ipynb"]


def test_the_rerun_box_shows_defaults_and_comments_as_they_are(project: Path) -> None:
    notebook = chapter_notebook()
    notebook.cells[1].source = 'tick = "`"  # <b>a|b</b> *of* {raw}`x`\nrows = [\n    1,\n    2,\n]  # last'
    nbformat.write(notebook, project / "book/one.ipynb")
    execute_again(project)
    done = render(project)
    assert done.returncode == 0, done.stderr
    html = (project / "_build/html/book/one.html").read_text(encoding="utf-8")
    for text in ("&lt;b&gt;a|b&lt;/b&gt; *of* {raw}`x`", "[1,</span>", '"`"', "<p>last</p>"):
        assert text in html, text


def test_a_cell_of_a_table_may_hold_a_bar_and_a_line_break() -> None:
    assert "* - $|x|$ and more" in list_table(["a"], [["$|x|$\nand more"]], "plain")


def test_machines_and_versions_are_shown_as_they_are_whatever_they_hold() -> None:
    odd = "<script>alert(1)</script> | {raw}`x` $y$ *z*\nnext"
    status = Status("one", "book/one.ipynb", "fresh", (), 1.0, "2026-01-02T03:04:05+00:00", {"python": odd}, odd)
    row = {
        "case": "one", "facts": {}, "seconds": {"ours": 1.0, odd: 1.0}, "ratios": {odd: 1.0}, "spread": {odd: [1, 1]},
        "best_peer": odd, "goal": None, "met": None,
    }  # fmt: skip
    for text in (
        environments_markdown([status]),
        benchmarks_markdown([{"title": "T", "measurements": [{"machine": {"a": odd}, "rows": [row]}]}]),
    ):
        assert "<script>" not in text
        assert r"\<script\>alert\(1\)\<\/script\> \| \{raw\}\`x\` \$y\$ \*z\* next" in text


def test_a_table_without_rows_says_so() -> None:
    assert list_table(["a"], [], "plain") == "*none*"


def test_a_benchmark_shows_medians_ratio_range_and_goal() -> None:
    row = {
        "case": "P = 41",
        "facts": {"P": 2401.0, "error": 1.5e-15},
        "seconds": {"ours": 2e-3, "peer": 8e-2},
        "ratios": {"peer": 40.0, "slower": 99.0},
        "spread": {"peer": [38.0, 43.0]},
        "best_peer": "peer",
        "goal": 20.0,
        "met": True,
    }
    measured = {"machine": {"cores": 2}, "rows": [row]}
    text = benchmarks_markdown([{"title": "Hessians", "measurements": [measured]}])
    for part in (
        "## Hessians",
        "P = 41 (P 2,401, error 1.5e-15)",
        "- 2 ms\n",
        "- 80 ms (peer)",
        "40 (38–43); slower: 99\n",
        "20, met",
        "- A: cores 2\n",
    ):
        assert part in text
    missed = benchmarks_markdown(
        [{"title": "Hessians", "measurements": [{"machine": {"cores": 2}, "rows": [{**row, "met": False}]}]}]
    )
    assert "20, missed" in missed
    assert "met" not in missed.replace("missed", "")


def test_the_figures_of_two_machines_stand_side_by_side() -> None:
    def measured(processor: str, chunks: int) -> dict[str, object]:
        peer = f"peer, chunks of {chunks}"
        row = {
            "facts": {},
            "seconds": {"ours": 1.0, peer: 2.0},
            "ratios": {peer: 2.0},
            "spread": {peer: [1, 3]},
            "best_peer": peer,
            "goal": None,
            "met": None,
        }
        rows = [{"case": case, **row} for case in ("small", "large")]
        return {"machine": {"processor": processor}, "rows": rows}

    text = benchmarks_markdown([{"title": "T", "measurements": [measured("second", 16), measured("first", 64)]}])
    order = [line.strip("* -") for line in text.splitlines() if line.strip("* -") in ("small", "large", "A", "B")]
    assert order == ["small", "A", "small", "B", "large", "A", "large", "B"]
    assert "- A: processor second\n- B: processor first\n" in text
    alone = benchmarks_markdown(
        [{"title": str(name), "measurements": [measured(name, 16)]} for name in ("second", "first")]
    )
    assert "- A: processor second\n" in alone
    assert "- B: processor first\n" in alone
