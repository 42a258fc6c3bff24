"""The checks of lesson 0: whether everything is ready, and the first exercise."""

import platform
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sdlearn import parts
from sdlearn.notebook.checks import Hints, compare, exercise

IMPORTED_AS = {"pillow": "PIL"}  # packages whose module has another name


def check_environment() -> None:
    """Say, line by line, whether what the course needs is here: OK, or what to do."""
    remedies = 0
    for what, remedy in environment():
        remedies += bool(remedy)
        print(f"TO DO  {what}: {remedy}" if remedy else f"OK     {what}")
    print("All is ready." if not remedies else f"{remedies} to do, then restart the kernel and run this cell again.")


def environment() -> Iterable[tuple[str, str]]:  # what is needed; what to do about it, "" where all is well
    """Look at Python, each package on the one list in pyproject.toml, the shipped model and the device."""
    here, wanted = platform.python_version(), metadata("sdlearn")["Requires-Python"]
    yield f"Python {here}", "" if SpecifierSet(wanted).contains(here, True) else f"the course needs Python {wanted}"
    needs = map(Requirement, requires("sdlearn") or ())
    yield from (package(need) for need in needs if not need.marker or need.marker.evaluate({"extra": ""}))
    try:
        parts.load("mini", "cpu"), parts.load_clip()
        yield "the shipped model", ""
    except (OSError, ValueError, MemoryError) as error:
        yield "the shipped model", str(error)
    yield f"device: {parts.best_device().type} (a CPU is enough)", ""


def package(
    need: Requirement,  # name and lowest version
) -> tuple[str, str]:  # as in `environment`
    """Whether a package is there, new enough, and can be imported."""
    remedy = f'run `pip install "{need}"`'
    try:
        here = version(need.name)
        import_module(IMPORTED_AS.get(need.name, need.name))
    except PackageNotFoundError:
        return need.name, f"not installed; {remedy}"
    except (ImportError, OSError) as error:
        return need.name, f"cannot be imported ({error}); {remedy}"
    return f"{need.name} {here}", "" if need.specifier.contains(here, True) else f"too old; {remedy}"


@exercise("0.1")
def check_unit_range(
    my_unit_range: Callable,  # images -> images
) -> Hints:
    """Numbers from -1 to 1 must become numbers from 0 to 1."""
    for low, high in ((-1, 1), (-0.5, 0.75)):
        images = torch.linspace(low, high, 24).reshape(1, 3, 2, 4)
        wrong = {
            "nothing has changed yet: the smallest number is still -1": images,
            "you halved, but the numbers are still around 0: move them up": images / 2,
            "you moved the numbers up, but their range is still 2 wide: halve it": images + 1,
            "halve first, then move up by 0.5; or move up by 1, then halve": (images + 0.5) / 2,
            "the order of / and + matters: images / 2 + 0.5 is not images / (2 + 0.5)": images / 2.5,
            "-1 .. 1 is two wide and 0 .. 1 is one: halve as well": images + 0.5,
            "0 to 1, not 0 to 255: leave the 255 out": (images / 2 + 0.5) * 255,
            "that makes every picture black to white: a dark one must stay dark": (images - low) / (high - low),
            "negative numbers are not to be cut off: -1 becomes 0, and 0 becomes 0.5": images.clamp(0, 1),
        }
        yield compare(my_unit_range(images=images), images / 2 + 0.5, wrong)
