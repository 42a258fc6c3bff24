"""The lessons in a real browser, in JupyterLab as `make lab` starts it. Skipped where there is no Chromium."""

import math

import pytest
from lab import (
    CHROMIUM,
    NOISE,
    ROOT,
    boxes,
    cell_of,
    cells_of,
    needed,
    open_lesson,
    presenting,
    run,
    running_lab,
    slide_size,
    slides,
    sources,
    turn_to,
    wait_for_change,
)

pytest.importorskip("playwright.sync_api", reason="no playwright: the lessons are not tried in a browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: the lessons are not tried in a browser")

WIDGETS = {  # how many a lesson has
    "00_start_here.ipynb": 0,
    "01_clip.ipynb": 2,
    "02_vae.ipynb": 2,
    "03_noising.ipynb": 2,
    "04_unet.ipynb": 2,
    "05_sampling.ipynb": 2,
    "06_editing.ipynb": 2,
    "07_new_words.ipynb": 1,
    "08_measuring.ipynb": 1,
    "09_since_2022.ipynb": 2,
}
PAGE = {"width": 1280, "height": 720}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("course")) as lab:
        yield lab


@pytest.fixture(scope="module")
def context(browser):
    """One for all tests, so that JupyterLab is loaded once."""
    return browser.new_context(viewport=PAGE)


@pytest.fixture(scope="module", params=WIDGETS)
def lesson(context, lab, request):
    """A lesson that was opened once, for all tests of it."""
    page = new_page(context)
    page.name = request.param
    open_lesson(page, lab, page.name)
    yield page
    page.close()


@pytest.fixture
def page(lesson, request):
    before = request.session.testsfailed
    yield lesson
    if request.session.testsfailed > before:
        lesson.screenshot(path=ROOT / "runs" / f"{request.node.name}.png")


def new_page(context):
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    return page


def said_nothing(page):
    assert [line for line in page.said if not NOISE.search(line)] == []


def nothing_went_wrong(page):
    for kind in ("stderr", "error"):
        assert page.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']").all_text_contents() == []
    assert page.locator(".Toastify__toast").count() == 0  # nobody asks whether one wants news
    said_nothing(page)


def test_nobody_gets_in_without_the_token(context, lab):
    page = new_page(context)
    page.goto(f"{lab[0]}/lab")
    assert "login" in page.url
    page.close()


def test_a_lesson_opens_with_its_pictures_and_formulas(page):
    page.wait_for_selector(".jp-RenderedMarkdown h1")
    page.wait_for_selector(".jp-OutputArea img", timeout=60_000)
    assert page.locator(".MathJax_Error, mjx-merror").count() == 0
    said_nothing(page)


def fits(page):
    width, height = slide_size(page)
    return width <= PAGE["width"] and height <= PAGE["height"]


def test_every_slide_of_a_lesson_fits_its_page(page):
    with presenting(page):
        for i, cells in enumerate(slides(page.name)):
            turn_to(page, cells[-1])
            assert fits(page), f"slide {i + 1} is too large: {slide_size(page)}"
    said_nothing(page)


def drag(page, handle):
    """Take the handle of a slider with the mouse, since on a slide the keys turn the pages."""
    handle.hover()
    here = handle.bounding_box()
    way = -30 if handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax") else 30
    page.mouse.down()
    page.mouse.move(here["x"] + here["width"] / 2 + way, here["y"] + here["height"] / 2, steps=3)
    page.mouse.up()


def turn(page, box):
    """Move one control of a widget, and see the picture change: its button, or else a switch, a slider, or a line."""
    before = sources(box)
    assert before
    switch, line, slider = map(box.locator, ("input[type=checkbox]", "input[type=text]", ".noUi-handle"))
    number, another_colour = map(box.locator, ("input[type=number]", ".widget-toggle-button:not(.mod-active)"))
    if another_colour.count():
        another_colour.first.click()
        squares = box.locator(".widget-button").all()[:-1]
        side = math.isqrt(len(squares))
        for square in squares[side * (side // 2) : side * (side // 2 + 1)]:  # the middle row: some have this colour now
            square.click()
        box.get_by_role("button", name="Draw").click()
    elif box.locator("button").count():
        if number.count():
            number.first.fill(str(int(number.first.input_value()) + 1))
            number.first.press("Enter")
        box.locator("button").first.click()
    elif switch.count():
        switch.first.click()
    elif slider.count():
        drag(page, slider.first)
    else:
        odd = "a <b>knight</b> \N{GRINNING FACE} in the snow"
        line.first.fill("a cat in the desert" if line.first.input_value() == odd else odd)
        line.first.press("Enter")
    wait_for_change(page, box, before)


def test_a_lesson_runs_as_far_as_its_widgets_need_and_they_move(page):
    run(page, needed(page.name) or [i for i, cell in enumerate(cells_of(page.name)) if cell["cell_type"] == "code"][:3])
    nothing_went_wrong(page)
    found = boxes(page)
    assert found.count() == WIDGETS[page.name]
    for i in range(found.count()):
        found.nth(i).scroll_into_view_if_needed()
        turn(page, found.nth(i))
    on_slides = sum(slides(page.name), [])
    with presenting(page):
        for box in [found.nth(i) for i in range(found.count()) if cell_of(found.nth(i)) in on_slides]:
            turn_to(page, cell_of(box))
            assert fits(page), f"the slide of {box.text_content()[:40]} is too large: {slide_size(page)}"
            turn(page, box)
    nothing_went_wrong(page)
