"""Executing chapters: what is kept, what fails and how it is said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import nbformat
import pytest

from companion.chapters import Chapter, ProjectError, choose_chapters
from companion.commands import main
from companion.execution import (
    LocalKernels,
    Outcome,
    claims_of,
    executed_path,
    lock,
    run_chapter,
    run_chapters,
    state_of,
    stored_metadata,
)
from companion.ledger import ledger, status
from companion.notebooks import Execution, in_words, workspace
from companion.parameters import parse_parameters

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
    passing, failing = tiny.claim("D1-one"), tiny.claim("D1-one", measured="float('nan')")
    boxes = [tiny.box("D1-one")]
    return tiny.project(
        tmp_path_factory.mktemp("mixed"),
        {
            "good/one": {
                "code": ["from toy import first", MEET.format(me="one", other="two"), passing],
                "boxes": boxes,
            },
            "good/two": {"code": ["import toy.third", MEET.format(me="two", other="one")]},
            "bad/claim": {"code": [failing], "boxes": boxes},
            "bad/missing": {"code": [tiny.claim("D1-two"), tiny.claim("D1-two")], "boxes": boxes},
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
    assert (outcome.error, outcome.problems, outcome.failed, outcome.executed) == (None, (), False, True)
    assert outcome.copy == executed_path(outcome.chapter)
    assert state_of(outcome.chapter) == "fresh"
    noted = stored_metadata(outcome.copy)
    assert noted["seconds"] > 0
    assert noted["versions"]["python"].startswith("3.")
    assert [claim.verdict for claim in outcome.claims] == ["reproduced"]
    assert claims_of(outcome.chapter, outcome.copy) == (list(outcome.claims), [])


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
    ("name", "error"),
    [
        ("bad/raising", "raised ZeroDivisionError: division by zero"),
        ("bad/dead", "the kernel died"),
        ("bad/slow", "longer than 1 s"),
    ],
)
def test_a_chapter_that_does_not_run_to_its_end_says_why_and_is_kept_for_inspection(
    outcomes: dict[str, Outcome], name: str, error: str
) -> None:
    outcome = outcomes[name]
    assert error in (outcome.error or "")
    assert (outcome.failed, outcome.problems, outcome.claims) == (True, (), ())
    assert state_of(outcome.chapter) == "failed"
    assert not executed_path(outcome.chapter).exists()
    assert outcome.copy.name.endswith(".failed.ipynb")
    assert len(nbformat.read(outcome.copy, as_version=4).cells) >= 3


@pytest.mark.parametrize(
    ("name", "problems"),
    [
        (
            "bad/claim",
            ["claim D1-one is failed, expected reproduced: measured not finite, bound ≤ 1e-12, control 0.001 (flips)"],
        ),
        (
            "bad/missing",
            [
                "claim D1-one is declared but not measured",
                "claim D1-two is measured but not declared",
                "claim D1-two is measured more than once",
            ],
        ),
    ],
)
def test_claims_that_are_not_as_declared_fail_a_chapter_whose_copy_is_good(
    mixed: Path, outcomes: dict[str, Outcome], name: str, problems: list[str]
) -> None:
    outcome = outcomes[name]
    assert (outcome.error, list(outcome.problems), outcome.failed) == (None, problems, True)
    assert outcome.copy == executed_path(outcome.chapter)
    assert state_of(outcome.chapter) == "fresh"
    (entry,) = (entry for entry in status(mixed) if entry.chapter == name)
    assert (entry.state, list(entry.problems)) == ("failed", problems)
    (again,) = run_chapters([outcome.chapter])
    assert (again.executed, again.failed, list(again.problems)) == (False, True, problems)


def test_no_run_leaves_anything_else_behind(mixed: Path, outcomes: dict[str, Outcome]) -> None:
    left = {path.name for path in (mixed / "_build").rglob("*") if path.is_file() and path.suffix != ".lock"}
    failed = {f"{name}.failed.ipynb" for name in ("raising", "dead", "slow")}
    assert left == {f"{name}.ipynb" for name in ("one", "two", "claim", "missing")} | failed


class Recorder:
    """An engine that notes what it is given, and leaves copies without outputs."""

    capacity = 1

    def __init__(self, seconds: float = 0.0) -> None:
        self.order: list[str] = []
        self.seconds = seconds

    def execute(self, chapter: Chapter, parameters: object, output: Path) -> Execution:
        self.order.append(chapter.name)
        nbformat.write(chapter.notebook, output)
        return Execution(None, self.seconds * len(chapter.code_cells), "2026-01-02T03:04:05+00:00", {}, "none")

    def cancel(self) -> None: ...


def test_the_longest_chapter_starts_first(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.project(tmp_path, {"a": {"code": ["1"]}, "b": {"code": ["1"]}, "c": {"code": ["1"] * 3}})
    (root / "benchmarks").mkdir()
    (root / "benchmarks/seconds.json").write_text('{"b": 5, "a": 1, "gone": 9}')

    def order(seconds: float) -> list[str]:
        engine = Recorder(seconds)
        list(run_chapters(choose_chapters(root, []), engine=engine, force=True))
        return engine.order

    assert order(seconds=10.0) == ["b", "a", "c"]  # no execution yet: by the table
    assert order(seconds=1.0) == ["c", "a", "b"]  # by the last execution here, whatever the table says
    monkeypatch.chdir(root)
    assert main(["status", "--save-seconds"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "benchmarks/seconds.json"
    assert json.loads((root / "benchmarks/seconds.json").read_text()) == {"a": 2, "b": 2, "c": 4}


def test_times_are_kept_also_where_there_was_no_table(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(single)
    assert main(["status", "--save-seconds"]) == 0
    assert list(json.loads((single / "benchmarks/seconds.json").read_text())) == ["one"]


@pytest.mark.parametrize("command", ["run", "build"])
def test_a_changed_word_or_bound_executes_nothing_and_is_judged_at_once(
    judged: Path,
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.chdir(judged)
    monkeypatch.setattr("companion.commands.render", lambda root: True)
    monkeypatch.setattr("companion.execution.execute_notebook", None)  # whatever executes would raise TypeError

    def declare(**changes: str) -> None:
        tiny.notebook(judged / "book/one.ipynb", [tiny.claim("D1-one")], boxes=[tiny.box("D1-one", **changes)])

    declare(statement="Doubling $x$ is *indeed* adding it.", source="another paper", title="Another name")
    assert {entry.state for entry in status(judged)} == {"fresh"}
    assert main([command]) == 0
    assert "0 of 2 chapters executed, 0 failed" in capsys.readouterr().out
    assert [claim.declared.source for claim in ledger(judged)] == ["another paper"]

    declare(bound="<= 1e-16")
    assert main([command]) == 1
    said = capsys.readouterr()
    assert "0 of 2 chapters executed, 1 failed" in said.out
    assert said.err == (
        "\none failed; see _build/executed/book/one.ipynb\n"
        "  claim D1-one is failed, expected reproduced: measured 1e-15, bound ≤ 1e-16, control 0.001 (flips)\n"
    )
    assert main(["status"]) == 0
    said_of_one = [line for line in capsys.readouterr().out.splitlines() if line.startswith("one")]
    assert said_of_one[0].split()[:2] == ["one", "failed"]
    assert said_of_one[1].startswith("one: claim D1-one is failed, expected reproduced")
    declare(verdict="not reproduced")
    assert [claim.verdict for claim in ledger(judged)] == ["failed"]
    declare()
    assert main([command]) == 0


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A chapter with a claim that holds, executed, and one without claims."""
    chapters = {"one": {"code": [tiny.claim("D1-one")], "boxes": [tiny.box("D1-one")]}, "two": {"code": []}}
    root: Path = tiny.project(tmp_path_factory.mktemp("judged"), chapters)
    outcomes = list(run_chapters(choose_chapters(root, [])))
    assert not any(outcome.failed for outcome in outcomes)
    return root


def test_a_number_that_was_changed_in_a_copy_is_never_shown_and_is_measured_again(
    judged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = judged / "_build/executed/book/one.ipynb"
    good = copy.read_text()
    assert [claim.verdict for claim in ledger(judged)] == ["reproduced"]
    assert good.count('"value": 1e-15') == 1
    copy.write_text(good.replace('"value": 1e-15', '"value": 1e-16'))
    assert ledger(judged) == []
    monkeypatch.chdir(judged)
    assert main(["status"]) == 0
    assert "one: there is no executed copy, or it was changed after its execution" in capsys.readouterr().out
    assert [entry.state for entry in status(judged)] == ["stale", "fresh"]
    assert main(["run"]) == 0
    assert "1 of 2 chapters executed, 0 failed" in capsys.readouterr().out
    assert [claim.measured for claim in ledger(judged)] == [1e-15]


def cut(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:-100])


def make_directory(copy: Path) -> None:
    copy.unlink()
    (copy / "inside").mkdir(parents=True)


def break_link(copy: Path) -> None:
    copy.unlink()
    copy.symlink_to("nowhere")


def write_bytes(content: bytes) -> Callable[[Path], None]:
    return lambda copy: (copy.write_bytes(content), None)[1]


def set_noted(value: object) -> Callable[[Path], None]:
    """Something else than what an execution notes."""

    def change(copy: Path) -> None:
        content = json.loads(copy.read_text())
        content["metadata"]["companion"] = value
        copy.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        make_directory,
        break_link,
        *map(write_bytes, [b"", b"[]", b"{}", b"3", b"\xff\xfe", b"<<<<<<< HEAD\n{}\n=======\n", b"[" * 100_000]),
        *map(set_noted, [None, 3, [], {}, {"seal": 3}, {"seal": "0", "files": 3}]),
    ],
)
def test_a_copy_that_is_none_makes_no_command_stumble_and_is_made_anew(
    untested: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    copy = executed_path(chapter(untested, "one"))
    damage(copy)
    monkeypatch.chdir(untested)
    for command in (["status"], ["claims"], ["claims", "--json"], ["status", "--save-seconds"]):
        assert main(command) == 0
    assert state_of(chapter(untested, "one")) == "stale"
    (outcome,) = run_chapters(choose_chapters(untested, []), engine=Recorder())
    assert (outcome.executed, outcome.error, state_of(outcome.chapter)) == (True, None, "fresh")
    capsys.readouterr()


ENDS = {
    "exit": ["import sys\nsys.exit(0)", "1"],
    "exit-last": ["raise SystemExit"],
    "quit": ["quit()", "1"],
    "quit-last": ["quit()"],
    "os-exit": ["import os\nos._exit(0)", "1"],
    "os-exit-last": ["import os\nos._exit(0)"],
    "ask-exit": ["get_ipython().ask_exit()"],
    "counted": ["get_ipython().execution_count = 7", "1"],
    "odd-output": ["display({'image/png': [1]}, raw=True)"],
    "odd-record": ["display({'application/vnd.companion.measured+json': {'id': 3}}, raw=True)"],
}


def test_a_chapter_that_does_not_come_to_its_end_has_failed_and_its_neighbours_have_not(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    root = tiny.project(tmp_path, {name: {"code": code} for name, code in ENDS.items()} | {"good": {"code": ["1"]}})
    skipped = root / "book/skipped.ipynb"
    tiny.notebook(skipped, ["1"])
    notebook = nbformat.read(skipped, as_version=4)
    notebook.cells[-1].metadata["tags"] = ["skip-execution"]
    nbformat.write(notebook, skipped)
    chapters = [*choose_chapters(root, []), Chapter(root, Path("book/skipped.ipynb"))]
    said = {outcome.chapter.name: (outcome.failed, outcome) for outcome in run_chapters(chapters, workers=2)}
    assert [name for name, (failed, _) in said.items() if not failed] == ["good"]
    assert "cell 'code-1' was not executed in its turn" in (said["exit"][1].error or "")
    assert "cell 'code-0' was not executed in its turn" in (said["skipped"][1].error or "")
    assert "the end was not reached" in (said["exit-last"][1].error or "")
    assert "it cannot be executed: NotebookValidationError: [1] is not valid" in (said["odd-output"][1].error or "")
    (problem,) = said["odd-record"][1].problems
    assert problem == "a measurement is not as companion.measuring leaves it: {'id': 3}"


ERRORS = [
    MemoryError(),
    OSError(28, "No space left on device"),
    TypeError("odd"),
    UnicodeEncodeError("utf-8", "a", 0, 1, "surrogates"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_goes_wrong_with_one_chapter_stays_there(
    tmp_path: Path,
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    class Failing(Recorder):
        def execute(self, chapter: Chapter, parameters: object, output: Path) -> Execution:
            if chapter.name == "bad":
                raise error
            return super().execute(chapter, parameters, output)

    monkeypatch.chdir(tiny.project(tmp_path, {"bad": {"code": ["1"] * 2}, "good": {"code": ["1"]}}))
    monkeypatch.setattr("companion.execution.LocalKernels", lambda capacity, on_cell: Failing())
    assert main(["run"]) == 1
    said = capsys.readouterr()
    assert "2 of 2 chapters executed, 1 failed" in said.out
    assert f"bad failed; see book/bad.ipynb\n  {in_words(error)}\n" in said.err


def test_a_path_that_is_too_long_for_sockets_is_named(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    (outcome,) = run_chapters(choose_chapters(single, []), force=True)
    assert "set TMPDIR to a shorter one than" in (outcome.error or "")
    assert not list(long.iterdir())
    assert state_of(outcome.chapter) == "failed"
    (outcome,) = run_chapters(choose_chapters(single, []), engine=Recorder())
    assert state_of(outcome.chapter) == "fresh"


def test_what_is_fresh_is_read_where_nothing_can_be_written(
    untested: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("mkdir", "touch", "unlink", "replace"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr("companion.execution.FileLock", refuse)
    monkeypatch.chdir(untested)
    assert [main([command]) for command in ("run", "status", "claims")] == [0, 0, 0]
    assert "0 of 1 chapters executed, 0 failed" in capsys.readouterr().out
    assert main(["status", "--save-seconds"]) == 2
    assert "benchmarks/seconds.json cannot be written" in capsys.readouterr().err


def test_a_table_of_seconds_that_is_none_is_named_with_the_remedy(
    untested: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(untested)
    executed_path(chapter(untested, "one")).unlink()
    table = untested / "benchmarks/seconds.json"
    table.parent.mkdir()
    for text in ("", "[]", '{"one": "long"}', "<<<<<<< HEAD"):
        table.write_text(text)
        assert main(["run"]) == 2
        assert "benchmarks/seconds.json: no table of seconds" in capsys.readouterr().err
    assert main(["status", "--save-seconds"]) == 0
    assert json.loads(table.read_text()) == {}


def test_kernels_that_are_started_after_the_end_of_the_run_end_at_once(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a reader interrupts a run while its kernel is being started."""
    root = tiny.project(tmp_path, {"one": {"code": [WAIT]}})
    engine, stop = LocalKernels(), Event()
    stop.set()
    engine.cancel()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        run_chapter(chapter(root, "one"), engine=engine, stop=stop)
    assert time.monotonic() - began < 15
    assert not list((root / "_build").rglob("*.ipynb"))


def test_temporary_directories_of_killed_runs_are_removed_and_those_in_use_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kill = "import os, signal\nwith workspace() as w:\n    os.kill(os.getpid(), signal.SIGKILL)"
    code = f"import tempfile\nfrom companion.notebooks import workspace\ntempfile.tempdir = {str(tmp_path)!r}\n{kill}"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "companion-kernel-of-mine").mkdir()
    with workspace() as one, workspace() as two:
        assert {path.name for path in tmp_path.iterdir()} == {
            "companion-kernel-of-mine",
            *(name for path in (one, two) for name in (path.name, f"{path.name}.lock")),
        }
    assert [path.name for path in tmp_path.iterdir()] == ["companion-kernel-of-mine"]


@pytest.fixture
def untested(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    """A chapter with a copy that no kernel made."""
    root: Path = tiny.project(tmp_path, {"one": {"code": ["1"]}})
    (outcome,) = run_chapters(choose_chapters(root, []), engine=Recorder())
    assert state_of(outcome.chapter) == "fresh"
    return root


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "two", "one"], ["run", "--force"], ["build"], ["sweep", "s.yml"]]
)
def test_a_declaration_that_cannot_be_used_is_refused_before_anything_runs(
    tmp_path: Path,
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    runs = "import pathlib\npathlib.Path('ran').touch()"
    chapters = {"one": {"code": [runs]}, "two": {"code": [runs], "boxes": [tiny.box("D1-two", bound="<= 0")]}}
    root = tiny.project(tmp_path, chapters)
    (root / "s.yml").write_text("one: {k: [3]}\ntwo: {k: [4]}")
    monkeypatch.chdir(root)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(
        "companion: book/two.ipynb: claim D1-two: a control cannot miss <= 0 by a factor"
    )
    assert not list(root.rglob("ran"))
    assert not list(root.rglob("*.lock"))


def test_a_claim_that_fails_with_a_reader_s_own_parameters_is_a_result(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chapter = {"code": [tiny.claim("D1-one", "k * 3e-13")], "boxes": [tiny.box("D1-one")]}
    monkeypatch.chdir(tiny.project(tmp_path, {"one": chapter}))
    assert main(["run", "-p", "k=5"]) == 0
    said = capsys.readouterr()
    assert "1 of 1 chapters executed, 0 failed" in said.out
    assert "1 failed" in said.out.splitlines()[0]


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
    kept = (mixed / "book/good/two.ipynb").read_bytes()
    tiny.notebook(mixed / "book/good/two.ipynb", ["import toy.third", "print('other code')"])
    assert state_of(chapter(mixed, "good/two")) == "stale"
    (mixed / "book/good/two.ipynb").write_bytes(kept)
    assert state_of(chapter(mixed, "good/two")) == "fresh"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """One quick chapter with a good copy."""
    root = tiny.project(tmp_path_factory.mktemp("single"), {"one": {"code": ["print(k)"]}})
    (outcome,) = run_chapters(choose_chapters(root, []))
    assert not outcome.failed
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
    assert (outcome.executed, outcome.error, outcome.problems) == (True, None, ())
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
        (["run", "-p", "rate=fast"], "parameter rate takes a value of type float like its default 0.001, not 'fast'"),
        (
            ["run", "-p", "k=010"],
            "one: parameter k: cannot read '010': 010 is another number to other readers; write 10",
        ),
        (["run", "-p", "k=1:30"], "1:30 is no text to other readers"),
        (["run", "-p", "name=#0072B2"], "parameter name: cannot read '#0072B2': there is no value"),
        (["run", "-p", "name=a #b"], "what follows the value (#b) would be lost; put a text in quotes"),
        (["run", "-p", "name="], "there is no value; write null, or '' for an empty text"),
        (["run", "-p", "k=1", "-p", "k=2"], "-p k is given twice: '1' and '2'; keep one"),
        (["run", "-p", "=3"], "-p takes NAME=VALUE or NAME VALUE, not '=3'"),
        (["run", "-p", "name=\udcff"], "it holds the character U+DCFF, which YAML does not allow"),
        (
            ["run", "-p", "name=3"],
            "parameter name takes a value of type str like its default 'a', not 3; put a text in quo",
        ),
        (["run", "-p", "k=[1"], "parameter k: cannot read '[1'"),
        (["run", "-p", "k"], "-p takes NAME=VALUE or NAME VALUE, not 'k'"),
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
    monkeypatch.setattr("companion.commands.run_chapters", None)  # whatever runs would raise TypeError
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
    entries = json.loads(said.out, parse_constant=pytest.fail)
    keys = "id row title chapter statement source conditions measured relation bound expected verdict control seal"
    assert all(list(entry) == keys.split() for entry in entries)
    assert [(entry["chapter"], entry["verdict"]) for entry in entries] == [
        ("good/one", "reproduced"),
        ("bad/claim", "failed"),
    ]
    control = {"description": "tripled", "factor": 1e3, "measured": 1e-3, "flipped": True}
    assert entries[0]["control"] == control
    assert "not up to date: bad/raising, bad/dead, bad/slow;" in said.err
    assert main(["status"]) == 0
    states = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:9])
    assert states["good/one"] == "fresh"
    assert {state for name, state in states.items() if name.startswith("bad/")} == {"failed"}


def test_a_lock_that_is_never_released_is_an_error_in_words(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.execution.LOCK_SECONDS", 0.1)
    target = executed_path(chapter(single, "one"))
    with lock(target), pytest.raises(ProjectError, match=r"\.one\.lock: another run has held it"), lock(target):
        pass
