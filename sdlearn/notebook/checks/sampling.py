"""The checks of lesson 5."""

from collections.abc import Callable
from functools import partial

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor

from sdlearn import parts
from sdlearn.notebook.checks import Hints, compare, exercise, plain


@exercise("5.1")
def check_two_prompts(
    my_two_prompts: Callable,  # eps_empty, eps_one, eps_other, scale_one, scale_other -> eps
) -> Hints:
    """Exercise 5.1: guidance towards two prompts at once."""
    empty, one, other = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(51))
    to_one, to_other = one - empty, other - empty
    want = empty + 3 * to_one + 2 * to_other
    wrong = {
        "eps_empty is missing: the differences are added to it": want - empty,
        "eps_empty is there twice: both directions start from the same one": want + empty,
        "start from eps_empty, and add the two differences to it": 3 * one + 2 * other,
        "the two scales are swapped": empty + 2 * to_one + 3 * to_other,
        "each direction starts at eps_empty: subtract eps_empty, not the other prompt": empty + one - other,
        "the directions are reversed: from eps_empty to the prompt": 2 * empty - want,
        "the second direction starts at eps_empty too, not at the first prompt": empty + 3 * to_one + 2 * (other - one),
        "scale each difference, not each prediction": empty + 3 * one + 2 * other,
        "both directions count in full: no average": empty + (3 * to_one + 2 * to_other) / 2,
    }
    got = my_two_prompts(eps_empty=empty, eps_one=one, eps_other=other, scale_one=3.0, scale_other=2.0)
    yield compare(got, want, wrong)


@exercise("5.2", scheduler="your function changes the scheduler: leave it as it is, and return the timesteps")
def check_start_from_picture(
    my_start_from_picture: Callable,  # x0, eps, scheduler, strength -> latents, timesteps
) -> Hints:
    """Exercise 5.2: noise a picture part of the way, and do only the rest of the steps."""
    x0, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(52))
    for strength, keep in ((0.3, 6), (1.0, 20), (0.28, 6), (0.02, 1)):
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
            "round strength times the number of steps: do not cut off": steps[-5:],
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
    """`compare` for one of several results: a mistake that looks different is known by its shape, too."""
    for hint, mistake in wrong.items():
        if (
            isinstance(got, Tensor)
            and got.shape == mistake.shape != want.shape
            and torch.allclose(got, mistake.float())
        ):
            return hint
    hint = compare(got, want, wrong)
    return hint if hint in (None, *wrong) else f"{name}: {hint}"


@exercise("5.3")
def check_rescale(
    my_rescale: Callable,  # eps_guided, eps_text, share -> eps
) -> Hints:
    """Exercise 5.3: shrink a guided prediction to the deviation of the text's (arXiv 2305.08891, section 3.4)."""
    text, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(53))
    text = text * torch.tensor([0.5, 1.0, 2.0])[:, None, None, None]  # pictures of different deviation
    guided = 4 * text + other

    def rescaled(share, dims=(1, 2, 3)):
        ratio = text.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return share * guided * ratio + (1 - share) * guided

    unit = guided / guided.std((1, 2, 3), keepdim=True)
    upside_down = guided * guided.std((1, 2, 3), keepdim=True) / text.std((1, 2, 3), keepdim=True)
    wrong = {
        "the mix is the other way round: `share` belongs to the shrunken prediction": rescaled(0.3),
        "one deviation for each picture: you took one for the whole batch": rescaled(0.7, (0, 1, 2, 3)),
        "one deviation for each picture: you took one for each channel": rescaled(0.7, (2, 3)),
        "the ratio is upside down: text's deviation over the guided one's": 0.7 * upside_down + 0.3 * guided,
        "`share` is not used: mix the shrunken prediction with the guided one": rescaled(1.0),
        "nothing was shrunken": guided,
        "the deviation that is wanted is that of eps_text, not 1": 0.7 * unit + 0.3 * guided,
        "shrink eps_guided, not eps_text": 0.7 * text + 0.3 * guided,
    }
    yield compare(my_rescale(eps_guided=guided, eps_text=text, share=0.7), rescaled(0.7), wrong)
    yield compare(my_rescale(eps_guided=guided, eps_text=text, share=0.0), guided)


@exercise("5.4")
def check_euler_loop(
    my_euler_loop: Callable,  # unet, timesteps, sigmas, noise, empty, text, guidance_scale -> latents
) -> Hints:
    """Exercise 5.4: the whole loop with Euler's step, around a U-Net that is one line of arithmetic."""
    generator = torch.Generator().manual_seed(54)
    noise, texts = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 2, 6, 4, generator=generator)
    levels = torch.tensor([900, 700, 500, 300, 100]), torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2, 0.0])
    wrong: dict[str, dict] = {
        "begin as strong as sqrt(sigma^2 + 1): the noise is still as it was drawn": dict(begin=lambda s: 1),
        "begin as strong as sqrt(sigma^2 + 1), not sigma: there is a picture in it too": dict(begin=lambda s: s),
        "the latents go into the U-Net as they are: divide by sqrt(sigma^2 + 1) first": dict(shrink=lambda s, _: 1),
        "divide by sqrt(sigma^2 + 1), not by sigma": dict(shrink=lambda s, _: s),
        "divide by the root of sigma^2 + 1, not by sigma^2 + 1": dict(shrink=lambda s, _: s**2 + 1),
        "divide by what belongs to this sigma, not to the next": dict(shrink=lambda _, s: root(s)),
        "only the U-Net gets the divided latents: step from the others": dict(
            move=lambda x, y, e, s, n: y + (n - s) * e
        ),
        "the order is swapped: the empty prompt is the first half of the batch": dict(
            guide=lambda e, t, g: t + g * (e - t)
        ),
        "guidance is missing: only the text is heard": dict(guide=lambda e, t, g: t),
        "guidance starts at eps_empty, not at eps_text": dict(guide=lambda e, t, g: t + g * (t - e)),
        "the step goes the wrong way: sigma_next - sigma is below 0": dict(move=lambda x, y, e, s, n: x + (s - n) * e),
        "this takes out all noise in each step: move by sigma_next - sigma": dict(move=lambda x, y, e, s, n: x - s * e),
        "move by sigma_next - sigma, not by sigma_next": dict(move=lambda x, y, e, s, n: x + n * e),
        "one step is missing: the last one goes to sigma 0": dict(steps=-1),
        "only one step was taken: is the `return` inside the loop?": dict(steps=1),
    }
    for first, scale in ((0, 3.0), (1, 1.5)):
        t, sigmas = levels[0][first:], levels[1][first:]
        unet, complaints = toy_unet(t)
        given = dict(timesteps=t, sigmas=sigmas, noise=noise, empty=texts[0], text=texts[1], guidance_scale=scale)
        got = my_euler_loop(unet=unet, **given)
        yield next(iter(complaints), None)
        answer = partial(euler_loop, **given)
        yield compare(got, answer(), {hint: partial(answer, **how) for hint, how in wrong.items()})


def root(sigma: Tensor) -> Tensor:
    """The deviation of latents that hold a picture of deviation 1 and noise of deviation `sigma`."""
    return (sigma**2 + 1) ** 0.5


def toy_unet(timesteps: Tensor):  # a U-Net, and a list of what was wrong with the calls of it
    """A U-Net that is one line of arithmetic, and that keeps a list of complaints."""
    complaints = []

    def unet(sample, timestep, encoder_hidden_states):
        b, texts = len(sample), len(encoder_hidden_states)
        if b != texts:
            complaints.append(
                f"the U-Net got {b} latents and {texts} texts: it wants as many of both, latents twice, empty and text"
            )
        if not torch.isin(torch.as_tensor(timestep).float(), timesteps.float()).all():
            complaints.append("the U-Net is to be told t, one of `timesteps`: not sigma, and not the step's number")
        words = encoder_hidden_states.mean((1, 2))[:, None, None, None].repeat(-(-b // texts), 1, 1, 1)
        return UNet2DConditionOutput(sample=(sample.repeat(-(-texts // b), 1, 1, 1) + 2 * words).tanh())

    return unet, complaints


def euler_loop(
    timesteps: Tensor,
    sigmas: Tensor,
    noise: Tensor,  # b c h w
    empty: Tensor,  # b l d
    text: Tensor,  # b l d
    guidance_scale: float,
    begin=root,  # how strong the noise is at first; with these four a mistake is planted
    shrink=lambda sigma, after: root(sigma),  # what the latents are divided by for the U-Net
    guide=lambda empty, text, scale: empty + scale * (text - empty),
    move=lambda latents, divided, eps, sigma, after: latents + (after - sigma) * eps,
    steps: int | None = None,  # how many, -1: all but one
) -> Tensor:  # b c h w, clean latents
    """The answer to exercise 5.4, or one with a mistake in it."""
    unet, _ = toy_unet(timesteps)
    latents = noise * begin(sigmas[0])
    for t, sigma, after in [*zip(timesteps, sigmas, sigmas[1:], strict=False)][:steps]:
        divided = latents / shrink(sigma, after)
        eps_empty, eps_text = (unet(divided, t, words).sample for words in (empty, text))
        latents = move(latents, divided, guide(eps_empty, eps_text, guidance_scale), sigma, after)
    return latents


@exercise("5.5")
def check_guide_between(
    my_guide_between: Callable,  # eps_empty, eps_text, t, guidance_scale, low, high -> eps
) -> Hints:
    """Exercise 5.5: guidance at some noise levels only (arXiv 2404.07724)."""
    empty, text = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(55))
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
