"""The book: the lessons as they were last run, the teachers' page, and the reference, built by `make site`.

`site.py` gathers the pages; Sphinx runs none of the notebooks.
"""

import inspect
import tomllib
from pathlib import Path

from fastcore.docments import docments

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project, version, author = "sdlearn", PROJECT["version"], "the authors of sdlearn"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
default_role = "literal"  # `name` is code, as it is in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the shapes beside each parameter say more
mathjax_path = "mathjax/tex-svg.js"  # `make site` puts it there: no formula is fetched from elsewhere
mathjax4_config = {"svg": {"displayOverflow": "linebreak"}}  # where the window is narrower than a formula

html_theme = "sphinx_book_theme"
html_title = "sdlearn"
html_copy_source = html_use_index = html_domain_indices = False  # the search finds it all
html_static_path = ["_build/source/_static"]
html_css_files = ["book.css"]
html_favicon = "_build/source/_static/icon.svg"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": PROJECT["urls"]["Repository"],
    "use_repository_button": True,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the search field stands in the sidebar
    "pygments_light_style": "tango",
}


def with_parameters(app, what, name, thing, options, lines) -> None:
    """Put the comment beside each parameter into the reference; a bar in a formula is no markup."""
    lines[:] = [line.replace("|", r"\|") for line in lines]
    if name == "sdlearn":  # its columns stay
        lines[1:] = ["", "::", "", *(f"    {line}" for line in lines[1:])]
    ours = what in ("function", "method") and thing.__module__.startswith("sdlearn")  # Sphinx asks for imports, too
    if not ours or not inspect.isfunction(inspect.unwrap(thing)):
        return
    said = {name: comment for name, comment in docments(thing).items() if comment}
    fields = [f":param {name}: {comment}" for name, comment in said.items() if name != "return"]
    fields += [f":return: {said['return']}"] if "return" in said else []
    lines += ["", *(" ".join(field.split()).replace("*", r"\*") for field in fields), ""]


def setup(app) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", with_parameters)
