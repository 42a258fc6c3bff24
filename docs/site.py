"""Build the site: the lessons as a book, the live page, the reference. `make site`; node's packages are there already.

Everything comes from the repository and `node_modules`: the pages ask no other host for anything.
"""

import json
import re
import shutil
import sys
import tomllib
from functools import partial
from pathlib import Path

from live.build import build, place
from sphinx.cmd.build import main as sphinx

HERE, ROOT = Path(__file__).parent, Path(__file__).parent.parent
BUILD, NODE = HERE / "_build", HERE / "live" / "node_modules"
PAGES = ("notebooks", "docs", "sdlearn/mini", "CONTRIBUTING.md", "CHANGELOG.md")
KINDS = (".md", ".ipynb", ".png", ".gif")
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
CONTROL = '<div data-live="{}"></div>\n<script type="module" src="../live/lesson.js"></script>'
STILL = ("Live, you can move:", "In JupyterLab, you can move:")  # of a widget: here it is a picture
LIVE = re.compile(r"\[([^]]+)\]\(\.\./docs/live/([^)]+)\)")  # to the live page, which is none of Sphinx's
LINK = re.compile(r"\]\((?!\w+:)([^)#]+)")  # to another file


def gather(source: Path) -> None:
    """Copy what the pages are made of, so that the book's first page can be the site's."""
    found = [path for name in PAGES for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.suffix in KINDS]
    for path in found:
        if not {"_build", "live", "node_modules", ".ipynb_checkpoints"} & {*path.relative_to(ROOT).parts}:
            place(path, source / path.relative_to(ROOT))
    for page in source.rglob("*.md"):
        text = LINK.sub(partial(to_repository, page, source), page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
    for page in source.rglob("*.ipynb"):
        adapt(page, source)
    (source / "docs" / "index.md").rename(source / "index.md")
    place(HERE / "book.css", source / "_static" / "book.css")
    place(HERE / "icon.svg", source / "_static" / "icon.svg")
    for path in (NODE / "mathjax" / "tex-svg.js", *(NODE / "mathjax" / "sre").rglob("*.*")):  # formulas, read aloud too
        place(path, source / "_static" / path.relative_to(NODE))


def adapt(page: Path, source: Path) -> None:
    """Mend links and captions of widgets; after a cell with `"live": "noise"` in its metadata, add a slider."""
    notebook = json.loads(page.read_text(encoding="utf-8"))
    for i, cell in reversed([*enumerate(notebook["cells"])]):
        if cell["cell_type"] == "markdown":
            text = LIVE.sub(r'<a href="../live/\2">\1</a>', "".join(cell["source"]))
            cell["source"] = LINK.sub(partial(to_repository, page, source), text)
        if name := cell["metadata"].get("live"):
            control = {"cell_type": "markdown", "id": f"live-{name}", "metadata": {}, "source": CONTROL.format(name)}
            notebook["cells"].insert(i + 1, control)
    page.write_text(json.dumps(notebook).replace(*STILL), encoding="utf-8")


def to_repository(page: Path, source: Path, link: re.Match) -> str:
    """A link to a file that is no page of the book, such as code, leads to the repository."""
    target = (page.parent / link[1]).resolve()
    if target.exists() or link[1].startswith(("live/", "/")):
        return link[0]
    return f"]({ADDRESS}/blob/main/{target.relative_to(source.resolve()).as_posix()}"


if __name__ == "__main__":
    shutil.rmtree(BUILD, ignore_errors=True)  # a page that is no longer made must not stay
    gather(BUILD / "source")
    build(BUILD / "html" / "live")
    options = ["-c", str(HERE), "-d", str(BUILD / "doctrees"), "-W", "--keep-going", "-q"]
    sys.exit(sphinx([*options, str(BUILD / "source"), str(BUILD / "html")]))
