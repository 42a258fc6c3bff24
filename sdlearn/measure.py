"""Does the picture show what the prompt said? A judge reads pictures; `sdlearn-measure` counts."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from json import dumps
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse
from torch import Tensor, nn
from tqdm import tqdm

from sdlearn import hub, parts, scenes
from sdlearn.clip import retrieval, tokenize
from sdlearn.judging import Judge, load_judge, read
from sdlearn.sampling import text_to_image
from sdlearn.saving import check_folder
from sdlearn.scenes import WORDINGS, WORDS
from sdlearn.vae import decode, encode, psnr


def named(caption: str) -> dict[str, str]:  # attribute -> value, only what the caption says
    """What a caption names, in the words of `WORDS`."""
    found = {}
    for name, values in WORDS.items():
        for value in values:
            wordings = WORDINGS.get(value, (value,))
            if any(re.search(rf"\b{re.escape(words)}\b", caption) for words in wordings):
                found[name] = value
    return found


def shares(
    judge: Judge,
    pictures: Tensor,  # b c h w, -1 .. 1
    wanted: list[dict[str, str]],  # what each should show: from `named`, or a scene's attributes
) -> dict[str, float]:  # attribute -> share that show it, of the pictures asked to; "all": share with nothing wrong
    """How often the judge sees what was wanted."""
    seen = read(judge, pictures)
    hits = {
        name: [got[name] == want[name] for got, want in zip(seen, wanted, strict=True) if name in want]
        for name in WORDS
    }
    hits["all"] = [want.items() <= got.items() for got, want in zip(seen, wanted, strict=True)]
    return {name: sum(right) / len(right) for name, right in hits.items() if right}


def interval(
    share: float,  # 0 .. 1, of `n` pictures
    n: int,
) -> tuple[float, float]:  # 0 .. 1
    """Where the true share lies, 95 times in 100 (Wilson's interval, valid near 0 and 1 too)."""
    z = 1.96
    middle, width = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return (middle - width) / (1 + z**2 / n), (middle + width) / (1 + z**2 / n)


def faithfulness(
    judge: Judge,
    pictures: Tensor,  # b c h w, -1 .. 1
    wanted: list[dict[str, str]],  # what each should show, as for `shares`
) -> dict[str, float]:  # as from `shares`; "low" and "high": the interval of "all"
    """How often the judge sees what was wanted, and how sure that is."""
    found = shares(judge, pictures, wanted)
    return found | dict(zip(("low", "high"), interval(found["all"], len(wanted)), strict=True))


def famous() -> list[str]:
    """The field's most famous prompt, a held-out pair, in every style, colour and place."""
    astronaut = {"subject": "astronaut", "action": "riding", "mount": "horse"}
    said = product(*(WORDS[name] for name in ("style", "colour", "place")))
    return [scenes.caption(astronaut | dict(zip(("style", "colour", "place"), x, strict=True))) for x in said]


def paint(
    model: parts.Parts,
    captions: list[str],
    seed: int = 0,
    batch: int = 64,  # pictures at a time
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the batches
    **settings,  # of `text_to_image`: guidance_scale, steps
) -> Tensor:  # b c h w, -1 .. 1
    """A picture for each caption. Raises ValueError for a model whose pictures are not the course's size."""
    if 8 * model.unet.config.sample_size != scenes.SIZE:
        raise ValueError(
            f"this model's pictures are {8 * model.unet.config.sample_size} pixels wide: "
            f"the judge reads only those of {scenes.SIZE}"
        )
    starts = progress(range(0, len(captions), batch))
    painted = [text_to_image(model, captions[i : i + batch], seed=seed + i, **settings).cpu() for i in starts]
    return torch.cat(painted)


def report(
    model: parts.Parts,
    judges: Sequence[nn.Module],  # each reads the same pictures
    n: int,  # pictures of each kind
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the batches
    **settings,  # of `text_to_image`
) -> list[dict[str, dict[str, float]]]:  # for each judge: what was judged -> as from `faithfulness`
    """Judge real scenes, the same after the VAE, and painted captions: seen pairs, held-out ones, the famous one."""
    found, asked = [{} for _ in judges], {"astronaut on horse": famous()}

    def judged(kind: str, pictures: Tensor, wanted: list[dict[str, str]], **more: float) -> None:
        for figures, judge in zip(found, judges, strict=True):
            figures[kind] = faithfulness(judge, pictures, wanted) | more

    for kind, held_out in (("seen", False), ("held-out", True)):
        drawn, asked[kind], attributes = scenes.sample(n, seed=10_000 + seed, held_out=held_out)  # not in training
        real = scenes.to_tensor(drawn)
        through = decode(model.vae, encode(model.vae, real)).cpu()
        judged(f"real, {kind}", real, attributes)
        judged(f"through the VAE, {kind}", through, attributes, psnr=psnr(through, real))
    for kind, captions in asked.items():
        pictures = paint(model, captions, seed, progress=progress, **settings)
        judged(f"painted, {kind}", pictures, [named(caption) for caption in captions])
    return found


def clip_retrieval(
    folder: Path,  # a directory made by `sdlearn-train`
    n: int,  # scenes
    seed: int,
) -> dict[str, dict[str, float]]:  # kind of scene -> how many captions there were, share of pictures that found theirs
    """How often CLIP finds a picture's own caption among all the different ones."""
    clip, tokenizer, found = parts.load_clip(folder), parts.load_tokenizer(folder), {}
    for kind, held_out in (("seen", False), ("held-out", True)):
        pictures, captions, _ = scenes.sample(n, seed=20_000 + seed, held_out=held_out)
        first = sorted({caption: i for i, caption in reversed(list(enumerate(captions)))}.values())
        tokens = tokenize(tokenizer, [captions[i] for i in first])
        found[kind] = {"captions": len(first), "right": retrieval(clip, scenes.to_tensor(pictures[first]), tokens)}
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The report as lines of text, shares in per cent; after "all", its 95 % confidence interval."""
    names = [*WORDS, "all"]
    rows = [" " * 30 + "".join(f"{name:>9}" for name in names)]
    for kind, shares_ in found.items():
        cells = "".join(f"{100 * shares_[name]:>9.1f}" if name in shares_ else f"{'-':>9}" for name in names)
        more = f"   {100 * shares_['low']:.1f} .. {100 * shares_['high']:.1f}"
        more += f"   {shares_['psnr']:.1f} dB" if "psnr" in shares_ else ""
        rows.append(f"{kind:<30}{cells}{more}")
    return "\n".join(rows)


@call_parse
def main(
    model: str = "mini",  # "mini", or a directory made by sdlearn-train
    n: int = 512,  # pictures of each kind: seen pairs, held-out pairs
    guidance: float = 4.0,  # guidance scale
    steps: int = 30,  # DDIM steps
    seed: int = 0,  # for the captions and the noise
    judge: Path = hub.MINI,  # a directory with a judge: the shipped one, or one made by `sdlearn-train judge`
    json: Path = None,  # also write the figures to this file
):
    """Measure what percentage of the pictures show what the prompt said."""
    if n < 1 or steps < 1:
        raise CliError(f"--n and --steps must be 1 or more; got {n} and {steps}")
    try:
        check_folder(json)
        found, sees = parts.load(model, "cpu"), load_judge(judge)
        (figures,) = report(found, [sees], n, seed, tqdm, guidance_scale=guidance, steps=steps)
        print(table(figures))
        folder = hub.find(model)
        if (folder / "clip").is_dir():
            figures["clip"] = clip_retrieval(folder, n, seed)
            for kind, row in figures["clip"].items():
                print(f"CLIP finds the caption, {kind}: {100 * row['right']:.1f} % among {row['captions']}")
        if json:
            json.write_text(dumps(figures, indent=2) + "\n")
    except (ValueError, OSError, MemoryError) as error:
        raise CliError(str(error)) from error
