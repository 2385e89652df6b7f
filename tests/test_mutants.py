"""The harness of mutants: its list fits the source, and it can tell a mutant that is noticed from one that is not."""

import ast
import importlib.util
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
    assert len({mutant.name for mutant in found}) == len(found) > 0
    for mutant in found:
        assert mutant.new != mutant.old, mutant.name
        if mutant.file.endswith(".py"):
            ast.parse((ROOT / mutant.file).read_text(encoding="utf-8").replace(mutant.old, mutant.new))


def test_a_mutant_is_noticed_and_a_change_of_no_effect_is_not(harness: ModuleType) -> None:
    mutant = next(each for each in harness.mutants() if each.name == "agreement about the least likely class")
    mutant = replace(mutant, tests=(f"{mutant.tests[0]}::test_agreement_is_about_the_likeliest_class",))
    assert harness.noticed(mutant)
    assert not harness.noticed(replace(mutant, new="torch.argmax(outputs, dim=-1), -1)"))
