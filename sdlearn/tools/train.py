"""`sdlearn-train`: trains the parts of a model, one after another, into a directory; a stopped run goes on."""

import os
import re
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL
from fastcore.script import call_parse
from filelock import FileLock, Timeout
from torch import Tensor
from transformers import CLIPTextModel

from sdlearn import measuring, parts, recipes, scenes
from sdlearn.clip import new_clip, new_tokenizer, tokenize
from sdlearn.sampling import encode_prompts
from sdlearn.tools import runs, saving
from sdlearn.tools.guard import one_line
from sdlearn.unet import new_unet
from sdlearn.vae import encode, new_vae

SCENES = 32_000  # training pictures, about a minute to draw
SEEDS = 4294  # a step's own seed is seed * 1,000,003 + step, of which torch's generator takes 32 bits
WRITES = {"clip": ("clip", "text_encoder", "tokenizer")}  # what a part writes; every other: a folder of its own name


@cache
def training_scenes() -> tuple[np.ndarray, list[str], list[dict[str, str]]]:  # as from `scenes.sample`
    """The pictures that every part is trained on, drawn once."""
    return scenes.sample(SCENES, seed=1)


def run_clip(out: Path, **options) -> Callable:  # saves what was trained
    """Train CLIP and its tokenizer."""
    pictures, captions, _ = training_scenes()
    tokenizer = new_tokenizer(captions)
    clip = new_clip(tokenizer, dropout=0.3)
    recipes.train_clip(clip, tokenize(tokenizer, captions), pictures, **options)
    return lambda: saving.save_clip(clip, tokenizer, out)


def run_vae(out: Path, **options) -> Callable:
    """Train the autoencoder."""
    vae = new_vae()
    recipes.train_vae(vae, training_scenes()[0], **options)
    return lambda: saving.save_model(vae, out / "vae")


def run_unet(out: Path, **options) -> Callable:
    """Train the noise predictor on latents and captions that the other parts have encoded."""
    for part in ("text_encoder", "vae"):
        if not (out / part).is_dir():
            raise FileNotFoundError(f"{out / part} is missing: train clip and vae first, with the same --out")
    latents, text, empty = encoded_scenes(out)
    _, channels, size, _ = latents.shape
    unet = new_unet(size, channels, text.shape[-1])
    recipes.train_unet(unet, latents, text, empty, **options)
    return lambda: (saving.save_index(out), saving.save_model(unet, out / "unet"))


@torch.no_grad()
def encoded_scenes(
    out: Path,  # with a trained text encoder and VAE
) -> tuple[Tensor, Tensor, Tensor]:  # n c h w latents, n l d captions, 1 l d the empty prompt; on the CPU
    """Encode all training pictures and their captions once, since they do not change while the U-Net is trained."""
    tokenizer, device = parts.load_tokenizer(out), parts.best_device()
    text_encoder = parts.load_part(CLIPTextModel, out, "text_encoder").to(device)
    vae = parts.load_part(AutoencoderKL, out, "vae").to(device)
    pictures, captions, _ = training_scenes()
    chunks = [captions[i : i + 256] for i in range(0, len(captions), 256)]
    text = torch.cat([encode_prompts(tokenizer, text_encoder, chunk).cpu() for chunk in chunks])
    latents = torch.cat([encode(vae, scenes.to_tensor(x)).cpu() for x in np.split(pictures, len(pictures) // 256)])
    return latents, text, encode_prompts(tokenizer, text_encoder, [""]).cpu()


def run_judge(out: Path, **options) -> Callable:
    """Train the judge of `sdlearn-measure`, on held-out pairs too."""
    normal, held_out = training_scenes(), scenes.sample(SCENES // 8, seed=1, held_out=True)
    judge = measuring.Judge()
    pictures = np.concatenate([normal[0], held_out[0]])
    recipes.train_judge(judge, pictures, measuring.answers(normal[2] + held_out[2]), **options)
    return lambda: saving.save_judge(judge, out / "judge")


RUNS = {"clip": run_clip, "vae": run_vae, "unet": run_unet, "judge": run_judge}


def check_options(
    chosen: tuple[str, ...], out: Path, steps: int | None, batch: int | None, seed: int, precision: str | None
) -> None:
    """Raise ValueError for options with which there is nothing to train."""
    if not set(chosen) <= set(RUNS):
        raise ValueError(f'cannot train "{chosen[0]}": choose one of {", ".join(RUNS)}, all')
    for name, number, least in (("steps", steps, 1), ("batch", batch, 2)):
        if number is not None and number < least:
            raise ValueError(f"--{name} must be {least} or more; got {number}")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"--seed must be from 0 to {SEEDS - 1}; got {seed}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder: give another --out")
    if precision not in (None, "no", "bf16"):
        raise ValueError(f'--precision must be no or bf16; got "{precision}"')


def leftovers(out: Path) -> list[Path]:
    """What killed runs have left half written, by the very names that `saving` gives, and nothing else."""
    names = "|".join([*RUNS, "text_encoder", "tokenizer", "scheduler"])
    folders = [path for path in out.glob(".*-*") if re.fullmatch(rf"\.({names})-\w{{8}}", path.name) and path.is_dir()]
    files = [path for path in (out / "checkpoints").glob(".*.part") if re.fullmatch(r"\.\w{8}\.part", path.name)]
    return folders + files


@contextmanager
def held(out: Path, processes: PartialState) -> Generator[None, None, None]:
    """Hold a directory while a training writes into it. Raises ValueError if another training holds it.

    What a killed run has left half written is removed. The lock is the system's: it goes with the process.
    """
    if not processes.is_main_process:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(out / ".training.lock", timeout=0), out / ".training.pid"
    try:
        lock.acquire()
    except Timeout:
        there = f"process {holder.read_text()} is training in {out}"
        raise ValueError(f"{there}: wait for it, or give another --out") from None
    try:
        holder.write_text(str(os.getpid()))
        for left in leftovers(out):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        holder.unlink()
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def files_of(out: Path, part: str) -> list[Path]:  # the checkpoint comes first
    """What the training of a part writes."""
    return [out / "checkpoints" / f"{part}.pt", *(out / name for name in WRITES.get(part, (part,)))]


def train_part(part: str, out: Path, processes: PartialState, options: dict) -> None:
    """Train a part and save it, unless that is done already."""
    if (out / part).exists():
        processes.print(f"{part} is trained already")
        return
    processes.print(f"training {part}")
    checkpoint, *_ = files_of(out, part)
    torch.manual_seed(options["seed"])
    save = RUNS[part](out, fit=partial(runs.fit, checkpoint=checkpoint), **options)
    if processes.is_main_process:
        save()
        checkpoint.unlink()
    processes.wait_for_everyone()


@call_parse(pos=["what"])
def main(
    what: str = "all",  # clip, vae, unet, judge (for sdlearn-measure), or all (clip, vae and unet)
    out: Path = Path("runs/mine"),  # directory for the trained parts; a StableDiffusionPipeline once all are trained
    steps: int | None = None,  # batches for each part, instead of the usual number
    batch: int | None = None,  # examples in each batch, instead of the usual number
    seed: int = 0,  # for the initial weights and all batches
    precision: str | None = None,  # no or bf16; if left out, bf16 where the processor has fast units for it
    resume: bool = False,  # go on with a run that was stopped
):
    """Train the parts of a small Stable Diffusion on pictures that the course draws."""
    chosen = ("clip", "vae", "unet") if what == "all" else (what,)
    with one_line():
        check_options(chosen, out, steps, batch, seed, precision)
        options = {"seed": seed, "precision": precision or runs.best_precision()}
        options |= {name: number for name, number in (("steps", steps), ("batch", batch)) if number}
        processes = PartialState(cpu=runs.shared_cpu())  # one, or as many as `torchrun` or `accelerate launch` started
        with held(out, processes):
            begun = [part for part in chosen if any(file.exists() for file in files_of(out, part))]
            if begun and not resume:
                there = f"{out} already holds {' and '.join(begun)}"
                raise ValueError(f"{there}: add --resume to go on, or give another --out")
            for part in chosen:
                train_part(part, out, processes, options)
        processes.print(f"{' and '.join(chosen)} in {out}")
