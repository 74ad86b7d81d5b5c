# SPDX-License-Identifier: Apache-2.0
"""The page in a headless Chromium, in light and dark, with a handful and with a crowd. Pictures go to build/ui."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
PICTURES = Path(__file__).resolve().parents[2] / "build" / "ui"
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, ui: Any, scheme: str, wrong: list[str], nth: int = 1) -> Any:
    page = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 1000}).new_page()
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto(ui.address(-1, at_least=nth))
    page.wait_for_selector("#status.live", timeout=20_000)
    return page


COLOURS = """(id) => {
    const c = document.getElementById(id), seen = new Set();
    const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
    return seen.size;
}"""
WATCH = """() => {
    window.busy = window.frames = 0;
    new PerformanceObserver((l) => { for (const e of l.getEntries()) busy += e.duration; }).observe({type: 'longtask'});
    const f = () => { frames++; requestAnimationFrame(f); };
    requestAnimationFrame(f);
}"""


def until(page: Any, holds: str, seconds: float = 30) -> None:
    """Asks the page until it holds. (wait_for_function needs eval, which the page's policy forbids, as it should.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(holds):
        assert time.monotonic() < end, holds
        page.wait_for_timeout(50)


def filled(page: Any, canvas: str) -> int:
    """How many colours a canvas shows: an empty one has one."""
    return int(page.evaluate(COLOURS, canvas))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_drawn(browser: Any, start: Start, scheme: str) -> None:
    ui, wrong = start(12, 30), []
    page = open_page(browser, ui, scheme, wrong)
    until(page, "document.querySelectorAll('#visible .row').length >= 12")
    until(
        page,
        "/in two minutes/.test(document.getElementById('restarts-note').textContent)"
        " && !/none/.test(document.getElementById('restarts-note').textContent)",
    )
    for canvas in ("flow", "tree", "restarts"):
        assert filled(page, canvas) > 3, canvas
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    assert page.inner_text("#process option").startswith("crowd (")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{scheme}.png", full_page=True)
    assert wrong == []


def test_tables_sort_filter_and_show_details(browser: Any, start: Start) -> None:
    ui, wrong = start(12, 30), []
    page = open_page(browser, ui, "light", wrong)
    until(page, "document.querySelectorAll('#visible .row').length >= 12")
    page.click("#pause")
    page.click("#head button:has-text('name')")
    names = page.eval_on_selector_all("#visible .row > :first-child", "all => all.map(e => e.textContent)")
    assert names == sorted(names) and "stage 0" in names
    page.fill("#filter", "STAGE 1")
    until(page, "document.getElementById('count').textContent === '3'")  # 1, 10, 11
    page.click("#visible .row >> nth=0")
    assert '"name": "stage 1"' in page.inner_text("#detail")
    page.click("#detail")
    page.fill("#filter", "")
    page.click("nav button:has-text('actors')")
    until(page, "document.getElementById('count').textContent === '30'")
    assert wrong == []


def test_a_crowd_does_not_stutter(browser: Any, start: Start) -> None:
    """1 000 channels, 10 000 actors: the page draws a bounded amount, whatever there is."""
    ui, wrong = start(1000, 10_000), []
    page = open_page(browser, ui, "light", wrong)
    until(page, "document.querySelectorAll('#tiles b')[0]?.textContent === '1000'")
    page.click("nav button:has-text('actors')")
    until(page, "document.getElementById('count').textContent === '10000'")
    page.evaluate(WATCH)
    for i in range(20):
        page.evaluate("(y) => { document.getElementById('rows').scrollTop = y; }", i * 13_000)
        page.wait_for_timeout(250)
    assert page.evaluate("document.querySelectorAll('#visible .row').length") < 60
    assert page.evaluate("document.querySelectorAll('*').length") < 1500
    assert page.evaluate("document.getElementById('flow').height / devicePixelRatio") < 1200
    print(
        f"long tasks {page.evaluate('busy'):.0f} ms of 5 000, {page.evaluate('frames')} frames"
    )  # looked at, not judged
    assert page.evaluate("frames") > 0
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "crowd.png", full_page=True)
    assert wrong == []


def test_it_says_when_the_process_has_gone(browser: Any, start: Start) -> None:
    ui, wrong = start(3, 3), []
    page = open_page(browser, ui, "light", wrong)
    ui.crowd.kill()
    page.wait_for_selector("#status.gone", timeout=20_000)
