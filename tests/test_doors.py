"""The doors on other people's machines (notebooks/TEACHING.md), as far as they can be tried without those machines."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
NAMES = ("Makefile", "pyproject.toml", "environment.yml", ".devcontainer/devcontainer.json")
MAKEFILE, PYPROJECT, ENVIRONMENT, CONTAINER = ((ROOT / name).read_text(encoding="utf-8") for name in NAMES)
PROJECT, CONTAINER = tomllib.loads(PYPROJECT)["project"], json.loads(CONTAINER)


def test_the_container_calls_what_the_makefile_has():
    variables = dict(re.findall(r"^(\w+) [:?]?= ?(.*)$", MAKEFILE, re.M))
    targets = " ".join(re.findall(r"^([^\s#:=][^:=\n]*):(?!=)", MAKEFILE, re.M))
    while "$(" in targets:  # a variable may name another
        targets = re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], targets)
    commands = {command for key, command in CONTAINER.items() if key.endswith("Command")}
    assert commands and commands <= {f"make {target}" for target in targets.split()}
    assert "LAB_ARGS ?=" in MAKEFILE and f"--port={CONTAINER['forwardPorts'][0]} " in CONTAINER["remoteEnv"]["LAB_ARGS"]


def test_the_containers_python_is_one_that_the_course_takes():
    assert CONTAINER["image"].rpartition(":")[2] in SpecifierSet(PROJECT["requires-python"])


def test_binder_installs_the_course_with_torchs_cpu_build():
    environment, post_build = (ROOT / ".binder" / name for name in ("environment.yml", "postBuild"))
    python = yaml.safe_load(ENVIRONMENT)["dependencies"][0]
    assert yaml.safe_load(environment.read_text())["dependencies"] == [python, "uv"]
    command = post_build.read_text().splitlines()[-1]
    assert command == "uv pip install --system --no-cache --torch-backend=cpu -c constraints.txt -e ."


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The course as a wheel, unpacked where nothing else is."""
    clone, there = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sdlearn", clone / "sdlearn", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    shutil.unpack_archive(next(clone.glob("*.whl")), there, "zip")
    return there


@pytest.mark.slow
def test_the_wheel_holds_all_code_and_all_weights(wheel):
    here = {path.relative_to(ROOT) for path in (ROOT / "sdlearn").rglob("*") if path.is_file()}
    here = {path for path in here if "__pycache__" not in path.parts}
    assert {path.relative_to(wheel) for path in (wheel / "sdlearn").rglob("*") if path.is_file()} == here


@pytest.mark.slow
@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_the_wheels_commands_run(wheel, tmp_path, command):
    options = {"sdlearn-draw": ["a cat", "--steps", "1"], "sdlearn-measure": ["--n", "1", "--steps", "1"]}
    module, function = PROJECT["scripts"][command].split(":")
    script = tmp_path / command  # as pip writes it
    script.write_text(f"import {module}\nassert {module}.__file__.startswith({str(wheel)!r})\n{module}.{function}()\n")
    done = subprocess.run(
        [sys.executable, script, *options.get(command, ["--help"])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout, done.stderr[-2000:]


# ---------------------------------------------------------------- what is typed at `make`

posix = pytest.mark.skipif(not shutil.which("make"), reason="no make")


def made(folder, *arguments, **environment):
    """What a recipe of the Makefile sees of PROMPT and OUT."""
    show = 'show: ; @printf \'%s|%s\' "$$PROMPT" "$$OUT"'
    command = ["make", "-s", "-f", str(ROOT / "Makefile"), f"--eval={show}", "show", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@posix
def test_what_is_typed_reaches_the_command_as_it_was_typed(tmp_path):
    prompt, out = "a $(shell touch made) `touch made` $5 'cat' \"x\" $HOME", 'runs/my own $(1) "model"'
    assert made(tmp_path, f"PROMPT={prompt}", f"OUT={out}") == f"{prompt}|{out}"
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_prompt_of_the_shells_own_is_not_painted(tmp_path):
    said = made(tmp_path, PROMPT="%n@%m %1~ %#", OUT="elsewhere")
    assert said == "a photograph of an astronaut riding a horse on the moon|runs/mine"


@posix
@pytest.mark.parametrize("moved", [True, False])
def test_a_checkout_that_was_moved_gets_an_environment_of_its_own(tmp_path, moved):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stamp, python = tmp_path / ".venv" / ".installed", tmp_path / ".venv" / "bin" / "python"
    stamp.write_text("/somewhere/else\n" if moved else f"{tmp_path.resolve()}\n")
    python.touch()
    made(tmp_path)
    assert python.exists() == stamp.exists() == (not moved)


def test_what_a_shell_runs_keeps_its_line_ends_on_every_system():
    rules = (ROOT / ".gitattributes").read_text(encoding="utf-8")
    for name in (".ci/run", ".binder/postBuild", "Makefile"):
        assert re.search(rf"^/?{re.escape(name)} text eol=lf$", rules, re.M)
        assert b"\r" not in (ROOT / name).read_bytes()
