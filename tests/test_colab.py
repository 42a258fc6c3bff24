"""The cell of `colab.py`, with which each lesson begins: what it would do on Colab, tried in an environment like it."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CELL = (ROOT / "tests" / "colab.py").read_text(encoding="utf-8").rstrip()
NEEDED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
THEIRS = {"torch": "2.9.0+cu126", "numpy": "2.0.2", "ipywidgets": "7.7.1", "tqdm": "4.67.1", "diffusers": "0.35.0"}
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def wheel(folder, name, number, needs=()):
    """An empty package as a file that pip installs."""
    about, file = f"{name}-{number}.dist-info", folder / f"{name.replace('-', '_')}-{number}-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}", *(f"Requires-Dist: {x}" for x in needs)]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/METADATA", "\n".join(lines))
        archive.writestr(f"{about}/RECORD", "")
    return file


@pytest.fixture
def index(tmp_path):
    """Of each library that the course needs, the oldest version that will do and one from the future."""
    (folder := tmp_path / "index").mkdir()
    for need in map(Requirement, NEEDED):
        for number in (next(part.version for part in need.specifier if part.operator == ">="), "99.0"):
            torch = [f"torch>={number}"] if need.name == "accelerate" else []
            wheel(folder, need.name, number, torch)
    wheel(folder, "sdlearn", "0.1.0", [*NEEDED, 'ruff>=0.12; extra == "test"'])
    return folder


@pytest.fixture
def colab(tmp_path, index):
    """Run the cell in an environment that has Colab's libraries; what it says, and the versions that are there then."""
    python = tmp_path / "there" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    offline = os.environ | offline | {"PIP_FIND_LINKS": index.as_uri(), "COLAB_RELEASE_TAG": "release-colab"}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "there"], check=True)
    files = [wheel(tmp_path, name, number) for name, number in THEIRS.items()]
    subprocess.run([python, "-m", "pip", "install", "-q", *files], env=offline, check=True)

    def run():
        cell = re.sub(r'"git\+[^"]*"', repr(str(next(index.glob("sdlearn-*")))), CELL)
        done = subprocess.run([python, "-c", cell], env=offline, capture_output=True, text=True)
        listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], env=offline, capture_output=True)
        there = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
        return done.returncode, done.stdout + done.stderr, there

    return run


@pytest.mark.slow
def test_the_cell_installs_what_is_missing_and_replaces_nothing_of_theirs(colab, index):
    fitting = next(index.glob("accelerate-1*")).rename(index / "aside")
    code, said, there = colab()
    assert code and "accelerate" in said and THEIRS.items() <= there.items()  # the only one left wants another torch
    fitting.rename(index / "accelerate-1.10-py3-none-any.whl")
    code, said, there = colab()
    assert (code, said) == (0, "")
    assert THEIRS.items() - {("diffusers", "0.35.0")} <= there.items()
    assert there["diffusers"] == "99.0"  # theirs was too old
    assert there["accelerate"] == "1.10"  # the newest would have replaced torch
    assert there.keys() - {"pip", "setuptools"} == {"sdlearn"} | {*map(name_of, NEEDED)} - {"jupyterlab"}


def name_of(need):
    return Requirement(need).name


@pytest.mark.parametrize("place", [None, "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_it_acts_on_colab_and_on_kaggle_only(monkeypatch, place):
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    if place:
        monkeypatch.setenv(place, "yes")
    calls, names = [], {}
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    exec(CELL, names)
    assert len(calls) == (2 if place else 0) and len(CELL.splitlines()) <= 20
    assert place or names.keys() - {"__builtins__"} == {"os"}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_begins_with_the_cell(path):
    code = [cell for cell in nbformat.read(path, nbformat.NO_CONVERT).cells if cell.cell_type == "code"]
    assert code[0].source == CELL and code[0].outputs == []
    assert code[0].metadata["slideshow"] == {"slide_type": "skip"}
