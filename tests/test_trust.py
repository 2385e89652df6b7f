"""The campaign: a sample of every part finds nothing wrong, and what was finished is not done again."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trust import __main__ as campaign
from trust import calls, executions, faults, mutants, options, pieces, supply
from trust.pieces import Found, Interrupted, Piece, done, end_in_order

from companion.campaign import RESULTS

ROOT = Path(__file__).parents[1]


def test_a_sample_of_every_part_finds_nothing_wrong(tmp_path: Path) -> None:
    """In a process of its own: what kills, limits and changes directories is no matter of other tests."""
    command = [sys.executable, "-m", "trust", "--sample", "--place", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["parts"]
    assert found.keys() == campaign.PARTS.keys()
    assert all(part["problems"] == [] for part in found.values())
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.stdout == ended.stdout, "nothing is done again"


def work(log: list[str], *names: str) -> list[Piece]:
    def run(name: str) -> Found:
        log.append(name)
        if name == "interrupted":
            raise KeyboardInterrupt
        return {"problems": []}

    return [Piece(name, lambda name=name: run(name)) for name in names]  # type: ignore[misc]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_finished_before_an_interruption_is_not_done_again(tmp_path: Path, workers: int) -> None:
    file, log = tmp_path / "lines", list[str]()
    with pytest.raises(KeyboardInterrupt):
        list(done(work(log, "one", "interrupted"), file, ["trust/pieces.py"], workers))
    file.write_text(file.read_text(encoding="utf-8") + '{"name": "half a li', encoding="utf-8")
    found = list(done(work(log, "one", "two"), file, ["trust/pieces.py"], workers))
    assert [name for name, _ in found] == ["one", "two"]
    assert sorted(log) == ["interrupted", "one", "two"]
    list(done(work(log, "one", "two"), file, ["trust/pieces.py"], workers))
    assert len(log) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_under_way_when_the_campaign_is_told_to_end_is_no_outcome(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    file = tmp_path / "lines"

    def told() -> dict[str, Any]:
        with contextlib.suppress(Exception, SystemExit, KeyboardInterrupt):  # as a command does, and its caller
            signal.raise_signal(number)
            time.sleep(0.5)  # in a thread, until the main one was told
        return {"problems": ["its status is another one"]}

    try:
        end_in_order()
        with pytest.raises(Interrupted) as ending:
            list(done([Piece("one", told), Piece("two", told)], file, ["trust/pieces.py"], workers))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        pieces._told.clear()
    assert ending.value.args == (128 + number,)
    assert not file.exists()


def test_outcomes_of_faults_that_are_listed_no_longer_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = pieces.load("tests/mutants/__main__.py")
    first = harness.mutants()[0]
    stale = {"name": "of another list", "outcome": "survived", "file": "src"}
    known = {first.digest: {"name": first.name, "outcome": "caught", "file": first.file}, "other": stale}
    monkeypatch.setattr(harness, "known_outcomes", lambda: known)
    assert [line["name"] for line in mutants._lines()] == [first.name]


def test_what_was_tried_on_other_sources_is_done_again(tmp_path: Path) -> None:
    log = list[str]()
    for tested in ("trust/pieces.py", "trust/calls.py"):
        list(done(work(log, "one"), tmp_path / "lines", [tested]))
    assert log == ["one", "one"]


def raises_key_error(count: int) -> object:
    return {}[count]


def answers_nan(x: torch.Tensor) -> torch.Tensor:
    """Divides by zero."""
    return x / 0 * 0


def announces_nan(x: torch.Tensor) -> torch.Tensor:
    """NaN everywhere."""
    return x / 0 * 0


@pytest.mark.parametrize(
    ("function", "given", "kind"),
    [
        (raises_key_error, {"count": 3}, "KeyError: 3"),
        (answers_nan, {"x": torch.ones(2)}, "a silent NaN"),
        (answers_nan, {"x": torch.tensor([torch.nan])}, "answered"),
        (announces_nan, {"x": torch.ones(2)}, "answered"),
    ],
)
def test_calls_are_judged(function: object, given: dict[str, object], kind: str) -> None:
    assert calls.outcome(function, given)[0] == kind  # type: ignore[arg-type]


def test_a_call_that_never_returns_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SECONDS", 3)
    monkeypatch.setattr(calls, "good_calls", lambda: {"loop": (loop, {"n": 1})})
    found = calls.watched("loop", 1)
    assert any("took more than 3 s" in problem for problem in found["problems"])


def loop(n: int) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("refused", "status", "out", "err", "found"),
    [
        (True, 2, "", "companion: a.yml: torn", None),
        (False, 0, "all is well", "", None),
        (True, 1, "", "Traceback (most recent call last):\n  x\nKeyError: 'a'", "a traceback"),
        (True, 0, "done", "", "status 0 where nothing can be done"),
        (True, -11, "", "companion: a", "status -11 where nothing can be done"),
        (False, 1, "", "companion: a.yml: torn", "status 1 where it could be done"),
        (True, 1, "", "", "a refusal without a word"),
        (False, 0, f"D1-one {faults.TAMPERED}", "", "a value is shown that nobody measured"),
    ],
)
def test_what_a_command_says_on_spoilt_ground_is_judged(
    refused: bool, status: int, out: str, err: str, found: str | None
) -> None:
    fault = faults.Fault(refused={"run"} if refused else set())
    problems = list(faults._said(fault, "run", subprocess.CompletedProcess([], status, out, err)))
    assert [problem[: len(found or "")] for problem in problems] == ([found] if found else [])


def test_differences_between_executions_are_found() -> None:
    entry = {"id": "D1-one", "chapter": "one", "measured": 1e-15, "relation": "<=", "bound": 1e-12}
    entry |= {"verdict": "reproduced", "control": {"measured": 1.0}}

    def outcomes(**changes: object) -> dict[str, Found]:
        return {
            "first: one": {"claims": [entry], "problems": []},
            "again: one": {"claims": [entry | changes], "problems": []},
            "two threads: one": {"claims": [entry | {"measured": 3e-15}], "problems": []},
        }

    equal = executions.summary(outcomes())
    assert equal["problems"] == []
    assert equal["changes"][0]["changes"] == {"again": 0.0, "two threads": pytest.approx(2e-15)}
    (problem,) = executions.summary(outcomes(measured=2e-15))["problems"]
    assert problem == "again: D1-one: 1e-15 → 2e-15"
    (problem,) = executions.summary(outcomes(verdict="failed"))["problems"]
    assert problem == "again: D1-one: reproduced → failed"
    assert executions.summary(outcomes(control={"measured": 2.0}))["problems"]


def test_every_option_and_command_is_tried() -> None:
    from companion.commands import _parser

    (commands,) = (action for action in _parser()._actions if hasattr(action, "choices") and action.choices)
    for name, parser in commands.choices.items():  # type: ignore[union-attr]
        asked = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
        tried = {word for line in options.OPTIONS for word in line.split() if line.split()[0] == name}
        assert asked <= tried, name
        assert any(line.split()[0] == name for line in faults.COMMANDS), name


def test_a_vendored_file_that_is_another_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.js").write_text("1", encoding="utf-8")
    (tmp_path / "data/checksums.txt").write_text(f"{'0' * 64}  a.js\n", encoding="utf-8")
    monkeypatch.setattr(supply, "ROOT", tmp_path)
    monkeypatch.setattr(supply, "LISTS", ("data/checksums.txt",))
    assert supply.vendored()["problems"] == ["data/a.js is another file than recorded"]


def test_the_page_s_file_is_where_the_campaign_writes_it() -> None:
    assert (pieces.ROOT / RESULTS).parent == Path(campaign.__file__).parent
