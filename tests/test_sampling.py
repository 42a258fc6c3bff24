"""Lesson 5: the loop against the library's pipeline, and against data whose exact noise is known."""

from types import SimpleNamespace

import pytest
import torch

from sdlearn import parts
from sdlearn.checks import check_rescale, check_start_from_picture, check_two_prompts
from sdlearn.noising import ALPHA_BAR
from sdlearn.sampling import denoise, encode_prompts, guide, initial_latents, text_to_image

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


def draw_with(pipeline, name, prompts, seed, **settings):
    """The library's picture, -1 .. 1."""
    pipeline.scheduler = parts.make_scheduler(name, pipeline.scheduler.config)
    images = pipeline(prompts, generator=seeded(seed), output_type="pt", **settings).images
    return images * 2 - 1


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_equals_pipeline(small, pipeline, name):
    want = draw_with(pipeline, name, PROMPT, 3, num_inference_steps=5, guidance_scale=4.0)
    torch.testing.assert_close(text_to_image(with_scheduler(small, name), PROMPT, steps=5, seed=3), want, **CLOSE)


def test_equals_pipeline_with_every_knob_turned(small, pipeline):
    prompts = [PROMPT, "a cat"]
    ours = dict(negative="a bear", steps=4, guidance_scale=9.0, seed=8, height=64, width=96)
    theirs = dict(negative_prompt=["a bear"] * 2, num_inference_steps=4, guidance_scale=9.0, height=64, width=96)
    want = draw_with(pipeline, "dpm++", prompts, 8, **theirs)
    assert want.shape == (2, 3, 64, 96)
    torch.testing.assert_close(text_to_image(with_scheduler(small, "dpm++"), prompts, **ours), want, **CLOSE)


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
    scheduler.set_timesteps(steps)
    oracle = Oracle(s)
    start = initial_latents(oracle, scheduler, 64, seeded(), 64, 64)
    out = denoise(oracle, scheduler, start, says(m_empty), says(m_text), guidance_scale, seeded(1))
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
    start = initial_latents(oracle, scheduler, 64, seeded(), 64, 64)
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
    assert len(rounds) == len(states) == len(chosen.scheduler.timesteps) == 4
    assert all(latents.shape == (1, 4, 8, 8) for _, latents in states)
    assert [t for t, _ in states] == rounds


def test_initial_latents(small):
    noise = initial_latents(small.unet, small.scheduler, 2, seeded(7), 64, 128)
    assert torch.equal(noise, torch.randn(2, 4, 8, 16, generator=seeded(7)))  # DDIM begins at 1
    lms = with_scheduler(small, "lms").scheduler
    lms.set_timesteps(30)
    louder = initial_latents(small.unet, lms, 2, seeded(7), 64, 128)
    torch.testing.assert_close(louder, noise * (lms.sigmas[0] ** 2 + 1).sqrt())


def test_encode_prompts(small):
    texts = encode_prompts(small.tokenizer, small.text_encoder, ["", "a cat", "a cat " * 50])
    assert texts.shape == (3, small.tokenizer.model_max_length, small.unet.config.cross_attention_dim)
    torch.testing.assert_close(texts[0, 0], texts[1, 0])  # the begin token sees nothing but itself
    assert not torch.allclose(texts[0, 1:], texts[1, 1:], atol=1e-2)


def test_pictures_stay_in_range(small):
    picture = text_to_image(small, PROMPT, steps=1, guidance_scale=30.0)
    assert picture.min() >= -1 and picture.max() <= 1 and picture.isfinite().all()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("size", [dict(height=60), dict(width=65), dict(height=-8), dict(width=4)])
def test_size_is_divisible_by_8(small, size):
    with pytest.raises(ValueError, match="divisible by 8; got"):
        text_to_image(small, PROMPT, steps=1, **size)


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_1(small, steps):
    with pytest.raises(ValueError, match=f"steps must be 1 or more; got {steps}"):
        text_to_image(small, PROMPT, steps=steps)


# ---------------------------------------------------------------- the checks of the exercises


def said(capsys, check, function):
    """What a check prints about an answer."""
    assert check(function) is None
    return capsys.readouterr().out.strip()


def not_tried(*_):
    raise NotImplementedError


@pytest.mark.parametrize("check", [check_two_prompts, check_start_from_picture, check_rescale])
def test_checks_stub_and_crash(capsys, check):
    assert said(capsys, check, not_tried).endswith("not tried yet")
    assert "return" in said(capsys, check, lambda *_: None)
    with pytest.raises(ZeroDivisionError):
        check(lambda *_: 1 / 0)


TWO_PROMPTS = {
    "ok": lambda e, a, b, s, r: e + s * (a - e) + r * (b - e),
    "eps_empty is missing": lambda e, a, b, s, r: s * (a - e) + r * (b - e),
    "eps_empty is there twice": lambda e, a, b, s, r: e + s * (a - e) + e + r * (b - e),
    "swapped": lambda e, a, b, s, r: e + r * (a - e) + s * (b - e),
    "not the other prompt": lambda e, a, b, s, r: e + s * (a - b) + r * (b - a),
    "reversed": lambda e, a, b, s, r: e + s * (e - a) + r * (e - b),
    "scale each difference": lambda e, a, b, s, r: e + s * a + r * b,
    "no average": lambda e, a, b, s, r: e + (s * (a - e) + r * (b - e)) / 2,
    "wanted shape": lambda e, a, b, s, r: (e + s * (a - e))[0],
    "in place": lambda e, a, b, s, r: e.add_(s * (a - e) + r * (b - e)),
}


@pytest.mark.parametrize("word", TWO_PROMPTS)
def test_check_two_prompts(capsys, word):
    assert word in said(capsys, check_two_prompts, TWO_PROMPTS[word])


def start_from_picture(keep=None, level=None, mix=None):
    """The solution, or one with a mistake in it."""

    def answer(x0, eps, scheduler, strength):
        n = round(strength * len(scheduler.timesteps))
        kept = keep(scheduler.timesteps, n) if keep else scheduler.timesteps[-n:]
        t = level(scheduler.timesteps, kept) if level else kept[0]
        latents = mix(scheduler, x0, eps, t.expand(2)) if mix else scheduler.add_noise(x0, eps, t.expand(2))
        return latents, kept

    return answer


STARTS = {
    "ok": start_from_picture(),
    "first ones": start_from_picture(keep=lambda steps, n: steps[:n]),
    "the other 7": start_from_picture(keep=lambda steps, n: steps[n:] if n < 20 else steps),
    "all of the steps": start_from_picture(keep=lambda steps, n: steps),
    "too much noise": start_from_picture(level=lambda steps, kept: steps[0]),
    "too little noise": start_from_picture(level=lambda steps, kept: kept[-1]),
    "still clean": start_from_picture(mix=lambda scheduler, x0, eps, t: x0),
    "only noise": start_from_picture(mix=lambda scheduler, x0, eps, t: eps),
    "swapped": start_from_picture(mix=lambda scheduler, x0, eps, t: scheduler.add_noise(eps, x0, t)),
    "weighs the two": start_from_picture(mix=lambda scheduler, x0, eps, t: x0 + eps),
    "two things": lambda x0, eps, scheduler, strength: x0,
    "timesteps: wanted a tensor": lambda x0, eps, scheduler, strength: (x0, list(scheduler.timesteps)),
}


@pytest.mark.parametrize("word", STARTS)
def test_check_start_from_picture(capsys, word):
    assert word in said(capsys, check_start_from_picture, STARTS[word])


def rescale(dims=(1, 2, 3), upside_down=False, other_way=False):
    """The solution, or one with a mistake in it."""

    def answer(guided, text, share):
        ratio = text.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        shrunken = guided / ratio if upside_down else guided * ratio
        share = 1 - share if other_way else share
        return share * shrunken + (1 - share) * guided

    return answer


RESCALES = {
    "ok": rescale(),
    "other way round": rescale(other_way=True),
    "whole batch": rescale(dims=(0, 1, 2, 3)),
    "each channel": rescale(dims=(2, 3)),
    "upside down": rescale(upside_down=True),
    "is not used": lambda guided, text, share: rescale()(guided, text, 1.0),
    "nothing was shrunken": lambda guided, text, share: guided,
    "not eps_text": lambda guided, text, share: share * text + (1 - share) * guided,
    "in place": lambda guided, text, share: guided.copy_(rescale()(guided, text, share)),
}


@pytest.mark.parametrize("word", RESCALES)
def test_check_rescale(capsys, word):
    assert word in said(capsys, check_rescale, RESCALES[word])


def test_rescale_is_the_library_s():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    text, guided = torch.randn(2, 3, 4, 8, 8, generator=seeded())
    torch.testing.assert_close(rescale()(guided, text, 0.7), rescale_noise_cfg(guided, text, 0.7))
