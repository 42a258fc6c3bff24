"""The checks of lesson 5."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sdlearn import parts
from sdlearn.notebook.checks import Hints, compare, exercise, plain
from sdlearn.notebook.checks.toys import ToyScheduler, toy_unet


@exercise("5.1")
def check_guide(
    my_guide: Callable,  # eps_empty, eps_text, guidance_scale -> eps
) -> Hints:
    """Classifier-free guidance."""
    empty, text = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(51))
    for scale in (3.0, 0.0, 1.0):
        gap = text - empty
        wrong = {
            "eps_empty is missing: the difference is added to it": scale * gap,
            "start from eps_empty, not from eps_text": text + scale * gap,
            "the direction is reversed: it goes from eps_empty to eps_text": empty - scale * gap,
            "empty and text have changed places: scale 0 gives eps_empty, scale 1 gives eps_text": text - scale * gap,
            "scale the difference of the two, not eps_text": empty + scale * text,
            "subtract eps_empty from eps_text before you scale": empty + scale * text - empty,
            "no average: the difference counts `guidance_scale` times": empty + scale * gap / 2,
            "`guidance_scale` is not used": empty + gap,
        }
        yield compare(my_guide(eps_empty=empty, eps_text=text, guidance_scale=scale), empty + scale * gap, wrong)


@exercise("5.2")
def check_ddim_step(
    my_ddim_step: Callable,  # x_t, eps, a, a_next -> latents at the next step
) -> Hints:
    """One step of DDIM."""
    x_t, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(52))
    a, after = torch.tensor(0.3), torch.tensor(0.6)
    x0 = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
    wrong = {
        "this is the estimate of x0: put noise back, as much as belongs to a_next": x0,
        "noise has to go back in: add sqrt(1 - a_next) eps": after.sqrt() * x0,
        "that puts back as much noise as there was: use a_next for the way back": a.sqrt() * x0 + (1 - a).sqrt() * eps,
        "a and a_next are swapped": put_back((x_t - (1 - after).sqrt() * eps) / after.sqrt(), eps, a),
        "x0 is (x_t - sqrt(1 - a) eps) / sqrt(a): the division is missing": put_back(x0 * a.sqrt(), eps, after),
        "divide by sqrt(a), not by a": put_back(x0 / a.sqrt(), eps, after),
        "the noise in x_t is sqrt(1 - a) eps, not eps": put_back((x_t - eps) / a.sqrt(), eps, after),
        "the noise in x_t is sqrt(1 - a) eps: take the root": put_back((x_t - (1 - a) * eps) / a.sqrt(), eps, after),
        "the noise that goes back is sqrt(1 - a_next) eps: take the root": after.sqrt() * x0 + (1 - after) * eps,
        "the way back needs roots, too: sqrt(a_next) and sqrt(1 - a_next)": after * x0 + (1 - after) * eps,
        "on the way back the factor of x0 is sqrt(a_next): take the root": after * x0 + (1 - after).sqrt() * eps,
        "on the way back the factor of x0 is sqrt(a_next), not sqrt(a)": a.sqrt() * x0 + (1 - after).sqrt() * eps,
        "on the way back the factor of eps is sqrt(1 - a_next), not sqrt(1 - a)": after.sqrt() * x0
        + (1 - a).sqrt() * eps,
        "x0 is to be made smaller by sqrt(a_next) when noise is added": x0 + (1 - after).sqrt() * eps,
        "the predicted noise is subtracted from x_t, not added": put_back(
            (x_t + (1 - a).sqrt() * eps) / a.sqrt(), eps, after
        ),
    }
    yield compare(my_ddim_step(x_t=x_t, eps=eps, a=a, a_next=after), put_back(x0, eps, after), wrong)


def put_back(
    x0: Tensor,  # b c h w, an estimate, right or wrong
    eps: Tensor,  # b c h w
    a_next: Tensor,  # alpha_bar at the next step
) -> Tensor:  # b c h w
    """The second half of a step: noise put back."""
    return a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps


@exercise("5.3", scheduler="your function changes the scheduler: only call its methods")
def check_denoise(
    my_denoise: Callable,  # unet, scheduler, latents, empty, text, guidance_scale -> latents
) -> Hints:
    """The whole loop, around a U-Net and a scheduler that are one line of arithmetic each."""
    generator = torch.Generator().manual_seed(53)
    noise, texts = 4 * torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 2, 6, 4, generator=generator)
    wrong: dict[str, dict] = {
        "only the prompt is heard: guidance is missing": dict(guide=lambda e, t, g: t),
        "the order is swapped: the empty prompt is the first half of the batch": dict(
            guide=lambda e, t, g: t + g * (e - t)
        ),
        "guidance starts at eps_empty, not at eps_text": dict(guide=lambda e, t, g: t + g * (t - e)),
        "the latents go into the U-Net as they are: `scheduler.scale_model_input` first": dict(scale=lambda s, x, t: x),
        "only the U-Net gets the scaled latents: `scheduler.step` wants the others": dict(scaled_step=True),
        "the last step is missing": dict(steps=-1),
        "only one step was taken: is the `return` inside the loop?": dict(steps=1),
        "each step starts from the first noise: give the new latents to the next step": dict(forget=True),
        "the latents come in as strong as the scheduler begins: do not scale them again": dict(begin=2.0),
    }
    for sigmas, scale in (((4.0, 2.0, 1.0, 0.5, 0.0), 3.0), ((2.0, 0.7, 0.2, 0.0), 1.5)):
        scheduler = ToyScheduler(sigmas)
        unet, complaints = toy_unet(scheduler.timesteps)
        given = dict(scheduler=scheduler, latents=noise, empty=texts[0], text=texts[1], guidance_scale=scale)
        got = my_denoise(unet=unet, **given)
        yield next(iter(complaints), None)
        answer = partial(denoise, **given)
        yield compare(got, answer(), {hint: partial(answer, **how) for hint, how in wrong.items()})


def denoise(
    scheduler: ToyScheduler,
    latents: Tensor,  # b c h w
    empty: Tensor,  # b l d
    text: Tensor,  # b l d
    guidance_scale: float,
    guide=lambda empty, text, scale: empty + scale * (text - empty),  # with this and the others a mistake is planted
    scale=ToyScheduler.scale_model_input,
    scaled_step: bool = False,  # step from the scaled latents
    forget: bool = False,  # step from the first latents
    begin: float = 1.0,  # the latents are multiplied by it
    steps: int | None = None,  # how many, -1: all but one
) -> Tensor:  # b c h w, clean latents
    """The answer to exercise 5.3, or one with a mistake in it."""
    unet, _ = toy_unet(scheduler.timesteps)
    first = latents = latents * begin
    for t in scheduler.timesteps[:steps]:
        scaled = scale(scheduler, first if forget else latents, t)
        eps_empty, eps_text = (unet(scaled, t, words).sample for words in (empty, text))
        start = scaled if scaled_step else first if forget else latents
        latents = scheduler.step(guide(eps_empty, eps_text, guidance_scale), t, start).prev_sample
    return latents


@exercise("5.4", scheduler="your function changes the scheduler: leave it as it is, and return the timesteps")
def check_start_from_picture(
    my_start_from_picture: Callable,  # x0, eps, scheduler, strength -> latents, timesteps
) -> Hints:
    """Noise a picture part of the way, and do only the rest of the steps."""
    x0, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(54))
    for strength, keep in ((0.3, 6), (1.0, 20), (0.28, 5), (0.02, 1)):
        scheduler = parts.stable_diffusion_scheduler()
        scheduler.set_timesteps(20)
        steps = scheduler.timesteps
        got = my_start_from_picture(x0=x0, eps=eps, scheduler=scheduler, strength=strength)
        if not isinstance(got, tuple | list) or len(got) != 2:
            yield compare(None, x0) if got is None else "wanted two things: `return latents, timesteps`"
        latents, timesteps = map(plain, got)
        wrong_steps = {
            "the last steps are wanted: you kept the first ones, which are the noisiest": steps[:keep],
            "strength 0.3 is 3 steps in 10 still to be done: you kept the other 7": steps[keep:],
            "`[-0:]` is everything: keep at least one step" if keep == 1 else "you kept all of the steps": steps,
            "round strength times the number of steps down, as `int` does": steps[-6:],
        }
        yield hint_of("timesteps", timesteps, steps[-keep:], wrong_steps)
        first, last, right = (scheduler.add_noise(x0, eps, t.expand(2)) for t in steps[[0, -1, -keep]])
        wrong_latents = {
            "the picture is still clean: add noise to it": x0,
            "this is only noise: the picture has to be in it": eps,
            "too much noise: take the first of the steps you kept, not of all steps": first,
            "too little noise: take the first of the steps you kept, not the last": last,
            "x0 and eps are swapped in add_noise": scheduler.add_noise(eps, x0, steps[-keep].expand(2)),
            "how much noise belongs to a step, `scheduler.add_noise` knows": (1 - strength) * x0 + strength * eps,
            "plain x0 + eps: `scheduler.add_noise` weighs the two": x0 + eps,
        }
        yield hint_of("latents", latents, right, wrong_latents)


def hint_of(name: str, got, want: Tensor, wrong: dict[str, Tensor]) -> str | None:
    """`compare` for one of several results: what is no known mistake is said with the result's name."""
    hint = compare(got, want, wrong)
    return hint if hint in (None, *wrong) else f"{name}: {hint}"


@exercise("5.5")
def check_rescale(
    my_rescale: Callable,  # x0_guided, x0_text, fraction -> x0
) -> Hints:
    """Give the guided estimate the contrast of the text's (arXiv 2305.08891, section 3.4)."""
    text, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(55))
    text = text * torch.tensor([0.5, 1.0, 2.0])[:, None, None, None]  # pictures of different contrast
    guided = 4 * text + other

    def rescaled(fraction, dims=(1, 2, 3)):
        ratio = text.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return fraction * guided * ratio + (1 - fraction) * guided

    unit = guided / guided.std((1, 2, 3), keepdim=True)
    upside_down = guided * guided.std((1, 2, 3), keepdim=True) / text.std((1, 2, 3), keepdim=True)
    wrong = {
        "the mix is the other way round: `fraction` belongs to the rescaled estimate": rescaled(0.3),
        "one standard deviation for each picture: you took one for the whole batch": rescaled(0.7, (0, 1, 2, 3)),
        "one standard deviation for each picture: you took one for each channel": rescaled(0.7, (2, 3)),
        "the ratio is upside down: text's standard deviation over the guided one's": 0.7 * upside_down + 0.3 * guided,
        "`fraction` is not used: mix the rescaled estimate with the guided one": rescaled(1.0),
        "nothing was rescaled": guided,
        "the standard deviation that is wanted is that of x0_text, not 1": 0.7 * unit + 0.3 * guided,
        "rescale x0_guided, not x0_text": 0.7 * text + 0.3 * guided,
        "mix with x0_guided as it came in, not with x0_text": rescaled(0.7) - 0.3 * guided + 0.3 * text,
    }
    yield compare(my_rescale(x0_guided=guided, x0_text=text, fraction=0.7), rescaled(0.7), wrong)
    yield compare(my_rescale(x0_guided=guided, x0_text=text, fraction=0.0), guided)


@exercise("5.6")
def check_guide_between(
    my_guide_between: Callable,  # eps_empty, eps_text, t, guidance_scale, low, high -> eps
) -> Hints:
    """Guidance at some noise levels only (arXiv 2404.07724)."""
    empty, text = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(56))
    levels = torch.tensor([900, 700, 699, 300, 100])  # against an interval from 300 to 700
    guided = empty + 3 * (text - empty)
    want = [text, text, guided, guided, text]
    wrong = {
        "guidance is on at every t: outside the interval give eps_text": [guided] * 5,
        "guidance is never on: give the guided prediction where low <= t < high": [text] * 5,
        "on and off are the wrong way round": [guided, guided, text, text, guided],
        "outside the interval the scale is 1, not 0: give eps_text, not eps_empty": [
            empty if x is text else x for x in want
        ],
        "guidance is on at t = high: the interval ends below it, low <= t < high": [text, guided, guided, guided, text],
        "guidance is off at t = low: the interval begins with it, low <= t < high": [text, text, guided, text, text],
        "both ends are off: low is inside, high is outside, low <= t < high": [text, guided, guided, text, text],
        "guidance is on at every t below high: look at low too": [text, text, guided, guided, guided],
        "guidance is on at every t from low up: look at high too": [guided, guided, guided, guided, text],
        "guidance starts at eps_empty, not at eps_text": [x if x is text else text + 3 * (text - empty) for x in want],
        "outside the interval nothing is predicted: give eps_text there": [x * (x is guided) for x in want],
    }
    got = [my_guide_between(eps_empty=empty, eps_text=text, t=t, guidance_scale=3.0, low=300, high=700) for t in levels]
    if len({x is None for x in got}) == 2:
        yield "for some t your function returns nothing: outside the interval it gives eps_text"
    for x in got:
        if not isinstance(x, Tensor) or x.shape != text.shape:
            yield compare(x, text)
    yield compare(torch.stack(got), torch.stack(want), {hint: torch.stack(x) for hint, x in wrong.items()})
