"""The house rules that a machine can read: who imports whom, what is documented, how long, what is shipped."""

import ast
import os
import re
import statistics
import subprocess
import tomllib
from graphlib import TopologicalSorter
from importlib import import_module
from inspect import get_annotations, unwrap
from pathlib import Path

import pytest
import yaml
from fastcore.docments import docments
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "sdlearn"
FILES = sorted(HOUSE.rglob("*.py"))
LESSONS = (
    *("scenes", "clip", "training", "vae", "noising", "unet", "sampling", "judging"),
    *("editing", "new_words", "measuring", "since_2022"),
)  # in their order
ROOMS = [path for path in FILES if path.relative_to(HOUSE).parts[0].removesuffix(".py") in LESSONS]
MINI = HOUSE / "mini"
SHIPPED = [path for path in sorted(MINI.rglob("*")) if path.is_file()]


def label(path):
    return path.relative_to(HOUSE).as_posix()


each_file = pytest.mark.parametrize("path", FILES, ids=label)
each_room = pytest.mark.parametrize("path", ROOMS, ids=label)


def source(path):
    return path.read_text(encoding="utf-8")


def nodes(path, *kinds):
    return [node for node in ast.walk(ast.parse(source(path))) if isinstance(node, kinds)]


def imported(path):
    """The dotted name of everything that a file imports, at its head or inside a function."""
    names = [alias.name for node in nodes(path, ast.Import) for alias in node.names]
    for node in nodes(path, ast.ImportFrom):
        names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
        assert not node.level, f"{path.name}: `from .` hides which file is meant; write `from sdlearn...`"
    return names


def module(path):
    """sdlearn/tools/hub.py -> sdlearn.tools.hub"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def of_the_course(path):
    """The modules of the course that a file imports."""
    found = {name if name in MODULES else name.rpartition(".")[0] for name in imported(path)}
    return {name for name in found if name.split(".")[0] == "sdlearn"}


# ---------------------------------------------------------------- imports run one way

GROUND = {f"sdlearn.{name}" for name in LESSONS}
SHAPES = {"sdlearn.shapes"}
BUILT_ON = {"sdlearn.training", "sdlearn.noising", "sdlearn.unet", "sdlearn.sampling"}  # by lessons 6 to 9
MAY_IMPORT = dict.fromkeys(GROUND, SHAPES) | {  # what may import which others of the course
    "sdlearn.scenes": {"sdlearn.scenes"} | SHAPES,
    "sdlearn.judging": {"sdlearn.scenes"} | SHAPES,
    **dict.fromkeys(("sdlearn.editing", "sdlearn.new_words", "sdlearn.since_2022"), BUILT_ON | SHAPES),
    "sdlearn.parts": {"sdlearn.judging", "sdlearn.parts"},
    "sdlearn.recipes": GROUND,
    "sdlearn.tools": GROUND | SHAPES | {"sdlearn.parts", "sdlearn.recipes", "sdlearn.tools"},
    "sdlearn.notebook": GROUND | SHAPES | {"sdlearn.parts", "sdlearn.tools", "sdlearn.notebook"},
}


def storey(name):
    """sdlearn.tools.hub -> sdlearn.tools"""
    return ".".join(name.split(".")[:2])


@each_file
def test_lessons_import_no_tools_and_tools_no_notebook(path):
    assert {storey(name) for name in of_the_course(path)} <= MAY_IMPORT.get(storey(module(path)), set())


def test_no_two_files_import_each_other_however_many_lie_between():
    list(TopologicalSorter({name: of_the_course(path) for name, path in MODULES.items()}).static_order())


@each_file
def test_only_the_notebook_storey_draws_plots_and_widgets(path):
    heavy = [name for name in imported(path) if name.split(".")[0] in ("matplotlib", "ipywidgets")]
    assert path.parent == HOUSE / "notebook" or path == HOUSE / "tools" / "board.py" or heavy == []


@each_file
def test_nothing_imports_notebooks(path):
    assert [name for name in imported(path) if "notebooks" in name.split(".")] == []


@each_file
def test_no_star_imports(path):
    assert [name for name in imported(path) if name.endswith(".*")] == []


@pytest.mark.parametrize("folder", [HOUSE, HOUSE / "tools", HOUSE / "notebook"], ids=lambda path: path.name)
def test_a_map_re_exports_nothing_and_names_every_file(folder):
    path = folder / "__init__.py"
    assert imported(path) == []
    named = re.findall(r"^(\w+)  +\S", ast.get_docstring(ast.parse(source(path))), re.M)
    there = {found.relative_to(folder).parts[0].removesuffix(".py") for found in folder.rglob("*.py")}
    assert {*named} - {"mini"} == there - {"__init__"}


@each_room
def test_lesson_files_do_not_print(path):
    calls = [node.func for node in nodes(path, ast.Call)]
    assert [func.lineno for func in calls if isinstance(func, ast.Name) and func.id == "print"] == []


# ---------------------------------------------------------------- documented and short


def public_functions():
    """Of the pictures only the public file: beside it are some sixty drawings, a few lines each."""
    for path in [*ROOMS, HOUSE / "parts" / "__init__.py", HOUSE / "recipes.py"]:
        file = import_module(module(path))
        for node in ast.parse(source(path)).body if path.parent.name != "scenes" or path.stem == "__init__" else ():
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield pytest.param(unwrap(getattr(file, node.name)), id=f"{label(path)} {node.name}")


@pytest.mark.parametrize("function", public_functions())
def test_public_functions_say_what_they_do_and_tensors_which_axes_they_have(function):
    assert function.__doc__
    kinds, said = get_annotations(function), docments(function)
    arrays = [name for name, kind in kinds.items() if re.search(r"^(?!.*Callable).*(Tensor|ndarray)", str(kind))]
    assert [name for name in arrays if not said[name]] == []


@each_file
def test_files_are_short(path):
    assert source(path).count("\n") <= (150 if path in ROOMS else 250)


def lines_of(function):
    """How many lines of code a function has, without its head, its docstring and the functions in it."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    inner = [node for node in body if isinstance(node, ast.FunctionDef)]
    return sum(node.end_lineno - node.lineno + 1 for node in body if node not in inner)


def test_functions_are_short():
    sizes = [lines_of(node) for path in ROOMS for node in nodes(path, ast.FunctionDef)]
    assert statistics.median(sizes) <= 8 and max(sizes) <= 30


# ---------------------------------------------------------------- one list of dependencies, several doors

PROJECT = tomllib.loads(source(ROOT / "pyproject.toml"))["project"]
PINS = [line for line in source(ROOT / "constraints.txt").splitlines() if line and not line.startswith("#")]


def test_every_constraint_is_one_version_that_any_platform_has():
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []  # no "+cpu", no path


@pytest.mark.parametrize("dependency", sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"]))
def test_every_dependency_is_pinned_within_its_range(dependency):
    wanted, pins = Requirement(dependency), dict(pin.split("==") for pin in PINS)
    assert Version(pins[wanted.name]) in wanted.specifier


def test_environment_yml_is_another_door_to_the_same_list():
    text = source(ROOT / "environment.yml")
    environment = yaml.safe_load(text)
    python, pip, extra = environment["dependencies"]
    assert environment["name"] == PROJECT["name"] and environment["channels"] == ["conda-forge"]
    assert Version(python.removeprefix("python=")) in SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip" and extra == {"pip": ["-c constraints.txt", "-e ."]}
    assert text.count("\n") <= 15


def test_the_commands_that_are_installed_exist():
    for target in PROJECT["scripts"].values():
        module, function = target.split(":")
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert function in [node.name for node in nodes(path, ast.FunctionDef)]


def test_the_readme_names_every_file_and_links_to_what_exists():
    text = source(ROOT / "README.md")
    assert [link for link in re.findall(r"\]\(([^):]+)\)", text) if not (ROOT / link).exists()] == []
    named = [path.name for path in FILES if path.parent.name not in ("checks", "scenes") and path.stem != "__init__"]
    assert [name for name in named if f"  {name} " not in text] == []


# ---------------------------------------------------------------- what is shipped


def test_the_shipped_model_is_small_safe_and_licensed():
    fast = [path for path in SHIPPED if path.parent.name == "fast"]  # the U-Net of one step, for playground and page
    assert sum(path.stat().st_size for path in SHIPPED if path not in fast) <= 25_000_000
    assert sum(path.stat().st_size for path in fast) <= 8_000_000
    assert {path.suffix for path in SHIPPED} == {".json", ".safetensors", ".md"}  # nothing that runs code when opened
    assert "license: apache-2.0" in source(MINI / "README.md")
    assert PROJECT["license"] == "Apache-2.0" and "Apache License" in source(ROOT / "LICENSE")


@pytest.mark.skipif(os.name != "posix", reason="file modes are Unix's")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(MINI).as_posix())
def test_the_shipped_model_can_be_read_by_everybody(path):
    os.umask(umask := os.umask(0))  # reads it: a checkout gives no more than the umask allows
    mode = path.stat().st_mode
    assert mode & 0o444 == 0o444 & ~umask and not mode & 0o111


def tracked():
    """Text files that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    return [name for name in listed if not name.endswith((".safetensors", ".png", ".gif")) and (ROOT / name).is_file()]


@pytest.mark.parametrize("name", tracked())
def test_no_file_names_a_path_of_some_machine(name):
    found = re.findall(r"(?<![\w.+:/-])/(?:home|root|work|Users|private|tmp/w)/\w+|[A-Z]:\\Users", source(ROOT / name))
    assert found == []
