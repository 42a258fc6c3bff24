"""The U-Net and its attention block, drawn from a model's own configuration."""

from collections import Counter
from typing import Any

from sdlearn.notebook.diagrams import TEXT, shape
from sdlearn.notebook.drawing import COLOURS, PAPER, Diagram, Drawing, mix, tint

Blocks = list[tuple[str, int]]  # kind, and level: 0 has the full resolution
Skips = list[tuple[int, int, int]]  # from which block, to which, how many channels


def unet_blocks(
    config: Any,  # of a UNet2DConditionModel, or a dict with the same keys
) -> tuple[Blocks, Skips]:
    """The blocks in the order in which they run, and the skip connections between them."""
    widths, layers, attention = config["block_out_channels"], config["layers_per_block"], "CrossAttn"
    blocks, kept, skips, last = [("conv", 0)], [(0, widths[0])], [], len(widths) - 1

    def layer(level: int, kind: str) -> None:
        blocks.extend([("resnet", level), ("attention", level)] if attention in kind else [("resnet", level)])

    for level, kind in enumerate(config["down_block_types"]):
        for _ in range(layers):
            layer(level, kind)
            kept.append((len(blocks) - 1, widths[level]))
        if level < last:
            blocks.append(("down", level + 1))
            kept.append((len(blocks) - 1, widths[level]))
    layer(last, config["mid_block_type"])
    layer(last, "")
    for level, kind in zip(range(last, -1, -1), config["up_block_types"], strict=True):
        for _ in range(layers + 1):
            source, channels = kept.pop()
            skips.append((source, len(blocks), channels))
            layer(level, kind)
        if level:
            blocks.append(("up", level - 1))
    return [*blocks, ("conv", 0)], skips


def unet(
    model: Any,  # a UNet2DConditionModel, or its config as a dict
) -> Diagram:
    """A U-Net as it is: its blocks, as tall as their resolution, and the skip connections with their channels."""
    config = getattr(model, "config", model)
    blocks, skips = unet_blocks(config)
    widths, size, nested = config["block_out_channels"], config["sample_size"], config["layers_per_block"] + 1
    about = f"{len(widths)} levels, {size} x {size} at the top, each half as large as the one above, with "
    about += f"{', '.join(map(str, widths))} channels. {len(skips)} skip connections join the two halves."
    heights, tops = [116 * 2**-level for level in range(len(widths))], [40 + 18 * nested]
    for height in heights[:-1]:
        tops.append(tops[-1] + max(height + 22, 18 * nested + 8))  # the skips of a level lie above its blocks
    bottom, pitch = tops[-1] + heights[-1] + 50, 568 / len(blocks)
    xs = [116 + (i + 0.5) * pitch for i in range(len(blocks))]
    d = Drawing("The U-Net", about, bottom + 126)
    draw_skips(d, blocks, skips, xs, tops)
    for (kind, level), x in zip(blocks, xs, strict=True):
        block(d, kind, x, tops[level] + heights[level] / 2, 0.7 * pitch, heights[level])
    for level, width in enumerate(widths):
        arm = [x for (_, at), x in zip(blocks, xs, strict=True) if at == level and x < xs[skips[0][1]]]
        words = f"{size >> level} × {size >> level}\n{width} channels"
        d.text(arm[-1] + 0.35 * pitch, tops[level] + heights[level] + 22, words, 12, "end")
    in_and_out(d, config, tops[0] + heights[0] / 2, xs[0] - 0.35 * pitch, xs[-1] + 0.35 * pitch)
    legend(d, bottom, shape(config["time_embedding_dim"] or 4 * widths[0]), shape("l", config["cross_attention_dim"]))
    return d.done()


def draw_skips(
    d: Drawing,
    blocks: Blocks,
    skips: Skips,  # of each level the innermost first
    xs: list[float],  # middle of each block
    tops: list[float],  # upper end of the blocks of each level
) -> None:
    """From the top of one block over to another, nested."""
    seen = Counter()
    for source, target, channels in skips:
        level, x0, x1 = blocks[source][1], xs[source], xs[target]
        seen[level] += 1
        y = tops[level] - 18 * seen[level]
        d.arrow((x0, tops[level]), (x0, y), (x1, y), (x1, tops[level] - 2), width=1.2)
        d.bar((x0 + x1) / 2, y, 8 * len(str(channels)) + 8, 12, PAPER)
        d.text((x0 + x1) / 2, y, str(channels), 12)


def block(
    d: Drawing,
    kind: str,  # conv, resnet, attention, down or up
    x: float,
    y: float,
    w: float,
    h: float,
) -> None:
    """One block of a U-Net; an attention block has a core in the colour of the text, which comes in there."""
    colour = COLOURS["unet"]
    fills = {"resnet": colour, "attention": tint("unet"), "conv": mix(colour, "#ffffff", 0.5)}
    d.bar(x, y, w, h, fills.get(kind, "#ffffff"), colour)
    if kind == "attention":
        d.bar(x, y, 0.4 * w, h - 0.6 * w, COLOURS["text"])


def in_and_out(
    d: Drawing,
    config: Any,
    y: float,
    left: float,  # where the first block begins
    right: float,  # where the last block ends
) -> None:
    """Noisy latents on the left, predicted noise on the right."""
    size = (config["sample_size"],) * 2
    d.latents(52, y, 0.2, 0.8)
    d.caption(56, y + 42, "x_t", shape(config["in_channels"], *size))
    d.latents(736, y, 0, 1)
    d.caption(740, y + 42, "predicted ε", shape(config["out_channels"], *size))
    d.arrows([(96, y), (left, y)], [(right, y), (706, y)])


def legend(
    d: Drawing,
    y: float,  # where it begins
    time: str,  # shape of the time embedding
    text: str,  # shape of the encoded text
) -> None:
    """What each kind of block is, and where time and text come in."""
    d.text(58, y + 28, "step t", anchor="start")
    d.text(134, y + 28, "time embedding", anchor="start")
    d.code(250, y + 28, time, "start")
    d.vectors(88, y + 80, 4)
    d.text(134, y + 80, "text vectors", anchor="start")
    d.code(224, y + 80, text, "start")
    for kind, x, at, words in (
        ("resnet", 378, 28, "every ResNet block"),
        ("attention", 378, 80, "every attention block"),
        ("conv", 576, 20, "convolution"),
        ("down", 576, 54, "downsampling, upsampling"),
    ):
        block(d, kind, x, y + at, 14, 24)
        d.text(x + 18, y + at, words, anchor="start")
    d.arrows([(104, y + 28), (126, y + 28)], [(326, y + 28), (362, y + 28)], [(326, y + 80), (362, y + 80)])
    d.arrow((562, y + 97), (562, y + 80), (582, y + 80), (582, y + 97), width=1.2)
    d.text(594, y + 88, "skip connection (channels)", anchor="start")


def attention_block(
    channels: int = 128,
    size: tuple[int, int] = (8, 8),  # height and width
    text: tuple[int, int] = TEXT,  # tokens in a prompt, numbers per token
) -> Diagram:
    """The whole attention block of the U-Net, with the names that its modules have in diffusers."""
    about = "GroupNorm and a projection; then self-attention, cross-attention with the text, and a gated feed-forward, "
    about += "each after a LayerNorm and added to what came in; then a projection, added to the input of the block."
    d, stream, positions = Drawing("An attention block of the U-Net", about, 730), 150, size[0] * size[1]
    d.frame(442, 383, 684, 344, "unet")
    d.code(772, 230, "transformer_blocks[0]", "end")
    for y, words in ((30, shape(channels, *size)), (196, shape(positions, channels)), (700, shape(channels, *size))):
        d.code(stream + 14, y, words, "start")
    for y, h, name, note, module in (
        (90, 44, "GroupNorm", "", "norm"),
        (154, 50, "projection", "1 × 1 convolution", "proj_in"),
        (610, 50, "projection", "1 × 1 convolution", "proj_out"),
    ):
        d.box(stream, y, 150, h, "unet", name, note, learned=False)
        d.code(stream + 86, y, module, "start")
    d.arrows(*([(stream, a), (stream, b)] for a, b in ((20, 67), (113, 128), (180, 305), (636, 657), (678, 714))))
    d.arrow((stream, 44), (40, 44), (40, 668), (stream - 11, 668))
    d.plus(stream, 668)
    sublayer(d, stream, 268, 1, "attn1", "self-attention", "positions ask positions")
    sublayer(d, stream, 380, 2, "attn2", "cross-attention", "positions ask the words")
    sublayer(d, stream, 492, 3, "ff", "gated feed-forward", "each position by itself")
    d.text(730, 342, "text")
    d.vectors(730, 380)
    d.code(730, 416, shape(*text))
    d.text(654, 366, "keys, values", 12)
    d.arrow((694, 380), (611, 380))
    words = f"GEGLU: {channels} → {8 * channels};\none half gates the other;\n{4 * channels} → {channels}"
    d.text(626, 492, words, 12, "start")
    return d.done()


def sublayer(
    d: Drawing,
    stream: float,  # x of what is added to
    y: float,
    number: int,  # 1, 2 or 3
    module: str,  # its name in diffusers
    name: str,
    note: str,
) -> None:
    """A LayerNorm and what follows it, added to what came in."""
    d.box(325, y, 130, 48, "unet", "LayerNorm", learned=False)
    d.code(262, y - 34, f"norm{number}", "start")
    d.box(515, y, 190, 52, "unet", name, note)
    d.code(422, y - 36, module, "start")
    d.arrows([(stream, y), (259, y)], [(391, y), (419, y)], [(515, y + 27), (515, y + 48), (stream + 11, y + 48)])
    d.plus(stream, y + 48)
    d.arrow((stream, y + 58), (stream, y + (149 if number < 3 else 92)))
