"""The house rules that a machine can read: who imports whom, what is documented, how long, what is shipped."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from fastcore.docments import docments
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "sdlearn").rglob("*.py"))
LESSONS = ("scenes", "clip", "vae", "noising", "unet", "sampling")  # lessons 0 to 5
ROOMS = [ROOT / "sdlearn" / f"{name}.py" for name in LESSONS]
PARTS = {"tokenizer", "text_encoder", "vae", "unet", "clip"}  # parameters whose name says all there is to say
MINI = ROOT / "sdlearn" / "mini"
SHIPPED = [path for path in sorted(MINI.rglob("*")) if path.is_file()]

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
each_room = pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.name)


def source(path):
    return path.read_text(encoding="utf-8")


def nodes(path, *kinds):
    return [node for node in ast.walk(ast.parse(source(path))) if isinstance(node, kinds)]


def imported(path):
    """The dotted name of everything that a file imports, at its head or inside a function."""
    names = [alias.name for node in nodes(path, ast.Import) for alias in node.names]
    for node in nodes(path, ast.ImportFrom):
        names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
        assert not node.level, f"{path.name}: `from .` hides which room is meant; write `from sdlearn...`"
    return names


# ---------------------------------------------------------------- imports run one way


@each_room
def test_a_room_imports_no_room(path):
    assert [name for name in imported(path) if name.split(".")[0] == "sdlearn"] == []


@each_file
def test_only_show_draws_plots_and_widgets(path):
    heavy = [name for name in imported(path) if name.split(".")[0] in ("matplotlib", "ipywidgets")]
    assert path.name in ("show.py", "touch.py", "studio.py") or heavy == []


@each_file
def test_nothing_imports_notebooks(path):
    assert [name for name in imported(path) if "notebooks" in name.split(".")] == []


@each_file
def test_no_star_imports(path):
    assert [name for name in imported(path) if name.endswith(".*")] == []


def test_the_map_re_exports_nothing_and_names_every_file():
    path = ROOT / "sdlearn" / "__init__.py"
    assert imported(path) == []
    named = re.findall(r"^(\w+)  +\S", ast.get_docstring(ast.parse(source(path))), re.M)
    there = {path.relative_to(ROOT / "sdlearn").parts[0].removesuffix(".py") for path in FILES}
    assert {*named} == there - {"__init__"}


@each_room
def test_rooms_do_not_print(path):
    calls = [node.func for node in nodes(path, ast.Call)]
    assert [func.lineno for func in calls if isinstance(func, ast.Name) and func.id == "print"] == []


# ---------------------------------------------------------------- documented and short


def public_functions():
    """Of the pictures only the public part: behind it come some forty drawings, a few lines each."""
    for path in ROOMS:
        text = source(path)
        if path.stem == "scenes":
            text = text[: text.index("# ------", text.index("the public part"))]
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield pytest.param(node, ast.get_source_segment(text, node), id=f"{path.stem}.{node.name}")


@pytest.mark.parametrize("node, text", public_functions())
def test_public_functions_say_what_they_take_and_give(node, text):
    assert ast.get_docstring(node)
    comments = docments(text)
    assert [name for name in comments if not comments[name] and name not in PARTS] == []


@each_file
def test_files_are_short(path):
    assert source(path).count("\n") <= 250 or path == ROOMS[0]  # lesson 0's room is the drawings


# ---------------------------------------------------------------- one list of dependencies, several doors

PROJECT = tomllib.loads(source(ROOT / "pyproject.toml"))["project"]
PINS = [line for line in source(ROOT / "constraints.txt").splitlines() if line and not line.startswith("#")]


def test_every_constraint_is_one_version_that_any_platform_has():
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []  # no "+cpu", no path


@pytest.mark.parametrize("dependency", PROJECT["dependencies"])
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
    rooms = [path.name for path in FILES if path.parent.name == "sdlearn" and path.stem != "__init__"]
    assert [name for name in rooms if f"  {name} " not in text] == []


# ---------------------------------------------------------------- what is shipped


def test_the_shipped_model_is_small_safe_and_licensed():
    assert sum(path.stat().st_size for path in SHIPPED) <= 25_000_000
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
