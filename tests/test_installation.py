"""The wheel: what a reader gets who installs the library without a clone, and without the book's tools."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import torch
from embedding_principle import Insertion, Network, Parametrised, __version__, digits, iris, lift, relu, wine
import embedding_principle
print(embedding_principle.__file__)
flowers = iris()
assert (len(flowers), len(wine())) == (150, 178)
generator = torch.Generator().manual_seed(0)
network = Network.uniform((4, 3, 3), relu)
point = Parametrised(network, network.initial(generator))
deep = lift(point, flowers.inputs, [Insertion(1, 4, relu)], generator=generator)
torch.testing.assert_close(deep.forward(flowers.inputs), point.forward(flowers.inputs))
try:
    digits(train=10, test=10)
except RuntimeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network from what is committed or changed; torch brings setuptools."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(
        [*command, "--", "src", "data", "*.toml", "*.py", "*.in", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*build, "--wheel-dir", out, clone], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_tables_once_and_what_the_packages_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        content = archive.read("embedding_principle/data/iris.csv")
    assert content == (ROOT / "data/iris.csv").read_bytes()
    tables = {"iris.csv", "wine.csv", "checksums.txt", "README.md"}
    assert {name for name in names if "/data/" in name} == {f"embedding_principle/data/{name}" for name in tables}
    tracked = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    ours = {name for name in tracked if "__pycache__" not in name and ".egg-info" not in name}
    assert {name for name in names if ".dist-info" not in name} - {
        f"embedding_principle/data/{name}" for name in tables
    } == ours
    assert not (ROOT / "src/embedding_principle/data").exists()


def test_the_library_works_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if name != "EMBEDDING_PRINCIPLE_DATA"}
    command = [sys.executable, "-c", USE]
    variables = environment | {"PYTHONPATH": str(target)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, refusal = done.stdout.splitlines()
    assert Path(where).is_relative_to(target)
    assert "the digits are in a clone's data folder: set EMBEDDING_PRINCIPLE_DATA to it" in refusal


def test_the_installed_version_asks_for_three_packages_and_offers_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode().splitlines()
    required = [line for line in metadata if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert [line.split()[1].partition(">")[0] for line in required] == ["torch", "numpy", "scipy"]
    extras = [line.split()[1] for line in metadata if line.startswith("Provides-Extra: ")]
    assert extras == ["book", "pdf", "cluster", "bench", "compiled", "test"]
