"""What `from embedding_principle import …` gives, and what it takes: torch, numpy and scipy, and no file unseen."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedding_principle
from companion import recorder
from embedding_principle import _HOMES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "embedding_principle" / "__init__.py"

# Imports every module where none can be imported but the library's three dependencies, with what they need themselves.
ALONE = """
import importlib.metadata, importlib.abc, pkgutil, re, sys

def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()

needed, waiting = set(), ["torch", "numpy", "scipy"]
while waiting:
    name = normal(waiting.pop())
    if name not in needed:
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        needed.add(name)
        waiting += [re.match(r"[\\w.-]+", each)[0] for each in requirements if "extra ==" not in each]
owners = importlib.metadata.packages_distributions()
allowed = {top for top, names in owners.items() if needed & set(map(normal, names))} | {"embedding_principle"}

class Gate(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in owners and top not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Gate())
try:
    import matplotlib
except ModuleNotFoundError:
    pass
else:
    sys.exit("the gate is open")
import embedding_principle
for found in pkgutil.walk_packages(embedding_principle.__path__, "embedding_principle."):
    importlib.import_module(found.name)
    print(found.name)
"""


def python(code: str, **variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | variables
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_type_checkers_see_the_names_that_are_there() -> None:
    imports = [node for node in ast.walk(ast.parse(SOURCE.read_text())) if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.asname: (node.module or "").removeprefix("embedding_principle.")
        for node in imports
        if (node.module or "").startswith("embedding_principle")
        for alias in node.names
        if alias.name == alias.asname
    }
    assert seen == _HOMES


@pytest.mark.parametrize("name", _HOMES)
def test_a_name_is_what_its_module_defines(name: str) -> None:
    module = importlib.import_module(f"embedding_principle.{_HOMES[name]}")
    assert getattr(embedding_principle, name) is getattr(module, name)
    assert getattr(getattr(module, name), "__module__", module.__name__) == module.__name__
    assert name in dir(embedding_principle)


def test_another_name_is_no_attribute() -> None:
    assert not hasattr(embedding_principle, "embed")
    with pytest.raises(AttributeError, match="module 'embedding_principle' has no attribute 'embed'"):
        embedding_principle.embed  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_alone_loads_nothing() -> None:
    assert (
        json.loads(python("import sys, json, embedding_principle\nprint(json.dumps('torch' in sys.modules))")) is False
    )


def test_the_version_is_that_of_the_project_and_the_citation() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert embedding_principle.__version__ == project["version"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_mathematics_needs_torch_numpy_and_scipy_alone() -> None:
    imported = python(ALONE).split()
    assert {"embedding_principle.depth.lifting", "embedding_principle.training.ensembles"} <= set(imported)


def test_the_files_behind_a_name_are_inputs_of_a_chapter_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(Path(recorder.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    record = tmp_path / "record"
    python(
        "from embedding_principle import lift",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT / "src")]),
        **{recorder.ROOT: str(ROOT), recorder.RECORD: str(record)},
    )
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    read = {line[1] for line in lines if line[0] == "read" and line[2]}
    package = {name for name in read if name.startswith("src/embedding_principle/")}
    assert {"src/embedding_principle/__init__.py", "src/embedding_principle/depth/lifting.py"} <= package
    assert "src/embedding_principle/modules.py" not in package
