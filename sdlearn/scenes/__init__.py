"""Lesson 0: the captioned pictures, drawn by code.

A scene is a style, a subject, an action, a mount with a colour of its own, and a place:
"a photograph of an astronaut riding a red horse on the moon". Position, size, tilt and shade
vary at random, so no two pictures are the same; all face to the right, as in a picture book.
`sample` makes them by the thousand. Eight pairs of subject and mount never meet in a training picture: the four
of `VALIDATION`, by which settings are chosen, and the four of `TEST`, for one last measurement of the chosen model.

The drawing is in the files beside this one: a pen, places, mounts, subjects, actions, styles.
"""

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdlearn.scenes.actions import ACTIONS
from sdlearn.scenes.pen import Pen, pick
from sdlearn.scenes.places import PLACES
from sdlearn.scenes.styles import STYLES, brush_strokes
from sdlearn.shapes import check_pictures

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
VALIDATION = (  # (subject, mount): never together in a training picture
    ("astronaut", "horse"),
    ("knight", "bicycle"),
    ("penguin", "dragon"),
    ("cat", "motorbike"),
)
TEST = (  # never together either; drawn by lot before any training, and not looked at until the weights were final
    ("astronaut", "motorbike"),
    ("robot", "turtle"),
    ("bear", "dragon"),
    ("penguin", "horse"),
)
UNSAID = {"style": 0.25, "colour": 0.03, "place": 0.25}  # how often a caption leaves them out
USUAL = {  # the colour that goes without saying: people write "a blue horse", but seldom "a red horse"
    "horse": "red",
    "bicycle": "yellow",
    "dragon": "purple",
    "elephant": "blue",
    "turtle": "green",
    "motorbike": "red",
}
Pairs = tuple[tuple[str, str], ...]  # (subject, mount)
SIZE = 64  # pixels per side of a picture
FINE = 4  # drawn this many times larger, then shrunk: soft edges


def sample(
    n: int,  # how many pictures
    seed: int,  # the same seed gives the same pictures on every machine
    held_out: Pairs = (),  # VALIDATION or TEST: only these pairs, all riding; else none of either
    size: int = SIZE,  # pixels per side; the scenes and captions do not depend on it
) -> tuple[np.ndarray, list[str], list[dict[str, str]]]:  # pictures n h w c uint8, captions, attributes
    """Draw `n` random scenes. The attributes say what is in the picture, even where the caption does not.

    Picture i depends on `seed`, `held_out`, `size` and i alone, so a longer sample begins with the shorter one.
    """
    pictures, captions, attributes = np.empty((n, size, size, 3), np.uint8), [], []
    for i in range(n):
        rng = random.Random(f"{seed}/{i}/{bool(held_out)}")
        scene = random_scene(rng, held_out)
        pictures[i] = draw(scene, rng, size)
        captions.append(caption(scene, rng))
        attributes.append(scene)
    return pictures, captions, attributes


def random_scene(
    rng: random.Random,  # where the choices come from
    held_out: Pairs = (),  # as in `sample`
) -> dict[str, str]:  # attribute -> value
    """Choose one value for every attribute."""
    while True:
        scene = {name: pick(rng, values) for name, values in WORDS.items()}
        if held_out:
            scene["action"] = "riding"
            scene["subject"], scene["mount"] = pick(rng, held_out)
        if held_out or (scene["subject"], scene["mount"]) not in VALIDATION + TEST:
            return scene


def caption(
    scene: dict[str, str],  # attribute -> value, all of them
    rng: random.Random | None = None,  # None: the full sentence; else wording and what is left unsaid vary
) -> str:  # "a photograph of an astronaut riding a red horse on the moon"
    """Say in one sentence what a scene shows; with `rng`, style, colour or place may stay unsaid."""
    usual = scene["colour"] == USUAL[scene["mount"]]
    unsaid = UNSAID | {"colour": 0.9} if usual else UNSAID
    said = {name: rng is None or rng.random() > fraction for name, fraction in unsaid.items()}
    action = scene["action"] if rng is None else pick(rng, WORDINGS[scene["action"]])
    mount = f"{scene['colour']} {scene['mount']}" if said["colour"] else scene["mount"]
    words = [f"{article(scene['style'])} of"] if said["style"] else []
    words += [article(scene["subject"]), action, article(mount)]
    return " ".join(words + [scene["place"]] * said["place"])


def article(
    noun: str,  # "horse", "astronaut"
) -> str:  # "a horse", "an astronaut"
    """Put "a" or "an" before a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def draw(
    scene: dict[str, str],  # attribute -> value, all of them
    rng: random.Random,  # position, size, tilt, shade
    size: int = SIZE,  # pixels per side
) -> np.ndarray:  # h w c uint8, the picture
    """Draw one scene at four times its size, and shrink it."""
    pen = Pen(Image.new("RGB", (size * FINE, size * FINE)))
    horizon = rng.uniform(22, 28)  # above the lower edge, in units of the pen: 64 across the picture
    PLACES[scene["place"]](pen, rng, horizon)
    if scene["style"] == "painting":
        brush_strokes(pen, rng)
    ACTIONS[scene["action"]](pen, rng, scene)
    STYLES[scene["style"]](pen, rng)
    return np.array(pen.canvas.resize((size, size), Image.Resampling.BOX))


def to_tensor(
    pictures: np.ndarray,  # b h w c uint8
) -> Tensor:  # b c h w, -1 .. 1
    """Turn pictures into a tensor as networks take it: channels first, numbers from -1 to 1."""
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"pictures must be (b, h, w, 3) uint8; got {pictures.shape} {pictures.dtype}")
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def to_pictures(
    images: Tensor,  # b c h w, -1 .. 1; values outside are clamped
) -> np.ndarray:  # b h w c uint8
    """Back from a tensor to pictures that can be shown and saved."""
    check_pictures(images, 1)
    return ((images / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
