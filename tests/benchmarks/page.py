"""How long the live page takes, in a browser, with one thread and with as many as there are: to be ready, to draw."""

import re
import statistics
import sys
import tempfile
from pathlib import Path

from lab import CHROMIUM, QUIET
from live_site import ISOLATED, LIBRARY, build, served

WATCH = """addEventListener("DOMContentLoaded", () => {
    const [said, draw] = ["status", "draw"].map(id => document.getElementById(id))
    window.ready = new Promise(done => {
        let here  // when the last byte of the model came
        new MutationObserver(() => {
            if (said.textContent.startsWith("Preparing")) here ??= performance.now()
            if (!draw.disabled) done(performance.now() - here)
        }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true})
    })
})"""
WORDS = " riding a red horse in the snow and a blue turtle by the sea"  # a key each


def opened(browser, server):
    """The page, as soon as it may be drawn with; seconds since the last byte of the model came, with opening."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(300_000)
    page.add_init_script(WATCH)
    page.goto(server.address + "#prompt=a+cat&steps=1")
    ready = page.evaluate("() => window.ready") / 1000
    page.wait_for_selector("figure.whole")
    return page, ready


def pictures(page, times=5):
    """Seconds for a picture in 30 steps with guidance and a film, as the page itself says."""
    page.fill("#steps", "30")
    for seed in range(times):
        page.fill("#seed", str(seed))
        page.click("#draw")
        page.wait_for_selector("#stop:enabled")
        page.wait_for_selector("#stop:disabled")
        yield float(re.search(r"[\d.]+", page.text_content("#status"))[0])


def keys(page):
    """Milliseconds from a key to the picture of one step."""
    page.get_by_label("Draw as I type").check()
    said = page.locator("#sketch p")
    page.wait_for_selector("#sketch p:not(:empty)")
    for letter in WORDS:
        said.evaluate("p => (p.textContent = '')")
        page.locator("#prompt").press_sequentially(letter)
        page.wait_for_selector("#sketch p:not(:empty)")
        yield float(re.search(r"(\d+) ms", said.text_content())[1])


def measure(browser, folder, headers, name):
    with served(folder, headers) as server:
        page, ready = opened(browser, server)
        drawn = statistics.median(pictures(page))
        line = f"{name}: ready {ready:.1f} s after the download, a picture of 30 steps {drawn:.1f} s"
        if page.locator("#typing-knob").is_visible():
            took = [*keys(page)]
            line += f", a picture of one step {statistics.median(took):.0f} ms after the key (median of {len(took)})"
        print(line)
        page.close()


def main():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("no playwright: how fast the live page is was not measured; make browser installs it")
    if not CHROMIUM or not LIBRARY.is_dir():
        sys.exit("no Chromium, or no onnxruntime-web: how fast the live page is was not measured; see make site")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        build(Path(folder))
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        measure(browser, folder, {}, "one thread")
        measure(browser, folder, ISOLATED, "several threads")
        browser.close()


if __name__ == "__main__":
    main()
