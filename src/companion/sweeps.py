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

import hashlib
import io
import itertools
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from companion.chapters import Chapter, ProjectError, choose_chapters, name_in_book
from companion.claims import RELATIONS
from companion.execution import Outcome
from companion.files import write_through
from companion.parameters import changed_parameters, check_parameters
from companion.plain_yaml import read_yaml, write_yaml

# Pandas, seaborn and matplotlib take seconds to import: only a sweep that was executed does.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

PARAMETER = "parameters."  # before the names of parameters, so that none is taken for another column
COLUMNS = ("claim", "measured", "relation", "bound", "verdict", "control", "seconds", "problem", "notebook")
# Shapes for those who see no colours.
MARKERS = {"reproduced": "o", "conditional": "s", "not reproduced": "D", "failed": "X"}
PANEL = (4.5, 3.0)  # inches
SHOWN = 40  # claims in a figure: some ten seconds of drawing
LABEL = 30  # characters of a value that is no number
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
        content = read_yaml(file.read_text(encoding="utf-8-sig"))
        sets = [chosen for name, entry in _mapping(content).items() for chosen in _sets(root, name, entry)]
    except OSError as error:
        raise ProjectError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProjectError(f"{file}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (ProjectError, ValueError) as error:
        raise ProjectError(f"{file}: {error}") from error
    if not sets:
        raise ProjectError(f"{file}: it holds no parameter set")
    return list({_key(chosen.chapter, chosen.parameters): chosen for chosen in sets}.values())


def results_path(root: Path, file: Path) -> Path:
    """Where the results of a sweep go, but for their suffix: two sweeps never share a place.

    Args:
        root: directory of the project.
        file: the sweep; one outside the project has a place by the digest of its path.

    Example:
        >>> results_path(Path("/project"), Path("/project/sweeps/widths.v1.yml")).as_posix()
        '/project/_build/sweeps/sweeps/widths.v1.yml'
    """
    path, results = file.resolve(), root / "_build" / "sweeps"
    if path.is_relative_to(root):
        return results / path.relative_to(root)
    return results / f"outside-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}" / path.name


def table_of(sets: Iterable[ParameterSet], outcomes: Iterable[Outcome]) -> DataFrame:
    """A row for each claim of each set, and one for a set without claims.

    Returns:
        Rows in the order of the sets: ``chapter``, ``parameters.NAME`` for each value of the file, ``claim``,
        ``measured``, ``relation``, ``bound``, ``verdict``, ``control`` (measured), ``seconds``, ``problem`` (why a
        set did not run to its end) and ``notebook`` (the executed copy, relative to the project).
    """
    from pandas import DataFrame

    known = {_key(outcome.chapter, outcome.parameters): outcome for outcome in outcomes}
    rows = [row for chosen in sets for row in _rows(chosen, known[_key(chosen.chapter, chosen.parameters)])]
    parameters = dict.fromkeys(name for row in rows for name in row if name.startswith(PARAMETER))
    # Objects: a column of integers in which some row has none would become one of floats.
    return DataFrame(rows, columns=["chapter", *parameters, *COLUMNS], dtype=object)


def write_table(table: DataFrame, path: Path) -> Path:
    """Write the table as CSV; what a row does not have, or was not finite, is an empty field."""
    write_through(path, table.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace"))
    return path


def draw_figure(table: DataFrame, path: Path) -> Iterator[Path]:
    """Draw measured values and bounds against each parameter that varies: a row a claim, a column a parameter.

    A figure that was there before is removed first: it would not be that of the table.

    Yields:
        ``path``, once the figure is there; nothing when no claim was recorded or no parameter varies.
    """
    path.unlink(missing_ok=True)
    claims = table.dropna(subset=["claim"]).groupby(["chapter", "claim"], sort=False)
    panels = [(key, rows, names) for key, rows in claims if (names := _varying(rows))]
    if not panels:
        return
    from matplotlib import pyplot as plt

    from companion import figures

    # The same sweep gives the same file (no date, and names that do not change), in which texts stay texts.
    with plt.rc_context({"svg.fonttype": "none"}):
        figures.use_style()
        figure = _panels(panels[:SHOWN])
        if len(panels) > SHOWN:
            figure.suptitle(f"The first {SHOWN} of {len(panels)} claims; all are in the table", x=0, ha="left")
        content = io.BytesIO()
        metadata = {"Date": None, "Title": "Measured values and bounds of a sweep"}
        figure.savefig(content, format="svg", metadata=metadata)
    plt.close(figure)
    write_through(path, content.getvalue())
    yield path


def _panels(panels: Sequence[tuple[tuple[str, str], DataFrame, list[str]]]) -> Figure:
    """A row of panels for each claim, with one legend."""
    from companion import figures

    width = max(len(names) for _, _, names in panels)
    figure, axes = figures.panels(width, len(panels), height=PANEL[1], width=PANEL[0] * width)
    for i, ((chapter, claim), rows, names) in enumerate(panels):
        beside = axes[i * width : (i + 1) * width]
        for axis, name in itertools.zip_longest(beside, names):
            _draw_panel(axis, rows, name) if name else axis.remove()
        for axis in beside[: len(names) - 1]:
            axis.legend().remove()
        beside[0].set_title(f"{claim} ({chapter})")
        # The panels of a row show the same points; beside the last one the legend hides none of them.
        beside[len(names) - 1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ProjectError("must map chapters to parameters, as in `depth/lifting: {seeds: [10, 100]}`")
    return content


def _sets(root: Path, name: str, entry: Any) -> Iterator[ParameterSet]:
    (chapter,) = choose_chapters(root, [name])
    if chapter.name != name_in_book(root, name):
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


def _rows(chosen: ParameterSet, outcome: Outcome) -> Iterator[dict[str, Any]]:
    shared = {
        "chapter": chosen.chapter.name,
        **{PARAMETER + name: _named(value) for name, value in chosen.values.items()},
        "seconds": outcome.seconds,
        "problem": outcome.error,
        "notebook": outcome.copy.relative_to(chosen.chapter.root).as_posix(),
    }
    for claim in outcome.claims:
        yield {
            **shared,
            "claim": claim.id,
            "measured": claim.measured,
            "relation": claim.declared.relation,
            "bound": claim.declared.bound,
            "verdict": claim.verdict,
            "control": claim.measurement.control,
        }
    if not outcome.claims:
        yield shared


def _named(value: Any) -> Any:
    """A parameter's value, in words where a table would leave its field empty."""
    return write_yaml(value) if value is None or value != value else value


def _varying(rows: DataFrame) -> list[str]:
    """The columns of parameters that vary."""
    return [name for name in rows if name.startswith(PARAMETER) and rows[name].map(repr).nunique() > 1]


def _draw_panel(axis: Axes, rows: DataFrame, name: str) -> None:
    """Points by verdict, their median at each value of the parameter, and the bounds."""
    import seaborn as sns

    from companion import figures

    numeric = all(type(value) in (int, float) and _finite(value) is not None for value in rows[name])
    places = rows[name].map(float) if numeric else _labels(rows[name])
    numbers = {column: rows[column].map(_finite).astype(float) for column in ("measured", "bound")}
    rows = rows.assign(**numbers, **{name: places})
    shown = rows.dropna(subset=["measured"])
    place = {"x": name, "ax": axis}
    if len(shown):
        colours = (figures.SHALLOW, figures.ORANGE, figures.PURPLE, figures.DEEP)
        by_verdict = {"palette": dict(zip(MARKERS, colours, strict=True)), "markers": MARKERS}
        sns.scatterplot(shown, y="measured", hue="verdict", style="verdict", **place, **by_verdict)
        middle = {"estimator": "median", "errorbar": None, "color": figures.CONTROL, "zorder": 1}
        sns.lineplot(shown, y="measured", label="median", **place, **middle)
    relation = RELATIONS[rows["relation"].iloc[0]]
    bar = {"marker": "_", "s": 200, "linewidth": 1.5, "color": "black"}
    sns.scatterplot(rows, y="bound", label=f"bound ({relation})", **place, **bar)
    if numeric:
        axis.set_xscale(_scale(rows[name]))
    axis.set_yscale(_scale([*shown["measured"], *rows["bound"]]))
    lost = len(rows) - len(shown)
    axis.set(xlabel=name.removeprefix(PARAMETER), ylabel="measured" + (f" ({lost} not finite)" if lost else ""))


def _labels(values: Iterable[Any]) -> list[str]:
    """Values as the names of places on an axis: short, and another for each value."""
    texts = [str(value).replace("$", r"\$") for value in values]  # dollars would begin a formula
    number = {text: i for i, text in enumerate(dict.fromkeys(texts), 1)}
    return [text if len(text) <= LABEL else f"{text[: LABEL // 2]}… ({number[text]})" for text in texts]


def _finite(value: Any) -> float | None:
    """The number as an axis can hold it."""
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:
        return None


def _scale(values: Collection[float]) -> str:
    values = [value for value in values if math.isfinite(value)]
    return "log" if values and min(values) > 0 and max(values) / LOGARITHMIC_FROM >= min(values) else "linear"
