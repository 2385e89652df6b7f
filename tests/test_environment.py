"""environment.yml and pyproject.toml name the same dependencies, and constraints.txt pins each of them."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = PROJECT["dependencies"] + EXTRAS["test"]


def test_conda_users_get_the_same_dependencies() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    assert [entry for entry in pip if not entry.startswith("--")] == DECLARED
    assert f"python{PROJECT['requires-python']}" in environment
    assert "--constraint constraints.txt" in pip


def test_the_tests_have_what_the_other_extras_bring() -> None:
    assert set().union(*EXTRAS.values()) == set(EXTRAS["test"])


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normal(line.split("==")[0]) for line in lines if "==" in line}
    assert {normal(re.split(r"[<>=\[;]", entry)[0]) for entry in DECLARED} <= pinned
    assert all("==" in line or line.startswith("#") for line in lines)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
