"""The report as a person sees it, in headless Chromium."""

import shutil

import pytest

from obert.foundation import registry
from obert.report.rendering import build, report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WINDOWS = {"desktop": (1280, 900), "phone": (390, 844)}
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as driver:
        try:  # a sandbox of its own needs rights that containers lack
            opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: neither {', '.join(NAMES)} nor playwright's own ({str(error).splitlines()[0]})")
        yield opened
        opened.close()


@pytest.fixture(params=WINDOWS)
def open_report(request, browser, two_tasks, tmp_path):
    """Opens a report of some tables; what the page complains of and asks for is in its `said` and `asked`."""
    width, height = WINDOWS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, is_mobile=request.param == "phone")

    def open_with(*names):
        path = tmp_path / "report.html"
        path.write_text(report(two_tasks, [build(name, registry.load("tables", name)(), two_tasks) for name in names]))
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda asked: page.asked.append(asked.url))
        page.goto(path.as_uri())
        return page

    yield open_with
    context.close()


def test_the_report_renders_without_a_network_and_fits_the_window(open_report):
    page = open_report(*registry.names("tables"))
    assert page.said == []
    assert page.asked == [page.url]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("img").count() >= 5 and page.locator("table").count() >= 5
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    links = page.locator("nav a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert len(links) == len(set(links)) > 10
    assert page.evaluate("links => links.filter(link => !document.getElementById(link.slice(1)))", links) == []


def test_a_row_leads_to_its_commands(open_report):
    page = open_report("leaderboard")
    commands = page.get_by_text("--recipe gradual --method obert --sparsity 0.9 --seed 1").first
    assert not commands.is_visible()
    page.locator("tr", has_text="87.50 ± 17.68 (n=2)").get_by_role("link", name="obert").click()
    assert commands.is_visible() and "downstream --config configs/example.yaml" in commands.inner_text()


def test_the_method_stays_in_view_beside_the_last_column(open_report):
    page = open_report("leaderboard")
    table = page.locator(".scroll", has_text="movement")
    table.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
    name = table.get_by_role("rowheader", name="movement").bounding_box()
    assert 0 <= name["x"] < name["x"] + name["width"] <= page.viewport_size["width"]
    assert table.get_by_role("columnheader", name="seconds").bounding_box()["x"] < page.viewport_size["width"]
