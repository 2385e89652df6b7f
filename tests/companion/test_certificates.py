"""Claims with certificates: what a chapter leaves, which copies are refused, and what pages and ledgers show."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from companion.certificates import Certificates, accepted, file_names
from companion.chapters import Chapter
from companion.claims import Claim, Declaration, Measurement
from companion.commands import main
from companion.execution import Outcome, claims_of, executed_path, read_copy, run_chapter
from companion.measuring import CERTIFICATES_MIME, measurements_of
from companion.rendering import run_jupyter_book
from companion.reports import junit

CONFIG = """
title: Tiny
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: "off"}
latex: {latex_documents: {targetname: book.tex}, use_jupyterbook_latex: false}
parse: {myst_enable_extensions: [attrs_inline, colon_fence, dollarmath, substitution]}
sphinx:
  config:
    html_static_path: [book/assets]
    html_css_files: [custom.css]
    extensions:
      [myst_nb, jupyter_book, sphinx_comments, sphinx_external_toc, sphinx_book_theme, companion.sphinx_executed]
"""
OBJECT = "Within the *radius* of these floats lies a true line, $w<2$."


def carrying(name: str, *texts: str) -> str:
    """A cell that measures a claim with certificates."""
    call = f'measured("{name}", 1e-15, control=1e-3, certificates={list(texts)!r})'
    return f"from companion.measuring import measured\n{call}"


def chapter_of(root: Path, tiny: SimpleNamespace, code: str, **box: str) -> Chapter:
    made: Path = tiny.project(root, {"one": {"code": [code], "boxes": [tiny.box("C1-one", **box)]}})
    return Chapter(made, Path("book/one.ipynb"))


def claim(certificates: Certificates | None = None, **options: str) -> Claim:
    said = Declaration("C1-one", "T", "S.", "<=", 1.0, "c", 10, "s", **options)  # type: ignore[arg-type]
    return Claim("one", said, Measurement("C1-one", 0.5, 20.0, certificates))


def test_texts_come_back_as_they_were_and_share_what_they_have_in_common() -> None:
    # What certificates of one network share is far more than what they do not: here a hundredth of the room is left.
    common = base64.b64encode(hashlib.shake_256(b"data").digest(30_000)).decode()
    texts = [f'{{"data": "{common}", "number": "{i}"}}\n' for i in range(200)]
    carried = Certificates.of(texts)
    assert carried.texts() == texts
    assert len(carried.packed) < sum(map(len, texts)) / 100
    assert Certificates.of(texts) == carried


@pytest.mark.parametrize("packed", ["", "?", "AAAA", Certificates.of(["a"]).packed[:-8]])
def test_what_was_not_packed_here_is_refused(packed: str) -> None:
    with pytest.raises(ValueError, match="not packed as companion"):
        Certificates(1, packed).texts()
    with pytest.raises(ValueError, match="no 2 texts"):
        Certificates(2, Certificates.of(["a"]).packed).texts()


def test_an_archive_notes_no_time_and_no_machine() -> None:
    texts = ["a\n", "b\n"]
    first, again = (Certificates.of(texts).archive("C1-one") for _ in range(2))
    assert first == again
    with zipfile.ZipFile(io.BytesIO(first)) as packed:
        assert packed.namelist() == ["C1-one-001.json", "C1-one-002.json"]
        assert [packed.read(name).decode() for name in packed.namelist()] == texts
        facts = {(entry.date_time, entry.create_system, entry.external_attr >> 16) for entry in packed.infolist()}
    assert facts == {((1980, 1, 1, 0, 0, 0), 3, 0o644)}
    names = file_names("C1-one", 1200)
    assert names[0] == "C1-one-0001.json"
    assert sorted(names) == names


def test_the_checker_is_asked_and_its_reason_told(tiny: SimpleNamespace) -> None:
    good = tiny.certificate()
    assert accepted("C1-one", (good, tiny.certificate(2.0))).count == 2
    with pytest.raises(
        ValueError, match=r"^claim C1-one: certificate 2 of 2 is refused: false: the inertia is \[0, 0, 2"
    ):
        accepted("C1-one", [good, tiny.certificate(inertia=[1, 0, 1])])
    with pytest.raises(
        ValueError, match=r"certificate 1 of 3 is refused: altered: the digest differs \(2 are refused\)"
    ):
        accepted("C1-one", [good.replace("0x1.0", "0x1.1", 1), good, "{}"])


@pytest.mark.parametrize("texts", ["one text", [None], [b"bytes"], ["text", 1]])
def test_what_is_no_text_is_no_certificate(texts: Any) -> None:
    with pytest.raises(ValueError, match="claim C1-one: certificates must be a list of texts"):
        accepted("C1-one", texts)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('out of memory')", "the checker ended with 1 before it had answered: out of memory"),
        ("", "the checker ended with 0 before it had answered"),
        ("print('C1-one-001.json: proved: all')", "the checker ended with 0 before it had answered"),
        ("import time; time.sleep(60)", "its certificates cannot be checked: .*timed out after 0.5 seconds"),
    ],
)
def test_a_checker_that_does_not_answer_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    (tmp_path / "check.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr("companion.certificates.find_checker", lambda: tmp_path / "check.py")
    if "sleep" in program:
        monkeypatch.setattr("companion.certificates.SECONDS", 0.5)
    with pytest.raises(ValueError, match=f"^claim C1-one: {said}"):
        accepted("C1-one", ["a", "b"])


def test_a_refused_certificate_fails_the_chapter_with_the_reason(tmp_path: Path, tiny: SimpleNamespace) -> None:
    code = carrying("C1-one", tiny.certificate(), tiny.certificate(risk=[(1.0).hex(), (2.0).hex()]))
    outcome = run_chapter(chapter_of(tmp_path, tiny, code, **{"true-object": OBJECT}))
    assert outcome.failed
    assert outcome.error is not None
    assert "ValueError: claim C1-one: certificate 2 of 2 is refused: false: " in outcome.error


def test_a_missing_checker_fails_the_chapter_with_the_remedy(tmp_path: Path, tiny: SimpleNamespace) -> None:
    chapter = chapter_of(tmp_path, tiny, carrying("C1-one", tiny.certificate()), **{"true-object": OBJECT})
    (tmp_path / "src/embedding_principle").mkdir()
    (tmp_path / "src/embedding_principle/__init__.py").write_text("", encoding="utf-8")
    error = run_chapter(chapter).error
    assert error is not None
    assert "the checker of certificates cannot be found; it is part of embedding_principle; run `pip install" in error


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Outcome:
    """A chapter whose claim carries two certificates."""
    code = carrying("C1-one", tiny.certificate(), tiny.certificate(2.0))
    return run_chapter(chapter_of(tmp_path_factory.mktemp("done"), tiny, code, **{"true-object": OBJECT}))


def test_what_was_accepted_travels_with_the_copy(done: Outcome, tiny: SimpleNamespace) -> None:
    assert not done.failed
    (found,) = done.claims
    assert found.measurement.certificates is not None
    assert found.measurement.certificates.texts() == [tiny.certificate(), tiny.certificate(2.0)]
    assert (found.verdict, found.seal) == ("reproduced", "checked 2")
    copy = read_copy(done.copy)
    assert copy is not None
    (shown,) = (out["data"]["text/plain"] for out in copy.cells[-1].outputs if CERTIFICATES_MIME in out.get("data", {}))
    assert shown.splitlines()[-1] == "seal: checked 2"


def test_the_checker_is_an_input_of_the_chapter(tmp_path: Path, tiny: SimpleNamespace) -> None:
    chapter = chapter_of(tmp_path, tiny, carrying("C1-one", "anything"), **{"true-object": OBJECT})
    place = tmp_path / "src/embedding_principle/certificates/check.py"
    place.parent.mkdir(parents=True)
    (place.parents[1] / "__init__.py").write_text("", encoding="utf-8")
    place.write_text("import sys\nfor name in sys.argv[1:]:\n    print(f'{name}: proved: yes')\n", encoding="utf-8")
    assert not run_chapter(chapter).failed
    assert not run_chapter(chapter).executed
    place.write_text("print('C1-one-001.json: refused: on second thoughts')\n", encoding="utf-8")
    error = run_chapter(chapter).error
    assert error is not None
    assert error.endswith("claim C1-one: certificate 1 of 1 is refused: on second thoughts")


def test_a_copy_with_other_certificates_is_none(done: Outcome) -> None:
    content = json.loads(done.copy.read_text(encoding="utf-8"))
    kept = done.copy.read_bytes()
    outputs = [out["data"] for cell in content["cells"] for out in cell.get("outputs", [])]
    (data,) = (data[CERTIFICATES_MIME] for data in outputs if CERTIFICATES_MIME in data)
    data.update(count=1, packed=Certificates.of(["{}"]).packed)
    try:
        done.copy.write_text(json.dumps(content), encoding="utf-8")
        assert read_copy(done.copy) is None
        claims, problems = claims_of(done.chapter, done.copy)
        assert claims == []
        assert problems == ["claim C1-one is declared but not measured"]
    finally:
        done.copy.write_bytes(kept)


@pytest.mark.parametrize(
    "carried", [{}, {"count": 1}, [], "x", {"count": "1", "packed": ""}, {"count": 1, "packed": 1}]
)
def test_a_record_that_measuring_did_not_leave_is_named(carried: Any) -> None:
    record = {"id": "C1-one", "value": 1, "control": 2}
    data = {"application/vnd.companion.measured+json": record, CERTIFICATES_MIME: carried}
    output = nbformat.v4.new_output("display_data", data)
    with pytest.raises(ValueError, match="claim C1-one: its certificates are not as companion"):
        measurements_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))


def test_a_record_with_more_in_it_is_none_that_measuring_left() -> None:
    record = {"id": "C1-one", "value": 1, "control": 2, "verdict": "reproduced"}
    output = nbformat.v4.new_output("display_data", {"application/vnd.companion.measured+json": record})
    with pytest.raises(ValueError, match="a measurement is not as companion"):
        measurements_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))


def test_prose_and_code_must_agree_on_certificates(tmp_path: Path, tiny: SimpleNamespace) -> None:
    chapter = chapter_of(tmp_path, tiny, carrying("C1-one", tiny.certificate()))
    first = run_chapter(chapter)
    assert first.failed
    said = "claim C1-one carries certificates; its :true-object: must say of which object near the floats it holds"
    assert first.problems == (said,)
    assert first.claims[0].verdict == "reproduced", "verdicts stay as they are"
    report = junit([first]).decode()
    assert 'failures="1"' in report
    assert "its :true-object: must say" in report
    # A changed prose executes nothing.
    tiny.notebook(
        tmp_path / "book/one.ipynb",
        [carrying("C1-one", tiny.certificate())],
        boxes=[tiny.box("C1-one", **{"true-object": OBJECT})],
    )
    again = run_chapter(Chapter(tmp_path, Path("book/one.ipynb")))
    assert (again.executed, again.problems) == (False, ())
    assert "reproduced: 1e-15 (≤ 1e-12); control 0.001 (flips); seal: checked 1" in junit([again]).decode()


def test_a_true_object_without_certificates_is_a_problem(tmp_path: Path, tiny: SimpleNamespace) -> None:
    for code in (tiny.claim("C1-one"), carrying("C1-one")):
        outcome = run_chapter(chapter_of(tmp_path / str(len(code)), tiny, code, **{"true-object": OBJECT}))
        assert outcome.problems == ("claim C1-one has a :true-object:, but no certificates were given to measured(…)",)


def test_a_seal_is_checked_computed_both_or_none() -> None:
    some = Certificates.of(["a"])
    said = {"true_object": "near"}
    assert claim().seals == {}
    assert claim().as_json()["seal"] is None
    assert claim(trusted="the prover").seals == {"computed": "computed"}
    assert claim(some, **said).seals == {"checked": "checked: 1 certificate"}
    both = claim(some, **said, trusted="the prover")
    assert both.seal == "checked 1, computed"
    assert both.as_json()["seal"] == {
        "kinds": ["checked", "computed"],
        "true_object": "near",
        "trusted": "the prover",
        "certificates": 1,
        "sha256": hashlib.sha256(some.archive("C1-one")).hexdigest(),
        "address": "certificates/C1-one.zip",
    }
    assert claim(trusted="the prover").as_json()["seal"]["address"] is None


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A rendered book with a claim of each seal, and the page that explains the checker."""
    near = {"true-object": OBJECT}
    trusted = {"trusted": "that the search over {glue:text}`C1-both` boxes leaves none out."}
    root: Path = tiny.project(
        tmp_path_factory.mktemp("book"),
        {
            "part/one": {
                "code": [
                    carrying("C1-checked", *[tiny.certificate(float(i)) for i in range(1, 13)]),
                    carrying("C1-both", tiny.certificate()),
                    tiny.claim("C1-computed"),
                    tiny.claim("C1-plain"),
                ],
                "boxes": [
                    tiny.box("C1-checked", **near),
                    tiny.box("C1-both", **near, **trusted),
                    tiny.box("C1-computed", **trusted),
                    tiny.box("C1-plain"),
                ],
            },
            "certificates/proof": {"code": [tiny.claim("C2-plain")], "boxes": [tiny.box("C2-plain")]},
        },
    )
    (root / "_config.yml").write_text(CONFIG, encoding="utf-8")
    (root / "book/intro.md").write_text("# Intro\n\n```{claims-table}\n```\n")
    (root / "book/assets").symlink_to(Path(__file__).resolve().parents[2] / "book/assets")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("BOOK_REPOSITORY_URL", raising=False)
        assert main(["build"]) == 0
    return root


def page(book: Path, name: str) -> str:
    return (book / "_build/html/book" / f"{name}.html").read_text(encoding="utf-8")


def box(book: Path, name: str) -> str:
    html = page(book, "part/one")
    start = html.index(f'id="claim-{name}"')
    return html[start : html.index("</dl>", start)]


def test_the_box_shows_the_seal_its_object_and_the_files(book: Path) -> None:
    found = box(book, "C1-checked")
    assert '<span class="seal seal-checked">checked: 12 certificates</span>' in found
    assert "Within the <em>radius</em> of these floats lies a true line" in found
    assert 'href="../../certificates/C1-checked.zip">C1-checked.zip</a>' in found
    assert 'checker: <a class="reference external" href="../../certificates/check.py">check.py</a>' in found
    assert re.search(r'href="\.\./certificates/proof\.html"[^>]*>.*how they are checked', found)
    assert "computed" not in found
    assert found.count('class="claim-seal"') == 1


def test_both_seals_may_stand_in_one_box_and_none_in_another(book: Path) -> None:
    both = box(book, "C1-both")
    assert both.index("checked: 1 certificate<") < both.index('<span class="seal seal-computed">computed</span>')
    assert re.search(r"computed</span> Trusted: that the search over .*>1e-15<", both)
    computed = box(book, "C1-computed")
    assert "seal-computed" in computed
    assert "seal-checked" not in computed
    assert ".zip" not in computed
    assert "seal" not in box(book, "C1-plain")


def test_the_files_lie_beside_the_pages_with_the_checker(
    book: Path, tiny: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = book / "_build/html/certificates"
    assert {path.name for path in folder.iterdir()} == {"C1-checked.zip", "C1-both.zip", "check.py"}
    texts = [tiny.certificate(float(i)) for i in range(1, 13)]
    assert (folder / "C1-checked.zip").read_bytes() == Certificates.of(texts).archive("C1-checked")
    assert main(["verify", str(folder / "C1-checked.zip")]) == 0
    assert capfd.readouterr().out.count("proved") == 12


def test_pages_and_downloads_do_not_carry_the_certificates(book: Path) -> None:
    packed = Certificates.of([Certificates.of([]).packed]).packed[:12]  # how every packed text begins
    for path in (book / "_build/html").rglob("*"):
        if path.suffix in {".html", ".ipynb"}:
            text = path.read_text(encoding="utf-8")
            assert CERTIFICATES_MIME not in text, path
            assert packed not in text, path
    executed = nbformat.read(book / "_build/html/_sources/book/part/one.executed.ipynb", as_version=4)
    prose = executed.cells[0].source
    assert "Seal: checked: 12 certificates. Within the *radius* of these floats" in prose
    assert "Trusted: that the search over 1e-15 boxes" in prose


def test_paper_has_the_same_in_words(book: Path, tmp_path: Path) -> None:
    run_jupyter_book(book, tmp_path, "--all", "--builder=latex")
    text = " ".join((tmp_path / "_build/latex/book.tex").read_text(encoding="utf-8").split())
    assert r"\sphinxstylestrong{Doubling is adding} (C1\sphinxhyphen{}checked): reproduced" in text
    assert "checked: 12 certificates" in text
    assert r"Files: certificates/C1\sphinxhyphen{}checked.zip, beside the pages of the book." in text
    assert r"\sphinxstylestrong{Source:} this test" in text


def test_the_ledger_has_a_column_for_the_seal(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = page(book, "intro")
    cells = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
    last = [re.sub(r"<[^>]*>|\s+", " ", row.rpartition("<td")[2].partition(">")[2]).split() for row in cells[1:]]
    assert last == [["checked", "12"], ["checked", "1", "computed"], ["computed"], ["—"], ["—"]]
    monkeypatch.chdir(book)
    assert main(["claims"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["claim", "measured", "bound", "verdict", "seal"]
    assert [re.split(" {2,}", line)[-1] for line in lines[2:]] == [
        "checked 12",
        "checked 1, computed",
        "computed",
        "—",
        "—",
    ]


def test_the_ledger_for_machines_names_the_files(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(book)
    assert main(["claims", "--json"]) == 0
    said = capsys.readouterr().out
    seals = {entry["id"]: entry["seal"] for entry in json.loads(said)}
    content = (book / "_build/html" / seals["C1-checked"]["address"]).read_bytes()
    assert seals["C1-checked"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert seals["C1-plain"] is None
    (tmp_path / "a.json").write_text(said, encoding="utf-8")
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 0


def test_a_draft_page_has_the_files_too(book: Path) -> None:
    copy = executed_path(Chapter(book, Path("book/part/one.ipynb")))
    assert copy.is_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(book)
        assert main(["page", "part/one"]) == 0
    assert (book / "_build/draft/certificates/C1-checked.zip").is_file()
    assert "how they are checked" not in (book / "_build/draft/book/part/one.html").read_text(encoding="utf-8")
