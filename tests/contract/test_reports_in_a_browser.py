"""Pages in real Chromium: rendered, sorted, turned, read aloud; nothing is fetched and nothing goes wrong on the console."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from capacity.reporting import documents
from capacity.reporting.page import html
from capacity.reporting.report import compose

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("pages") / "report.html"
    asked = {"params": 7e9, "tokens": 1e11, "device": "h100-sxm", "devices": 16, "pp": 4, "mode": "train"}
    place.write_text(html(compose([documents.estimated(asked)])), encoding="utf-8")
    return place


class Visit:
    """A page that was opened, what it asked for, and what went wrong in it."""

    def __init__(self, browser, path, **context):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.asked, self.wrong = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(path.as_uri())


@pytest.fixture
def visit(browser, path):
    opened = []

    def start(**context):
        opened.append(Visit(browser, path, **context))
        return opened[-1]

    yield start
    for one in opened:
        one.context.close()
        assert one.wrong == []
        assert [url for url in one.asked if url != path.as_uri()] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_passes_axe(visit, scheme):
    page = visit(color_scheme=scheme).page
    page.evaluate("for (const kind of ['.steps', ':not(.steps)']) document.querySelector('details' + kind).open = true")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_light_and_dark(visit):
    backs = {
        scheme: visit(color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert backs == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}


def test_nothing_hangs_over_on_a_phone(visit):
    page = visit(viewport={"width": 390, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_tables_sort_by_number_and_by_word(visit):
    page = visit().page
    table = page.locator("table.sortable").first
    cells = "table => [...table.tBodies[0].rows].map(row => row.cells[1].dataset.v)"
    table.locator("th button").nth(1).click()
    numbers = [float(one) for one in table.evaluate(cells)]
    assert numbers == sorted(numbers)
    table.locator("th button").nth(1).focus()
    page.keyboard.press("Enter")
    assert [float(one) for one in table.evaluate(cells)] == sorted(numbers, reverse=True)
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "descending"
    table.locator("th button").nth(0).click()
    names = table.evaluate("table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent.toLowerCase())")
    assert names == sorted(names)


def test_marks_of_a_figure_speak(visit):
    page = visit(viewport={"width": 1200, "height": 900}).page
    mark = page.locator(".drawing [data-tip^=weights]").first
    mark.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    assert "GiB" in tip.text_content()


def test_dials_turn_the_answer(visit):
    page = visit().page
    panel = page.locator(".explorer").first
    cells = "panel => [...panel.querySelectorAll('.answer .value')].map(cell => cell.textContent)"
    before = panel.evaluate(cells)
    dial = panel.locator("input[type=range]").first
    dial.focus()
    page.keyboard.press("ArrowRight")
    after = panel.evaluate(cells)
    assert panel.locator("output").first.text_content() == "32"
    assert dial.get_attribute("aria-valuetext") == "32"
    assert before[0] == after[0] == "yes"
    assert before[1] != after[1]
    grid = panel.evaluate("panel => JSON.parse(panel.querySelector('script').textContent)")
    place = ",".join(str(one.input_value()) for one in panel.locator("input[type=range]").all())
    assert after == [value for value, _ in grid["answers"][place]]


def test_all_is_said_without_javascript(visit):
    page = visit(java_script_enabled=False).page
    assert page.locator("main h2").first.is_visible()
    assert page.locator(".verdict").first.is_visible()
    assert page.locator("figure svg").first.is_visible()
    assert page.locator("table").first.is_visible()


def test_the_keyboard_reaches_the_answer(visit):
    page = visit().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
