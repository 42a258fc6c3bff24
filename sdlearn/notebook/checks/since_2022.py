"""The checks of lesson 9."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from sdlearn import since_2022
from sdlearn.notebook.checks import Hints, NotTried, ask, compare, exercise, plain
from sdlearn.unet import attention


@exercise("9.1")
def check_on_line(
    my_on_line: Callable,  # x0, t, eps -> x_t
    my_end_of_line: Callable,  # and back: x_t, t, v -> x0
) -> Hints:
    """A point on the straight line from picture to noise, and back along the velocity."""
    x0, eps = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(90))  # all alike: no axis raises
    row = torch.tensor([0.0, 0.3, 0.8, 1.0])
    t = row[:, None, None, None]
    x_t, v, mix = (1 - t) * x0 + t * eps, eps - x0, lambda t: (1 - t) * x0 + t * eps
    wrong = {
        "time 0 is the picture and time 1 the noise: you have turned the line round": t * x0 + (1 - t) * eps,
        "t has gone along the columns of each latent: give it three more axes, b 1 1 1": mix(row),
        "t has gone along the rows of each latent: give it three more axes, b 1 1 1": mix(row[:, None]),
        "t has gone along the channels of each latent: give it three more axes, b 1 1 1": mix(row[:, None, None]),
        "no roots here: the line is straight": (1 - t).sqrt() * x0 + t.sqrt() * eps,
        "x0 has a factor too, 1 - t": x0 + t * eps,
        "the noise has a factor too, t": (1 - t) * x0 + eps,
        "that is the velocity: it is the same everywhere on the line": v,
        "the noise is added, not subtracted": (1 - t) * x0 - t * eps,
    }
    hint = compare(my_on_line(x0=x0, t=row, eps=eps), x_t, wrong)
    yield hint and f"my_on_line: {hint}"
    back = {
        "v leads towards the noise, so go the other way: subtract it": x_t + t * v,
        "from time t it is t, not 1 - t, to the picture": x_t - (1 - t) * v,
        "the whole of v leads from noise to picture: at time t, only t of it is left": x_t - v,
        "that is the noise: the picture lies at the other end": eps,
        "v is not the noise: nothing has to be divided": (x_t - t * v) / (1 - t),
        "t has gone along the columns of each latent: give it three more axes, b 1 1 1": x_t - row * v,
    }
    try:
        hint = ask(my_end_of_line, partial(compare, want=x0, wrong=back, atol=1e-4), x_t=x_t, t=row, v=v)
    except NotTried:
        hint = "my_on_line is right, this one is not tried yet"
    yield hint and f"my_end_of_line: {hint}"


def swirl() -> tuple[Callable, list[str]]:
    """A velocity that is one line of arithmetic, and a list of what was wrong with the calls of it."""
    complaints = []

    def v(x: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.shape != x.shape[:1]:
            complaints.append("v wants one time for each picture: `t.expand(len(x))` makes b of one")
            t = torch.as_tensor(t, dtype=torch.float32).flatten()[:1].expand(len(x))
        return (x.flip(-1) + 2 * t[:, None, None, None]).tanh()

    return v, complaints


def walk(step: Callable, noise: Tensor, times: Tensor) -> Tensor:
    """All the places that a solver visits."""
    path = [noise]
    for t, t_next in pairwise(times):
        path.append(step(path[-1], t.expand(len(noise)), t_next.expand(len(noise)), t_next - t))
    return torch.stack(path)


@exercise("9.2")
def check_euler(
    my_euler: Callable,  # v, noise, steps -> path
) -> Hints:
    """Follow a velocity from noise to picture, in equal steps."""
    yield from followed(my_euler, euler_answers, 92, (4, 1))


def followed(my_solver: Callable, answers: Callable, seed: int, counts: tuple[int, ...]) -> Hints:
    """What is said of a solver that takes so many steps; `answers` gives the right path and hint -> a wrong one."""
    noise = torch.randn(3, 2, 2, 4, generator=torch.Generator().manual_seed(seed))
    for steps in counts:
        v, complaints = swirl()
        got = my_solver(v=v, noise=noise, steps=steps)
        yield complaints[0] if complaints else None
        yield compare(got, *answers(v, noise, steps), atol=1e-4)


def euler_answers(v: Callable, noise: Tensor, steps: int) -> tuple[Tensor, dict[str, Tensor]]:  # right, hint -> wrong
    """Euler's steps, and mistakes in them."""
    down, up = torch.linspace(1, 0, steps + 1), torch.linspace(0, 1, steps + 1)
    good = walk(lambda x, t, s, dt: x + dt * v(x, t), noise, down)
    return good, {
        "return all places, noise first, as one tensor: `torch.stack(path)`": good[-1],
        "the noise itself is missing: it is the first place": good[1:],
        "the last place is missing: it is the picture": good[:-1],
        "time runs from 1, the noise, down to 0": walk(lambda x, t, s, dt: x + dt * v(x, t), noise, up),
        "t_next - t is negative, so add it times v": walk(lambda x, t, s, dt: x - dt * v(x, t), noise, down),
        "a step is 1 / steps long: multiply by t_next - t": walk(lambda x, t, s, dt: x - v(x, t), noise, down),
        "ask v where the step begins, at t, not at t_next": walk(lambda x, t, s, dt: x + dt * v(x, s), noise, down),
        "ask v where you are now, not at the noise": walk(lambda x, t, s, dt: x + dt * v(noise, t), noise, down),
    }


@exercise("9.3")
def check_bend(
    my_bend: Callable,  # path -> one number
) -> Hints:
    """How much longer a path is than the straight line between its ends."""
    g = torch.Generator().manual_seed(93)
    path = torch.randn(5, 3, 2, 2, 2, generator=g).cumsum(0) * torch.tensor([1.0, 3.0, 9.0])[:, None, None, None]
    step, whole = path.diff(dim=0).flatten(2), (path[-1] - path[0]).flatten(1)
    far, length = whole.norm(dim=-1), step.norm(dim=-1).sum(0)
    each, squares = path.diff(dim=0).norm(dim=2), step.square().sum()
    want = length.sum() / far.sum()
    wrong = {
        "the other way round: the paths divided by the straight lines": 1 / want,
        "add up the steps of a path, no mean": want / 4,
        "add up first, then divide: a picture that ends near its noise would count too much": (length / far).mean(),
        "one number for all pictures: add up over them too": length / far,
        "that is how long the paths are: divide by the straight lines": length.sum(),
        "each path has its own distance between its ends": length.sum() / whole.norm(),
        "a length for each step of each path, then their sum: not one for all paths at once": path.diff(dim=0)
        .flatten(1)
        .norm(dim=1)
        .sum()
        / whole.norm(),
        "one distance for each picture, then their sum": step.transpose(1, 2).flatten(1).norm(dim=0).sum()
        / whole.norm(),
        "a distance is taken over channels, height and width at once": each.sum()
        / (path[-1] - path[0]).norm(dim=1).sum(),
        "a distance is the root of the sum of squares": squares / whole.square().sum(),
    }
    straight = torch.linspace(0, 1, 5)[:, None, None, None, None] * path[-1:]
    yield compare(my_bend(path=path), want, wrong, atol=1e-4)
    hint = compare(my_bend(path=straight), torch.tensor(1.0), atol=1e-4)
    yield hint and f"a straight path has a bend of 1: {hint}"


@exercise("9.4")
def check_modulate(
    my_modulate: Callable,  # x, shift, scale -> x
) -> Hints:
    """LayerNorm, then scale and shift from the condition (arXiv 2212.09748)."""
    g = torch.Generator().manual_seed(94)
    x, shift, scale = 2 + 3 * torch.randn(4, 4, 4, generator=g), *torch.randn(2, 4, 4, generator=g)  # no axis raises
    normed = F.layer_norm(x, (4,), eps=1e-6)
    s, m = scale[:, None], shift[:, None]
    wrong = {
        "the factor is 1 + scale: where scale is 0, x stays as it is": normed * s + m,
        "x has to be normalised first: `F.layer_norm(x, x.shape[-1:])`": x * (1 + s) + m,
        "shift and scale are the wrong way round": normed * (1 + m) + s,
        "give shift and scale an axis for the positions, b 1 d": normed * (1 + scale) + shift,
        "LayerNorm runs over the d numbers of one position": F.layer_norm(x, (4, 4)) * (1 + s) + m,
        "shift is added at the end, after the scale": (normed + m) * (1 + s),
        "the shift is missing": normed * (1 + s),
        "scale is missing": normed + m,
    }
    yield compare(my_modulate(x=x, shift=shift, scale=scale), normed * (1 + s) + m, wrong, atol=1e-3)


@exercise("9.5")
def check_joint_attention(
    my_joint_attention: Callable,  # q, k, v of the picture, then of the text -> both, mixed
) -> Hints:
    """One attention over the positions of a picture and the tokens of its text."""
    g = torch.Generator().manual_seed(95)
    for l, m in ((6, 3), (4, 5)):  # noqa: E741
        q, k, v = torch.randn(3, 2, l, 8, generator=g)
        q_text, k_text, v_text = torch.randn(3, 2, m, 8, generator=g)
        got = my_joint_attention(q=q, k=k, v=v, q_text=q_text, k_text=k_text, v_text=v_text)
        if not isinstance(got, tuple | list) or len(got) != 2:
            yield compare(None, q) if got is None else "wanted two things: `return picture, text`"
        pair = [plain(x) for x in got]
        if [getattr(x, "ndim", None) for x in pair] == [3, 4]:
            yield "`attention` returns the result and the weights: split the result, at the picture's end"
        keys, values = torch.cat([k, k_text], 1), torch.cat([v, v_text], 1)
        joined, _ = attention(torch.cat([q, q_text], 1), keys, values)
        turned, _ = attention(torch.cat([q_text, q], 1), keys, values)
        alone, alone_text = attention(q, k, v)[0], attention(q_text, k_text, v_text)[0]
        crossed, crossed_text = attention(q, k_text, v_text)[0], attention(q_text, k, v)[0]
        wrong = {
            "the picture attends to itself alone: join the keys and values of both": (alone, alone_text),
            "that is cross-attention: each asks the other only; here each asks both": (crossed, crossed_text),
            "the picture asks both, but the text asks only itself": (joined[:, :l], alone_text),
            "the two results are the wrong way round: the picture's first": (joined[:, l:], joined[:, :l]),
            "cut where the picture ends: its l positions came first": (joined[:, :m], joined[:, m:]),
            "join queries in the same order as you cut: picture first": (turned[:, :l], turned[:, l:]),
            "1 / sqrt(d) is missing: `attention` does it": unscaled(q, k, v, q_text, k_text, v_text),
        }
        good = joined[:, :l], joined[:, l:]
        if not all(map(equal, pair, good)):
            yield next((hint for hint, mistake in wrong.items() if all(map(equal, pair, mistake))), None)
        for name, mine, ours in zip(("picture", "text"), pair, good, strict=True):
            hint = compare(mine, ours, atol=1e-4)
            yield hint and f"{name}: {hint}"


def equal(got, want: Tensor) -> bool:
    """Whether an answer is this tensor, up to rounding."""
    return isinstance(got, Tensor) and got.shape == want.shape and torch.allclose(got, want.float(), atol=1e-4)


def unscaled(q: Tensor, k: Tensor, v: Tensor, q_text: Tensor, k_text: Tensor, v_text: Tensor) -> tuple[Tensor, ...]:
    """Joint attention without the division by the root of the width."""
    q, k, v = torch.cat([q, q_text], 1), torch.cat([k, k_text], 1), torch.cat([v, v_text], 1)
    mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
    return mixed.split([mixed.shape[1] - q_text.shape[1], q_text.shape[1]], 1)


@exercise("9.6")
def check_midpoint(
    my_midpoint: Callable,  # v, noise, steps -> path
) -> Hints:
    """Follow a velocity, asking in the middle of each step."""
    yield from followed(my_midpoint, midpoint_answers, 96, (3, 1))


def midpoint_answers(v: Callable, noise: Tensor, steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The midpoint rule, and mistakes in it."""
    times = torch.linspace(1, 0, steps + 1)

    def half(x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
        return x + dt / 2 * v(x, t)

    good = walk(lambda x, t, s, dt: x + dt * v(half(x, t, dt), (t + s) / 2), noise, times)
    late = walk(lambda x, t, s, dt: x + dt * v(half(x, t, dt), t), noise, times)
    far = walk(lambda x, t, s, dt: x + dt * v(x + dt * v(x, t), (t + s) / 2), noise, times)
    on = walk(lambda x, t, s, dt: half(x, t, dt) + dt * v(half(x, t, dt), (t + s) / 2), noise, times)
    second = walk(lambda x, t, s, dt: half(x, t, dt) + dt / 2 * v(half(x, t, dt), (t + s) / 2), noise, times)
    heun = walk(lambda x, t, s, dt: x + dt / 2 * (v(x, t) + v(x + dt * v(x, t), s)), noise, times)
    return good, {
        "return all places, noise first, as one tensor: `torch.stack(path)`": good[-1],
        "that is Euler's step: ask once more, in the middle": since_2022.euler(v, noise, steps),
        "in the middle the time is the middle one too, (t + t_next) / 2": late,
        "go half a step before you ask again": far,
        "ask at the middle place, not at x": walk(lambda x, t, s, dt: x + dt * v(x, (t + s) / 2), noise, times),
        "take the whole step from x, not from the middle": on,
        "take the whole step from x, not two halves, one after the other": second,
        "that is Heun's step, the mean of both ends: good too, but the middle is wanted": heun,
    }
