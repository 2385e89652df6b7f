"""Every page of the book in headless Chromium with the network off: what a reader sees, at a desk and on a phone."""

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, Route

from companion.chapters import find_chapters

ORIGIN = "http://book.invalid"  # .invalid is reserved (RFC 2606): the name leads nowhere, only to the files below
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
AA = 4.5  # WCAG 2.2, success criterion 1.4.3: contrast of text that is not large

# MathJax writes a macro that it does not know in red, and other faults as merror; neither reaches Sphinx.
MATH_FAULTS = """() => [...document.querySelectorAll('mjx-merror, mjx-container [style*="color: red"]')]
    .map(element => element.closest('mjx-container').textContent || element.outerHTML)"""
UNRENDERED = """() => [...document.querySelectorAll('.math')]
    .filter(element => !element.querySelector('mjx-container')).map(element => element.textContent)"""
RAW_MATH = r"""() => {
    const walker = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const node = walker.currentNode;
        const visible = !node.parentElement.closest('pre, code, script, style, mjx-container');
        if (visible && /\$|\\\(|\\\[/.test(node.data)) found.push(node.data.trim());
    }
    return found;
}"""
BAD_IMAGES = """() => [...document.querySelectorAll('img')]
    .filter(image => !(image.complete && image.naturalWidth > 0 && image.alt.trim())).map(image => image.outerHTML)"""
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
SEARCH_BARS = """() => [...document.querySelectorAll('input[type=search], .search-button-field')]
    .filter(element => element.checkVisibility()).length"""
# Text colour against the nearest ground that is not transparent, by the formula of WCAG.
LOW_CONTRAST = """(least) => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const linear = value => value <= 0.04045 * 255 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const ground = element => {
        for (; element; element = element.parentElement) {
            const colour = channels(getComputedStyle(element).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const ratio = element => {
        const [a, b] = [channels(getComputedStyle(element).color), ground(element)].map(luminance);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const texts = '.claim *, .verdict, .admonition-title, article :is(p, li, td, th, figcaption, h1, h2, h3)';
    return [...document.querySelectorAll(texts)]
        .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
        .filter(element => element.checkVisibility() && ratio(element) < least)
        .map(element => `${element.className}: ${element.textContent.trim()} (${ratio(element).toFixed(2)})`);
}"""

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
# What axe-core looks at is what it costs, so like things are left out: of formulas the glyphs (each becomes a box
# of its size), of code the tokens whose kind the page has shown.
CONDENSE = """() => {
    const formulas = [...document.querySelectorAll('mjx-container > mjx-math')];
    for (const [math, {width, height}] of formulas.map(math => [math, math.getBoundingClientRect()])) {
        const box = document.createElement('span');
        box.textContent = 'x';
        box.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
        math.replaceChildren(box);
    }
    const shown = new Set();
    for (const token of document.querySelectorAll('pre span')) {
        const kind = `${token.parentElement.className} ${token.className}`;
        if (shown.has(kind)) token.replaceWith(token.textContent);
        shown.add(kind);
    }
}"""
BARRIERS = """async options => {
    const { violations } = await axe.run(document, { preload: false, resultTypes: ['violations'], ...options });
    return violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
        .flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
}"""
# Contrast: of each kind of text (colour, ground, size, weight, scheme) the first that the page shows.
PALE = """async () => {
    const ground = element => {
        const colour = element ? getComputedStyle(element).backgroundColor : '';
        return element && /, 0\\)$/.test(colour) ? ground(element.parentElement) : colour;
    };
    window.seen ??= new Set();
    const include = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const { color, fontSize, fontWeight, opacity } = getComputedStyle(element);
        const link = Boolean(element.closest('a'));
        const kind = [color, ground(element), fontSize, fontWeight, opacity, link].join();
        if (!window.seen.has(kind)) include.push(element);
        window.seen.add(kind);
    }
    if (!include.length) return [];
    const runOnly = ['color-contrast', 'link-in-text-block'];
    const { violations } = await axe.run({ include }, { preload: false, resultTypes: ['violations'], runOnly });
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
}"""
# An experimental rule, so not on by itself; regions are a moderate matter; contrast has a run of its own.
RULES = {"label-content-name-mismatch": True, "region": False, "color-contrast": False}


@dataclass
class Visit:
    """A page that was opened, and what went wrong while it loaded."""

    page: Page
    faults: list[str] = field(default_factory=list)
    served: dict[Path, int] = field(default_factory=dict)  # bytes of each file that the page loaded


def visit(browser: Browser, site: Path, name: str) -> Visit:
    """Open a page in a fresh profile, offline: files of the book are served from disk, all else is a fault."""
    context = browser.new_context(viewport=DESK)
    context.set_offline(True)
    opened = Visit(context.new_page())

    def serve(route: Route, request: Request) -> None:
        address = urlsplit(request.url)
        file = site / unquote(address.path).lstrip("/")
        if f"{address.scheme}://{address.netloc}" != ORIGIN or not file.is_file():
            opened.faults.append(f"request for {request.url}")
            route.abort()
            return
        opened.served[file.relative_to(site)] = file.stat().st_size
        route.fulfill(path=file, content_type=mimetypes.guess_type(file.name)[0] or "application/octet-stream")

    context.route("**/*", serve)
    opened.page.on("pageerror", lambda error: opened.faults.append(f"script error: {error}"))
    opened.page.on("console", lambda line: opened.faults.append(line.text) if line.type == "error" else None)
    opened.page.goto(f"{ORIGIN}/{name}")
    opened.page.wait_for_load_state("networkidle")
    opened.page.evaluate("() => window.MathJax?.startup?.promise")
    return opened


@pytest.fixture(scope="module")
def visited(browser: Browser, site: Path, page_name: str) -> Iterator[Visit]:
    opened = visit(browser, site, page_name)
    yield opened
    opened.page.context.close()


def test_the_page_loads_without_fault_or_network(visited: Visit) -> None:
    assert not visited.faults


def test_the_page_is_light(visited: Visit) -> None:
    """Before any compression; formulas cost the same 1.3 MB on every page, loaded once."""
    weights = {name.as_posix(): size for name, size in visited.served.items() if "mathjax" not in name.parts}
    assert sum(weights.values()) <= 1.2e6, sorted(weights.items(), key=lambda item: -item[1])[:6]


def test_every_formula_is_shown(visited: Visit) -> None:
    assert not visited.page.evaluate(UNRENDERED)
    assert not visited.page.evaluate(MATH_FAULTS)
    assert not visited.page.evaluate(RAW_MATH)


def test_every_image_loads_and_has_alternative_text(visited: Visit) -> None:
    assert not visited.page.evaluate(BAD_IMAGES)


def test_there_is_one_search_bar(visited: Visit) -> None:
    assert visited.page.evaluate(SEARCH_BARS) == 1


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_does_not_scroll_sideways(visited: Visit, size: dict[str, int]) -> None:
    visited.page.set_viewport_size(size)
    assert visited.page.evaluate(TOO_WIDE) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visited: Visit, scheme: Literal["light", "dark"]) -> None:
    visited.page.emulate_media(color_scheme=scheme)
    visited.page.wait_for_selector(f"html[data-theme={scheme}]", timeout=5000)
    assert not visited.page.evaluate(LOW_CONTRAST, AA)


def barriers(page: Page) -> list[str]:
    """What axe-core calls serious or critical, at both sizes and in both schemes; changes the page to do so."""
    page.evaluate(CONDENSE)
    page.evaluate(AXE)
    found = []
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        page.wait_for_timeout(400)  # the theme marks what scrolls 300 ms after a change
        found += page.evaluate(BARRIERS, {"rules": {rule: {"enabled": enabled} for rule, enabled in RULES.items()}})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.wait_for_selector(f"html[data-theme={scheme}]", timeout=5000)
            found += page.evaluate(PALE)
    return found


def test_axe_finds_no_barrier(visited: Visit) -> None:
    """One run a size and a scheme: it stands last among the tests of a page, which it leaves condensed."""
    assert barriers(visited.page) == []


def test_axe_finds_no_barrier_on_the_search_page(browser: Browser, site: Path) -> None:
    opened = visit(browser, site, "search.html")
    assert barriers(opened.page) == []
    opened.page.context.close()


def test_formulas_that_scroll_are_reached_by_the_keyboard(browser: Browser, site: Path) -> None:
    page = visit(browser, site, "book/appendix/hessian.html").page
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(400)
    wide = page.locator("mjx-container[display][tabindex='0']").first
    wide.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("formula => formula.scrollLeft > 0", arg=wide.element_handle(), timeout=5000)
    page.context.close()


def test_paper_shows_what_the_screen_folds(browser: Browser, site: Path) -> None:
    page = visit(browser, site, "book/depth/lifting.html").page
    proofs, solutions = page.locator("details.sd-dropdown .sd-card-body"), page.locator(".solution.dropdown section")
    assert min(proofs.count(), solutions.count()) > 0
    for folded in (proofs, solutions):
        assert not any(part.is_visible() for part in folded.all())
    page.emulate_media(media="print", reduced_motion="reduce")
    for folded in (proofs, solutions):
        assert min(part.evaluate("part => part.getBoundingClientRect().height") for part in folded.all()) > 20
        assert all(part.is_visible() for part in folded.all())
    page.context.close()


def test_citations_can_be_copied(browser: Browser, site: Path) -> None:
    page = visit(browser, site, "book/appendix/licence.html").page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = page.locator(".highlight-bibtex").last
    block.hover()
    block.get_by_role("button", name="Copy").click()
    page.wait_for_selector("button.copybtn.success")
    assert block.locator("pre").inner_text().startswith("@article{Bai2024,")
    page.context.close()


def test_the_address_of_a_claim_appears_by_keyboard(browser: Browser, site: Path) -> None:
    page = visit(browser, site, "book/depth/lifting.html").page
    link = page.get_by_role("link", name="Link to claim").first
    assert link.evaluate("link => getComputedStyle(link).opacity") == "0"
    link.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    page.wait_for_function("link => getComputedStyle(link).opacity === '1'", arg=link.element_handle(), timeout=5000)
    page.context.close()


def test_the_meaning_of_a_term_is_shown_to_the_keyboard_and_described_to_assistive_technology(
    browser: Browser, site: Path
) -> None:
    page = visit(browser, site, "book/depth/pruning.html").page
    term = page.locator("article a:has(> .std-term)").first
    meaning = term.get_attribute("title")
    assert meaning
    page.keyboard.press("Tab")  # from here on the browser shows the focus
    term.focus()
    shown = term.evaluate("link => [getComputedStyle(link, '::after').content, link.matches(':focus-visible')]")
    assert shown == [f'"{meaning}" / ""', True]
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    focused = next(node for node in tree if node["role"]["value"] == "link" and is_focused(node))
    assert focused["name"]["value"].strip() == term.inner_text()
    assert focused["description"]["value"] == meaning
    page.context.close()


def is_focused(node: dict[str, Any]) -> bool:
    return any(one["name"] == "focused" and one["value"]["value"] for one in node["properties"])


def test_chapters_show_claims_and_result_on_the_first_screen(browser: Browser, site: Path, root: Path) -> None:
    for chapter in find_chapters(root):
        page = visit(browser, site, chapter.path.with_suffix(".html").as_posix()).page
        bottoms = page.evaluate(
            "() => ['nav.chapter-claims', 'article figure'].map(s => document.querySelector(s).getBoundingClientRect())"
            ".map(box => box.bottom + window.scrollY)"
        )
        assert max(bottoms) <= DESK["height"], chapter.name
        assert page.locator("article figure figcaption").first.inner_text().strip(), chapter.name
        page.context.close()


@pytest.fixture
def ledger(browser: Browser, site: Path) -> Iterator[Page]:
    opened = visit(browser, site, "book/claims.html")
    yield opened.page
    assert not opened.faults
    opened.page.context.close()


ROWS = """() => [...document.querySelectorAll('.claims-table tbody tr')]
    .filter(row => !row.hidden).map(row => row.innerText)"""


def test_the_ledger_is_filtered_by_verdict_chapter_row_and_text(ledger: Page) -> None:
    every = ledger.evaluate(ROWS)
    ledger.get_by_label("Verdict").select_option("not reproduced")
    failed = ledger.evaluate(ROWS)
    assert 0 < len(failed) < len(every)
    assert all("not reproduced" in row for row in failed)
    assert ledger.get_by_role("status").inner_text() == f"{len(failed)} of {len(every)} claims"
    ledger.get_by_label("Verdict").select_option("all")
    ledger.get_by_label("Chapter").select_option("pruning")
    assert all("D10" in row for row in ledger.evaluate(ROWS))
    ledger.get_by_label("Chapter").select_option("all")
    ledger.get_by_label("Row").select_option("N1")
    assert len(ledger.evaluate(ROWS)) == sum("N1-" in row for row in every)
    ledger.get_by_label("Row").select_option("all")
    ledger.get_by_label("Text").fill("wendel LAW")
    assert [row for row in every if "D9-wendel" in row] == ledger.evaluate(ROWS)


def test_no_column_of_the_ledger_is_cut_off(ledger: Page) -> None:
    ledger.set_viewport_size(DESK)
    cut = """() => [...document.querySelectorAll('.claims-table td')]
        .filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.innerText)"""
    assert ledger.evaluate(cut) == []
    inside = """() => { const table = document.querySelector('.claims-table').getBoundingClientRect();
        return table.right <= document.querySelector('article').getBoundingClientRect().right + 1; }"""
    assert ledger.evaluate(inside)


def test_the_ledger_is_sorted_by_the_keyboard(ledger: Page) -> None:
    before = ledger.evaluate(ROWS)
    ledger.get_by_role("button", name="Verdict").focus()
    ledger.keyboard.press("Enter")
    assert ledger.evaluate(ROWS) != before
    verdicts = [row.split("\t")[-2].strip() for row in ledger.evaluate(ROWS)]
    assert verdicts == sorted(verdicts)
    ledger.get_by_role("button", name="Claim", exact=True).focus()
    ledger.keyboard.press("Enter")
    assert ledger.evaluate(ROWS) == before


def test_the_ledger_is_a_plain_table_without_scripts(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "book/claims.html").as_uri())
    assert page.locator(".claims-table tbody tr").count() > 60
    assert page.locator("form.ledger-filters").count() == 0
    context.close()


def test_the_book_can_be_read_from_disk(browser: Browser, site: Path, root: Path) -> None:
    page = browser.new_page()
    page.goto((site / "book/appendix/notation.html").as_uri())
    page.wait_for_selector("mjx-container")
    assert not page.evaluate(UNRENDERED)
    page.context.close()


FAULTY = r"""<!doctype html><html lang="en"><head>
<script src="_static/mathjax/tex-chtml-full.js"></script><link rel="stylesheet" href="https://example.org/x.css">
</head><body><article>
<span class="math">\(\nosuchmacro\)</span> <span class="math">no formula</span> costs $5$ <img src="none.png">
<p class="verdict" style="color: #999; background: #fff">pale</p><div style="width: 3000px">wide</div>
<button aria-label="Toggle">Show code</button>
</article></body></html>"""


def test_the_checks_see_a_faulty_page(browser: Browser, site: Path, tmp_path: Path) -> None:
    (tmp_path / "faulty.html").write_text(FAULTY)
    (tmp_path / "_static").symlink_to(site / "_static")
    opened = visit(browser, tmp_path, "faulty.html")
    assert any("example.org" in fault for fault in opened.faults)
    assert any("none.png" in fault for fault in opened.faults)
    for check in (MATH_FAULTS, UNRENDERED, RAW_MATH, BAD_IMAGES):
        assert opened.page.evaluate(check), check
    assert len(opened.page.evaluate(LOW_CONTRAST, AA)) == 1
    assert opened.page.evaluate(TOO_WIDE) > 0
    opened.page.evaluate(AXE)
    found = opened.page.evaluate(BARRIERS, {"rules": {"label-content-name-mismatch": {"enabled": True}}})
    assert {"color-contrast", "image-alt", "label-content-name-mismatch"} <= {line.partition(":")[0] for line in found}
    assert len(opened.page.evaluate(PALE)) == 1
    opened.page.context.close()
