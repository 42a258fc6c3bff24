"""`sdlearn-measure`: how often the judge sees in a picture what its prompt said."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

import torch
from fastcore.script import call_parse
from torch import Tensor, nn
from tqdm import tqdm

from sdlearn import parts, scenes
from sdlearn.clip import retrieval, tokenize
from sdlearn.measuring import faithfulness, named
from sdlearn.sampling import native_size, text_to_image
from sdlearn.scenes import WORDS
from sdlearn.tools import hub
from sdlearn.tools.guard import one_line
from sdlearn.tools.saving import check_file, save_json
from sdlearn.vae import decode, encode, psnr

PAIRS = (("seen", False), ("held-out", True))  # kind of pair, `held_out` as for `scenes.sample`


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
    size, _ = native_size(model)
    if size != scenes.SIZE:
        raise ValueError(f"this model's pictures are {size} pixels wide: the judge reads only those of {scenes.SIZE}")
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

    for kind, held_out in PAIRS:
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
) -> dict[str, dict[str, float]]:  # kind of scene -> how many captions there were, fraction that found theirs
    """How often CLIP finds a picture's own caption among all the different ones."""
    clip, tokenizer, found = parts.load_clip(folder), parts.load_tokenizer(folder), {}
    for kind, held_out in PAIRS:
        pictures, captions, _ = scenes.sample(n, seed=20_000 + seed, held_out=held_out)
        first = sorted({caption: i for i, caption in reversed(list(enumerate(captions)))}.values())
        tokens = tokenize(tokenizer, [captions[i] for i in first])
        found[kind] = {"captions": len(first), "right": retrieval(clip, scenes.to_tensor(pictures[first]), tokens)}
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The report as lines of text, in per cent; after "all", its 95 % confidence interval."""
    names = [*WORDS, "all"]
    rows = [" " * 30 + "".join(f"{name:>9}" for name in names)]
    for kind, rates in found.items():
        cells = "".join(f"{100 * rates[name]:>9.1f}" if name in rates else f"{'-':>9}" for name in names)
        more = f"   {100 * rates['low']:.1f} .. {100 * rates['high']:.1f}"
        more += f"   {rates['psnr']:.1f} dB" if "psnr" in rates else ""
        rows.append(f"{kind:<30}{cells}{more}")
    return "\n".join(rows)


@call_parse
def main(
    model: str = "mini",  # "mini", or a directory made by sdlearn-train
    n: int = 512,  # pictures of each kind: seen pairs, held-out pairs
    guidance: float = 4.0,  # guidance scale
    steps: int = 30,  # DDIM steps
    seed: int = 0,  # for the captions and the noise
    judge: Path = parts.MINI,  # a directory with a judge: the shipped one, or one made by `sdlearn-train judge`
    json: Path | None = None,  # also write the figures to this file
):
    """Measure what percentage of the pictures show what the prompt said."""
    with one_line():
        if n < 1 or steps < 1:
            raise ValueError(f"--n and --steps must be 1 or more; got {n} and {steps}")
        check_file(json)
        found, sees = hub.load(model, "cpu"), parts.load_judge(judge)
        (figures,) = report(found, [sees], n, seed, tqdm, guidance_scale=guidance, steps=steps)
        print(table(figures))
        folder, more = hub.find(model), {}
        if (folder / "clip").is_dir():
            more["clip"] = clip_retrieval(folder, n, seed)
            for kind, row in more["clip"].items():
                print(f"CLIP finds the caption, {kind}: {100 * row['right']:.1f} % among {row['captions']}")
        if json:
            save_json(figures | more, json)
