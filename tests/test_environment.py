"""environment.yml and pyproject.toml name the same dependencies, and constraints.txt pins each of them."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import yaml

from companion.repository import VARIABLE

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = PROJECT["dependencies"] + [each for name in ("book", "cluster", "compiled", "test") for each in EXTRAS[name]]

# A stamp, and the extras that the recipe below it installs.
STAMP = r"^\.venv/(\S+):.*(?:\n\t.*)*?\n\t\$\(INSTALL\) '\.\[(.*)\]'$"


def test_conda_users_get_the_same_dependencies() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    assert [entry for entry in pip if not entry.startswith("--")] == DECLARED
    assert f"python{PROJECT['requires-python']}" in environment
    assert "--constraint constraints.txt" in pip


def test_the_library_needs_torch_numpy_and_scipy_alone() -> None:
    assert [normal(re.split(r"[<>=]", entry)[0]) for entry in PROJECT["dependencies"]] == ["torch", "numpy", "scipy"]
    assert len(set(DECLARED)) == len(DECLARED)


def test_make_installs_the_extras_that_its_commands_need() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installed = {stamp: set(extras.split(",")) for stamp, extras in re.findall(STAMP, makefile, re.MULTILINE)}
    # What only `make pdf` needs it installs itself; peers of the benchmarks are the reader's choice.
    assert installed == {"installed-book": {"book"}, "installed-all": set(EXTRAS) - {"pdf", "bench"}}
    assert re.search(r"^pdf: book\n\t@\$\(INSTALL\) '\.\[book,pdf\]'$", makefile, re.MULTILINE)
    needed = dict(re.findall(r"^(\w+): \.venv/(\S+)$", makefile, re.MULTILINE))
    assert needed["book"] == "installed-book"
    assert needed["test"] == needed["check"] == "installed-all"


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
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


WORKFLOWS = {path.stem: yaml.safe_load(path.read_bytes()) for path in (ROOT / ".github/workflows").glob("*.yml")}


def test_only_what_runs_nothing_of_the_repository_may_publish() -> None:
    writing = {
        (workflow, job)
        for workflow, content in WORKFLOWS.items()
        for job, entry in content["jobs"].items()
        if "write" in {*content["permissions"].values(), *entry.get("permissions", {}).values()}
    }
    assert writing == {("publish", "deploy"), ("publish", "notebooks")}
    jobs = WORKFLOWS["publish"]["jobs"]
    assert not any("run" in step for step in jobs["deploy"]["steps"])
    # The other one pushes what it was handed: git alone, and no checkout of the repository.
    commands = [line.split()[0] for step in jobs["notebooks"]["steps"] for line in step.get("run", "").splitlines()]
    assert set(commands) == {"cd", "git"}
    assert not any("checkout" in step.get("uses", "") for step in jobs["notebooks"]["steps"])


def test_the_publishing_build_is_told_the_repository() -> None:
    (build,) = (step for step in WORKFLOWS["publish"]["jobs"]["build"]["steps"] if step.get("run") == "make book")
    assert build["env"] == {VARIABLE: "${{ github.server_url }}/${{ github.repository }}"}


def test_binder_finds_what_it_installs() -> None:
    """Binder installs environment.yml; the files that its lines name have to be there."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    named = [line.split()[1] for line in pip if line.startswith("--")]
    assert named == ["constraints.txt", "."]
    assert all((ROOT / name).exists() for name in named)
    # Any of these would come before it, and Binder would look at nothing else.
    assert not [name for name in ("binder", ".binder", "Dockerfile") if (ROOT / name).exists()]


def test_what_is_published_has_passed_the_tests() -> None:
    jobs = WORKFLOWS["publish"]["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert (jobs["build"]["needs"], jobs["deploy"]["needs"], jobs["notebooks"]["needs"]) == ("test", "build", "build")
    assert "workflow_call" in WORKFLOWS["test"][True]  # YAML 1.1 takes the key `on` for a boolean


def test_actions_are_pinned_by_commit() -> None:
    steps = [
        step for content in WORKFLOWS.values() for job in content["jobs"].values() for step in job.get("steps", [])
    ]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []


def test_the_container_builds_the_book_on_a_fixed_base() -> None:
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM ")]
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", base)
    assert version, f"{base} may change by itself: name the whole version"
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert (int(version[1]), int(version[2])) >= least
    assert "RUN make book" in lines
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".venv", "_build"} <= set(left_out), "results of this machine would count as the container's"


def test_every_supported_system_is_tried() -> None:
    systems = {job.get("runs-on") for content in WORKFLOWS.values() for job in content["jobs"].values()}
    assert {"ubuntu-latest", "macos-latest"} <= systems


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
