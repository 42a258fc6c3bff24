"""How good the pictures are beyond what a caption says: `make survey`.

Variety, novelty and likeness are measured between pictures as the course's own CLIP sees them: as
points in its shared space. Then comes faithfulness, over guidance and over steps.
"""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import numpy as np
import torch
from fastcore.script import call_parse
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance
from tqdm import tqdm

from sdlearn import parts, scenes
from sdlearn.clip import embed_pictures
from sdlearn.judging import named
from sdlearn.measuring import variety
from sdlearn.scenes import to_pictures
from sdlearn.tools import hub, sources
from sdlearn.tools.draw import labelled
from sdlearn.tools.guard import one_line
from sdlearn.tools.measure import PAIRS, faithfulness, generate, table
from sdlearn.tools.saving import check_file, save_json, whole_file
from sdlearn.vae import decode, encode

GUIDANCE = (0.0, 1.0, 2.0, 4.0, 7.5, 15.0)
ALIKE = 64  # pictures of each prompt for which variety is measured
STEPS = (5, 10, 15, 50, 100)  # besides 30, which the row for guidance 4 covers
PROMPTS = (  # for variety: many pictures of one prompt; the first has a held-out pair
    "a photograph of an astronaut riding a red horse on the moon",
    "a painting of a cat riding a blue turtle by the sea",
    "a postcard of a robot carrying a yellow bicycle in the desert",
)


@torch.no_grad()
def features(
    clip,
    pictures: Tensor,  # b c h w, -1 .. 1
) -> Tensor:  # b d, length 1
    """Pictures as points in CLIP's shared space."""
    return torch.cat([embed_pictures(clip, x) for x in pictures.split(256)])


def to_nearest(
    points: Tensor,  # b d, length 1
    known: Tensor,  # n d, length 1
) -> float:  # 0: each of them is among the known
    """Mean distance, 1 - cosine, to the nearest of the known pictures."""
    return float((1 - (points @ known.T).amax(1)).mean())


def closest(ours: Tensor, known: Tensor, k: int) -> list[tuple[float, int, int]]:  # b d; n d
    """Of all of ours, each with its nearest known point, the k closest: Euclidean distance, which, to which."""
    near = [torch.cdist(x, known).min(1) for x in ours.split(64)]  # by a matrix product: quick, and a little rough
    distances, which = (torch.cat(x) for x in zip(*near, strict=True))
    best = [(i, int(which[i])) for i in distances.argsort()[:k].tolist()]
    return [(float((ours[i] - known[j]).norm()), i, j) for i, j in best]


def tail(
    clip,
    generated: Tensor,  # b c h w, -1 .. 1
    training: np.ndarray,  # n h w c uint8
    k: int = 8,
) -> tuple[list[Image.Image], list[str]]:  # 4k pictures, and a label for each
    """The k generated pictures that are closest to a training picture, by pixels, then by CLIP, each over its nearest.

    A mean would hide them: whether anything was learned by heart, one sees here.
    """
    shown, labels = [], []
    for name, (ours, known) in {
        "pixels": (flat(to_pictures(generated)), flat(training)),
        "CLIP": (features(clip, generated), points_of(clip, training)),
    }.items():
        pairs = closest(ours, known, k)
        shown += [*to_pictures(generated[[i for _, i, _ in pairs]]), *training[[j for _, _, j in pairs]]]
        labels += [f"{name} {distance:.3f}" for distance, _, _ in pairs] + ["training"] * k
    return [Image.fromarray(picture) for picture in shown], labels


def flat(pictures: np.ndarray) -> Tensor:  # n h w c uint8; n d
    """Pictures as points whose distance is the root mean square difference of a pixel, 0 .. 1."""
    points = torch.from_numpy(pictures).flatten(1).float()
    return points / 255 / points.shape[1] ** 0.5


def points_of(clip, pictures: np.ndarray) -> Tensor:  # n h w c uint8; n d, length 1
    """Many pictures as points in CLIP's shared space."""
    return torch.cat([features(clip, scenes.to_tensor(x)) for x in np.array_split(pictures, 32)])


def kernel_distance(
    one: Tensor,  # b d, length 1
    other: Tensor,  # b d, length 1
) -> tuple[float, float]:  # 0 if both come from one distribution; and one standard deviation of it, by chance
    """KID: squared distance between the two means, as a cubic kernel sees them (arXiv 1801.01401, section 4).

    Unlike the Frechet distance, it does not grow when there are fewer pictures. KID's features come from a network
    trained on photographs; ours from the course's own CLIP, scaled to the length that the kernel expects.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save", UserWarning)
        metric = KernelInceptionDistance(nn.Identity(), subset_size=max(2, min(len(one), len(other)) // 2))
    length = one.shape[1] ** 0.5
    metric.update(length * one, real=True)
    metric.update(length * other, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # which subsets are compared
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def scenes_of(
    prompt: str,  # with every attribute named
    n: int,
    seed: int,
) -> Tensor:  # n c h w, -1 .. 1, real scenes that show it
    """`n` real scenes of one prompt: only position, size, tilt and shade differ."""
    draws = [Random(f"{seed}/{i}") for i in range(n)]
    return scenes.to_tensor(np.stack([scenes.draw(named(prompt), rng) for rng in draws]))


def likeness(
    model: parts.Parts,
    clip,
    n: int,  # pictures for each figure
    seed: int,
    known: Tensor,  # m d, the training pictures as points
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, dict[str, float]]:  # figure -> kind of picture -> value
    """Variety, novelty and likeness: each for generated pictures, beside the same for real ones."""
    real = [float(variety(features(clip, scenes_of(prompt, ALIKE, seed)))) for prompt in PROMPTS]
    generated = [float(variety(features(clip, generate(model, [prompt] * ALIKE, seed)))) for prompt in PROMPTS]
    alike = {"real": sum(real) / len(real), "generated": sum(generated) / len(generated)}
    (fresh, captions, _), (other, _, _) = (scenes.sample(n, seed=s + seed) for s in (10_000, 30_000))
    real = scenes.to_tensor(fresh)
    reference = features(clip, scenes.to_tensor(other))  # not among the scenes compared with it
    points = {
        "real": features(clip, real),
        "through the VAE": features(clip, decode(model.vae, encode(model.vae, real)).cpu()),
        "generated": features(clip, generate(model, captions, seed, progress=progress)),
    }
    distances = {kind: kernel_distance(x, reference) for kind, x in points.items()}
    return {
        "variety of one prompt": alike,
        "distance to the nearest training picture": {kind: to_nearest(x, known) for kind, x in points.items()},
        "kernel distance to real": {kind: distance for kind, (distance, _) in distances.items()},
        "one standard deviation of it, by chance": {kind: chance for kind, (_, chance) in distances.items()},
    }


def curves(
    model: parts.Parts,
    judge,
    n: int,  # pictures for each point
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, dict[str, float]]:  # setting and kind of pair -> as from `faithfulness`
    """Faithfulness over guidance, at 30 steps, and over steps, at guidance 4; and with DPM-Solver++ in 15."""
    fast = model._replace(scheduler=parts.make_scheduler("dpm++", model.scheduler.config))
    settings = {f"guidance {g:g}": (model, g, 30) for g in GUIDANCE}  # model, guidance, steps
    settings |= {f"{s} steps": (model, 4.0, s) for s in STEPS}
    settings |= {"15 of DPM-Solver++": (fast, 4.0, 15)}
    found = {}
    for kind, held_out in PAIRS.items():
        _, captions, _ = scenes.sample(n, seed=10_000 + seed, held_out=held_out)
        for setting, (chosen, guidance, steps) in progress(settings.items()):
            pictures = generate(chosen, captions, seed, guidance_scale=guidance, steps=steps)
            found[f"{setting}, {kind}"] = faithfulness(judge, pictures, [named(x) for x in captions])
    return found


@call_parse
def main(
    model: str = "mini",  # "mini", or a directory made by sdlearn-train
    n: int = 128,  # pictures for each measurement
    seed: int = 0,  # for the captions and the noise
    json: Path = None,  # also write the figures to this file
    closest: Path = None,  # also draw the pictures closest to a training picture, beside it, into this file
):
    """Survey a model: variety, novelty, likeness to real scenes; faithfulness over guidance and over steps."""
    with one_line():
        if n < 2:
            raise ValueError(f"--n must be 2 or more; got {n}")
        check_file(json), check_file(closest)
        found, clip, judge = hub.load(model, "cpu"), parts.load_clip(), parts.load_judge()
        training, _ = sources.Scenes().training
        if closest:
            generated = generate(found, scenes.sample(n, seed=10_000 + seed)[1], seed, progress=tqdm)
            with whole_file(closest) as new:
                labelled(*tail(clip, generated, training), columns=8).save(new, "PNG")
        figures = likeness(found, clip, n, seed, points_of(clip, training), tqdm)
        for figure, kinds in figures.items():
            print(f"{figure}: " + ", ".join(f"{kind} {value:.3f}" for kind, value in kinds.items()))
        faithful = curves(found, judge, n, seed, tqdm)
        print(table(faithful))
        if json:
            save_json(figures | faithful, json)
