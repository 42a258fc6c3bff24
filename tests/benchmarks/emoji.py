"""Does a model draw a thing in the style of a designer who is never seen to draw it? (`python -m benchmarks.emoji RUN`)

For a model trained on the folder that `docs/emoji.py` makes. Three questions about each picture: does a classifier
trained apart see the right designer, does the model's own CLIP find the right thing among all of them, and is the
picture nearer to that designer's drawing than to the three others' of the same thing?
"""

from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
import torch.nn.functional as F
from fastcore.script import call_parse
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.judges import resnet
from sdlearn import parts, scenes
from sdlearn.clip import embed_pictures, embed_text, tokenize
from sdlearn.recipes import picks
from sdlearn.tools import hub, measure, sources
from sdlearn.tools.draw import labelled
from sdlearn.tools.runs import best_precision, fit
from sdlearn.vae import decode, encode

SEED = 77  # of the classifier's weights and batches
BY = ", drawn by "


def halves(caption: str) -> tuple[str, str]:
    """The thing and its designer, from "horse, drawn by noto"."""
    thing, designer = caption.rsplit(BY, 1)
    return thing, designer


def classifier(
    pictures: np.ndarray,  # n h w c uint8
    right: Tensor,  # n, numbers below `classes`
    classes: int,
    steps: int = 1200,
    batch: int = 64,
) -> nn.Module:
    """A ResNet that tells classes apart; it shares nothing with the model's CLIP but the pictures."""
    torch.manual_seed(SEED)
    net = resnet(classes)

    def examples(g: torch.Generator) -> tuple[Tensor, ...]:
        i = picks(g, len(pictures), batch)
        shown = scenes.to_tensor(pictures[i.numpy()])
        return shown + 0.1 * torch.randn(shown.shape, generator=g), right[i]

    def loss(net: nn.Module, shown: Tensor, right: Tensor) -> Tensor:
        return F.cross_entropy(net(shown).logits.float(), right)

    fit(net, loss, examples, steps, lr=2e-3, seed=SEED, precision=best_precision())
    return net.requires_grad_(False).eval()


def rank(
    cosines: Tensor,  # b n
    right: Tensor,  # b, numbers below n
) -> Tensor:  # b; 0: the highest
    """How many others come before the right one."""
    return (cosines > cosines.gather(1, right[:, None])).sum(1)


def nearest(
    pictures: Tensor,  # b c h w
    drawings: Tensor,  # b k c h w, of the same thing by all designers
) -> Tensor:  # b, numbers below k
    """Whose drawing has the smallest mean squared difference."""
    return (pictures[:, None] - drawings).square().flatten(2).mean(2).argmin(1)


def questions(
    designer_of: Callable[[Tensor], Tensor],  # b c h w -> b k scores
    thing_of: Callable[[Tensor, Tensor], Tensor],  # b c h w, b numbers of designers -> b n cosines
    pictures: Tensor,  # b c h w, -1 .. 1
    thing: Tensor,  # b, numbers below n
    designer: Tensor,  # b, numbers below k
    drawings: Tensor,  # n k c h w uint8
) -> list[float]:  # percent: designer, thing first, thing among five, own drawing nearest
    """The three questions, the second one twice."""
    place = rank(thing_of(pictures, designer), thing)
    answers = (
        designer_of(pictures).argmax(1) == designer,
        place < 1,
        place < 5,
        nearest(pictures, drawings[thing] / 127.5 - 1) == designer,
    )
    return [100 * float(found.float().mean()) for found in answers]


@call_parse(pos=["model"])
@torch.no_grad()
def main(
    model: Path,  # a directory made by `sdlearn-train all --data`
    n: int = 512,  # pictures of each kind
    steps: int = 30,  # DDIM steps
    guidance: float = 4.0,  # guidance scale
    sheet: Path | None = None,  # also save 64 generated pictures of held-out captions
):
    """How often a picture has the designer and the thing that were asked for."""
    source, made = sources.load(model), hub.load_from(model, str(model), "cpu")
    every = {caption: file for pairs in source.split for file, caption in pairs}
    things, designers = (sorted(found) for found in map(set, zip(*map(halves, every), strict=True)))
    numbers = {caption: (things.index(t), designers.index(d)) for caption in every for t, d in [halves(caption)]}
    grid = [(every[thing + BY + designer], thing) for thing in things for designer in designers]
    drawings = torch.from_numpy(source.read(grid)[0]).permute(0, 3, 1, 2).unflatten(0, (len(things), len(designers)))

    pictures, captions = source.training
    with torch.enable_grad():
        net = classifier(pictures, torch.tensor([numbers[caption][1] for caption in captions]), len(designers))
    clip = parts.load_clip(model)
    tokens = [tokenize(made.tokenizer, [thing + BY + designer for thing in things]) for designer in designers]
    text = torch.stack([embed_text(clip, x) for x in tokens], 1)  # things designers d

    def thing_of(shown: Tensor, designer: Tensor) -> Tensor:
        return torch.einsum("bd,nbd->bn", embed_pictures(clip, shown), text[:, designer])

    print(f"{len(things)} things, {len(designers)} designers; in percent")
    print(f"{'':<22}{'designer':>10}{'thing':>10}{'among 5':>10}{'nearest':>10}")
    for kind, asked in {"seen": source.training[1], "held out": source.held_out[1]}.items():
        chosen = np.random.default_rng(SEED).permutation(sorted({*asked}))[:n].tolist()
        thing, designer = torch.tensor([numbers[caption] for caption in chosen]).T
        real = drawings[thing, designer] / 127.5 - 1
        through = decode(made.vae, encode(made.vae, real))
        generated = measure.generate(made, chosen, progress=tqdm, guidance_scale=guidance, steps=steps)
        for what, shown in {"real": real, "through the VAE": through, "generated": generated}.items():
            row = questions(lambda x: net(x).logits, thing_of, shown, thing, designer, drawings)
            print(f"{f'{what}, {kind}':<24}" + "".join(f"{figure:>10.1f}" for figure in row))
    if sheet:
        shown = [Image.fromarray(picture) for picture in scenes.to_pictures(generated[:64])]
        named = [f"{shorten(thing, 13, placeholder='..')}, {designer}" for thing, designer in map(halves, chosen[:64])]
        labelled(shown, named, columns=8, side=128).quantize(128).save(sheet, optimize=True)
