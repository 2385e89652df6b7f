"""Rendering a tiny book: what the pages show, when they are made again, and what survives a failure."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from companion.chapters import Chapter, ProjectError
from companion.commands import main
from companion.downloads import Downloads
from companion.rendering import STAMP, RenderingError, render, render_page, rendering_digest
from companion.repository import VARIABLE

CONFIG = """
title: Tiny
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [attrs_inline, colon_fence, dollarmath, substitution]}
sphinx:
  config:
    extensions:
      [myst_nb, jupyter_book, sphinx_comments, sphinx_external_toc, sphinx_book_theme, companion.sphinx_executed]
"""
GLUED = """
from companion.measuring import glue
import numpy as np
glue("count", np.int64(1000))
glue("ratio", 2 / 3)
glue("word", "it's text")
glue("nothing", float("nan"))
glue("markup", "*<b>bold</b>*")
"""
PROSE = """# Title

$x$ {glue:text}`D1-one` {glue:text}`D1-one:.1e` {glue:text}`D1-one-control:.4f` {glue:text}`count`
{glue:text}`count:d` {glue:text}`ratio:.3f` {glue:text}`ratio:.0%` {glue:text}`word`
{glue:text}`deep/two.ipynb::other:.1f`
"""
SHOWN = ["1.5e-15", "1.5e-15", "0.0010", "1000", "1000", "0.667", "67%", "it's text", "0.5"]
BOX = {
    "title": "Doubling & adding",
    "statement": "Doubling $x$ is adding it, {glue:text}`count` times of {glue:text}`ratio:.1%`, $ <script> $5.",
    "control": "tripled in {glue:text}`word`, {glue:text}`nothing`, {glue:text}`markup`",
    "source": "{ref}`elsewhere <claim-d1-two>`",
}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A book of two chapters, executed and rendered, without an address of a repository."""
    root: Path = tiny.project(
        tmp_path_factory.mktemp("book"),
        {
            "one": {
                "code": [tiny.claim("D1-one", "1.5e-15"), GLUED],
                "prose": PROSE,
                "boxes": [tiny.box("D1-one", **BOX)],
            },
            "deep/two": {
                "code": [
                    "from companion.measuring import glue\nglue('other', 0.5)",
                    tiny.claim("D1-two", "2e-15"),
                ],
                "boxes": [
                    tiny.box("D1-two", verdict="conditional", conditions="for $k$", statement="{glue:text}`other`.")
                ],
            },
        },
    )
    (root / "_config.yml").write_text(CONFIG, encoding="utf-8")
    (root / "book/intro.md").write_text("# Intro\n\n```{claims-table}\n```\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv(VARIABLE, raising=False)
        assert main(["build"]) == 0
    return root


def test_glued_values_are_shown_in_every_format(book: Path) -> None:
    html = page(book, "one")
    prose = html[: html.index('id="claim-D1-one"')]
    assert re.findall(r'<span class="pasted-text">([^<]*)</span>', prose) == SHOWN


def page(book: Path, name: str) -> str:
    return (book / "_build/html/book" / f"{name}.html").read_text(encoding="utf-8").replace("’", "'")


def test_the_claim_box_stands_where_the_prose_declares_it(book: Path) -> None:
    html = page(book, "one")
    assert html.count('<div class="claim claim-reproduced" id="claim-D1-one" role="group"') == 1
    assert 'aria-label="Claim D1-one, reproduced"' in html
    assert '<span class="claim-title">Doubling &amp; adding</span>' in html
    assert html.index("pasted-text") < html.index('id="claim-D1-one"') < html.index("Rerun this chapter")
    assert "papermill.record" not in html
    assert "vnd.companion" not in html


def test_the_claim_box_shows_formulas_glued_values_and_every_fact(book: Path) -> None:
    html = page(book, "one")
    box = html[html.index('id="claim-D1-one"') : html.index("</dl>")]
    assert r'<span class="math notranslate nohighlight">\(x\)</span>' in box
    assert "times of" in box
    for value in ("1000", "66.7%", "it's text", "nan"):
        assert f'<span class="pasted-text">{value}</span>' in box, value
    facts = re.sub(r"<[^>]*>|\s+", " ", box)
    for fact in ("Source", "elsewhere", "Measured", "1.5e-15", "Bound", "≤ 1e-12", "Control", "0.001 (flips)"):
        assert fact in facts, fact
    assert 'href="deep/two.html#claim-D1-two"' in box
    assert "Conditions" not in box
    other = page(book, "deep/two")
    assert 'claim claim-conditional"' in other
    assert "Conditions" in other


def test_the_table_shows_statements_with_the_values_of_their_chapters(book: Path) -> None:
    html = page(book, "intro")
    table = html[html.index("2 claims: ") :]
    for value in ("1000", "66.7%", "0.5"):
        assert f'<span class="pasted-text">{value}</span>' in table, value
    assert 'href="one.html#claim-D1-one"' in table
    assert "Doubling &amp; adding" in table
    assert '<span class="verdict verdict-conditional">conditional</span>' in table


@pytest.mark.parametrize("name", ["one", "intro"])
def test_what_only_looks_like_html_does_not_arrive_live(book: Path, name: str) -> None:
    html = page(book, name)
    assert "&lt;script&gt;" in html
    assert not re.search(r"<script>\W* \$?5|<b>bold", html)


def test_each_chapter_offers_a_notebook_to_run_and_the_executed_one(book: Path) -> None:
    for name, depth in (("one", 1), ("deep/two", 2)):
        html = page(book, name)
        for kind in ("", ".executed"):
            assert html.count(f'href="{"../" * depth}_sources/book/{name}{kind}.ipynb"') == 2, "menu and last box"
    to_run = nbformat.read(book / "_build/html/_sources/book/one.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in to_run.cells)
    executed = nbformat.read(book / "_build/html/_sources/book/one.executed.ipynb", as_version=4)
    assert "1000" in executed.cells[0].source
    assert "> **Claim D1-one: Doubling & adding. Reproduced.**" in executed.cells[0].source
    assert any(
        "D1-one" in output.data["text/plain"] for cell in executed.cells[2:] for output in cell.get("outputs", [])
    )


def test_the_notebook_to_run_runs(book: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(book / "_build/html/_sources/book/deep/two.ipynb", as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    (said,) = (
        out.data["text/plain"] for out in notebook.cells[-1].outputs if "D1-two" in out.data.get("text/plain", "")
    )
    assert said.startswith("D1-two: measured 2e-15")


def test_without_an_address_nothing_leads_to_a_repository(book: Path) -> None:
    assert not re.search(r"github\.com|mybinder|colab", page(book, "one"))
    notebook = nbformat.read(book / "_build/html/_sources/book/one.ipynb", as_version=4)
    assert "bootstrap" not in [cell.id for cell in notebook.cells]


def test_with_an_address_the_pages_lead_to_the_repository_to_binder_and_to_colab(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = shutil.copytree(book / "_build/html", book / "_build/without"), (book / STAMP).read_bytes()
    try:
        monkeypatch.setenv(VARIABLE, "https://github.com/owner/name.git/")
        assert render(book), "another address, other pages"
        html = page(book, "deep/two")
        for address in (
            "https://github.com/owner/name",
            "https://github.com/owner/name/edit/main/book/deep/two.ipynb",
            "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/book/deep/two.ipynb",
            "https://colab.research.google.com/github/owner/name/blob/notebooks/deep/two.ipynb",
        ):
            assert f'href="{address}"' in html, address
        assert "https://github.com/owner/name/issues/new" in html
        assert "colab" not in page(book, "intro"), "a page without code opens nowhere"
        notebook = nbformat.read(book / "_build/html/_sources/book/deep/two.ipynb", as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert "!git clone --quiet --depth 1 https://github.com/owner/name name\n" in first.source
        assert not render(book)
        monkeypatch.delenv(VARIABLE)
        assert (
            rendering_digest(book) == json.loads(kept[1])["inputs"] != json.loads((book / STAMP).read_bytes())["inputs"]
        )
    finally:
        shutil.rmtree(book / "_build/html")
        kept[0].rename(book / "_build/html")
        (book / STAMP).write_bytes(kept[1])


def test_on_colab_the_first_cell_brings_the_book(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is told to find the address on this disk, and every package is there already: no network is asked."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path / "origin")]
    (tmp_path / "origin/src").mkdir(parents=True)
    (tmp_path / "origin/src/fetched.py").write_text("WHAT = 'the book'", encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "one"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{tmp_path / 'origin'}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/owner/name")
    cells = [
        "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')",
        Downloads(book, {}, repository="https://github.com/owner/name").to_run(Chapter(book, Path("book/one.ipynb"))),
        "import fetched\nprint(fetched.WHAT)",
    ]
    cells[1] = next(cell.source for cell in cells[1].cells if cell.get("id") == "bootstrap")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    (tmp_path / "content").mkdir()
    place = {"metadata": {"path": str(tmp_path / "content")}}
    NotebookClient(notebook, kernel_name="python3", resources=place).execute()
    assert notebook.cells[-1].outputs[0].text == "the book\n"


@pytest.mark.parametrize(
    "address",
    [
        "github.com/owner/name",
        "http://github.com/a/b",
        "https://github.com/a",
        "https://x.org/a/b",
        "a b",
        "https://github.com/a/b?c=<d>",
    ],
)
def test_a_malformed_address_is_refused_in_a_sentence_before_anything_runs(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.chdir(book)
    monkeypatch.setenv(VARIABLE, address)
    monkeypatch.setattr("companion.commands.run_chapters", None)  # whatever runs would raise TypeError
    assert main(["build"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"companion: {VARIABLE} must be as https://github.com/OWNER/NAME, not {address!r}")


def test_nothing_is_done_twice_and_the_last_line_says_where_the_book_is(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(book)
    pages = {path: path.stat().st_mtime_ns for path in (book / "_build/html").rglob("*")}
    assert main(["build"]) == 0
    said = capsys.readouterr().out
    assert "0 of 2 chapters executed" in said
    assert re.search(r"D1-one \(one\) +1.5e-15 +≤ 1e-12 +reproduced", said)
    last = said.splitlines()[-1]
    assert last == f"Open _build/html/index.html ({(book / '_build/html/index.html').as_uri()})"
    assert {path: path.stat().st_mtime_ns for path in (book / "_build/html").rglob("*")} == pages


def test_fresh_pages_are_up_to_date_where_nothing_can_be_written(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.rendering.lock", None)  # whatever locks or writes would raise TypeError
    monkeypatch.setattr("companion.rendering.write_through", None)
    assert not render(book)


@pytest.mark.parametrize("stamp", [b"", b"[]", b"{}", b"null", b"\xff", b'{"inputs": 3}'])
def test_a_damaged_stamp_means_that_the_pages_are_out_of_date(
    book: Path, monkeypatch: pytest.MonkeyPatch, stamp: bytes
) -> None:
    good = (book / STAMP).read_bytes()
    monkeypatch.setattr("companion.rendering.run_jupyter_book", make_pages)
    (book / STAMP).write_bytes(stamp)
    shutil.copytree(book / "_build/html", book / "_build/kept")
    try:
        assert render(book)
        assert (book / STAMP).read_bytes() == good
        assert not render(book)
    finally:
        shutil.rmtree(book / "_build/html")
        (book / "_build/kept").rename(book / "_build/html")


def make_pages(root: Path, folder: Path, *options: str) -> str:
    """What Jupyter Book leaves in a folder, at once."""
    (folder / "_build/html").mkdir(parents=True)
    (folder / "_build/html/index.html").write_text(folder.name, encoding="utf-8")
    return ""


def test_each_rendering_has_a_folder_of_its_own_and_removes_what_killed_ones_left(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.project(tmp_path, {"one": {"code": []}})
    (root / "_config.yml").write_text("title: Tiny", encoding="utf-8")
    folders = []

    def note(root: Path, folder: Path, *options: str) -> str:
        # An orphan of an earlier build goes on writing, into its own folder and beside it.
        for earlier in folders:
            (earlier / "_build/html").mkdir(parents=True, exist_ok=True)
            (earlier / "_build/html/index.html").write_text("of an orphan", encoding="utf-8")
        folders.append(folder)
        return make_pages(root, folder, *options)

    monkeypatch.setattr("companion.rendering.run_jupyter_book", note)
    for turn in range(3):
        (root / "book/intro.md").write_text(f"# Intro {turn}", encoding="utf-8")
        assert render(root)
        assert (root / "_build/html/index.html").read_text(encoding="utf-8") == folders[-1].name
        assert render_page(root, Path("book/one.ipynb"))[0] == root / "_build/draft/book/one.html"
        assert (root / "_build/draft/index.html").read_text(encoding="utf-8") == folders[-1].name
    assert len(set(folders)) == 6
    # The orphans that wrote last are gone with the next build; now none writes any more.
    monkeypatch.setattr("companion.rendering.run_jupyter_book", make_pages)
    (root / "book/intro.md").write_text("# Intro", encoding="utf-8")
    assert render(root)
    render_page(root, Path("book/one.ipynb"))
    left = {path.name for path in (root / "_build").iterdir() if not path.name.startswith(".")}
    assert left == {"html", "draft", "rendered.json"}


def test_a_killed_swap_leaves_no_stamp_for_other_pages(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny.project(tmp_path, {"one": {"code": []}})
    monkeypatch.setattr("companion.rendering.run_jupyter_book", make_pages)
    assert render(root)
    intro = (root / "book/intro.md").read_text(encoding="utf-8")
    (root / "book/intro.md").write_text("# Changed", encoding="utf-8")

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("companion.rendering.write_through", killed)
        with pytest.raises(KeyboardInterrupt):
            render(root)
    (root / "book/intro.md").write_text(intro, encoding="utf-8")
    assert render(root), "the pages are those of the change"


@pytest.mark.parametrize(
    ("config", "message"),
    [(b"a: [", "not YAML"), (b"\xe4", "not YAML in UTF-8"), (b"", "must be a mapping"), (b"[a]", "must be a mapping")],
)
def test_settings_that_cannot_be_read_are_refused_by_page(
    tmp_path: Path,
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    config: bytes,
    message: str,
) -> None:
    monkeypatch.chdir(tiny.project(tmp_path, {"one": {"code": []}}))
    Path("_config.yml").write_bytes(config)
    assert main(["page", "one"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("companion: _config.yml: ")
    assert message in said


@pytest.mark.parametrize(
    "name",
    [
        "book/intro.md",
        "_config.yml",
        "_toc.yml",
        "constraints.txt",
        "src/toy/first.py",
        "_build/executed/book/deep/two.ipynb",
    ],
)
def test_whatever_the_pages_are_made_of_makes_them_out_of_date(book: Path, name: str) -> None:
    before, content = rendering_digest(book), (book / name).read_bytes()
    (book / name).write_bytes(content + b"\n")
    after = rendering_digest(book)
    (book / name).write_bytes(content)
    assert after != before == rendering_digest(book)


@pytest.mark.parametrize("folder", [".ruff_cache", "__pycache__", ".ipynb_checkpoints"])
def test_the_cache_of_a_tool_leaves_the_pages_up_to_date(book: Path, folder: str) -> None:
    before = rendering_digest(book)
    cache = book / "book" / folder / "entry"
    cache.parent.mkdir()
    cache.write_text("")
    after = rendering_digest(book)
    shutil.rmtree(cache.parent)
    assert after == before


def test_a_failed_rendering_leaves_the_last_good_pages_and_says_what_is_wrong(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(book)
    intro = (book / "book/intro.md").read_text(encoding="utf-8")
    before = (book / "_build/html/book/intro.html").read_bytes()
    (book / "book/intro.md").write_text("# Intro\n\n{glue:text}`nowhere`")
    assert main(["build"]) == 1
    assert "No key 'nowhere' found" in capsys.readouterr().err
    assert (book / "_build/html/book/intro.html").read_bytes() == before
    assert json.loads((book / STAMP).read_text(encoding="utf-8"))["inputs"] != rendering_digest(
        book
    )  # so the next build tries again
    (book / "book/intro.md").write_text(intro, encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statement": '{{ "<" ~ "img src=x onerror=alert(1)" ~ ">" }}'}, "claim D1-one holds HTML"),
        ({"statement": "{{ a $ }} <script>alert(1)</script> $ <b>"}, "claim D1-one: statement holds HTML"),
        ({"statement": "{glue:text}`nowhere`"}, "No key 'nowhere' found"),
    ],
)
def test_a_claim_that_no_page_can_show_fails_the_rendering(
    book: Path, tiny: SimpleNamespace, changes: dict[str, str], message: str
) -> None:
    notebook = book / "book/one.ipynb"
    committed = notebook.read_text(encoding="utf-8")
    tiny.notebook(
        notebook, [tiny.claim("D1-one", "1.5e-15"), GLUED], prose=PROSE, boxes=[tiny.box("D1-one", **changes)]
    )
    try:
        with pytest.raises((RenderingError, ProjectError), match=message):
            render(book)
    finally:
        notebook.write_text(committed, encoding="utf-8")
    assert "alert(1)" not in page(book, "one")


def test_a_failing_chapter_stops_the_build_after_the_others_have_run(
    book: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(book)
    monkeypatch.setattr("companion.commands.render", None)  # whatever renders would raise TypeError
    tiny.notebook(book / "book/one.ipynb", ["1 / 0"])
    tiny.notebook(book / "book/deep/two.ipynb", ["1 / 1"])
    assert main(["build"]) == 1
    said = capsys.readouterr()
    assert "2 of 2 chapters executed, 1 failed" in said.out
    assert "one failed; see _build/executed/book/one.failed.ipynb\n  cell [2] raised ZeroDivisionError" in said.err


@pytest.mark.parametrize("command", [["page", "one"], ["pdf"]])
def test_a_torn_notebook_is_refused_before_anything_is_rendered(
    tmp_path: Path,
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    root = tiny.project(tmp_path, {"one": {"code": ["1"]}})
    (root / "_config.yml").write_text(CONFIG, encoding="utf-8")
    path = root / "book/one.ipynb"
    path.write_bytes(path.read_bytes()[:300])
    monkeypatch.chdir(root)
    monkeypatch.setattr("companion.rendering.run_jupyter_book", None)  # whatever renders would raise TypeError
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("companion: book/one.ipynb: ")
