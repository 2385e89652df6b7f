"""The harness of mutants: its list fits the source, and it can tell a mutant that is noticed from one that is not."""

import ast
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    """The module behind `python tests/mutants`."""
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests" / "mutants" / "__main__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_mutant_changes_its_file_and_is_still_python(harness: ModuleType) -> None:
    """`mutants` refuses passages that do not stand once in their file."""
    found = harness.mutants()
    assert len({mutant.name for mutant in found}) == len(found) > 310
    for mutant in found:
        assert mutant.new != mutant.old, mutant.name
        if mutant.file.endswith(".py"):
            ast.parse((ROOT / mutant.file).read_text(encoding="utf-8").replace(mutant.old, mutant.new))


def test_every_module_has_a_mutant(harness: ModuleType) -> None:
    """But those of one line, which say what a folder holds."""
    modules = {path for path in (ROOT / "src").rglob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 1}
    assert not {path.relative_to(ROOT).as_posix() for path in modules} - {each.file for each in harness.mutants()}


def test_every_test_that_is_named_is_there(harness: ModuleType) -> None:
    for mutant in harness.mutants():
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8") or not name, mutant.name


def test_a_mutant_is_noticed_and_a_change_of_no_effect_is_not(harness: ModuleType) -> None:
    mutant = next(each for each in harness.mutants() if each.name == "agreement about the least likely class")
    mutant = replace(mutant, tests=(f"{mutant.tests[0]}::test_agreement_is_about_the_likeliest_class",))
    bench = harness.Bench()
    try:
        assert bench.noticed(mutant)
        assert not bench.noticed(replace(mutant, new="torch.argmax(outputs, dim=-1), -1)"))
        # Fails in a copy without the book, with the mutant and without.
        assert not bench.noticed(replace(mutant, tests=("tests/site/test_pages.py",)))
    finally:
        bench.close()


def test_outcomes_are_kept_until_something_changes(
    harness: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "OUTCOMES", tmp_path / "mutants.jsonl")
    mutant = harness.mutants()[0]
    known = {"name": mutant.name, "file": mutant.file, "outcome": "survived", "seconds": 1.0, "digest": mutant.digest}
    # A line that was cut short is none.
    harness.OUTCOMES.write_text(json.dumps(known) + '\n{"name": "the', encoding="utf-8")
    assert harness.main(["--resume", mutant.name]) == 1
    assert "survived" in capsys.readouterr().out
    assert replace(mutant, new=f"{mutant.new} ").digest != mutant.digest
