"""`sdlearn-draw`: a prompt in, a picture out."""

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastcore.script import CliError, call_parse
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from sdlearn import parts
from sdlearn.clip import END
from sdlearn.sampling import decode_latents, text_to_image
from sdlearn.scenes import WORDINGS, WORDS, to_pictures
from sdlearn.tools import hub
from sdlearn.tools.saving import check_folder

SMALL = 5_000  # a vocabulary smaller than this is one of ours: every word that the model knows is one token


def unknown_words(
    tokenizer,
    prompt: str,
) -> list[str]:  # words that a small model has never met
    """Words that a small model's tokenizer has only in pieces; a model with a large vocabulary understands pieces."""
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) > SMALL:
        return []
    words = re.findall(r"[^\W\d_]+", prompt.lower())
    return [word for word in dict.fromkeys(words) if word + END not in vocabulary or len(word) == 1 and word != "a"]


def cut_off(
    tokenizer,
    prompt: str,
) -> str:  # what the model will not see; empty if it sees all
    """The part of a prompt that is beyond the token limit."""
    tokens = tokenizer(prompt, verbose=False).input_ids[1:-1]  # else it warns about what is handled here
    return tokenizer.decode(tokens[tokenizer.model_max_length - 2 :])


def advise(
    tokenizer,
    prompt: str,
) -> list[str]:  # lines for whoever typed it
    """What is odd about a prompt, and what would be better."""
    advice = []
    if unknown := unknown_words(tokenizer, prompt):
        wordings = (WORDS | {"action": sum(WORDINGS.values(), ())}).values()
        known = "; ".join(", ".join(words) for words in wordings)
        advice.append(f"this model has never seen: {', '.join(unknown)}. It knows: {known}")
    if end := cut_off(tokenizer, prompt):
        advice.append(f'the prompt is over {tokenizer.model_max_length - 2} tokens; this was cut off: "{end}"')
    return advice


def draw(
    prompt: str,  # what to paint; empty: anything
    negative: str = "",  # what to steer away from
    n: int = 1,  # pictures, side by side
    seed: int = 0,  # of the noise
    steps: int = 30,
    guidance: float = 4.0,  # 1: as trained; higher: closer to the prompt, less variety
    scheduler: str = "ddim",  # one of parts.SCHEDULERS
    model: str | parts.Parts = "mini",  # "mini", a directory, a name on the hub, or parts already loaded
    watch: Callable[[Image.Image], None] | None = None,  # called with the pictures after each step
) -> Image.Image:  # the pictures in a row
    """Paint a prompt; a word that the model has never seen, or a prompt that is too long, gets a warning.

    Raises ValueError, OSError or MemoryError for settings that cannot work; the message says what is allowed.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    found = model if isinstance(model, parts.Parts) else hub.load(model)
    found = found._replace(scheduler=parts.make_scheduler(scheduler, found.scheduler.config))
    for line in [*advise(found.tokenizer, prompt), *advise(found.tokenizer, negative)]:
        warnings.warn(line, stacklevel=2)

    hooks: dict[str, Any] = {"progress": tqdm}
    if watch:
        hooks["watch"] = lambda t, latents: watch(in_a_row(decode_latents(found.vae, latents)))
    return in_a_row(text_to_image(found, [prompt] * n, negative, steps, guidance, seed, **hooks))


def in_a_row(
    pictures: Tensor,  # b c h w, -1 .. 1
) -> Image.Image:
    """Pictures side by side."""
    row = to_pictures(pictures).transpose(1, 0, 2, 3)  # h b w c
    return Image.fromarray(row.reshape(row.shape[0], -1, 3))


def labelled(
    pictures: Sequence[np.ndarray],  # each h w c uint8
    labels: Sequence[str],  # one for each
    columns: int,
    side: int = 192,  # screen pixels, at least, for a side of a picture
) -> Image.Image:
    """Pictures in rows, enlarged without blur, each under its label."""
    h, w, _ = pictures[0].shape
    zoom, columns = max(1, side // h), min(columns, len(pictures))
    width, height = zoom * w + 6, zoom * h + 20
    page = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * width, i // columns * height
        page.paste(Image.fromarray(picture).resize((zoom * w, zoom * h), Image.Resampling.NEAREST), (x + 3, y + 18))
        ImageDraw.Draw(page).text((x + 4, y + 3), label, "black", font_size=12)
    return page


VARIED = {"seed": int, "guidance": float, "steps": int, "scheduler": str}  # what a grid can vary


def grid_of(
    over: str,  # a setting and its values, such as "guidance=0,2,4,8"
    prompt: str,
    model: str = "mini",  # as in `draw`
    **settings: Any,  # of `draw`
) -> Image.Image:  # a sheet, four pictures to a row
    """Paint a prompt with one setting varied, each picture labelled with its value.

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
    pictures = [np.array(draw(prompt, **chosen)) for chosen in varied]
    return labelled(pictures, [f"{name} {value}" for value in values], columns=4)


@call_parse
def main(
    prompt: str,  # what to paint, in quotes
    negative: str = "",  # what to steer away from
    n: int = 1,  # pictures, side by side
    seed: int = 0,  # for the noise: the same seed gives the same picture
    steps: int = 30,  # denoising steps
    guidance: float = 4.0,  # 1: as trained; higher: closer to the prompt, less variety
    scheduler: str = "ddim",  # ddim, ddpm, pndm, lms, euler, dpm++ or unipc
    model: str = "mini",  # mini, a directory, or a name on the hub
    grid: str | None = None,  # vary one setting, such as guidance=0,2,4,8, and draw a sheet instead of one picture
    film: Path | None = None,  # also write an animated GIF of the picture taking shape
    out: Path = Path("picture.png"),  # where to write the picture
):
    """Paint a prompt, write a PNG and print its path."""
    settings: dict[str, Any] = {"negative": negative, "n": n, "seed": seed, "steps": steps, "guidance": guidance}
    settings |= {"scheduler": scheduler, "model": model}
    frames = []
    try:
        if grid and film:
            raise ValueError("--grid makes a sheet, --film a film of one picture: choose one of them")
        if out == film:
            raise ValueError(f"--out and --film are both {out}: the picture would take the film's place")
        check_folder(out), check_folder(film)
        with warnings.catch_warnings(record=True) as notes:
            watch = frames.append if film else None
            picture = grid_of(grid, prompt, **settings) if grid else draw(prompt, watch=watch, **settings)
        for note in notes:
            print(f"note: {note.message}", file=sys.stderr)
        if film:
            save_film(frames, film)
        write(picture, out, "PNG")
    except (ValueError, OSError, MemoryError) as error:
        raise CliError(str(error)) from error
    print(*filter(None, [out, film]), sep="\n")


def save_film(frames: list[Image.Image], out: Path) -> None:
    """An animation of ten frames a second that rests on the last one; small pictures are enlarged without blur."""
    zoom = max(1, 256 // frames[0].height)
    frames = [
        frame.quantize(256, kmeans=1, dither=Image.Dither.NONE).resize((zoom * frame.width, zoom * frame.height))
        for frame in frames
    ]
    durations = [100] * (len(frames) - 1) + [2000]  # milliseconds
    write(frames[0], out, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def write(picture: Image.Image, out: Path, kind: str, **options) -> None:
    """Write a picture to a file, whole or not at all."""
    new = out.with_name(f".{out.name}.part")
    try:
        picture.save(new, format=kind, **options)
        new.replace(out)
    finally:
        new.unlink(missing_ok=True)
