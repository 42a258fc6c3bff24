"""Around every command: one line for whatever goes wrong."""

import os
import subprocess
import sys

import pytest
from fastcore.script import CliError

from sdlearn.tools import draw
from sdlearn.tools.guard import one_line, printable


@pytest.mark.parametrize(
    "error", [AssertionError(), ImportError("no\nsuch"), MemoryError(), IndexError("7"), Exception("x")]
)
def test_any_error_becomes_one_line(error, monkeypatch):
    with pytest.raises(CliError) as said, one_line():
        raise error
    assert "\n" not in str(said.value) and type(error).__name__ in str(said.value) or str(error) in str(said.value)


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, MemoryError])
def test_those_who_ask_get_the_traceback(monkeypatch, error):
    monkeypatch.setenv("SDLEARN_DEBUG", "1")
    with pytest.raises(error), one_line():
        raise error


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (["a cat", "--debug"], ["a cat"]),
        (["--debug", "", "--n", "2"], ["--n", "2", "--", ""]),
        (["--", "--debug"], ["--", "--debug"]),  # a prompt
    ],
)
def test_debug_is_an_option_of_every_command(said, heard):
    code = "import os, sys; from sdlearn.tools import guard; print(sys.argv[1:], os.environ.get('SDLEARN_DEBUG'))"
    quiet = {name: value for name, value in os.environ.items() if name != "SDLEARN_DEBUG"}
    done = subprocess.run([sys.executable, "-c", code, *said], env=quiet, capture_output=True, text=True)
    assert done.stdout == f"{heard} {None if said[0] == '--' else 1}\n", done.stderr


def test_a_command_shows_a_traceback_to_those_who_ask(tmp_path):
    command = [sys.executable, "-m", "sdlearn.tools.draw", "a cat", "--model", str(tmp_path), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert f"{tmp_path / 'model_index.json'} is missing: copy it again" in done.stderr


def test_ctrl_c_ends_with_one_line():
    with pytest.raises(CliError, match="^stopped$"), one_line():
        raise KeyboardInterrupt


def test_what_would_move_the_cursor_is_escaped():
    assert printable(ValueError("a \x1b[2J b\r\nc \u202e d \u2603")) == r"a \x1b[2J b c \u202e d" + " \u2603"


def test_a_path_that_the_terminal_cannot_print_is_no_failure(tmp_path):
    out = tmp_path / "\N{SNOWMAN}.png"
    code = f"from sdlearn.tools import draw; draw.main('a cat', steps=1, out=draw.Path({str(out)!r}))"
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 0 and out.is_file() and "\\u2603.png" in done.stdout, done.stderr


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")])
def test_a_picture_is_what_its_name_says(tmp_path, name, kind):
    draw.main("a cat", steps=1, out=tmp_path / name)
    assert draw.Image.open(tmp_path / name).format == kind


@pytest.mark.parametrize("where", [{"out": "a.xyz"}, {"out": "picture"}, {"film": "a.mp4"}, {"film": "b.png"}])
def test_a_format_that_there_is_not_is_refused_before_anything_is_painted(tmp_path, monkeypatch, where):
    monkeypatch.setattr(draw, "draw", None)
    where = {"out": tmp_path / "a.png"} | {name: tmp_path / file for name, file in where.items()}
    with pytest.raises(CliError, match="give a name that ends in .*webp"):
        draw.main("a cat", **where)
