"""The notation page names things of the library; each name must exist."""

import importlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest


def resolve(name: str) -> None:
    """Find `module.Name.member` below `embedding_principle`; fields without default are found by the dataclass."""
    *path, last = name.split(".")
    module_depth = next(i for i, part in enumerate([*path, last]) if part[0].isupper() or i == len(path))
    thing: object = importlib.import_module(".".join(["embedding_principle", *path[:module_depth]]))
    for part in [*path, last][module_depth:]:
        known = {field.name for field in fields(thing)} if is_dataclass(thing) else set()
        if part not in known:
            thing = getattr(thing, part)


def test_every_name_of_the_notation_exists(root: Path) -> None:
    names = re.findall(r"`([a-z_]+(?:\.\w+)+)`", (root / "book/appendix/notation.md").read_text(encoding="utf-8"))
    assert len(names) > 10
    for name in names:
        resolve(name)


@pytest.mark.parametrize("name", ["networks.Nothing", "networks.Network.nothing", "nothing.Network"])
def test_a_name_that_does_not_exist_is_found_out(name: str) -> None:
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve(name)
