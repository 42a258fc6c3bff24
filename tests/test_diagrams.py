"""The drawn diagrams: right in their numbers, readable by everybody, and nothing over anything else."""

import base64
import re
import xml.etree.ElementTree as ET
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import true_size
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from PIL import ImageFont

from sdlearn import clip, parts
from sdlearn.notebook import diagrams, diagrams_measuring, diagrams_unet
from sdlearn.notebook.drawing import COLOURS, INK, LINE, MUTED, PAPER, Drawing, mix
from sdlearn.unet import new_unet
from sdlearn.vae import new_vae


@cache
def model(name):
    """A U-Net without weights."""
    with torch.device("meta"):
        return {"ours": new_unet, "three": lambda: new_unet(16, widths=(32, 48, 64)), "v1-4": true_size.unet}[name]()


DRAW = {
    "five parts": diagrams.five_parts,
    "five parts of v1-4": lambda: diagrams.five_parts((77, 768), (4, 64, 64), (3, 512, 512), 50),
    "here": lambda: diagrams.five_parts(here=("tokenizer", "text_encoder", "unet", "scheduler", "vae")),
    "clip": diagrams.clip,
    "clip of v1-4": lambda: diagrams.clip(768),
    "vae": diagrams.vae,
    "vae of v1-4": lambda: diagrams.vae((3, 512, 512), (4, 64, 64)),
    "noising": diagrams.noising,
    "guidance": diagrams.guidance_loop,
    "guidance of v1-4": lambda: diagrams.guidance_loop((4, 64, 64), (77, 768)),
    "measuring": diagrams_measuring.measuring,
    "attention": diagrams_unet.attention_block,
    "attention of v1-4": lambda: diagrams_unet.attention_block(320, (64, 64), (77, 768)),
    "unet": lambda: diagrams_unet.unet(model("ours")),
    "unet of three": lambda: diagrams_unet.unet(model("three")),
    "unet of v1-4": lambda: diagrams_unet.unet(dict(model("v1-4").config)),
}
each = pytest.mark.parametrize("name", DRAW)
SVG = "{http://www.w3.org/2000/svg}"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu: wider than any other font that a page would take


@cache
def root(name):
    return ET.fromstring(DRAW[name]().svg)


# ---------------------------------------------------------------- what is where


@cache
def font(file, size):
    return ImageFont.truetype(str(FONTS / f"{file}.ttf"), size)


def words(text):
    return "".join(text.itertext())


def box_of(text):
    """Left, upper, right and lower end of a line of text."""
    size, x, y = (float(text.get(key)) for key in ("font-size", "x", "y"))
    file = "DejaVuSansMono" if text.get("font-family") else f"DejaVuSans{'-Bold' if text.get('font-weight') else ''}"
    width = font(file, size).getlength(words(text))  # letters set low count as large: they may only be narrower
    left = x - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")] * width
    return left, y - 0.75 * size, left + width, y + 0.22 * size


def points(path):
    """The corners of a path with absolute coordinates."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", path.get("d"))]
    return np.array(numbers).reshape(-1, 2)


def extent(shape):
    """The same of a rectangle, or of a box with tapering sides."""
    if shape.tag == SVG + "rect":
        x, y, w, h = (float(shape.get(key, 0)) for key in ("x", "y", "width", "height"))
        return x, y, x + w, y + h
    return *points(shape).min(0), *points(shape).max(0)


def texts(name):
    return root(name).findall(SVG + "text")


def is_box(mark):
    return mark.tag == SVG + "path" and mark.get("stroke-width") in ("2", "4") and mark.get("fill") != "none"


def is_line(mark):
    return mark.tag == SVG + "path" and mark.get("fill") == "none"


def holds(outer, inner, slack=0.0):
    return all(a - slack <= b for a, b in zip(outer[:2], inner[:2], strict=True)) and all(
        a + slack >= b for a, b in zip(outer[2:], inner[2:], strict=True)
    )


def middle(box):
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return x, y, x, y


def grounds(name, text):
    """What was painted below a text: every rectangle and box that holds its middle, in the order of painting."""
    marks = list(root(name))
    below = [mark for mark in marks[: marks.index(text)] if mark.tag == SVG + "rect" or is_box(mark)]
    return [mark for mark in below if mark.get("fill") != "none" and holds(extent(mark), middle(box_of(text)))]


# ---------------------------------------------------------------- every page can show it


@each
def test_a_drawing_is_small_whole_and_the_same_each_time(name):
    svg = DRAW[name]().svg
    assert len(svg.encode()) < 40_000 and svg == DRAW[name]().svg
    assert all(root(name).find(SVG + tag).text.strip() for tag in ("title", "desc"))
    assert {mark.tag.removeprefix(SVG) for mark in root(name).iter()} <= {
        *("svg", "title", "desc", "rect", "path", "circle", "g", "text", "tspan")
    }
    assert svg.count("http") == 1 and not re.search(r'\b(style|class|id|href|on\w+)="', svg)


@each
def test_a_cell_shows_the_drawing_as_an_image_that_says_what_it_shows(name):
    found = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    drawing = DRAW[name]()
    reader.feed(drawing._repr_html_())
    [(tag, image)] = found
    kind, data = image["src"].split(",")
    assert (tag, kind) == ("img", "data:image/svg+xml;base64") and base64.b64decode(data).decode() == drawing.svg
    assert image["alt"] == repr(drawing) and len(image["alt"]) > 80


def test_a_title_with_marks_of_html_stays_a_title():
    drawing = Drawing('a "<b>" & more', "x < y", 50).done()
    assert ET.fromstring(drawing.svg).find(SVG + "title").text == 'a "<b>" & more'
    assert "<b>" not in drawing._repr_html_()


# ---------------------------------------------------------------- nothing over anything else


@each
def test_texts_lie_on_the_canvas_and_none_over_another(name):
    canvas = (0, 0, 800, float(root(name).get("height")))
    boxes = {f"{i}: {words(text)}": box_of(text) for i, text in enumerate(texts(name))}
    assert [text for text, box in boxes.items() if not holds(canvas, box, -5)] == []
    over = [
        (one, two)
        for (one, a), (two, b) in combinations(boxes.items(), 2)
        if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
    ]
    assert over == []


@each
def test_a_text_stays_in_its_box(name):
    out = [
        words(text)
        for text in texts(name)
        for mark in grounds(name, text)
        if is_box(mark) and not holds(extent(mark), box_of(text), -1)
    ]
    assert out == []


@each
def test_no_line_runs_through_a_text(name):
    marks, through = list(root(name)), []
    for text in texts(name):
        x0, y0, x1, y1 = box_of(text)
        first = marks.index(grounds(name, text)[-1])  # what was painted before is covered
        for mark in filter(is_line, marks[first:]):
            way = points(mark)
            for a, b in zip(way, way[1:], strict=False):
                xs, ys = (a + np.linspace(0, 1, 200)[:, None] * (b - a)).T
                if ((xs > x0) & (xs < x1) & (ys > y0) & (ys < y1)).any():
                    through.append((words(text), mark.get("d")))
    assert through == []


def arrows(name):
    """Start and end of each line that ends in a tip; the tip begins 6 before its end."""
    marks = list(root(name))
    found = [points(line)[[0, -1]] for line, tip in pairwise(marks) if is_line(line) and tip.get("fill") == LINE]
    return [tuple(map(tuple, ends)) for ends in found]


@pytest.mark.parametrize("name", ["five parts", "guidance"])
def test_the_scheduler_gets_the_noise_and_the_latents_and_gives_the_next(name):
    text = next(text for text in texts(name) if words(text) == "scheduler")
    x0, y0, x1, y1 = extent([mark for mark in grounds(name, text) if is_box(mark)][-1])
    near = lambda x, y: x0 - 10 <= x <= x1 + 10 and y0 - 10 <= y <= y1 + 10  # noqa: E731
    into = [start for start, end in arrows(name) if near(*end)]
    out = [end for start, end in arrows(name) if near(*start) and start[1] > y1]
    assert len(into) == 2 and len(out) == 1
    other = max(into, key=lambda start: start[1])  # from where the next latents arrive
    assert np.hypot(*np.subtract(other, out[0])) < 45


# ---------------------------------------------------------------- colours


def linear(colour):
    x = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def contrast(one, two):
    """As the Web Content Accessibility Guidelines define it, 1 .. 21."""
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, two))
    return (high + 0.05) / (low + 0.05)


@each
def test_every_text_stands_out_from_its_ground(name):
    found = {words(text): contrast(text.get("fill"), grounds(name, text)[-1].get("fill")) for text in texts(name)}
    assert min(found.values()) >= 4.5, min(found, key=found.get)


NAMES = {  # what a box is called -> its part
    "tokenizer": "tokenizer",
    "text encoder": "text_encoder",
    "text": "text_encoder",  # and "encoder" below it
    "image encoder": "image_encoder",
    "VAE": "vae",
    "U-Net": "unet",
    "self-attention": "unet",
    "scheduler": "scheduler",
    "guide": "scheduler",
}


def test_a_part_has_its_colour_wherever_it_is_drawn():
    seen = Counter()
    for name in DRAW:
        for text in texts(name):
            boxes = [mark for mark in grounds(name, text) if is_box(mark)]
            if words(text) in NAMES and boxes:
                assert boxes[-1].get("stroke") == COLOURS[NAMES[words(text)]]
                seen[NAMES[words(text)]] += 1
    assert seen.keys() == set(NAMES.values())


def test_what_the_page_is_about_stands_out():
    thick = [mark.get("stroke") for mark in root("here") if is_box(mark) and mark.get("stroke-width") == "4"]
    assert sorted(thick) == sorted(COLOURS[part] for part in ("tokenizer", "text_encoder", "unet", "scheduler", "vae"))
    assert not [mark for mark in root("five parts") if mark.get("stroke-width") == "4"]


VISION = {  # how linear red, green and blue look to whom a kind of cone is missing (Machado et al. 2009, table 1)
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


TO_CONES = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
TO_LAB = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])


def oklab(rgb):
    """Linear red, green and blue where equal distances look equal; 0.02 is just noticeable (Ottosson 2020)."""
    return TO_LAB @ np.cbrt(TO_CONES @ rgb)


@pytest.mark.parametrize("vision", VISION)
def test_any_two_parts_differ_for_every_kind_of_colour_vision(vision):
    seen = {part: oklab(np.clip(VISION[vision] @ linear(colour), 0, 1)) for part, colour in COLOURS.items()}
    near = min(combinations(seen, 2), key=lambda pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
    assert np.linalg.norm(seen[near[0]] - seen[near[1]]) > 0.065, near


def test_every_part_stands_out_from_the_paper():
    assert min(contrast(colour, PAPER) for colour in (*COLOURS.values(), LINE)) > 2.9
    assert min(contrast(colour, PAPER) for colour in (INK, MUTED)) > 4.5


def test_the_oracles_of_contrast_and_mixing():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert mix("#000000", "#ffffff", 0.5) == "#808080" and mix("#123456", "#ffffff", 0) == "#123456"


# ---------------------------------------------------------------- the numbers are the model's


UNETS = {"ours": "unet", "three": "unet of three", "v1-4": "unet of v1-4"}  # model -> its drawing
each_unet = pytest.mark.parametrize("name", UNETS)


def skips_of(unet):
    """Channels of the skips, in the order in which they are used: what a ResNet block takes beyond what came in."""
    channels, found = unet.mid_block.resnets[-1].out_channels, []
    for block in unet.up_blocks:
        for resnet in block.resnets:
            found.append(resnet.in_channels - channels)
            channels = resnet.out_channels
    return found


@each_unet
def test_the_skips_of_the_diagram_are_those_of_the_model(name):
    blocks, skips = diagrams_unet.unet_blocks(model(name).config)
    assert [channels for *_, channels in skips] == skips_of(model(name))
    assert all(blocks[source][1] == blocks[target][1] and source < target for source, target, _ in skips)
    drawn = Counter(words(text) for text in texts(UNETS[name]) if words(text).isdigit())
    assert drawn == Counter(map(str, skips_of(model(name))))


@each_unet
def test_the_diagram_has_every_block_of_the_model(name):
    blocks = Counter(kind for kind, _ in diagrams_unet.unet_blocks(model(name).config)[0])
    kinds = {"resnet": ResnetBlock2D, "attention": Transformer2DModel, "down": Downsample2D, "up": Upsample2D}
    real = {kind: sum(isinstance(part, cls) for part in model(name).modules()) for kind, cls in kinds.items()}
    assert blocks == real | {"conv": 2}


@each_unet
def test_the_levels_of_the_diagram_have_the_sizes_and_widths_of_the_model(name):
    config, drawn = model(name).config, [words(text) for text in texts(UNETS[name])]
    for level, width in enumerate(config["block_out_channels"]):
        side = config["sample_size"] // 2**level
        assert f"{side} × {side}" in drawn and f"{width} channels" in drawn
    assert f"(b, {model(name).time_embedding.linear_2.out_features})" in drawn
    assert f"(b, l, {config['cross_attention_dim']})" in drawn


@each_unet
def test_blocks_are_as_tall_as_their_resolution(name):
    bars = [extent(m) for m in root(UNETS[name]).findall(SVG + "rect") if m.get("fill") == COLOURS["unet"]]
    heights = sorted({round(y1 - y0, 2) for _, y0, _, y1 in bars[:-1]}, reverse=True)  # the last is in the legend
    assert heights == [heights[0] / 2**i for i in range(len(model(name).config["block_out_channels"]))]


def test_the_modules_of_the_attention_block_run_in_the_order_that_is_drawn():
    block, calls = Transformer2DModel(2, 8, in_channels=16, norm_num_groups=4, cross_attention_dim=12), []
    names = [words(text) for text in texts("attention") if text.get("font-family") and "(" not in words(text)]
    inner = {"norm1", "norm2", "norm3", "attn1", "attn2", "ff"}
    assert inner < set(names) and isinstance(block.transformer_blocks[0], BasicTransformerBlock)
    height = {words(text): (round(float(text.get("y")), -1), float(text.get("x"))) for text in texts("attention")}
    for name in {*names} - {"transformer_blocks[0]"}:
        part = block.get_submodule(f"transformer_blocks.0.{name}" if name in inner else name)
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    block(torch.zeros(1, 16, 4, 4), encoder_hidden_states=torch.zeros(1, 5, 12))
    assert calls == sorted(calls, key=lambda name: height[name]) and len(calls) == 9


@pytest.mark.parametrize("channels", [128, 320])
def test_the_feed_forward_has_the_sizes_that_are_drawn(channels):
    gate, _, out = BasicTransformerBlock(channels, 4, channels // 4).ff.net
    drawn = [words(text) for text in texts("attention" if channels == 128 else "attention of v1-4")]
    assert f"GEGLU: {channels} → {gate.proj.out_features};" in drawn
    assert f"{out.in_features} → {out.out_features}" in drawn


def test_the_sizes_are_those_of_the_courses_own_model():
    with torch.device("meta"):
        size, vae = new_unet().config, new_vae().config
    assert diagrams.TEXT == (clip.LENGTH, clip.WIDTH) == (clip.LENGTH, size.cross_attention_dim)
    assert (size.in_channels, size.sample_size, size.sample_size) == diagrams.LATENTS
    assert (vae.in_channels, vae.sample_size, vae.sample_size) == diagrams.PICTURES
    drawn = [words(text) for text in texts("five parts")]
    assert {"(b, 24)", "(b, 24, 128)", "(b, 4, 8, 8)", "(b, 3, 64, 64)"} <= set(drawn)


def test_the_factors_of_noising_are_the_schedulers():
    alpha_bar = parts.stable_diffusion_scheduler().alphas_cumprod
    drawn = [words(text) for text in texts("noising")]
    for t in (250, 500, 750, 999):
        assert f"xt at t = {t}" in drawn
        assert f"{alpha_bar[t].sqrt():.2f} x0 + {(1 - alpha_bar[t]).sqrt():.2f} ε" in drawn
