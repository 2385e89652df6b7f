"""Panels of figures: where they lie in the file, what the page holds, and what a narrow screen shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from playwright.sync_api import sync_playwright
from sphinx.application import Sphinx

from companion import figures
from companion.sphinx_panels import parts, with_panels


@pytest.fixture(autouse=True)
def style() -> None:
    figures.use_style()


def drawn(path: Path, columns: int, *, rows: int = 1, legend: bool = False) -> str:
    """A figure as a chapter's cell leaves it."""
    figure, axes = figures.panels(columns, rows, height=2.5)
    for number, axis in enumerate(axes):
        axis.semilogy([0, 1], [1e-30, number + 1], label="a line")
        axis.set(xlabel="n", ylabel="$p_n$", title="with bias")
    if legend:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return path.read_text(encoding="utf-8")


def test_the_panels_are_alike_and_fill_the_figure(tmp_path: Path) -> None:
    first, second, third = found = parts(drawn(tmp_path / "a.svg", 3))
    assert {(part.top, round(part.width, 6), part.height) for part in found} == {
        (first.top, round(first.width, 6), first.height)
    }
    assert 0 <= first.left < first.left + first.width < second.left < second.left + second.width < third.left
    # All but a margin around and between them, in points.
    assert sum(part.width for part in found) > first.whole[0] - 30
    assert first.height > first.whole[1] - 20


def test_rows_of_panels_are_read_like_text(tmp_path: Path) -> None:
    found = parts(drawn(tmp_path / "a.svg", 2, rows=2))
    assert [(part.left > 100, part.top > 100) for part in found] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]


def test_what_stands_below_all_panels_is_a_part_of_its_own(tmp_path: Path) -> None:
    left, _, below = parts(drawn(tmp_path / "a.svg", 2, legend=True))
    assert (below.left, below.width) == (0, below.whole[0])
    assert below.top == pytest.approx(left.top + left.height)
    assert below.top + below.height == pytest.approx(below.whole[1])


def test_one_panel_is_an_image_as_before(tmp_path: Path) -> None:
    image = '<img alt="A line." src="a.svg"/>'
    assert with_panels(image, "a.svg", drawn(tmp_path / "a.svg", 1)) == image


def test_labels_have_nine_pixels_on_a_phone_and_the_figure_is_one_image_for_assistive_technology(
    tmp_path: Path, chromium: str, root: Path
) -> None:
    for columns in (1, 2, 3, 4):
        drawn(tmp_path / f"f{columns}.svg", columns)
    names = "\n\n".join(f"![Figure of {columns}](f{columns}.svg)" for columns in (1, 2, 3, 4))
    (tmp_path / "page.md").write_text(f"# Page\n\n{names}\n", encoding="utf-8")
    settings = {"extensions": ["myst_parser", "companion.sphinx_panels"], "html_theme": "basic", "root_doc": "page"}
    out = tmp_path / "out"
    Sphinx(tmp_path, None, out, tmp_path / "doctrees", "html", settings, status=None, warning=None).build(True)
    html = (out / "page.html").read_text(encoding="utf-8")
    css = (root / "book/assets/custom.css").read_text(encoding="utf-8")
    html = re.sub(r"<link rel=.stylesheet.*?>|<script.*?</script>", "", html)
    article = f"<style>{css} body {{margin: 16px}} img {{max-width: 100%}}</style><article class='bd-article'>"
    (out / "page.html").write_text(html.replace("<body>", f"<body>{article}"), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((out / "page.html").as_uri())
        assert page.locator(".panel:visible").count() == 0
        assert page.locator("img:visible").count() == 4
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.locator("img:visible").count() == 1
        widths = page.evaluate("() => [...document.querySelectorAll('.panel')].map(one => one.clientWidth)")
        only = page.locator("img:visible").evaluate("image => image.clientWidth / image.naturalWidth")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        named = page.get_by_role("img").evaluate_all("all => all.map(one => one.getAttribute('aria-label') || one.alt)")
        page.screenshot(path=tmp_path / "phone.png", full_page=True)
        browser.close()
    assert named == [f"Figure of {columns}" for columns in (1, 2, 3, 4)]
    assert len(widths) == 2 + 3 + 4
    label = plt.rcParams["xtick.labelsize"] * 96 / 72
    scales = [only] + [width / (8 * 96 / columns) for columns, width in zip((2,) * 2 + (3,) * 3 + (4,) * 4, widths)]
    assert min(scales) * label >= 9
