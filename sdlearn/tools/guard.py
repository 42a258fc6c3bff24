"""Around every command: any error ends in one line, with a traceback only if you ask for it."""

import io
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from fastcore.script import CliError

if "--debug" in sys.argv[1 : [*sys.argv, "--"].index("--")]:  # here, since each command would have to list it too
    sys.argv.remove("--debug")
    os.environ["SDLEARN_DEBUG"] = "1"
if sys.argv[1:2] == [""]:
    # fastcore drops an empty first word, but not behind "--": draw draws anything then, and train trains nothing
    sys.argv[1:] = [*sys.argv[2:], "--", ""]


@contextmanager
def one_line() -> Generator[None]:
    """Turn any error into `CliError`, which is printed as one line with exit status 1, unless --debug is given.

    A warning becomes a line too, which begins with "note:". What the terminal cannot print, such as a path in
    another encoding, is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note  # ty: ignore[invalid-assignment]
            yield
    except KeyboardInterrupt:
        raise CliError("stopped") from None
    except Exception as error:
        if isinstance(error, CliError) or os.environ.get("SDLEARN_DEBUG"):
            raise
        said = printable(error)
        if not isinstance(error, OSError | ValueError | MemoryError):  # ours say what to do; this is a library's
            said = f"{type(error).__name__}: {said} (--debug shows where it comes from)"
        raise CliError(said) from error


def note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning, in place of `warnings.showwarning`."""
    print(f"note: {printable(message)}", file=sys.stderr)


def printable(error: BaseException | str) -> str:
    """What an error says, in one line, without characters that would move the terminal's cursor."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
