"""One check for each exercise: it tries the learner's function and says ok, or one line that helps.

A check is written as a generator of hints; `exercise` makes the rest. A stub gets "not tried yet", an error of
the learner's own keeps its traceback. A check returns None and changes nothing. What all lessons share is here.
"""

import dis
import inspect
import io
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from copy import deepcopy
from functools import wraps
from itertools import islice, permutations
from textwrap import shorten
from types import FunctionType

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

Hints = Iterator[str | None]  # what a check yields: a hint for a mistake, None where all is right
NOTHING = "your function returns nothing: is there a `return` at its end?"
REMEDIES = {  # for what may hold the right numbers, but is no tensor
    tuple: ": return the tensor alone (is there a comma behind it?)",
    dict: ": return the tensor alone",
    float: ": leave it a tensor, without `.item()`",
    list: ": `torch.stack` or `torch.tensor` makes one of it",
    np.ndarray: ": `torch.from_numpy` makes one of it",
}


class Hint(Exception):
    """One line about an answer that cannot be looked at any further."""


class NotTried(Hint):
    """The answer is still the stub."""


def exercise(
    number: str,  # "3.2"
    misfit: str = "",  # said above a RuntimeError, which torch raises where shapes do not fit
    **changed: str,  # an argument -> the hint where the learner's function writes into it
) -> Callable[[Callable[..., Hints]], Callable[..., None]]:
    """Make a check of a generator of hints: it prints the number, and the first hint or ok."""

    def decorate(hints):
        @wraps(hints)
        def check(*learners) -> None:
            stopped: list[dict] = []  # what the calls that ended in an error were given
            with same_state():
                try:
                    found = next(filter(None, hints(*(guarded(one, changed, stopped) for one in learners))), "ok")
                except Hint as hint:
                    found = hint
                except (RuntimeError, IndexError, ValueError, TypeError) as error:  # where shapes do not fit
                    if stopped:
                        advice = f"; {misfit}" if misfit and isinstance(error, RuntimeError) else ""
                        print(f"{number} stopped with an error; it was called with {shapes(stopped[0])}{advice}")
                    raise
            print(shorten(f"{number} {found}", 300, placeholder=" ..."))

        return check

    return decorate


@contextmanager
def same_state() -> Generator[None]:
    """Leave the random state of Python, numpy and torch, and torch's default dtype, as they were."""
    python, numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_default_dtype(dtype)


def guarded(
    learner,  # the function of an exercise, or what was handed over in its place
    changed: dict[str, str],  # as in `exercise`
    stopped: list[dict],  # gets the arguments of a call that ends in an error
) -> Callable:  # wants its arguments by the names that they have in the stub
    """The learner's function: what comes out of it is an answer that can be compared, or an error of its own.

    Raises NotTried for a stub, and Hint where it cannot be called, writes into its arguments or gives no usable tensor.
    """

    def call(**given):
        before = deepcopy(given)
        try:
            got = learner(*given.values())
        except Exception as error:
            if is_stub(error, learner):
                raise NotTried("not tried yet") from None
            if isinstance(error, TypeError) and not takes(learner, len(given)):
                wanted = f"wanted a function of {len(given)} arguments, ({', '.join(given)})"
                raise Hint(f"{wanted}; got {kind(learner)}") from None
            stopped.append(before)
            raise
        for name in given:
            if not same(given[name], before[name]):
                advice = "make a new one instead, `a = a + b`, not `a += b`"
                raise Hint(changed.get(name, f"your function changes its arguments in place (`{name}`): {advice}"))
        return plain(got)

    return call


def is_stub(error: Exception, learner) -> bool:
    """Whether the learner's own function says `raise NotImplementedError`, and not one that it calls, or torch."""
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    if not isinstance(error, NotImplementedError) or last is None:
        return False
    code = last.tb_frame.f_code
    own = code is getattr(inspect.unwrap(learner), "__code__", None)
    return own and code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def takes(learner, n: int) -> bool:
    """Whether this is a function that can be called with `n` arguments; one written in C does not say, so no."""
    try:
        inspect.signature(learner).bind(*range(n))
    except (TypeError, ValueError):
        return False
    return not isinstance(learner, type)


def same(x, y) -> bool:
    """Whether an argument is as it was: a tensor, a model, a scheduler, a tokenizer, or a list or dict of these."""
    if type(x) is not type(y):
        return False
    if isinstance(x, Tensor):
        return x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y)
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(same(x[key], y[key]) for key in x)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(same, x, y))
    if isinstance(x, Module):
        settings = [(module.training, getattr(module, "config", None)) for module in (x, y)]
        return same(*settings) and same(x.state_dict(), y.state_dict())
    if hasattr(x, "get_vocab"):
        return x.get_vocab() == y.get_vocab()
    return same(vars(x), vars(y)) if hasattr(x, "__dict__") else x == y


def plain(got):  # both: an answer
    """A tensor as an ordinary one, float32 and on the CPU; every other answer as it is."""
    if not isinstance(got, Tensor):
        return got
    if got.is_complex():
        raise Hint(f"wanted real numbers; got {got.dtype}: take `.real`")
    if got.dtype in (torch.float16, torch.bfloat16):
        raise Hint(f"wanted float32; got {got.dtype}, which rounds too much")
    try:
        return got.to_dense().as_subclass(Tensor).cpu().float().reshape(got.shape)  # a nested one has none
    except RuntimeError:
        raise Hint(f"wanted a tensor with numbers in it; yours is {got.layout} on {got.device}") from None


def kind(x) -> str:
    """What something is that is not what was wanted."""
    if inspect.isfunction(x):
        return f"the function {x.__name__}{inspect.signature(x)}"
    return f"the class {x.__name__}" if isinstance(x, type) else type(x).__name__


def shapes(given: dict) -> str:
    """Arguments in a few words: "x_t (2, 4, 8, 8), t (2,) torch.int64, ratio 0.1"."""

    def one(x):
        if isinstance(x, Tensor):
            return f"{tuple(x.shape)}" + (f" {x.dtype}" if x.dtype != torch.float32 else "")
        return str(x) if isinstance(x, int | float) else kind(x)

    return ", ".join(f"{name} {one(x)}" for name, x in given.items())


def compare(
    got,  # what the learner's function returned
    want: Tensor,  # the right answer
    wrong: Mapping[str, Tensor | Callable[[], Tensor]] | None = None,  # hint -> what a mistake gives, or makes it
    atol: float = 1e-5,
) -> str | None:  # a hint, or None where it is right
    """Say how an answer differs from the right one: nothing, a known mistake, shape, or just the numbers."""
    if got is None:
        return NOTHING
    if not isinstance(got, Tensor):
        return f"wanted a tensor; got {kind(got)}{REMEDIES.get(type(got), '')}"
    for hint, answer in {None: want, **(wrong or {})}.items():
        answer = answer if isinstance(answer, Tensor) else answer()
        if answer.shape == got.shape and torch.allclose(got, answer.float(), atol=atol):
            return hint
    if got.shape != want.shape:
        return f"wanted shape {tuple(want.shape)}; got {tuple(got.shape)}"
    if not got.isfinite().all():
        return "there are NaNs or infinities: a division by 0, or the root or the logarithm of a negative number?"
    return f"right shape, wrong numbers: the largest difference is {(got - want.float()).abs().max():.3g}"


def ask(
    learner: Callable,  # as `exercise` hands it to a check
    hint_for: Callable[..., str | None],  # says what is wrong with an answer; None where it is right
    **given: Tensor | float,  # the arguments, as the stub names them
) -> str | None:  # a hint, or None where all is right
    """Call the learner's function, and say what is wrong with the answer.

    An error of the learner's own is raised as it is, unless the arguments in another order give the
    right answer: then that is what went wrong.
    """
    swapped = f"right, if its arguments came in another order: they come as ({', '.join(given)})"
    try:
        hint = hint_for(learner(**given))
    except Hint:
        raise
    except Exception:
        if right_in_another_order(learner, hint_for, given):
            return swapped
        raise
    return swapped if hint and right_in_another_order(learner, hint_for, given) else hint


def right_in_another_order(
    learner: Callable,  # these three as in `ask`
    hint_for: Callable[..., str | None],
    given: dict[str, Tensor | float],
) -> bool:
    """Whether the function gives the right answer to the same arguments in some other order."""
    for other in islice(permutations(given.values()), 1, None):
        with suppress(Exception), redirect_stdout(io.StringIO()):  # what a learner prints is shown once, not six times
            if hint_for(learner(**dict(zip(given, other, strict=True)))) is None:
                return True
    return False


def yours(check: Callable, mine: FunctionType, ours: FunctionType) -> FunctionType:
    """The learner's function where it passes its check, else the course's: no cell is held up by a stub."""
    with suppress(Exception), redirect_stdout(said := io.StringIO()):  # the check itself has shown an error
        check(mine)
    passed = said.getvalue().endswith(" ok\n")
    print(f"From here on we use {'your ' + mine.__name__ if passed else 'the course’s ' + ours.__name__}.")
    return mine if passed else ours
