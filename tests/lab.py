"""JupyterLab as `make lab` starts it, over a copy of the notebooks, and a browser on it; for tests and benchmarks."""

import ast
import dis
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parent.parent
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN = """async cells => {
    window.done = false
    for (const cell of cells) {
        window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell
        await window.jupyterapp.commands.execute('notebook:run-cell')
    }
    window.done = true
}"""
CELLS = "[...document.querySelectorAll('.jp-Notebook .jp-Cell')]"
NOISE = re.compile(  # what a browser without a network says of itself, and JupyterLab when a page is closed early
    "favicon|net::ERR_|Failed to load resource|Could not restore the debugger state"
)


def flags():
    """What the Makefile gives JupyterLab."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"--[\w.]+=\S+", re.search(r"^LAB = (.*?)\n\t", text, re.M | re.S)[1])


@contextmanager
def running_lab(folder):
    """JupyterLab over a copy of the notebooks in `folder`: its address, and its token."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    more = [f"--ServerApp.port={port}", "--no-browser", "--expose-app-in-browser", f"--IdentityProvider.token={token}"]
    root = ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", *flags(), *more, *root]
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}  # not those of whoever tests
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            assert process.poll() is None, (folder / "lab.log").read_text()
            try:
                urlopen(f"{address}/api/status?token={token}", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address, token
    finally:
        process.terminate()
        process.wait(20)


def open_lesson(page, lab, name):
    """A notebook in JupyterLab, ready to be run."""
    address, token = lab
    page.goto(f"{address}/lab/tree/notebooks/{name}?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)


def run(page, cells, seconds=1200):  # against a standstill: several times what a lesson needs on slow cores
    """Run some cells, one after the other, and wait for the last."""
    page.wait_for_function(READY, timeout=60_000)
    page.evaluate(f"cells => {{ ({RUN})(cells) }}", cells)
    page.wait_for_function("() => window.done", timeout=1000 * seconds, polling=500)  # rarely: the kernel computes


def cells_of(name):
    return json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))["cells"]


def globals_of(code):
    """The names that the functions of a cell read from outside."""
    inner = [const for const in code.co_consts if hasattr(const, "co_code")]
    own = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    return own.union(*map(globals_of, inner))


def root(node):
    """The variable that an expression begins with, in a set: x for `x[0].y`, nothing for `f(x)`."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def changed_in_place(node):
    """What a statement may change without assigning to it: `x[0] = 1`, `x.add(1)`, `losses = fit(x, ...)`."""
    call = getattr(node, "value", None)
    func = getattr(call, "func", None)
    if re.match("(fit$|train_)", getattr(func, "attr", getattr(func, "id", ""))):  # `recipes.train_unet` as well
        return root(call.args[0])
    alone = isinstance(node, ast.Expr) and isinstance(call, ast.Call)  # what it is good for, it must do in place
    targets = [call.func] if alone else node.targets if isinstance(node, ast.Assign) else []
    return set().union(*(root(target) for target in targets if not isinstance(target, ast.Name)))


def names_of(source):
    """The names that a cell reads from others, sets, and changes in place."""
    code, reads, sets, changes = compile(source, "a cell", "exec"), set(), set(), set()
    for one in dis.get_instructions(code):
        if one.opname == "STORE_NAME":
            sets.add(one.argval)
        elif one.opname == "LOAD_NAME" and one.argval not in sets:
            reads.add(one.argval)
    reads |= globals_of(code) - sets
    for node in ast.walk(ast.parse(source)):
        changes |= changed_in_place(node)
    return reads, sets, changes


def needed(name, widget=re.compile(r"^(widgets\.|Playground\()", re.M)):
    """The cells of a lesson with a widget, and every cell that they need: the others are run under nbval."""
    code = [(i, "".join(cell["source"])) for i, cell in enumerate(cells_of(name)) if cell["cell_type"] == "code"]
    imports = [source for _, source in code if re.search(r"^(from|import) ", source, re.M)]
    imported = set().union(*(names_of("\n".join(re.findall(r"^(?:from|import) .*", x, re.M)))[1] for x in imports))
    chosen, wanted = [], set()
    for i, source in reversed(code):
        reads, sets, changes = names_of(source)
        if widget.search(source) or wanted & (sets | changes - imported):
            chosen.append(i)
            wanted = wanted - sets | reads
    return chosen[::-1]


def slides(name):
    """The slides of a lesson, each as the numbers of its cells; the first of them opens it."""
    found = []
    for i, cell in enumerate(cells_of(name)):
        kind = cell["metadata"].get("slideshow", {}).get("slide_type")
        if kind == "slide":
            found.append([i])
        elif kind not in ("skip", "notes"):
            found[-1].append(i)
    return found


@contextmanager
def presenting(page):
    """A notebook as slides, from the first on: a talk begins at the cell that is chosen."""
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0 }")
    page.evaluate("() => window.jupyterapp.commands.execute('deck:start')")
    page.wait_for_selector(".jp-Deck .jp-deck-mod-onscreen")
    try:
        yield
    finally:  # the server keeps whether slides are shown: wait until it has heard, or the next page opens as slides
        with page.expect_response(lambda answer: "slideshow" in answer.url and answer.request.method == "PUT"):
            page.evaluate("() => window.jupyterapp.commands.execute('deck:stop')")


def turn_to(page, cell):
    """Go to the slide that this cell is on; all that comes before the cell is revealed."""
    page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i }", cell)
    page.wait_for_function(f"() => {CELLS}[{cell}].matches('.jp-deck-mod-visible')")


def slide_size(page):
    """Width and height that the cells on a slide need, in pixels."""
    return page.evaluate("""() => {
        const cells = [...document.querySelectorAll(".jp-deck-mod-onscreen")]
        if (!cells.length) throw new Error("no cell on the slide")
        const boxes = cells.map(cell => cell.getBoundingClientRect())
        const parts = cells.flatMap(cell => [...cell.querySelectorAll(".jp-OutputArea-output, .cm-scroller, td, img")])
        return [Math.max(...parts.map(part => part.getBoundingClientRect().left + part.scrollWidth), 0),
                Math.max(...boxes.map(box => box.bottom)) - Math.min(...boxes.map(box => box.top))]
    }""")


def cell_of(box):
    """The number of the cell that a widget stands under."""
    return box.evaluate(f"box => {CELLS}.indexOf(box.closest('.jp-Cell'))")


def boxes(page):
    """The widgets on a page, each with its controls."""
    return page.locator(".jp-OutputArea-output > .widget-vbox, .jp-OutputArea-output .widget-vbox:not(.widget-vbox *)")


def sources(box):
    """What the pictures of a widget show at the moment."""
    return box.locator("img.widget-image").evaluate_all("pictures => pictures.map(picture => picture.src)")


def wait_for_change(page, box, before, seconds=60):
    """Until a picture of a widget is another one."""
    start = time.perf_counter()
    while sources(box) == before:
        assert time.perf_counter() - start < seconds, "the picture did not change"
        page.wait_for_timeout(5)
