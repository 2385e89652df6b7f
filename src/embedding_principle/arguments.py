"""Checks of what callers give, at the entries of the library, one way everywhere.

Data and parameters of any floating-point type become float64. What is no such number, or of another shape, is refused
by a ValueError of one sentence: the argument's name, what is wrong with it, and the remedy. `checked` looks at the
types that a function's annotations name, `check_fields` at those of a dataclass; the others look at values.

Data are finite, and no derivative is taken by them: `real`. Parameters may hold what a diverged training left behind,
and they stay in autograd's graph: `variable`, which reads no entry, so that torch.func can transform what follows.
"""

import collections.abc
import functools
import inspect
import math
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from types import EllipsisType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int | str | EllipsisType, ...]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Check = Callable[[str, Any], object]

# Of an int64.
_LARGEST = 2**63 - 1
# Doubles (2 GB) in one array: more would be swapped, or end the process.
_ROOM = 1 << 28
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def variable(name: str, value: Tensor, shape: Shape) -> Tensor:
    """A float64 tensor of this shape from one of any floating-point type; entries need not be finite.

    Args:
        name: of the argument, for the message.
        value: the argument.
        shape: of each dimension its size, or a name for any size from 1 on, equal where the name is; a leading ...
            stands for a batch.

    Raises:
        ValueError: for other numbers, another shape, or what is not a dense tensor in memory.

    Example:
        >>> variable("theta", torch.ones(4, 2), (..., 2)).dtype
        torch.float64
        >>> variable("theta", torch.ones(4, 2), ("n", 3))
        Traceback (most recent call last):
        ...
        ValueError: theta: expected shape (n, 3), got (4, 2)
    """
    require_tensor(name, value)
    if value.dtype is not torch.float64 or value.layout is not torch.strided or not value.is_cpu or value.is_nested:
        value = _converted(name, value)
    require_shape(name, value, shape)
    if value.is_inference():
        # Autograd takes no tensor that was made in inference mode.
        with torch.inference_mode(False):
            value = value.clone()
    return value


def real(name: str, value: Tensor, shape: Shape) -> Tensor:
    """The same, of finite numbers, and out of autograd's graph.

    Raises:
        ValueError: as `variable` does, and naming the first row that is not finite.

    Example:
        >>> real("inputs", torch.tensor([[1.0], [math.inf]]), ("n", 1))
        Traceback (most recent call last):
        ...
        ValueError: inputs: row 1 is not finite; leave it out or mend it
    """
    converted = variable(name, value, shape).detach()
    require_finite(name, converted)
    return converted


def exact(name: str, matrix: Tensor, shape: Shape) -> Tensor:
    """As `real`, but of float64 only: where digits decide, those of another type are lost already.

    Raises:
        ValueError: as `real` does, and for every other type.

    Example:
        >>> exact("matrix", torch.eye(2, dtype=torch.float32), (2, 2))
        Traceback (most recent call last):
        ...
        ValueError: matrix: expected float64, got torch.float32; compute it in float64
    """
    if isinstance(matrix, Tensor) and matrix.dtype != torch.float64:
        raise ValueError(f"{name}: expected float64, got {matrix.dtype}; compute it in float64")
    return real(name, matrix, shape)


def require_tensor(name: str, value: object) -> None:
    """Refuse what is no tensor, NumPy arrays and lists among them.

    Raises:
        ValueError: saying what it is, and how to make a tensor of it.

    Example:
        >>> require_tensor("inputs", np.ones((4, 2)))
        Traceback (most recent call last):
        ...
        ValueError: inputs: expected a tensor, got a NumPy array of float64; make one with torch.as_tensor
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {_shown(value)}; make one with torch.as_tensor")


def require_shape(name: str, value: Tensor, shape: Shape) -> None:
    """Refuse a tensor of another shape, see `variable`."""
    size, expected = value.shape, shape
    if shape and shape[0] is ...:
        expected = shape[1:]
        size = size[max(0, len(size) - len(expected)) :]
    if size == expected or (len(size) == len(expected) and _agrees(size, expected)):
        return
    remedy = "; it must not be empty" * (0 in size) or "; give one at a time" * (len(size) > len(expected))
    raise ValueError(f"{name}: expected shape {_written(shape)}, got {tuple(value.shape)}{remedy}")


def require_finite(name: str, value: Tensor) -> None:
    """Refuse a tensor of which an entry is not finite, by a ValueError that names its row."""
    if sums_are_finite(value):
        return
    finite = torch.isfinite(value)
    if not finite.all():
        where = f"row {int((~finite).nonzero()[0, 0])} is" if value.dim() else "it is"
        raise ValueError(f"{name}: {where} not finite; leave it out or mend it")


def sums_are_finite(*values: Tensor) -> bool:
    """Whether sums prove all entries finite: a quick look, and no proof of the contrary where it fails (overflow).

    Example:
        >>> sums_are_finite(torch.ones(3)), sums_are_finite(torch.tensor([1.0, math.inf]))
        (True, False)
    """
    return all(math.isfinite(float(value.detach().sum())) for value in values)


def require_common_batch(*shapes: Sequence[int]) -> None:
    """Refuse leading dimensions that do not go together, by a ValueError that shows them."""
    if all(shape == shapes[0] for shape in shapes):
        return
    try:
        torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        written = " and ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"batch: the leading dimensions {written} do not go together; give equal ones") from error


def class_numbers(name: str, value: Tensor, count: int) -> Tensor:
    """Numbers of classes from 0 on, (count,), as int64.

    Raises:
        ValueError: for negative numbers, another type or another shape.

    Example:
        >>> class_numbers("labels", torch.tensor([0.0, 1.0]), 2)
        Traceback (most recent call last):
        ...
        ValueError: labels: expected a tensor of integers from 0 on, got a tensor of torch.float32; convert with .long()
    """
    require_tensor(name, value)
    if value.dtype not in _INTEGERS or not value.is_cpu or value.is_sparse:
        raise ValueError(f"{name}: expected a tensor of integers from 0 on, got {_shown(value)}; convert with .long()")
    require_shape(name, value, (count,))
    if (value < 0).any():
        raise ValueError(f"{name}: the class {int(value.min())} is negative; number classes from 0 on")
    return value.long()


def whole(name: str, value: object, at_least: int = -_LARGEST, at_most: int = _LARGEST) -> int:
    """A whole number in this range; Python's and numpy's count, booleans do not.

    Raises:
        ValueError: naming the range.

    Example:
        >>> whole("steps", -1, 0)
        Traceback (most recent call last):
        ...
        ValueError: steps: expected a whole number from 0 on, got -1
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and at_least <= int(value) <= at_most:
        return int(value)
    end = " on" if at_most == _LARGEST else f" to {at_most}"
    span = f" from {at_least}{end}" if at_least > -_LARGEST else ""
    raise ValueError(f"{name}: expected a whole number{span}, got {_shown(value)}")


def number(
    name: str, value: object, *, at_least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> float:
    """A finite real number in this range, as a float; a tensor of one number counts, a boolean does not.

    Raises:
        ValueError: naming the range.

    Example:
        >>> number("rate", torch.tensor(0.5), above=0.0)
        0.5
        >>> number("rate", 0, above=0.0)
        Traceback (most recent call last):
        ...
        ValueError: rate: expected a finite number above 0, got 0
    """
    found = _float(value)
    # Neither NaN nor an infinity lies between bounds.
    if at_least <= found and above < found < below:
        return found
    bounds = ((f" of at least {at_least:g}", at_least), (f" above {above:g}", above), (f" below {below:g}", below))
    span = ",".join(words for words, bound in bounds if math.isfinite(bound))
    raise ValueError(f"{name}: expected a finite number{span}, got {_shown(value)}")


def require_room(name: str, *sizes: int) -> None:
    """Refuse, before it is allocated, an array of these sizes that would not fit in memory.

    Raises:
        ValueError: saying how much is too much.

    Example:
        >>> require_room("count", 10**6, 10**6)
        Traceback (most recent call last):
        ...
        ValueError: count: this asks for more than 268435456 numbers at once, too many for memory; ask for less
    """
    if math.prod(sizes) > _ROOM:
        raise ValueError(f"{name}: this asks for more than {_ROOM} numbers at once, too many for memory; ask for less")


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, which then refuses by a ValueError arguments of other types than its annotations name.

    Booleans are no numbers; sequences are looked into. Ranges and shapes are for the function to say.

    Example:
        >>> @checked
        ... def double(count: int) -> int:
        ...     return 2 * count
        >>> double("2")
        Traceback (most recent call last):
        ...
        ValueError: count: expected a whole number, got '2'
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        positional, rest, checks = _checks_of_parameters(function)
        for (name, check, kind), value in zip(positional, args):
            if not isinstance(value, kind):
                check(name, value)
        for value in args[len(positional) :]:
            rest[1](rest[0], value)
        for name, value in kwargs.items():
            checks.get(name, _anything)(name, value)
        return function(*args, **kwargs)

    return call


def check_fields(instance: Any) -> None:
    """Refuse a dataclass with a field of another type than annotated, as `checked` does; for __post_init__."""
    for name, check in _checks_of_fields(type(instance)):  # type: ignore[arg-type]
        check(name, getattr(instance, name))


_Named = tuple[str, _Check]
_Positional = tuple[str, _Check, tuple[type, ...]]


@functools.cache
def _checks_of_parameters(function: Callable[..., Any]) -> tuple[tuple[_Positional, ...], _Named, dict[str, _Check]]:
    """The checks of positional parameters in their order, of further ones (*args), and of all by name.

    With a positional parameter stands the class, if it is one, whose instances pass at once: it is the usual case.
    """
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    checks = {each.name: _check(hints.get(each.name)) for each in parameters}
    named = [(each.kind, each.name) for each in parameters]
    positional = tuple(
        (name, checks[name], (hints[name],) if isinstance(hints.get(name), type) and hints[name] is not int else ())
        for kind, name in named
        if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    )
    rest = next(
        ((name, checks[name]) for kind, name in named if kind is inspect.Parameter.VAR_POSITIONAL), ("", _anything)
    )
    return positional, rest, checks


@functools.cache
def _checks_of_fields(kind: type) -> tuple[_Named, ...]:
    return tuple((name, _check(hint)) for name, hint in typing.get_type_hints(kind).items())


def _check(hint: Any) -> _Check:
    """What refuses a value that is not of this type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is int:
        return whole
    if hint is float:
        return _require_number
    if hint is Tensor:
        return require_tensor
    if origin in (typing.Union, types.UnionType):
        return _check_of_alternatives(hint, parts)
    if origin in (collections.abc.Sequence, tuple):
        return functools.partial(_require_sequence, each=_check(parts[0]))
    if origin is collections.abc.Mapping:
        return functools.partial(_require_mapping, each=_check(parts[1]))
    if origin is collections.abc.Callable:
        return functools.partial(_require_instance, kind=collections.abc.Callable)
    return functools.partial(_require_instance, kind=hint) if isinstance(hint, type) else _anything


def _check_of_alternatives(hint: Any, parts: tuple[Any, ...]) -> _Check:
    """Of an optional type its own check, unless None is given; of several classes one for all."""
    if types.NoneType not in parts:
        return functools.partial(_require_instance, kind=hint)
    (given,) = (_check(part) for part in parts if part is not types.NoneType)
    return lambda name, value: None if value is None else given(name, value)


def _anything(name: str, value: object) -> None:
    """There is nothing to refuse."""


def _require_instance(name: str, value: object, kind: Any) -> None:
    if not isinstance(value, kind):
        # A class may know better what stands for it elsewhere, as a module of torch does for an activation.
        remedy = kind.instead_of(value) if hasattr(kind, "instead_of") else "give one"
        raise ValueError(f"{name}: expected {getattr(kind, '__name__', kind)}, got {_shown(value)}; {remedy}")


def _require_number(name: str, value: object) -> None:
    if math.isnan(_float(value)) and not isinstance(value, float):
        raise ValueError(f"{name}: expected a number, got {_shown(value)}")


def _require_sequence(name: str, value: object, each: _Check) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name}: expected a sequence, got {_shown(value)}; give a list or a tuple")
    for index, item in enumerate(value):
        each(f"{name}[{index}]", item)


def _require_mapping(name: str, value: object, each: _Check) -> None:
    if not isinstance(value, collections.abc.Mapping):
        raise ValueError(f"{name}: expected a mapping, got {_shown(value)}; give a dict")
    for key, item in value.items():
        each(f"{name}[{key!r}]", item)


def _float(value: object) -> float:
    """A real number as a float, infinite if it is too large; NaN for what is no number."""
    if (
        isinstance(value, Tensor)
        and value.dim() == 0
        and value.is_cpu
        and not (value.is_complex() or value.dtype == torch.bool)
    ):
        return float(value.detach())
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _converted(name: str, value: Tensor) -> Tensor:
    if value.layout is not torch.strided or value.is_nested:
        raise ValueError(f"{name}: expected a dense tensor, got one of {value.layout}; convert with .to_dense()")
    if not value.is_cpu:
        raise ValueError(f"{name}: expected a tensor in memory, got one on {value.device}; move it with .cpu()")
    if not value.is_floating_point():
        remedy = "take real numbers" if value.is_complex() else "convert with .double()"
        raise ValueError(f"{name}: expected floating-point numbers, got {value.dtype}; {remedy}")
    return value.double()


def _agrees(size: Sequence[int], expected: Shape) -> bool:
    """Whether sizes are those expected; a name stands for one size throughout, which is not zero."""
    named: dict[object, int] = {}
    return all(
        given == wanted if isinstance(wanted, int) else given > 0 and named.setdefault(wanted, given) == given
        for given, wanted in zip(size, expected)
    )


def _written(shape: Shape) -> str:
    sizes = ", ".join("..." if size is ... else str(size) for size in shape)
    return f"({sizes},)" if len(shape) == 1 else f"({sizes})"


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, Real | str | complex):
        return reprlib.repr(value)
    return f"an object of type {type(value).__name__}"
