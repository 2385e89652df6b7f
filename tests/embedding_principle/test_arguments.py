"""Arguments: what each check lets through and what it refuses, at the border of both."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from embedding_principle.arguments import (
    Shape,
    checked,
    class_numbers,
    exact,
    number,
    real,
    require_room,
    variable,
    whole,
)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((2, 3), ("n", 3)), ((5, 2, 3), (..., "n", 3)), ((2, 2), ("n", "n")), ((), ()), ((4, 1), (..., 1))],
)
def test_shapes_that_fit(size: tuple[int, ...], shape: Shape) -> None:
    assert variable("x", torch.ones(size), shape).shape == size


@pytest.mark.parametrize(
    ("size", "shape", "said"),
    [
        ((2, 3, 4), ("n", 3), r"x: expected shape \(n, 3\), got \(2, 3, 4\); give one at a time"),
        ((2,), ("n", 3), r"x: expected shape \(n, 3\), got \(2,\)"),
        ((0, 3), ("n", 3), r"x: expected shape \(n, 3\), got \(0, 3\); it must not be empty"),
        ((2, 3), ("n", "n"), r"x: expected shape \(n, n\), got \(2, 3\)"),
        ((3,), (..., "n", 3), "x: expected shape"),
    ],
)
def test_shapes_that_do_not_fit(size: tuple[int, ...], shape: Shape, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        variable("x", torch.ones(size), shape)


def test_a_tensor_of_inference_mode_becomes_one_that_autograd_takes() -> None:
    with torch.inference_mode():
        made = torch.ones(2, dtype=torch.float64)
    assert not variable("x", made, (2,)).is_inference()


def test_of_numbers_that_are_not_finite_the_row_is_named() -> None:
    values = torch.tensor([[0.0], [math.nan]])
    assert variable("x", values, (2, 1)).isnan().any()
    with pytest.raises(ValueError, match="x: row 1 is not finite"):
        real("x", values, (2, 1))


def test_where_digits_decide_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="x: expected float64, got"):
        exact("x", torch.ones(2, dtype=torch.float32), (2,))


def test_classes_count_from_zero() -> None:
    assert class_numbers("y", torch.tensor([0, 2], dtype=torch.uint8), 2).tolist() == [0, 2]
    with pytest.raises(ValueError, match="y: the class -1 is negative"):
        class_numbers("y", torch.tensor([0, -1]), 2)


@pytest.mark.parametrize("value", [1, 3, np.int64(2)])
def test_whole_numbers_in_their_range(value: int) -> None:
    assert whole("k", value, 1, 3) == value


@pytest.mark.parametrize("value", [0, 4, True, 2.0, "2", None])
def test_other_whole_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="k: expected a whole number from 1 to 3, got"):
        whole("k", value, 1, 3)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5)])
def test_numbers_in_their_range(value: object) -> None:
    assert number("rate", value, at_least=0.5, below=1.0) == 0.5
    assert number("rate", value, above=0.0) == 0.5


@pytest.mark.parametrize("value", [0, 1.0, math.inf, -math.inf, math.nan, True, "0.5", torch.ones(1), 10**400])
def test_other_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="rate: expected a finite number above 0, below 1, got"):
        number("rate", value, above=0.0, below=1.0)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_where_there_is_no_range_a_number_is_finite_all_the_same(value: float) -> None:
    with pytest.raises(ValueError, match="rate: expected a finite number, got"):
        number("rate", value)


def test_what_no_memory_holds_is_refused() -> None:
    require_room("count", 2**14, 2**14)
    with pytest.raises(ValueError, match="count: this asks for more than"):
        require_room("count", 2**14, 2**14 + 1)


@checked
def called(
    count: int, rate: float, words: Sequence[str] = (), *more: int, table: Mapping[str, int] | None = None
) -> str:
    """Whatever is given."""
    return f"{count} {rate} {list(words)} {more} {table}"


def test_what_is_of_the_annotated_types_passes() -> None:
    assert called(1, math.nan, ["a"], 2, table={"b": 3}) == "1 nan ['a'] (2,) {'b': 3}"
    assert called(count=1, rate=2) == "1 2 [] () None"
    assert called(count=1, rate=math.nan) == "1 nan [] () None"


@pytest.mark.parametrize(
    ("positional", "named", "said"),
    [
        (("1", 2.0), {}, "count: expected a whole number, got '1'"),
        ((1,), {"rate": "2"}, "rate: expected a number, got '2'"),
        ((1, 2.0, "words"), {}, "words: expected a sequence, got 'words'; give a list or a tuple"),
        ((1, 2.0, ["a", 3]), {}, r"words\[1\]: expected str, got 3"),
        ((1, 2.0, [], "4"), {}, "more: expected a whole number, got '4'"),
        ((1, 2.0), {"table": {"b": "5"}}, r"table\['b'\]: expected a whole number, got '5'"),
        ((1, 2.0), {"table": [6]}, "table: expected a mapping"),
    ],
)
def test_what_is_of_another_type_is_refused(
    positional: tuple[object, ...], named: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        called(*positional, **named)  # type: ignore[arg-type]


def test_a_list_is_no_tensor() -> None:
    @checked
    def of(matrix: Tensor) -> Tensor:
        return matrix

    with pytest.raises(ValueError, match="matrix: expected a tensor, got"):
        of([1.0])  # type: ignore[arg-type]
