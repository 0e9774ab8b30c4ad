"""The report in a browser: headless Chromium, if it and Playwright are installed.

The browser is found by its path, as Playwright's own download is not needed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpsd.reporting.report import Report

CHROMIUM = os.environ.get("DPSD_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="no playwright: pip install it"
    ),
]
#: Chromium as root in a container, and without the services that it calls in the background.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
#: The sizes of all text in charts as it is seen, which may be turned, in pixels.
TEXT_SIZES = """[...document.querySelectorAll(".chart text")].map(text => {
  const seen = text.getScreenCTM();
  return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(seen.a, seen.b);
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(report: Callable[..., Report], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two runs with everything on it, as a file."""
    path = Path(tmp_path_factory.mktemp("page")) / "report.html"
    path.write_text(report(runs=2).html(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page; afterwards, nothing was complained about and nothing was fetched."""
    contexts, complaints, requests = [], list[str](), list[str]()

    def opened(**how: Any) -> Any:
        context = browser.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {address}


def paper(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Callable[..., Any], scheme: str) -> None:
    sync = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
    page = visit(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    # What depends on colours is checked again on dark paper.
    rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
    found = sync.Axe().run(page, options=rules).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found] == []


def test_colors_follow_the_system_until_the_button_is_pressed(visit: Callable[..., Any]) -> None:
    light, dark = (paper(visit(color_scheme=scheme)) for scheme in ("light", "dark"))
    assert light != dark
    page = visit(color_scheme="light")
    button = page.get_by_role("button", name="Dark colours")
    button.focus()
    page.keyboard.press("Enter")
    assert paper(page) == dark
    page.get_by_role("button", name="Light colours").click()
    assert paper(page) == light


def test_the_slider_shows_one_round_and_works_by_keyboard(visit: Callable[..., Any]) -> None:
    page = visit()
    gallery = page.locator("[data-gallery]").first
    slider = gallery.get_by_role("slider")

    def shown() -> list[str]:
        rounds = gallery.locator("[data-round]").all()
        return [one.get_attribute("data-round") for one in rounds if one.is_visible()]

    # First the last images that were asked about; no round asked about those after the last.
    assert shown() == ["2"]
    assert "the student said" in gallery.locator("[data-round='2'] figcaption").inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert shown() == ["3"]
    assert slider.get_attribute("aria-valuetext") == "round 3"
    page.keyboard.press("Home")
    assert shown() == ["1"]


def test_all_rounds_are_seen_without_scripts_and_on_paper(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert all(one.is_visible() for one in page.locator("[data-round]").all())
    assert not page.get_by_role("slider").first.is_visible()
    page = visit(color_scheme="dark")
    page.emulate_media(media="print")
    assert all(one.is_visible() for one in page.locator("[data-round]").all())
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 33, 39)"


def test_the_first_tab_leads_to_the_verdict_and_tables_open_by_keyboard(
    visit: Callable[..., Any],
) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


@pytest.mark.parametrize("width", [375, 1280])
def test_text_in_charts_is_readable_and_the_page_never_scrolls_sideways(
    visit: Callable[..., Any], width: int
) -> None:
    page = visit(viewport={"width": width, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    sizes = page.evaluate(TEXT_SIZES)
    assert len(sizes) > 20
    assert min(sizes) >= 9
    assert sorted(sizes)[len(sizes) // 2] >= 10


def test_wide_charts_and_pictures_are_scrolled_by_keyboard(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 375, "height": 700})
    for title in ("Agreement and loss by round", "ε under the three adjacencies"):
        region = page.get_by_role("group", name=f"Chart: {title}")
        clipped, whole = region.evaluate("one => [one.clientWidth, one.scrollWidth]")
        assert clipped <= 375 < whole
        region.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("one => one.scrollLeft > 0", arg=region.element_handle())


def test_paper_shows_charts_whole(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 700, "height": 900})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 700
    assert page.locator(".chart svg").count() > 3
    for chart in page.locator(".chart svg").all():
        assert chart.evaluate("one => one.getBoundingClientRect().right") <= 700
