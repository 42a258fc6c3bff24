"""Lesson 4: the U-Net's parts against the library, its loss, its attention, and the checks of the exercises."""

import math
import re
from threading import Thread

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from torch.testing import assert_close

from sdlearn.notebook.checks import unet as checks
from sdlearn.training import fit
from sdlearn.unet import AttentionMaps, attention, diffusion_loss, drop_captions, new_unet, time_embedding


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return new_unet().eval().requires_grad_(False)


def example(b=2, seed=0):  # x_t, t, eps, text
    g = torch.Generator().manual_seed(seed)
    t = torch.randint(1000, (b,), generator=g)
    x_t, eps = (torch.randn(b, 4, 8, 8, generator=g) for _ in range(2))
    return x_t, t, eps, torch.randn(b, 24, 128, generator=g)


# ---------------------------------------------------------------- time embedding


@pytest.mark.parametrize("width", [2, 32, 128, 320])
def test_time_embedding_is_the_librarys(width):
    t = torch.arange(1000)
    assert_close(time_embedding(t, width), Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)(t))


def test_time_embedding_is_the_formula():
    wave = [math.cos(700 * 10000 ** (-i / 4)) for i in range(4)] + [math.sin(700 * 10000 ** (-i / 4)) for i in range(4)]
    assert_close(time_embedding(torch.tensor([700]), 8)[0], torch.tensor(wave), atol=1e-4, rtol=0)


def test_time_embedding_begins_with_ones_and_has_constant_length():
    waves = time_embedding(torch.arange(1000), 64)
    assert_close(waves[0], torch.cat([torch.ones(32), torch.zeros(32)]))
    assert_close(waves.square().sum(1), torch.full((1000,), 32.0))
    assert torch.cdist(waves, waves).fill_diagonal_(1).min() > 1e-2  # no two steps look alike


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_torchs(heads):
    g = torch.Generator().manual_seed(heads)
    q, k, v = (torch.randn(3, n, 16, generator=g) for n in (5, 7, 7))
    split = [x.view(3, -1, heads, 16 // heads).transpose(1, 2) for x in (q, k, v)]
    want = F.scaled_dot_product_attention(*split).transpose(1, 2).reshape(3, 5, 16)
    out, weights = attention(q, k, v, heads)
    assert_close(out, want)
    assert weights.shape == (3, heads, 5, 7)
    assert_close(weights.sum(-1), torch.ones(3, heads, 5))


def test_attention_of_a_query_that_asks_nothing_is_the_mean():
    v = torch.randn(2, 6, 4)
    out, _ = attention(torch.zeros(2, 3, 4), torch.randn(2, 6, 4), v)
    assert_close(out, v.mean(1, keepdim=True).expand(2, 3, 4))


def test_attention_of_a_sure_query_is_one_value():
    k = torch.eye(4)[None] * 100
    v = torch.randn(1, 4, 4)
    out, _ = attention(k[:, 2:3], k, v)
    assert_close(out[0, 0], v[0, 2])


def test_attention_does_not_mind_the_order_of_the_words():
    q, k, v = (torch.randn(1, n, 8) for n in (3, 5, 5))
    order = torch.tensor([4, 2, 0, 1, 3])
    assert_close(attention(q, k[:, order], v[:, order], 2)[0], attention(q, k, v, 2)[0])


@pytest.mark.parametrize("k, v", [((1, 5, 8), (1, 6, 8)), ((1, 5, 4), (1, 5, 4))])
def test_attention_refuses_what_does_not_fit(k, v):
    with pytest.raises(ValueError, match=r"(k|v) must have shape \(1, (m|5), 8\); got"):
        attention(torch.zeros(1, 3, 8), torch.zeros(k), torch.zeros(v))


# ---------------------------------------------------------------- the U-Net


@pytest.mark.parametrize("height, width", [(8, 8), (8, 16), (9, 7)])
def test_output_has_the_size_of_the_input(unet, height, width):
    x = torch.zeros(1, 4, height, width)
    assert unet(x, 10, encoder_hidden_states=torch.zeros(1, 24, 128)).sample.shape == x.shape


def test_new_unet_is_small_and_has_attention_in_every_block(unet):
    assert sum(p.numel() for p in unet.parameters()) < 10e6
    heads = {m.heads for name, m in unet.named_modules() if name.endswith("attn2")}
    assert heads == {4} and len(unet.attn_processors) == 14


def test_pictures_of_a_batch_do_not_mix(unet):
    x_t, t, _, text = example(3)
    together = unet(x_t, t, encoder_hidden_states=text).sample
    assert_close(unet(x_t[1:2], t[1:2], encoder_hidden_states=text[1:2]).sample, together[1:2], atol=1e-4, rtol=1e-4)


def test_all_three_inputs_matter(unet):
    x_t, t, _, text = example()
    out = unet(x_t, t, encoder_hidden_states=text).sample
    for changed in ((x_t.flip(0), t, text), (x_t, t.flip(0), text), (x_t, t, text.flip(0))):
        assert (unet(*changed[:2], encoder_hidden_states=changed[2]).sample - out).abs().max() > 1e-4


# ---------------------------------------------------------------- dropping captions, and the loss


def test_drop_captions_at_its_ends():
    text, empty = torch.randn(4, 3, 5), torch.randn(1, 3, 5)
    before = text.clone()
    assert torch.equal(drop_captions(text, empty, torch.zeros(4, dtype=torch.bool)), text)
    assert torch.equal(drop_captions(text, empty, torch.ones(4, dtype=torch.bool)), empty.expand(4, 3, 5))
    some = drop_captions(text, empty, torch.tensor([False, True, False, False]))
    assert torch.equal(some[1], empty[0]) and torch.equal(some[[0, 2, 3]], text[[0, 2, 3]])
    assert torch.equal(text, before)


class Says(torch.nn.Module):
    """A noise predictor with one answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, encoder_hidden_states):
        return type("Output", (), {"sample": self.answer})


def test_loss_of_the_truth_is_nothing_and_of_silence_the_noise():
    x_t, t, eps, text = example()
    assert diffusion_loss(Says(eps), x_t, t, eps, text) == 0
    assert_close(diffusion_loss(Says(torch.zeros_like(eps)), x_t, t, eps, text), eps.square().mean())
    assert_close(diffusion_loss(Says(eps + 2), x_t, t, eps, text), torch.tensor(4.0))


@pytest.mark.slow
def test_a_tiny_batch_is_learnt_by_heart():
    torch.manual_seed(1)
    net, batch = new_unet(), example(2, seed=1)
    losses = fit(net, diffusion_loss, lambda g: batch, 50, 1e-3, warmup=5)
    assert losses[0] > 0.8 and losses[-1] < 0.1


# ---------------------------------------------------------------- attention maps


def test_looking_changes_nothing(unet):
    x_t, t, _, text = example()
    before = unet(x_t, t, encoder_hidden_states=text).sample
    with AttentionMaps(unet) as maps:
        during = unet(x_t, t, encoder_hidden_states=text).sample
    assert_close(during, before, atol=1e-5, rtol=1e-4)
    assert torch.equal(unet(x_t, t, encoder_hidden_states=text).sample, before)
    assert len(maps) == 7 and all(name.endswith("attn2") for name in maps)


def test_maps_are_of_this_threads_calls_alone(unet):
    """A widget may draw in the background with the same U-Net."""
    x_t, t, _, text = example()
    with AttentionMaps(unet) as maps:
        other = Thread(target=lambda: unet(x_t, t, encoder_hidden_states=text))
        other.start()
        other.join()
        assert maps == {}
        unet(x_t, t, encoder_hidden_states=text)
    assert {len(calls) for calls in maps.values()} == {1}


def test_maps_are_shares_for_each_call(unet):
    x_t, t, _, text = example()
    with AttentionMaps(unet) as maps:
        for _ in range(2):
            unet(x_t, t, encoder_hidden_states=text)
    assert {len(calls) for calls in maps.values()} == {2}
    for weights in (w for calls in maps.values() for w in calls):
        assert weights.shape[:2] == (2, 4) and weights.shape[2] in (64, 16) and weights.shape[3] == 24
        assert weights.min() >= 0
        assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))


def test_looking_ends_even_after_an_error(unet):
    before = unet.attn_processors
    with pytest.raises(RuntimeError, match="stop"), AttentionMaps(unet):
        raise RuntimeError("stop")
    assert unet.attn_processors == before


# ---------------------------------------------------------------- the checks of the exercises


def said(capsys, check, answer):
    assert check(answer) is None
    return capsys.readouterr().out.strip()


CHECKS = [
    checks.check_time_embedding,
    checks.check_cross_attention,
    checks.check_unet_with_words,
    checks.check_drop_captions,
    checks.check_skip_losses,
    checks.check_word_centres,
]


def in_place(text, empty, drop):
    text[drop] = empty
    return text


DROPS = {  # a word of the hint -> a wrong answer
    "last axis": lambda text, empty, drop: torch.where(drop, empty, text),
    "along the tokens": lambda text, empty, drop: torch.where(drop[:, None], empty, text),
    "wrong ones": lambda text, empty, drop: drop_captions(text, empty, ~drop),
    "zeros": lambda text, empty, drop: text * ~drop[:, None, None],
    "no caption": lambda text, empty, drop: text,
    "all captions": lambda text, empty, drop: empty.expand_as(text),
    "changed its argument in place": in_place,
    "shape": lambda text, empty, drop: text[~drop],
}


@pytest.mark.parametrize("hint", DROPS)
def test_check_drop_captions_refuses(capsys, hint):
    assert hint in said(capsys, checks.check_drop_captions, DROPS[hint])


def time_waves(t, width, base=10000.0, exponent=None, parts=("cos", "sin")):
    angles = t[:, None] * base ** (-torch.arange(width // 2) / (exponent or width // 2))
    return torch.cat([getattr(angles, part)() for part in parts], 1)


WAVES = {
    "cosines come first": lambda t, width: time_waves(t, width, parts=("sin", "cos")),
    "take turns": lambda t, width: time_waves(t, width).unflatten(1, (2, -1)).transpose(1, 2).flatten(1),
    "exponent is negative": lambda t, width: time_waves(t, width, base=1e-4),
    "divides by width / 2 - 1": lambda t, width: time_waves(t, width, exponent=width / 2 - 1),
    "divides by width": lambda t, width: time_waves(t, width, exponent=width),
    "not 1000": lambda t, width: time_waves(t, width, base=1000.0),
    "sines are missing": lambda t, width: time_waves(t, width, parts=("cos", "cos")),
    "shape": lambda t, width: time_waves(t, width, parts=("cos",)),
}


@pytest.mark.parametrize("hint", WAVES)
def test_check_time_embedding_refuses(capsys, hint):
    assert hint in said(capsys, checks.check_time_embedding, WAVES[hint])


def cross(layer, positions, words, heads=None, scale=None, axis=-1, join=True, values=None):
    q, k, v = layer.to_q(positions), layer.to_k(words), (values or layer.to_v)(words)
    q, k, v = (x.unflatten(-1, (heads or layer.heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / (scale or q.shape[-1] ** 0.5)).softmax(axis)
    gathered = (weights @ v).transpose(1, 2).flatten(2)
    return layer.to_out[0](gathered) if join else gathered


CROSS = {
    "not divided": lambda *a: cross(*a, scale=1),
    "root of the whole width": lambda layer, p, w: cross(layer, p, w, scale=p.shape[-1] ** 0.5),
    "not by its root": lambda layer, p, w: cross(layer, p, w, scale=p.shape[-1] / layer.heads),
    "heads are missing": lambda *a: cross(*a, heads=1),
    "over the positions": lambda *a: cross(*a, axis=-2),
    "to_out[0] is missing": lambda *a: cross(*a, join=False),
    "took the keys": lambda layer, p, w: cross(layer, p, w, values=layer.to_k),
    "wrong numbers": lambda *a: -cross(*a),
    "shape": lambda *a: cross(*a)[:1],
}


@pytest.mark.parametrize("hint", CROSS)
def test_check_cross_attention_refuses(capsys, hint):
    assert hint in said(capsys, checks.check_cross_attention, CROSS[hint])


def skip_losses(unet, x_t, t, eps, text, order=((1, 0), (1, 1), (0, 0), (0, 1)), together=False, returns=True):
    losses, hooks = [], []
    for block, i in order:

        def silence(module, args, kwargs, i=i):
            skips = list(kwargs["res_hidden_states_tuple"])
            skips[i] = torch.zeros_like(skips[i])
            return (args, kwargs | {"res_hidden_states_tuple": tuple(skips)}) if returns else None

        hooks.append(unet.up_blocks[block].register_forward_pre_hook(silence, with_kwargs=True))
        losses.append(diffusion_loss(unet, x_t, t, eps, text))
        if not together:
            hooks.pop().remove()
    for hook in hooks:
        hook.remove()
    return torch.stack(losses)


def leaves_a_hook(unet, *rest):
    losses = skip_losses(unet, *rest)
    unet.up_blocks[0].register_forward_pre_hook(lambda module, args: None)
    return losses


def all_at_once(unet, *rest):
    return skip_losses(unet, *rest, together=True)[-1:].expand(4)


SKIPS = {
    "not the one going down": lambda *a: skip_losses(*a, order=((0, 0), (0, 1), (1, 0), (1, 1))),
    "is reversed": lambda *a: skip_losses(*a).flip(0),
    "one more skip": lambda *a: skip_losses(*a, together=True),
    "all skips at zero": all_at_once,
    "nothing changed": lambda *a: skip_losses(*a, returns=False),
    "still in the U-Net": leaves_a_hook,
    "wanted a tensor": lambda *a: skip_losses(*a).tolist(),
}


@pytest.mark.parametrize("hint", SKIPS)
def test_check_skip_losses_refuses(capsys, hint):
    assert hint in said(capsys, checks.check_skip_losses, SKIPS[hint])


def unet_with_words(net, x, t, words, early=False, both_kept=False, bottom="rar", swap=False):
    temb = net.time_embedding(time_embedding(t, 128))

    def listen(attention, h):
        return attention(h, encoder_hidden_states=words, return_dict=False)[0]

    h = net.conv_in(x)
    skips = [h]
    for block in net.down_blocks:
        h = block.resnets[0](h, temb)
        skips += [h] if early or both_kept else []
        h = listen(block.attentions[0], h)
        skips += [] if early else [h]
        if block.downsamplers:
            h = block.downsamplers[0](h)
            skips += [h]
    resnets = iter(net.mid_block.resnets)
    for turn in bottom:
        h = next(resnets)(h, temb) if turn == "r" else listen(net.mid_block.attentions[0], h)
    for block in net.up_blocks:
        for i in range(2):
            both = [skips.pop(), h] if swap else [h, skips.pop()]
            h = listen(block.attentions[i], block.resnets[i](torch.cat(both, 1), temb))
        h = block.upsamplers[0](h) if block.upsamplers else h
    return net.conv_out(F.silu(net.conv_norm_out(h)))


def altered(alter, where=""):  # the library's U-Net; alter(what comes in, what goes out) of some attention blocks
    def answer(net, x, t, words):
        blocks = [m for name, m in net.named_modules() if re.search(rf"^{where}.*attentions\.\d$", name)]
        hooks = [m.register_forward_hook(lambda m, args, out: (alter(args[0], out[0]),)) for m in blocks]
        out = net(x, t, encoder_hidden_states=words).sample
        for hook in hooks:
            hook.remove()
        return out

    return answer


WALKS = {
    "no words came in: attention": altered(lambda h, out: h),
    "no words came in going down": altered(lambda h, out: h, "down"),
    "no words came in at the bottom": altered(lambda h, out: h, "mid"),
    "no words came in going up": altered(lambda h, out: h, "up"),
    "set aside too early": lambda *a: unet_with_words(*a, early=True),
    "not before them": lambda *a: unet_with_words(*a, bottom="arr"),
    "not after them": lambda *a: unet_with_words(*a, bottom="rra"),
    "behind what comes from below": lambda *a: unet_with_words(*a, swap=True),
    "adds its input by itself": altered(lambda h, out: h + out),
    "`.sample`": lambda net, x, t, words: net(x, t, encoder_hidden_states=words),
    "right shape": lambda *a: -unet_with_words(*a),
    "wanted shape": lambda *a: unet_with_words(*a)[:1],
}


@pytest.mark.parametrize("hint", WALKS)
def test_check_unet_with_words_refuses(capsys, hint):
    assert hint in said(capsys, checks.check_unet_with_words, WALKS[hint])


def scored(score, move=True):
    """Cross-attention with another way to the scores."""

    def answer(layer, positions, words):
        q, k, v = (x.unflatten(-1, (3, 4)) for x in (layer.to_q(positions), layer.to_k(words), layer.to_v(words)))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v)) if move else (q, k, v)
        return layer.to_out[0](((score(q, k) / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))

    return answer


MISFITS = [
    (checks.check_cross_attention, scored(lambda q, k: q @ k.T), "`k.transpose(-1, -2)`: `k.T` reverses all"),
    (checks.check_cross_attention, scored(lambda q, k: q @ k), "swap the last two axes of the keys"),
    (checks.check_unet_with_words, lambda *a: unet_with_words(*a, both_kept=True), "the skips are 4: what conv_in,"),
]


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors of dimension other than 2")
@pytest.mark.parametrize("check, answer, hint", MISFITS)
def test_above_an_error_stands_what_often_does_not_fit(capsys, check, answer, hint):
    with pytest.raises(RuntimeError):
        check(answer)
    assert hint in capsys.readouterr().out


def lift(heat):
    return heat - heat.amin(1, keepdim=True)


def word_maps(maps, tokens, side, layers=None, calls=None, heads=None):  # b positions; of each: how many, None for all
    fine = [layer for layer in maps.values() if layer[0].shape[2] == side**2][:layers]
    heat = torch.stack([w[:, :heads].mean(1) for layer in fine for w in layer[:calls]]).mean(0)  # b positions words
    return torch.stack([heat[i, :, token] for i, token in enumerate(tokens.tolist())])


def word_centres(maps, tokens, side, lift=lift, **parts):
    heat = lift(word_maps(maps, tokens, side, **parts))
    heat = (heat / heat.sum(1, keepdim=True)).unflatten(1, (side, side))
    rows, columns, count = heat.sum(2), heat.sum(1), torch.arange(side).float()
    return torch.stack([rows @ count, columns @ count], 1)


def changes_maps(maps, tokens, side):
    centres = word_centres(maps, tokens, side)
    for calls in maps.values():
        calls[0] -= calls[0].min()
    return centres


def brightest(maps, tokens, side):
    top = word_maps(maps, tokens, side).argmax(1)
    return torch.stack([top // side, top % side], 1)


CENTRES = {
    "only one layer": lambda *a: word_centres(*a, layers=1),
    "only the first call": lambda *a: word_centres(*a, calls=1),
    "only the last call": lambda m, *a: word_centres({name: calls[-1:] for name, calls in m.items()}, *a),
    "only one head": lambda *a: word_centres(*a, heads=1),
    "swapped": lambda *a: word_centres(*a).flip(1),
    "count from 0": lambda *a: word_centres(*a) + 1,
    "lowest value first": lambda *a: word_centres(*a, lift=lambda heat: heat),
    "for the whole batch": lambda *a: word_centres(*a, lift=lambda heat: heat - heat.min()),
    "the first one's for all": lambda m, tokens, side: word_centres(m, tokens[:1].expand(3), side),
    "too far": lambda m, tokens, side: word_centres(m, tokens + 1, side),
    "too early": lambda m, tokens, side: word_centres(m, tokens - 1, side),
    "sum to 1": lambda *a: word_centres(*a) * lift(word_maps(*a)).sum(1, keepdim=True),
    "brightest position": brightest,
    "changed the maps": changes_maps,
    "wanted shape": lambda *a: word_centres(*a).T,
}


@pytest.mark.parametrize("hint", CENTRES)
def test_check_word_centres_refuses(capsys, hint):
    assert hint in said(capsys, checks.check_word_centres, CENTRES[hint])


def test_checks_say_ok(capsys):
    answers = [time_waves, cross, unet_with_words, drop_captions, skip_losses, word_centres]
    assert [said(capsys, *pair) for pair in zip(CHECKS, answers, strict=True)] == [f"4.{i + 1} ok" for i in range(6)]
