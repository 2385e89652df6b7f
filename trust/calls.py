"""Generated calls of every public function: each is answered or refused in one sentence, soon, without a silent NaN.

The good calls are those of the tests; one or several of their arguments, and the object whose method is called, are put
in place by drawn ones. Each function is called in a process of its own, which is ended when a call never returns.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import multiprocessing
import re
import resource
import signal
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from torch import Tensor

import embedding_principle
from embedding_principle.networks import Network, Parametrised
from embedding_principle.risks import Risk
from trust.drawn import BAD, changed, seeds
from trust.pieces import Found, Piece, Scope, load, repeatable

NAME = "calls"
MINUTES = 6
PARALLEL = False
TESTED = ("src/embedding_principle", BAD, "trust/calls.py", "trust/drawn.py")
EXAMPLES = 120
SECONDS = 15  # for one call
ROOM = 6 * 2**30  # bytes of memory: what asks for more is to be refused before it is allocated
SHOWN = 3  # examples of each kind of problem


class TooLong(BaseException):
    """A call that has not returned in time; no handler of the library's takes it for its own."""


def pieces(scope: Scope) -> Iterator[Piece]:
    """A piece a function."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    torch.set_default_dtype(torch.float64)
    names = list(good_calls())
    for name in names[:: len(names) // 8] if scope.sample else names:
        yield Piece(name, lambda name=name: watched(name, 20 if scope.sample else EXAMPLES))


@functools.cache
def good_calls() -> Mapping[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """The calls that the tests list, made once."""
    listed: Mapping[str, tuple[Callable[..., Any], dict[str, Any]]] = load(BAD).good_calls()
    return listed


def summary(outcomes: Mapping[str, Found]) -> Found:
    """The counts of all functions together."""
    total: Counter[str] = Counter()
    for found in outcomes.values():
        total.update({name: found[name] for name in ("calls", "answered", "refused")})
    slowest = max((found["slowest"] for found in outcomes.values()), default=0.0)
    fewest = min((found["calls"] for found in outcomes.values()), default=0)
    return {"functions": len(outcomes), **total, "fewest calls of one": fewest, "slowest call in seconds": slowest}


def watched(name: str, examples: int) -> Found:
    """The calls of one function in a process of its own."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(sending, name, examples))
    process.start()
    sending.close()
    last, latest = "nothing was called", time.monotonic()
    try:
        # Twice the alarm's time: what is in compiled code for so long does not hear the alarm.
        while receiving.poll(max(0.1, latest + 2 * SECONDS - time.monotonic())):
            message = receiving.recv()
            if isinstance(message, dict):
                return message
            last, latest = message, time.monotonic()
        problem = f"never returned: {last}"
    except EOFError:
        problem = f"ended the interpreter: {last}"
    finally:
        process.kill()
        process.join()
    return {"calls": 1, "answered": 0, "refused": 0, "slowest": 2.0 * SECONDS, "problems": [problem]}


def _send(sending: Connection, name: str, examples: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    signal.signal(signal.SIGALRM, _too_long)
    sending.send(called(name, examples, sending.send))


def _too_long(*_: object) -> None:
    raise TooLong


def called(name: str, examples: int, tell: Callable[[str], object]) -> Found:
    """Draw calls of one function and say what became of them.

    Args:
        name: as in the list of good calls.
        examples: how many.
        tell: gets each call in words, before it is made.
    """
    outcomes: Counter[str] = Counter()
    problems: dict[str, list[str]] = {}
    slowest, documented = 0.0, documentation(name)

    @repeatable(examples)
    @given(calls(name), seeds)
    def one(call: tuple[Callable[..., Any], dict[str, Any]], seed: int) -> None:
        nonlocal slowest
        torch.manual_seed(seed)
        words = _in_words(*call)
        tell(words)
        kind, seconds = outcome(*call, documented)
        outcomes[kind if kind in ("answered", "refused") else "problem"] += 1
        slowest = max(slowest, seconds)
        if kind not in ("answered", "refused"):
            problems.setdefault(kind, []).append(words)

    one()
    said = [f"{kind} ({len(found)}): {words}" for kind, found in problems.items() for words in found[:SHOWN]]
    counts = {kind: outcomes[kind] for kind in ("answered", "refused")}
    return {"calls": outcomes.total(), **counts, "slowest": round(slowest, 2), "problems": said}


@st.composite
def calls(draw: st.DrawFn, name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A good call with its object or some of its arguments changed."""
    function, arguments = good_calls()[name]
    if inspect.ismethod(function) and not isinstance(function.__self__, type) and draw(st.booleans()):
        receiver = draw(changed(function.__self__).filter(lambda value: type(value) is type(function.__self__)))
        function = types.MethodType(function.__func__, receiver)
    names = draw(st.lists(st.sampled_from([*arguments]), unique=True, max_size=3)) if arguments else []
    return function, arguments | {each: draw(changed(arguments[each])) for each in names}


def documentation(name: str) -> str:
    """The docstring of a function by its name in the list, where what is listed may call it by other means."""
    found: object = embedding_principle
    for part in re.split(r"[, ]", name)[0].split("."):
        found = getattr(found, part, None)
    return inspect.getdoc(found) or ""


def outcome(
    function: Callable[..., Any], arguments: Mapping[str, Any], documented: str | None = None
) -> tuple[str, float]:
    """What became of a call ("answered", "refused", or what is wrong), and the seconds that it took."""
    documented = documented or inspect.getdoc(function) or ""
    began = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        # Large parameters overflow, and torch warns of variances over an empty batch of networks.
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            kind = _judged(function, arguments, load(BAD).answer(function, dict(arguments)), documented)
    except TooLong:
        kind = f"took more than {SECONDS} s"
    except Exception as error:
        kind = _judged_error(error, documented)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return kind, time.perf_counter() - began


def _judged(function: Callable[..., Any], arguments: Mapping[str, Any], answer: object, documented: str) -> str:
    given = [arguments, getattr(function, "__self__", None)]
    silent = any(map(math.isnan, numbers(answer))) and all(map(math.isfinite, numbers(given)))
    announced = any(map(_tells_of_nan, (documented, inspect.getdoc(type(answer)) or "")))
    return "a silent NaN" if silent and not announced else "answered"


def _judged_error(error: Exception, documented: str) -> str:
    said = str(error)
    names = re.findall(r"^ *(\w+(?:Error|Exception)):", documented, re.M)
    if isinstance(error, ValueError) and ": " in said and "\n" not in said.strip():
        return "refused"
    if type(error).__name__ in names and not isinstance(error, ValueError):
        return "refused"
    return f"{type(error).__name__}: {said.partition(chr(10))[0][:100]}"


def _tells_of_nan(documented: str) -> bool:
    """Whether a docstring says where the answer is no number; what it says of errors is about arguments."""
    return bool(re.search(r"\bNaN\b|not a number|not finite|overflow", documented.partition("Raises:")[0]))


def numbers(value: object) -> Iterator[float]:
    """All floating-point numbers in a value, as deep as it goes."""
    if isinstance(value, Tensor):
        if (value.is_floating_point() or value.is_complex()) and value.device.type == "cpu":
            dense = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
            yield float("nan") if bool(dense.isnan().any()) else math.inf if bool(dense.isinf().any()) else 0.0
    elif isinstance(value, np.ndarray | np.number):
        yield from numbers(torch.as_tensor(np.asarray(value)))
    elif isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        yield from numbers(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from numbers(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            # An activation's pieces end at infinity, and are no input.
            if field.name != "affine_pieces":
                yield from numbers(getattr(value, field.name))


def _in_words(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    receiver = getattr(function, "__self__", None)
    on = f" on {_brief(receiver)}" if dataclasses.is_dataclass(receiver) and not isinstance(receiver, type) else ""
    return f"{', '.join(f'{name}={_brief(value)}' for name, value in arguments.items())}{on}"


def _brief(value: object) -> str:
    if isinstance(value, Tensor):
        shown = value.flatten()[:6].tolist() if value.device.type == "cpu" and value.layout is torch.strided else ""
        return f"{value.dtype}{list(value.shape)} {shown}"
    if isinstance(value, Risk):
        return f"Risk({_brief(value.network)}, {_brief(value.inputs)}, {_brief(value.targets)}, {value.loss.name})"
    if isinstance(value, Parametrised):
        return f"Parametrised({_brief(value.network)}, {_brief(value.theta)})"
    if isinstance(value, Network):
        names = ", ".join(activation.name for activation in value.activations)
        return f"Network({value.widths}, ({names}), {value.batch_norm_epsilon})"
    return re.sub(r"\s+", " ", repr(value))[:150]
