"""Ledgers for machines: JUnit reports for continuous integration, and what differs between two ledgers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from companion.chapters import ProjectError
from companion.claims import RELATIONS, Claim, format_number
from companion.execution import Outcome

LEDGER = "claims.json"
# What XML 1.0 cannot hold, not even escaped.
FORBIDDEN = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])


def junit(outcomes: Iterable[Outcome]) -> bytes:
    """A report in JUnit's XML: a suite for each chapter, a test case for each of its claims.

    A claim that is not as declared is a failure; a chapter that did not run to its end is an error of its suite.

    Args:
        outcomes: what became of the chapters.
    """
    suites = ElementTree.Element("testsuites", name="claims")
    for outcome in outcomes:
        suites.append(_suite(outcome))
    content: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content


def _suite(outcome: Outcome) -> ElementTree.Element:
    cases = [_case(claim) for claim in outcome.claims]
    measured = {claim.id for claim in outcome.claims}
    if outcome.error:
        cases.append(_fault(outcome.chapter.name, outcome.chapter.name, "error", outcome.error))
    elif outcome.problems:
        cases += [
            _fault(outcome.chapter.name, name, "failure", "declared, and not measured")
            for name in outcome.chapter.declarations
            if name not in measured
        ]
    counts = {kind: str(sum(case.find(kind[:-1]) is not None for case in cases)) for kind in ("failures", "errors")}
    facts = {"name": outcome.chapter.name, "tests": str(len(cases)), "time": f"{outcome.seconds:.3f}"}
    suite = ElementTree.Element("testsuite", facts | counts)
    suite.extend(cases)
    return suite


def _case(claim: Claim) -> ElementTree.Element:
    said = f"{format_number(claim.measured)} ({claim.bound}); control {claim.control}"
    if claim.verdict == "failed":
        return _fault(claim.chapter, claim.id, "failure", f"declared {claim.declared.verdict}; measured {said}")
    if claim.unsealed:
        return _fault(claim.chapter, claim.id, "failure", f"it {claim.unsealed}")
    case = ElementTree.Element("testcase", classname=claim.chapter, name=claim.id)
    seal = f"; seal: {claim.seal}" if claim.seal else ""
    ElementTree.SubElement(case, "system-out").text = f"{claim.verdict}: {said}{seal}".translate(FORBIDDEN)
    return case


def _fault(chapter: str, name: str, kind: str, message: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=chapter, name=name)
    plain = message.translate(FORBIDDEN)
    ElementTree.SubElement(case, kind, message=" ".join(plain.split())).text = plain
    return case


def ledger_json(claims: Iterable[Claim]) -> str:
    """The ledger as strict JSON."""
    return json.dumps([claim.as_json() for claim in claims], indent=2, allow_nan=False)


@dataclass(frozen=True)
class Change:
    """One claim that two ledgers do not agree on.

    Attributes:
        id: of the claim.
        before: its value in the first ledger, None where it is not there.
        after: its value in the second.
        share: the change of the value over the bound; not a number where there is none.
        bound: of the second ledger, or else of the first.
        verdicts: in the first and in the second ledger; "—" where it is not there.
    """

    id: str
    before: float | None
    after: float | None
    share: float
    bound: str
    verdicts: tuple[str, str]

    @property
    def weighs(self) -> bool:
        """Whether the verdict is another one, or a claim came or went."""
        return self.verdicts[0] != self.verdicts[1]


def read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a ledger that ``claims --json`` wrote, by claim.

    Raises:
        ProjectError: naming the file and what is wrong with it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {entry["id"]: _entry(entry) for entry in entries}
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ProjectError(
            f"{path}: no ledger of this book; write one with `python -m companion claims --json`"
        ) from error


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    for name, kinds in (("measured", (int, float)), ("bound", (int, float)), ("relation", str), ("verdict", str)):
        if isinstance(entry[name], bool) or (not isinstance(entry[name], kinds) and entry[name] is not None):
            raise TypeError(name)
    return entry


def changes(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[Change]:
    """The claims whose value or verdict differs, or that stand in one ledger alone, in the order of the second.

    Example:
        >>> one = {"A": {"measured": 1e-15, "relation": "<=", "bound": 1e-12, "verdict": "reproduced"}}
        >>> other = {"A": {"measured": 3e-15, "relation": "<=", "bound": 1e-12, "verdict": "reproduced"}}
        >>> [(found.id, round(found.share, 6), found.weighs) for found in changes(one, other)]
        [('A', 0.002, False)]
    """
    ids = [*after, *(name for name in before if name not in after)]
    found = [_change(name, before.get(name), after.get(name)) for name in ids]
    return [change for change in found if change.weighs or change.before != change.after]


def _change(name: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> Change:
    some = after or before or {}
    first, second = (entry["measured"] if entry else None for entry in (before, after))
    share = math.nan
    if first is not None and second is not None and some["bound"]:
        share = abs(second - first) / abs(some["bound"])
    bound = f"{RELATIONS.get(some['relation'], some['relation'])} {format_number(some['bound'])}"
    verdicts = (before["verdict"] if before else "—", after["verdict"] if after else "—")
    return Change(name, first, second, share, bound, verdicts)
