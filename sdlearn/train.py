"""What each part is trained on, and how; and the command `sdlearn-train`."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL, UNet2DConditionModel
from fastcore.script import CliError, call_parse
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel

from sdlearn import judging, parts, saving, scenes
from sdlearn.clip import clip_loss, new_clip, new_tokenizer, tokenize
from sdlearn.fit import best_precision, fit, shared_cpu
from sdlearn.noising import q_sample
from sdlearn.sampling import encode_prompts
from sdlearn.unet import diffusion_loss, drop_captions, new_unet
from sdlearn.vae import encode, new_vae, scale_factor, vae_loss

SCENES = 32_000  # training pictures, about a minute to draw


@cache
def training_scenes() -> tuple[np.ndarray, list[str], list[dict[str, str]]]:  # as from `scenes.sample`
    """The pictures that every part is trained on, drawn once."""
    return scenes.sample(SCENES, seed=1)


def picks(generator: torch.Generator, n: int, batch: int) -> Tensor:  # batch, numbers below n
    """Which examples the next batch holds."""
    return torch.randint(n, (batch,), generator=generator)


def train_clip(
    clip: CLIPModel,  # trained in place
    tokens: Tensor,  # n l, the captions
    pictures: np.ndarray,  # n h w c uint8
    steps: int = 4000,
    batch: int = 96,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Contrastive training on captions and pictures, half of each batch hard to tell apart.

    That half holds captions that share the most words with one of them: to tell these apart, CLIP must
    read every word, while among captions drawn at random, style and place nearly always decide.
    """
    words = torch.zeros(len(tokens), tokens.max() + 1).scatter_(1, tokens, 1)  # n v, 1 where a caption has the word

    def examples(g):
        i = picks(g, len(pictures), 8 * batch)
        alike = (words[i] @ words[i[0]]).topk(batch - batch // 2).indices
        i = torch.cat([i[alike], i[len(i) - batch // 2 :]])
        return scenes.to_tensor(pictures[i.numpy()]), tokens[i]

    return fit(clip, clip_loss, examples, steps, lr=1e-3, weight_decay=0.01, **options)


def train_vae(
    vae: AutoencoderKL,  # trained in place; at the end it has the scale factor of its own latents
    pictures: np.ndarray,  # n h w c uint8
    steps: int = 4500,
    batch: int = 16,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train the autoencoder to give back what it is shown."""
    if pictures.shape[1:] != (scenes.SIZE, scenes.SIZE, 3):
        raise ValueError(f"pictures must be (n, {scenes.SIZE}, {scenes.SIZE}, 3); got {pictures.shape}")

    def examples(g):
        i = picks(g, len(pictures), batch)
        return scenes.to_tensor(pictures[i.numpy()]), torch.randn(batch, 4, 8, 8, generator=g)

    losses = fit(vae, vae_loss, examples, steps, lr=2e-3, betas=(0.9, 0.99), **options)
    vae.register_to_config(scaling_factor=1.0)
    vae.register_to_config(scaling_factor=scale_factor(encode(vae, scenes.to_tensor(pictures[:1024]))))
    return losses


def train_unet(
    unet: UNet2DConditionModel,  # trained in place
    latents: Tensor,  # n c h w, scaled: encoded once, before training
    text: Tensor,  # n l d, the encoded captions
    empty: Tensor,  # 1 l d, the encoded empty prompt
    steps: int = 7000,
    batch: int = 32,
    drop: float = 0.1,  # how often a caption is dropped
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train the noise predictor: noisy latents, their step and their caption in, the noise out."""

    def examples(g):
        i, t = picks(g, len(latents), batch), torch.randint(1000, (batch,), generator=g)
        eps = torch.randn(latents[i].shape, generator=g)
        shown = drop_captions(text[i], empty, torch.rand(batch, generator=g) < drop)
        return q_sample(latents[i], t, eps), t, eps, shown

    return fit(unet, diffusion_loss, examples, steps, lr=1e-3, warmup=100, average=True, **options)


def train_judge(
    judge: nn.Module,  # trained in place
    pictures: np.ndarray,  # n h w c uint8
    attributes: Tensor,  # n attributes, from `judging.answers`
    steps: int = 2500,
    batch: int = 64,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train the judge of `sdlearn-measure` on real scenes, sharp and spoilt."""

    def examples(g):
        i = picks(g, len(pictures), batch)
        return judging.spoil(scenes.to_tensor(pictures[i.numpy()]), g), attributes[i]

    return fit(judge, judging.judge_loss, examples, steps, lr=2e-3, average=True, **options)


# ---------------------------------------------------------------- the command


def make_clip(out: Path, **options) -> Callable:  # saves what was trained
    pictures, captions, _ = training_scenes()
    tokenizer = new_tokenizer(captions)
    clip = new_clip(tokenizer, dropout=0.3)
    train_clip(clip, tokenize(tokenizer, captions), pictures, **options)
    return lambda: saving.save_clip(clip, tokenizer, out)


def make_vae(out: Path, **options) -> Callable:
    pictures, _, _ = training_scenes()
    vae = new_vae()
    train_vae(vae, pictures, **options)
    return lambda: saving.save_model(vae, out / "vae")


def make_unet(out: Path, **options) -> Callable:
    for part in ("text_encoder", "vae"):
        if not (out / part).is_dir():
            raise FileNotFoundError(f"{out / part} is missing: train clip and vae first, with the same --out")
    tokenizer = parts.load_tokenizer(out)
    text_encoder = parts.load_part(CLIPTextModel, out, "text_encoder")
    vae = parts.load_part(AutoencoderKL, out, "vae")
    pictures, captions, _ = training_scenes()
    device = parts.best_device()
    with torch.no_grad():
        text_encoder.to(device), vae.to(device)
        chunks = [captions[i : i + 256] for i in range(0, len(captions), 256)]
        text = torch.cat([encode_prompts(tokenizer, text_encoder, chunk).cpu() for chunk in chunks])
        empty = encode_prompts(tokenizer, text_encoder, [""]).cpu()
        latents = torch.cat([encode(vae, scenes.to_tensor(x)).cpu() for x in np.split(pictures, len(pictures) // 256)])
    unet = new_unet()
    train_unet(unet, latents, text, empty, **options)
    return lambda: (saving.save_index(out), saving.save_model(unet, out / "unet"))


def make_judge(out: Path, **options) -> Callable:
    normal, held_out = training_scenes(), scenes.sample(SCENES // 8, seed=1, held_out=True)
    judge = judging.Judge()
    pictures = np.concatenate([normal[0], held_out[0]])
    train_judge(judge, pictures, judging.answers(normal[2] + held_out[2]), **options)
    return lambda: saving.save_judge(judge, out / "judge")


MAKE = {"clip": make_clip, "vae": make_vae, "unet": make_unet, "judge": make_judge}


@call_parse(pos=["what"])
def main(
    what: str = "all",  # clip, vae, unet, judge (for sdlearn-measure), or all (clip, vae and unet)
    out: Path = Path("runs/mine"),  # directory for the trained parts; a StableDiffusionPipeline once all are trained
    steps: int = None,  # batches for each part, instead of the usual number
    batch: int = None,  # examples in each batch, instead of the usual number
    seed: int = 0,  # for the initial weights and all batches
    precision: str = None,  # no or bf16; if left out, bf16 where the processor has fast units for it
    resume: bool = False,  # go on with a run that was stopped
):
    """Train the parts of a small Stable Diffusion on pictures that the course draws."""
    chosen = ("clip", "vae", "unet") if what == "all" else (what,)
    if not set(chosen) <= set(MAKE):
        raise CliError(f'cannot train "{what}": choose one of {", ".join(MAKE)}, all')
    for name, number, least in (("steps", steps, 1), ("batch", batch, 2)):
        if number is not None and number < least:
            raise CliError(f"--{name} must be {least} or more; got {number}")
    if abs(seed) >= 2**31:
        raise CliError(f"--seed must be below {2**31}; got {seed}")
    if out.exists() and not out.is_dir():
        raise CliError(f"{out} is not a folder: give another --out")
    if precision not in (None, "no", "bf16"):
        raise CliError(f'--precision must be no or bf16; got "{precision}"')
    options = {"seed": seed, "precision": precision or best_precision()}
    options |= {name: number for name, number in (("steps", steps), ("batch", batch)) if number}
    processes = PartialState(cpu=shared_cpu())  # one, or as many as `torchrun` or `accelerate launch` started
    checkpoints = {part: out / "checkpoints" / f"{part}.pt" for part in chosen}
    writes = {"clip": ("clip", "text_encoder", "tokenizer")}  # every other part: its own folder
    held = {part: [checkpoints[part], *(out / x for x in writes.get(part, (part,)))] for part in chosen}
    if not resume and (begun := [part for part, files in held.items() if any(file.exists() for file in files)]):
        raise CliError(f"{out} already holds {' and '.join(begun)}: add --resume to go on, or give another --out")
    for part, checkpoint in checkpoints.items():
        if (out / part).exists():
            processes.print(f"{part} is trained already")
            continue
        processes.print(f"training {part}")
        torch.manual_seed(seed)
        try:
            save = MAKE[part](out, checkpoint=checkpoint, **options)
            if processes.is_main_process:
                save()
                checkpoint.unlink()
        except (ValueError, OSError) as error:
            raise CliError(str(error)) from error
        processes.wait_for_everyone()
    processes.print(f"{' and '.join(chosen)} in {out}")
