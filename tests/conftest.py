"""Settings that all tests share, and what becomes of the tests of a book that is not there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

from companion.chapters import find_chapters
from companion.execution import executed_path
from companion.rendering import HTML

ROOT = Path(__file__).parents[1]

# `make test` runs two processes; chapters too have one thread each.
torch.set_num_threads(1)
threadpool_limits(1)

# Property tests run on loaded machines: no deadline for an example, and the same examples in every run.
settings.register_profile("companion", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("companion")


@pytest.fixture(autouse=True, scope="module")
def doubles() -> Iterator[None]:
    """Tests compute in float64, as chapters do; the library's own examples run without, as in a reader's session."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class MissingBook(pytest.Item):
    """One failure in the place of all tests that need the book: each of them would only say the same."""

    problem: str

    def runtest(self) -> None:
        pytest.fail(
            f"{self.problem}. Run `make test`, which does all, or `python -m companion build` and then pytest again",
            pytrace=False,
        )

    def reportinfo(self) -> tuple[Path, None, str]:
        return Path(__file__), None, "the book is executed and rendered"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: str | None = None) -> str:
        return str(excinfo.value)


# Last, so that what was not asked for (-k, -m) is not missed.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put one failing test in the place of those that read executed chapters or rendered pages that are not there."""
    without_copy = [chapter.name for chapter in find_chapters(ROOT) if not executed_path(chapter).is_file()]
    rendered = (ROOT / HTML / "index.html").is_file()
    lost = [item for item in items if (needs_chapters(item) and without_copy) or (needs_pages(item) and not rendered)]
    if lost:
        problems = [f"chapters without an executed copy: {', '.join(without_copy)}"] if without_copy else []
        problems += [] if rendered else [f"{HTML} holds no rendered book"]
        item: MissingBook = MissingBook.from_parent(session, name="the-book-is-executed-and-rendered")
        item.problem = f"{len(lost)} tests of the book were not run ({'; '.join(problems)})"
        items[:] = [*(one for one in items if one not in lost), item]
        config.hook.pytest_deselected(items=lost)


def needs_chapters(item: pytest.Item) -> bool:
    """Whether a test reads the executed copies of the chapters; their pages were made of them."""
    return item.get_closest_marker("executed") is not None or needs_pages(item)


def needs_pages(item: pytest.Item) -> bool:
    """Whether a test looks at the rendered pages."""
    return item.get_closest_marker("rendered") is not None or "site" in getattr(item, "fixturenames", ())
