"""The checks of lesson 3."""

from collections.abc import Callable
from functools import partial
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from sdlearn import noising
from sdlearn.noising import STABLE_DIFFUSION
from sdlearn.notebook.checks import NOTHING, Hints, NotTried, ask, compare, exercise, kind


@exercise("3.1")
def check_q_sample(
    my_q_sample: Callable,  # x0, t, eps -> x_t
) -> Hints:
    """From a clean latent to step t in one jump (DDPM eq. 4)."""
    x0, eps = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(30))  # all alike: no axis raises
    t = torch.tensor([0, 300, 600, 999])
    row, betas = STABLE_DIFFUSION.alpha_bar[t], STABLE_DIFFUSION.betas[t][:, None, None, None]
    a, mix = row[:, None, None, None], lambda x0, eps, a: a.sqrt() * x0 + (1 - a).sqrt() * eps
    turned = "the two factors are the wrong way round: alpha_bar belongs to x0, 1 - alpha_bar to the noise"
    lined_up = "alpha_bar has gone along the {} of each latent: give it three more axes, b 1 1 1"
    wrong = {
        lined_up.format("columns"): mix(x0, eps, row),
        lined_up.format("rows"): mix(x0, eps, row[:, None]),
        lined_up.format("channels"): mix(x0, eps, row[:, None, None]),
        turned: mix(eps, x0, a),
        "both factors are roots: alpha_bar is a fraction of the variance": a * x0 + (1 - a) * eps,
        "the factor of the noise is a root too": a.sqrt() * x0 + (1 - a) * eps,
        "the factor of x0 is a root too": a * x0 + (1 - a).sqrt() * eps,
        "x0 is shrunk too, by the root of alpha_bar": x0 + (1 - a).sqrt() * eps,
        "the noise has a factor too, the root of 1 - alpha_bar": a.sqrt() * x0 + eps,
        "the noise is added, not subtracted": a.sqrt() * x0 - (1 - a).sqrt() * eps,
        "that is 1 - root of alpha_bar: the root comes last, of 1 - alpha_bar": a.sqrt() * x0 + (1 - a.sqrt()) * eps,
        "that is one small step: use alpha_bar, the product of all so far, not beta": mix(x0, eps, 1 - betas),
        "that is beta in the place of alpha_bar": mix(x0, eps, betas),
    }
    hints = []  # the first counts: factors turned round look like arguments in another order

    def hint_for(got):
        hints.append(compare(got, mix(x0, eps, a), wrong, atol=1e-4))
        return hints[-1]

    hint = ask(my_q_sample, hint_for, x0=x0, t=t, eps=eps)
    yield turned if hints[:1] == [turned] else hint
    points, noise = torch.randn(2, 3, 2, 1, 1, generator=torch.Generator().manual_seed(31))
    want = noising.q_sample(points, t[:3], noise)
    hint = ask(my_q_sample, partial(compare, want=want, atol=1e-4), x0=points, t=t[:3], eps=noise)
    yield hint and f"right for latents of 4 channels, but not for x0 of shape {tuple(points.shape)}: {hint}"


@exercise("3.2")
def check_step_at(
    my_step_at: Callable,  # betas, ratio -> a step
) -> Hints:
    """The first step at which the signal-to-noise ratio is no higher than a given one."""
    exactly = torch.tensor([0.5, 0.5, 0.5]), 1.0  # at step 0 the ratio is 1, and nothing is rounded
    for betas, ratio in ((noising.scaled_linear_betas(), 0.1), (noising.linear_betas(), 2.0), exactly):
        a, own = noising.alpha_bar(betas), STABLE_DIFFUSION.alpha_bar
        first = lambda curve, ratio=ratio: int((curve <= ratio).int().argmax())  # noqa: E731
        want = first(a / (1 - a))
        wrong = {
            len(betas) - want: "that is how many steps lie at or below the ratio: how many come before them?",
            first(own / (1 - own)): "that is the course's own schedule: use the betas that you are given",
            first(a): "that is where alpha_bar reaches the ratio: the ratio is alpha_bar / (1 - alpha_bar)",
            first((a / (1 - a)).sqrt()): "no root here: the ratio compares variances",
            0: "step 0 is still above the ratio: is alpha_bar the product of all 1 - beta so far, and on top, and "
            "do you ask for `<=`?",
            want + 1: "one too late: steps count from 0",
            want - 1: "one too early: this step is still above the ratio",
        }
        if (a / (1 - a))[want] == ratio:
            wrong[want + 1] = "the ratio of a step may be just the one that is given: at or below it, `<=`, not `<`"
        yield ask(my_step_at, partial(compare_steps, want=want, wrong=wrong), betas=betas, ratio=ratio)


def compare_steps(
    got,  # what the learner's function returned
    want: int,  # the right step
    wrong: dict[int, str],  # what typical mistakes return -> hint
) -> str | None:  # a hint, or None where it is right
    """Say how the number of a step differs from the right one."""
    if got is None:
        return NOTHING
    if isinstance(got, Tensor) and got.shape != ():
        remedy = ": say `int(...)`" if got.numel() == 1 else ""
        return f"wanted one number, an int; got a tensor of shape {tuple(got.shape)}{remedy}"
    step = got.item() if isinstance(got, Tensor) else got
    if not isinstance(step, Real) or isinstance(step, bool) or step % 1 != 0:
        return f"wanted the number of a step, a whole number; got {step if isinstance(step, Real) else kind(got)}"
    return None if step == want else wrong.get(int(step), f"wanted {want}; got {int(step)}")


@exercise("3.3")
def check_noise_of(
    my_noise_of: Callable,  # x_t, t, x0 -> eps
) -> Hints:
    """From x_t and x0 back to the noise that lies between them."""
    x0, eps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(31))
    t = torch.tensor([0, 300, 999])
    x_t, a = noising.q_sample(x0, t, eps), STABLE_DIFFUSION.alpha_bar_at(t, x0)
    rest = x_t - a.sqrt() * x0
    wrong = {
        "x_t holds sqrt(alpha_bar) x0, not x0: shrink x0 before you subtract it": (x_t - x0) / (1 - a).sqrt(),
        "brackets: subtract first, then divide all that is left": x_t - a.sqrt() * x0 / (1 - a).sqrt(),
        "both factors are roots: sqrt(alpha_bar) and sqrt(1 - alpha_bar)": (x_t - a * x0) / (1 - a),
        "the plain difference is not the noise: shrink x0 first, divide at the end": x_t - x0,
        "what is left after subtracting is sqrt(1 - alpha_bar) eps: divide": rest,
        "divide by the root of 1 - alpha_bar, not by 1 - alpha_bar": rest / (1 - a),
        "divide by the factor of the noise, sqrt(1 - alpha_bar), not by the signal's": rest / a.sqrt(),
        "the factor of x0 is the root of alpha_bar": (x_t - a * x0) / (1 - a).sqrt(),
        "the two factors are the wrong way round": (x_t - (1 - a).sqrt() * x0) / a.sqrt(),
        "this is sqrt(1 - alpha_bar) eps: divide, do not multiply, at the end": rest * (1 - a).sqrt(),
    }
    yield ask(my_noise_of, partial(compare, want=eps, wrong=wrong, atol=1e-4), x_t=x_t, t=t, x0=x0)


@exercise("3.4")
def check_velocity(
    my_velocity: Callable,  # x0, t, eps -> v
    my_x0_from_velocity: Callable,  # and back: x_t, t, v -> x0
) -> Hints:
    """The mixture v of noise and picture, and from it back to the picture (arXiv 2202.00512, appendix D)."""
    x0, eps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(34))
    t = torch.tensor([0, 400, 999])
    x_t, a = noising.q_sample(x0, t, eps), STABLE_DIFFUSION.alpha_bar_at(t, x0)
    signal, noise = a.sqrt(), (1 - a).sqrt()
    v = signal * eps - noise * x0
    wrong = {
        "the signs are flipped: the noise is positive": -v,
        "x0 is subtracted, not added": signal * eps + noise * x0,
        "the two factors are the wrong way round": noise * eps - signal * x0,
        "that is x_t": x_t,
        "the factors are roots": signal**2 * eps - noise**2 * x0,
        "both parts have a factor": eps - x0,
    }
    hint = ask(my_velocity, partial(compare, want=v, wrong=wrong), x0=x0, t=t, eps=eps)
    yield hint and f"my_velocity: {hint}"
    back = {
        "that is the noise; x0 is the other way to add up the two": eps,
        "v is not the noise: predict_x0 does not fit here": noising.predict_x0(x_t, t, v),
        "v is subtracted, not added": signal * x_t + noise * v,
        "the two factors are the wrong way round": noise * x_t - signal * v,
        "the sign is flipped": -x0,
        "the factors are roots": signal**2 * x_t - noise**2 * v,
        "no division is needed: signal^2 + noise^2 is 1": x0 / signal,
    }
    try:
        hint = ask(my_x0_from_velocity, partial(compare, want=x0, wrong=back, atol=1e-4), x_t=x_t, t=t, v=v)
    except NotTried:
        hint = "my_velocity is right, this one is not tried yet"
    yield hint and f"my_x0_from_velocity: {hint}"


@exercise("3.5")
def check_zero_end(
    my_zero_end: Callable,  # betas -> betas
) -> Hints:
    """A schedule whose last step holds no signal at all (arXiv 2305.08891, algorithm 1)."""
    for betas in (noising.scaled_linear_betas(), noising.linear_betas(50)):
        got = my_zero_end(betas=betas)
        a = noising.alpha_bar(betas)
        root = a.sqrt()
        moved = root - root[-1]
        good = moved * root[0] / moved[0]
        flat = (a - a[-1]) * a[0] / (a[0] - a[-1])
        if isinstance(got, Tensor) and got.shape == (len(betas) - 1,):
            yield "one beta is missing: the first is 1 - alpha_bar of step 0, with nothing to divide by"
        if isinstance(got, Tensor) and got.isinf().any():
            yield "something was divided by the last alpha_bar, which is 0: divide each by the one before it"
        wrong = {
            "only the last step has changed: move and stretch all the roots": torch.cat([betas[:-1], torch.ones(1)]),
            "that is alpha_bar: turn it back into betas": good**2,
            "that is the root of alpha_bar: square it, then turn it back into betas": good,
            "turn roots back into alpha_bar (square them) before you make betas": betas_of(good),
            "these are 1 - beta: subtract them from 1": 1 - betas_of(good**2),
            "the end is right, but step 0 has moved too: stretch the roots to where they began": betas_of(moved**2),
            "the first value stays what it was: you stretch the roots until it is 1": betas_of((moved / moved[0]) ** 2),
            "stretch the root of alpha_bar, not alpha_bar itself": betas_of(flat),
            "nothing has changed: the last alpha_bar is still above 0": betas,
        }
        yield compare(got, betas_of(good**2), wrong, atol=2e-4)  # the last betas are ratios of numbers near 0


def betas_of(
    a: Tensor,  # steps, alpha_bar
) -> Tensor:  # steps
    """Undo `alpha_bar`: beta_t = 1 - alpha_bar_t / alpha_bar_(t-1)."""
    return 1 - torch.cat([a[:1], a[1:] / a[:-1]])


@exercise("3.6")
def check_best_eps(
    my_best_eps: Callable,  # x_t, t, data -> eps
) -> Hints:
    """The noise that is expected in x_t where all clean points are known."""
    x_t, data = torch.randn(2, 4, 2, 1, 1, generator=torch.Generator().manual_seed(35))  # b = n: no axis raises
    x_t[0] += 3  # so far from all that exp alone would give 0
    t = torch.tensor([0, 300, 500, 800])
    x, points = x_t.flatten(1), data.flatten(1)  # b 2, n 2
    a = STABLE_DIFFUSION.alpha_bar_at(t, x_t).flatten(1)  # b 1
    apart = (x[:, None] - a.sqrt()[..., None] * points).square()  # b n 2
    far = apart.sum(-1)  # b n
    log, each = -far / (2 * (1 - a)), -apart / (2 * (1 - a))[..., None]
    mixed = (x[:, None] - a.sqrt() * points).square().sum(-1)  # each clean point with its own row's alpha_bar
    plain, nearest = (x[:, None] - points).square().sum(-1), F.one_hot(far.argmin(1), 4).float()

    def noise_beside(mean):  # b 2 -> b 2 1 1
        return ((x - a.sqrt() * mean) / (1 - a).sqrt())[..., None, None]

    def noise(weights):  # b n -> b 2 1 1
        return noise_beside(weights @ points)

    def hint_for(got):
        if isinstance(got, Tensor) and got.isnan().any():
            return "there are NaNs: 0 was divided by 0 (exp of a very negative number is 0: let softmax do it)"
        return compare(got, noise(log.softmax(1)), wrong, atol=1e-3)

    mean = log.softmax(1) @ points
    wrong = {
        "that is the best x0: the noise follows from it as in 3.3": mean[..., None, None],
        "divide by sqrt(1 - alpha_bar) at the end": (x - a.sqrt() * mean)[..., None, None],
        "shrink the average before you subtract it, as in 3.3": ((x - mean) / (1 - a).sqrt())[..., None, None],
        "the nearest point alone is not the best answer: take the average by weight": noise(nearest),
        "all points count the same: weigh them by how well they fit": noise(torch.full_like(far, 0.25)),
        "the farthest point counts most: there is a minus sign in the exponent": noise((-log).softmax(1)),
        "softmax runs over the clean points: the weights of one noisy point sum to 1": noise(log.softmax(0)),
        "compare x_t with the shrunk clean points, sqrt(alpha_bar) x_i": noise((-plain / 2 / (1 - a)).softmax(1)),
        "divide the squared distance by 2 (1 - alpha_bar)": noise((-far).softmax(1)),
        "the 2 below the fraction is missing": noise((2 * log).softmax(1)),
        "the distance is squared": noise((-far.sqrt() / 2 / (1 - a)).softmax(1)),
        "add up the squares of the two numbers of a point: no mean": noise((log / 2).softmax(1)),
        "one weight for each clean point: add up the squares of its two coordinates": noise_beside(
            (each.softmax(1) * points).sum(1)
        ),
        "below the fraction is 1 - alpha_bar, without a root": noise((-far / 2 / (1 - a).sqrt()).softmax(1)),
        "weights sum to 1: softmax, not exp": noise(log.exp()),
        "alpha_bar went along the clean points: it belongs to x_t": noise((-mixed / 2 / (1 - a)).softmax(1)),
    }
    yield ask(my_best_eps, hint_for, x_t=x_t, t=t, data=data)
