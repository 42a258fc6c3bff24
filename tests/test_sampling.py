"""Lesson 5: the loop against the library's pipeline, and against data whose exact noise is known."""

import copy
from types import SimpleNamespace

import pytest
import torch

from sdlearn import parts
from sdlearn.noising import STABLE_DIFFUSION
from sdlearn.notebook.checks.sampling import (
    check_ddim_step,
    check_denoise,
    check_guide,
    check_guide_between,
    check_rescale,
    check_start_from_picture,
)
from sdlearn.sampling import (
    ddim_step,
    decode_latents,
    denoise,
    encode_prompts,
    guide,
    initial_latents,
    prepare_scheduler,
    text_to_image,
)

ALPHA_BAR = STABLE_DIFFUSION.alpha_bar
PROMPT = "a photograph of an astronaut riding a horse on the moon"
CLOSE = dict(atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def small():
    return parts.load("mini", "cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_scheduler(small, name):
    return small._replace(scheduler=parts.make_scheduler(name, small.scheduler.config))


# ---------------------------------------------------------------- the same picture as the library's


@pytest.fixture(scope="module")
def pipeline(small):
    from diffusers import StableDiffusionPipeline

    none = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = StableDiffusionPipeline(**small._asdict(), **none)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw_with(pipeline, scheduler, prompts, seed, **settings):
    """The library's picture, -1 .. 1."""
    pipeline.scheduler = scheduler
    images = pipeline(prompts, generator=seeded(seed), output_type="pt", **settings).images
    return images * 2 - 1


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_equals_pipeline(small, pipeline, name):
    want = draw_with(
        pipeline, with_scheduler(small, name).scheduler, PROMPT, 3, num_inference_steps=5, guidance_scale=4.0
    )
    torch.testing.assert_close(text_to_image(with_scheduler(small, name), PROMPT, steps=5, seed=3), want, **CLOSE)


def test_equals_pipeline_with_every_knob_turned(small, pipeline):
    prompts = [PROMPT, "a cat"]
    ours = dict(negative="a bear", steps=4, guidance_scale=9.0, seed=8, height=64, width=96)
    theirs = dict(negative_prompt=["a bear"] * 2, num_inference_steps=4, guidance_scale=9.0, height=64, width=96)
    want = draw_with(pipeline, with_scheduler(small, "dpm++").scheduler, prompts, 8, **theirs)
    assert want.shape == (2, 3, 64, 96)
    torch.testing.assert_close(text_to_image(with_scheduler(small, "dpm++"), prompts, **ours), want, **CLOSE)


@pytest.mark.parametrize("guidance_scale", [0.0, 0.5, 1.0])
def test_at_guidance_1_and_below_the_pipeline_draws_as_at_1_and_the_formula_does_not(small, pipeline, guidance_scale):
    draw = dict(steps=3, seed=3)
    theirs = draw_with(pipeline, small.scheduler, PROMPT, 3, num_inference_steps=3, guidance_scale=guidance_scale)
    torch.testing.assert_close(theirs, text_to_image(small, PROMPT, guidance_scale=1.0, **draw), **CLOSE)
    apart = (text_to_image(small, PROMPT, guidance_scale=guidance_scale, **draw) - theirs).abs().mean()
    assert apart < 1e-4 if guidance_scale == 1 else apart > 0.01


def test_the_models_own_scheduler_is_left_alone(small):
    small.scheduler.set_timesteps(7)
    before = small.scheduler.timesteps.clone()
    text_to_image(small, PROMPT, steps=2)
    assert torch.equal(small.scheduler.timesteps, before)


def test_only_a_scheduler_that_adds_noise_needs_the_generator(small):
    x, eps = torch.randn(2, 1, 4, 8, 8, generator=seeded())
    for name, differ in (("ddpm", True), ("ddim", False), ("lms", False)):
        one, other = (prepare_scheduler(with_scheduler(small, name).scheduler, 5, seeded(seed)) for seed in (1, 2))
        t = one.timesteps[0]
        found = [scheduler.step(eps, t, x).prev_sample for scheduler in (one, other)]
        assert torch.equal(*found) != differ


# ---------------------------------------------------------------- the oracle: for data N(m, s^2) the noise is known


class Oracle:
    """A perfect noise predictor: eps = sqrt(1-a) (x - sqrt(a) m) / (a s^2 + 1 - a), m being what the text says."""

    config = SimpleNamespace(in_channels=4, sample_size=8)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, s):
        self.s, self.calls = s, 0

    def __call__(self, x, t, encoder_hidden_states):
        self.calls += 1
        a = ALPHA_BAR[int(t)]
        m = encoder_hidden_states.mean((1, 2))[:, None, None, None]
        eps = (1 - a).sqrt() * (x - a.sqrt() * m) / (a * self.s**2 + 1 - a)
        return SimpleNamespace(sample=eps)


def says(m, b=64):
    """A text that stands for data of mean `m`."""
    return torch.full((b, 3, 2), float(m))


def run_oracle(name, m_empty, m_text, s, guidance_scale, steps):
    scheduler = parts.make_scheduler(name, parts.stable_diffusion_scheduler().config)
    scheduler = prepare_scheduler(scheduler, steps, seeded(1))
    oracle = Oracle(s)
    start = initial_latents(oracle, scheduler, 64, seeded(), 8, 8)
    out = denoise(oracle, scheduler, start, says(m_empty), says(m_text), guidance_scale)
    assert oracle.calls == len(scheduler.timesteps)  # one pass for both
    a = ALPHA_BAR[int(scheduler.timesteps[0])]
    return out, start / scheduler.init_noise_sigma, a


# The guided noise of two means is the exact noise of m_empty + g (m_text - m_empty).
@pytest.mark.parametrize("guidance_scale, mean", [(0.0, -0.5), (1.0, 0.3), (2.5, 1.5)])
@pytest.mark.parametrize("name", [name for name in parts.SCHEDULERS if name != "ddpm"])
def test_oracle_every_number(name, guidance_scale, mean):
    """Without noise of their own, all schedulers follow one curve, whose end is known for each number."""
    s = 0.5
    out, noise, a = run_oracle(name, -0.5, 0.3, s, guidance_scale, steps=200)
    spread = (a * s**2 + 1 - a).sqrt()
    want = mean + s / spread * (noise - a.sqrt() * mean)
    assert (out - want).abs().max() < 0.06
    assert abs(out.mean() - want.mean()) < 0.02 and abs(out.std() - want.std()) < 0.02


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_oracle_mean_and_deviation(name):
    """The samples follow the distribution that was "trained"."""
    out, _, _ = run_oracle(name, -0.5, 0.5, 0.4, 2.0, steps=250)
    assert abs(out.mean() - 1.5) < 0.06
    assert abs(out.std() - 0.4) < 0.02


@pytest.mark.filterwarnings("ignore:The `scale_model_input` function")
@pytest.mark.parametrize("mistake", ["order swapped", "no init_noise_sigma", "no scale_model_input"])
def test_oracle_refuses(mistake):
    """The oracle is a strict judge: a loop with a mistake ends elsewhere."""
    scheduler = parts.make_scheduler("lms", parts.stable_diffusion_scheduler().config)
    scheduler.set_timesteps(50)
    oracle, texts = Oracle(0.4), [says(-0.5), says(0.5)]
    start = initial_latents(oracle, scheduler, 64, seeded(), 8, 8)
    if mistake == "order swapped":
        texts.reverse()
    if mistake == "no init_noise_sigma":
        start = start / scheduler.init_noise_sigma
    if mistake == "no scale_model_input":
        scheduler.scale_model_input = lambda latents, t: latents
    out = denoise(oracle, scheduler, start, *texts, 2.0)
    assert abs(out.mean() - 1.5) > 0.2 or abs(out.std() - 0.4) > 0.1


# ---------------------------------------------------------------- limits


def test_guide_limits():
    empty, text = torch.randn(2, 3, 4, 8, 8, generator=seeded())
    assert torch.equal(guide(empty, text, 0), empty)
    torch.testing.assert_close(guide(empty, text, 1), text)
    torch.testing.assert_close(guide(empty, text, 3) - guide(empty, text, 2), text - empty)


def test_guidance_0_ignores_the_prompt_and_1_the_negative(small):
    draw = dict(steps=3, seed=5)
    nothing = text_to_image(small, "", guidance_scale=1.0, **draw)
    torch.testing.assert_close(text_to_image(small, PROMPT, guidance_scale=0.0, **draw), nothing, **CLOSE)
    plain = text_to_image(small, PROMPT, guidance_scale=1.0, **draw)
    torch.testing.assert_close(text_to_image(small, PROMPT, "a cat", guidance_scale=1.0, **draw), plain, **CLOSE)
    assert (plain - nothing).abs().max() > 1e-3


def test_one_prompt_for_both_makes_guidance_idle(small):
    one, other = (text_to_image(small, "a cat", "a cat", steps=2, guidance_scale=g) for g in (1.0, 9.0))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


# ---------------------------------------------------------------- seeds, batches, what is seen on the way


def test_seeds(small):
    before = torch.get_rng_state()
    one, again, other = (text_to_image(small, PROMPT, steps=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn from the global state


def test_ddpm_draws_its_noise_from_the_seed(small):
    chosen = with_scheduler(small, "ddpm")
    one, again = (text_to_image(chosen, PROMPT, steps=3, seed=1) for _ in range(2))
    assert torch.equal(one, again)


def test_batch_is_the_same_as_alone(small):
    prompts = [PROMPT, "a cat", ""]
    batch = text_to_image(small, prompts, steps=3, seed=6)
    assert batch.shape == (3, 3, 64, 64)
    torch.testing.assert_close(batch[:1], text_to_image(small, prompts[0], steps=3, seed=6), **CLOSE)
    assert not torch.allclose(batch[1], batch[2], atol=1e-2)


def test_unconditional_first():
    """The U-Net gets the same latents twice, with the empty prompt in the first half."""
    seen = []

    def unet(x, t, encoder_hidden_states):
        seen.append((x, encoder_hidden_states))
        return SimpleNamespace(sample=torch.zeros_like(x))

    scheduler = parts.stable_diffusion_scheduler()
    scheduler.set_timesteps(1)
    latents = torch.randn(2, 4, 8, 8, generator=seeded())
    denoise(unet, scheduler, latents, says(0, 2), says(1, 2), 3.0)
    x, context = seen[0]
    assert torch.equal(x[:2], x[2:]) and torch.equal(context, torch.cat([says(0, 2), says(1, 2)]))


def test_progress_and_watch(small):
    rounds, states = [], []

    def progress(steps):
        for t in steps:
            rounds.append(t)
            yield t

    chosen = with_scheduler(small, "pndm")  # one step more than asked for
    text_to_image(chosen, PROMPT, steps=3, progress=progress, watch=lambda t, latents: states.append((t, latents)))
    assert len(rounds) == len(states) == len(prepare_scheduler(chosen.scheduler, 3, seeded()).timesteps) == 4
    assert all(latents.shape == (1, 4, 8, 8) for _, latents in states)
    assert [t for t, _ in states] == rounds


def test_initial_latents(small):
    noise = initial_latents(small.unet, small.scheduler, 2, seeded(7), 8, 16)
    assert torch.equal(noise, torch.randn(2, 4, 8, 16, generator=seeded(7)))  # DDIM begins at 1
    lms = with_scheduler(small, "lms").scheduler
    lms.set_timesteps(30)
    louder = initial_latents(small.unet, lms, 2, seeded(7), 8, 16)
    torch.testing.assert_close(louder, noise * (lms.sigmas[0] ** 2 + 1).sqrt())


def test_encode_prompts(small):
    texts = encode_prompts(small.tokenizer, small.text_encoder, ["", "a cat", "a cat " * 50])
    assert texts.shape == (3, small.tokenizer.model_max_length, small.unet.config.cross_attention_dim)
    torch.testing.assert_close(texts[0, 0], texts[1, 0])  # the start token sees nothing but itself
    assert not torch.allclose(texts[0, 1:], texts[1, 1:], atol=1e-2)


def test_pictures_stay_in_range(small):
    picture = text_to_image(small, PROMPT, steps=1, guidance_scale=30.0)
    assert picture.min() >= -1 and picture.max() <= 1 and picture.isfinite().all()


# ---------------------------------------------------------------- out of the latents, in half precision too


class Record(list):
    """What happened, one record for a decoder and its copies."""

    def __deepcopy__(self, _):
        return self


class Overflows(torch.nn.Module):
    """A decoder that multiplies and divides by 60000 squared: more than half precision can hold."""

    config = SimpleNamespace(scaling_factor=0.5)

    def __init__(self):
        super().__init__()
        self.large, self.decoded = torch.nn.Parameter(torch.tensor(60000.0), requires_grad=False), Record()

    @property
    def dtype(self):
        return self.large.dtype

    def decode(self, z):
        self.decoded.append(z.dtype)
        square = self.large * self.large
        return SimpleNamespace(sample=z * square / square)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])  # of the latents
def test_a_vae_that_overflows_decodes_again_in_float32(dtype):
    latents = torch.linspace(-1, 1, 2 * 4 * 8 * 8).view(2, 4, 8, 8).mul(64).round().div(64)  # exact in half
    vae = Overflows().half()
    assert vae.decode(latents.half()).sample.isnan().any()
    vae.decoded.clear()
    with pytest.warns(UserWarning, match="decodes again in float32"):
        pictures = decode_latents(vae, latents.to(dtype))
    assert vae.decoded == [torch.float16, torch.float32] and vae.dtype == torch.float16
    torch.testing.assert_close(pictures, (latents / 0.5).clamp(-1, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])  # of the VAE: neither overflows
def test_a_vae_that_does_not_overflow_decodes_once(dtype, recwarn):
    vae = Overflows().to(dtype)
    pictures = decode_latents(vae, torch.full((1, 4, 8, 8), 0.25))
    assert vae.decoded == [dtype] and pictures.dtype == torch.float32 and not recwarn
    torch.testing.assert_close(pictures, torch.full((1, 4, 8, 8), 0.5), atol=0.01, rtol=0)


def test_decode_latents_is_the_plain_decode_clamped(small, recwarn):
    latents = 2 * torch.randn(2, 4, 8, 8, generator=seeded())
    plain = small.vae.decode(latents / small.vae.config.scaling_factor).sample
    assert plain.abs().max() > 1  # there is something to clamp
    torch.testing.assert_close(decode_latents(small.vae, latents), plain.clamp(-1, 1))
    assert small.vae.dtype == torch.float32 and not recwarn


def test_a_nan_that_came_in_is_no_reason_to_decode_float32_again():
    vae = Overflows()
    assert decode_latents(vae, torch.full((1, 4, 8, 8), torch.nan)).isnan().all()
    assert vae.decoded == [torch.float32]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_picture_that_is_not_a_number_is_no_picture(small, part):
    damaged = copy.deepcopy(getattr(small, part))
    next(getattr(damaged, "decoder", damaged).parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not a number \(NaN\): the model's weights or settings are damaged"):
        text_to_image(small._replace(**{part: damaged}), PROMPT, steps=1)


def test_a_scheduler_whose_settings_are_not_numbers_is_no_scheduler(small):
    config = dict(small.scheduler.config) | {"beta_start": float("nan")}
    broken = type(small.scheduler).from_config(config)
    with pytest.raises(ValueError, match="not a number"):
        text_to_image(small._replace(scheduler=broken), PROMPT, steps=1)


@pytest.mark.parametrize("size", [dict(height=60), dict(height=0), dict(width=65), dict(height=-8), dict(width=4)])
def test_size_is_divisible_by_8(small, size):
    with pytest.raises(ValueError, match="divisible by 8; got"):
        text_to_image(small, PROMPT, steps=1, **size)


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_1(small, steps):
    with pytest.raises(ValueError, match=f"steps must be 1 or more; got {steps}"):
        text_to_image(small, PROMPT, steps=steps)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 30.0}, "steps must be a whole number; got 30.0"),
        ({"guidance_scale": "4"}, "guidance must be a number; got '4'"),
    ],
)
def test_settings_of_another_type_are_refused(small, settings, message):
    with pytest.raises(ValueError, match=message):
        text_to_image(small, PROMPT, **settings)


# ---------------------------------------------------------------- the checks of the exercises


def said(capsys, check, function):
    """What a check prints about an answer."""
    assert check(function) is None
    return capsys.readouterr().out.strip()


GUIDES = {
    "5.1 ok": guide,
    "1 ok": lambda e, x, s: (1 - s) * e + s * x,  # the same, in other words
    "eps_empty is missing": lambda e, x, s: s * (x - e),
    "not from eps_text": lambda e, x, s: x + s * (x - e),
    "reversed": lambda e, x, s: e + s * (e - x),
    "changed places": lambda e, x, s: x + s * (e - x),
    "not eps_text": lambda e, x, s: e + s * x,
    "before you scale": lambda e, x, s: s * x,
    "no average": lambda e, x, s: e + s * (x - e) / 2,
    "is not used": lambda e, x, s: x,
    "wanted shape": lambda e, x, s: guide(e, x, s)[0],
    "in place": lambda e, x, s: e.add_(s * (x - e)),
}


@pytest.mark.parametrize("word", GUIDES)
def test_check_guide(capsys, word):
    assert word in said(capsys, check_guide, GUIDES[word])


def step(
    back=lambda x, e, a: (x - (1 - a).sqrt() * e) / a.sqrt(), forth=lambda x0, e, a: a.sqrt() * x0 + (1 - a).sqrt() * e
):
    """The solution, or one with a mistake in it."""
    return lambda x_t, eps, a, a_next: forth(back(x_t, eps, a), eps, a_next)


DDIM_STEPS = {
    "5.2 ok": step(),
    "2 ok": ddim_step,
    "the estimate of x0": step(forth=lambda x0, e, a: x0),
    "noise has to go back in": step(forth=lambda x0, e, a: a.sqrt() * x0),
    "as much noise as there was": lambda x, e, a, n: step()(x, e, a, a),
    "swapped": lambda x, e, a, n: step()(x, e, n, a),
    "division is missing": step(back=lambda x, e, a: x - (1 - a).sqrt() * e),
    "not by a": step(back=lambda x, e, a: (x - (1 - a).sqrt() * e) / a),
    "not eps": step(back=lambda x, e, a: (x - e) / a.sqrt()),
    "x_t is sqrt(1 - a) eps: take the root": step(back=lambda x, e, a: (x - (1 - a) * e) / a.sqrt()),
    "goes back is sqrt(1 - a_next) eps": step(forth=lambda x0, e, a: a.sqrt() * x0 + (1 - a) * e),
    "needs roots, too": step(forth=lambda x0, e, a: a * x0 + (1 - a) * e),
    "sqrt(a_next): take the root": step(forth=lambda x0, e, a: a * x0 + (1 - a).sqrt() * e),
    "not sqrt(a)": lambda x, e, a, n: step()(x, e, a, n) + (a.sqrt() - n.sqrt()) * (x - (1 - a).sqrt() * e) / a.sqrt(),
    "not sqrt(1 - a)": lambda x, e, a, n: step()(x, e, a, n) + ((1 - a).sqrt() - (1 - n).sqrt()) * e,
    "made smaller by": step(forth=lambda x0, e, a: x0 + (1 - a).sqrt() * e),
    "subtracted from x_t": step(back=lambda x, e, a: (x + (1 - a).sqrt() * e) / a.sqrt()),
    "wanted shape": lambda *given: step()(*given)[0],
    "in place": lambda x, e, a, n: x.copy_(step()(x, e, a, n)),
}


@pytest.mark.parametrize("word", DDIM_STEPS)
def test_check_ddim_step(capsys, word):
    assert word in said(capsys, check_ddim_step, DDIM_STEPS[word])


def test_a_ddim_step_is_the_library_s(small):
    x_t, eps = torch.randn(2, 2, 4, 8, 8, generator=seeded())
    small.scheduler.set_timesteps(20)
    for t, after in ((951, 901), (451, 401), (1, 0)):  # at the end to level 0, as Stable Diffusion does
        mine = ddim_step(x_t, eps, ALPHA_BAR[t], ALPHA_BAR[after])
        torch.testing.assert_close(mine, small.scheduler.step(eps, t, x_t).prev_sample)
    with pytest.raises(ValueError, match="eps"):
        ddim_step(x_t, eps[:1], ALPHA_BAR[9], ALPHA_BAR[5])


def start_from_picture(keep=None, level=None, mix=None):
    """The solution, or one with a mistake in it."""

    def answer(x0, eps, scheduler, strength):
        n = max(1, int(strength * len(scheduler.timesteps)))
        kept = keep(scheduler.timesteps, n) if keep else scheduler.timesteps[-n:]
        t = level(scheduler.timesteps, kept) if level else kept[0]
        latents = mix(scheduler, x0, eps, t.expand(2)) if mix else scheduler.add_noise(x0, eps, t.expand(2))
        return latents, kept

    return answer


def to_the_nearest(x0, eps, scheduler, strength):
    kept = scheduler.timesteps[-max(1, round(strength * len(scheduler.timesteps))) :]
    return scheduler.add_noise(x0, eps, kept[0].expand(2)), kept


def may_keep_none(x0, eps, scheduler, strength):
    kept = scheduler.timesteps[-int(strength * len(scheduler.timesteps)) :]
    return scheduler.add_noise(x0, eps, kept[0].expand(2)), kept


def on_the_scheduler(x0, eps, scheduler, strength):
    latents, scheduler.timesteps = start_from_picture()(x0, eps, scheduler, strength)
    return latents, scheduler.timesteps


STARTS = {
    "5.4 ok": start_from_picture(),
    "keep at least one step": may_keep_none,
    "changes the scheduler": on_the_scheduler,
    "first ones": start_from_picture(keep=lambda steps, n: steps[:n]),
    "the other 7": start_from_picture(keep=lambda steps, n: steps[n:] if n < 20 else steps),
    "all of the steps": start_from_picture(keep=lambda steps, n: steps),
    "down, as `int` does": to_the_nearest,
    "too much noise": start_from_picture(level=lambda steps, kept: steps[0]),
    "too little noise": start_from_picture(level=lambda steps, kept: kept[-1]),
    "still clean": start_from_picture(mix=lambda scheduler, x0, eps, t: x0),
    "only noise": start_from_picture(mix=lambda scheduler, x0, eps, t: eps),
    "swapped": start_from_picture(mix=lambda scheduler, x0, eps, t: scheduler.add_noise(eps, x0, t)),
    "weighs the two": start_from_picture(mix=lambda scheduler, x0, eps, t: x0 + eps),
    "how much noise belongs to a step": lambda x0, eps, scheduler, strength: (
        (1 - strength) * x0 + strength * eps,
        scheduler.timesteps[-max(1, int(strength * 20)) :],
    ),
    "two things": lambda x0, eps, scheduler, strength: x0,
    "timesteps: wanted a tensor": lambda x0, eps, scheduler, strength: (x0, list(scheduler.timesteps)),
}


@pytest.mark.parametrize("word", STARTS)
def test_check_start_from_picture(capsys, word):
    assert word in said(capsys, check_start_from_picture, STARTS[word])


@pytest.mark.parametrize("strength", [0.3, 1.0, 0.28, 0.99, 0.05])
def test_a_start_from_a_picture_keeps_as_many_steps_as_the_library_s(small, strength):
    from diffusers import StableDiffusionImg2ImgPipeline

    small.scheduler.set_timesteps(20)
    _, kept = start_from_picture()(*torch.randn(2, 2, 4, 8, 8, generator=seeded()), small.scheduler, strength)
    theirs, _ = StableDiffusionImg2ImgPipeline.get_timesteps(small, 20, strength, "cpu")  # it wants a scheduler alone
    assert kept.tolist() == theirs.tolist()


def rescale(dims=(1, 2, 3), upside_down=False, other_way=False):
    """The solution, or one with a mistake in it."""

    def answer(guided, text, share):
        ratio = text.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        rescaled = guided / ratio if upside_down else guided * ratio
        share = 1 - share if other_way else share
        return share * rescaled + (1 - share) * guided

    return answer


def spread(x):
    return x.std((1, 2, 3), keepdim=True)


RESCALES = {
    "5.5 ok": rescale(),
    "other way round": rescale(other_way=True),
    "whole batch": rescale(dims=(0, 1, 2, 3)),
    "each channel": rescale(dims=(2, 3)),
    "upside down": rescale(upside_down=True),
    "is not used": lambda guided, text, share: rescale()(guided, text, 1.0),
    "nothing was rescaled": lambda guided, text, share: guided,
    "x0_text, not 1": lambda guided, text, share: share * guided / spread(guided) + (1 - share) * guided,
    "rescale x0_guided, not x0_text": lambda guided, text, share: share * text + (1 - share) * guided,
    "not with x0_text": lambda guided, text, share: rescale()(guided, text, share) + (1 - share) * (text - guided),
    "in place": lambda guided, text, share: guided.copy_(rescale()(guided, text, share)),
}


@pytest.mark.parametrize("word", RESCALES)
def test_check_rescale(capsys, word):
    assert word in said(capsys, check_rescale, RESCALES[word])


def test_rescale_is_the_library_s():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    text, guided = torch.randn(2, 3, 4, 8, 8, generator=seeded())
    torch.testing.assert_close(rescale()(guided, text, 0.7), rescale_noise_cfg(guided, text, 0.7))


def looped(
    context=lambda e, x: torch.cat([e, x]),
    guide=guide,
    scale=lambda scheduler, x, t: scheduler.scale_model_input(x, t),
    start=lambda first, x, scaled: x,
    last=None,
    begin=1,
    t_of=lambda t, i: t,
):
    """The solution, or one with a mistake in it."""

    def answer(unet, scheduler, latents, empty, text, guidance_scale):
        first = latents = begin * latents
        for i, t in enumerate(scheduler.timesteps[:last]):
            scaled = scale(scheduler, start(first, latents, latents), t)
            noise_pred = unet(torch.cat([scaled, scaled]), t_of(t, i), encoder_hidden_states=context(empty, text))
            eps = guide(*noise_pred.sample.chunk(2), guidance_scale)
            latents = scheduler.step(eps, t, start(first, latents, scaled)).prev_sample
        return latents

    return answer


def latents_once(unet, *given):
    once = lambda x, t, encoder_hidden_states: unet(x.chunk(2)[0], t, encoder_hidden_states)  # noqa: E731
    return looped()(once, *given)


def two_passes(unet, scheduler, latents, empty, text, guidance_scale):
    """Right, too: one pass for each prompt."""
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, t)
        eps_empty, eps_text = (unet(scaled, t, words)[0] for words in (empty, text))
        latents = scheduler.step(guide(eps_empty, eps_text, guidance_scale), t, latents)[0]
    return latents


def changes_the_scheduler(unet, scheduler, *given):
    scheduler.timesteps = scheduler.timesteps[:1]
    return looped()(unet, scheduler, *given)


LOOPS = {
    "5.3 ok": looped(),
    "3 ok": two_passes,
    " ok": denoise,
    "order is swapped": looped(context=lambda e, x: torch.cat([x, e])),
    "guidance is missing": looped(guide=lambda e, x, s: x),
    "starts at eps_empty": looped(guide=lambda e, x, s: x + s * (x - e)),
    "go into the U-Net as they are": looped(scale=lambda scheduler, x, t: x),
    "only the U-Net gets": looped(start=lambda first, x, scaled: scaled),
    "the last step is missing": looped(last=-1),
    "inside the loop": looped(last=1),
    "from the first noise": looped(start=lambda first, x, scaled: first),
    "do not scale them again": looped(begin=2),
    "not the step's number": looped(t_of=lambda t, i: i),
    "2 latents and 4 texts": latents_once,
    "4 latents and 2 texts": looped(context=lambda e, x: x),
    "changes the scheduler": changes_the_scheduler,
    "wanted shape": lambda *given: looped()(*given)[0],
    "wanted a tensor": lambda *given: list(looped()(*given)),
    "in place": lambda unet, scheduler, x, *rest: x.copy_(looped()(unet, scheduler, x, *rest)),
}


@pytest.mark.parametrize("word", LOOPS)
def test_check_denoise(capsys, word):
    assert word in said(capsys, check_denoise, LOOPS[word])


def test_euler_s_steps_are_ddim_s_in_another_unit():
    x_t, eps = torch.randn(2, 2, 4, 8, 8, generator=seeded())
    a, after = ALPHA_BAR[700], ALPHA_BAR[650]
    sigma, sigma_next = (((1 - x) / x).sqrt() for x in (a, after))
    euler = x_t / a.sqrt() + (sigma_next - sigma) * eps
    torch.testing.assert_close(euler, ddim_step(x_t, eps, a, after) / after.sqrt())


def between(inside=lambda e, x, s: e + s * (x - e), outside=lambda e, x, s: x, on=lambda t, low, high: low <= t < high):
    """The solution, or one with a mistake in it."""
    return lambda e, x, t, s, low, high: inside(e, x, s) if on(t, low, high) else outside(e, x, s)


BETWEENS = {
    "5.6 ok": between(),
    "6 ok": lambda e, x, t, s, low, high: guide(e, x, torch.where((t >= low) & (t < high), s, 1.0)),
    "on at every t: outside": between(on=lambda *_: True),
    "never on": between(on=lambda *_: False),
    "wrong way round": between(on=lambda t, low, high: not low <= t < high),
    "not eps_empty": between(outside=lambda e, x, s: e),
    "at t = high": between(on=lambda t, low, high: low <= t <= high),
    "at t = low": between(on=lambda t, low, high: low < t < high),
    "both ends": between(on=lambda t, low, high: low < t <= high),
    "look at low too": between(on=lambda t, low, high: t < high),
    "look at high too": between(on=lambda t, low, high: t >= low),
    "starts at eps_empty": between(inside=lambda e, x, s: x + s * (x - e)),
    "nothing is predicted": between(outside=lambda e, x, s: torch.zeros_like(x)),
    "for some t": between(outside=lambda e, x, s: None),
    "wanted shape": between(outside=lambda e, x, s: x[0]),
    "wanted a tensor": between(outside=lambda e, x, s: 1.0),
    "in place": between(inside=lambda e, x, s: e.add_(s * (x - e))),
}


@pytest.mark.parametrize("word", BETWEENS)
def test_check_guide_between(capsys, word):
    assert word in said(capsys, check_guide_between, BETWEENS[word])


def test_guidance_between_all_levels_is_guidance():
    empty, text = torch.randn(2, 2, 4, 8, 8, generator=seeded())
    for t in (0, 1, 999):
        torch.testing.assert_close(between()(empty, text, t, 4.0, 0, 1000), guide(empty, text, 4.0))
