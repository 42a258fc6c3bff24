"""What can be said of the notebooks without running them; that they run is nbval's to say (`make test`)."""

import ast
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
FILES = {  # notebook -> its file: from lesson 1 on they share their name
    "00_start_here": "scenes",
    "01_clip": "clip",
    "02_vae": "vae",
    "03_noising": "noising",
    "04_unet": "unet",
    "05_sampling": "sampling",
    "06_editing": "editing",
    "07_new_words": "new_words",
    "08_measuring": "measuring",
    "09_since_2022": "since_2022",
}
LESSONS = [FOLDER / f"{stem}.ipynb" for stem in FILES]
SOLUTIONS = [FOLDER / "solutions" / path.name for path in LESSONS[1:]]
BACKGROUND = {1, 6, 31, 37, 50, 110}  # rows that prose may carry

each_notebook = pytest.mark.parametrize(
    "path", LESSONS + SOLUTIONS, ids=lambda path: path.relative_to(FOLDER).with_suffix("").as_posix()
)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@cache
def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path):
    return [output for cell in code(path) for output in cell.outputs]


def seen(cell):
    """All the text that a cell left."""
    streams = [output.text for output in cell.outputs if output.output_type == "stream"]
    data = [output.data for output in cell.outputs if "data" in output]
    return "".join(streams + [text for kinds in data for kind, text in kinds.items() if kind.startswith("text/")])


def headings(cell):
    """The headings in a cell of prose, with their #s; a comment in a block of code is none."""
    prose = re.sub(r"^```.*?^```", "", cell.source, flags=re.S | re.M) if cell.cell_type == "markdown" else ""
    return re.findall(r"^(#+ +.+?) *$", prose, re.M)


# ---------------------------------------------------------------- every notebook


def test_there_are_no_other_notebooks():
    here = [*FOLDER.glob("*.ipynb"), *FOLDER.glob("solutions/*.ipynb")]
    assert sorted(here) == sorted(LESSONS + SOLUTIONS)


@each_notebook
def test_is_a_valid_notebook_of_at_most_one_megabyte(path):
    nbformat.validate(read(path))
    assert path.stat().st_size <= 2**20


@each_notebook
def test_stores_no_widgets(path):
    assert "widgets" not in read(path).metadata  # a state that GitHub refuses to show
    stored = [kind for cell in code(path) for kind in kinds(cell)]
    assert "application/vnd.jupyter.widget-view+json" not in stored  # JupyterLab would say that its model is not found


@each_notebook
def test_was_run_once_from_top_to_bottom(path):
    assert [cell.execution_count for cell in code(path)] == list(range(1, len(code(path)) + 1))


@each_notebook
def test_keeps_its_outputs(path):
    silent = [statement for cell in code(path) if not cell.outputs for statement in ast.parse(cell.source).body[-1:]]
    assert outputs(path)
    assert [line for line in map(ast.unparse, silent) if line.startswith(("print(", "show.", "check_"))] == []


@each_notebook
def test_what_a_cell_prints_is_one_output(path):
    printed = [[output.get("name") for output in cell.outputs] for cell in code(path)]  # a progress bar is not 80 lines
    assert [names for names in printed if any(a == b == "stdout" for a, b in zip(names, names[1:], strict=False))] == []


@each_notebook
def test_nothing_went_wrong(path):
    assert [output for output in outputs(path) if output.output_type == "error" or output.get("name") == "stderr"] == []


@pytest.mark.parametrize(
    "unwanted",
    [
        pytest.param(r"(?<![\w.:/])/(?:home|root|Users|work|private|tmp|usr|opt|mnt|var)/\w|[A-Z]:\\\w", id="a path"),
        pytest.param(r"\bat 0x[0-9a-fA-F]{6,}", id="an address in memory"),
        pytest.param(r"\d\d:\d\d<|\bit/s|s/it\b", id="the clock of a progress bar"),
        pytest.param(r"\d\.\d{8,}", id="a raw float"),
    ],
)
@each_notebook
def test_no_output_holds(path, unwanted):
    assert [text for cell in code(path) for text in seen(cell).splitlines() if re.search(unwanted, text)] == []


@each_notebook
def test_cells_are_short(path):
    assert [cell.source for cell in code(path) if len(cell.source.splitlines()) > 20] == []


@each_notebook
def test_installs_nothing(path):
    install = re.compile(r"^\s*[%!]+\s*(pip|conda|mamba|uv|apt)|\b(pip3?|conda|mamba|uv) install\b", re.M)
    assert [cell.source for cell in code(path) if install.search(cell.source)] == []


@each_notebook
def test_links_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\[[^\]]+\]\(([^):#\s]+)(?:#[^)]*)?\)", prose)  # to files, not to the web
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_notebook
def test_no_cell_escapes_the_tests(path):
    tags = [tag for cell in code(path) for tag in cell.metadata.get("tags", [])]
    assert [tag for tag in tags if tag.startswith("nbval") or tag == "raises-exception"] == []
    markers = [line for cell in code(path) for line in cell.source.splitlines() if "NBVAL" in line]
    assert set(markers) <= {"# NBVAL_CHECK_OUTPUT"}  # with anything behind it on its line it is ignored


def named(tree, context):
    """The names that are read (`ast.Load`) or set (`ast.Store`) in a piece of code."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}


def set_by(cell):
    """The names that a cell leaves to the cells below it."""
    functions = {node.name: node for node in cell.body if isinstance(node, ast.FunctionDef)}
    return {*functions}.union(*(named(node, ast.Store) for node in cell.body if node not in functions.values()))


@each_notebook
def test_no_imported_name_is_given_to_something_else(path):
    cells = [ast.parse(cell.source) for cell in code(path)]
    imports = [node for cell in cells for node in ast.walk(cell) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    assert imported & set().union(*map(set_by, cells)) == set()


@each_lesson
def test_what_a_widget_reads_is_not_changed_further_down(path):
    cells = [ast.parse(cell.source) for cell in code(path)]
    functions = {node.name: node for cell in cells for node in cell.body if isinstance(node, ast.FunctionDef)}
    for i, cell in enumerate(cells):
        calls = [
            node for node in ast.walk(cell) if isinstance(node, ast.Call) and ast.unparse(node.func) == "widgets.move"
        ]
        for function in (functions[ast.unparse(call.args[0])] for call in calls):
            own = named(function, ast.Store) | {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
            read_outside = {function.name} | named(function, ast.Load) - own
            assert read_outside & set().union(*(set_by(other) for other in cells[i + 1 :])) == set()


@each_lesson
def test_without_a_kernel_and_without_javascript_a_widget_is_a_picture_and_a_line(path):
    live = [cell for cell in code(path) if re.search(r"^(widgets\.|Playground\()", cell.source, re.M)]
    assert all("image/png" in kinds(cell) and "Live, you can move" in seen(cell) for cell in live)
    page, _ = HTMLExporter().from_filename(path)
    assert page.count("Live, you can move") == len(live)
    assert page.count('src="data:image/png;base64') == sum(kinds(cell).count("image/png") for cell in code(path))


@pytest.mark.parametrize("lessons, limit", [(LESSONS[:6], 22_000), (LESSONS[6:], 12_000)], ids=["0 to 5", "6 to 9"])
def test_lessons_hold_no_more_words_than_they_may(lessons, limit):
    prose = [cell.source for path in lessons for cell in read(path).cells if cell.cell_type == "markdown"]
    assert sum(len(text.split()) for text in prose) <= limit


@each_lesson
def test_a_lesson_has_at_most_150_cells(path):
    assert len(read(path).cells) <= 150


@pytest.mark.parametrize("path", LESSONS[1:6], ids=list(FILES)[1:6])
def test_the_first_stub_is_in_the_first_third(path):
    stubs = [i for i, cell in enumerate(read(path).cells) if "raise NotImplementedError" in cell.source]
    assert stubs[0] < len(read(path).cells) / 3


@each_lesson
def test_is_a_talk_of_ten_to_fifteen_slides(path):
    marks = [(cell.metadata.get("slideshow", {}).get("slide_type"), cell) for cell in read(path).cells]
    assert {mark for mark, _ in marks} <= {"slide", "fragment", "skip", "notes", None}
    talk = [(mark, cell) for mark, cell in marks if mark not in ("skip", "notes")]
    assert talk[0][0] == "slide" and 10 <= [mark for mark, _ in talk].count("slide") <= 15
    order = "".join({"slide": "s", None: "c", "fragment": "f"}[mark] for mark, _ in talk)
    assert "fc" not in order  # the extension would show such a cell one key too late
    assert all(cell.cell_type == "markdown" for mark, cell in talk if mark == "slide")


def kinds(cell):
    """In what forms a cell left what it shows."""
    return [kind for output in cell.outputs for kind in output.get("data", {})]


# ---------------------------------------------------------------- lesson, solution, file and test go together


@pytest.mark.parametrize("stem, file", FILES.items())
def test_a_lesson_has_its_file_and_its_test(stem, file):
    assert file == "scenes" or stem[3:] == file
    here = [ROOT / "sdlearn" / name for name in (f"{file}.py", f"{file}/__init__.py")]
    assert sum(path.is_file() for path in here) == 1 and (ROOT / "tests" / f"test_{file}.py").is_file()


def exercises(path):
    """Title of each exercise -> the code cells up to the next heading that is not below it."""
    found, here = {}, []
    level = "##" if path in SOLUTIONS else "###"  # in a lesson they stand below the section of their idea
    for cell in read(path).cells:
        if cell.cell_type == "code":
            here.append(cell)
        for heading in headings(cell):
            if heading.startswith(f"{level} Exercise"):
                here = found[heading.lstrip("# ")] = []
            elif not heading.startswith(f"{level}#"):
                here = []
    return found


@pytest.mark.parametrize("lesson, solution", zip(LESSONS[1:], SOLUTIONS, strict=True), ids=list(FILES)[1:])
def test_lesson_and_solutions_have_the_same_exercises(lesson, solution):
    numbers = [re.match(r"Exercise (\d)\.(\d):", heading).groups() for heading in exercises(lesson)]
    assert numbers and numbers == [(lesson.stem[1], str(i + 1)) for i in range(len(numbers))]
    assert list(exercises(lesson)) == list(exercises(solution))


@pytest.mark.parametrize("path", LESSONS[1:] + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_exercise_is_checked_and_says_how_it_stands(path):
    verdict = "ok" if path in SOLUTIONS else "not tried yet"
    for heading, cells in exercises(path).items():
        number = heading.split()[1].rstrip(":")
        checks = [cell for cell in cells if re.search(r"^(?:checks\.)?check_\w+\(", cell.source, re.M)]
        said = [line for cell in checks for line in seen(cell).splitlines() if line.startswith(f"{number} ")]
        assert said and set(said) == {f"{number} {verdict}"}
        stubs = [cell for cell in cells if "raise NotImplementedError" in cell.source]
        assert bool(stubs) == (path in LESSONS)


# ---------------------------------------------------------------- the index


def rows():
    """Number, lesson and heading from each line of the index that begins with a number."""
    index = FOLDER / "INDEX.md"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    return re.findall(r"^\| *(\d+) *\|[^|]*\| *\[(\w+)\]\([\w.]+\) *\| *(.+?) *\| *$", text, re.M)


@each_lesson
def test_the_index_points_at_headings_that_exist(path):
    there = {heading.lstrip("# ") for cell in read(path).cells for heading in headings(cell)}
    assert {heading for _, lesson, heading in rows() if lesson == path.stem} - there == set()


def test_the_index_points_at_these_lessons_only():
    assert {lesson for _, lesson, _ in rows()} <= set(FILES)


def test_the_index_has_every_row_of_the_course():
    here, wanted = {int(number) for number, _, _ in rows()}, {*range(1, 131)}
    assert wanted - here <= BACKGROUND and here <= wanted
