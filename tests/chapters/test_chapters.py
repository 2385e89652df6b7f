"""Every chapter that ``_toc.yml`` lists: what is committed, and what its executed copy recorded.

The copies are those that the book shows (``make book`` makes them); they are read with nbformat alone.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from companion.chapters import Chapter, find_chapters
from companion.claims import ROWS, join
from companion.execution import claims_of, executed_path, state_of, stored_metadata
from companion.ledger import ledger
from companion.measuring import measurements_of

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = find_chapters(ROOT)
LONGEST_CELL = 15  # lines beside imports; longer code belongs in src

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


@each_chapter
def test_nothing_is_committed_but_what_was_written(chapter: Chapter) -> None:
    for cell in chapter.code_cells:
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
    assert "widgets" not in chapter.notebook.metadata


@each_chapter
def test_no_cell_is_longer_than_a_reader_can_take_in(chapter: Chapter) -> None:
    lengths = {cell.id: lines_beside_imports(cell.source) for cell in chapter.code_cells}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_CELL}


def lines_beside_imports(code: str) -> int:
    statements = ast.parse(TransformerManager().transform_cell(code)).body
    imports = [statement for statement in statements if isinstance(statement, ast.Import | ast.ImportFrom)]
    return len(code.splitlines()) - sum((one.end_lineno or one.lineno) - one.lineno + 1 for one in imports)


def test_only_imports_are_not_counted() -> None:
    code = "%time 1\nfrom a import (\n    b,\n    c,\n)\nimport d\n\nx = 'import e'"
    assert lines_beside_imports(code) == 3


@each_chapter
def test_a_chapter_has_a_kernel_and_one_cell_of_parameters(chapter: Chapter) -> None:
    assert chapter.notebook.metadata.kernelspec.name == "python3"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in chapter.code_cells) == 1
    assert chapter.parameters


@pytest.mark.executed
@each_chapter
def test_the_executed_copy_is_fresh(chapter: Chapter) -> None:
    assert state_of(chapter) == "fresh", "run `make book`"


@pytest.mark.executed
@each_chapter
def test_the_measured_claims_are_the_declared_ones_with_their_verdicts(chapter: Chapter) -> None:
    claims, problems = claims_of(chapter, executed_path(chapter))
    assert not problems
    verdicts = [(claim.id, claim.verdict) for claim in claims]
    assert verdicts == [(name, said.verdict) for name, said in chapter.declarations.items()]


@pytest.mark.executed
@each_chapter
def test_every_control_flips(chapter: Chapter) -> None:
    claims, _ = claims_of(chapter, executed_path(chapter))
    assert all(claim.flipped for claim in claims)


@each_chapter
def test_a_chapter_declares_claims_of_rows_that_the_book_examines(chapter: Chapter) -> None:
    assert chapter.declarations
    assert {said.row for said in chapter.declarations.values()} <= set(ROWS)


@pytest.mark.executed
@each_chapter
def test_every_figure_has_a_text_for_those_who_do_not_see_it(chapter: Chapter) -> None:
    for cell in nbformat.read(executed_path(chapter), as_version=4).cells:
        if any(kind.startswith("image/") for output in cell.get("outputs", []) for kind in output.get("data", {})):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert alt.strip(), f"cell {cell.id}: metadata mystnb.image.alt is missing"


@pytest.mark.executed
@each_chapter
def test_no_cell_of_the_executed_copy_shows_an_error_or_a_warning(chapter: Chapter) -> None:
    for cell in nbformat.read(executed_path(chapter), as_version=4).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.id
            assert output.get("name") != "stderr", f"cell {cell.id}: {output.text}"


def test_no_id_of_a_claim_is_used_twice() -> None:
    counts = Counter(name for chapter in CHAPTERS for name in chapter.declarations)
    assert not {name for name, count in counts.items() if count > 1}


@pytest.mark.executed
def test_the_ledger_is_strict_json() -> None:
    entries = [claim.as_json() for claim in ledger(ROOT)]
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries


@pytest.mark.executed
@pytest.mark.skipif(not CHAPTERS, reason="_toc.yml lists no chapter")
def test_papermill_alone_runs_a_chapter(tmp_path: Path) -> None:
    """Without the companion, from the project's directory, with a parameter given: on the quickest chapter."""
    chapter = min(CHAPTERS, key=lambda chapter: stored_metadata(executed_path(chapter))["seconds"])
    name, value = next((name, value) for name, value in chapter.parameters.items() if isinstance(value, int | float))
    out = tmp_path / "out.ipynb"
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(chapter.path),
        str(out),
        "--no-progress-bar",
        "-p",
        name,
        str(value),
    ]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as the companion runs it, and quicker
    done = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    claims, _ = join(chapter.name, chapter.declarations, measurements_of(nbformat.read(out, as_version=4)))
    expected = {name: said.verdict for name, said in chapter.declarations.items()}
    assert {claim.id: claim.verdict for claim in claims} == expected
