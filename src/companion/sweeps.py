"""Sweeps: chapters executed with many parameter sets, and their claims in one table and one figure.

A sweep is a YAML file that maps chapters to a grid (every combination of the values) or to a list of sets:

.. code-block:: yaml

    depth/lifting:
      seeds: [100, 1000]
      width: [3, 6]
    depth/strict-saddles:
      - {seeds: 10, width: 3}

Each set has its executed copy below ``_build/runs``, keyed by the digest of its inputs and parameters: whatever
interrupts a sweep, the next run takes it up where it was.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from companion.chapters import Chapter, ProjectError, choose_chapters
from companion.claims import RELATIONS
from companion.execution import Outcome, changed_parameters, check_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

PARAMETER = "parameters."  # before the names of parameters, so that none is taken for another column
COLUMNS = ("claim", "measured", "relation", "bound", "verdict", "control", "seconds", "problem", "notebook")
# Okabe and Ito's colours, and shapes for those who see none.
MARKS = {
    "reproduced": ("o", "#0072B2"),
    "conditional": ("s", "#E69F00"),
    "not reproduced": ("D", "#CC79A7"),
    "failed": ("X", "#D55E00"),
}
PANEL = (4.5, 3.0)  # inches
LOGARITHMIC_FROM = 100  # ratio of the largest to the smallest value on an axis


@dataclass(frozen=True)
class ParameterSet:
    """One execution of a sweep.

    Args:
        chapter: what to execute.
        values: of every parameter that the file names for the chapter.
        parameters: those of them that differ from the chapter's defaults.
    """

    chapter: Chapter
    values: Mapping[str, Any]
    parameters: Mapping[str, Any]


def read_sweep(root: Path, file: Path) -> list[ParameterSet]:
    """The parameter sets of a sweep, each once, in the order of the file.

    Args:
        root: directory of the project.
        file: the sweep.

    Raises:
        ProjectError: naming the file and the key that cannot be used: no YAML, an unknown chapter or parameter, a
            value of another type than the parameter's default, or nothing to execute.
    """
    try:
        content = yaml.load(file.read_text(), _StrictLoader)
        sets = [chosen for name, entry in _mapping(content).items() for chosen in _sets(root, name, entry)]
    except OSError as error:
        raise ProjectError(f"{file}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProjectError(f"{file}: not YAML: {error}") from error
    except ProjectError as error:
        raise ProjectError(f"{file}: {error}") from error
    if not sets:
        raise ProjectError(f"{file}: it holds no parameter set")
    return list({_key(chosen.chapter, chosen.parameters): chosen for chosen in sets}.values())


def table_of(sets: Iterable[ParameterSet], outcomes: Iterable[Outcome]) -> list[Row]:
    """A row for each claim of each set, and one for a set without claims.

    Returns:
        Rows in the order of the sets: ``chapter``, ``parameters.NAME`` for each value of the file, ``claim``,
        ``measured``, ``relation``, ``bound``, ``verdict``, ``control`` (measured), ``seconds``, ``problem`` (why a
        set did not run to its end) and ``notebook`` (the executed copy, relative to the project).
    """
    known = {_key(outcome.chapter, outcome.parameters): outcome for outcome in outcomes}
    return [row for chosen in sets for row in _rows(chosen, known[_key(chosen.chapter, chosen.parameters)])]


def write_table(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows as CSV; what a row does not have, or was not finite, is an empty field."""
    columns = ["chapter", *_parameters(rows), *COLUMNS]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def draw_figure(rows: Sequence[Row], path: Path) -> Iterator[Path]:
    """Draw measured values and bounds against each parameter that varies: a row a claim, a column a parameter.

    Yields:
        ``path``, once the figure is there; nothing when no claim was recorded or no parameter varies.
    """
    panels = _panels(rows)
    if not panels:
        return
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    height, width = len(panels), max(map(len, panels.values()))
    figure = Figure(figsize=(PANEL[0] * width, PANEL[1] * height), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False)
    for axes, ((chapter, claim), names) in zip(grid, panels.items(), strict=True):
        chosen = [row for row in rows if (row["chapter"], row["claim"]) == (chapter, claim)]
        for axis, name in itertools.zip_longest(axes, names):
            _draw_panel(axis, chosen, name) if name else axis.remove()
        axes[0].set_title(f"{claim} ({chapter})", loc="left", fontsize="medium")
        # The panels of a row show the same points; beside the last one the legend hides none of them.
        axes[len(names) - 1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    # The same sweep gives the same file (no date, and names that do not change), in which texts stay texts.
    with rc_context({"svg.hashsalt": "companion", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None, "Title": "Measured values and bounds of a sweep"})
    yield path


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a value that is silently lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping, refused if one of its keys is given twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ProjectError("must map chapters to parameters, as in `depth/lifting: {seeds: [10, 100]}`")
    return content


def _sets(root: Path, name: str, entry: Any) -> Iterator[ParameterSet]:
    (chapter,) = choose_chapters(root, [name])
    if chapter.name != name:
        raise ProjectError(f"{name}: write the chapter's full name, {chapter.name}")
    given = [check_parameters(chapter, one) for one in (_grid if isinstance(entry, dict) else _list)(name, entry)]
    defaults = {key: chapter.parameters[key] for one in given for key in one}
    for one in given:
        yield ParameterSet(chapter, defaults | one, changed_parameters(chapter, one))


def _grid(name: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    for key, values in entry.items():
        if not isinstance(values, list):
            raise ProjectError(f"{name}: {key}: must be a list of values, not {values!r}")
    return [dict(zip(entry, combination)) for combination in itertools.product(*entry.values())]


def _list(name: str, entry: Any) -> list[dict[str, Any]]:
    if not isinstance(entry, list):
        raise ProjectError(f"{name}: must be a mapping (a grid) or a list of mappings, not {entry!r}")
    for given in entry:
        if not isinstance(given, dict):
            raise ProjectError(f"{name}: each entry of the list must be a mapping, not {given!r}")
    return entry


def _key(chapter: Chapter, parameters: Mapping[str, Any]) -> tuple[str, str]:
    return chapter.name, repr(sorted(parameters.items()))


def _rows(chosen: ParameterSet, outcome: Outcome) -> Iterator[Row]:
    head = {"chapter": chosen.chapter.name, **{PARAMETER + name: value for name, value in chosen.values.items()}}
    tail = {
        "seconds": outcome.seconds,
        "problem": "" if outcome.finished else "; ".join(outcome.problems),
        "notebook": outcome.copy.relative_to(chosen.chapter.root).as_posix(),
    }
    for claim in outcome.claims:
        shown = {name: claim[name] for name in ("measured", "relation", "bound", "verdict")}
        yield {**head, "claim": claim["id"], **shown, "control": claim["control"]["measured"], **tail}
    if not outcome.claims:
        yield {**head, "claim": None, **tail}


def _parameters(rows: Iterable[Row]) -> list[str]:
    """The columns that hold parameters."""
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(PARAMETER)))


def _panels(rows: Sequence[Row]) -> dict[tuple[str, str], list[str]]:
    """Chapter and claim → the parameters that vary among its rows."""
    panels: dict[tuple[str, str], list[str]] = {}
    for key in dict.fromkeys((row["chapter"], row["claim"]) for row in rows if row["claim"]):
        chosen = [row for row in rows if (row["chapter"], row["claim"]) == key]
        varying = [name for name in _parameters(chosen) if len({repr(row[name]) for row in chosen}) > 1]
        panels |= {key: varying} if varying else {}
    return panels


def _draw_panel(axis: Axes, rows: Sequence[Row], name: str) -> None:
    """Points by verdict, their median at each value of the parameter, and the bounds."""
    shown = [row for row in rows if row["measured"] is not None]
    numeric = all(type(row[name]) in (int, float) for row in shown)
    points = [(row[name] if numeric else str(row[name]), row) for row in shown]
    for verdict, (marker, colour) in MARKS.items():
        found = [(x, row["measured"]) for x, row in points if row["verdict"] == verdict]
        if found:
            axis.plot([x for x, _ in found], [y for _, y in found], marker, color=colour, label=verdict)
    xs = sorted({x for x, _ in points}) if numeric else list(dict.fromkeys(x for x, _ in points))
    medians = [median(row["measured"] for place, row in points if place == x) for x in xs]
    axis.plot(xs, medians, color="#767676", zorder=1, label="median")
    bounds = dict.fromkeys((x, row["bound"]) for x, row in points)
    relation = RELATIONS[rows[0]["relation"]]
    axis.plot([x for x, _ in bounds], [y for _, y in bounds], "k_", markersize=14, label=f"bound ({relation})")
    if numeric:
        axis.set_xscale(_scale([row[name] for row in shown]))
    axis.set_yscale(_scale([value for row in shown for value in (row["measured"], row["bound"])]))
    lost = len(rows) - len(shown)
    axis.set(xlabel=name.removeprefix(PARAMETER), ylabel="measured" + (f" ({lost} not finite)" if lost else ""))


def _scale(values: Sequence[float]) -> str:
    positive = bool(values) and min(values) > 0
    return "log" if positive and max(values) >= LOGARITHMIC_FROM * min(values) else "linear"
