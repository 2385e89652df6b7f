"""Reports for continuous integration, and the comparison of two ledgers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from companion.commands import main
from companion.reports import changes, read_ledger

ENTRY = {"id": "D1-one", "measured": 1e-15, "relation": "<=", "bound": 1e-12, "verdict": "reproduced"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A chapter whose claims hold, one with a claim that does not, and one that ends with an error."""
    measured = "from companion.measuring import measured\nmeasured({!r}, {}, control=1.0)"
    made: Path = tiny.project(
        tmp_path_factory.mktemp("reports"),
        {
            "good": {"code": [measured.format("D1-one", 1e-15)], "boxes": [tiny.box("D1-one")]},
            "off": {"code": [measured.format("D1-two", 0.5)], "boxes": [tiny.box("D1-two"), tiny.box("D1-three")]},
            "ends": {"code": ["raise ValueError('a < b & \\x07')"], "boxes": []},
        },
    )
    return made


def test_every_claim_is_a_test_case(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(project)
    report = tmp_path / "report.xml"
    assert main(["check", "--junit", str(report), "--workers", "1"]) == 1
    assert "off failed" in capsys.readouterr().err
    suites = {suite.get("name"): suite for suite in ElementTree.parse(report).getroot()}
    assert list(suites) == ["good", "off", "ends"]
    numbers = {name: tuple(suite.get(key) for key in ("tests", "failures", "errors")) for name, suite in suites.items()}
    assert numbers == {"good": ("1", "0", "0"), "off": ("2", "2", "0"), "ends": ("1", "0", "1")}
    failures = {case.get("name"): case.find("failure") for case in suites["off"]}
    assert "measured 0.5" in failures["D1-two"].get("message", "")  # type: ignore[union-attr]
    assert "not measured" in failures["D1-three"].get("message", "")  # type: ignore[union-attr]
    assert "a < b &" in suites["ends"][0][0].get("message", "")


def test_what_holds_ends_with_zero(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(project)
    assert main(["check", "good", "--junit", str(tmp_path / "report.xml")]) == 0
    assert "claims: 1 reproduced" in capsys.readouterr().out
    (suite,) = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert suite[0].attrib == {"classname": "good", "name": "D1-one"}


def test_a_report_that_cannot_be_written_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(project)
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["check", "good", "--junit", str(tmp_path / "file/report.xml")]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/file" in said
    assert "Traceback" not in said


def ledger_file(folder: Path, name: str, *entries: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_equal_ledgers_are_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ledger_file(tmp_path, "a.json", ENTRY)
    assert main(["compare", str(path), str(path)]) == 0
    assert capsys.readouterr().out == "all 1 claims are equal\n"


def test_a_changed_value_is_shown_beside_its_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = ledger_file(tmp_path, "a", ENTRY), ledger_file(tmp_path, "b", {**ENTRY, "measured": 3e-15})
    assert main(["compare", str(before), str(after)]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split() == ["D1-one", "1e-15", "3e-15", "≤", "1e-12", "0.002", "reproduced"]


def test_another_verdict_and_claims_that_came_or_went_weigh(tmp_path: Path) -> None:
    other = {**ENTRY, "id": "D1-two"}
    cases = [([ENTRY], [{**ENTRY, "verdict": "failed"}]), ([ENTRY], [ENTRY, other]), ([ENTRY, other], [ENTRY])]
    for i, (first, second) in enumerate(cases):
        files = [ledger_file(tmp_path, f"{i}{side}", *entries) for side, entries in (("a", first), ("b", second))]
        assert main(["compare", *map(str, files)]) == 1
        (change,) = changes(*map(read_ledger, files))
        assert change.weighs


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"a": 1}', '[{"id": "D1-one"}]', '[{"id": "a", "measured": "b"}]']
)
def test_what_is_no_ledger_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    good, bad = ledger_file(tmp_path, "a.json", ENTRY), tmp_path / "b.json"
    bad.write_text(content, encoding="utf-8")
    assert main(["compare", str(good), str(bad)]) == 2
    said = capsys.readouterr().err
    assert "b.json: no ledger of this book; write one" in said
    assert said.count("\n") == 1
    assert main(["compare", str(good), str(tmp_path / "missing.json")]) == 2


def test_a_report_is_not_written_over_something_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr("companion.commands.run_chapters", None)  # whatever runs would raise TypeError
    before = Path("_toc.yml").read_bytes()
    for target, said in (("_toc.yml", "is no report"), (".", "is a folder"), ("/", "is a folder")):
        assert main(["check", "--junit", target]) == 2
        assert said in capsys.readouterr().err
    assert Path("_toc.yml").read_bytes() == before
