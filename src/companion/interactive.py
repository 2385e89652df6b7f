"""Figures that a reader can touch: a chapter's cell computes the numbers, scripts of the book draw them in the page.

The numbers lie as JSON in the cell's output, hence in the sealed executed copy, and become stale with it. The scripts
are ``book/assets/interactive``; :mod:`companion.sphinx_executed` loads them on the pages that hold such a figure.
Without scripts the text alternative is what stands there.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

KINDS = ("explorer", "plateaus", "race")
LARGEST = 300_000  # bytes of JSON: what a page with formulas and figures can bear beside them


@dataclass(frozen=True, eq=False)
class Interactive:
    """The numbers of an interactive figure; a notebook shows it as HTML.

    Attributes:
        kind: which script draws it, one of `KINDS`.
        title: its name, for readers who do not see it.
        data: what that script reads: numbers, texts, lists and mappings; tensors and arrays become lists, infinities
            and NaN become null.
        alt: what the figure shows, for readers who do not see it.
        digits: how many significant digits of each number are kept; None keeps all.

    Raises:
        ValueError: if no script draws the kind, a text is empty, or the data are no JSON or too many.

    Example:
        >>> shown = Interactive("race", "A race", {"steps": [1, 2.34567]}, alt="Two curves.", digits=3)
        >>> shown.json
        '{"steps":[1,2.35]}'
    """

    kind: str
    title: str
    data: Mapping[str, Any] = field(repr=False)
    alt: str
    digits: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: no script draws {self.kind!r}; take one of {', '.join(KINDS)}")
        for name in ("title", "alt"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}: say what the figure shows, for readers who do not see it")
        if len(self.json) > LARGEST:
            raise ValueError(
                f"data: {len(self.json)} bytes of JSON, more than {LARGEST}; thin them or keep fewer digits"
            )

    @cached_property
    def json(self) -> str:
        """The data as JSON without spaces."""
        return json.dumps(_plain(self.data, self.digits), separators=(",", ":"), allow_nan=False)

    def _repr_html_(self) -> str:
        # Within a script element only "<" can end it.
        numbers = self.json.replace("<", "\\u003c")
        return (
            f'<div class="interactive" data-kind="{self.kind}" role="group" aria-label="{html.escape(self.title)}">'
            f'<p class="interactive-alternative">{html.escape(self.alt)}</p>'
            f'<script type="application/json">{numbers}</script></div>'
        )


def _plain(value: Any, digits: int | None) -> Any:
    """The value in the types of JSON."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, digits) for item in value]
    if isinstance(value, float):
        return _rounded(value, digits)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(f"data: {type(value).__name__} cannot be written as JSON; give numbers, texts, lists or mappings")


def _rounded(value: float, digits: int | None) -> float | int | None:
    if not math.isfinite(value):
        return None
    number = value if digits is None else float(f"{value:.{digits}g}")
    # Up to 2^53 a float without a fraction is that whole number.
    return int(number) if digits is not None and number.is_integer() and abs(number) < 2**53 else number
