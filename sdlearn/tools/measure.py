"""`sdlearn-measure`: how often a picture shows what its prompt said.

A model of the scenes is measured by a judge; one trained on a folder of your own, by its own CLIP.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastcore.script import call_parse
from torch import Tensor, nn
from tqdm import tqdm

from sdlearn import parts, scenes
from sdlearn.clip import embed_pictures, embed_text, retrieval, tokenize
from sdlearn.judging import named, rates
from sdlearn.measuring import interval
from sdlearn.sampling import native_size, text_to_image
from sdlearn.scenes import TEST, VALIDATION, WORDS, Pairs
from sdlearn.since_2022 import flow_scheduler
from sdlearn.tools import hub, sources
from sdlearn.tools.guard import one_line
from sdlearn.tools.saving import check_file, save_json
from sdlearn.vae import decode, encode, psnr

PAIRS: dict[str, Pairs] = {"seen": (), "validation": VALIDATION}  # kind of pair -> `held_out` of `scenes.sample`
LARGEST = 128  # pixels a side that a judge can still be asked about


def famous() -> list[str]:
    """The field's most famous prompt, a held-out pair, in every style, colour and place."""
    astronaut = {"subject": "astronaut", "action": "riding", "mount": "horse"}
    said = product(*(WORDS[name] for name in ("style", "colour", "place")))
    return [scenes.caption(astronaut | dict(zip(("style", "colour", "place"), x, strict=True))) for x in said]


def generate(
    model: parts.Parts,
    captions: list[str],
    seed: int = 0,
    batch: int = 64,  # pictures at a time
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the batches
    **settings,  # of `text_to_image`: guidance_scale, steps
) -> Tensor:  # b c h w, -1 .. 1
    """A picture for each caption."""
    starts = progress(range(0, len(captions), batch))
    generated = [text_to_image(model, captions[i : i + batch], seed=seed + i, **settings).cpu() for i in starts]
    return torch.cat(generated)


def faithfulness(
    judge: nn.Module,  # a Judge, or another with the same answers
    pictures: Tensor,  # b c h w, -1 .. 1
    wanted: list[dict[str, str]],  # what each should show, as for `rates`
) -> dict[str, float]:  # as from `rates`; "low" and "high": the interval of "all"
    """How often the judge sees what was wanted, with the confidence interval."""
    found = rates(judge, pictures, wanted)
    return found | dict(zip(("low", "high"), interval(found["all"], len(wanted)).tolist(), strict=True))


def report(
    model: parts.Parts,
    judges: Sequence[nn.Module],  # each reads the same pictures
    n: int,  # pictures of each kind
    seed: int,
    pairs: dict[str, Pairs] = PAIRS,
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the batches
    **settings,  # of `text_to_image`
) -> list[dict[str, dict[str, float]]]:  # for each judge: what was judged -> as from `faithfulness`
    """Judge real scenes, the same after the VAE, and generated captions: each kind of pair, and the famous one.

    All pictures are scaled to the size that the judges know. Raises ValueError for a model with larger pictures
    than the course trains.
    """
    size, _ = native_size(model)
    if size > LARGEST:
        raise ValueError(f"this model's pictures are {size} pixels wide: the judge knows only scenes of the course")
    found, asked = [{} for _ in judges], {"astronaut on horse": famous()}

    def judged(kind: str, pictures: Tensor, wanted: list[dict[str, str]], **more: float) -> None:
        pictures = F.interpolate(pictures, scenes.SIZE, mode="area")
        for figures, judge in zip(found, judges, strict=True):
            figures[kind] = faithfulness(judge, pictures, wanted) | more

    for kind, held_out in pairs.items():
        drawn, asked[kind], attributes = scenes.sample(n, 10_000 + seed, held_out, size)  # not in training
        real = scenes.to_tensor(drawn)
        through = decode(model.vae, encode(model.vae, real)).cpu()
        judged(f"real, {kind}", real, attributes)
        judged(f"through the VAE, {kind}", through, attributes, psnr=psnr(through, real))
    for kind, captions in asked.items():
        pictures = generate(model, captions, seed, progress=progress, **settings)
        judged(f"generated, {kind}", pictures, [named(caption) for caption in captions])
    return found


def first_of_each(
    captions: list[str],
) -> list[int]:  # rising
    """The index at which each different caption first occurs."""
    return sorted(np.unique(captions, return_index=True)[1].tolist())


def clip_retrieval(
    folder: Path,  # a directory made by `sdlearn-train`
    n: int,  # scenes
    seed: int,
    pairs: dict[str, Pairs] = PAIRS,
) -> dict[str, dict[str, float]]:  # kind of scene -> how many captions there were, fraction that found theirs
    """How often CLIP finds a picture's own caption among all the different ones."""
    clip, tokenizer, found = parts.load_clip(folder), parts.load_tokenizer(folder), {}
    size = clip.config.vision_config.image_size
    for kind, held_out in pairs.items():
        pictures, captions, _ = scenes.sample(n, 20_000 + seed, held_out, size)
        first = first_of_each(captions)
        tokens = tokenize(tokenizer, [captions[i] for i in first])
        found[kind] = {"captions": len(first), "right": retrieval(clip, scenes.to_tensor(pictures[first]), tokens)}
    return found


@torch.no_grad()
def own_report(
    model: parts.Parts,
    folder: Path,  # of the model, with its CLIP
    source: sources.Folder,  # what it was trained on
    n: int,  # captions of each kind, at most
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the batches
    **settings,  # of `text_to_image`
) -> dict[str, dict[str, float]]:  # kind of picture -> figures
    """Without a judge: what the model's own CLIP says of the folder's pictures and of generated ones.

    "score" is 100 times the cosine of picture and caption (arXiv 2104.08718), "wrong" that of a picture and
    another one's caption, "found" the percentage of pictures that lie nearest to their own caption among all.
    """
    clip, found = parts.load_clip(folder), {}
    for kind, (pictures, captions) in {"seen": source.training, "held out": source.held_out}.items():
        different = first_of_each(captions)
        chosen = np.random.default_rng(seed).permutation(different)[:n]
        if len(chosen) < 2:
            continue
        asked, real = [captions[i] for i in chosen], scenes.to_tensor(pictures[chosen])
        through = decode(model.vae, encode(model.vae, real)).cpu()
        text = embed_text(clip, tokenize(model.tokenizer, asked))
        for what, shown in (("real", real), ("generated", generate(model, asked, seed, progress=progress, **settings))):
            cosines = embed_pictures(clip, shown) @ text.T
            right, wrong = cosines.diag().mean(), cosines.roll(1, 1).diag().mean()
            nearest = (cosines.argmax(1).cpu() == torch.arange(len(chosen))).float().mean()  # as `retrieval` has it
            row = {"score": 100 * float(right), "wrong": 100 * float(wrong), "found": 100 * float(nearest)}
            found[f"{what}, {kind}"] = row | {"captions": len(chosen)}
        found[f"real, {kind}"]["psnr"] = psnr(through, real)
    return found


def own_table(found: dict[str, dict[str, float]]) -> str:
    """That report as lines of text."""
    names = ["score", "wrong", "found", "captions", "psnr"]
    rows = [" " * 20 + "".join(f"{name:>10}" for name in names)]
    for kind, figures in found.items():
        rows.append(f"{kind:<20}" + "".join(f"{figures[name]:>10.4g}" if name in figures else "" for name in names))
    return "\n".join(rows)


def table(found: dict[str, dict[str, float]]) -> str:
    """The report as lines of text, in percent; after "all", its 95 % confidence interval."""
    names = [*WORDS, "all"]
    rows = [" " * 30 + "".join(f"{name:>9}" for name in names)]
    for kind, row in found.items():
        cells = "".join(f"{100 * row[name]:>9.1f}" if name in row else f"{'-':>9}" for name in names)
        more = f"   {100 * row['low']:.1f} .. {100 * row['high']:.1f}"
        more += f"   {row['psnr']:.1f} dB" if "psnr" in row else ""
        rows.append(f"{kind:<30}{cells}{more}")
    return "\n".join(rows)


@call_parse
def main(
    model: str = "mini",  # "mini", or a directory made by sdlearn-train
    n: int = 512,  # pictures of each kind: seen pairs, held-out pairs
    guidance: float = 4.0,  # guidance scale
    steps: int = 30,  # DDIM steps
    fast: int = 0,  # instead, draw with the U-Net of `sdlearn-train fast` in this many steps, without guidance
    seed: int = 0,  # for the captions and the noise
    judge: Path = parts.MINI,  # a directory with a judge: the shipped one, or one made by `sdlearn-train judge`
    json: Path | None = None,  # also write the figures to this file
    test: bool = False,  # also measure the test pairs: only once, when nothing is left to choose
):
    """Measure what percentage of the pictures show what the prompt said."""
    with one_line():
        if n < 1 or steps < 1:
            raise ValueError(f"--n and --steps must be 1 or more; got {n} and {steps}")
        if fast < 0:
            raise ValueError(f"--fast is a number of steps; got {fast}")
        check_file(json)
        folder, settings = hub.find(model), {"guidance_scale": guidance, "steps": steps}
        found, source, more = hub.load_from(folder, model, "cpu"), sources.load(folder), {}
        if fast:
            found = found._replace(unet=parts.load_fast(folder), scheduler=flow_scheduler())
            settings = {"guidance_scale": 1.0, "steps": fast}
        if isinstance(source, sources.Folder):
            if test:
                raise ValueError("--test is for models of the course's scenes: a folder has held-out captions only")
            figures = own_report(found, folder, source, n, seed, tqdm, **settings)
            print(own_table(figures))
        else:
            pairs = PAIRS | ({"test": TEST} if test else {})
            (figures,) = report(found, [parts.load_judge(judge)], n, seed, pairs, tqdm, **settings)
            print(table(figures))
            if (folder / "clip").is_dir():
                more = {"clip": clip_retrieval(folder, n, seed, pairs)}
                for kind, row in more["clip"].items():
                    print(f"CLIP finds the caption, {kind}: {100 * row['right']:.1f} % among {row['captions']}")
        if json:
            save_json(figures | more, json)
