"""One check for each exercise: it tries the learner's function and says ok, or one line that helps.

A stub that still raises NotImplementedError gets "not tried yet". An error of the learner's own
keeps its traceback. A check returns None and changes nothing. Each lesson's checks lie in the
file of its name; what they share is here.
"""

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from itertools import islice, permutations

import torch
from torch import Tensor


def verdict(
    exercise: str,  # its number, "3.2"
    hints: Callable[[], Iterable[str | None]],  # runs the learner's code; yields a hint for a mistake, None where right
) -> None:
    """Print what became of an exercise: the first hint, or ok."""
    try:
        hint = next((hint for hint in hints() if hint), None)
    except NotImplementedError as error:
        if not is_stub(error):
            raise
        print(f"{exercise} not tried yet")
        return
    print(f"{exercise} {hint or 'ok'}")


def is_stub(error: NotImplementedError) -> bool:
    """Whether a stub raised it, and not torch, which says what is "not implemented for" which type of numbers."""
    return "implemented for" not in str(error)


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
    if got.isnan().any():
        return "there are NaNs: 0 divided by 0, or the root or the logarithm of a negative number?"
    return f"right shape, wrong numbers: the largest difference is {(got.float() - want.float()).abs().max():.3g}"


def ask(
    learner: Callable,  # the function of an exercise
    order: str,  # its arguments as the stub has them, "(x_t, t, x0)"
    given: tuple[Tensor | float, ...],  # what it is called with
    hint_for: Callable[..., str | None],  # says what is wrong with an answer; None where it is right
) -> str | None:  # a hint, or None where all is right
    """Call the learner's function with copies of its arguments, and say what is wrong with the answer.

    An error of the learner's own is raised as it is, unless the arguments in another order give the
    right answer: then that is what went wrong.
    """
    swapped = f"right, if its arguments came in another order: they come as {order}"
    mine = copies(given)
    try:
        got = learner(*mine)
    except Exception as error:
        if isinstance(error, NotImplementedError) or not right_in_another_order(learner, given, hint_for):
            raise
        return swapped
    if changed(mine, given):
        return "your function changes its argument: make a new tensor instead"
    hint = hint_for(got)
    return swapped if hint and right_in_another_order(learner, given, hint_for) else hint


def right_in_another_order(
    learner: Callable,  # the function of an exercise
    given: tuple[Tensor | float, ...],  # its arguments, in the stub's order
    hint_for: Callable[..., str | None],  # as in `ask`
) -> bool:
    """Whether the function gives the right answer to the same arguments in some other order."""
    for other in islice(permutations(given), 1, None):
        try:
            with redirect_stdout(io.StringIO()):  # what the learner prints is shown once, not six times
                if hint_for(learner(*copies(other))) is None:
                    return True
        except Exception:
            continue
    return False


def changed(
    mine: Iterable[Tensor | float],  # what the learner's function was called with
    given: Iterable[Tensor | float],  # the same, as it was before
) -> bool:
    """Whether the learner's function wrote into its arguments."""
    return any(
        isinstance(x, Tensor) and not torch.equal(x, torch.as_tensor(y)) for x, y in zip(mine, given, strict=True)
    )


def copies(
    given: tuple[Tensor | float, ...],
) -> list[Tensor | float]:
    """The same values, free to be changed."""
    return [x.clone() if isinstance(x, Tensor) else x for x in given]
