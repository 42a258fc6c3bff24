"""Lesson 0: the captioned pictures, drawn by code.

A scene is a style, a subject, an action, a mount with a colour of its own, and a place:
"a photograph of an astronaut riding a red horse on the moon". Position, size, tilt and shade
vary at random, so no two pictures are the same; all face to the right, as in a picture book.
`sample` makes them by the thousand; the pairs in `HELD_OUT` never meet in a training picture.
"""

import math
import random
from colorsys import hsv_to_rgb

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

WORDS = {  # attribute -> its values, word for word as captions say them, in the order of a caption
    "style": ("photograph", "painting", "postcard"),
    "subject": ("astronaut", "knight", "robot", "cat", "bear", "penguin"),
    "action": ("riding", "standing next to", "carrying"),
    "colour": ("red", "yellow", "green", "blue", "purple"),
    "mount": ("horse", "bicycle", "dragon", "elephant", "turtle", "motorbike"),
    "place": ("on the moon", "in a meadow", "in the desert", "by the sea", "in the snow"),
}
WORDINGS = {  # the ways in which captions may word an action
    "riding": ("riding", "sitting on"),
    "standing next to": ("standing next to", "beside"),
    "carrying": ("carrying", "holding up"),
}
HELD_OUT = (  # (subject, mount): never together in a training picture; `held_out=True` draws them riding
    ("astronaut", "horse"),
    ("knight", "bicycle"),
    ("penguin", "dragon"),
    ("cat", "motorbike"),
)
SIZE = 64  # pixels per side of a picture
FINE = 4  # drawn this many times larger, then shrunk: soft edges

COATS = {  # hue, saturation, value, each 0 .. 1: the middle of what counts as that colour
    "red": (0.995, 0.85, 0.86),
    "yellow": (0.14, 0.85, 0.94),
    "green": (0.37, 0.78, 0.68),
    "blue": (0.59, 0.84, 0.88),
    "purple": (0.78, 0.70, 0.78),
}
WHITE, BLACK, GREY, TYRE = (245, 245, 248), (28, 28, 38), (150, 150, 158), (48, 48, 58)
ORANGE, CREAM, GOLD = (245, 140, 30), (250, 240, 215), (196, 148, 54)


# ---------------------------------------------------------------- the public part


def sample(
    n: int,  # how many pictures
    seed: int,  # the same seed gives the same pictures on every machine
    held_out: bool = False,  # True: only held-out pairs, all riding; False: none of them
) -> tuple[np.ndarray, list[str], list[dict[str, str]]]:  # pictures n h w c uint8, captions, attributes
    """Draw `n` random scenes. The attributes say what is in the picture, even where the caption does not.

    Picture i depends on `seed`, `held_out` and i alone, so a longer sample begins with the shorter one.
    """
    pictures, captions, attributes = np.empty((n, SIZE, SIZE, 3), np.uint8), [], []
    for i in range(n):
        rng = random.Random(f"{seed}/{i}/{held_out}")
        scene = random_scene(rng, held_out)
        pictures[i] = draw(scene, rng)
        captions.append(caption(scene, rng))
        attributes.append(scene)
    return pictures, captions, attributes


def random_scene(
    rng: random.Random,  # where the choices come from
    held_out: bool = False,  # as in `sample`
) -> dict[str, str]:  # attribute -> value
    """Choose one value for every attribute."""
    while True:
        scene = {name: pick(rng, values) for name, values in WORDS.items()}
        if held_out:
            scene["action"] = "riding"
            scene["subject"], scene["mount"] = pick(rng, HELD_OUT)
        if held_out or (scene["subject"], scene["mount"]) not in HELD_OUT:
            return scene


def caption(
    scene: dict[str, str],  # attribute -> value, all of them
    rng: random.Random | None = None,  # None: the full sentence; else wording and what is left unsaid vary
) -> str:  # "a photograph of an astronaut riding a red horse on the moon"
    """Say in one sentence what a scene shows; with `rng`, style, colour or place may stay unsaid."""
    unsaid = UNSAID | {"colour": 0.9 if scene["colour"] == USUAL[scene["mount"]] else 0.1}
    said = {name: rng is None or rng.random() > share for name, share in unsaid.items()}
    action = scene["action"] if rng is None else pick(rng, WORDINGS[scene["action"]])
    mount = f"{scene['colour']} {scene['mount']}" if said["colour"] else scene["mount"]
    words = [f"{article(scene['style'])} of"] if said["style"] else []
    words += [article(scene["subject"]), action, article(mount)]
    return " ".join(words + [scene["place"]] * said["place"])


UNSAID = {"style": 0.25, "colour": 0.1, "place": 0.25}  # how often a caption leaves them out
USUAL = {  # the colour that goes without saying: people write "a blue horse", but seldom "a red horse"
    "horse": "red",
    "bicycle": "yellow",
    "dragon": "purple",
    "elephant": "blue",
    "turtle": "green",
    "motorbike": "red",
}


def draw(
    scene: dict[str, str],  # attribute -> value, all of them
    rng: random.Random,  # position, size, tilt, shade
) -> np.ndarray:  # h w c uint8, the picture
    """Draw one scene at four times its size, and shrink it."""
    canvas = Image.new("RGB", (SIZE * FINE, SIZE * FINE))
    pen = Pen(canvas)
    horizon = rng.uniform(22, 28)  # pixels above the lower edge
    PLACES[scene["place"]](pen, rng, horizon)
    if scene["style"] == "painting":
        brush_strokes(pen, rng)
    ACTIONS[scene["action"]](pen, rng, scene)
    STYLES[scene["style"]](canvas, rng)
    return np.array(canvas.resize((SIZE, SIZE), Image.Resampling.BOX))


def to_tensor(
    pictures: np.ndarray,  # b h w c uint8
) -> Tensor:  # b c h w, -1 .. 1
    """Pictures as networks want them: channels first, numbers from -1 to 1."""
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"pictures must be (b, h, w, 3) uint8; got {pictures.shape} {pictures.dtype}")
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def to_pictures(
    images: Tensor,  # b c h w, -1 .. 1; values outside are clamped
) -> np.ndarray:  # b h w c uint8
    """Back from a tensor to pictures that can be shown and saved."""
    return ((images / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


# ---------------------------------------------------------------- words and colours


def article(noun: str) -> str:
    """`a horse`, `an astronaut`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def pick(rng: random.Random, values: tuple):
    """One of `values`, by `random()`, which gives the same in every version of Python; `choice` does not."""
    return values[int(rng.random() * len(values))]


def shade(colour: tuple, factor: float) -> tuple:
    """Lighter (factor > 1) or darker (factor < 1)."""
    return tuple(min(255, int(c * factor)) for c in colour)


def blend(one: tuple, other: tuple, amount: float) -> tuple:
    """`amount` of the way from one colour to the other."""
    return tuple(int(a + (b - a) * amount) for a, b in zip(one, other, strict=True))


def vary(colour: tuple, rng: random.Random, by: float = 0.06) -> tuple:
    """The same colour in a slightly different light."""
    return shade(colour, 1 + rng.uniform(-by, by))


def coat(name: str, rng: random.Random) -> tuple:
    """A shade of one of the colours that a mount can have."""
    hue, saturation, value = (c + rng.uniform(-d, d) for c, d in zip(COATS[name], (0.015, 0.06, 0.05), strict=True))
    return tuple(int(255 * c) for c in hsv_to_rgb(hue % 1, saturation, value))


class Pen:
    """Draws in a figure's own coordinates: x forward, y up, in pixels of the finished picture."""

    def __init__(self, canvas, x=0.0, y=0.0, scale=1.0, tilt=0.0):
        self.canvas, self.ink = canvas, ImageDraw.Draw(canvas)
        self.x, self.y, self.scale = x, y, scale
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)

    def at(self, x, y):
        """Where a point of the figure lies on the large canvas."""
        x, y = (x * self.cos - y * self.sin) * self.scale, (x * self.sin + y * self.cos) * self.scale
        return round((self.x + x) * FINE), round((SIZE - self.y - y) * FINE)

    def poly(self, points, fill):
        self.ink.polygon([self.at(*p) for p in points], fill=fill)

    def oval(self, x, y, rx, ry, fill):
        self.poly([(x + rx * c, y + ry * s) for c, s in CIRCLE], fill)

    def box(self, x, y, width, height, fill):
        self.poly([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], fill)

    def line(self, points, width, fill):
        """A thick line with round ends."""
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            length = math.hypot(x1 - x0, y1 - y0) or 1
            dx, dy = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
            self.poly([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], fill)
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, fill)


CIRCLE = [(math.cos(2 * math.pi * i / 20), math.sin(2 * math.pi * i / 20)) for i in range(20)]


# ---------------------------------------------------------------- places: sky, ground, and a thing or two


def sky(pen, top, bottom, horizon):
    """A smooth change of colour from the upper edge down to the horizon."""
    for i in range(10):
        y = SIZE - (SIZE - horizon) * (i + 1) / 10
        pen.box(0, y - 0.5, SIZE, (SIZE - horizon) / 10 + 1, blend(top, bottom, i / 9))


def moon(pen, rng, horizon):
    sky(pen, (8, 8, 26), (24, 24, 52), horizon)
    for _ in range(7):
        pen.oval(rng.uniform(2, 62), rng.uniform(horizon + 3, 62), 0.9, 0.9, WHITE)
    x, y = pick(rng, (9, 55)) + rng.uniform(-2, 2), rng.uniform(52, 56)
    pen.oval(x, y, 5, 5, (60, 130, 225))
    pen.oval(x - 1.5, y + 1, 2.4, 1.8, (90, 190, 110))
    ground = vary((176, 176, 184), rng)
    pen.box(0, 0, SIZE, horizon, ground)
    for _ in range(3):
        x, y, r = rng.uniform(4, 60), rng.uniform(2, horizon - 3), rng.uniform(3, 6)
        pen.oval(x, y, r, r * 0.42, shade(ground, 0.78))
        pen.oval(x, y - 0.5, r * 0.8, r * 0.27, shade(ground, 0.88))


def meadow(pen, rng, horizon):
    sky(pen, vary((90, 175, 245), rng), (205, 235, 255), horizon)
    x, y = rng.uniform(8, 56), rng.uniform(54, 58)
    for dx, r in ((-4, 2.6), (0, 3.6), (4, 2.6)):
        pen.oval(x + dx, y, r + 1, r, WHITE)
    grass = vary((138, 205, 84), rng)
    pen.oval(rng.uniform(5, 25), horizon, 26, 5, shade(grass, 0.85))
    pen.box(0, 0, SIZE, horizon, grass)
    for _ in range(5):
        x, y = rng.uniform(1, 63), rng.uniform(1, horizon - 3)
        pen.oval(x, y, 1.2, 1.2, pick(rng, (WHITE, (255, 225, 70), (255, 130, 170))))


def desert(pen, rng, horizon):
    sky(pen, vary((245, 165, 85), rng), (255, 225, 165), horizon)
    pen.oval(rng.uniform(10, 54), rng.uniform(50, 57), 4, 4, (255, 246, 200))
    sand = vary((232, 186, 112), rng)
    pen.oval(rng.uniform(0, 20), horizon - 1, 24, 6, shade(sand, 0.9))
    pen.oval(rng.uniform(44, 64), horizon - 1, 20, 5, shade(sand, 0.84))
    pen.box(0, 0, SIZE, horizon, sand)
    x, cactus = pick(rng, (6, 58)) + rng.uniform(-2, 2), (58, 130, 72)
    pen.line([(x, horizon - 3), (x, horizon + 11)], 3, cactus)
    pen.line([(x, horizon + 3), (x + 4, horizon + 4), (x + 4, horizon + 8)], 2, cactus)
    pen.line([(x, horizon + 2), (x - 4, horizon + 3), (x - 4, horizon + 6)], 2, cactus)


def seaside(pen, rng, horizon):
    sky(pen, vary((125, 205, 240), rng), (225, 245, 250), horizon)
    sea = vary((26, 118, 190), rng)
    beach = horizon - rng.uniform(10, 12)
    pen.box(0, 0, SIZE, horizon + 3, sea)
    x = rng.uniform(8, 56)
    pen.poly([(x - 1, horizon + 3), (x - 1, horizon + 12), (x + 6, horizon + 4)], WHITE)
    pen.poly([(x - 5, horizon + 3), (x + 6, horizon + 3), (x + 3, horizon), (x - 3, horizon)], (190, 70, 50))
    for _ in range(3):
        x, y = rng.uniform(2, 54), rng.uniform(beach + 2, horizon)
        pen.line([(x, y), (x + 8, y)], 1.2, shade(sea, 1.4))
    pen.box(0, 0, SIZE, beach, vary((240, 216, 160), rng))
    pen.line([(0, beach), (20, beach + 0.8), (42, beach - 0.5), (64, beach + 0.5)], 1.6, WHITE)


def snow(pen, rng, horizon):
    sky(pen, vary((160, 178, 208), rng), (222, 228, 240), horizon)
    pen.box(0, 0, SIZE, horizon, (240, 243, 250))
    for _ in range(4):
        pen.oval(rng.uniform(0, 64), rng.uniform(2, horizon - 4), rng.uniform(6, 12), 1.5, (216, 224, 240))
    for x in (rng.uniform(3, 10), rng.uniform(14, 24), rng.uniform(42, 50), rng.uniform(54, 61)):
        h, fir = rng.uniform(12, 18), vary((38, 92, 78), rng, 0.15)
        for k in range(3):
            y, w = horizon - 2 + k * h / 4, 5.5 - 1.4 * k
            pen.poly([(x - w, y), (x + w, y), (x, y + h / 2.2)], fir)
        pen.poly([(x - 2, horizon - 3 + 0.8 * h), (x + 2, horizon - 3 + 0.8 * h), (x, horizon - 2 + h * 0.96)], WHITE)


PLACES = {
    "on the moon": moon,
    "in a meadow": meadow,
    "in the desert": desert,
    "by the sea": seaside,
    "in the snow": snow,
}


# ---------------------------------------------------------------- things to ride: feet or wheels on y = 0, facing +x


def legs(pen, xs, height, width, fill):
    for x in xs:
        pen.line([(x, height), (x, width / 2)], width, fill)


def eye(pen, x, y):
    pen.oval(x, y, 1.3, 1.5, WHITE)
    pen.oval(x + 0.4, y, 0.8, 0.9, BLACK)


def horse(pen, c):
    dark, mane = shade(c, 0.72), shade(c, 0.45)
    legs(pen, (-8, 7), 9, 2.8, dark)
    pen.line([(-12, 14), (-16, 12), (-16, 6)], 3.2, mane)
    legs(pen, (-11, 10), 9, 3.2, c)
    pen.oval(0, 13, 13, 5.6, c)
    pen.line([(9, 14), (14, 23)], 6.5, c)
    pen.line([(6.5, 18), (10, 25)], 3.4, mane)
    pen.line([(14, 24), (20, 20.5)], 5.4, c)
    pen.poly([(11, 26), (13, 31), (15.5, 26)], dark)
    pen.oval(21, 20, 2, 2, shade(c, 1.3))
    eye(pen, 15.5, 24.2)


def elephant(pen, c):
    dark = shade(c, 0.74)
    legs(pen, (-6, 5), 8, 5, dark)
    legs(pen, (-10, 9), 8, 5.4, c)
    pen.line([(-14, 14), (-17, 9)], 1.8, dark)
    pen.oval(-1, 14, 14.5, 8, c)
    pen.oval(13, 17, 7, 7, c)
    pen.line([(18, 16), (21.5, 11), (21, 5), (24, 3)], 3.6, c)
    pen.line([(16, 12), (20, 9.5)], 1.8, CREAM)
    pen.oval(9.5, 17.5, 5, 6.5, dark)
    pen.oval(9.5, 17.5, 3.4, 4.8, blend(c, (255, 190, 200), 0.45))
    eye(pen, 16.5, 19)


def dragon(pen, c):
    dark, light = shade(c, 0.68), blend(c, (255, 255, 190), 0.6)
    pen.poly([(-9, 8), (-24, 14), (-10, 15)], c)
    pen.poly([(-26, 18), (-20, 14), (-22, 10)], dark)
    legs(pen, (-5, 5), 7, 4.2, dark)
    legs(pen, (-9, 8), 7, 4.6, c)
    pen.oval(-1, 12.5, 12.5, 6.4, c)
    pen.oval(1, 9.5, 9, 3.2, light)
    pen.line([(8, 14), (13, 21), (13, 25)], 6, c)
    pen.line([(13, 26), (20, 25)], 5.6, c)
    pen.poly([(10, 27), (7.5, 33), (13, 28.5)], CREAM)
    pen.poly([(14, 28), (13, 34), (17, 28)], CREAM)
    pen.poly([(-4, 14), (-10, 30), (-14, 22), (-19, 27), (-18, 19), (-23, 20), (-12, 13)], light)
    pen.line([(-6, 15), (-10, 29)], 1.8, dark)
    pen.poly([(22, 25), (29, 28), (27, 25), (30, 22)], (255, 150, 40))
    eye(pen, 15.5, 27)


def turtle(pen, c):
    skin = (150, 160, 100)
    legs(pen, (-9, 9), 5, 5, skin)
    pen.poly([(-12, 4), (-19, 3), (-12, 8)], skin)
    pen.line([(12, 6), (18, 10)], 5.4, skin)
    pen.oval(19.5, 11.5, 4.6, 4.2, skin)
    pen.poly([(x * 15.5, 4 + max(0, y) * 13) for x, y in CIRCLE], c)
    pen.line([(-14.5, 4.5), (14.5, 4.5)], 3, shade(c, 0.62))
    for x, y, r in ((-8.5, 9.5, 2.6), (0, 12.5, 3.2), (8.5, 9.5, 2.6)):
        pen.oval(x, y, r, r * 0.8, blend(c, WHITE, 0.5))
    eye(pen, 20.5, 12.8)


def wheel(pen, x, r, hub):
    pen.oval(x, r, r, r, TYRE)
    pen.oval(x, r, r - 2.2, r - 2.2, hub)


def bicycle(pen, c):
    for x in (-11.5, 11.5):
        wheel(pen, x, 8.5, (205, 208, 214))
        pen.oval(x, 8.5, 1.6, 1.6, TYRE)
    pen.line([(-11.5, 8.5), (-1, 8.5), (8.5, 18), (-5, 17.5), (-11.5, 8.5)], 2.7, c)
    pen.line([(-1, 8.5), (-5.5, 19)], 2.7, c)
    pen.line([(11.5, 8.5), (8, 21.5), (12, 23)], 2.4, shade(c, 0.75))
    pen.line([(-8, 20), (-3, 20)], 3, BLACK)


def motorbike(pen, c):
    for x in (-12, 12):
        wheel(pen, x, 7.5, GREY)
        pen.oval(x, 7.5, 2.2, 2.2, TYRE)
    pen.line([(-14, 6), (2, 6)], 2.6, (215, 218, 224))
    pen.oval(-1, 8, 5, 4.4, GREY)
    pen.line([(12, 7.5), (7.5, 20)], 2.8, (215, 218, 224))
    pen.poly([(-17, 15), (-12, 11), (6, 10), (10, 16), (8, 20), (1, 19.5), (-4, 15.5), (-15, 17.5)], c)
    pen.oval(3, 16.4, 5.6, 3.6, shade(c, 1.25))
    pen.line([(-13, 17.2), (-4, 16.2)], 2.8, BLACK)
    pen.line([(7, 20), (5, 24)], 2.2, TYRE)
    pen.oval(11, 18, 2.6, 2.8, (255, 240, 150))


MOUNTS = {  # name -> how to draw it, where its rider sits (x, y)
    "horse": (horse, (-2, 17)),
    "bicycle": (bicycle, (-5, 20)),
    "dragon": (dragon, (1, 17)),
    "elephant": (elephant, (-3, 20.5)),
    "turtle": (turtle, (-1, 15.5)),
    "motorbike": (motorbike, (-6, 17.5)),
}


# ---------------------------------------------------------------- subjects: one body in three poses, a head each


def figure(pen, name, pose):
    """Standing, sitting (y = 0 is the seat) or with both arms up."""
    body, limb, foot, torso, head = SUBJECTS[name]
    seat = 0 if pose == "sit" else 6
    if pose == "sit":
        pen.line([(-1, 1), (2, -5)], 3.6, shade(limb, 0.75))
    else:
        for x in (-3, 3):
            pen.line([(x, 7), (x, 2)], 4, limb)
            pen.oval(x + 1, 1.4, 3, 1.6, foot)
    if pose == "lift":
        for x in (-1, 1):
            pen.line([(x * 5, seat + 8), (x * 8.5, seat + 14), (x * 8, seat + 21)], 3.4, limb)
    torso(pen, seat, body)
    head(pen, 0.5, seat + 15.5, body)
    if pose == "sit":
        pen.line([(0, 1.5), (5, -1), (4.5, -6)], 4, limb)
        pen.oval(5.8, -6.8, 3, 1.8, foot)
        pen.line([(1, seat + 7.5), (7.5, seat + 5)], 3.2, limb)
    if pose == "stand":
        for x in (-5, 5):
            pen.line([(x, seat + 8), (x * 1.45, seat + 3)], 3.2, limb)


def round_torso(pen, y, c):
    pen.oval(0, y + 5, 6, 6.6, c)


def suit(pen, y, c):
    pen.box(-8, y + 2, 5, 9, shade(c, 0.7))
    round_torso(pen, y, c)
    pen.box(0, y + 4, 4, 3, (225, 70, 60))


def armour(pen, y, c):
    round_torso(pen, y, c)
    pen.poly([(-3, y + 10), (4, y + 10), (4.5, y + 2), (0.5, y), (-3.5, y + 2)], (190, 35, 50))


def metal_box(pen, y, c):
    pen.box(-6, y - 1, 12, 11.5, c)
    pen.box(-3, y + 3, 6, 4, (255, 220, 90))


def pale_belly(pen, y, c):
    round_torso(pen, y, c)
    pen.oval(1, y + 4.2, 4, 5, BELLY[c])


def helmet(pen, x, y, c):
    pen.oval(x, y, 7.4, 7.2, c)
    pen.oval(x + 1.6, y, 5, 4.6, (30, 52, 110))
    pen.oval(x + 3.4, y + 1.8, 1.5, 1.2, (180, 215, 255))


def visor(pen, x, y, c):
    pen.line([(x - 1, y + 6), (x - 5, y + 10), (x - 9, y + 7)], 4.4, (215, 35, 50))
    pen.oval(x, y, 6.8, 7, c)
    pen.box(x - 6, y - 6.5, 12.4, 4, shade(c, 0.8))
    pen.box(x - 1, y - 0.2, 7.6, 2.4, BLACK)


def square_head(pen, x, y, c):
    pen.line([(x, y + 5), (x, y + 10)], 1.6, TYRE)
    pen.oval(x, y + 10.5, 2, 2, (235, 50, 50))
    pen.box(x - 7, y - 5.5, 14, 11.5, c)
    for dx in (-2.4, 3.4):
        pen.oval(x + dx, y + 1, 2.2, 2.2, (255, 235, 110))
        pen.oval(x + dx, y + 1, 0.9, 0.9, BLACK)
    pen.box(x - 3, y - 4, 7, 1.6, TYRE)


def face(pen, x, y):
    for dx in (-2, 3.4):
        pen.oval(x + dx, y + 1.4, 1.1, 1.4, BLACK)


def cat_head(pen, x, y, c):
    for side in (-1, 1):
        pen.poly([(x + side * 6.6, y + 1), (x + side * 6, y + 10.5), (x + side * 0.6, y + 5.5)], c)
        pen.poly([(x + side * 5.2, y + 4), (x + side * 5.2, y + 8), (x + side * 2.6, y + 5.8)], (255, 190, 180))
    pen.oval(x, y, 7, 6.2, c)
    pen.oval(x + 1, y - 2.4, 3.6, 2.6, WHITE)
    pen.oval(x + 1, y - 1, 1, 0.8, (230, 90, 110))
    face(pen, x, y)


def bear_head(pen, x, y, c):
    for side in (-1, 1):
        pen.oval(x + side * 5.6, y + 5.6, 3.2, 3.2, c)
        pen.oval(x + side * 5.6, y + 5.6, 1.7, 1.7, BELLY[c])
    pen.oval(x, y, 7.2, 6.6, c)
    pen.oval(x + 1.2, y - 2, 4, 3.2, BELLY[c])
    pen.oval(x + 1.6, y - 0.6, 1.7, 1.2, BLACK)
    face(pen, x, y + 0.6)


def penguin_head(pen, x, y, c):
    pen.oval(x, y, 6.6, 6.6, c)
    pen.oval(x - 1, y - 0.8, 3.2, 4, WHITE)
    pen.oval(x + 3, y - 0.8, 3, 4, WHITE)
    face(pen, x, y - 0.4)
    pen.poly([(x, y - 0.6), (x + 9, y - 2.2), (x, y - 3.8)], ORANGE)


BROWN, INK, GINGER = (118, 72, 40), (38, 44, 76), (242, 150, 58)
BELLY = {BROWN: (206, 160, 110), INK: WHITE, GINGER: (255, 225, 185)}
SUBJECTS = {  # name -> colours of body, limbs and feet, how to draw torso and head
    "astronaut": (WHITE, (216, 218, 226), GREY, suit, helmet),
    "knight": ((168, 176, 192), (128, 136, 154), (90, 96, 112), armour, visor),
    "robot": ((64, 178, 176), (90, 108, 120), TYRE, metal_box, square_head),
    "cat": (GINGER, (226, 128, 40), WHITE, pale_belly, cat_head),
    "bear": (BROWN, (98, 58, 30), (70, 42, 22), pale_belly, bear_head),
    "penguin": (INK, INK, ORANGE, pale_belly, penguin_head),
}


# ---------------------------------------------------------------- actions: who is where


def shadow(pen, x, y, width):
    """A darker patch of ground, so that things stand on it."""
    where = [pen.at(x + width * c, y + 1.6 * s) for c, s in CIRCLE]
    ground = pen.canvas.getpixel((SIZE * FINE // 2, where[15][1] - 1))
    pen.ink.polygon(where, fill=shade(ground, 0.8))


def riding(pen, rng, scene):
    x, y, scale, tilt = rng.uniform(27, 37), rng.uniform(6.5, 11), rng.uniform(0.86, 1.06), rng.uniform(-0.09, 0.12)
    draw_mount, (sx, sy) = MOUNTS[scene["mount"]]
    shadow(pen, x, y, 17 * scale)
    whole = Pen(pen.canvas, x, y, scale, tilt)
    draw_mount(whole, coat(scene["colour"], rng))
    px, py = whole.at(sx, sy)
    figure(Pen(pen.canvas, px / FINE, SIZE - py / FINE, scale, tilt), scene["subject"], "sit")


def standing(pen, rng, scene):
    scale, swap = rng.uniform(0.84, 1.0), rng.random() < 0.5
    xs, y = (rng.uniform(12, 15), rng.uniform(41, 44)), rng.uniform(6, 12)
    (x, mx) = (SIZE - xs[0], SIZE - xs[1]) if swap else xs
    for where, width in ((x, 8), (mx, 14)):
        shadow(pen, where, y, width * scale)
    draw_mount, _ = MOUNTS[scene["mount"]]
    draw_mount(Pen(pen.canvas, mx, y, scale * 0.9), coat(scene["colour"], rng))
    figure(Pen(pen.canvas, x, y - 1, scale * 1.06), scene["subject"], "stand")


def carrying(pen, rng, scene):
    x, y, scale = rng.uniform(27, 37), rng.uniform(3.5, 7), rng.uniform(0.86, 0.98)
    shadow(pen, x, y, 9 * scale)
    tilt = rng.uniform(-0.12, 0.12)
    draw_mount, _ = MOUNTS[scene["mount"]]
    figure(Pen(pen.canvas, x, y, scale), scene["subject"], "lift")
    draw_mount(Pen(pen.canvas, x, y + 27 * scale, scale * 0.86, tilt), coat(scene["colour"], rng))


ACTIONS = {"riding": riding, "standing next to": standing, "carrying": carrying}


# ---------------------------------------------------------------- styles: what happens to the whole picture


def brush_strokes(pen, rng):
    """Paint over the background with broad strokes of the colour that is there."""
    for _ in range(12):
        x, y = rng.uniform(2, 62), rng.uniform(2, 62)
        colour = pen.canvas.getpixel(pen.at(x, y))
        length, slope = rng.uniform(9, 15), rng.uniform(-2, 2)
        ends = [(x - length / 2, y - slope), (x + length / 2, y + slope)]
        pen.line(ends, rng.uniform(4, 6), vary(colour, rng, 0.12))


def border(canvas, width, colour):
    side, w = SIZE * FINE, round(width * FINE)
    ImageDraw.Draw(canvas).rectangle((0, 0, side - 1, side - 1), outline=colour, width=w)


def photograph(canvas, rng):
    """Nothing added."""


def painting(canvas, rng):
    gold = vary(GOLD, rng)
    border(canvas, 4, gold)
    border(canvas, 1.4, shade(gold, 0.62))


def postcard(canvas, rng):
    faded = Image.blend(canvas, Image.new("RGB", canvas.size, (255, 236, 205)), rng.uniform(0.24, 0.32))
    canvas.paste(faded)
    border(canvas, 4, (252, 250, 244))
    pen = Pen(canvas)
    x = pick(rng, (3.0, 51.0))
    pen.box(x, 50, 10, 11, WHITE)
    pen.box(x + 1.2, 51.2, 7.6, 8.6, (200, 60, 80))
    pen.oval(x + 5, 55.5, 2.4, 2.8, CREAM)


STYLES = {"photograph": photograph, "painting": painting, "postcard": postcard}
