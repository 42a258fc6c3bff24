"""`sdlearn-train`: trains the parts of a model, one after another, into a directory; a stopped run can be resumed."""

import inspect
import os
import re
import shutil
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL
from fastcore.script import call_parse
from filelock import FileLock, Timeout
from transformers import CLIPTextModel

from sdlearn import judging, parts, recipes, scenes
from sdlearn.clip import LENGTH, new_clip, new_tokenizer, tokenize
from sdlearn.recipes import encoded
from sdlearn.sampling import text_to_image
from sdlearn.tools import fast, memory, runs, saving, sources
from sdlearn.tools.board import Board
from sdlearn.tools.guard import one_line
from sdlearn.unet import new_unet
from sdlearn.vae import decode, encode, new_vae

WIDTHS = {  # pixels a side -> channels of the VAE's and of the U-Net's levels; the largest is for a GPU
    64: ((16, 32, 80, 112), (128, 144)),
    96: ((16, 32, 80, 112), (128, 144)),
    128: ((32, 64, 160, 224), (256, 288)),
}
MOST = 1_000_000  # steps
SEEDS = 4294  # a step's own seed is seed * 1,000,003 + step, of which torch's generator takes 32 bits
WRITES = {"clip": ("clip", "text_encoder", "tokenizer")}  # what a part writes; every other: a folder of its own name


def run_clip(out: Path, source: sources.Source, board: Board, **options) -> Callable:  # saves what was trained
    """Train CLIP and its tokenizer."""
    pictures, captions = source.training
    tokenizer = new_tokenizer(captions)
    if sum(" " not in caption for caption in captions) > len(captions) / 2:
        note = "most captions have no spaces: to the model each is one word, so it cannot combine their parts anew"
        warnings.warn(note, stacklevel=2)
    if long := sum(len(tokens) > LENGTH for tokens in tokenizer(captions, verbose=False).input_ids):
        cut = f"{long} of {len(captions)} captions are over {LENGTH - 2} tokens: the rest is cut off"
        warnings.warn(cut, stacklevel=2)
    clip = new_clip(tokenizer, 0.3, source.size)
    recipes.train_clip(clip, tokenize(tokenizer, captions), pictures, look=board.show, **options)
    return lambda: saving.save_clip(clip, tokenizer, out)


def run_vae(out: Path, source: sources.Source, board: Board, **options) -> Callable:
    """Train the autoencoder."""
    widths, _ = WIDTHS[source.size]
    vae, shown = new_vae(source.size, widths=widths), scenes.to_tensor(sources.shown(source)[0][:4])

    def look(losses: list[float]) -> None:
        board.show(losses, torch.cat([shown, decode(vae, encode(vae, shown)).cpu()]))

    recipes.train_vae(vae, source.training[0], look=look, **options)
    return lambda: saving.save_model(vae, out / "vae")


def run_unet(out: Path, source: sources.Source, board: Board, **options) -> Callable:
    """Train the noise predictor on latents and captions that the other parts have encoded."""
    for part in ("text_encoder", "vae"):
        if not (out / part).is_dir():
            raise FileNotFoundError(f"{out / part} is missing: train clip and vae first, with the same --out")
    tokenizer, device = parts.load_tokenizer(out), parts.best_device()
    text_encoder = parts.load_part(CLIPTextModel, out, "text_encoder").to(device)
    vae = parts.load_part(AutoencoderKL, out, "vae").to(device)
    latents, text, empty = encoded(vae, tokenizer, text_encoder, *source.training)
    _, widths = WIDTHS[source.size]
    unet = new_unet(latents.shape[-1], latents.shape[1], text.shape[-1], widths)
    quick = parts.make_scheduler("dpm++", parts.stable_diffusion_scheduler().config)
    model, asked = parts.Parts(tokenizer, text_encoder, vae, unet, quick), sources.shown(source)[1]

    def look(losses: list[float]) -> None:
        board.show(losses, text_to_image(model, asked, steps=15).cpu(), asked)

    recipes.train_unet(unet, latents, text, empty, look=look, **options)
    return lambda: (saving.save_index(out), saving.save_model(unet, out / "unet"))


def run_judge(out: Path, source: sources.Source, board: Board, **options) -> Callable:
    """Train the judge of `sdlearn-measure` on scenes, held-out pairs too."""
    n, unseen, judge = sources.TRAINING, scenes.VALIDATION + scenes.TEST, judging.Judge()
    seen, _, attributes = scenes.sample(n, seed=1)
    others, _, their_attributes = scenes.sample(n // 8, 1, unseen)
    right = judging.answers(attributes + their_attributes)
    recipes.train_judge(judge, np.concatenate([seen, others]), right, look=board.show, **options)
    return lambda: saving.save_judge(judge, out / "judge")


RUNS = {"clip": run_clip, "vae": run_vae, "unet": run_unet, "judge": run_judge}
RUNS |= {"flow": fast.run_flow, "fast": fast.run_fast}  # of a trained model, which stays as it is
TOGETHER = {"all": ("clip", "vae", "unet"), "fast": ("flow", "fast")}


def check_options(
    chosen: tuple[str, ...],
    out: Path,
    steps: int | None,
    batch: int | None,
    seed: int,
    precision: str | None,
    size: int | None,
    data: Path | None,
) -> None:
    """Raise ValueError for options that cannot work."""
    if not set(chosen) <= set(RUNS):
        raise ValueError(f'cannot train "{chosen[0]}": choose one of clip, vae, unet, all, judge, fast')
    if chosen == ("judge",) and (data or size):
        raise ValueError("a judge learns scenes of 64 pixels: leave --data and --size out")
    if steps is not None and not 1 <= steps <= MOST:
        raise ValueError(f"--steps must be from 1 to {MOST:,}; got {steps}")
    if batch is not None and batch < 2:
        raise ValueError(f"--batch must be 2 or more; got {batch}")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"--seed must be from 0 to {SEEDS - 1}; got {seed}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder: give another --out")
    if size not in (None, *WIDTHS):
        raise ValueError(f"--size must be one of {', '.join(map(str, WIDTHS))}; got {size}")
    if precision not in (None, "no", "bf16"):
        raise ValueError(f'--precision must be no or bf16; got "{precision}"')


def usual(
    part: str,
    name: str,  # "steps" or "batch"
) -> int:
    """What a part's recipe does by default."""
    return inspect.signature(getattr(recipes, f"train_{part}")).parameters[name].default


def leftovers(out: Path) -> list[Path]:
    """What killed runs have left half written, matched by exactly the names that `saving` gives."""
    names = "|".join([*RUNS, "text_encoder", "tokenizer", "scheduler"])
    folders = [path for path in out.glob(".*-*") if re.fullmatch(rf"\.({names})-\w{{8}}", path.name) and path.is_dir()]
    files = [*out.glob(".*.part"), *(out / "checkpoints").glob(".*.part")]
    return folders + [path for path in files if re.fullmatch(r"\.\w{8}\.part", path.name)]


@contextmanager
def held(out: Path, processes: PartialState) -> Generator[None]:
    """Hold a directory while a training writes into it. Raises ValueError if another training holds it.

    What a killed run has left half written is removed. The lock is the system's: it ends with the process.
    """
    if not processes.is_main_process:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(out / ".training.lock", timeout=0), out / ".training.pid"
    try:
        lock.acquire()
    except Timeout:
        try:
            who = f"process {holder.read_text()}"
        except FileNotFoundError:  # it has not said yet which it is
            who = "another process"
        raise ValueError(f"{who} is training in {out}: wait for it, or give another --out") from None
    try:
        holder.write_text(str(os.getpid()))
        for left in leftovers(out):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()  # its file stays: without it, whoever waits for it and whoever comes later would both begin


def files_of(out: Path, part: str) -> list[Path]:  # the checkpoint comes first
    """What the training of a part writes."""
    return [out / "checkpoints" / f"{part}.pt", *(out / name for name in WRITES.get(part, (part,)))]


def train_part(
    part: str, out: Path, source: sources.Source, board: Board, processes: PartialState, options: dict
) -> None:
    """Train a part and save it, unless that is done already."""
    if (out / part).exists():
        processes.print(f"{part} is trained already")
        return
    processes.print(f"training {part}")
    checkpoint, *_ = files_of(out, part)
    torch.manual_seed(options["seed"])
    board.begin(part)
    save = RUNS[part](out, source, board, fit=partial(runs.fit, checkpoint=checkpoint), **options)
    if processes.is_main_process:
        save()
        checkpoint.unlink()
    processes.wait_for_everyone()


@call_parse(pos=["what"])
def main(
    what: str = "all",  # clip, vae, unet, all (these three), judge (for sdlearn-measure), or fast (a few-step U-Net)
    out: Path = Path("runs/mine"),  # directory for the trained parts; a StableDiffusionPipeline once all are trained
    steps: int | None = None,  # batches for each part, instead of the usual number
    batch: int | None = None,  # examples in each batch, instead of the usual number
    seed: int = 0,  # for the initial weights and all batches
    precision: str | None = None,  # no or bf16; if left out, bf16 where the processor has fast units for it
    resume: bool = False,  # continue a run that was stopped
    data: Path | None = None,  # a folder of captioned pictures; if left out, the scenes that the course draws
    size: int | None = None,  # pixels a side: 64 (if left out), 96, or 128 (wider networks, for a GPU)
    pad: str | None = None,  # for data: a colour to pad pictures to a square; if left out, their middle is cut out
    mirror: bool = False,  # for data: copies may be mirrored, if left and right do not matter
    held_out: str | None = None,  # for data: the fraction of captions to hold out, or a file of them; if left out, 0.1
):
    """Train the parts of a small Stable Diffusion on pictures that the course draws, or on your own."""
    chosen = TOGETHER.get(what, (what,))
    with one_line():
        check_options(chosen, out, steps, batch, seed, precision, size, data)
        anything = any(file.exists() for part in RUNS if part != "judge" for file in files_of(out, part))
        source = sources.chosen(out, data, size, pad, mirror, held_out, anything, resume)
        options = {"seed": seed, "precision": precision or runs.best_precision()}
        options |= {name: number for name, number in (("steps", steps), ("batch", batch)) if number}
        processes = PartialState(cpu=runs.shared_cpu())  # one, or as many as `torchrun` or `accelerate launch` started
        for part in chosen:
            memory.check_batch(part, batch or usual(part, "batch"), source.size, parts.best_device())
        with held(out, processes):
            begun = [part for part in chosen if any(file.exists() for file in files_of(out, part))]
            if begun and not resume:
                there = f"{out} already holds {' and '.join(begun)}"
                raise ValueError(f"{there}: add --resume to go on, or give another --out")
            if processes.is_main_process and what != "judge":  # which learns scenes, whatever the model is trained on
                sources.save(source, out)
            board = Board(out / "progress.png", {part: steps or usual(part, "steps") for part in chosen})
            for part in chosen:
                train_part(part, out, source, board, processes, options)
        processes.print(f"{' and '.join(chosen)} in {out}")
