r"""Claims: what a chapter measures, the bound it must meet, and the control that must not meet it.

A chapter states each of its results as a :class:`Claim` and shows it with :func:`record`. The output holds
the claim box for the reader and the same record as JSON for the ledger and the tests, so that the number in
the page, in the table of claims and in the assertion is one number. This module imports neither myst_nb nor
torch: a notebook that uses it opens wherever IPython does.
"""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import display

if TYPE_CHECKING:
    from nbformat import NotebookNode

CLAIM_MIME = "application/vnd.companion.claim+json"
GLUE_PREFIX = "application/papermill.record/"
VERDICTS = ("reproduced", "conditional", "not reproduced")
RELATIONS = {"<=": "≤", ">=": "≥", "==": "="}

Number = int | float


@dataclass(frozen=True)
class Control:
    """The measurement of a claim repeated on an object that must turn its verdict around.

    For a claim that is expected to hold this is a deliberately broken object, which must miss the bound by
    at least ``factor``: reach ``factor * bound`` for ``<=``, stay below ``bound / factor`` for ``>=``, and
    differ by at least ``factor`` for the exact counts of ``==``, where the bound may be zero and a ratio says
    nothing. For a claim that is expected *not* to hold it is an object known to show the effect, which must
    meet the bound: without it, a measurement that cannot see the effect would pass for its absence.

    Args:
        description: what was changed, in words.
        measured: the same quantity as the claim's, on the changed object.
        factor: how clearly one side must miss the bound; above 1 for ``<=`` and ``>=``, at least 1 for ``==``.

    Raises:
        ValueError: when a text is empty, a number is not one, or the factor separates nothing.
    """

    description: str
    measured: Number
    factor: Number

    def __post_init__(self) -> None:
        _require_text("control", "description", self.description)
        for name in ("measured", "factor"):
            object.__setattr__(self, name, as_number(f"control: {name}", getattr(self, name)))
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(f"control: factor must be a finite number of at least 1, not {self.factor}")


@dataclass(frozen=True)
class Claim:
    """One result: statement, source, measured value, bound, and the control that must turn it around.

    Args:
        id: unique in the book; also the name under which ``{glue:text}`` finds the measured value.
        row: number of the statement in the list of statements (``D2``, ``W1``, ``C``).
        statement: one sentence; LaTeX between dollar signs.
        source: the paper and its theorem, or "this book".
        measured: a number; scalars of numpy and torch are cast.
        relation: ``<=``, ``>=`` or, for counts, ``==``.
        bound: what ``measured`` is compared with; finite, and positive unless the relation is ``==``.
        control: see :class:`Control`.
        conditions: under which the claim holds; its verdict is then "conditional".
        expected: "reproduced" or "not reproduced".
        certificate: path of a proof by ball arithmetic, relative to the project.

    Raises:
        ValueError: naming the claim and the field that is wrong.

    Example:
        >>> shifted = Control("one weight moved by 1e-3", measured=2e-3, factor=1e3)
        >>> claim = Claim(id="D1-output", row="D1", statement="Outputs are equal.", source="Bai2024",
        ...               measured=3e-16, relation="<=", bound=1e-12, control=shifted)
        >>> claim.verdict, claim.flipped
        ('reproduced', True)
    """

    id: str
    row: str
    statement: str
    source: str
    measured: Number
    relation: str
    bound: Number
    control: Control
    conditions: str | None = None
    expected: str = "reproduced"
    certificate: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.id):
            raise ValueError(f"claim {self.id!r}: id must be letters, digits, '.', '_' and '-' only")
        for name in ("row", "statement", "source"):
            _require_text(f"claim {self.id}", name, getattr(self, name))
        if self.conditions is not None:
            _require_text(f"claim {self.id}", "conditions", self.conditions)
        for name in ("measured", "bound"):
            object.__setattr__(self, name, as_number(f"claim {self.id}: {name}", getattr(self, name)))
        self._require_meaning()

    def _require_meaning(self) -> None:
        """Refuse combinations that could not fail or that no number could meet."""
        where = f"claim {self.id}"
        if self.relation not in RELATIONS:
            raise ValueError(f"{where}: relation must be one of {', '.join(RELATIONS)}, not {self.relation!r}")
        if self.expected not in ("reproduced", "not reproduced"):
            raise ValueError(
                f"{where}: expected must be 'reproduced' or 'not reproduced', not {self.expected!r}; "
                "a conditional claim says its conditions instead"
            )
        if not math.isfinite(self.bound):
            raise ValueError(f"{where}: bound must be finite, not {self.bound}")
        if self.relation == "==":
            if not isinstance(self.bound, int):
                raise ValueError(f"{where}: '==' compares counts, so the bound must be an integer, not {self.bound}")
        elif self.bound <= 0:
            raise ValueError(
                f"{where}: a control cannot miss {self.relation} {self.bound} by a factor: state a positive "
                "bound (negate the quantity if need be), or a count with '=='"
            )
        elif self.control.factor <= 1:
            raise ValueError(f"{where}: the control's factor must exceed 1, it is {self.control.factor}")

    @property
    def flipped(self) -> bool:
        """Whether the control comes out opposite to what is expected of the claim."""
        if self.expected == "not reproduced":
            return self._holds(self.control.measured)
        return self._misses(self.control.measured)

    @property
    def verdict(self) -> str:
        """What became of the claim: "reproduced", "conditional" or "not reproduced"; anything else is "failed"."""
        if self.expected == "not reproduced":
            return "not reproduced" if self._misses(self.measured) and self.flipped else "failed"
        if not (self._holds(self.measured) and self.flipped):
            return "failed"
        return "conditional" if self.conditions else "reproduced"

    def _holds(self, value: Number) -> bool:
        if not math.isfinite(value):
            return False
        if self.relation == "==":
            return value == self.bound
        return value <= self.bound if self.relation == "<=" else value >= self.bound

    def _misses(self, value: Number) -> bool:
        """Whether ``value`` misses the bound by the control's factor; what is not a number misses nothing."""
        if not math.isfinite(value):
            return False
        factor = self.control.factor
        if self.relation == "==":
            return abs(value - self.bound) >= factor
        # Divided on both sides alike, so that a value on the very edge is not decided by a product's rounding.
        return value / self.bound >= factor if self.relation == "<=" else value / self.bound <= 1 / factor

    def as_record(self) -> dict[str, Any]:
        """The claim as strict JSON: a number that is not finite becomes ``None``."""
        return {
            "id": self.id,
            "row": self.row,
            "statement": self.statement,
            "source": self.source,
            "measured": _finite(self.measured),
            "relation": self.relation,
            "bound": self.bound,
            "verdict": self.verdict,
            "control": {
                "description": self.control.description,
                "measured": _finite(self.control.measured),
                "factor": self.control.factor,
                "flipped": self.flipped,
            },
            "conditions": self.conditions,
            "certificate": self.certificate,
        }


def as_number(what: str, value: Any) -> Number:
    """Cast a Python, numpy or torch scalar to ``int`` or ``float``.

    Args:
        what: names the value in the error.
        value: the scalar.

    Raises:
        ValueError: when it is not one real number.

    Example:
        >>> as_number("measured", 2)
        2
    """
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{what} must be one number: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} must be a number, not {value!r}")
    return value


def format_number(value: Number | None) -> str:
    """A number as the book prints it: counts in full, the rest to three digits.

    Example:
        >>> format_number(1000), format_number(3.14159e-13), format_number(None)
        ('1000', '3.14e-13', 'not finite')
    """
    if value is None:
        return "not finite"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def record(claim: Claim) -> None:
    """Show the claim box and leave the claim's record in the notebook.

    A failed verdict is shown, not raised: a reader who changes a parameter must see what fails. The measured
    value, the bound and the control's value are glued under the claim's id, ``<id>-bound`` and ``<id>-control``.
    """
    bundle = {"text/html": as_html(claim), "text/plain": as_text(claim), CLAIM_MIME: claim.as_record()}
    display(bundle, raw=True)
    glue(claim.id, claim.measured)
    glue(f"{claim.id}-bound", claim.bound)
    glue(f"{claim.id}-control", claim.control.measured)


def glue(name: str, value: Any) -> None:
    """Make a number or a short text available to ``{glue:text}`` without showing it here.

    Args:
        name: without a colon, which separates the format: ``{glue:text}`name:.1e```.
        value: a number (scalars of numpy and torch are cast) or a text.

    Raises:
        ValueError: when the name has a colon or the value is neither a number nor a text.
    """
    if not name or ":" in name:
        raise ValueError(f"glue: {name!r} is no name for a value: it must not be empty or hold a colon")
    if not isinstance(value, str):
        value = as_number(f"glue: {name}", value)
    # myst_nb strips the prefix and reads the text back as a Python literal before it formats it.
    bundle = {f"{GLUE_PREFIX}text/plain": repr(value)}
    display(bundle, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": GLUE_PREFIX}})


def read_claims(notebook_path: str | Path) -> list[dict[str, Any]]:
    """The claims recorded in an executed notebook, in their order there."""
    import nbformat  # takes seconds to import: not in the chapters, which record claims and read none

    return claims_of(nbformat.read(notebook_path, as_version=4))


def claims_of(notebook: NotebookNode) -> list[dict[str, Any]]:
    """The claims recorded in the outputs of a notebook that is already read."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [output.data[CLAIM_MIME] for output in outputs if CLAIM_MIME in output.get("data", {})]


def as_text(claim: Claim) -> str:
    """The claim box for a terminal."""
    lines = [f"Claim {claim.id}: {claim.verdict}", claim.statement]
    return "\n".join([*lines, *(f"  {name}: {text}" for name, text in _facts(claim))])


def as_html(claim: Claim) -> str:
    """The claim box for a page: a labelled group with a header, the statement and a list of facts."""
    facts = "".join(
        f'<div class="claim-fact"><dt>{name}</dt><dd>{_escape(text)}</dd></div>' for name, text in _facts(claim)
    )
    kind = claim.verdict.replace(" ", "-")
    # MathJax skips raw HTML in a page of Sphinx unless an element asks for it by class.
    return (
        f'<div class="claim claim-{kind} mathjax_process" id="claim-{claim.id}" role="group"'
        f' aria-label="Claim {claim.id}, {claim.verdict}">'
        f'<p class="claim-header"><span class="claim-title">Claim {claim.id}</span>'
        f' <span class="claim-verdict">{claim.verdict}</span></p>'
        f'<p class="claim-statement">{_escape(claim.statement)}</p>'
        f'<dl class="claim-facts">{facts}</dl></div>'
    )


def _facts(claim: Claim) -> list[tuple[str, str]]:
    flips = "flips" if claim.flipped else "does not flip"
    control = f"{claim.control.description}: {format_number(claim.control.measured)} ({flips})"
    facts = [
        ("Source", claim.source),
        ("Measured", format_number(claim.measured)),
        ("Bound", f"{RELATIONS[claim.relation]} {format_number(claim.bound)}"),
        ("Control", control),
    ]
    optional = [("Conditions", claim.conditions), ("Certificate", claim.certificate)]
    return facts + [(name, text) for name, text in optional if text]


def _escape(text: str) -> str:
    r"""Escape for HTML, with ``$...$`` as ``\(...\)``, which both Sphinx's and JupyterLab's MathJax know."""
    with_formulas = re.sub(r"(?<!\\)\$(.+?)(?<!\\)\$", r"\\(\1\\)", html.escape(text))
    return with_formulas.replace(r"\$", "$")


def _finite(value: Number) -> Number | None:
    return value if math.isfinite(value) else None


def _require_text(where: str, name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {name} must be a text, not {value!r}")
