"""The interactive figures in headless Chromium, by dragging, typing and choosing, against the library's own numbers."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page

from companion.chapters import Chapter
from companion.execution import executed_path, read_copy
from companion.measuring import GLUE_PREFIX
from embedding_principle.activations import relu, tanh
from embedding_principle.curvature.hessian import hessian
from embedding_principle.datasets import one_dimensional
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

PHONE = {"width": 390, "height": 844}
STATE = "root => root.state()"


@pytest.fixture
def opened(browser: Browser, site: Path) -> Iterator[Callable[..., Page]]:
    """Opens a chapter's page; no script of it may fail."""
    faults: list[str] = []
    contexts = []

    def visit(name: str, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_offline(True)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((site / "book" / "depth" / f"{name}.html").as_uri())
        return page

    yield visit
    assert not faults
    for context in contexts:
        context.close()


def figure(page: Page, kind: str) -> Locator:
    return page.locator(f"div.interactive[data-kind={kind}]")


@pytest.fixture
def explorer(opened: Callable[..., Page]) -> Locator:
    return figure(opened("lifting"), "explorer")


@pytest.fixture
def plateaus(opened: Callable[..., Page]) -> Locator:
    return figure(opened("training"), "plateaus")


@pytest.fixture
def race(opened: Callable[..., Page]) -> Locator:
    return figure(opened("batch_normalization"), "race")


def said(root: Locator) -> str:
    return root.locator(".interactive-status").inner_text()


def drag(slider: Locator, share: float) -> None:
    """Press the mouse at the thumb and let it go at this share of the slider's width."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    value, low, high = (float(slider.evaluate(f"input => input.{name} || 0")) for name in ("value", "min", "max"))
    # The thumb is 16 pixels wide, and its middle moves over the rest of the width.
    x = [box["x"] + 8 + part * (box["width"] - 16) for part in ((value - low) / (high - low), share)]
    y = box["y"] + box["height"] / 2
    mouse = slider.page.mouse
    mouse.move(x[0], y)
    mouse.down()
    mouse.move(sum(x) / 2, y)
    mouse.move(x[1], y)
    mouse.up()


def compare_with_library(state: dict[str, Any]) -> None:
    data = one_dimensional("tt6")
    risk = Risk(Network(tuple(state["widths"]), (relu, tanh)), data.inputs, data.targets)
    theta = torch.tensor(state["theta"], dtype=torch.float64)
    curvature = hessian(risk, theta)
    scale = float(torch.linalg.matrix_norm(curvature, 2))
    assert abs(state["risk"] - float(risk(theta))) <= 1e-9 * scale
    assert abs(state["gradient"] - float(risk.gradient(theta).norm())) <= 1e-9 * scale
    values = torch.tensor(state["eigenvalues"], dtype=torch.float64)
    assert float((values - torch.linalg.eigvalsh(curvature)).abs().max()) <= 1e-9 * scale


def test_the_page_computes_what_the_library_does_all_along_the_lifted_set(explorer: Locator) -> None:
    size, kink = explorer.get_by_label("Size of A"), explorer.get_by_label("Kink at x")
    seen = []
    for spare in (False, True):
        explorer.get_by_label("Add the spare neuron").set_checked(spare)
        for sign, places in (("1", (0.05, 0.3, 0.6)), ("-1", (0.95, 0.7, 0.4))):
            explorer.get_by_label("Sign of A").select_option(sign)
            for share, place in zip((0.1, 0.4, 0.9), places):
                drag(size, share)
                drag(kink, place)
                seen.append(explorer.evaluate(STATE))
                compare_with_library(seen[-1])
    assert len({tuple(state["theta"]) for state in seen}) == len(seen)
    assert {len(state["theta"]) for state in seen} == {6, 9}


def test_risk_and_criticality_stay_on_the_lifted_set_and_break_at_its_edge(explorer: Locator) -> None:
    start = explorer.evaluate(STATE)
    assert start["gradient"] <= 1e-12
    drag(explorer.get_by_label("Kink at x"), 0.05)
    drag(explorer.get_by_label("Size of A"), 0.8)
    moved = explorer.evaluate(STATE)
    assert moved["theta"] != start["theta"]
    assert moved["gradient"] <= 1e-12
    assert abs(moved["risk"] - start["risk"]) <= 1e-14
    assert said(explorer).startswith("On the lifted set: all 30 samples")
    assert "2 zero, 4 positive" in said(explorer)
    explorer.get_by_role("button", name="Push one sample over the edge").click()
    broken = explorer.evaluate(STATE)
    assert said(explorer).startswith("Off the lifted set: 1 of 30 samples")
    assert "no critical point" in said(explorer)
    assert broken["gradient"] >= 1e-3
    compare_with_library(broken)
    explorer.get_by_role("button", name="Back to the lifted set").click()
    assert explorer.evaluate(STATE)["gradient"] <= 1e-12


def test_the_explorer_is_moved_by_the_keyboard(explorer: Locator) -> None:
    kink = explorer.get_by_label("Kink at x")
    kink.focus()
    before = float(kink.input_value())
    for _ in range(3):
        kink.press("ArrowRight")
    assert float(kink.input_value()) == pytest.approx(before + 0.03)
    assert kink.get_attribute("aria-valuetext") == "−2.47"
    kink.press("End")
    assert "30 of 30 samples" in said(explorer)
    explorer.get_by_label("Add the spare neuron").press("Space")
    assert len(explorer.evaluate(STATE)["theta"]) == 9


def follow(explorer: Locator) -> dict[str, Any]:
    explorer.get_by_role("button", name="Follow the descent").click()
    explorer.page.wait_for_function("() => !document.querySelector('.interactive').state().running", timeout=120_000)
    return explorer.evaluate(STATE)


def test_the_spare_neuron_opens_a_way_down(explorer: Locator) -> None:
    minimum = explorer.evaluate(STATE)
    explorer.get_by_label("Add the spare neuron").check()
    saddle = explorer.evaluate(STATE)
    assert "a strict saddle" in said(explorer)
    assert abs(saddle["risk"] - minimum["risk"]) <= 1e-14
    assert saddle["gradient"] <= 1e-12
    assert saddle["eigenvalues"][0] < -0.1
    lower = follow(explorer)
    assert lower["risk"] < 0.8 * saddle["risk"]
    compare_with_library(lower)
    # Looking back along the way: the risk only rises.
    step, risks = explorer.get_by_label("Step of the descent"), [lower["risk"]]
    for _ in range(60):
        step.press("ArrowLeft")
        risks.append(explorer.evaluate(STATE)["risk"])
    assert risks == sorted(risks)


def test_without_the_spare_neuron_descent_stays_at_the_minimum(explorer: Locator) -> None:
    before = explorer.evaluate(STATE)
    assert abs(follow(explorer)["risk"] - before["risk"]) <= 1e-6


def data_of(root: Locator) -> Any:
    return json.loads(root.locator("script").text_content() or "")


def choose(plateaus: Locator, run: dict[str, Any]) -> None:
    for label, name in (("Target", "target"), ("Hidden layers", "depth"), ("Initial scale", "scale")):
        plateaus.get_by_label(label).select_option(str(run[name]))


def test_every_choice_of_a_plateau_shows_its_own_run(plateaus: Locator) -> None:
    data = data_of(plateaus)
    for run in data["runs"]:
        choose(plateaus, run)
        shown = plateaus.evaluate(STATE)
        assert [shown[name] for name in ("target", "depth", "scale")] == [
            str(run[name]) for name in ("target", "depth", "scale")
        ]
        assert shown["risk"] == run["risk"][0][run["steps"].index(shown["step"])]
        assert f"{run['encounters']} of {len(run['risk'])} networks" in said(plateaus)
    assert len({run["target"] for run in data["runs"]}) >= 3
    assert {run["depth"] for run in data["runs"]} == {1, 2, 3, 4}


def test_at_an_encounter_risk_and_function_are_those_of_the_shallow_network(plateaus: Locator) -> None:
    data, encounters = data_of(plateaus), 0
    for run in data["runs"]:
        target, record = data["targets"][run["target"]], run["encounter"]
        if run["encounters"] < len(run["risk"]):
            continue
        encounters += 1
        f, g, y = (torch.tensor(values) for values in (run["outputs"][record], target["width_one"], target["y"]))
        # The chapter's bounds are 0.01 and 0.02; the page has three digits, and one record of three or so.
        assert (f - g).norm() / (y - y.mean()).norm() <= 0.02
        assert abs(run["risk"][0][record] / target["risk"] - 1) <= 0.03
    assert encounters >= 3


def test_the_step_follows_keys_drags_and_the_pointer(plateaus: Locator) -> None:
    step = plateaus.get_by_label("Step:")
    drag(step, 0.9)
    late = plateaus.evaluate(STATE)["step"]
    step.press("ArrowLeft")
    assert plateaus.evaluate(STATE)["step"] < late
    step.press("Home")
    assert plateaus.evaluate(STATE)["step"] == 1
    assert "Step 1:" in said(plateaus)
    over = plateaus.locator(".u-over").first
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    seen = []
    for share in (0.3, 0.6, 0.9):
        plateaus.page.mouse.move(box["x"] + share * box["width"], box["y"] + 20)
        seen.append(plateaus.evaluate(STATE)["step"])
    assert 1 < seen[0] < seen[1] < seen[2]


def glued(root: Path, chapter: str) -> dict[str, Any]:
    """What the chapter's executed copy says in its prose, by name."""
    copy = read_copy(executed_path(Chapter(root, Path("book", "depth", f"{chapter}.ipynb"))))
    assert copy is not None
    outputs = [output for cell in copy.cells for output in cell.get("outputs", [])]
    named = [output for output in outputs if "scrapbook" in output.get("metadata", {})]
    texts = {output.metadata.scrapbook.name: output.data[f"{GLUE_PREFIX}text/plain"] for output in named}
    return {name: ast.literal_eval(text) for name, text in texts.items()}


def ratios_at_one_rate(root: Path) -> dict[tuple[str, str], str]:
    """The ratios of steps as the chapter's first table of races shows them, by data and activation."""
    copy = read_copy(executed_path(Chapter(root, Path("book", "depth", "batch_normalization.ipynb"))))
    assert copy is not None
    (table,) = (cell.outputs[-1].data["text/html"] for cell in copy.cells if cell.id == "cell-19")
    heads = re.findall(r"<th [^>]*col_heading[^>]*>([^<]*)</th>", table)
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("</tr>")]
    named = [dict(zip(heads, row, strict=True)) for row in rows if row]
    return {(row["data"], row["σ"]): row["ratio"].removeprefix("≤ ") for row in named}


def test_the_race_gives_the_ratios_of_the_chapter(race: Locator, root: Path) -> None:
    values, choice = glued(root, "batch_normalization"), race.get_by_label("Data and activation")
    shown = ratios_at_one_rate(root)
    for name in ("tt6", "Iris"):
        choice.select_option(f"{name}, tanh")
        race.get_by_role("button", name="One small rate for both").click()
        state = race.evaluate(STATE)
        assert state["rates"][0] == state["rates"][1]
        assert f"{state['ratio']:.3g}" == shown[name, "tanh"]
        race.get_by_role("button", name="Each at its best rate").click()
        best = race.evaluate(STATE)
        assert best["medians"][0] / best["medians"][1] == pytest.approx(values[f"best-{name}"], rel=1e-12, abs=0)
        assert best["rates"] != state["rates"]


def test_goal_and_rates_of_the_race_are_chosen_by_mouse_and_keyboard(race: Locator) -> None:
    race.get_by_label("Data and activation").select_option("tt6, relu")
    tight = race.evaluate(STATE)
    goal = race.get_by_label("Goal, of the constant's risk")
    goal.focus()
    goal.press("ArrowUp")
    loose = race.evaluate(STATE)
    assert loose["goal"] > tight["goal"]
    assert all(a <= b for a, b in zip(loose["medians"], tight["medians"]))
    plain = race.get_by_label("Rate, plain")
    drag(plain, 0.6)
    assert race.evaluate(STATE)["rates"][0] > loose["rates"][0]
    assert race.evaluate(STATE)["rates"][1] == loose["rates"][1]
    before = race.evaluate(STATE)["rates"][0]
    plain.press("ArrowLeft")
    assert race.evaluate(STATE)["rates"][0] < before
    assert f"at rate {race.evaluate(STATE)['rates'][0]:g}" in said(race)


def test_a_finger_moves_a_slider_on_a_phone(opened: Callable[..., Page]) -> None:
    page = opened("lifting", viewport=PHONE, has_touch=True)
    explorer = page.locator("div.interactive")
    kink = explorer.get_by_label("Kink at x")
    kink.scroll_into_view_if_needed()
    box = kink.bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert abs(float(kink.input_value())) < 0.1
    assert said(explorer).startswith("Off the lifted set: 15 of 30")
    assert box["height"] >= 24  # WCAG 2.2, success criterion 2.5.8


CHAPTERS = [("lifting", "explorer"), ("training", "plateaus"), ("batch_normalization", "race")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_take_the_colours_of_the_theme(opened: Callable[..., Page], scheme: str) -> None:
    page = opened("lifting", color_scheme=scheme)
    page.wait_for_selector(f"html[data-theme={scheme}]")
    canvas = page.locator(".interactive canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    # The brightest of the pixels that are drawn: the text is dark on light ground, and light on dark ground.
    brightness = canvas.evaluate("""canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const values = [];
        for (let k = 0; k < data.length; k += 4)
            if (data[k + 3] === 255) values.push(data[k] + data[k + 1] + data[k + 2]);
        return [Math.min(...values), Math.max(...values)];
    }""")
    assert brightness[0] < 200 if scheme == "light" else brightness[1] > 600


NAMES = """root => [...root.querySelectorAll('input, select, button, [role=img]')]
    .filter(one => !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim()))
    .map(one => one.outerHTML)"""


@pytest.mark.parametrize(("chapter", "kind"), CHAPTERS)
def test_every_control_and_plot_has_a_name(opened: Callable[..., Page], chapter: str, kind: str) -> None:
    root = figure(opened(chapter), kind)
    assert root.locator("canvas").count() >= 2
    assert root.evaluate(NAMES) == []
    assert root.get_attribute("aria-label")
    described = root.get_attribute("aria-describedby")
    assert len(root.page.locator(f"#{described}").text_content() or "") > 100
    assert root.get_by_role("status").count() == 1


@pytest.mark.parametrize(("chapter", "kind"), CHAPTERS)
def test_no_request_leaves_the_page_and_nothing_is_too_wide(
    opened: Callable[..., Page], chapter: str, kind: str
) -> None:
    page = opened(chapter, viewport=PHONE)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload(wait_until="networkidle")
    root = figure(page, kind)
    assert root.evaluate("root => root.scrollWidth <= root.clientWidth")
    for select in root.locator("select").all():
        select.select_option(index=select.locator("option").count() - 1)
    assert not [url for url in requests if not url.startswith(("file:", "data:"))]
    assert len(data_of(root)) > 0


def test_without_scripts_the_text_alternative_is_shown(opened: Callable[..., Page]) -> None:
    page = opened("lifting", java_script_enabled=False)
    assert page.locator(".interactive").inner_text().startswith("Sliders move along the lifted set")
    assert page.locator(".interactive input").count() == 0


def test_only_pages_with_an_interactive_figure_load_its_scripts(site: Path) -> None:
    pages = {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in (site / "book").rglob("*.html")}
    loading = {name for name, text in pages.items() if "uPlot.iife.min.js" in text}
    assert loading == {name for name, text in pages.items() if 'class="interactive"' in text}
    assert loading == {f"book/depth/{chapter}.html" for chapter, _ in CHAPTERS}
