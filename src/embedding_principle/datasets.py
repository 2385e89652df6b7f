"""Training sets of the book: Iris, MNIST digits and targets on the line.

Real data lie in the repository's ``data`` folder, small enough for git. ``data/checksums.txt`` holds their SHA-256
digests, and every load compares the file with its digest, so that a result never rests on damaged data. An installed
package brings the tables, Iris and wine; for the digits it asks for a clone's folder.
Everything here is deterministic: two calls with equal arguments return equal tensors.
"""

import bz2
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from embedding_principle.arguments import checked, require_room

FOLDER_VARIABLE = "EMBEDDING_PRINCIPLE_DATA"
# Where setup.py puts the tables; an editable installation has no such folder.
_INSTALLED = Path(__file__).with_name("data")
DIGIT_SIDES = (28, 14, 7, 4)


class DataError(RuntimeError):
    """A data file is missing or is not the one that ``data/checksums.txt`` describes."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training or test set S = {(x_i, y_i)}, i = 1..n.

    Classification sets carry the class numbers too; their targets are the one-hot rows of these.
    """

    name: str
    inputs: Tensor  # (n, d) float64
    targets: Tensor  # (n, m) float64
    labels: Tensor | None  # (n,) int64; None for regression

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class Split:
    """A training set and a test set that share no sample."""

    train: Dataset
    test: Dataset


@checked
def iris(*, classes: Sequence[int] = (0, 1, 2), standardized: bool = True) -> Dataset:
    """Return Fisher's Iris flowers: 4 measurements in cm, 50 flowers a class.

    Source: R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7 (1936), 179–188.

    Args:
        classes: which of 0 (setosa), 1 (versicolor) and 2 (virginica) to keep. Label j means ``classes[j]``.
        standardized: shift and scale each measurement to mean 0 and (population) variance 1 over the kept flowers;
            otherwise centimetres.

    Returns:
        Inputs (n, 4), one-hot targets (n, m) and labels (n,), n = 50 m, in the order of Fisher's table.

    Raises:
        ValueError: ``classes`` is empty, repeats a class or names one outside 0..2.
        DataError: ``data/iris.csv`` is missing or damaged.

    Example:
        >>> flowers = iris(classes=(1, 2), standardized=False)
        >>> flowers.inputs.shape, flowers.targets.shape
        (torch.Size([100, 4]), torch.Size([100, 2]))
        >>> flowers.inputs[0].tolist()
        [7.0, 3.2, 4.7, 1.4]
    """
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= {0, 1, 2}:
        raise ValueError(f"classes: expected distinct members of (0, 1, 2), got {tuple(classes)}")
    measurements, species = _table("iris.csv")
    kept = torch.isin(species, torch.tensor(classes))
    inputs = _standardized(measurements[kept]) if standardized else measurements[kept]
    labels = (species[kept, None] == torch.tensor(classes)).long().argmax(1)
    return _classification("iris", inputs, labels, len(classes))


@checked
def wine(*, standardized: bool = True) -> Dataset:
    """Return the wines of Aeberhard and Forina: 13 chemical measurements, 59, 71 and 48 wines of three cultivars.

    Source: S. Aeberhard, M. Forina, Wine, UCI Machine Learning Repository (1992).

    Args:
        standardized: shift and scale each measurement to mean 0 and (population) variance 1.

    Returns:
        Inputs (178, 13), one-hot targets (178, 3) and labels (178,).

    Raises:
        DataError: ``data/wine.csv`` is missing or damaged.

    Example:
        >>> wine(standardized=False).inputs[0, :3].tolist()
        [14.23, 1.71, 2.43]
    """
    measurements, cultivars = _table("wine.csv")
    return _classification("wine", _standardized(measurements) if standardized else measurements, cultivars, 3)


@checked
def digits(*, train: int = 5000, test: int | None = None, side: int = 28) -> Split:
    """Return MNIST digits, grey values from 0 (background) to 1 (ink).

    The stored training set holds the first 500 images of each class of the official one; the test set is the
    whole official one, 10 000 images, which is not balanced (892 to 1135 images a class). A balanced selection takes
    the first images of each class and cycles through the classes 0, 1, …, 9, so that a smaller selection is
    the beginning of a larger one.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition,
    Proceedings of the IEEE 86 (1998), 2278–2324.

    Args:
        train: number of training images, balanced: a multiple of 10 up to 5000.
        test: number of test images, balanced: a multiple of 10 up to 8920; None is the official test set in its order.
        side: 28, or 14, 7 or 4 for images averaged over square blocks: real data with 196, 49 or 16 inputs.

    Returns:
        The split; inputs (n, side²), row by row from the top left, one-hot targets (n, 10) and labels (n,).

    Raises:
        ValueError: an argument is not one of the above.
        DataError: a file ``data/mnist-*.bz2`` is missing or damaged.

    Example:
        >>> split = digits(train=200, test=100, side=7)
        >>> split.train.inputs.shape, split.test.targets.shape
        (torch.Size([200, 49]), torch.Size([100, 10]))
        >>> split.train.labels[:12].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    if side not in DIGIT_SIDES:
        raise ValueError(f"side: expected one of {DIGIT_SIDES}, got {side}")
    return Split(_digits("train", train, side), _digits("t10k", test, side))


def _digits(part: str, n: int | None, side: int) -> Dataset:
    images, labels = _idx(f"mnist-{part}-images-idx3-ubyte.bz2"), _idx(f"mnist-{part}-labels-idx1-ubyte.bz2").long()
    if n is not None:
        kept = _balanced("train" if part == "train" else "test", labels, n)
        images, labels = images[kept], labels[kept]
    block = 28 // side
    pooled = images.double().reshape(-1, side, block, side, block).mean((2, 4)) / 255
    return _classification(f"mnist {part}", pooled.flatten(1), labels, 10)


def _balanced(name: str, labels: Tensor, n: int) -> Tensor:
    """Return the positions of the first n / 10 samples of each class, cycling through the classes."""
    most = 10 * int(labels.bincount().min())
    if n % 10 or not 10 <= n <= most:
        raise ValueError(f"{name}: a balanced selection is a multiple of 10 from 10 to {most}, not {n}")
    return torch.stack([(labels == digit).nonzero()[: n // 10, 0] for digit in range(10)], 1).flatten()


def _idx(name: str) -> Tensor:
    """Return a compressed file of MNIST's idx format: two zero bytes, type, dimensions, big-endian shape, data."""
    content = bytearray(bz2.decompress(_verified(name)))  # writable, as torch wants its buffers
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * dimensions).reshape(shape)


@checked
def one_dimensional(name: str, *, n: int | None = None) -> Dataset:
    """Return a synthetic target on n equally spaced points of an interval.

    ===================  ======================================================  ===========  ==
    name                 target                                                  interval     n
    ===================  ======================================================  ===========  ==
    ``tt6``              tanh(10x − 6) + tanh(10x + 6)                           [−1.5, 1.5]  30
    ``wave``             sin 2x + 0.3x                                           [−3, 3]      20
    ``sin``              sin x                                                   [−π, π]      30
    ``two classes``      1 where x + s ≥ 0; s runs −π/3, π/3, −π/3, …            [−3, 3]      24
    ``three classes``    how many of −π/4, π/4 are ≤ x + s; s runs −π/3, 0, π/3  [−3, 3]      36
    ``flipped classes``  1 where x > 0, the other class at every fourth point    [−3, 3]      24
    ===================  ======================================================  ===========  ==

    ``tt6`` has a plateau at the output of a width-1 network; ``wave`` has finite tanh minima for widths 1 to 3.
    In ``two classes`` and ``three classes`` labels alternate where classes meet, in ``flipped classes`` everywhere:
    the classes overlap, so that the logistic fit is finite (Albert and Anderson, On the existence of maximum
    likelihood estimates in logistic regression models, Biometrika 71 (1984), 1–10). With ``flipped classes`` a tanh
    network of width 1 has a finite minimum of the cross-entropy too.

    Args:
        name: one of the names above.
        n: number of points; the table's number by default.

    Returns:
        Inputs (n, 1), targets (n, 1) and no labels; for classes one-hot targets (n, m) and labels (n,).

    Raises:
        ValueError: the name is unknown, n < 2, or n < 16 for classes, or the points do not fit in memory.

    Example:
        >>> one_dimensional("wave").inputs[[0, -1], 0].tolist()
        [-3.0, 3.0]
        >>> one_dimensional("two classes", n=16).labels.tolist()
        [0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1]
    """
    if name not in _LINE:
        raise ValueError(f"name: unknown target {name!r}; known: {', '.join(map(repr, _LINE))}")
    target = _LINE[name]
    n = target.points if n is None else n
    least = 16 if target.classes else 2  # with fewer points some of the class patterns do not overlap
    if n < least:
        raise ValueError(f"n: expected at least {least} for {name!r}, got {n}")
    require_room("n", n)
    x = torch.linspace(-target.end, target.end, n, dtype=torch.float64)
    if target.classes:
        return _classification(name, x[:, None], target.function(x), target.classes)
    return Dataset(name, x[:, None], target.function(x)[:, None], None)


@dataclass(frozen=True)
class _LineTarget:
    end: float  # the interval is [−end, end]
    points: int
    function: Callable[[Tensor], Tensor]
    classes: int = 0  # 0: regression


def _two_classes(x: Tensor) -> Tensor:
    return (x + _cycle((-torch.pi / 3, torch.pi / 3), len(x)) >= 0).long()


def _three_classes(x: Tensor) -> Tensor:
    # Irrational shifts and thresholds: no grid point falls on a boundary, where rounding would choose its class.
    shifted = x + _cycle((-torch.pi / 3, 0.0, torch.pi / 3), len(x))
    return (shifted >= -torch.pi / 4).long() + (shifted >= torch.pi / 4).long()


def _flipped_classes(x: Tensor) -> Tensor:
    return (x > 0).long() ^ (torch.arange(len(x)) % 4 == 2).long()


def _cycle(values: Sequence[float], n: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[torch.arange(n) % len(values)]


_LINE = {
    "tt6": _LineTarget(1.5, 30, lambda x: torch.tanh(10 * x - 6) + torch.tanh(10 * x + 6)),
    "wave": _LineTarget(3.0, 20, lambda x: torch.sin(2 * x) + 0.3 * x),
    "sin": _LineTarget(torch.pi, 30, torch.sin),
    "two classes": _LineTarget(3.0, 24, _two_classes, classes=2),
    "three classes": _LineTarget(3.0, 36, _three_classes, classes=3),
    "flipped classes": _LineTarget(3.0, 24, _flipped_classes, classes=2),
}


def _table(name: str) -> tuple[Tensor, Tensor]:
    """Measurements (n, m) and labels (n,) of a table whose last column is the class."""
    table = torch.from_numpy(np.loadtxt(_verified(name).decode().splitlines(), delimiter=",", skiprows=1))
    return table[:, :-1], table[:, -1].long()


def _standardized(measurements: Tensor) -> Tensor:
    return (measurements - measurements.mean(0)) / measurements.std(0, correction=0)


def _classification(name: str, inputs: Tensor, labels: Tensor, classes: int) -> Dataset:
    return Dataset(name, inputs, one_hot(labels, classes).double(), labels)


def _verified(name: str) -> bytes:
    """Return the bytes of a data file after comparing their SHA-256 with ``checksums.txt``."""
    content = _read(name)
    lines = _read("checksums.txt").decode(errors="replace").splitlines()
    digests = {file: digest for digest, _, file in (line.partition("  ") for line in lines)}
    found, expected = hashlib.sha256(content).hexdigest(), digests.get(name, "no entry")
    if found != expected:
        path = _folder() / name
        raise DataError(f"{path}: found SHA-256 {found}, checksums.txt has {expected}; {_remedy(name)}")
    return content


def _read(name: str) -> bytes:
    path = _folder() / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_remedy(name)}") from error


def _remedy(name: str) -> str:
    if _folder() == _INSTALLED:
        return (
            f"reinstall the package for a table; the digits are in a clone's data folder: set {FOLDER_VARIABLE} to it"
        )
    return f"restore it by `git checkout -- data/{name}` or rebuild it by `python data/prepare.py`"


def _folder() -> Path:
    """Return the data folder: the environment's, else that of the installed package, else the clone's."""
    clone = Path(__file__).parents[2] / "data"
    folder = Path(os.environ.get(FOLDER_VARIABLE) or (_INSTALLED if _INSTALLED.is_dir() else clone))
    if not folder.is_dir():
        raise DataError(
            f"data folder {folder} does not exist: install the package with `pip install .` from a clone of the "
            f"repository, or set {FOLDER_VARIABLE} to the clone's data folder"
        )
    return folder
