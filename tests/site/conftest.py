"""The rendered book as the tests see it: `make book` renders it, `make test` does so first."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_BROWSER = (
    f"no browser: none of {', '.join(BROWSERS)} is on PATH, so nobody looked at the pages; "
    "remedy: install Chromium (Debian: apt-get install chromium) and repeat"
)


def toc_entries(node: object) -> Iterator[str]:
    """Every page that a table of contents names, in reading order."""
    if isinstance(node, list):
        for item in node:
            yield from toc_entries(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from [value] if key in ("root", "file") else toc_entries(value)


PAGES = [f"{entry}.html" for entry in toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))]


def browser_path() -> str | None:
    """The browser that the tests drive, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `page_name` runs once a page of the table of contents, so that none can be forgotten."""
    if "page_name" in metafunc.fixturenames:
        metafunc.parametrize("page_name", PAGES, scope="module")


@pytest.fixture(scope="session")
def root() -> Path:
    """The directory of the project."""
    return ROOT


@pytest.fixture(scope="session")
def first_page() -> str:
    """The page on which the book opens."""
    return PAGES[0]


@pytest.fixture(scope="session")
def site() -> Path:
    """The directory of the rendered book; without one the tests that ask for it are not run (tests/conftest.py)."""
    return SITE


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser; without one the tests are skipped, loudly, but fail in continuous integration."""
    path = browser_path()
    if path is None and os.environ.get("CI"):
        pytest.fail(NO_BROWSER)
    if path is None:
        pytest.skip(NO_BROWSER)
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for a module: its event loop must not outlive it, other tests start loops of their own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say after everything else that the pages were not looked at: a skip among a thousand passes is not seen."""
    if browser_path() is None:
        terminalreporter.section("THE PAGES WERE NOT TESTED IN A BROWSER", sep="!", red=True, bold=True)
        terminalreporter.write_line(NO_BROWSER)
