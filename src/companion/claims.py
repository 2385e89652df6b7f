r"""Claims: what a chapter declares in its prose, what its code measures, and the verdict that follows from both.

A :class:`Declaration` holds what can be said before anything runs: the sentence, its source, the bound, and the control
that must miss the bound. The code adds two numbers. A :class:`Claim` joins them; its verdict is computed when it is
asked for, so that a page, the ledger and a test can only tell the same, and a change of prose executes nothing. Apart
from the verdict, a claim bears a seal where certificates were checked, or where it rests on a computation that is
trusted. This module needs the standard library alone: a notebook that measures claims opens wherever Python does.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from companion.certificates import Certificates, archive_address

Number = int | float
MAX_DIGITS = 4300  # Python writes no longer integers

VERDICTS = ("reproduced", "conditional", "not reproduced")
RELATIONS = {"<=": "≤", ">=": "≥", "==": "="}
# The statements that the book examines, by part: depth, beyond the papers, width, both together, certificates, reading,
# and your own network.
_LAST_ROWS = {"D": 10, "N": 8, "W": 8, "X": 1, "C": 5, "R": 1, "U": 1}
ROWS = tuple(f"{part}{i}" for part, last in _LAST_ROWS.items() for i in range(part != "D", last + 1))


@dataclass(frozen=True)
class Declaration:
    """What a chapter says of a claim before anything is measured.

    The control is the same measurement on an object that must turn the verdict around. For a claim that is expected to
    hold this is a deliberately broken object, which must miss the bound by at least ``factor``: reach
    ``factor * bound`` for ``<=``, stay below ``bound / factor`` for ``>=``, and differ by at least ``factor`` for the
    exact counts of ``==``, where the bound may be zero and a ratio says nothing. For a claim that is expected *not* to
    hold it is an object known to show the effect, which must meet the bound: without it, a measurement that cannot see
    the effect would pass for its absence.

    Args:
        id: the row it belongs to, a dash and a word: ``D1-output``.
        title: its name for people.
        statement: one sentence in MyST Markdown; it may hold ``{glue:text}`` and the book's macros, but no HTML.
        relation: ``<=``, ``>=`` or, for counts, ``==``.
        bound: what the measured value is compared with; finite, and positive unless the relation is ``==``.
        control: what was changed for the control, in words (MyST).
        factor: how clearly one side must miss the bound; above 1 for ``<=`` and ``>=``, at least 1 for ``==``.
        source: paper and theorem, or "this book" and the label of its proof (MyST).
        verdict: what is expected: "reproduced", "conditional" or "not reproduced".
        conditions: under which the claim holds (MyST); a conditional claim has some, a reproduced one none.
        true_object: of which exact object near the floats it holds (MyST): for claims that carry certificates.
        trusted: what the claim rests on without a certificate (MyST), if it rests on a proof by this book's programs.

    Raises:
        ValueError: naming the claim and the field that is wrong, or why the claim could not fail.

    Example:
        >>> Declaration("D1-output", "Outputs are preserved", "Outputs are equal.", "<=", 1e-12, "one weight moved",
        ...             1e3, "this book").row
        'D1'
    """

    id: str
    title: str
    statement: str
    relation: str
    bound: Number
    control: str
    factor: Number
    source: str
    verdict: str = "reproduced"
    conditions: str | None = None
    true_object: str | None = None
    trusted: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not re.fullmatch(r"[A-Z]\d+-[a-z0-9-]+", self.id) or self.row not in ROWS:
            raise ValueError(
                f"claim {self.id!r}: the id must be a row ({ROWS[0]} … {ROWS[-1]}), a dash and a word in lower case, "
                "as D1-output"
            )
        for name in ("title", "statement", "control", "source", "conditions", "true_object", "trusted"):
            self._require_text(name, getattr(self, name))
        self._require_meaning()

    @property
    def row(self) -> str:
        """The statement of the list of statements that the claim is about: ``D1``."""
        return self.id.partition("-")[0]

    @property
    def printed_bound(self) -> str:
        """Relation and bound as the book prints them: ``≤ 1e-12``."""
        return f"{RELATIONS[self.relation]} {format_number(self.bound)}"

    def _require_text(self, name: str, text: object) -> None:
        if text is None and name in ("conditions", "true_object", "trusted"):
            return
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"claim {self.id}: {name.replace('_', '-')} must be a text, not {text!r}")

    def _require_meaning(self) -> None:
        """Refuse combinations that could not fail or that no number could meet."""
        where = f"claim {self.id}"
        if self.relation not in RELATIONS:
            raise ValueError(f"{where}: the relation must be one of {', '.join(RELATIONS)}, not {self.relation!r}")
        if self.verdict not in VERDICTS:
            raise ValueError(f"{where}: the verdict must be one of {', '.join(VERDICTS)}, not {self.verdict!r}")
        if (self.verdict == "conditional") != (self.conditions is not None) and self.verdict != "not reproduced":
            raise ValueError(f"{where}: a conditional claim states its conditions, a reproduced one has none")
        for name in ("bound", "factor"):
            object.__setattr__(self, name, as_number(f"{where}: {name}", getattr(self, name)))
        if not (is_finite(self.bound) and 1 <= _as_float(self.factor) < math.inf):
            raise ValueError(f"{where}: the bound must be finite, and the factor a finite number of at least 1")
        if self.relation == "==":
            if not isinstance(self.bound, int):
                raise ValueError(f"{where}: '==' compares counts, so the bound must be an integer, not {self.bound}")
        elif math.isinf(_as_float(self.bound)):
            raise ValueError(f"{where}: no float is as large as the bound; measure its logarithm")
        elif self.bound <= 0:
            raise ValueError(
                f"{where}: a control cannot miss {self.relation} {self.bound} by a factor: state a positive bound "
                "(negate the quantity if need be), or a count with '=='"
            )
        elif self.factor <= 1:
            raise ValueError(f"{where}: the control's factor must exceed 1, it is {self.factor}")

    def holds(self, value: Number | None) -> bool:
        """Whether the value meets the bound; what is not a finite number meets none."""
        if value is None or not is_finite(value):
            return False
        if self.relation == "==":
            return value == self.bound
        return value <= self.bound if self.relation == "<=" else value >= self.bound

    def misses(self, value: Number | None) -> bool:
        """Whether the value misses the bound by the factor; what is not a finite number misses nothing."""
        if value is None or not is_finite(value):
            return False
        if self.relation == "==":
            exact = isinstance(value, int) and isinstance(self.bound, int)
            difference = value - self.bound if exact else _as_float(value) - _as_float(self.bound)
            return abs(difference) >= self.factor
        # Divided on both sides alike, so that a value on the very edge is not decided by a product's rounding.
        ratio = _as_float(value) / self.bound
        return ratio >= self.factor if self.relation == "<=" else ratio <= 1 / self.factor


@dataclass(frozen=True)
class Measurement:
    """The two numbers that the code of a chapter adds to a claim; ``None`` stands for one that is not finite.

    Args:
        id: of the claim.
        value: what was measured.
        control: the same quantity on the object of the control.
        certificates: those that the checker accepted when it was measured, if there are any.
    """

    id: str
    value: Number | None
    control: Number | None
    certificates: Certificates | None = field(default=None, repr=False)

    @classmethod
    def of(cls, claim: str, value: Any, control: Any) -> Measurement:
        """From any scalars.

        Raises:
            ValueError: when one of them is not one real number.

        Example:
            >>> Measurement.of("D1-output", 3e-16, math.inf)
            Measurement(id='D1-output', value=3e-16, control=None)
        """
        numbers = as_number(f"claim {claim}: value", value), as_number(f"claim {claim}: control", control)
        measured, controlled = (number if is_finite(number) else None for number in numbers)
        return cls(claim, measured, controlled)


@dataclass(frozen=True)
class Claim:
    """A claim that was declared and measured.

    Args:
        chapter: the chapter's name.
        declared: what the prose says.
        measurement: what the code found.

    Example:
        >>> said = Declaration("D1-output", "Outputs are preserved", "Outputs are equal.", "<=", 1e-12, "moved", 1e3,
        ...                    "this book")
        >>> claim = Claim("depth/lifting", said, Measurement("D1-output", 3e-16, 2e-3))
        >>> claim.verdict, claim.flipped
        ('reproduced', True)
    """

    chapter: str
    declared: Declaration
    measurement: Measurement

    @property
    def id(self) -> str:
        """The claim's name for machines."""
        return self.declared.id

    @property
    def measured(self) -> Number | None:
        """The measured value."""
        return self.measurement.value

    @property
    def flipped(self) -> bool:
        """Whether the control comes out opposite to what is expected of the claim."""
        judge = self.declared.holds if self.declared.verdict == "not reproduced" else self.declared.misses
        return judge(self.measurement.control)

    @property
    def verdict(self) -> str:
        """What became of the claim: the expected verdict, or "failed"."""
        judge = self.declared.misses if self.declared.verdict == "not reproduced" else self.declared.holds
        return self.declared.verdict if judge(self.measured) and self.flipped else "failed"

    @property
    def bound(self) -> str:
        """Relation and bound as the book prints them."""
        return self.declared.printed_bound

    @property
    def control(self) -> str:
        """The control's value and what it did, as the book prints them."""
        return f"{format_number(self.measurement.control)} ({'flips' if self.flipped else 'does not flip'})"

    @property
    def certified(self) -> int:
        """How many certificates it carries."""
        return self.measurement.certificates.count if self.measurement.certificates else 0

    @property
    def seals(self) -> dict[str, str]:
        """What stands behind it besides the measurement: a kind of seal ("checked", "computed") → its words."""
        files = "certificate" if self.certified == 1 else "certificates"
        words = {"checked": f"checked: {self.certified} {files}"} if self.certified else {}
        return words | ({"computed": "computed"} if self.declared.trusted else {})

    @property
    def seal(self) -> str:
        """The seals as the ledger prints them: ``checked 54``, ``computed``, both, or nothing."""
        return ", ".join(f"checked {self.certified}" if kind == "checked" else kind for kind in self.seals)

    @property
    def unsealed(self) -> str | None:
        """Why the seal cannot be set, in words: prose and code do not agree on whether there are certificates."""
        if self.certified and not self.declared.true_object:
            return "carries certificates; its :true-object: must say of which object near the floats it holds"
        if self.declared.true_object and not self.certified:
            return "has a :true-object:, but no certificates were given to measured(…)"
        return None

    def as_json(self) -> dict[str, Any]:
        """All of it, fit for strict JSON: ``control`` holds description, factor, measured and flipped.

        ``seal`` is ``None``, or holds kinds ("checked", "computed"), true_object, trusted, and of the certificates
        their number, the SHA-256 of the archive and its address from the first page.
        """
        said = self.declared
        return {
            "id": said.id,
            "row": said.row,
            "title": said.title,
            "chapter": self.chapter,
            "statement": said.statement,
            "source": said.source,
            "conditions": said.conditions,
            "measured": self.measured,
            "relation": said.relation,
            "bound": said.bound,
            "expected": said.verdict,
            "verdict": self.verdict,
            "control": {
                "description": said.control,
                "factor": said.factor,
                "measured": self.measurement.control,
                "flipped": self.flipped,
            },
            "seal": self._seal_as_json(),
        }

    def _seal_as_json(self) -> dict[str, Any] | None:
        carried, said = self.measurement.certificates, self.declared
        if not self.seals:
            return None
        return {
            "kinds": list(self.seals),
            "true_object": said.true_object,
            "trusted": said.trusted,
            "certificates": self.certified,
            "sha256": hashlib.sha256(carried.archive(self.id)).hexdigest() if carried else None,
            "address": archive_address(self.id) if carried else None,
        }


def join(
    chapter: str, declared: Mapping[str, Declaration], measurements: list[Measurement]
) -> tuple[list[Claim], list[str]]:
    """The claims of a chapter in the order of the prose, and what keeps them from being as declared.

    Args:
        chapter: its name.
        declared: by id, from the prose.
        measurements: from the outputs.

    Returns:
        The claims that are declared and measured, and a problem for each that is only one of the two, is measured more
        than once, has another verdict than expected, or cannot bear its seal.
    """
    ids = [measurement.id for measurement in measurements]
    problems = [f"claim {name} is declared but not measured" for name in declared if name not in ids]
    problems += [f"claim {name} is measured but not declared" for name in dict.fromkeys(ids) if name not in declared]
    problems += [f"claim {name} is measured more than once" for name in dict.fromkeys(ids) if ids.count(name) > 1]
    found = {measurement.id: measurement for measurement in measurements}
    claims = [Claim(chapter, said, found[name]) for name, said in declared.items() if name in found]
    problems += [
        f"claim {claim.id} is {claim.verdict}, expected {claim.declared.verdict}: measured "
        f"{format_number(claim.measured)}, bound {claim.bound}, control {claim.control}"
        for claim in claims
        if claim.verdict != claim.declared.verdict
    ]
    problems += [f"claim {claim.id} {claim.unsealed}" for claim in claims if claim.unsealed]
    return claims, problems


def as_number(what: str, value: Any) -> Number:
    """Cast a Python, numpy or torch scalar to ``int`` or ``float``.

    Args:
        what: names the value in the error.
        value: the scalar.

    Raises:
        ValueError: when it is not one real number.

    Example:
        >>> as_number("value", 2)
        2
    """
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{what} must be one number: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} must be a number, not {value!r}")
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise ValueError(f"{what} has more than {MAX_DIGITS} digits, which no notebook can hold; measure its logarithm")
    return value


def is_finite(number: Number) -> bool:
    """Whether a number is finite, as integers are that no float can hold."""
    return isinstance(number, int) or math.isfinite(number)


def format_number(value: Number | None) -> str:
    """A number as the book prints it: counts in full up to fifteen digits, the rest to three.

    Example:
        >>> format_number(1000), format_number(3.14159e-13), format_number(10**400), format_number(None)
        ('1000', '3.14e-13', '1.00e+400', 'not finite')
    """
    if value is None:
        return "not finite"
    if not isinstance(value, int):
        return f"{value:.3g}"
    return str(value) if abs(value) < 10**15 else f"{Decimal(value):.2e}"


def _as_float(number: Number) -> float:
    """The number as a float; one that is beyond all floats is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
