"""Sweeps: what is refused, what is executed, and what is collected."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from pandas import DataFrame, concat

from companion.chapters import Chapter
from companion.claims import VERDICTS
from companion.commands import main
from companion.execution import Outcome
from companion.sweeps import MARKERS, ParameterSet, draw_figure, read_sweep, table_of, write_table

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """Two chapters; the claim of the first holds up to k = 3, and the chapter ends early from k = 9."""
    code = ["assert k < 9, 'too large'", tiny.claim("D1-one", measured="k * 3e-13")]
    chapters = {"part/one": {"code": code, "boxes": [tiny.box("D1-one")]}, "part/two": {"code": []}}
    return tiny.project(tmp_path_factory.mktemp("sweeps"), chapters)


def sets(root: Path, text: str) -> list[tuple[str, dict[str, object], dict[str, object]]]:
    file = root / "sweep.yml"
    file.write_text(text, encoding="utf-8")
    return [(chosen.chapter.name, dict(chosen.values), dict(chosen.parameters)) for chosen in read_sweep(root, file)]


def test_a_grid_is_every_combination_and_a_list_just_its_sets(root: Path) -> None:
    found = sets(root, "part/one: {k: [2, 3], rate: [1e-3, 1]}\npart/two: [{k: 4}, {name: b}, {}]")
    assert found == [
        ("part/one", {"k": 2, "rate": 1e-3}, {}),
        ("part/one", {"k": 2, "rate": 1.0}, {"rate": 1.0}),
        ("part/one", {"k": 3, "rate": 1e-3}, {"k": 3}),
        ("part/one", {"k": 3, "rate": 1.0}, {"k": 3, "rate": 1.0}),
        ("part/two", {"k": 4, "name": "a"}, {"k": 4}),
        ("part/two", {"k": 2, "name": "b"}, {"name": "b"}),
        ("part/two", {"k": 2, "name": "a"}, {}),
    ]


def test_a_set_that_comes_twice_is_executed_once(root: Path) -> None:
    assert len(sets(root, "part/one: [{k: 2}, {k: 3}, {}, {k: 3, name: a}]")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("part/one: {k: [1", "not YAML: while parsing"),
        ("\x00", "not YAML"),
        ("part/one: {k: [1]}\npart/one: {k: [2]}", "'part/one' is given twice"),
        ("part/one: {k: [1], k: [2]}", "'k' is given twice"),
        ("- part/one", "must map chapters to parameters"),
        ("3: {k: [1]}", "a key must be a text, not 3; write it in quotes"),
        ("part/one:\n  k: [1, 010]", "line 2: part/one: k: 010 is another number to other readers; write 10, or '010'"),
        ("part/one: {name: [b, no]}", "part/one: name: no is no text to other readers; write"),
        ("part/one: {k: &k [1]}\npart/two: {k: *k}", "part/one: k: anchors and aliases (k) are not read"),
        ("part/one: [{<<: {k: 1}}]", "part/one: << is no text to other readers"),
        ("part/one: {name: [!!str 3]}", "part/one: name: tags (!!str) are not read; write the plain value"),
        ("part/one: {k: [1]}\n---\npart/two: {k: [2]}", "but found another document"),
        ("part/one: {k: [yes]}", "yes is no text to other readers"),
        ("part/one:\n\tk: [1]", "not YAML: line 2: while scanning for the next token found character '\\t'"),
        ("", "must map chapters to parameters"),
        ("{}", "it holds no parameter set"),
        ("part/one: []", "it holds no parameter set"),
        ("part/three: {k: [1]}", "unknown chapter 'part/three'; the chapters are: part/one, part/two"),
        ("one: {k: [1]}", "one: write the chapter's full name, part/one"),
        ("part/one:", "part/one: must be a mapping (a grid) or a list of mappings, not None"),
        ("part/one: {k: 3}", "part/one: k: must be a list of values, not 3"),
        ("part/one: [3]", "part/one: each entry of the list must be a mapping, not 3"),
        ("part/one: {seed: [1]}", "part/one has no parameter 'seed'; its parameters are: k, rate, name"),
        ("part/two: [{k: 1}, {k: many}]", "part/two: parameter k takes a value of type int like its default 2, not"),
        ("part/two: {k: [1, 2.0]}", "part/two: parameter k takes a value of type int like its default 2, not 2.0"),
        (
            "part/two: {rate: [fast]}",
            "part/two: parameter rate takes a value of type float like its default 0.001, not 'fast'",
        ),
        ("part/two: {rate: [nan]}", "not 'nan'; write .inf, -.inf or .nan"),
        ("part/two: {k: [.nan]}", "part/two: parameter k takes a value of type int like its default 2, not nan"),
        (f"part/two: {{rate: [{10**400}]}}", "parameter rate takes a float, and none is equal to 1000"),
        (f"part/two: {{rate: [{2**53 + 1}]}}", f"takes a float, and none is equal to {2**53 + 1}"),
        ("part/two: {rate: [1e999]}", "part/two: rate: 1e999 is too large for a float"),
        ("part/two: {rate: [1, -1]}", "part/two: parameter rate must be > 0, not -1.0"),
        ("part/two: {rate: [true]}", "part/two: parameter rate takes a value of type float"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_anything_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("companion.commands.run_chapters", None)  # whatever runs would raise TypeError
    Path("bad.yml").write_text(text, encoding="utf-8")
    assert main(["sweep", "bad.yml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("companion: bad.yml: ")
    assert message in said


def test_a_sweep_in_another_encoding_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    Path("bad.yml").write_bytes("part/one: {name: [\u00e4]}".encode("latin-1"))
    assert main(["sweep", "bad.yml"]) == 2
    assert "bad.yml: not UTF-8 (" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert main(["sweep", "none.yml"]) == 2
    assert capsys.readouterr().err == "companion: none.yml: No such file or directory\n"


def test_a_sweep_collects_its_claims_and_is_taken_up_where_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    Path("ks.yml").write_text("part/one: {k: [2, 5, 9]}", encoding="utf-8")
    assert main(["sweep", "ks.yml"]) == 1
    said = capsys.readouterr()
    assert "3 of 3 parameter sets executed\n" in said.out
    (counts,) = (line for line in said.out.splitlines() if line.startswith("claims: "))
    assert set(counts.removeprefix("claims: ").split(", ")) == {"1 reproduced", "1 failed"}
    assert "part/one k=9 failed" in said.err
    assert "k=5" not in said.err
    figure = Path("_build/sweeps/ks.yml.svg").read_bytes()
    with Path("_build/sweeps/ks.yml.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["parameters.k"] for row in rows] == ["2", "5", "9"]
    assert [row["verdict"] for row in rows] == ["reproduced", "failed", ""]
    assert [row["measured"] for row in rows] == [repr(2 * 3e-13), repr(5 * 3e-13), ""]
    assert [row["bound"] for row in rows] == ["1e-12", "1e-12", ""]
    assert "AssertionError: too large" in rows[2]["problem"]
    assert all(Path(row["notebook"]).is_file() for row in rows)
    assert main(["sweep", "ks.yml"]) == 1
    assert "1 of 3 parameter sets executed" in capsys.readouterr().out
    assert Path("_build/sweeps/ks.yml.svg").read_bytes() == figure
    # The same copy serves a run with these parameters.
    assert main(["run", "part/one", "-p", "k=5"]) == 0
    assert "0 of 1 chapters executed, 0 failed" in capsys.readouterr().out
    # The verdict in the table is that of the present declaration.
    notebook = Path("book/part/one.ipynb")
    committed = notebook.read_text(encoding="utf-8")
    notebook.write_text(committed.replace("<= 1e-12", "<= 1e-10"), encoding="utf-8")
    Path("ks.yml").write_text("part/one: {k: [2, 5]}", encoding="utf-8")
    assert main(["sweep", "ks.yml"]) == 0
    notebook.write_text(committed, encoding="utf-8")
    assert "0 of 2 parameter sets executed\nclaims: 2 reproduced\n" in capsys.readouterr().out


def test_sweeps_of_like_names_have_results_of_their_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("companion.commands._run", lambda *arguments: [])
    monkeypatch.setattr("companion.commands.table_of", lambda *arguments: table([1], [0.5]))
    files = [Path(name) for name in ("s.yml", "s.yaml", "s", "s.v1.yml", "s.v2.yml", "a/s.yml", "b/s.yml", "ä b.yml")]
    files += [tmp_path / "s.yml", tmp_path / "x/s.yml", Path("a/../b/s.yml")]
    places = []
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("part/one: {k: [2]}", encoding="utf-8")
        assert main(["sweep", str(file)]) == 0
        places.append(capsys.readouterr().out.splitlines()[-1])
    assert all(Path(place).is_file() for place in places)
    assert len(set(places)) == len(files) - 1
    assert places[-1] == places[6] == "_build/sweeps/b/s.yml.csv"
    monkeypatch.chdir(root / "a")
    assert main(["sweep", "s.yml"]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]).resolve() == (root / places[5]).resolve()


def test_a_figure_that_fails_leaves_table_and_exit_code(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("companion.commands._run", lambda *arguments: [])
    monkeypatch.setattr("companion.commands.table_of", lambda *arguments: table([1, 2], [0.5, 0.6]))
    Path("fails.yml").write_text("part/one: {k: [2]}", encoding="utf-8")
    assert main(["sweep", "fails.yml"]) == 0
    assert Path("_build/sweeps/fails.yml.svg").is_file()

    def fail(*arguments: object) -> None:
        raise OverflowError("int too large\nto convert")

    monkeypatch.setattr("companion.sweeps._draw_panel", fail)
    capsys.readouterr()
    assert main(["sweep", "fails.yml"]) == 0
    said = capsys.readouterr()
    assert said.err == "companion: no figure: int too large to convert\n"
    assert said.out.splitlines()[-1] == "_build/sweeps/fails.yml.csv"
    assert not Path("_build/sweeps/fails.yml.svg").exists(), "the figure of an earlier run is not that of the table"
    assert not list(Path("_build/sweeps").glob(".*"))


HUGE = 10**400


@pytest.mark.parametrize(
    ("values", "measured", "bound"),
    [
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0], 1.0),
        ([1.0, math.inf, -math.inf], [1.0, 2.0, 3.0], 1.0),
        ([1, 2, HUGE], [1.0, 2.0, 3.0], 1.0),
        ([1, 2, 3], [1, 2, HUGE], 1.0),
        ([1, 2, 3], [1, 2, -HUGE], 1.0),
        ([1, 2, 3], [1, 2, 3], HUGE),
        ([0, 1, 1000], [0, 1, 1e6], 1.0),
        ([-5, 1, 1000], [-3, 1, 1e6], 1.0),
        (["x" * 500, "x" * 499 + "y", ""], [1, 2, 3], 1.0),
        (["$\\frac$", "$", "a\nb"], [1, 2, 3], 1.0),
        ([None, True, {"a": [1]}], [1, 2, 3], 1.0),
    ],
)
def test_odd_numbers_and_texts_are_drawn(
    tmp_path: Path, values: list[object], measured: list[float | None], bound: float
) -> None:
    odd = table(values, measured).assign(bound=bound)
    (path,) = draw_figure(odd.astype(object), tmp_path / "figure.svg")
    assert "D1-one (part/one)" in texts(path)


def test_of_many_claims_the_first_are_drawn_and_the_figure_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("companion.sweeps.SHOWN", 2)
    many = concat([table([1, 2], [0.1, 0.2]).assign(claim=f"D1-{i}") for i in range(300)])
    (path,) = draw_figure(many, tmp_path / "figure.svg")
    shown = texts(path)
    assert "The first 2 of 300 claims; all are in the table" in shown
    assert [text for text in shown if text.startswith("D1-")] == ["D1-0 (part/one)", "D1-1 (part/one)"]


def test_a_value_that_is_nothing_or_no_number_has_its_name_in_the_table(root: Path) -> None:
    chapter = Chapter(root, Path("book/part/two.ipynb"))
    outcome = Outcome(chapter, {}, False, None, 1.0, (), root / "copy.ipynb", ())
    values = {"a": None, "b": math.nan, "c": HUGE, "d": ""}
    rows = table_of([ParameterSet(chapter, values, {})], [outcome])
    path = write_table(rows, root / "_build/named.csv")
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert [row[f"parameters.{name}"] for name in values] == ["null", ".nan", str(HUGE), ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", ""], "argument FILE: must not be empty ('')"),
        (["sweep", "s.yml", "--scheduler", ""], "argument --scheduler: must not be empty"),
        (["run", "--scheduler", " "], "argument --scheduler: must not be empty (' ')"),
        (["build", "--scheduler="], "argument --scheduler: must not be empty"),
        (["run", ""], "argument CHAPTER: must not be empty"),
        (["run", "part/one", ""], "argument CHAPTER: must not be empty"),
        (["page", ""], "argument PAGE: must not be empty"),
        (["new", ""], "argument PART/NAME: must not be empty"),
        (["new", "a/b", "--title", ""], "argument --title: must not be empty"),
        *[
            (["run", "--workers", text], f"argument --workers: must be a positive integer, not {text!r}")
            for text in ("0", "-1", " 2 ", "²", "٣", "010", "1e3", "1_0", "", "9" * 5000)
        ],
    ],
)
def test_an_unset_variable_or_a_number_of_another_kind_is_refused_by_option(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def table(values: list[object], measured: list[float | None], verdict: str = "reproduced") -> DataFrame:
    claim = {"chapter": "part/one", "claim": "D1-one", "relation": "<=", "bound": 1.0, "verdict": verdict}
    rows = [{**claim, "parameters.k": k, "parameters.fixed": 1, "measured": y} for k, y in zip(values, measured)]
    return DataFrame(rows, dtype=object)


def texts(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize("values", [[1, 10, 1000], ["a", "b", "a"], [[1, 2], [1, 3], [2]]])
def test_the_figure_shows_points_bounds_and_what_was_not_finite(tmp_path: Path, values: list[object]) -> None:
    (path,) = draw_figure(table(values, [1e-3, 2.0, None]), tmp_path / "figure.svg")
    wanted = {"D1-one (part/one)", "k", "reproduced", "median", "bound (≤)", "measured (1 not finite)"}
    assert wanted <= set(texts(path))
    assert not {"fixed", "failed"} & set(texts(path))


def test_a_claim_that_was_nowhere_finite_is_drawn_with_its_bounds(tmp_path: Path) -> None:
    (path,) = draw_figure(table([1, 2], [None, None], "failed"), tmp_path / "figure.svg")
    assert {"bound (≤)", "measured (2 not finite)"} <= set(texts(path))


def test_a_row_of_panels_is_a_claim_and_has_one_legend(tmp_path: Path) -> None:
    first = table([1, 10, 1000, 1000], [1e-3, 2e-3, 0.5, 2.0])
    first["verdict"] = list(MARKERS)
    first["parameters.name"] = ["a", "b", "a", "b"]
    second = first.assign(claim="D1-two")
    second["parameters.name"] = "a"
    both = concat([first, second])
    (path,) = draw_figure(both, tmp_path / "figure.svg")
    counts = Counter(texts(path))
    assert (counts["D1-one (part/one)"], counts["D1-two (part/one)"]) == (1, 1)
    assert (counts["k"], counts["name"], counts["measured"]) == (2, 1, 3)
    assert {counts[said] for said in (*MARKERS, "median", "bound (≤)")} == {2}
    again = next(draw_figure(both, tmp_path / "again.svg"))
    assert again.read_bytes() == path.read_bytes()


def test_every_verdict_has_a_shape_of_its_own() -> None:
    assert set(MARKERS) == {*VERDICTS, "failed"}
    assert len(set(MARKERS.values())) == len(MARKERS)


def test_counts_stay_counts_where_some_rows_have_none(tmp_path: Path) -> None:
    path = write_table(table([1, 2], [3, None]), tmp_path / "deep/table.csv")
    assert path.read_text(encoding="utf-8").splitlines()[1:] == [
        "part/one,D1-one,<=,1.0,reproduced,1,1,3",
        "part/one,D1-one,<=,1.0,reproduced,2,1,",
    ]


def test_the_command_line_starts_without_what_only_sweeps_need() -> None:
    code = "import sys, companion.commands\nprint({'pandas', 'seaborn', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_there_is_no_figure_when_nothing_varies_or_nothing_was_claimed(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    assert list(draw_figure(table([1, 1], [0.1, 0.2]), path)) == []
    assert list(draw_figure(table([1, 2], [0.1, 0.2]).assign(claim=None), path)) == []
    assert not path.exists()


def test_the_book_s_example_fits_its_chapters(tmp_path: Path) -> None:
    page = (PROJECT / "book/appendix/cluster.md").read_text(encoding="utf-8")
    (tmp_path / "sweep.yml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert len(read_sweep(PROJECT, tmp_path / "sweep.yml")) == 8
