"""Claims, states and benchmarks as tables: of text for a terminal, of MyST Markdown for a page."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from string import ascii_uppercase
from typing import Any

from companion.claims import Claim, Declaration, format_number
from companion.ledger import Status
from companion.parameter_cells import Parameter
from companion.reports import Change

MISSING = "—"
_PLAIN = str.maketrans({"≤": "<=", "≥": ">=", MISSING: "-"})


def claims_table(claims: Iterable[Claim], *, encoding: str = "utf-8") -> str:
    """The claims as a table of text: claim, measured, bound, verdict, seal."""
    rows = [
        (
            f"{claim.id} ({claim.chapter})",
            format_number(claim.measured),
            claim.bound,
            claim.verdict,
            claim.seal or MISSING,
        )
        for claim in claims
    ]
    return text_table(("claim", "measured", "bound", "verdict", "seal"), rows, encoding=encoding)


def comparison_table(
    declared: Iterable[Declaration], book: Iterable[Claim], yours: Iterable[Claim], *, encoding: str = "utf-8"
) -> str:
    """A reader's run beside the book as a table of text: claim, value in the book, value of the run, bound, verdict.

    Args:
        declared: the claims of the chapter.
        book: those of the book's copy.
        yours: those of the reader's run, whose verdict is shown; the book's is added where it is another.
        encoding: of the terminal.
    """
    before, after = ({claim.id: claim for claim in claims} for claims in (book, yours))
    rows = []
    for said in declared:
        then, now = before.get(said.id), after.get(said.id)
        verdict = now.verdict if now else "not measured"
        values = (format_number(claim.measured) if claim else MISSING for claim in (then, now))
        other = f" (book: {then.verdict})" if then and then.verdict != verdict else ""
        rows.append((said.id, *values, said.printed_bound, verdict + other))
    return text_table(("claim", "book", "yours", "bound", "verdict"), rows, encoding=encoding)


def changes_table(found: Iterable[Change], *, encoding: str = "utf-8") -> str:
    """What differs between two ledgers as a table of text: claim, both values, the change over the bound, verdicts."""
    rows = []
    for change in found:
        values = (MISSING if value is None else format_number(value) for value in (change.before, change.after))
        share = MISSING if math.isnan(change.share) else format_number(change.share)
        verdict = " → ".join(change.verdicts) if change.weighs else change.verdicts[1]
        rows.append((change.id, *values, change.bound, share, verdict))
    head = ("claim", "before", "after", "bound", "change / bound", "verdict")
    return text_table(head, rows, encoding=encoding)


def status_table(entries: Iterable[Status]) -> str:
    """The states as a table of text: chapter, state, seconds."""
    rows = [(entry.chapter, entry.state, "" if entry.seconds is None else f"{entry.seconds:.1f}") for entry in entries]
    return text_table(("chapter", "state", "seconds"), rows)


def parameters_table(parameters: Iterable[Parameter], *, encoding: str = "utf-8") -> str:
    """The parameters of a chapter as a table of text: name, value in the book, range, meaning."""
    rows = [(one.name, one.code, str(one.range or ""), one.help) for one in parameters]
    return text_table(("parameter", "book", "range", "meaning"), rows, encoding=encoding)


def text_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, encoding: str = "utf-8") -> str:
    """Columns as wide as their widest entry, below a ruled head, in signs that the terminal's encoding has.

    Example:
        >>> print(text_table(("a", "value"), [("long name", "≤ 1")], encoding="ascii"))
        a          value
        ---------  -----
        long name  <= 1
    """
    rows = [tuple(_spelled(cell, encoding) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _spelled(cell: str, encoding: str) -> str:
    """A cell in signs that an encoding has: what is put in its place later would be wider than its column."""
    try:
        cell.encode(encoding)
        return cell
    except UnicodeEncodeError:
        return cell.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)


def format_duration(seconds: float) -> str:
    """A time to three digits, in the unit that suits it.

    Example:
        >>> format_duration(0.0123), format_duration(12.34), format_duration(4.56e-6)
        ('12.3 ms', '12.3 s', '4.56 µs')
    """
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * factor:.3g} {unit}"


def claims_markdown(claims: Iterable[Claim]) -> str:
    """The ledger as MyST Markdown: counts, and a row a claim that links to its box and its chapter."""
    claims = list(claims)
    verdicts = Counter(claim.verdict for claim in claims)
    summary = f"{len(claims)} claims: " + ", ".join(f"{count} {badge(verdict)}" for verdict, count in verdicts.items())
    rows = [
        (
            f"{{ref}}`claim-{claim.id.lower()}` [{claim.id}]{{.claim-id}}",
            _with_far_values(claim),
            f"{{doc}}`{_short(claim.chapter)} </book/{claim.chapter}>`",
            f"{format_number(claim.measured)} ({claim.bound})",
            badge(claim.verdict),
            " ".join(seal_span(kind, text) for kind, text in zip(claim.seals, claim.seal.split(", "))) or MISSING,
        )
        for claim in claims
    ]
    header = ("Claim", "Statement", "Chapter", "Measured (bound)", "Verdict", "Seal")
    return f"{summary}\n\n{list_table(header, rows, 'claims-table')}" if claims else "*none*"


def _short(chapter: str) -> str:
    """The name of a chapter for a narrow column: ``smooth activations``."""
    return chapter.rpartition("/")[2].replace("_", " ")


def _with_far_values(claim: Claim) -> str:
    """The statement for another page than its chapter's, where values are named ``chapter.ipynb::name:format``."""
    far = rf"{{glue:text}}`/book/{claim.chapter}.ipynb::\1:\2`"
    return re.sub(r"\{glue:text\}`([^`:]+):?([^`]*)`", far, claim.declared.statement)


def plain(text: str) -> str:
    r"""A text as MyST that shows just this text, whatever it holds.

    >>> print(plain("a*b* <i> $1"))
    a\*b\* \<i\> \$1
    """
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def code_span(text: str) -> str:
    """A line of code in MyST, between more backticks than it holds in a row.

    >>> code_span("x = 1"), code_span("`a`")
    ('`x = 1`', '`` `a` ``')
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def badge(verdict: str) -> str:
    """A verdict as a styled span.

    >>> badge("not reproduced")
    '[not reproduced]{.verdict .verdict-not-reproduced}'
    """
    return f"[{verdict}]{{.verdict .verdict-{verdict.replace(' ', '-')}}}"


def seal_span(kind: str, text: str) -> str:
    """A seal as a styled span.

    >>> seal_span("checked", "checked 54")
    '[checked 54]{.seal .seal-checked}'
    """
    return f"[{text}]{{.seal .seal-{kind}}}"


def list_table(header: Iterable[str], rows: Iterable[Iterable[str]], css_class: str) -> str:
    """A MyST list-table, whose cells, unlike those of a pipe table, may hold ``|`` and formulas.

    >>> print(list_table(["a", "b"], [["1", "$|x|$"]], "plain"))
    ```{list-table}
    :header-rows: 1
    :class: plain
    * - a
      - b
    * - 1
      - $|x|$
    ```
    """
    body = list(rows)
    if not body:
        return "*none*"  # docutils refuses a table that is all header
    lines = ["```{list-table}", ":header-rows: 1", f":class: {css_class}"]
    for row in [header, *body]:
        lines += [f"{'  ' if i else '* '}- {' '.join(cell.split())}" for i, cell in enumerate(row)]
    return "\n".join([*lines, "```"])


def status_markdown(chapters: Iterable[Status], claims: Iterable[Claim]) -> str:
    """The executions as MyST Markdown: a row a chapter, then a row a machine and set of versions."""
    chapters = [chapter for chapter in chapters if chapter.executed_at is not None]
    verdicts: dict[str, Counter[str]] = {}
    for claim in claims:
        verdicts.setdefault(claim.chapter, Counter())[claim.verdict] += 1
    rows = [
        (
            f"{{doc}}`{chapter.chapter} </{chapter.path.removesuffix('.ipynb')}>`",
            ", ".join(f"{n} {badge(verdict)}" for verdict, n in verdicts.get(chapter.chapter, {}).items()) or "none",
            f"{chapter.seconds:.1f}",
            f"{datetime.fromisoformat(chapter.executed_at or ''):%Y-%m-%d %H:%M %Z}",
        )
        for chapter in chapters
    ]
    header = ("Chapter", "Claims", "Seconds", "Executed at")
    return "\n\n".join([list_table(header, rows, "status-table"), environments_markdown(chapters)])


def environments_markdown(chapters: Iterable[Status]) -> str:
    """The machines and versions of the executions as MyST Markdown; usually all chapters share one."""
    environments: dict[tuple[str, str], list[str]] = {}
    for chapter in chapters:
        versions = ", ".join(f"{package} {version}" for package, version in chapter.versions.items())
        environments.setdefault((chapter.machine or "", versions), []).append(chapter.chapter)
    rows = [(plain(machine), plain(versions), ", ".join(names)) for (machine, versions), names in environments.items()]
    return list_table(("Machine", "Versions", "Chapters"), rows, "environments-table")


def benchmarks_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Files of ``benchmarks/results`` as MyST Markdown; a processor has the same letter in all."""
    found = {_processor(measured) for result in results for measured in result["measurements"]}
    letters = dict(zip(sorted(found, reverse=True), ascii_uppercase, strict=False))
    return "\n".join(_benchmark_markdown(result, letters) for result in results)


def _processor(measured: Mapping[str, Any]) -> str:
    return str(measured["machine"].get("processor"))


def _benchmark_markdown(result: Mapping[str, Any], letters: Mapping[str, str]) -> str:
    """Title, for each case a row a machine, and the machines.

    Times are medians of one call; the ratio is the median over paired rounds, with its range; other peers follow.
    """
    measurements = {letters[_processor(measured)]: measured for measured in result["measurements"]}
    rows = [(row, letter) for letter, measured in measurements.items() for row in measured["rows"]]
    cases = list(dict.fromkeys(_case(row) for row, _ in rows))
    rows.sort(key=lambda pair: cases.index(_case(pair[0])))
    header = ("Case", "Machine", "Ours", "Best peer", "Ratio (range)", "Goal")
    table = list_table(header, [_measured(row, letter) for row, letter in rows], "benchmark-table")
    machines = [
        f"- {letter}: " + plain(", ".join(f"{name} {value}" for name, value in measured["machine"].items()))
        for letter, measured in measurements.items()
    ]
    return f"## {result['title']}\n\n{table}\n\n" + "\n".join(machines) + "\n"


def _case(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row compares: the problem, and the peers without what depends on the machine, as a size of chunks."""
    return row["case"], *(name.partition(",")[0] for name in row["ratios"])


def _measured(row: Mapping[str, Any], letter: str) -> tuple[str, ...]:
    peer = row["best_peer"]
    low, high = row["spread"][peer]
    facts = ", ".join(f"{name} {_fact(value)}" for name, value in row["facts"].items())
    others = "".join(f"; {plain(name)}: {ratio:.3g}" for name, ratio in row["ratios"].items() if name != peer)
    return (
        row["case"] + (f" ({facts})" if facts else ""),
        letter,
        format_duration(row["seconds"]["ours"]),
        f"{format_duration(row['seconds'][peer])} ({plain(peer)})",
        f"{row['ratios'][peer]:.3g} ({low:.3g}–{high:.3g}){others}",
        "" if row["goal"] is None else f"{row['goal']:g}, {'met' if row['met'] else 'missed'}",
    )


def _fact(value: float) -> str:
    """A count in full, any other number to three digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.3g}"
