"""Lesson 9: straight paths against closed forms, blocks against the library, and what the command writes."""

import inspect
import json
import shutil
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from fastcore.script import CliError
from torch.testing import assert_close

from sdlearn import parts, recipes, since_2022
from sdlearn.noising import STABLE_DIFFUSION, predict_x0, q_sample
from sdlearn.notebook import show, widgets
from sdlearn.notebook.checks import since_2022 as checks
from sdlearn.sampling import ddim_step, encode_prompts, text_to_image
from sdlearn.since_2022 import bend, dit_block, end_of_line, euler, flow_scheduler, guided, joint_block, on_line
from sdlearn.tools import fast, saving, sources, train
from sdlearn.unet import attention, new_unet


def draw(n=6, seed=0):
    """Clean latents, one time for each (the ends among them), and noise."""
    g = torch.Generator().manual_seed(seed)
    t = torch.cat([torch.tensor([0.0, 1.0]), torch.rand(n - 2, generator=g)])
    return torch.randn(n, 4, 8, 8, generator=g), t, torch.randn(n, 4, 8, 8, generator=g)


# ---------------------------------------------------------------- the straight line


def test_the_line_equals_scale_noise():
    x0, _, eps = draw()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    some = [0, 100, 300, 500, 900, 999]
    assert_close(on_line(x0, scheduler.sigmas[some], eps), scheduler.scale_noise(x0, scheduler.timesteps[some], eps))


def test_the_line_has_both_ends_and_leads_back():
    x0, t, eps = draw()
    x_t = on_line(x0, t, eps)
    assert_close(x_t[0], x0[0])
    assert_close(x_t[1], eps[1])
    assert_close(end_of_line(x_t, t, eps - x0), x0, atol=1e-5, rtol=1e-5)


def test_the_velocity_is_the_derivative_of_the_line():
    x0, t, eps = (x.double() for x in draw())
    moved = (on_line(x0, t + 1e-6, eps) - on_line(x0, t, eps)) / 1e-6
    assert_close(moved, eps - x0, atol=1e-6, rtol=1e-6)


def test_a_step_along_the_line_is_ddims_in_another_unit():
    """At equal ratios of signal and noise, line and circle differ by a factor alone; so do the two steps."""
    x0, _, eps = (x[:1] for x in draw())
    a, a_next = STABLE_DIFFUSION.alpha_bar[[800, 500]]
    t, t_next = ((1 - x).sqrt() / (x.sqrt() + (1 - x).sqrt()) for x in (a, a_next))
    x_t = q_sample(x0, torch.tensor([800]), eps)
    wrong = eps + 0.1  # any prediction
    guess = predict_x0(x_t, torch.tensor([800]), wrong)
    on = x_t / (a.sqrt() + (1 - a).sqrt())
    assert_close(on, on_line(x0, t[None], eps))
    stepped = ddim_step(x_t, wrong, a, a_next) / (a_next.sqrt() + (1 - a_next).sqrt())
    assert_close(on + (t_next - t) * (wrong - guess), stepped, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [torch.rand(6, 1), torch.rand(5), torch.tensor(0.5), 0.5])
def test_times_of_another_shape_are_refused(t):
    x0, _, eps = draw()
    for function in (on_line, end_of_line):
        with pytest.raises(ValueError, match=r"t must have shape \(6,\), one time per picture"):
            function(x0, t, eps)


def test_noise_and_velocity_of_another_shape_are_refused():
    x0, t, eps = draw()
    with pytest.raises(ValueError, match="eps must have shape"):
        on_line(x0, t, eps[:1])
    with pytest.raises(ValueError, match="v must have shape"):
        end_of_line(x0, t, eps[:1])


def test_times_in_the_middle_are_logit_normal():
    t = since_2022.logit_normal_times(50_000, torch.Generator().manual_seed(0))
    assert abs(t.mean() - 0.5) < 0.01 and abs(t.logit().std() - 1) < 0.02
    assert ((t > 0.25) & (t < 0.75)).float().mean() > 0.7
    even = recipes.uniform_times(50_000, torch.Generator().manual_seed(0))
    assert abs(even.std() - 12**-0.5) < 0.01


# ---------------------------------------------------------------- following a velocity


def gauss(x, t, m=0.7, s=0.4):
    """The exact velocity for data N(m, s^2): E[eps - x0 | x_t]."""
    t = t[:, None, None, None]
    x0 = m + (1 - t) * s**2 * (x - (1 - t) * m) / ((1 - t) ** 2 * s**2 + t**2)
    return ((x - (1 - t) * x0) / t.clamp_min(1e-6)) - x0


def test_the_exact_velocity_leads_to_the_distribution_of_the_data():
    noise = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    ends = euler(gauss, noise, 200)[-1]
    assert abs(ends.mean() - 0.7) < 0.02 and abs(ends.std() - 0.4) < 0.01
    assert_close(euler(gauss, noise, 1)[-1].mean(), torch.tensor(0.7), atol=0.02, rtol=0)  # one step: the mean
    assert euler(gauss, noise, 1)[-1].std() < 0.02


def test_a_velocity_that_leads_to_one_point_needs_one_step():
    noise = torch.randn(5, 4, 2, 2)
    goal = torch.randn(5, 4, 2, 2)
    v = lambda x, t: (x - goal) / t[:, None, None, None]  # noqa: E731
    for steps in (1, 7):
        path = euler(v, noise, steps)
        assert path.shape == (steps + 1, 5, 4, 2, 2)
        assert_close(path[-1], goal, atol=1e-5, rtol=1e-5)
        assert_close(bend(path), torch.tensor(1.0), atol=1e-4, rtol=1e-4)


def test_the_bend_of_a_half_circle_is_half_pi():
    angle = torch.linspace(0, torch.pi, 400)
    path = torch.stack([angle.cos(), angle.sin()], 1)[:, None, :, None, None]
    assert_close(bend(path), torch.tensor(torch.pi / 2), atol=1e-3, rtol=0)


def test_guidance_has_its_limits():
    x, t = torch.randn(2, 4, 2, 2), torch.rand(2)
    v_empty, v_text = (lambda x, t: x), (lambda x, t: 2 * x + t[:, None, None, None])
    for scale, want in ((0, x), (1, v_text(x, t))):
        assert_close(guided(v_empty, v_text, scale)(x, t), want)


def noisy_unet(x, t, encoder_hidden_states):
    return SimpleNamespace(sample=(x + encoder_hidden_states.mean() + t[:, None, None, None] / 1000).tanh())


def test_the_loop_equals_the_librarys_euler():
    text, noise = torch.randn(3, 5, 7), torch.randn(3, 4, 8, 8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    x, v = noise, since_2022.velocity(noisy_unet, text)
    for t in scheduler.timesteps:
        x = scheduler.step(noisy_unet(x, t.expand(3), text).sample, t, x).prev_sample
    assert_close(euler(v, noise, 4)[-1], x)


def test_the_scheduler_for_pipelines_takes_eulers_steps():
    scheduler, x, v = flow_scheduler(), torch.randn(1, 4, 8, 8), torch.randn(5, 1, 4, 8, 8)
    scheduler.set_timesteps(5)
    y = x
    for i, t in enumerate(scheduler.timesteps):
        y = scheduler.step(v[i], t, y).prev_sample
        x = x + (scheduler.sigmas[i + 1] - scheduler.sigmas[i]) * v[i]
    assert_close(y, x, atol=1e-5, rtol=1e-5)
    assert scheduler.sigmas[0] > 0.998 and scheduler.init_noise_sigma == 1


def test_the_loss_is_zero_for_the_right_velocity_and_the_network_is_told_a_thousand_t():
    x0, t, eps = draw()
    told = []

    def right(x, level, encoder_hidden_states):
        told.append(level)
        return SimpleNamespace(sample=eps - x0)

    assert since_2022.flow_loss(right, on_line(x0, t, eps), t, eps - x0, torch.zeros(6, 1, 1)) == 0
    assert_close(told[0], 1000 * t)


def test_a_flow_model_is_a_pipeline_directory(tmp_path):
    mini = parts.load("mini", "cpu")
    model = mini._replace(scheduler=flow_scheduler())
    nobody = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    diffusers.StableDiffusionPipeline(**model._asdict(), **nobody).save_pretrained(tmp_path)
    with parts.quiet():
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, **nobody)
    pipe.set_progress_bar_config(disable=True)
    options = dict(num_inference_steps=2, guidance_scale=3.0, generator=torch.Generator().manual_seed(1))
    theirs = pipe("a cat", output_type="pt", **options).images * 2 - 1
    assert_close(text_to_image(model, "a cat", steps=2, guidance_scale=3.0, seed=1), theirs, atol=5e-4, rtol=0)


def test_the_few_step_unet_draws_in_a_pipeline_in_one_step_a_thousandth_before_the_end(tmp_path):
    """DPM-Solver++ begins at time 0.999, `euler` at 1, where half of the training was: so only nearly the same."""
    mini = parts.load("mini", "cpu")
    model = mini._replace(unet=parts.load_fast("mini"), scheduler=flow_scheduler())
    nobody = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    diffusers.StableDiffusionPipeline(**model._asdict(), **nobody).save_pretrained(tmp_path)
    with parts.quiet():
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, **nobody)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a photograph of a cat riding a horse on the moon", "a drawing of a bear riding a bicycle in a forest"]
    options = dict(num_inference_steps=1, guidance_scale=1.0, generator=torch.Generator().manual_seed(1))
    theirs = pipe(prompts, output_type="latent", **options).images
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    v = since_2022.velocity(model.unet, encode_prompts(mini.tokenizer, mini.text_encoder, prompts))
    with torch.no_grad():
        assert_close(theirs, noise - 0.999 * v(noise, torch.full((2,), 0.999)), atol=1e-4, rtol=0)
        ours = euler(v, noise, 1)[-1]
    gap = (theirs - ours).abs()
    assert gap.mean() < 0.03 and gap.max() < 0.3  # the latents' standard deviation is about 1


# ---------------------------------------------------------------- the two blocks


def test_a_dit_block_equals_the_librarys():
    torch.manual_seed(0)
    settings = dict(norm_type="ada_norm_zero", num_embeds_ada_norm=10, norm_elementwise_affine=False, norm_eps=1e-6)
    block = BasicTransformerBlock(32, 4, 8, **settings, attention_bias=True).eval()
    x, t, kinds = torch.randn(2, 9, 32), torch.tensor([3, 900]), torch.tensor([1, 2])
    c = block.norm1.emb(t, kinds, hidden_dtype=x.dtype)
    assert_close(dit_block(block, x, c), block(x, timestep=t, class_labels=kinds))
    torch.nn.init.zeros_(block.norm1.linear.weight), torch.nn.init.zeros_(block.norm1.linear.bias)
    assert torch.equal(dit_block(block, x, c), x)


def test_a_joint_block_equals_the_librarys():
    torch.manual_seed(0)
    block = JointTransformerBlock(32, 4, 8).eval()
    x, text, c = torch.randn(2, 9, 32), torch.randn(2, 5, 32), torch.randn(2, 32)
    theirs_text, theirs = block(x, text, c)
    ours, ours_text = joint_block(block, x, text, c)
    assert_close(ours, theirs)
    assert_close(ours_text, theirs_text)


# ---------------------------------------------------------------- recipes and the command


def examples_of(recipe, *given, **options):
    """One batch of a recipe."""
    seen = []
    recipe(
        None, *given, fit=lambda unet, loss, examples, steps, **_: seen.append(examples(torch.Generator())), **options
    )
    return seen[0]


def test_examples_of_flow_lie_on_lines_with_their_velocity():
    latents, text = torch.randn(8, 4, 8, 8), torch.randn(8, 3, 5)
    empty = torch.zeros(1, 3, 5)
    x_t, t, v, shown = examples_of(recipes.train_flow, latents, text, empty, batch=64)
    back = end_of_line(x_t, t, v)
    assert (torch.cdist(back.flatten(1), latents.flatten(1)).min(1).values < 0.1).all()
    dropped = (shown == 0).all(-1).all(-1).float().mean()
    assert 0 < dropped < 0.4
    middle = lambda n, generator: torch.full((n,), 0.5)  # noqa: E731
    assert (examples_of(recipes.train_flow, latents, text, empty, times=middle)[1] == 0.5).all()


def test_examples_of_reflow_keep_each_noise_with_its_end():
    noise, ends, text = torch.randn(8, 4, 8, 8), torch.randn(8, 4, 8, 8), torch.arange(8.0)[:, None, None]
    x_t, t, v, said = examples_of(recipes.train_fast, noise, ends, text, batch=200)
    i = said.flatten().long()
    assert_close(v, noise[i] - ends[i])
    assert_close(x_t, on_line(ends[i], t, noise[i]))
    assert 0.35 < (t == 1).float().mean() < 0.65


def test_eight_bits_come_back_within_half_a_step(tmp_path):
    unet = new_unet(widths=(16, 32))
    with torch.no_grad():
        unet.conv_out.weight[0].zero_()
    saving.save_model(unet, tmp_path / "unet")
    saving.save_fast(unet, tmp_path / "fast")
    again = parts.load_fast(tmp_path)
    for name, x in unet.state_dict().items():
        y = again.state_dict()[name]
        most = x.abs().amax(tuple(range(1, x.dim())), keepdim=True) if x.dim() > 1 else x.abs()
        assert ((x - y).abs() <= most / 254 + 1e-3 * (x.dim() < 2) + 1e-6).all(), name
    size = sum(path.stat().st_size for path in (tmp_path / "fast").iterdir())
    assert size < 1.5 * sum(x.numel() for x in unet.parameters())


def test_the_shipped_shape_fits_into_eight_megabytes(tmp_path):
    saving.save_fast(new_unet(), tmp_path / "fast")
    assert (tmp_path / "fast" / "model.safetensors").stat().st_size <= 8_000_000


@pytest.fixture
def tiny_world(monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 64)
    monkeypatch.setattr(fast, "PAIRS", 12)
    monkeypatch.setattr(fast, "CHUNK", 8)


@pytest.mark.slow
def test_one_command_makes_a_fast_unet(copy, tiny_world, capsys):
    shutil.rmtree(copy / "fast")
    train.main("fast", out=copy, steps=2, batch=2)
    unet = parts.load_fast(copy)
    with torch.no_grad():
        v = unet(torch.randn(1, 4, 8, 8), 1000, torch.randn(1, 24, 128)).sample
    assert v.shape == (1, 4, 8, 8) and v.isfinite().all()
    assert not list((copy / "checkpoints").iterdir())
    before = (copy / "fast" / "model.safetensors").read_bytes()
    train.main("fast", out=copy, steps=2, batch=2, resume=True)
    assert "fast is trained already" in capsys.readouterr().out
    assert (copy / "fast" / "model.safetensors").read_bytes() == before
    settings = json.loads((copy / "flow" / "config.json").read_text())
    assert settings["_class_name"] == "UNet2DConditionModel"


def test_the_fast_unet_needs_a_trained_model(tmp_path):
    with pytest.raises(CliError, match="model_index.json is missing"):
        train.main("fast", out=tmp_path, steps=1)


def test_pairs_are_made_once_and_lead_from_noise_to_ends(tmp_path, monkeypatch):
    unet, text, empty = new_unet(widths=(16, 32)), torch.randn(5, 3, 128), torch.zeros(1, 3, 128)
    monkeypatch.setattr(fast, "CHUNK", 2)
    noise, ends = fast.pairs(unet, text, empty, seed=3)
    v = guided(since_2022.velocity(unet, empty.expand_as(text)), since_2022.velocity(unet, text), fast.GUIDANCE)
    assert_close(euler(v, noise, fast.STEPS)[-1], ends, atol=1e-4, rtol=1e-4)
    file, calls = tmp_path / "new" / "pairs.safetensors", []
    for _ in range(2):
        found = fast.made_once(file, lambda: calls.append(1) or (noise, ends))
        assert_close(found, (noise, ends))
    assert calls == [1]


# ---------------------------------------------------------------- the widget


def test_a_picture_follows_every_key(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "display_small", lambda *_, widget=None: shown.append(widget))

    def picture(text, seed):
        if text == "bad":
            raise ValueError("not this one")
        return np.full((8, 8, 3), len(text) + seed, np.uint8)

    widgets.while_typing(picture, "a", None)
    line, seed, screen, note = shown[0].children
    assert line.continuous_update and screen.value == show.png(picture("a", 0), 256)
    line.value = "a c"
    assert screen.value == show.png(picture("a c", 0), 256) and note.value.endswith(" ms")
    seed.value = 5
    assert screen.value == show.png(picture("a c", 5), 256)
    line.value = "bad"
    assert screen.value == show.png(picture("a c", 5), 256) and note.value == "not this one"


# ---------------------------------------------------------------- checks: right, and named mistakes


def axes(t):
    return t[:, None, None, None]


def line(x0, t, eps):
    return (1 - axes(t)) * x0 + axes(t) * eps


def back(x_t, t, v):
    return x_t - axes(t) * v


def check_line(answer):
    checks.check_on_line(answer, back)


def check_back(answer):
    checks.check_on_line(line, answer)


def steps_of(v, noise, times, begin=lambda t, s: t, sign=1):
    path = [noise]
    for t, s in zip(times, times[1:], strict=False):
        path.append(path[-1] + sign * (s - t) * v(path[-1], begin(t, s).expand(len(noise))))
    return torch.stack(path)


def my_euler(v, noise, steps):
    return steps_of(v, noise, torch.linspace(1, 0, steps + 1))


def my_bend(path):
    length = path.diff(dim=0).square().sum((2, 3, 4)).sqrt().sum()
    return length / (path[-1] - path[0]).square().sum((1, 2, 3)).sqrt().sum()


def one_distance_for_all(path):
    return path.diff(dim=0).flatten(2).norm(dim=-1).sum() / (path[-1] - path[0]).norm()


def my_modulate(x, shift, scale):
    x = x - x.mean(-1, keepdim=True)
    return x / x.var(-1, unbiased=False, keepdim=True).sqrt() * (1 + scale[:, None]) + shift[:, None]


def my_joint(q, k, v, q_text, k_text, v_text):
    mixed = F.scaled_dot_product_attention(*(torch.cat(x, 1) for x in ((q, q_text), (k, k_text), (v, v_text))))
    return mixed[:, : q.shape[1]], mixed[:, q.shape[1] :]


def my_midpoint(v, noise, steps):
    times = torch.linspace(1, 0, steps + 1)
    path = [noise]
    for t, s in zip(times, times[1:], strict=False):
        x, b = path[-1], len(noise)
        half = x + (s - t) / 2 * v(x, t.expand(b))
        path.append(x + (s - t) * v(half, ((t + s) / 2).expand(b)))
    return torch.stack(path)


def two_half_steps(v, noise, steps):
    return my_euler(v, noise, 2 * steps)[::2]


@pytest.mark.parametrize(
    "check, answer, number",
    [
        (check_line, line, "9.1"),
        (check_line, since_2022.on_line, "9.1"),
        (check_back, since_2022.end_of_line, "9.1"),
        (checks.check_euler, my_euler, "9.2"),
        (checks.check_euler, lambda v, noise, steps: euler(v, noise, steps), "9.2"),
        (checks.check_bend, my_bend, "9.3"),
        (checks.check_bend, lambda path: bend(path), "9.3"),
        (checks.check_modulate, my_modulate, "9.4"),
        (checks.check_modulate, since_2022.modulate, "9.4"),
        (checks.check_joint_attention, my_joint, "9.5"),
        (checks.check_midpoint, my_midpoint, "9.6"),
    ],
)
def test_right_answers_are_ok(capsys, check, answer, number):
    check(answer)
    assert capsys.readouterr().out == f"{number} ok\n"


def alone(q, k, v, q_text, k_text, v_text):
    return attention(q, k, v)[0], attention(q_text, k_text, v_text)[0]


def crossed(q, k, v, q_text, k_text, v_text):
    return attention(q, k_text, v_text)[0], attention(q_text, k, v)[0]


def whole_answer(q, k, v, q_text, k_text, v_text):
    return attention(torch.cat([q, q_text], 1), torch.cat([k, k_text], 1), torch.cat([v, v_text], 1))


def half_joint(q, k, v, q_text, k_text, v_text):
    return my_joint(q, k, v, q_text, k_text, v_text)[0], attention(q_text, k_text, v_text)[0]


def end_of_step(t, s):
    return s


MISTAKES = [
    (check_line, lambda x, t, e: line(e, t, x), "you have turned the line round"),
    (check_line, lambda x, t, e: (1 - t) * x + t * e, "along the columns"),
    (check_line, lambda x, t, e: (1 - t[:, None]) * x + t[:, None] * e, "along the rows"),
    (check_line, lambda x, t, e: (1 - axes(t)).sqrt() * x + axes(t).sqrt() * e, "no roots"),
    (check_line, lambda x, t, e: x + axes(t) * e, "x0 has a factor too"),
    (check_line, lambda x, t, e: e - x, "that is the velocity"),
    (check_back, lambda x, t, v: x + axes(t) * v, "subtract it"),
    (check_back, lambda x, t, v: x - (1 - axes(t)) * v, "not 1 - t"),
    (check_back, lambda x, t, v: x - v, "only t of it is left"),
    (check_back, lambda x, t, v: x + (1 - axes(t)) * v, "that is the noise"),
    (checks.check_euler, lambda v, x, n: my_euler(v, x, n)[-1], "torch.stack(path)"),
    (checks.check_euler, lambda v, x, n: my_euler(v, x, n)[1:], "the noise itself is missing"),
    (checks.check_euler, lambda v, x, n: my_euler(v, x, n)[:-1], "the last place is missing"),
    (checks.check_euler, lambda v, x, n: steps_of(v, x, torch.linspace(0, 1, n + 1)), "down to 0"),
    (checks.check_euler, lambda v, x, n: steps_of(v, x, torch.linspace(1, 0, n + 1), sign=-1), "is negative"),
    (checks.check_euler, lambda v, x, n: steps_of(v, x, torch.linspace(1, 0, n + 1), end_of_step), "not at t_next"),
    (checks.check_euler, lambda v, x, n: my_euler(lambda y, t: v(x, t), x, n), "not at the noise"),
    (checks.check_euler, lambda v, x, n: my_euler(lambda y, t: v(y, t[0]), x, n), "one time for each picture"),
    (checks.check_bend, lambda p: 1 / my_bend(p), "other way round"),
    (checks.check_bend, lambda p: my_bend(p) / (len(p) - 1), "no mean"),
    (checks.check_bend, lambda p: p.diff(dim=0).flatten(2).norm(dim=-1).sum(), "divide by the straight lines"),
    (checks.check_bend, lambda p: torch.stack([my_bend(x[:, None]) for x in p.unbind(1)]), "add up over them too"),
    (checks.check_bend, lambda p: sum(my_bend(p[:, [i]]) for i in range(3)) / 3, "add up first"),
    (checks.check_bend, one_distance_for_all, "its own distance"),
    (checks.check_bend, lambda p: my_bend(p.flatten(1, 2)[:, None]), "not one for all paths at once"),
    (checks.check_modulate, lambda x, m, s: F.layer_norm(x, x.shape[-1:]) * s[:, None] + m[:, None], "1 + scale"),
    (checks.check_modulate, lambda x, m, s: x * (1 + s[:, None]) + m[:, None], "normalised first"),
    (checks.check_modulate, lambda x, m, s: my_modulate(x, s, m), "the wrong way round"),
    (checks.check_modulate, lambda x, m, s: F.layer_norm(x, x.shape[-1:]) * (1 + s) + m, "b 1 d"),
    (checks.check_joint_attention, whole_answer, "returns the result and the weights"),
    (checks.check_joint_attention, alone, "attends to itself alone"),
    (checks.check_joint_attention, crossed, "that is cross-attention"),
    (checks.check_joint_attention, half_joint, "the text asks only itself"),
    (checks.check_joint_attention, lambda *x: my_joint(*x)[::-1], "the picture's first"),
    (checks.check_joint_attention, lambda *x: torch.cat(my_joint(*x), 1), "wanted two things"),
    (checks.check_joint_attention, checks.unscaled, "1 / sqrt(d) is missing"),
    (checks.check_midpoint, my_euler, "that is Euler's step"),
    (checks.check_midpoint, two_half_steps, "not two halves"),
    (checks.check_midpoint, lambda v, x, n: my_midpoint(v, x, n)[-1], "torch.stack(path)"),
    (
        checks.check_midpoint,
        lambda v, x, n: steps_of(v, x, torch.linspace(1, 0, n + 1), lambda t, s: (t + s) / 2),
        "ask at the middle place",
    ),
]


@pytest.mark.parametrize("check, answer, hint", MISTAKES)
def test_mistakes_get_their_hint(capsys, check, answer, hint):
    check(answer)
    out = capsys.readouterr().out
    assert hint in out and out.count("\n") == 1, out


def test_every_check_refuses_three_named_mistakes():
    for name, function in inspect.getmembers(checks, inspect.isfunction):
        if name.startswith("check_") and function.__module__ == checks.__name__:
            tried = {check_line: checks.check_on_line, check_back: checks.check_on_line}
            assert sum(tried.get(check, check) is function for check, _, _ in MISTAKES) >= 3, name
