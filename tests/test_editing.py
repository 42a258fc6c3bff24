"""Lesson 6: paths, predictors and what steers them; against the library's pipelines and a closed form."""

import copy
from itertools import pairwise

import pytest
import torch

from sdlearn import parts, scenes
from sdlearn.editing import (
    all_of,
    edges,
    follow,
    follow_the_first,
    guided,
    image_to_image,
    injected,
    keep_outside,
    levels,
    new_adapter,
    predictor,
    steered,
)
from sdlearn.noising import STABLE_DIFFUSION, q_sample
from sdlearn.notebook.checks.editing import (
    check_all_of,
    check_image_to_image,
    check_invert,
    check_keep_outside,
    check_regions,
    check_step_up,
)
from sdlearn.sampling import ddim_step, encode_prompts, guide
from sdlearn.unet import AttentionMaps, attention

ALPHA_BAR = STABLE_DIFFUSION.alpha_bar
CLOSE = dict(atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def small():
    return parts.load("mini", "cpu")


@pytest.fixture(scope="module")
def words(small):
    return lambda *prompts: encode_prompts(small.tokenizer, small.text_encoder, list(prompts))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize("steps", [1, 7, 20, 30, 600, 999])
def test_a_path_is_the_scheduler_s_timesteps_and_the_clean_end(small, steps):
    scheduler = type(small.scheduler).from_config(small.scheduler.config)
    scheduler.set_timesteps(steps)
    assert levels(steps) == [*scheduler.timesteps.tolist(), 0]
    assert len(levels(steps)) == steps + 1 and levels(steps)[0] < len(ALPHA_BAR)


@pytest.mark.parametrize("steps", [1000, 1500])
def test_more_steps_than_levels_are_refused(steps):
    """With 1000 the path would begin at 1000, which neither the schedule nor the U-Net knows."""
    for strength in (1.0, 0.5):
        with pytest.raises(ValueError, match=f"steps must lie below 1000, .*; got {steps}, {strength}"):
            levels(steps, strength)


@pytest.mark.parametrize("strength, keep", [(1.0, 10), (0.6, 6), (0.29, 2), (0.1, 1)])
def test_a_strength_keeps_the_last_steps(strength, keep):
    assert levels(10, strength) == levels(10)[-keep - 1 :]


@pytest.mark.parametrize("strength", [0.0, 0.05, 1.2, -0.5])
def test_a_strength_that_leaves_no_step_or_too_many_is_refused(strength):
    with pytest.raises(ValueError, match=f"strength leave 1 to 10 of them; got 10, {strength}"):
        levels(10, strength)


def oracle(m, s):
    """A perfect predictor for data N(m, s^2)."""

    def predict(x, t):
        a = ALPHA_BAR[t]
        return (1 - a).sqrt() * (x - a.sqrt() * m) / (a * s**2 + 1 - a)

    return predict


@pytest.mark.parametrize("m, s", [(0.5, 0.3), (-1.0, 1.0)])
def test_down_a_path_noise_becomes_the_data(m, s):
    path = levels(100)
    a = ALPHA_BAR[path[0]]
    start = a.sqrt() * m + (a * s**2 + 1 - a).sqrt() * noise(64, 4, 8, 8)
    x = follow(oracle(m, s), start, path)
    assert abs(x.mean() - m) < 0.05 and abs(x.std() - s) < 0.05


@pytest.mark.parametrize("m, s", [(0.5, 0.3), (-1.0, 1.0)])
def test_up_a_path_the_data_become_noise(m, s):
    path = levels(100)
    x = follow(oracle(m, s), m + s * noise(64, 4, 8, 8), path[::-1])
    a = ALPHA_BAR[path[0]]
    assert abs(x.mean() - a.sqrt() * m) < 0.05 and abs(x.std() - (a * s**2 + 1 - a).sqrt()) < 0.05


def test_up_and_down_lose_less_the_shorter_the_steps():
    x0, predict = 0.5 + 0.3 * noise(8, 4, 8, 8), oracle(0.5, 0.3)
    lost = [(follow(predict, follow(predict, x0, levels(n)[::-1]), levels(n)) - x0).abs().mean() for n in (10, 50, 250)]
    assert lost[0] > 2 * lost[1] > 4 * lost[2]


def test_follow_is_ddim_s_step_and_after_has_the_last_word():
    x, predict, seen = noise(2, 4, 8, 8), oracle(0.0, 0.5), []
    got = follow(predict, x, [601, 301, 0], after=lambda latents, t: seen.append(t) or latents + 1)
    for t, t_next in pairwise([601, 301, 0]):
        x = ddim_step(x, predict(x, t), ALPHA_BAR[t], ALPHA_BAR[t_next]) + 1
    torch.testing.assert_close(got, x)
    assert seen == [301, 0]


# ---------------------------------------------------------------- predictors


def test_a_guided_predictor_is_guidance(small, words):
    x, text, empty = noise(2, 4, 8, 8), words("a cat", "a bear"), words("", "")
    weak, strong = predictor(small.unet, empty), predictor(small.unet, text)
    answers = [small.unet(x, 501, encoder_hidden_states=told).sample for told in (empty, text)]
    torch.testing.assert_close(guided(weak, strong, 4.0)(x, 501), guide(*answers, 4.0))
    torch.testing.assert_close(guided(weak, strong, 0.0)(x, 501), answers[0])
    torch.testing.assert_close(guided(weak, strong, 1.0)(x, 501), answers[1], **CLOSE)


def test_all_of_one_is_guidance_and_twice_the_same_is_guidance_doubled():
    empty, one, two = noise(3, 2, 4, 8, 8)
    torch.testing.assert_close(all_of(empty, [one], 3.0), guide(empty, one, 3.0))
    torch.testing.assert_close(all_of(empty, [one, one], 3.0), guide(empty, one, 6.0))
    torch.testing.assert_close(all_of(empty, [one, two], 3.0), all_of(empty, [two, one], 3.0))
    torch.testing.assert_close(all_of(empty, [one, two], 0.0), empty)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 1, 8, 8), (4, 8, 8)])
def test_all_of_refuses_predictions_that_would_broadcast(shape):
    with pytest.raises(ValueError, match=r"eps_parts must have shape \(n, 2, 4, 8, 8\); got"):
        all_of(noise(2, 4, 8, 8), [torch.zeros(shape)] * 3, 3.0)


# ---------------------------------------------------------------- the same as the library's pipelines


def draw_with(small, kind, **settings):
    import diffusers

    none = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = getattr(diffusers, kind)(**small._asdict(), **none)
    pipe.set_progress_bar_config(disable=True)
    settings |= dict(num_inference_steps=5, guidance_scale=4.0, generator=seeded(7), output_type="latent")
    return pipe(["a cat", "a bear"], **settings).images


@pytest.fixture(scope="module")
def predict(small, words):
    return guided(predictor(small.unet, words("", "")), predictor(small.unet, words("a cat", "a bear")), 4.0)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_image_to_image_is_the_pipeline_s(small, predict, strength):
    x0, eps = noise(2, 4, 8, 8, seed=1), noise(2, 4, 8, 8, seed=7)
    want = draw_with(small, "StableDiffusionImg2ImgPipeline", image=x0, strength=strength)
    torch.testing.assert_close(image_to_image(predict, x0, eps, levels(5, strength)), want, **CLOSE)


def test_inpainting_is_the_pipeline_s(small, predict):
    x0, eps, mask = noise(2, 4, 8, 8, seed=1), noise(2, 4, 8, 8, seed=7), torch.zeros(2, 1, 8, 8)
    mask[..., 2:7, 3:] = 1
    pixels = mask.repeat_interleave(8, 2).repeat_interleave(8, 3)
    inputs = dict(image=x0, mask_image=pixels, masked_image_latents=x0, height=64, width=64)
    want = draw_with(small, "StableDiffusionInpaintPipeline", strength=1.0, **inputs)
    mine = follow(predict, eps, levels(5), lambda x, t: keep_outside(x, t, x0, eps, mask))
    torch.testing.assert_close(mine, want, **CLOSE)
    assert torch.equal(torch.where(mask == 0, mine, x0), x0)


def test_a_half_precision_unet_is_followed_in_half_precision(small, words):
    text, x0, eps = words("a cat"), noise(1, 4, 8, 8, seed=1), noise(1, 4, 8, 8, seed=7)
    want = image_to_image(predictor(small.unet, text), x0, eps, levels(5, 0.6))
    half = [x.bfloat16() for x in (text, x0, eps)]
    with parts.quiet():
        unet = copy.deepcopy(small.unet).bfloat16()
    got = image_to_image(predictor(unet, half[0]), *half[1:], levels(5, 0.6))
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().mean() < 0.05 * want.std()


def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_gives_the_picture():
    latents, x0, eps = noise(3, 2, 4, 8, 8)
    all_inside, all_outside = torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    assert torch.equal(keep_outside(latents, 501, x0, eps, all_inside), latents)
    assert torch.equal(keep_outside(latents, 0, x0, eps, all_outside), x0)
    t = torch.tensor([501, 501])
    torch.testing.assert_close(keep_outside(latents, 501, x0, eps, all_outside), q_sample(x0, t, eps))


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 1, 8, 8), (2, 1, 64, 64), (2, 8, 8)])
def test_a_mask_of_another_shape_is_refused(shape):
    latents, x0, eps = noise(3, 2, 4, 8, 8)
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 1, 8, 8\); got"):
        keep_outside(latents, 501, x0, eps, torch.ones(shape))


# ---------------------------------------------------------------- attention, injected


def test_the_first_half_draws_as_alone_and_the_second_does_not(small, words):
    x, text = noise(1, 4, 8, 8).repeat(2, 1, 1, 1), words("a cat riding a horse", "a cat riding a bicycle")
    ask = predictor(small.unet, text)
    plain = ask(x, 501)
    with injected(small.unet, "attn2"):
        changed = ask(x, 501)
    torch.testing.assert_close(changed[0], plain[0], **CLOSE)
    assert (changed[1] - plain[1]).abs().mean() > 1e-3
    torch.testing.assert_close(ask(x, 501), plain)  # afterwards all is as it was


@pytest.mark.parametrize("kinds", [(), ("attn1",), ("attn2",), ("attn1", "attn2")])
def test_two_equal_halves_give_what_they_gave(small, words, kinds):
    x, ask = noise(1, 4, 8, 8).repeat(2, 1, 1, 1), predictor(small.unet, words("a cat", "a cat"))
    with injected(small.unet, *kinds):
        torch.testing.assert_close(ask(x, 501), ask(x, 501).flip(0), **CLOSE)
        inside = ask(x, 501)
    torch.testing.assert_close(inside, ask(x, 501), **CLOSE)


def test_only_the_layers_named_are_changed_and_an_error_leaves_none_changed(small):
    before = small.unet.attn_processors
    with pytest.raises(KeyError), injected(small.unet, "attn2"):
        for name, processor in small.unet.attn_processors.items():
            assert (processor is follow_the_first) == ("attn2" in name)
        raise KeyError
    assert small.unet.attn_processors == before


@pytest.mark.parametrize("kinds", [("self",), ("attn1", "cross"), ("attn3",)])
def test_kinds_of_attention_that_there_are_not_are_refused(small, kinds):
    before = small.unet.attn_processors
    with pytest.raises(ValueError, match='kinds must be "attn1", "attn2" or both; got'), injected(small.unet, *kinds):
        pass
    assert small.unet.attn_processors == before


def test_injected_attention_has_the_first_half_s_weights_and_its_own_values(small):
    layer = small.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    x, text = noise(2, 16, layer.to_q.in_features), noise(2, 5, 128, seed=1)
    _, weights = attention(layer.to_q(x), layer.to_k(text), layer.to_v(text), layer.heads)
    values = layer.to_v(text).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    want = layer.to_out[0]((weights[[0, 0]] @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(follow_the_first(layer, x, text), want, **CLOSE)


def test_maps_can_still_be_kept_afterwards(small, words):
    with injected(small.unet, "attn1"):
        pass
    with AttentionMaps(small.unet) as maps:
        predictor(small.unet, words("a cat"))(noise(1, 4, 8, 8), 501)
    assert maps


# ---------------------------------------------------------------- edges and the adapter


def test_edges_are_where_brightness_jumps_and_nowhere_else():
    picture = torch.full((1, 3, 16, 16), -0.5)
    assert edges(picture).sum() == 0
    picture[..., 8:] = 0.5
    want = torch.zeros(1, 1, 16, 16)
    want[..., 7:9] = 1  # the pixels on both sides
    assert torch.equal(edges(picture), want)
    assert torch.equal(edges(-picture), want) and torch.equal(edges(picture + 0.2), want)
    assert edges(0.2 * picture).sum() == 0  # too faint


def test_edges_of_scenes_are_lines_and_not_areas():
    found = edges(scenes.to_tensor(scenes.sample(16, seed=0)[0]))
    assert found.shape == (16, 1, 64, 64) and set(found.unique().tolist()) == {0.0, 1.0}
    assert 0.05 < found.mean() < 0.45


def test_an_untrained_adapter_changes_nothing(small, words):
    adapter, ask = new_adapter(128), predictor(small.unet, words("a cat"))
    x, some = noise(1, 4, 8, 8), (noise(1, 1, 64, 64) > 1).float()
    assert adapter(some).shape == (1, 128, 8, 8) and adapter(some).abs().max() == 0
    with steered(small.unet, adapter(some)):
        assert torch.equal(ask(x, 501), plain := ask(x, 501))
    torch.testing.assert_close(ask(x, 501), plain)


def test_what_is_added_is_heard_and_ends_with_the_block(small, words):
    x, ask = noise(1, 4, 8, 8), predictor(small.unet, words("a cat"))
    plain = ask(x, 501)
    with pytest.raises(KeyError), steered(small.unet, noise(1, 128, 8, 8)):
        assert (ask(x, 501) - plain).abs().mean() > 0.01
        raise KeyError
    assert torch.equal(ask(x, 501), plain)


def test_the_zero_layer_learns_first_and_the_others_after_it(small, words):
    torch.manual_seed(0)
    adapter, ask = new_adapter(128), predictor(small.unet, words("a cat"))
    some = (noise(1, 1, 64, 64) > 1).float()

    def slopes():
        adapter.zero_grad()
        with steered(small.unet, adapter(some)):
            ask(noise(1, 4, 8, 8), 501).square().mean().backward()
        return [layer.weight.grad.abs().max() > 0 for layer in adapter if hasattr(layer, "weight")]

    assert slopes() == [False, False, True]
    with torch.no_grad():
        adapter[-1].weight -= adapter[-1].weight.grad
    assert slopes() == [True, True, True]


# ---------------------------------------------------------------- the checks of the exercises


def said(capsys, check, function):
    """What a check prints about an answer."""
    assert check(function) is None
    return capsys.readouterr().out.strip()


def at(x0, t, eps):
    return q_sample(x0, torch.full((len(x0),), t), eps)


def by_hand(predict, x0, eps, path):
    """Right, too: a loop of one's own."""
    x = at(x0, path[0], eps)
    for t, t_next in pairwise(path):
        x = ddim_step(x, predict(x, t), ALPHA_BAR[t], ALPHA_BAR[t_next])
    return x


def told_next(predict):
    """A predictor that is told the level of the step's other end, along the path of the check."""
    return lambda path: lambda x, t: predict(x, path[path.index(t) + 1])


IMAGES = {
    "6.1 ok": image_to_image,
    "1 ok": by_hand,
    "still clean": lambda p, x0, eps, path: follow(p, x0, path),
    "from noise alone": lambda p, x0, eps, path: follow(p, eps, path),
    "weighs the two": lambda p, x0, eps, path: follow(p, x0 + eps, path),
    "changed places": lambda p, x0, eps, path: image_to_image(p, eps, x0, path),
    "too little noise": lambda p, x0, eps, path: follow(p, at(x0, path[1], eps), path),
    "not at 999": lambda p, x0, eps, path: follow(p, at(x0, 999, eps), path),
    "now follow the path": lambda p, x0, eps, path: at(x0, path[0], eps),
    "last step is missing": lambda p, x0, eps, path: image_to_image(p, x0, eps, path[:-1]),
    "first step is missing": lambda p, x0, eps, path: follow(p, at(x0, path[0], eps), path[1:]),
    "only one step": lambda p, x0, eps, path: image_to_image(p, x0, eps, path[:2]),
    "not where they go": lambda p, x0, eps, path: image_to_image(told_next(p)(path), x0, eps, path),
    "wanted shape": lambda *given: image_to_image(*given)[0],
    "in place": lambda p, x0, eps, path: x0.copy_(image_to_image(p, x0, eps, path)),
}


@pytest.mark.parametrize("word", IMAGES)
def test_check_image_to_image(capsys, word):
    assert word in said(capsys, check_image_to_image, IMAGES[word])


def mixed(inside=lambda x, t, x0, eps: x, outside=lambda x, t, x0, eps: at(x0, t, eps) if t else x0, turn=False):
    """The solution, or one with a mistake in it."""

    def answer(latents, t, x0, eps, mask):
        mask = 1 - mask if turn else mask
        return mask * inside(latents, t, x0, eps) + (1 - mask) * outside(latents, t, x0, eps)

    return answer


KEEPS = {
    "6.2 ok": mixed(),
    "2 ok": keep_outside,
    " ok": lambda x, t, x0, eps, mask: torch.where(mask > 0, x, at(x0, t, eps) if t else x0),
    "wrong way round": mixed(turn=True),
    "nothing was put back": mixed(outside=lambda x, t, x0, eps: x),
    "there is nothing": mixed(outside=lambda x, t, x0, eps: 0 * x),
    "as noisy as the latents": mixed(outside=lambda x, t, x0, eps: x0),
    "add no noise there": mixed(outside=lambda x, t, x0, eps: at(x0, t, eps)),
    "only noise": mixed(outside=lambda x, t, x0, eps: eps),
    "changed places": mixed(outside=lambda x, t, x0, eps: at(eps, t, x0)),
    "do not noise them again": mixed(inside=lambda x, t, x0, eps: at(x, t, eps)),
    "picture alone": lambda x, t, x0, eps, mask: at(x0, t, eps) if t else x0,
    "in place": lambda x, t, x0, eps, mask: x.copy_(mixed()(x, t, x0, eps, mask)),
}


@pytest.mark.parametrize("word", KEEPS)
def test_check_keep_outside(capsys, word):
    assert word in said(capsys, check_keep_outside, KEEPS[word])


def invert(predict, x0, path):
    return follow(predict, x0, path[::-1])


def one_by_one(predict, x0, path, forget=False):
    """Right, too; or from the picture in each step."""
    x = x0
    for t, t_next in pairwise(reversed(path)):
        x = ddim_step(x0 if forget else x, predict(x0 if forget else x, t), ALPHA_BAR[t], ALPHA_BAR[t_next])
    return x


INVERTS = {
    "6.3 ok": invert,
    "3 ok": one_by_one,
    "turn the path round": follow,
    "no step was taken": lambda p, x0, path: x0 + 0,
    "last step is missing": lambda p, x0, path: invert(p, x0, path[1:]),
    "first step is missing": lambda p, x0, path: invert(p, x0, path[:-1]),
    "only one step": lambda p, x0, path: invert(p, x0, path[-2:]),
    "not where they go": lambda p, x0, path: invert(told_next(p)(path[::-1]), x0, path),
    "to the next step": lambda p, x0, path: one_by_one(p, x0, path, forget=True),
    "in place": lambda p, x0, path: invert(p, x0, path.reverse() or path[::-1]),
}


@pytest.mark.parametrize("word", INVERTS)
def test_check_invert(capsys, word):
    assert word in said(capsys, check_invert, INVERTS[word])


ALLS = {
    "6.4 ok": all_of,
    "4 ok": lambda e, parts, s: (1 - s * len(parts)) * e + s * sum(parts),
    "eps_empty is missing": lambda e, parts, s: s * sum(x - e for x in parts),
    "their average": lambda e, parts, s: e + s * sum(x - e for x in parts) / len(parts),
    "not once from their sum": lambda e, parts, s: e + s * (sum(parts) - e),
    "before you add it": lambda e, parts, s: e + s * sum(parts),
    "only the first": lambda e, parts, s: e + s * (parts[0] - e),
    "only the last": lambda e, parts, s: e + s * (parts[-1] - e),
    "wanted once": lambda e, parts, s: sum(e + s * (x - e) for x in parts),
    "is not used": lambda e, parts, s: e + sum(x - e for x in parts),
    "reversed": lambda e, parts, s: e - s * sum(x - e for x in parts),
    "start from eps_empty": lambda e, parts, s: parts[0] + s * sum(x - e for x in parts),
    "changes its arguments": lambda e, parts, s: all_of(e, parts, s) if parts.pop() is None else e,
}


@pytest.mark.parametrize("word", ALLS)
def test_check_all_of(capsys, word):
    assert word in said(capsys, check_all_of, ALLS[word])


def step_up(off=0, told=lambda t, t_up: t_up, start=lambda x, guess: x):
    """The solution, or one with a mistake in it."""

    def answer(predict, x, t, t_up, rounds):
        guess = ddim_step(x, predict(x, t), ALPHA_BAR[t], ALPHA_BAR[t_up])
        for _ in range(rounds + off):
            eps = predict(guess, told(t, t_up))
            guess = ddim_step(start(x, guess), eps, ALPHA_BAR[t], ALPHA_BAR[t_up])
        return guess

    return answer


UPS = {
    "6.5 ok": step_up(),
    "too few": lambda p, x, t, up, n: step_up()(p, x, t, up, max(0, n - 1)) if n != 1 else step_up()(p, x, t, up, 1),
    "too many": step_up(off=1),
    "nothing has moved": lambda p, x, t, up, n: x + 0,
    "a step down": lambda p, x, t, up, n: ddim_step(x, p(x, t), ALPHA_BAR[up], ALPHA_BAR[t]),
    "the first guess": lambda p, x, t, up, n: step_up()(p, x, t, up, 0),
    "steps from x": step_up(start=lambda x, guess: guess),
    "lies at level t_up": step_up(told=lambda t, t_up: t),
    "wanted shape": lambda *given: step_up()(*given)[0],
}


@pytest.mark.parametrize("word", UPS)
def test_check_step_up(capsys, word):
    assert word in said(capsys, check_step_up, UPS[word])


def test_rounds_make_a_step_up_that_the_step_down_undoes():
    x, predict, lost = noise(2, 4, 8, 8), oracle(0.5, 0.3), []
    for rounds in (0, 2, 8):
        up = step_up()(predict, x, 301, 401, rounds)
        lost.append((ddim_step(up, predict(up, 401), ALPHA_BAR[401], ALPHA_BAR[301]) - x).abs().max())
    assert lost[0] > 5 * lost[1] > 25 * lost[2]


def regions(parts, masks):
    return sum(mask * part for mask, part in zip(masks, parts, strict=True)) / sum(masks)


REGIONS = {
    "6.6 ok": regions,
    "divide by the sum of the masks": lambda parts, masks: regions(parts, masks) * sum(masks),
    "not by their number": lambda parts, masks: regions(parts, masks) * sum(masks) / len(masks),
    "masks are not used": lambda parts, masks: sum(parts) / len(parts),
    "last one has replaced": lambda parts, masks: over(parts, masks),
    "first one has replaced": lambda parts, masks: over(parts[::-1], masks[::-1]),
    "wanted one tensor": lambda parts, masks: [part * mask for part, mask in zip(parts, masks, strict=True)],
}


def over(parts, masks):
    out = parts[0]
    for part, mask in zip(parts, masks, strict=True):
        out = torch.where(mask > 0, part, out)
    return out


@pytest.mark.parametrize("word", REGIONS)
def test_check_regions(capsys, word):
    assert word in said(capsys, check_regions, REGIONS[word])
