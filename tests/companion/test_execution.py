"""Executing chapters: what is kept, what fails and how it is said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from companion.__main__ import main
from companion.chapters import Chapter, ProjectError, choose_chapters
from companion.claims import read_claims
from companion.execution import (
    Outcome,
    executed_path,
    parse_parameters,
    run_chapter,
    run_chapters,
    state_of,
    stored_metadata,
)

WAIT = "import time\ntime.sleep(30)"
# Both chapters hold a kernel at the same time, or one of them times out.
MEET = (
    "import os, pathlib, time\npathlib.Path('../{me}.met').touch()\n"
    "while not pathlib.Path('../{other}.met').exists():\n    time.sleep(0.05)\n"
    "print('{me}', os.environ['OMP_NUM_THREADS'], os.getpid())"
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """Two chapters that hold and one for every way of failing."""
    passing, failing = tiny.claim("T1"), tiny.claim("T1", measured="float('nan')")
    declared = {"T1": "reproduced"}
    return tiny.project(
        tmp_path_factory.mktemp("mixed"),
        {
            "good/one": {
                "code": ["from toy import first", MEET.format(me="one", other="two"), passing],
                "claims": declared,
            },
            "good/two": {"code": ["import toy.third", MEET.format(me="two", other="one")]},
            "bad/claim": {"code": [failing], "claims": declared},
            "bad/missing": {"code": [tiny.claim("T2"), tiny.claim("T2")], "claims": declared},
            "bad/raising": {"code": ["1 / 0"]},
            "bad/dead": {"code": ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"]},
            "bad/slow": {"code": ["import time\ntime.sleep(60)"], "timeout": 1},
        },
    )


@pytest.fixture(scope="module")
def outcomes(mixed: Path) -> dict[str, Outcome]:
    return {outcome.chapter.name: outcome for outcome in run_chapters(choose_chapters(mixed, []), workers=2)}


def chapter(root: Path, name: str) -> Chapter:
    return choose_chapters(root, [name])[0]


def test_a_chapter_that_holds_leaves_a_fresh_copy_and_its_provenance(mixed: Path, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["good/one"]
    assert (outcome.problems, outcome.executed, outcome.copy) == ((), True, executed_path(outcome.chapter))
    assert state_of(outcome.chapter) == "fresh"
    noted = stored_metadata(outcome.copy)
    assert noted["seconds"] > 0
    assert noted["versions"]["python"].startswith("3.")
    assert [claim["verdict"] for claim in read_claims(outcome.copy)] == ["reproduced"]


def test_kernels_at_the_same_time_do_not_cross_and_have_one_thread_each(outcomes: dict[str, Outcome]) -> None:
    printed = {}
    for name in ("good/one", "good/two"):
        cells = nbformat.read(outcomes[name].copy, as_version=4).cells
        (text,) = (
            output.text for cell in cells for output in cell.get("outputs", []) if output.output_type == "stream"
        )
        printed[name] = text.split()
    assert printed["good/one"][0] == "one"
    assert printed["good/two"][0] == "two"
    assert printed["good/one"][2] != printed["good/two"][2]
    assert {words[1] for words in printed.values()} == {"1"}


@pytest.mark.parametrize(
    ("name", "problems"),
    [
        ("bad/claim", ["claim T1 is failed, declared reproduced: measured not finite, bound <= 1e-12"]),
        (
            "bad/missing",
            ["T1 is declared but not recorded", "T2 is recorded more than once", "T2 is recorded but not declared"],
        ),
        ("bad/raising", ["raised ZeroDivisionError: division by zero"]),
        ("bad/dead", ["the kernel died"]),
        ("bad/slow", ["longer than 1 s"]),
    ],
)
def test_a_chapter_that_fails_says_why_and_is_kept_for_inspection(
    outcomes: dict[str, Outcome], name: str, problems: list[str]
) -> None:
    outcome = outcomes[name]
    assert all(any(wanted in said for said in outcome.problems) for wanted in problems), outcome.problems
    assert state_of(outcome.chapter) == "failed"
    assert not executed_path(outcome.chapter).exists()
    assert outcome.copy.name.endswith(".failed.ipynb")
    assert len(nbformat.read(outcome.copy, as_version=4).cells) >= 3


def test_no_run_leaves_anything_else_behind(mixed: Path, outcomes: dict[str, Outcome]) -> None:
    left = {path.name for path in (mixed / "_build").rglob("*") if path.is_file() and path.suffix != ".lock"}
    failed = {f"{name}.failed.ipynb" for name in ("claim", "missing", "raising", "dead", "slow")}
    assert left == {"one.ipynb", "two.ipynb"} | failed


def test_the_longest_chapter_starts_first(tmp_path: Path, tiny: SimpleNamespace) -> None:
    chapters = {"a": {"code": ["1"]}, "b": {"code": ["1"], "expected_seconds": 5}, "c": {"code": ["1"]}}
    root = tiny.project(tmp_path, chapters)

    class Recorder:
        capacity = 1

        def execute(self, chapter: Chapter, parameters: object, output: Path) -> tuple[list[str], dict[str, float]]:
            order.append(chapter.name)
            nbformat.write(chapter.notebook, output)
            return [], {"seconds": 0.0}

        def cancel(self) -> None: ...

    order: list[str] = []
    list(run_chapters(choose_chapters(root, []), engine=Recorder()))
    assert order == ["b", "a", "c"]


def test_only_what_changed_is_executed_and_the_last_good_copy_survives_a_failure(
    mixed: Path, outcomes: dict[str, Outcome], tiny: SimpleNamespace
) -> None:
    good = choose_chapters(mixed, ["good/one", "good/two"])
    tiny.notebook(mixed / "book/good/two.ipynb", [cell.source for cell in good[1].code_cells[1:]], prose="# New prose")
    assert not any(outcome.executed for outcome in run_chapters(choose_chapters(mixed, ["good/one", "good/two"])))
    before = executed_path(good[1]).read_bytes()
    (mixed / "src/toy/third.py").write_text("raise ValueError('broken')")
    again = {o.chapter.name: o for o in run_chapters(choose_chapters(mixed, ["good/one", "good/two"]))}
    assert (again["good/one"].executed, again["good/two"].executed) == (False, True)
    assert state_of(chapter(mixed, "good/two")) == "failed"
    assert executed_path(good[1]).read_bytes() == before
    (mixed / "src/toy/third.py").write_text("VALUE = 4")
    assert state_of(chapter(mixed, "good/two")) == "stale"
    (outcome,) = run_chapters([chapter(mixed, "good/two")])
    assert outcome.executed
    assert not (executed_path(good[1]).parent / "two.failed.ipynb").exists()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """One quick chapter with a good copy."""
    root = tiny.project(tmp_path_factory.mktemp("single"), {"one": {"code": ["print(k)"]}})
    (outcome,) = run_chapters(choose_chapters(root, []))
    assert outcome.problems == ()
    return root


@pytest.mark.parametrize(("by", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_that_is_ended_in_mid_chapter_leaves_the_last_good_copy(
    single: Path, tiny: SimpleNamespace, by: signal.Signals, code: int
) -> None:
    copy, notebook = single / "_build/executed/book/one.ipynb", single / "book/one.ipynb"
    good, committed, pid = copy.read_bytes(), notebook.read_bytes(), single / "pid"
    tiny.notebook(notebook, [f"import os\nprint(os.getpid(), file=open({str(pid)!r}, 'w'))", WAIT])
    run = subprocess.Popen(
        [sys.executable, "-m", "companion", "run"],
        cwd=single,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
        run.send_signal(by)
        _, said = run.communicate(timeout=20)
        assert run.returncode == code
        assert ("Traceback" in said, "interrupted" in said) == (False, by == signal.SIGINT)
        assert copy.read_bytes() == good
        assert state_of(chapter(single, "one")) == "stale"
        wait_for(lambda: not is_running(int(pid.read_text())))
    finally:
        run.kill()
        pid.unlink(missing_ok=True)
        notebook.write_bytes(committed)
    assert state_of(chapter(single, "one")) == "fresh"


def test_what_a_killed_run_leaves_behind_is_removed_by_the_next(single: Path) -> None:
    leftover = single / "_build/executed/book/.one.12345678.part.ipynb"
    leftover.write_text("half a noteb")
    (outcome,) = run_chapters(choose_chapters(single, []), force=True)
    assert (outcome.executed, outcome.problems) == (True, ())
    assert not list(leftover.parent.glob(".one.*.part.ipynb"))


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended but is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_runs_of_one_chapter_at_once_execute_it_once(single: Path) -> None:
    executed_path(chapter(single, "one")).unlink()
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: run_chapter(chapter(single, "one")), range(2)))
    assert sorted(outcome.executed for outcome in outcomes) == [False, True]


def test_other_parameters_go_to_a_place_of_their_own(
    single: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = executed_path(chapter(single, "one")).read_bytes()
    monkeypatch.chdir(single)
    assert main(["run", "one", "-p", "k=7", "-p", "rate=1e-3"]) == 0
    (copy,) = (single / "_build/runs/one").glob("*/one.ipynb")
    assert str(copy.relative_to(single)) in capsys.readouterr().out
    outputs = [output for cell in nbformat.read(copy, as_version=4).cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs] == ["7\n"]
    assert executed_path(chapter(single, "one")).read_bytes() == good


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("k", "3", {"k": 3}), ("k", "2", {}), ("rate", "1e-4", {"rate": 1e-4}), ("rate", "1", {"rate": 1.0}),
     ("name", "b", {"name": "b"})],
)  # fmt: skip
def test_values_are_read_as_the_type_of_the_default(single: Path, name: str, text: str, value: object) -> None:
    parsed = parse_parameters(chapter(single, "one"), {name: text})
    assert parsed == value
    assert [type(v) for v in parsed.values()] == [type(v) for v in value.values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "two"], "unknown chapter 'two'; the chapters are: one"),
        (["run", "-p", "seed=3"], "one has no parameter 'seed'; its parameters are: k, rate, name"),
        (["run", "-p", "k=many"], "parameter k takes a value of type int like its default 2, not 'many'"),
        (["run", "-p", "k=true"], "parameter k takes a value of type int"),
        (["run", "-p", "k=2.5"], "parameter k takes a value of type int"),
        (["run", "-p", "rate=fast"], "parameter rate: cannot read 'fast'"),
        (["run", "-p", "name=3"], "parameter name takes a value of type str"),
        (["run", "-p", "k=[1"], "parameter k: cannot read '[1'"),
        (["run", "-p", "k"], "-p takes NAME=VALUE, not 'k'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_runs(
    single: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(single)
    monkeypatch.setattr("companion.__main__.run_chapters", None)  # whatever runs would raise TypeError
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_notebook_without_a_kernel_is_refused(single: Path, tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "bare.ipynb")
    with pytest.raises(ProjectError, match="no kernelspec"):
        parse_parameters(Chapter(tmp_path, Path("bare.ipynb")), {"k": "3"})


def test_the_ledger_is_strict_json_and_warns_of_what_is_not_up_to_date(
    mixed: Path,
    outcomes: dict[str, Outcome],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(mixed)
    assert main(["claims", "--json"]) == 0
    said = capsys.readouterr()
    (entry,) = json.loads(said.out, parse_constant=pytest.fail)
    keys = "id row chapter statement source measured relation bound verdict control certificate"
    assert list(entry) == keys.split()
    assert (entry["chapter"], entry["control"]) == ("good/one", {"measured": 1e-3, "flipped": True})
    assert "not up to date: bad/claim, bad/missing" in said.err
    assert main(["status"]) == 0
    assert any(line.split()[:2] == ["bad/slow", "failed"] for line in capsys.readouterr().out.splitlines())
