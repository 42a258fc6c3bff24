"""`sdlearn-draw`: a prompt in, a picture out."""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from fastcore.script import call_parse
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from sdlearn import parts
from sdlearn.clip import END
from sdlearn.sampling import decode_latents, text_to_image
from sdlearn.scenes import WORDINGS, WORDS, to_pictures
from sdlearn.shapes import check_prompts
from sdlearn.tools import hub, memory
from sdlearn.tools.guard import one_line
from sdlearn.tools.saving import check_file, whole_file

SMALL = 5_000  # a vocabulary smaller than this is one of ours: every word that the model knows is one token
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # ending -> what Pillow calls it
FILMS = {".gif": "GIF", ".webp": "WEBP"}
VARIED = {"seed": int, "guidance": float, "steps": int, "scheduler": str}  # what a grid can vary


def advise(tokenizer, prompt: str) -> list[str]:
    """A line for each problem with a prompt, and what to write instead."""
    advice, vocabulary, length = [], tokenizer.get_vocab(), tokenizer.model_max_length - 2
    words = re.findall(r"[^\W\d_]+", prompt.lower()) if len(vocabulary) < SMALL else ()
    pieces = {word: len(tokenizer(word, verbose=False).input_ids) - 2 for word in words}
    unknown = [word for word in pieces if pieces[word] > 1 or re.fullmatch("[b-z]", word)]  # letters are tokens too
    if unknown:
        never = shorten(", ".join(unknown), 90, placeholder=" ...")
        advice.append(f"this model has never seen: {never}. It knows: {known_words(tokenizer)}")
    tokens = tokenizer(prompt, verbose=False).input_ids[1:-1]  # else it warns about what is handled here
    if end := tokenizer.decode(tokens[length:]):
        advice.append(f'the prompt is over {length} tokens; this was cut off: "{shorten(end, 90, placeholder=" ...")}"')
    return advice


def known_words(
    tokenizer,  # of a model that the course's commands have trained
) -> str:
    """The words of the scenes, sorted by what they say; of a model with other words, the most frequent ones."""
    wordings = [*(WORDS | {"action": sum(WORDINGS.values(), ())}).values()]
    if {word + END for words in wordings for word in " ".join(words).split()} <= {*tokenizer.get_vocab()}:
        return "; ".join(", ".join(words) for words in wordings)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]  # the most frequent come first
    endings = {right for _, right in merges}  # such as "ing" of "riding"
    whole = [left + right for left, right in merges if right.endswith(END) and left + right not in endings]
    words = [tokenizer.convert_tokens_to_string([token]).removesuffix(END) for token in whole]
    return shorten(", ".join(words), 300, placeholder=" ...")


def draw(
    prompt: str,  # what to draw; empty: anything
    negative: str = "",  # what to steer away from
    n: int = 1,  # pictures, side by side
    seed: int = 0,  # of the noise
    steps: int = 30,
    guidance: float = 4.0,  # 1: as trained; higher: closer to the prompt, less variety
    scheduler: str = "ddim",  # one of parts.SCHEDULERS
    model: str | parts.Parts = "mini",  # "mini", a directory, a name on the hub, or parts already loaded
    watch: Callable[[Image.Image], None] | None = None,  # called with the pictures after each step
) -> Image.Image:  # the pictures in a row
    """Draw a prompt; a word that the model has never seen, or a prompt that is too long, gets a warning.

    Raises ValueError, OSError or MemoryError for settings that cannot work; the message says what is allowed.
    """
    check_prompts([prompt], negative)
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    found = model if isinstance(model, parts.Parts) else hub.load(model)
    memory.check_pictures(found, n)
    found = found._replace(scheduler=parts.make_scheduler(scheduler, found.scheduler.config))
    for line in [*advise(found.tokenizer, prompt), *advise(found.tokenizer, negative)]:
        warnings.warn(line, stacklevel=2)
    hooks: dict[str, Any] = {"progress": tqdm}
    if watch:
        hooks["watch"] = lambda t, latents: watch(in_a_row(decode_latents(found.vae, latents)))
    return in_a_row(text_to_image(found, [prompt] * n, negative, steps, guidance, seed, **hooks))


def in_a_row(pictures: Tensor) -> Image.Image:  # b c h w, -1 .. 1
    """Pictures side by side."""
    return Image.fromarray(np.concatenate(to_pictures(pictures), 1))


def labelled(pictures: Sequence[Image.Image], labels: Sequence[str], columns: int, side: int = 192) -> Image.Image:
    """Pictures in rows, enlarged without blur to about `side` screen pixels, each under its label."""
    zoom, columns = max(1, side // pictures[0].height), min(columns, len(pictures))
    width, height = zoom * pictures[0].width + 6, zoom * pictures[0].height + 20
    page = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * width + 3, i // columns * height
        page.paste(picture.resize((width - 6, height - 20), Image.Resampling.NEAREST), (x, y + 18))
        ImageDraw.Draw(page).text((x, y + 3), label, "black", font_size=12)
    return page


def grid_of(over: str, prompt: str, model: str = "mini", **settings: Any) -> Image.Image:
    """Draw a prompt with one setting varied, such as "guidance=0,2,4,8", each picture labelled with its value.

    Raises ValueError for a name that is no setting or values that do not fit it, and whatever `draw` raises.
    """
    name, _, values = over.partition("=")
    if settings.get("n", 1) != 1:
        raise ValueError("a grid shows one picture for each value: leave n at 1")
    try:
        values = [VARIED[name](value) for value in values.split(",")]
    except (KeyError, ValueError):
        examples = "seed=0,1,2,3, guidance=0,2,4,8, steps=5,10,30 or scheduler=ddim,lms"
        raise ValueError(f'a grid runs over one setting, such as {examples}; got "{over}"') from None
    found = hub.load(model)
    varied: list[dict[str, Any]] = [settings | {name: value, "model": found} for value in values]
    return labelled([draw(prompt, **chosen) for chosen in varied], [f"{name} {value}" for value in values], columns=4)


def format_of(file: Path, formats: dict[str, str]) -> str:
    """The format that a file's name asks for. Raises ValueError for any that we cannot write."""
    if file.suffix.lower() not in formats:
        raise ValueError(f"cannot write {file}: give a name that ends in {', '.join(formats)}")
    return formats[file.suffix.lower()]


def save_film(frames: list[Image.Image], out: Path, kind: str) -> None:
    """Save an animation, ten frames a second, that rests on the last one; small pictures are enlarged without blur."""
    zoom = max(1, 256 // frames[0].height)
    small = [frame.quantize(256, kmeans=1, dither=Image.Dither.NONE) for frame in tqdm(frames, "film")]
    first, *others = [frame.resize((zoom * frame.width, zoom * frame.height)) for frame in small]
    durations = [100] * len(others) + [2000]  # milliseconds
    with whole_file(out) as new:
        first.save(new, kind, save_all=True, append_images=others, duration=durations, loop=0)


@call_parse
def main(
    prompt: str,  # what to draw, in quotes
    negative: str = "",  # what to steer away from
    n: int = 1,  # pictures, side by side
    seed: int = 0,  # for the noise: the same seed gives the same picture
    steps: int = 30,  # denoising steps
    guidance: float = 4.0,  # 1: as trained; higher: closer to the prompt, less variety
    scheduler: str = "ddim",  # ddim, ddpm, pndm, lms, euler, dpm++ or unipc
    model: str = "mini",  # mini, a directory, or a name on the hub
    grid: str | None = None,  # vary one setting, such as guidance=0,2,4,8, and draw a sheet instead of one picture
    film: Path | None = None,  # also write an animated GIF or WebP of the picture taking shape
    out: Path = Path("picture.png"),  # where to write the picture: a PNG, JPEG or WebP, by its ending
):
    """Draw a prompt, write the picture and print its path."""
    settings: dict[str, Any] = {"negative": negative, "n": n, "seed": seed, "steps": steps, "guidance": guidance}
    settings |= {"scheduler": scheduler, "model": model}
    frames: list[Image.Image] = []
    with one_line():
        if grid and film:
            raise ValueError("--grid makes a sheet, --film a film of one picture: choose one of them")
        if film and out.resolve() == film.resolve():
            raise ValueError(f"--out and --film are both {out}: the picture would take the film's place")
        check_file(out), check_file(film)
        kind, moving = format_of(out, PICTURES), format_of(film, FILMS) if film else ""
        watch = frames.append if film else None
        picture = grid_of(grid, prompt, **settings) if grid else draw(prompt, watch=watch, **settings)
        if film:
            save_film(frames, film, moving)
        with whole_file(out) as new:
            picture.save(new, kind)
        print(*filter(None, [out, film]), sep="\n")
