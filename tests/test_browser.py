"""The lessons in a real browser, in JupyterLab as `make lab` starts it. Skipped where there is no Chromium."""

import pytest
from lab import CHROMIUM, NOISE, QUIET, ROOT, boxes, open_lesson, run_all, running_lab, sources, wait_for_change

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the lessons are not tried in a browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: the lessons are not tried in a browser")

LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
WIDGETS = {"00_start_here.ipynb": 0, "03_noising.ipynb": 2}  # how many a lesson has; these two run in a minute each


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("course")) as lab:
        yield lab


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    before = request.session.testsfailed
    yield page
    if request.session.testsfailed > before:
        page.screenshot(path=ROOT / "runs" / f"{request.node.name}.png")
    page.close()


def nothing_went_wrong(page):
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert [line for line in page.said if not NOISE.search(line)] == []


def test_nobody_gets_in_without_the_token(page, lab):
    page.goto(f"{lab[0]}/lab")
    assert "login" in page.url


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_opens_with_its_pictures_and_formulas(page, lab, name):
    open_lesson(page, lab, name)
    page.wait_for_selector(".jp-RenderedMarkdown h1")
    page.wait_for_selector(".jp-OutputArea img", timeout=60_000)
    assert page.locator(".MathJax_Error, mjx-merror").count() == 0
    assert [line for line in page.said if not NOISE.search(line)] == []


def turn(box):
    """Move one control of a widget: its button if it has one, else the first of its switches, lines and sliders."""
    switch, line, slider = map(box.locator, ("input[type=checkbox]", "input[type=text]", ".noUi-handle"))
    if box.locator("button").count():
        box.locator("input[type=number]").first.fill("7")
        box.locator("input[type=number]").first.press("Enter")
        box.locator("button").first.click()
    elif switch.count():
        switch.first.click()
    elif slider.count():
        slider.first.press("ArrowRight")
    else:
        line.first.fill("a <b>knight</b> \N{GRINNING FACE} in the snow")
        line.first.press("Enter")


@pytest.mark.parametrize("name", WIDGETS)
def test_a_lesson_runs_and_its_widgets_move(page, lab, name):
    open_lesson(page, lab, name)
    run_all(page)
    nothing_went_wrong(page)
    found = boxes(page)
    assert found.count() == WIDGETS[name]
    for i in range(found.count()):
        box = found.nth(i)
        box.scroll_into_view_if_needed()
        before = sources(box)
        assert before
        turn(box)
        wait_for_change(page, box, before)
    nothing_went_wrong(page)
