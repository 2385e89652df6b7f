"""Certificates with one thing changed, field by field, and sealed again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from embedding_principle.certificates import check

Document = dict[str, Any]

_INDICES = [-1, 0, 1, 2, 7, True, False, None, 0.0, 1.0, "0"]
_NAMES = ["tanh", "sigmoid", "softplus", "relu", "", None, [["0x0.0p+0", "0x1.0000000000000p+3"]]]
_STRANGE = ["nan", "inf", "-inf", "", "1", "0x1", "0x1p5000", 1, 0.5, True, None, [], {}]
_SHARES = [-1.0, 0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 1e-300]
_COUNTS = [-1, 1, True, 0.5]


def numbers(value: Any) -> list[tuple[list[Any], int]]:
    """Where hexadecimal floats stand: lists, and places in them."""
    if isinstance(value, dict):
        return [place for key, each in value.items() if key != "sha256" for place in numbers(each)]
    if not isinstance(value, list):
        return []
    here = [(value, i) for i, each in enumerate(value) if isinstance(each, str) and "0x" in each]
    return here + [place for each in value for place in numbers(each)]


def lists(value: Any) -> list[list[Any]]:
    """All lists, but the inertia."""
    if isinstance(value, dict):
        return [each for key, inner in value.items() if key != "inertia" for each in lists(inner)]
    if not isinstance(value, list):
        return []
    return [value] + [each for inner in value for each in lists(inner)]


def digit(text: str, draw: random.Random) -> str:
    """Another digit, exponent or sign, or a number that is not far."""
    change = draw.randrange(7)
    value = float.fromhex(text)
    if change == 0:
        return value.__neg__().hex()
    if change == 1:
        return (value + draw.choice([1e-3, -1e-3, 1e-9, 1e-15])).hex()
    if change == 2:
        return (value * draw.choice([0.5, 2.0, 2.0**-30, 2.0**30])).hex()
    if change == 3 and "." in text:
        return text.replace("p", draw.choice("0123456789abcdef") * draw.randrange(1, 4) + "p")
    places = [i for i, letter in enumerate(text) if letter in "0123456789abcdef" and i > text.index("x")]
    place = draw.choice(places)
    return text[:place] + draw.choice("0123456789abcdef") + text[place + 1 :]


def _number(document: Document, draw: random.Random) -> None:
    where, place = draw.choice(numbers(document))
    where[place] = digit(where[place], draw)


def _strange(document: Document, draw: random.Random) -> None:
    where, place = draw.choice(numbers(document))
    where[place] = draw.choice(_STRANGE)


def _size(document: Document, draw: random.Random) -> None:
    """The radius, or the distance of a lift."""
    where = draw.choice([document, document.get("lift", document)])
    key = "distance" if "distance" in where else "radius"
    factor = draw.choice([0.0, -1.0, *(2.0**k for k in (-60, -8, -3, -1, 1, 4, 10, 20, 30, 40, 100))])
    where[key] = (float.fromhex(where[key]) * factor).hex()


def _risk(document: Document, draw: random.Random) -> None:
    low, high = map(float.fromhex, document["risk"])
    gap = draw.choice([high - low, 1e-3 * low])
    ends = [(high, low), (low, low), (high, high), (low + gap, high + gap), (low - gap, low), (low - gap, high + gap)]
    document["risk"] = [end.hex() for end in draw.choice(ends)]


def _inertia(document: Document, draw: random.Random) -> None:
    counts, places = document["inertia"], draw.sample(range(3), 2)
    step = draw.choice(_COUNTS)
    document["inertia"][places[0]] += step
    if draw.random() < 0.6:
        counts[places[1]] -= step
    if draw.random() < 0.2:
        document["inertia"] = draw.choice(
            [counts[::-1], counts[:2], [float(c) for c in counts], [c > 0 for c in counts]]
        )


def _activation(document: Document, draw: random.Random) -> None:
    names = document["activations"]
    if not names:
        document["activations"] = ["tanh"]
    elif draw.random() < 0.3:
        document["activations"] = draw.choice([names[:-1], [*names, "tanh"], {"tanh": 1}, "tanh"])
    else:
        names[draw.randrange(len(names))] = draw.choice(_NAMES)


def _sample(document: Document, draw: random.Random) -> None:
    """One dropped or doubled, in the inputs, the targets or both; two exchanged, in both or one."""
    i, j = draw.sample(range(len(document["inputs"])), 2)
    keys = draw.choice([["inputs"], ["targets"], ["inputs", "targets"]])
    change = draw.randrange(3)
    for rows in (document[key] for key in keys):
        if change == 0:
            del rows[i]
        elif change == 1:
            rows.insert(j, list(rows[i]))
        else:
            rows[i], rows[j] = rows[j], rows[i]


def _list(document: Document, draw: random.Random) -> None:
    """Something of a list dropped, doubled, exchanged, or another kind of thing in its place."""
    value = draw.choice(lists(document))
    if not value:
        value.append(0)
        return
    i, j, change = draw.randrange(len(value)), draw.randrange(len(value)), draw.randrange(5)
    if change == 0:
        del value[i]
    elif change == 1:
        value.insert(j, value[i])
    elif change == 2:
        value[i], value[j] = value[j], value[i]
    elif change == 3 and isinstance(value[i], list):
        value[i] = draw.choice(["0x", "", {str(each): 1 for each in value[i]}, None, 3])
    else:
        value.clear()


def _key(document: Document, draw: random.Random) -> None:
    """One more, one less, or two statements."""
    where = draw.choice([document, *(each for each in document.values() if isinstance(each, dict))])
    where = draw.choice([where, where.get("spare", where)])
    if draw.random() < 0.5:
        del where[draw.choice(sorted(where))]
    else:
        where[draw.choice(["more", "split", "lift", "spare", "layers"])] = draw.choice([{}, [], "", "true", 0])


def _index(document: Document, draw: random.Random) -> None:
    """Positions, rows, columns, layers, neurons."""
    said = document.get("lift") or document.get("split") or document
    keys = [key for key in ("position", "level", "neuron", "rows") if key in said]
    if not keys:
        return _number(document, draw)
    key = draw.choice([*keys, *(["spare"] if "spare" in said else [])])
    if key in ("rows", "spare"):
        indices = said[key]["free"] if key == "spare" else said[key]
        indices[draw.randrange(len(indices))] = draw.choice(_INDICES)
    else:
        said[key] = draw.choice(_INDICES)


def _said(document: Document, draw: random.Random) -> None:
    """What is said of the wider network, number by number; shares."""
    said = document.get("lift") or document.get("split")
    if said is None:
        return _inertia(document, draw)
    if "share" in said:
        said["share"] = draw.choice(_SHARES).hex()
        return None
    where, place = draw.choice(numbers(said))
    where[place] = digit(where[place], draw)


def _loss(document: Document, draw: random.Random) -> None:
    losses = {"squared error", "cross-entropy", "", "hinge"} - {document["loss"]}
    document["loss"] = draw.choice(sorted(losses))


MUTATIONS: list[Callable[[Document, random.Random], None]] = [
    _number,
    _number,
    _strange,
    _size,
    _risk,
    _inertia,
    _activation,
    _sample,
    _list,
    _key,
    _index,
    _said,
    _said,
    _loss,
]


def mutant(text: str, draw: random.Random) -> str:
    """A certificate with one change, or two, that is sealed."""
    document = json.loads(text)
    for _ in range(draw.choice([1, 1, 1, 2])):
        try:
            draw.choice(MUTATIONS)(document, draw)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
            continue  # an earlier change has removed what this one was to change
    return check.sealed(json.loads(json.dumps(document)))
