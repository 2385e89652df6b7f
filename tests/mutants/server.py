"""Runs pytest again and again, each time in a process forked from this one, which has loaded the large packages.

A line of standard input is a list of tests in JSON; the answer is a line with the exit status, −1 where time ran out,
and what pytest said. The directory is a copy of the project, and `PYTHONPATH` its source.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from hypothesis import Phase, settings

# What takes seconds to load, and is nothing of the project's.
LOADED = ("torch", "torch.func", "scipy.optimize", "scipy.special", "scipy.stats", "pytest", "nbformat")
OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants", "--tb=line"),
    # The plugin of hypothesis is loaded already.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
SAID = Path("pytest.log")


def main(seconds: float) -> None:
    """Answer until standard input ends."""
    for name in LOADED:
        importlib.import_module(name)
    # As the profile of tests/conftest.py, but the first example that fails is enough: no smaller one is sought.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", deadline=None, max_examples=25, derandomize=True, phases=phases)
    for line in sys.stdin:
        status = _status(_forked(json.loads(line)), seconds)
        print(json.dumps([status, SAID.read_text(encoding="utf-8", errors="replace")]), flush=True)


def _forked(tests: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    said, nothing = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, os.O_RDONLY)
    for place, file in ((0, nothing), (1, said), (2, said)):
        os.dup2(file, place)
    sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    status = 70
    try:
        status = int(importlib.import_module("pytest").main([*OPTIONS, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(child: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


if __name__ == "__main__":
    main(float(sys.argv[1]))
