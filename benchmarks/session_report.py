"""The report of an eight-hour session with 200,000 log records: how long it takes to make, to open, and to filter in Chromium.

What the browser does is measured by the browser's own clock (``performance.now``), from its start of navigation or the filter's
input event to the second animation frame after the page is done: when that one begins, the first has been painted.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import Cost, NotMeasuredError, Result, cost_of, in_turn
from benchmarks.long_session import write_long_session
from pytest_openscope.views.report import write_report

MADE_S, OPENED_S, FILTERED_S = 10.0, 2.0, 0.2
#: Runs before the page's own scripts: notes when log and plots are there and painted.
_WATCH = """
addEventListener("DOMContentLoaded", () => {
  const painted = () => requestAnimationFrame(() => requestAnimationFrame(() => { window.openedMs = performance.now(); }));
  const data = document.documentElement.dataset;
  if (!document.getElementById("log-data")) { painted(); return; }
  const watch = new MutationObserver(() => {
    if (data.log === "ready" && data.plots === "drawn") { watch.disconnect(); painted(); }
  });
  watch.observe(document.documentElement, { attributes: true });
});
"""
_OPENED = "() => new Promise(done => { const look = () => window.openedMs ? done(openedMs) : setTimeout(look, 5); look(); })"
#: Sets one filter as a person does, and tells how long it took until what is left was painted.
_FILTER = """([id, value]) => new Promise(done => {
  const field = document.getElementById(id), option = [...(field && field.options || [])].find(one => one.text === value);
  const begun = performance.now();
  if (field !== null) {
    field.value = option ? option.value : value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun)));
})"""
#: Text that is in every record, in one, in none; a level. Each is typed after another one, so that each has its work to do.
_FILTERS = (("filter-text", "frame"), ("filter-text", "frame 199999 "), ("filter-text", "zebra"), ("filter-level", "WARNING"))


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium.

    Raises:
        NotMeasuredError: there is none, or no playwright.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise NotMeasuredError("there is no Chromium on this computer")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NotMeasuredError("playwright is not installed") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _children_cpu_s() -> float:
    """Return the CPU time of all processes below this one that are alive: the browser's."""
    used_s = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        used_s += times.user + times.system
    return used_s


def _in_browser(work: Callable[[], float]) -> Cost:
    """Return the milliseconds that the browser measured, as seconds, and the CPU time of all its processes meanwhile."""
    before_s = _children_cpu_s()
    return Cost(work() / 1000, max(0.0, _children_cpu_s() - before_s))


def run(quick: bool) -> Iterator[Result]:
    """Measure the making, then opening and filtering in the browser; ``quick`` makes fewer rounds of the same session."""
    records, rounds = 200_000, 3 if quick else 7
    with tempfile.TemporaryDirectory() as name:
        folder = write_long_session(Path(name, "mouse7_2026-03-04_09-00-00"), records)
        log = folder / "launcher_metadata" / "launcher.log"
        costs = in_turn(
            lambda: cost_of(lambda: gzip.compress(log.read_bytes(), 6)), lambda: cost_of(lambda: write_report(folder)), rounds
        )
        page = folder / "session_report.html"
        what = f"report of {records:,} records"
        notes = [f"the log has {log.stat().st_size / 1e6:.1f} MB, the report {page.stat().st_size / 1e6:.1f} MB"]
        yield Result(f"{what}: made", "the log compressed (gzip)", *costs, limit_s=MADE_S, per="report", notes=notes)
        blank = Path(name, "blank.html")
        blank.write_text("<!DOCTYPE html><title>blank</title><p>Nothing.", encoding="utf-8")
        with chromium() as browser:
            opened = in_turn(lambda: _opened(browser, blank), lambda: _opened(browser, page), rounds)
            yield Result(f"{what}: opened in Chromium", "an empty page", *opened, limit_s=OPENED_S, per="opening")
            yield from _filters(browser, page, what, rounds)


def _opened(browser: Any, path: Path) -> Cost:
    """Open the file in a browser that knows nothing of it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.add_init_script(_WATCH)

        def opened() -> float:
            page.goto(path.as_uri())
            return float(page.evaluate(_OPENED))

        return _in_browser(opened)
    finally:
        context.close()


def _filters(browser: Any, path: Path, what: str, rounds: int) -> Iterator[Result]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(_WATCH)
    page.goto(path.as_uri())
    page.evaluate(_OPENED)
    for field, value in _FILTERS:

        def ours(field: str = field, value: str = value) -> Cost:
            page.evaluate(_FILTER, ["filter-level", ""])
            page.evaluate(_FILTER, ["filter-text", ""])
            return _in_browser(lambda: float(page.evaluate(_FILTER, [field, value])))

        def frames() -> Cost:
            return _in_browser(lambda: float(page.evaluate(_FILTER, ["no-such-field", ""])))

        costs = in_turn(frames, ours, rounds)
        left = page.inner_text("#log-count")
        name = f"{what}: filtered by {field.partition('-')[2]} {value.strip()!r}"
        yield Result(name, "the browser's next frame", *costs, limit_s=FILTERED_S, per="filter", notes=[f"{left} are left"])
    page.close()
