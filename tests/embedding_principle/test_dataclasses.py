"""What holds tensors is compared by identity, or without them, throughout the package."""

import collections.abc
import dataclasses
import importlib
import pkgutil
import typing

import pytest
from torch import Tensor

import embedding_principle


def holds_tensors(hint: object) -> bool:
    return hint is Tensor or (
        typing.get_origin(hint) is not collections.abc.Callable and any(map(holds_tensors, typing.get_args(hint)))
    )


def compared(kind: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(kind) if field.compare]


def tensor_dataclasses() -> set[type]:
    names = [module.name for module in pkgutil.walk_packages(embedding_principle.__path__, "embedding_principle.")]
    classes = {c for name in names for c in vars(importlib.import_module(name)).values() if isinstance(c, type)}
    own = {c for c in classes if c.__module__.startswith("embedding_principle.") and dataclasses.is_dataclass(c)}
    return {c for c in own if any(holds_tensors(typing.get_type_hints(c)[f.name]) for f in compared(c))}


@pytest.mark.parametrize("kind", sorted(tensor_dataclasses(), key=lambda kind: kind.__name__))
def test_what_holds_tensors_is_compared_by_identity(kind: type) -> None:
    # A comparison field by field would raise: == of two tensors is no single truth value.
    assert kind.__eq__ is object.__eq__


def test_the_enumeration_finds_them() -> None:
    found = {kind.__name__ for kind in tensor_dataclasses()}
    assert {"Layer", "Trace", "Parametrised", "Risk", "Training", "CriticalPoints", "Dataset"} <= found
    assert not {"Network", "Activation", "Loss", "Insertion", "Inertia"} & found
