"""One check for each exercise: it tries the learner's function and says ok, or one line that helps.

A stub that still raises NotImplementedError gets "not tried yet". An error of the learner's own
keeps its traceback. A check returns None and changes nothing. Each lesson's checks lie in the
file of its name; what they share is here.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def verdict(
    exercise: str,  # its number, "3.2"
    hints: Callable[[], Iterable[str | None]],  # runs the learner's code; yields a hint for a mistake, None where right
) -> None:
    """Print what became of an exercise: the first hint, or ok."""
    try:
        hint = next((hint for hint in hints() if hint), None)
    except NotImplementedError:
        print(f"{exercise} not tried yet")
        return
    print(f"{exercise} {hint or 'ok'}")


def compare(
    got,  # what the learner's function returned
    want: Tensor,  # the right answer
    wrong: dict[str, Tensor] | None = None,  # hint -> what the typical mistake returns
    atol: float = 1e-5,
) -> str | None:  # a hint, or None where it is right
    """Say how an answer differs from the right one: nothing, shape, a known mistake, or just the numbers."""
    if got is None:
        return "your function returns nothing: is there a `return` at its end?"
    if not isinstance(got, Tensor):
        return f"wanted a tensor; got {type(got).__name__}"
    if got.shape != want.shape:
        return f"wanted shape {tuple(want.shape)}; got {tuple(got.shape)}"
    if torch.allclose(got.float(), want.float(), atol=atol):
        return None
    for hint, mistake in (wrong or {}).items():
        if mistake.shape == got.shape and torch.allclose(got.float(), mistake.float(), atol=atol):
            return hint
    return f"right shape, wrong numbers: the largest difference is {(got.float() - want.float()).abs().max():.3g}"
