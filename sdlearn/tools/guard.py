"""Around every command: whatever goes wrong ends in one line, and a traceback only for those who ask for it."""

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

from fastcore.script import CliError

if sys.argv[1:2] == [""]:
    # fastcore drops an empty first word, but not behind "--": draw paints anything then, and train trains nothing
    sys.argv[1:] = [*sys.argv[2:], "--", ""]


@contextmanager
def one_line() -> Generator[None, None, None]:
    """Turn any error into `CliError`, which is printed as one line with exit status 1; with SDLEARN_DEBUG=1, not.

    What the terminal cannot print, such as a path in another encoding, is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except CliError:
        raise
    except KeyboardInterrupt:
        raise CliError("stopped") from None
    except (OSError, ValueError, MemoryError) as error:  # ours: they say what to do
        raise CliError(printable(error)) from error
    except Exception as error:  # a library's, or a mistake of ours
        if os.environ.get("SDLEARN_DEBUG"):
            raise
        kind, more = type(error).__name__, "SDLEARN_DEBUG=1 before the command shows where it comes from"
        raise CliError(f"{kind}: {printable(error)} ({more})") from error


def printable(error: BaseException) -> str:
    """What an error says, in one line, without characters that would move the terminal's cursor."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
