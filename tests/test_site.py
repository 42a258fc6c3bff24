"""The book as `make site` built it, in a real browser: nothing fetched from elsewhere, nothing too wide, a search."""

import pytest
from lab import CHROMIUM, ROOT
from live_site import served

pytest.importorskip("playwright.sync_api", reason="no playwright: the book is not tried in a browser")

BUILD = ROOT / "docs" / "_build"
HTML = BUILD / "html"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: the book is not tried in a browser"),
    pytest.mark.skipif(not (HTML / "index.html").is_file(), reason="the book is not built: make site"),
]
FILES = sorted(path for path in HTML.rglob("*.html") if path.relative_to(HTML).parts[0] not in ("live", "_static"))
PAGES = [path.relative_to(HTML).as_posix() for path in FILES]
WIDTHS = (1280, 400)
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth, found = []
    if (document.documentElement.scrollWidth > width + 1) found.push("the page itself")
    const scrolls = box => box && (/auto|scroll/.test(getComputedStyle(box).overflowX) || scrolls(box.parentElement))
    for (const part of document.querySelectorAll("article *:not(svg *, mjx-assistive-mml, mjx-assistive-mml *)")) {
        const box = part.getBoundingClientRect()
        if (box.width > 1 && (box.right > width + 1 || box.left < -1) && !scrolls(part.parentElement))
            found.push(`${part.tagName} to ${Math.round(box.right)}: ${part.textContent.trim().slice(0, 60)}`)
    }
    return found
}"""


@pytest.fixture(scope="module")
def site():
    with served(HTML) as server:
        yield server.address


@pytest.fixture(params=WIDTHS)
def page(browser, site, request):
    """A page that notes what is fetched from elsewhere, and all that is said but the theme's own log."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.elsewhere, page.said = [], []
    home = (site, "data:", "blob:")
    page.on("request", lambda asked: asked.url.startswith(home) or page.elsewhere.append(asked.url))
    page.on("console", lambda line: line.text.startswith("[PST]") or page.said.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    yield page
    page.close()


def open_page(page, address):
    """Open a page of the book, and wait for its formulas."""
    page.goto(address)
    page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_and_no_wider_than_the_window(page, site, name):
    open_page(page, site + name)
    assert page.locator("mjx-merror").all_text_contents() == []
    assert page.evaluate(TOO_WIDE) == []
    assert (page.elsewhere, page.said) == ([], [])


def test_a_formula_is_broken_only_where_it_does_not_fit(page, site):
    """The first of lesson 2 fits everywhere; its fourth is wider than a telephone."""
    open_page(page, site + "notebooks/02_vae.html")
    heights = page.locator("article div.math svg").evaluate_all("all => all.map(svg => svg.clientHeight)")
    assert heights[0] < 60 and (heights[3] < 60) == (page.viewport_size["width"] == 1280)


def test_what_is_too_wide_is_found(page, site):
    page.goto(site + "index.html")
    page.evaluate("""() => document.querySelector("article").insertAdjacentHTML("beforeend",
        `<div style="overflow-x: auto"><pre style="width: 3000px">may scroll</pre></div>
         <div style="overflow: hidden"><div style="width: 3000px; height: 9px">is cut off</div></div>`)""")
    assert [line.partition(": ")[2] for line in page.evaluate(TOO_WIDE)] == ["is cut off"]


def test_the_search_finds_a_word(page, site):
    open_page(page, site + "search.html?q=guidance")
    found = page.locator("#search-results li a[href*='05_sampling']")
    found.first.wait_for()
    found.first.click()
    page.wait_for_url("**/notebooks/05_sampling.html*")
    assert (page.elsewhere, page.said) == ([], [])


def test_the_site_has_the_pages_of_its_sources_and_no_older_ones():
    sources = [path for kind in ("*.md", "*.ipynb") for path in (BUILD / "source").rglob(kind)]
    names = {path.relative_to(BUILD / "source").with_suffix(".html").as_posix() for path in sources}
    assert {*PAGES} == names | {"search.html"}


def test_the_site_is_small():
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 60e6


def test_a_picture_in_a_widgets_place_does_not_claim_to_move():
    lessons = [(HTML / name).read_text(encoding="utf-8") for name in PAGES if name.startswith("notebooks/0")]
    assert not any("Live, you can move" in lesson for lesson in lessons)
    assert sum("In JupyterLab, you can move" in lesson for lesson in lessons) >= 8
