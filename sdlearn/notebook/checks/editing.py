"""The checks of lesson 6."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from sdlearn.noising import STABLE_DIFFUSION
from sdlearn.notebook.checks import NOTHING, Hints, compare, exercise, kind, plain

ALPHA_BAR = STABLE_DIFFUSION.alpha_bar
PATH = [801, 601, 301, 101, 0]


class Toy:
    """A predictor that is one line of arithmetic, and that keeps the levels it was told."""

    def __init__(self):
        self.told: list[int] = []

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        self.told.append(int(t))
        return (x_t + torch.as_tensor(t) / 500).tanh()

    def __deepcopy__(self, memo) -> "Toy":  # so that being called does not count as being changed
        return self


def seeded(
    seed: int,
    n: int,  # how many
) -> Tensor:  # n b c h w
    """Latents and noise to try a function with."""
    return torch.randn(n, 2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def noisy(x0: Tensor, t: int, eps: Tensor) -> Tensor:  # b c h w each
    """Level t of a picture (DDPM eq. 4)."""
    return ALPHA_BAR[t].sqrt() * x0 + (1 - ALPHA_BAR[t]).sqrt() * eps


def step(x: Tensor, eps: Tensor, t: int, t_next: int) -> Tensor:  # b c h w each
    """DDIM's step, up or down."""
    a, after = ALPHA_BAR[t], ALPHA_BAR[t_next]
    return after.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - after).sqrt() * eps


def walk(
    x: Tensor,  # b c h w, where it starts
    path: list[int],
    told: Callable[[int, int], int] = lambda t, t_next: t,  # which level the predictor is told
    forget: bool = False,  # step from the first latents each time
) -> Tensor:  # b c h w, at the end of the path
    """Follow a path with the toy, rightly or with a mistake in it."""
    toy, first = Toy(), x
    for t, t_next in pairwise(path):
        start = first if forget else x
        x = step(start, toy(start, told(t, t_next)), t, t_next)
    return x


@exercise("6.1")
def check_image_to_image(
    my_image_to_image: Callable,  # predict, x0, eps, path -> latents
) -> Hints:
    """Noise a picture to the first level of a path, then follow the path."""
    x0, eps = seeded(61, 2)
    for path in (PATH, PATH[2:]):
        start = noisy(x0, path[0], eps)
        wrong: dict[str, Callable[[], Tensor]] = {
            "this is the noisy picture: now follow the path": lambda start=start: start,
            "the picture is still clean at the start: noise it to the first level": partial(walk, x0, path),
            "that starts from noise alone: the picture has to be in it": partial(walk, eps, path),
            "plain x0 + eps: `q_sample` weighs the two": partial(walk, x0 + eps, path),
            "x0 and eps have changed places": partial(walk, noisy(eps, path[0], x0), path),
            "too little noise: the path begins at path[0]": partial(walk, noisy(x0, path[1], eps), path),
            "too much noise: the path begins at path[0], not at 999": partial(walk, noisy(x0, 999, eps), path),
            "that is the last level of the path: the picture is to be noised to the first": partial(
                walk, noisy(x0, path[-1], eps), path
            ),
            "the last step is missing: the path ends at 0": partial(walk, start, path[:-1]),
            "the first step is missing": partial(walk, start, path[1:]),
            "only one step was taken": partial(walk, start, path[:2]),
            "the predictor is told the level where the latents are, not where they go": partial(
                walk, start, path, told=lambda t, t_next: t_next
            ),
        }
        got = my_image_to_image(predict=Toy(), x0=x0, eps=eps, path=[*path])
        yield compare(got, walk(start, path), wrong, atol=1e-4)


@exercise("6.2")
def check_keep_outside(
    my_keep_outside: Callable,  # latents, t, x0, eps, mask -> latents
) -> Hints:
    """Outside a mask, the picture; as noisy as the latents are."""
    latents, x0, eps = seeded(62, 3)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:5, 1:6], mask[1, :, :, 4:] = 1, 1
    for t in (601, 0):
        old = noisy(x0, t, eps) if t else x0
        mix = lambda inside, outside: mask * inside + (1 - mask) * outside  # noqa: E731
        wrong = {
            "the mask is the wrong way round: 1 is drawn anew, 0 stays": mix(old, latents),
            "nothing was put back: outside the mask is the picture": latents,
            "outside the mask there is nothing": mask * latents,
            "outside, the picture must be as noisy as the latents inside: noise it to level t": mix(latents, x0),
            "at level 0 the picture is clean: add no noise there": mix(latents, noisy(x0, t, eps)),
            "outside is only noise: the picture has to be in it": mix(latents, eps),
            "x0 and eps have changed places": mix(latents, noisy(eps, t, x0)),
            "the latents come in at level t: do not noise them again": mix(noisy(latents, t, eps), old),
            "add the two parts, do not average them": mix(latents, old) / 2,
            "that is the picture alone: inside the mask are the latents": old,
        }
        got = my_keep_outside(latents=latents, t=t, x0=x0, eps=eps, mask=mask)
        yield compare(got, mix(latents, old), wrong)


@exercise("6.3")
def check_invert(
    my_invert: Callable,  # predict, x0, path -> latents
) -> Hints:
    """DDIM's steps from the picture up to noise."""
    x0 = seeded(63, 1)[0]
    for path in (PATH, PATH[2:]):
        up = path[::-1]
        wrong: dict[str, Callable[[], Tensor]] = {
            "that is the way down, from noise to a picture: turn the path round": partial(walk, x0, path),
            "the picture came back as it was: no step was taken": lambda: x0,
            "the last step is missing: go up to path[0]": partial(walk, x0, up[:-1]),
            "the first step is missing: it leads from level 0 up": partial(walk, x0, up[1:]),
            "only one step was taken": partial(walk, x0, up[:2]),
            "the predictor is told the level where the latents are, not where they go": partial(
                walk, x0, up, told=lambda t, t_next: t_next
            ),
            "each step starts from the picture: give the new latents to the next step": partial(
                walk, x0, up, forget=True
            ),
        }
        yield compare(my_invert(predict=Toy(), x0=x0, path=[*path]), walk(x0, up), wrong, atol=1e-4)


@exercise("6.4")
def check_all_of(
    my_all_of: Callable,  # eps_empty, eps_parts, guidance_scale -> eps
) -> Hints:
    """Guidance towards several prompts at once (arXiv 2206.01714)."""
    empty, *many = seeded(64, 4)
    for parts in (many, many[:1], many[:2]):
        gaps, n = [part - empty for part in parts], len(parts)
        wrong = {
            "eps_empty is missing: all the differences are added to it": 4 * sum(gaps),
            "each difference counts `guidance_scale` times: that is their average": empty + 4 * sum(gaps) / n,
            "subtract eps_empty from each prediction, not once from their sum": empty + 4 * (sum(parts) - empty),
            "subtract eps_empty from each prediction before you add it": empty + 4 * sum(parts),
            "only the first prompt is heard": empty + 4 * gaps[0],
            "only the last prompt is heard": empty + 4 * gaps[-1],
            "eps_empty is in it once for each prompt: it is wanted once": sum(empty + 4 * gap for gap in gaps),
            "`guidance_scale` is not used": empty + sum(gaps),
            "the direction is reversed: it goes from eps_empty to the prompts": empty - 4 * sum(gaps),
            "start from eps_empty": parts[0] + 4 * sum(gaps),
        }
        got = my_all_of(eps_empty=empty, eps_parts=parts, guidance_scale=4.0)
        yield compare(got, empty + 4 * sum(gaps), wrong)


@exercise("6.5")
def check_step_up(
    my_step_up: Callable,  # predict, x, t, t_up, rounds -> latents
) -> Hints:
    """A step up that the step down undoes (fixed-point iteration, arXiv 2309.04907)."""
    x = seeded(65, 1)[0]
    t, t_up = 301, 601
    for rounds in (0, 1, 3):
        guesses = [step(x, Toy()(x, t), t, t_up)]
        for _ in range(rounds + 1):
            guesses.append(step(x, Toy()(guesses[-1], t_up), t, t_up))
        drift = [step(x, Toy()(x, t), t, t_up)]
        for _ in range(rounds):
            drift.append(step(drift[-1], Toy()(drift[-1], t_up), t, t_up))
        wrong = {
            "that is the first guess: improve it `rounds` times": guesses[0],
            "one round too few": guesses[max(0, rounds - 1)],
            "one round too many: rounds = 0 is the plain step": guesses[rounds + 1],
            "each round steps from x, only the noise is predicted anew": drift[-1],
            "the guess lies at level t_up: tell the predictor so": level_t(x, t, t_up, rounds),
            "nothing has moved": x,
            "that is a step down": step(x, Toy()(x, t), t_up, t),
        }
        got = my_step_up(predict=Toy(), x=x, t=t, t_up=t_up, rounds=rounds)
        yield compare(got, guesses[rounds], wrong, atol=1e-4)


def level_t(x: Tensor, t: int, t_up: int, rounds: int) -> Tensor:
    """The mistake of exercise 6.5 in which every guess is told to lie at level t."""
    guess = step(x, Toy()(x, t), t, t_up)
    for _ in range(rounds):
        guess = step(x, Toy()(guess, t), t, t_up)
    return guess


@exercise("6.6")
def check_regions(
    my_regions: Callable,  # eps_parts, masks -> eps
) -> Hints:
    """A prompt for each region; where regions overlap, the average (arXiv 2302.08113)."""
    parts = list(seeded(66, 3))
    masks = torch.zeros(3, 2, 1, 8, 8)
    masks[0, ..., :5], masks[1, ..., 3:], masks[2, :, :, 6:] = 1, 1, 1
    for n in (3, 2):
        some, weights = parts[:n], list(masks[:n])
        total = sum(mask * part for mask, part in zip(weights, some, strict=True))
        average = total / sum(weights)
        wrong = {
            "where regions overlap, take the average: divide by the sum of the masks": total,
            "divide by the sum of the masks, not by their number": total / n,
            "the masks are not used": sum(some) / n,
            "where regions overlap, the last one has replaced the others": last_wins(some, weights),
            "where regions overlap, the first one has replaced the others": last_wins(some[::-1], weights[::-1]),
            "the masks are the wrong way round: a prompt counts where its mask is 1": sum(
                (1 - mask) * part for mask, part in zip(weights, some, strict=True)
            )
            / sum(1 - mask for mask in weights),
        }
        got = my_regions(eps_parts=some, masks=weights)
        if got is not None and not isinstance(got, Tensor):
            yield f"wanted one tensor, all regions together; got {kind(got)}"
        yield NOTHING if got is None else compare(plain(got), average, wrong)


def last_wins(parts: list[Tensor], masks: list[Tensor]) -> Tensor:
    """The mistake of exercise 6.6 in which a region covers what was there before."""
    out = torch.zeros_like(parts[0])
    for part, mask in zip(parts, masks, strict=True):
        out = torch.where(mask > 0, part, out)
    return out
