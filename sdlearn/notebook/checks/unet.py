"""The checks of lesson 4."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from sdlearn.notebook.checks import Hints, compare, exercise
from sdlearn.unet import new_unet, time_embedding


@exercise("4.1")
def check_time_embedding(
    my_time_embedding: Callable,  # (t b, width) -> b d
) -> Hints:
    """The time step as waves."""
    t, width, i = torch.tensor([0, 1, 30, 500, 999]), 12, torch.arange(6)
    cosines, sines = time_embedding(t, width).chunk(2, 1)

    def waves(frequencies):
        angles = t[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)

    wrong = {
        "the cosines come first, then the sines": torch.cat([sines, cosines], 1),
        "all cosines first, then all sines: yours take turns": torch.stack([cosines, sines], 2).flatten(1),
        "the exponent is negative: the first wave is the fastest": waves(10000.0 ** (i / 6)),
        "the exponent is -i / (width / 2): yours divides by width": waves(10000.0 ** (-i / 12)),
        "the exponent is -i / (width / 2): yours divides by width / 2 - 1": waves(10000.0 ** (-i / 5)),
        "sines are missing: cosines twice": torch.cat([cosines, cosines], 1),
        "10000, not 1000": waves(1000.0 ** (-i / 6)),
    }
    yield compare(my_time_embedding(t=t, width=width), torch.cat([cosines, sines], 1), wrong, atol=1e-3)


@exercise("4.2", "for the scores swap the last two axes of the keys, `k.transpose(-1, -2)`: `k.T` reverses all of them")
def check_cross_attention(
    my_cross_attention: Callable,  # (layer, positions b l d, words b m d') -> b l d
) -> Hints:
    """Cross-attention with several heads; on a layer with random weights."""
    torch.manual_seed(42)
    layer = Attention(query_dim=12, cross_attention_dim=6, heads=3, dim_head=4).requires_grad_(False)
    layer.to_q.weight.normal_()
    positions, words = torch.randn(2, 5, 12), torch.randn(2, 7, 6)
    mistakes = {
        "the scores are not divided by the root of the width of a head": dict(scale=1),
        "divide by the root of a head's width, d / heads: yours is the root of the whole width": dict(scale=12**0.5),
        "the scores are divided by the width of a head, not by its root": dict(scale=4),
        "the heads are missing: each has a softmax of its own": dict(heads=1, scale=12**0.5),
        "the softmax runs over the positions: it must run over the words, the last axis": dict(axis=-2),
        "a softmax is missing: weights must be positive and sum to 1": dict(axis=0),
        "layer.to_out[0] is missing: it joins what the heads gathered": dict(joined=False),
        "the values come from layer.to_v: you took the keys": dict(values=layer.to_k),
    }
    wrong = {hint: partial(attended, layer, positions, words, **mistake) for hint, mistake in mistakes.items()}
    want = layer(positions, encoder_hidden_states=words)
    yield compare(my_cross_attention(layer=layer, positions=positions, words=words), want, wrong, atol=1e-4)


def attended(layer, positions, words, heads=3, scale=2.0, axis=-1, joined=True, values=None) -> Tensor:
    """Cross-attention, with one of the typical mistakes."""
    q, k, v = layer.to_q(positions), layer.to_k(words), (values or layer.to_v)(words)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # b heads l d/heads
    scores = q @ k.transpose(-1, -2) / scale
    gathered = ((scores.softmax(axis) if axis else scores) @ v).transpose(1, 2).flatten(2)
    return layer.to_out[0](gathered) if joined else gathered


@exercise("4.3", "the skips are 4: what conv_in, the two attention blocks going down, and the downsampler return")
def check_unet_with_words(
    my_unet_with_words: Callable,  # (net, x b 4 h w, t b, words b m 128) -> b 4 h w
) -> Hints:
    """The whole U-Net, with its attention blocks; on one with random weights."""
    torch.manual_seed(44)
    net = new_unet().eval().requires_grad_(False)
    x, t, words = torch.randn(2, 4, 8, 8), torch.tensor([30, 800]), torch.randn(2, 6, 128)
    mistakes = {
        "no words came in: attention blocks stand between the ResNet blocks": "none",
        "no words came in going down: `block.attentions` is there as well": "no down",
        "no words came in at the bottom: net.mid_block.attentions[0], between the two ResNet blocks": "no mid",
        "no words came in going up: each ResNet block is followed by an attention block": "no up",
        "the skips were set aside too early: going down, keep what the attention block returned": "early",
        "at the bottom the words come in between the two ResNet blocks, not before them": "mid first",
        "at the bottom the words come in between the two ResNet blocks, not after them": "mid last",
        "the skip goes behind what comes from below: torch.cat([h, skip], 1)": "swapped",
        "an attention block adds its input by itself: h = attention(h), not h + attention(h)": "twice",
    }
    got = my_unet_with_words(net=net, x=x, t=t, words=words)
    wrong = {hint: partial(walked, net, x, t, words, mistake) for hint, mistake in mistakes.items()}
    if hasattr(got, "sample"):
        yield "wanted a tensor: take `.sample` of what you return"
    yield compare(got, net(x, t, encoder_hidden_states=words).sample, wrong, atol=1e-4)


def walked(net, x, t, words, mistake: str) -> Tensor:  # as 4.3 takes and gives; and which mistake to make
    """The way through the U-Net, with a typical mistake on it."""
    temb = net.time_embedding(time_embedding(t, 128))

    def listen(h, block, half):
        out = h if mistake in ("none", f"no {half}") else block(h, encoder_hidden_states=words, return_dict=False)[0]
        return out + h if mistake == "twice" else out

    h = net.conv_in(x)
    skips, (first, last) = [h], net.mid_block.resnets
    for block in net.down_blocks:
        early = block.resnets[0](h, temb)
        h = listen(early, block.attentions[0], "down")
        skips.append(early if mistake == "early" else h)
        for down in block.downsamplers or []:
            h = down(h)
            skips.append(h)
    for turn in {"mid first": "arr", "mid last": "rra"}.get(mistake, "rar"):
        h = listen(h, net.mid_block.attentions[0], "mid") if turn == "a" else first(h, temb)
        first = last if turn == "r" else first
    for block in net.up_blocks:
        for resnet, attention in zip(block.resnets, block.attentions, strict=True):
            pair = [h, skips.pop()]
            h = listen(resnet(torch.cat(pair[::-1] if mistake == "swapped" else pair, 1), temb), attention, "up")
        h = block.upsamplers[0](h) if block.upsamplers else h
    return net.conv_out(F.silu(net.conv_norm_out(h)))


@exercise("4.4", text="your function changed its argument in place: the next batch would miss its captions")
def check_drop_captions(
    my_drop_captions: Callable,  # (text b l d, empty 1 l d, drop b) -> b l d
) -> Hints:
    """Some captions give way to the empty prompt."""
    torch.manual_seed(41)
    text, empty = torch.randn(6, 6, 6), torch.randn(1, 6, 6)  # b = l = d, so that a wrong axis raises nothing
    drop = torch.tensor([True, False, False, True, True, False])
    want = torch.stack([empty[0] if gone else row for gone, row in zip(drop.tolist(), text, strict=True)])
    wrong = {
        "`drop` went along the last axis: it needs the shape b 1 1": torch.where(drop, empty, text),
        "`drop` went along the tokens: it needs the shape b 1 1": torch.where(drop[:, None], empty, text),
        "the wrong ones went: `drop` is True where a caption is to go": torch.where(drop[:, None, None], text, empty),
        "zeros are not the empty prompt: its encoding has numbers of its own": text * ~drop[:, None, None],
        "no caption was dropped": text,
        "all captions were dropped": empty.expand(6, -1, -1),
    }
    yield compare(my_drop_captions(text=text, empty=empty, drop=drop), want, wrong)


@exercise("4.5")
def check_skip_losses(
    my_skip_losses: Callable,  # (unet, x_t, t, eps, text) -> 4 losses
) -> Hints:
    """The loss with one skip connection set to zero, for each in turn; on a small U-Net with random weights."""
    unet, example = small_unet(seed=43)
    whole, *alone = (skips_zeroed(unet, example, zeroed) for zeroed in (set(), {0}, {1}, {2}, {3}))
    growing = [skips_zeroed(unet, example, set(range(i + 1))) for i in range(4)]
    wrong = {
        "the order is not the one going down: up_blocks[0] gets the last two skips, up_blocks[1] the first two": [
            alone[i] for i in (2, 3, 0, 1)
        ],
        "the order is reversed: the first skip is the one that conv_in made": alone[::-1],
        "each loss has one more skip at zero than the one before: take your hook away before the next": growing,
        "each loss has all skips at zero: change one tensor of the tuple only": [growing[-1]] * 4,
        "nothing changed: does your hook return (args, kwargs), and is it registered with_kwargs=True?": [whole] * 4,
    }
    got = my_skip_losses(unet=unet, **example)
    yield compare(got, torch.stack(alone), {hint: torch.stack(losses) for hint, losses in wrong.items()}, atol=1e-6)
    if any(module._forward_pre_hooks or module._forward_hooks for module in unet.modules()):
        yield "right, but your hooks are still in the U-Net: call .remove() on each"


def small_unet(seed: int):  # U-Net with four skips, and an example as `diffusion_loss` takes it
    """A U-Net that is quick to run, with random weights."""
    torch.manual_seed(seed)
    blocks = dict(down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2, **blocks
    )
    x_t, eps, text = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.randn(3, 5, 16)
    return unet.eval().requires_grad_(False), dict(x_t=x_t, t=torch.tensor([20, 500, 900]), eps=eps, text=text)


def skips_zeroed(
    unet,  # with two up blocks of two ResNet blocks each
    example: dict[str, Tensor],  # x_t, t, eps, text
    zeroed: set[int],  # which skips are set to zero, counted going down: 0 is conv_in's
) -> Tensor:  # scalar, the loss
    """The loss of a U-Net some of whose skip connections carry zeros."""
    x_t, t, eps, text = example.values()

    def hook(first):  # the number of the block's first skip
        def silence(block, args, kwargs):
            skips = kwargs["res_hidden_states_tuple"]
            quiet = tuple(torch.zeros_like(x) if first + i in zeroed else x for i, x in enumerate(skips))
            return args, kwargs | {"res_hidden_states_tuple": quiet}

        return silence

    blocks = zip(unet.up_blocks, (2, 0), strict=True)
    hooks = [block.register_forward_pre_hook(hook(first), with_kwargs=True) for block, first in blocks]
    try:
        return (unet(x_t, t, encoder_hidden_states=text).sample - eps).square().mean()
    finally:
        for handle in hooks:
            handle.remove()


@exercise("4.6", maps="your function changed the maps themselves: write `a = a - b`, not `a -= b`")
def check_word_centres(
    my_word_centres: Callable,  # (maps, tokens b, side) -> b 2
) -> Hints:
    """Where in each picture its word was attended to, as one row and one column."""
    generator, side, b = torch.Generator().manual_seed(45), 4, 3
    maps = {
        f"layer {i}": [(9 * torch.rand(b, 2, positions, 6, generator=generator)).softmax(-1) for _ in range(2)]
        for i, positions in enumerate((side**2, 4, side**2))
    }
    tokens, each = torch.tensor([2, 4, 1]), torch.arange(b)
    fine = torch.stack([torch.stack(maps[f"layer {i}"]) for i in (0, 2)])  # layers calls b heads positions words
    every = fine.mean((0, 1, 3))  # b positions words
    heat = every[each, :, tokens]  # b positions
    seen, top = lifted(heat), heat.argmax(1)
    ways = {
        "only one layer was used: average over all layers with side x side positions": fine[0].mean((0, 2)),
        "only the first call was used: each layer has a list of calls": fine[:, 0].mean((0, 2)),
        "only the last call was used: each layer has a list of calls": fine[:, -1].mean((0, 2)),
        "only one head was used: average over the heads": fine[:, :, :, 0].mean((0, 1)),
    }
    wrong = {hint: centre(lifted(way[each, :, tokens]), side) for hint, way in ways.items()}
    wrong |= {
        "column and row are swapped: the row comes first": centre(seen, side).flip(1),
        "rows and columns count from 0": centre(seen, side) + 1,
        "subtract each map's lowest value first: else all centres lie near the middle": centre(heat, side),
        "each picture has a lowest value of its own: you took one for the whole batch": centre(heat - heat.min(), side),
        "each picture has a token of its own: you took the first one's for all": centre(lifted(every[:, :, 2]), side),
        "one token too far: `tokens` counts the start token already": centre(lifted(every[each, :, tokens + 1]), side),
        "one token too early: the start token is 0": centre(lifted(every[each, :, tokens - 1]), side),
        "divide by the sum of the weights: a mean has weights that sum to 1": centre(seen, side) * seen.sum(1)[:, None],
        "that is the brightest position: every one counts": torch.stack([top // side, top % side], 1),
    }
    yield compare(my_word_centres(maps=maps, tokens=tokens, side=side), centre(seen, side), wrong)


def lifted(heat: Tensor) -> Tensor:  # b positions, both
    """Each map less its lowest value."""
    return heat - heat.amin(1, keepdim=True)


def centre(heat: Tensor, side: int) -> Tensor:  # b positions, positions in a row; b 2, row and column
    """The mean position, each counted with its weight."""
    i = torch.arange(side**2)
    return heat @ torch.stack([i // side, i % side], 1).float() / heat.sum(1, keepdim=True)
