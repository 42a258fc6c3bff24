"""How long a widget takes to answer, in a browser: from the key to the new picture, from the click to a first sign."""

import statistics
import sys
import tempfile
from pathlib import Path

from lab import CHROMIUM, QUIET, boxes, needed, open_lesson, run, running_lab

WATCH = """picture => { window.delay = new Promise(done => {
    let start, sign
    const since = () => performance.now() - start
    const once = (part, how, then) => new MutationObserver((_, me) => { me.disconnect(); then() }).observe(part, how)
    addEventListener("keydown", () => { start ??= performance.now() }, {capture: true, once: true})
    const note = picture.closest(".widget-vbox").querySelector("div.widget-label")  // "drawing ..."
    if (note) once(note, {childList: true, characterData: true, subtree: true}, () => { sign ??= since() })
    once(picture, {attributes: true, attributeFilter: ["src"]}, () => { sign ??= since(); done([sign, since()]) })
}) }"""
CLICK = """button => { window.delay = new Promise(done => {
    const box = button.closest(".jp-OutputArea-output"), start = performance.now()
    const until = (part, what) => new Promise(seen => new MutationObserver((_, me) => {
        me.disconnect(); seen(performance.now() - start)
    }).observe(part, {attributes: true, attributeFilter: [what]}))
    const pictures = box.querySelectorAll("img.widget-image")
    done(Promise.all([until(box.querySelector(".progress-bar"), "style"), until(pictures[pictures.length - 1], "src")]))
    button.click()
}) }"""
LESSONS = ("01_clip.ipynb", "02_vae.ipynb", "03_noising.ipynb", "04_unet.ipynb", "05_sampling.ipynb")


def delays(page, box, moves=24):
    """Milliseconds to the first sign and to the new picture, of each of some moves: on, and at the end back."""
    box.scroll_into_view_if_needed()
    slider, picture, found = box.locator(".noUi-handle").last, box.locator("img.widget-image").last, []
    slider.press("Home")
    page.wait_for_timeout(1000)
    for _ in range(moves):
        at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        picture.evaluate(WATCH)
        slider.press("Home" if at_the_end else "ArrowRight")
        found.append(page.evaluate("() => window.delay"))
        page.wait_for_timeout(50)
    return zip(*found, strict=True)


def clicks(page, box, times=8):
    """Milliseconds from a click on the button to the first sign, and to the picture; each with a new seed."""
    seed, found = box.locator("input[type=number]").first, []
    for i in range(times):
        seed.fill(str(100 + i))
        seed.press("Enter")
        page.wait_for_timeout(500)
        box.locator("button").first.evaluate(CLICK)
        found.append(page.evaluate("() => window.delay"))
    return zip(*found, strict=True)


def main():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("no playwright: how fast the widgets follow was not measured; make browser installs it")
    if not CHROMIUM:
        sys.exit("no Chromium: how fast the widgets follow was not measured")
    print("from the key, ms (median, nine of ten within): to the first sign, to the new picture, to one from memory")
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder)) as lab, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for name in LESSONS:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            open_lesson(page, lab, name)
            run(page, needed(name))
            for i in range(boxes(page).count()):
                box = boxes(page).nth(i)
                if box.locator(".noUi-handle").count():
                    (sign, picture), (_, again) = delays(page, box), delays(page, box)
                    print(f"{name:18} widget {i + 1}", *map(summary, (sign, picture, again)), sep="   ")
                if box.locator("button").count():
                    sign, picture = clicks(page, box)
                    print(f"{name:18} widget {i + 1}, a click: first sign {summary(sign)}   picture {summary(picture)}")
            page.close()
        browser.close()


def summary(found):
    return f"{statistics.median(found):5.0f} {statistics.quantiles(found, n=10)[-1]:5.0f}"


if __name__ == "__main__":
    main()
