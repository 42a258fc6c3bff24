"""All checks of the exercises, whatever a learner hands to them: one line comes out, and nothing is changed."""

import ast
import inspect
import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdlearn.noising import STABLE_DIFFUSION
from sdlearn.notebook.checks import yours
from sdlearn.notebook.checks.noising import check_noise_of, check_velocity
from sdlearn.notebook.checks.scenes import check_unit_range

FOLDER = Path(__file__).parent.parent / "notebooks" / "solutions"


def statements(path):
    """All statements of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ast.parse("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")).body


def calls(path):
    """The calls of checks in a notebook, in the order of its exercises."""
    values = [node.value for node in statements(path) if isinstance(node, ast.Expr)]
    return [value for value in values if ast.unparse(value).startswith("check_")]


SOLUTIONS = {
    f"{int(path.stem[:2])}.{i}": (path, call)
    for path in sorted(FOLDER.glob("*.ipynb"))
    for i, call in enumerate(calls(path), 1)
}
NUMBERS = ["0.1", *SOLUTIONS]


@cache
def names(path):
    """What a notebook imports and defines, and what it sets before the first exercise."""
    found, ready = {}, True
    for node in statements(path):
        ready = ready and not isinstance(node, ast.FunctionDef)
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef) or ready and isinstance(node, ast.Assign):
            exec(compile(ast.Module([node], []), path.name, "exec"), found)
    return found


def solved(number):
    """The check of an exercise, and the functions that the notebook of solutions hands to it."""
    if number == "0.1":
        return check_unit_range, [lambda images: images / 2 + 0.5]
    path, call = SOLUTIONS[number]
    return names(path)[call.func.id], [names(path)[one.id] for one in call.args]


each_exercise = pytest.mark.parametrize("number", NUMBERS)


def said(capsys, number, change):
    """What a check prints where `change` stands before the learner's functions, in one line."""
    check, learners = solved(number)
    assert check(*map(change, learners)) is None
    out = capsys.readouterr().out
    assert out.startswith(f"{number} ") and out.count("\n") == 1 and out.endswith("\n")
    return out.removeprefix(f"{number} ").strip()


def answering(make):
    """Functions that give what `make` makes of the right answer, a function that computes it, and the arguments."""
    return lambda learner: lambda *given: make(lambda: learner(*given), given)


# ---------------------------------------------------------------- every kind of answer


def each(change):
    """The right answer with its tensors changed; where there are none, another tensor."""

    def make(right, given):
        got = right()
        if isinstance(got, tuple):
            return tuple(map(change, got))
        return change(got if isinstance(got, Tensor) else torch.arange(6.0).reshape(2, 3))

    return make


class Own(Tensor):
    """A kind of tensor."""


WRONG = {  # a kind of answer -> what is made of the right one, and of the arguments
    "nothing": lambda right, given: None,
    "an ellipsis": lambda right, given: ...,
    "NotImplemented": lambda right, given: NotImplemented,
    "a number": lambda right, given: 0.5,
    "not a number": lambda right, given: float("nan"),
    "infinity": lambda right, given: float("inf"),
    "a boolean": lambda right, given: True,
    "a complex number": lambda right, given: 1j,
    "a huge number": lambda right, given: 10**400,
    "numpy's": lambda right, given: np.zeros((2, 3)),
    "a number of numpy's": lambda right, given: np.float32(0.5),
    "a list": lambda right, given: [right()],
    "lists in lists": lambda right, given: [[1.0, 2.0], [3.0]],
    "a string": lambda right, given: "two\nlines",
    "bytes": lambda right, given: b"two\nlines",
    "a tuple": lambda right, given: (right(),),
    "a pair": lambda right, given: (right(), right()),
    "a pair of nothing": lambda right, given: (None, None),
    "a dictionary": lambda right, given: {"answer": right()},
    "a dictionary of nothing": lambda right, given: dict.fromkeys(given[0] if isinstance(given[0], dict) else "ab"),
    "a dictionary of lines": lambda right, given: {"two\nlines " * 99: None},
    "a set": lambda right, given: {1, 2},
    "a range": lambda right, given: range(4),
    "a generator": lambda right, given: (right() for _ in range(2)),
    "a class": lambda right, given: Tensor,
    "a module": lambda right, given: torch,
    "a network": lambda right, given: torch.nn.Linear(2, 2),
    "a function": lambda right, given: right,
    "an error": lambda right, given: ValueError("two\nlines"),
    "an object": lambda right, given: object(),
    "an argument": lambda right, given: given[0],
    "another argument": lambda right, given: given[-1],
    "integers": each(lambda x: torch.zeros(x.shape, dtype=torch.int64)),
    "booleans": each(lambda x: torch.zeros(x.shape, dtype=torch.bool)),
    "complex numbers": each(lambda x: x * (1 + 0j)),
    "half precision": each(lambda x: x.half()),
    "bfloat16": each(lambda x: x.bfloat16()),
    "8 bits": each(lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)),
    "on no device": each(lambda x: x.to("meta")),
    "empty": each(lambda x: torch.empty(0)),
    "no rows": each(lambda x: torch.empty(0, *x.shape[1:])),
    "one axis more": each(lambda x: x[None]),
    "all axes in one": each(lambda x: torch.cat([x.flatten(), x.flatten()])),
    "a single number": each(lambda x: x.float().mean() + 0.5),
    "a shape that broadcasts": each(lambda x: x.float().reshape(1, -1)[:, :1].reshape(*[1] * (x.dim() + 1))),
    "one number, expanded": each(lambda x: torch.tensor(0.125).expand(x.shape)),
    "sparse": each(lambda x: torch.zeros(x.shape).to_sparse()),
    "nested": each(lambda x: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
    "NaN": each(lambda x: torch.full(x.shape, torch.nan)),
    "one NaN": each(lambda x: torch.where(torch.arange(x.numel()).view(x.shape) == 0, torch.nan, x)),
    "infinities": each(lambda x: torch.full(x.shape, torch.inf)),
    "huge": each(lambda x: x.float() + 1e30),
    "a kind of tensor": each(lambda x: (x.float() + 1).as_subclass(Own)),
    "graph": each(lambda x: (x.float() + 1).requires_grad_() * 1),
}
RIGHT = {  # other forms of the right answer
    "double precision": lambda x: x.double(),
    "not contiguous": lambda x: x[..., None].repeat_interleave(2, -1)[..., 0],
    "with gradient": lambda x: x.float().requires_grad_() * 1,
    "a parameter": lambda x: torch.nn.Parameter(x.float()),
    "a kind of tensor": lambda x: x.as_subclass(Own),
    "sparse": lambda x: x.to_sparse() if x.dim() else x,
    "up to rounding": lambda x: x.float() * (1 + 2e-7),
}


@each_exercise
def test_the_solution_is_ok(capsys, number):
    assert said(capsys, number, lambda learner: learner) == "ok"


# Checks that run a model take turns, each with every fifth kind: all with all took a minute, and found nothing more.
HEAVY = ["1.3", "2.3", "2.5", "4.3", "4.5"]
TRIED = [(n, kind) for n in NUMBERS for i, kind in enumerate(WRONG) if n not in HEAVY or i % 5 == HEAVY.index(n)]


@pytest.mark.filterwarnings("ignore")  # of torch, about kinds of tensors that will change or go
@pytest.mark.parametrize("number, kind", TRIED)
def test_a_wrong_kind_of_answer_gets_one_line(capsys, number, kind):
    assert said(capsys, number, answering(WRONG[kind])) not in ("ok", "not tried yet")


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("number", [number for number in NUMBERS if number not in ("1.4", "3.2")])  # no tensors there
def test_other_forms_of_the_right_answer_are_ok(capsys, number, kind):
    assert said(capsys, number, answering(each(RIGHT[kind]))) == "ok"


@each_exercise
def test_what_is_no_function_gets_one_line(capsys, number):
    assert said(capsys, number, lambda learner: None).startswith("wanted a function of ")


NO_FUNCTIONS = {
    "got int": 3,
    "got str": "text",
    "got list": [],
    "got Tensor": torch.ones(3),
    "got module": torch,
    "got the function <lambda>()": lambda: 1,
    "(x_t, t)": lambda x_t, t: x_t,
    "(x_t, t, x0, eps)": lambda x_t, t, x0, eps: x_t,
    "(*given, needed)": lambda *given, needed: 1,
    "(x_t, x0)": torch.no_grad()(lambda x_t, x0: x_t),
    "got builtin_function_or_method": len,
    "got the class Module": torch.nn.Module,
}


@pytest.mark.parametrize("got", NO_FUNCTIONS)
def test_the_line_says_what_came_in_place_of_the_function(capsys, got):
    line = said(capsys, "3.3", lambda learner: NO_FUNCTIONS[got])
    assert line.startswith("wanted a function of 3 arguments, (x_t, t, x0); got ") and got in line


def test_the_second_of_two_functions_is_looked_at_as_well(capsys):
    _, (velocity, back) = solved("3.4")
    for make in WRONG.values():
        check_velocity(velocity, answering(make)(back))
        out = capsys.readouterr().out
        assert out.startswith("3.4 ") and out.count("\n") == 1 and out != "3.4 ok\n"


@pytest.mark.parametrize(
    "kind, hint",
    {
        "a tuple": "got tuple: return the tensor alone",
        "a list": "got list: `torch.stack` or `torch.tensor` makes one of it",
        "numpy's": "got ndarray: `torch.from_numpy` makes one of it",
        "a class": "got the class Tensor",
        "complex numbers": "wanted real numbers; got torch.complex64",
        "a number": "got float: leave it a tensor",
        "half precision": "wanted float32; got torch.float16",
        "on no device": "a tensor with numbers in it",
        "one NaN": "NaNs",
        "empty": "wanted shape (3, 4, 2, 2); got (0,)",
    }.items(),
)
def test_the_line_says_what_to_change(capsys, kind, hint):
    assert hint in said(capsys, "3.3", answering(WRONG[kind]))


# ---------------------------------------------------------------- nothing is changed


def spoil(x):
    """Change something in place; says whether it could."""
    if isinstance(x, Tensor):
        x.copy_(~x if x.dtype == torch.bool else x + 1)
    elif isinstance(x, torch.nn.Module):
        spoil(next(x.parameters()))
    elif isinstance(x, dict):
        x.popitem()
    elif isinstance(x, list):
        x.append(x[0])
    elif hasattr(x, "add_tokens"):
        x.add_tokens(["xyzzy"])
    elif hasattr(x, "set_timesteps"):
        x.set_timesteps(7)
    else:
        return False
    return True


def spoil_within(x):
    """Change what lies inside of a list or a dictionary."""
    inner = [*x.values()] if isinstance(x, dict) else x
    return isinstance(inner, list) and (spoil_within(inner[-1]) or spoil(inner[-1]))


@pytest.mark.parametrize("how", [spoil, spoil_within])
@each_exercise
def test_no_argument_is_changed_unnoticed(capsys, number, how):
    check, learners = solved(number)
    for which, learner in enumerate(learners):
        for i, name in enumerate(inspect.signature(learner).parameters):
            done = []

            def spoiling(*given, learner=learner, i=i, done=done):
                got = learner(*given)
                done.append(how(given[i]))
                return got

            check(*learners[:which], spoiling, *learners[which + 1 :])
            out = capsys.readouterr().out
            assert "change" in out if any(done) else out == f"{number} ok\n", (name, out)


def states():
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


def unsettle(*_):
    """Draw from all random states, and set them."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1), torch.rand(3), torch.set_default_dtype(torch.float64)


@each_exercise
def test_random_states_and_default_dtype_stay_as_they_were(capsys, number):
    check, learners = solved(number)

    def crash(*given):
        unsettle()
        raise KeyError

    before = states()
    said(capsys, number, lambda learner: lambda *given: [learner(*given), unsettle()][0])  # right
    said(capsys, number, lambda learner: unsettle)  # wrong: gives nothing
    with pytest.raises(KeyError):
        check(*[crash] * len(learners))
    assert states() == before and torch.get_default_dtype() == torch.float32


# ---------------------------------------------------------------- errors in the learner's function


def bare(*_):
    raise NotImplementedError


def with_words(*_):
    with torch.no_grad():
        raise NotImplementedError("one line, in place of this one")


def helper():
    raise NotImplementedError


STUBS = [bare, with_words, torch.no_grad()(bare)]
NO_STUBS = [
    lambda *_: helper(),
    lambda *_: torch.tensor([1, 2]).softmax(-1),
    lambda *_: torch.ones(2, device="meta").cpu(),
    lambda *_: torch.utils.data.Dataset()[0],
    lambda *_: np.random.BitGenerator().random_raw(),
]


@each_exercise
def test_a_stub_is_not_tried_yet(capsys, number):
    assert {said(capsys, number, lambda learner, stub=stub: stub) for stub in STUBS} == {"not tried yet"}


@each_exercise
def test_nothing_returned_is_told_and_a_crash_keeps_its_traceback(capsys, number):
    assert "return" in said(capsys, number, lambda learner: lambda *_, **__: None)
    check, learners = solved(number)
    with pytest.raises(ZeroDivisionError):
        check(*[lambda *_, **__: 1 / 0] * len(learners))


@pytest.mark.parametrize("answer", NO_STUBS)
def test_not_implemented_elsewhere_is_an_error(capsys, answer):
    with pytest.raises(NotImplementedError):
        check_noise_of(answer)
    assert "not tried yet" not in capsys.readouterr().out


def test_above_an_error_of_shapes_stand_the_shapes(capsys):
    with pytest.raises(RuntimeError, match="must match the size"):
        check_noise_of(lambda x_t, t, x0: x_t * torch.ones(5))
    assert capsys.readouterr().out == (
        "3.3 stopped with an error; it was called with x_t (3, 4, 2, 2), t (3,) torch.int64, x0 (3, 4, 2, 2)\n"
    )


@each_exercise
def test_an_error_keeps_its_traceback_with_one_line_above(capsys, number):
    def my_answer(*_):
        raise TypeError("mine")

    check, learners = solved(number)
    with pytest.raises(TypeError, match="mine") as caught:
        check(*[my_answer] * len(learners))
    assert caught.traceback[-1].name == "my_answer"
    above = capsys.readouterr().out
    assert above.startswith(f"{number} stopped with an error; it was called with ")
    assert above.count("\n") == 1 and len(above) < 300


def test_above_an_error_that_shapes_do_not_explain_stands_nothing(capsys):
    with pytest.raises(NameError):
        check_noise_of(lambda x_t, t, x0: x_0)  # noqa: F821
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- going on with what the learner wrote


def predict_noise(x_t, t, x0):
    a = STABLE_DIFFUSION.alpha_bar_at(t, x0)
    return (x_t - a.sqrt() * x0) / (1 - a).sqrt()


def right(x_t, t, x0):
    return predict_noise(x_t, t, x0)


def wrong(x_t, t, x0):
    return x0


def stub(x_t, t, x0):
    raise NotImplementedError


def broken(x_t, t, x0):
    return x_t @ None


@pytest.mark.parametrize(("learner", "own"), [(right, True), (wrong, False), (stub, False), (broken, False)])
def test_a_lesson_goes_on_with_what_passed_its_check(capsys, learner, own):
    chosen = yours(check_noise_of, learner, predict_noise)
    assert chosen is (learner if own else predict_noise)
    name = "your right" if own else "the course’s predict_noise"
    assert capsys.readouterr().out == f"From here on we use {name}.\n"
