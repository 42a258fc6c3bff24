"""The lessons in a real browser, in JupyterLab as `make lab` starts it. Skipped where there is no Chromium."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the lessons are not tried in a browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: the lessons are not tried in a browser")

ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
NOISE = re.compile(  # what a browser without a network says of itself, and JupyterLab when a page is closed early
    "favicon|net::ERR_|Failed to load resource|Could not restore the debugger state"
)


def flags():
    """What the Makefile gives JupyterLab."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"--[\w.]+=\S+", re.search(r"^LAB = (.*?)\n\t", text, re.M | re.S)[1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a copy of the notebooks: its address, and its token."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    more = [f"--ServerApp.port={port}", "--no-browser", "--expose-app-in-browser", f"--IdentityProvider.token={token}"]
    root = ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", *flags(), *more, *root]
    log = (folder / "lab.log").open("w")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        assert process.poll() is None, (folder / "lab.log").read_text()
        try:
            urlopen(f"{address}/api/status?token={token}", timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
    yield address, token
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    yield page
    page.close()


def open_lesson(page, lab, name):
    address, token = lab
    page.goto(f"{address}/lab/tree/notebooks/{name}?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)


def test_nobody_gets_in_without_the_token(page, lab):
    page.goto(f"{lab[0]}/lab")
    assert "login" in page.url


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_opens_with_its_pictures_and_formulas(page, lab, name, tmp_path):
    open_lesson(page, lab, name)
    page.wait_for_selector(".jp-RenderedMarkdown h1")
    page.wait_for_selector(".jp-OutputArea img", timeout=60_000)
    assert page.locator(".MathJax_Error, mjx-merror").count() == 0
    assert [line for line in page.said if not NOISE.search(line)] == []


def test_the_first_lesson_runs(page, lab):
    open_lesson(page, lab, "00_start_here.ipynb")
    page.wait_for_function("() => document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]')")
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=busy]')")
    page.wait_for_function(
        "() => document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]')", timeout=240_000
    )
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert [line for line in page.said if not NOISE.search(line)] == []
