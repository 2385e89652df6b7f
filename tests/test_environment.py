"""environment.yml and pyproject.toml name the same dependencies, and constraints.txt pins each of them."""

import re
import shutil
import subprocess
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


def test_every_checkout_has_the_same_bytes(tmp_path: Path) -> None:
    """With carriage returns a script does not start; in the data and the executed code they are other bytes."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    for name in (".gitattributes", "data/.gitattributes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    files = [".ci/run", "Makefile", "src/companion/files.py", "book/intro.md", "data/iris.csv", "data/x.bz2", "a.woff"]
    command = ["git", "-C", str(tmp_path), "check-attr", "text", "eol", "--", *files]
    said = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    found = {tuple(line.split(": ")[:2]): line.split(": ")[2] for line in said.splitlines()}
    assert {name: found[name, "eol"] for name in files[:4]} == dict.fromkeys(files[:4], "lf")
    assert {found[name, "text"] for name in files[:4]} == {"auto"}
    assert {found[name, "text"] for name in files[4:]} == {"unset"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
