"""`sdlearn-train fast`: from a trained model, a U-Net that draws in one or two steps (lesson 9).

Two parts. `flow`: the noise predictor, fine-tuned into a flow model. `fast`: the flow model, fine-tuned on pairs of
noise and latents that it made itself, in several steps and with guidance; afterwards it needs neither.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdlearn import parts, recipes
from sdlearn.sampling import text_to_image
from sdlearn.since_2022 import euler, flow_scheduler, guided, velocity
from sdlearn.tools import saving, sources
from sdlearn.tools.board import Board

PAIRS = 12_288
STEPS, GUIDANCE = 8, 4.0  # with which they are made
CHUNK = 256  # pictures at once


def run_flow(out: Path, source: sources.Source, board: Board, **options) -> Callable:  # saves what was trained
    """Fine-tune the noise predictor into a flow model."""
    model = parts.load(out)
    examples = recipes.encoded(model.vae, model.tokenizer, model.text_encoder, *source.training)
    unet = model.unet.requires_grad_(True)
    look = partial(show, model, unet, source, board, 8, GUIDANCE)
    recipes.train_flow(unet, *examples, look=look, **options)
    return lambda: saving.save_model(unet, out / "flow")


def run_fast(out: Path, source: sources.Source, board: Board, **options) -> Callable:
    """Fine-tune the flow model on pairs that it makes first."""
    model, file = parts.load(out), out / "checkpoints" / "pairs.safetensors"
    with parts.quiet():
        unet = UNet2DConditionModel.from_pretrained(out / "flow", use_safetensors=True, local_files_only=True)
    unet.to(model.unet.device)
    encode = partial(recipes.encoded_captions, model.tokenizer, model.text_encoder)
    text, empty = encode(source.training[1][:PAIRS]), encode([""])
    weights = (out / "flow" / parts.WEIGHTS["unet"]).read_bytes()
    origin = {"seed": str(options["seed"]), "flow": hashlib.sha256(weights).hexdigest()}
    noise, ends = made_once(file, lambda: pairs(unet, text, empty, options["seed"]), **origin)
    look = partial(show, model, unet, source, board, 1, 1.0)
    recipes.train_fast(unet, noise, ends, text, look=look, **options)
    return lambda: (saving.save_fast(unet, out / "fast"), file.unlink())


def show(model, unet, source, board, steps: int, guidance_scale: float, losses: list[float]) -> None:
    """Draw the board: the loss, and what the model draws so far."""
    asked, flow = sources.shown(source)[1], model._replace(unet=unet, scheduler=flow_scheduler())
    board.show(losses, text_to_image(flow, asked, steps=steps, guidance_scale=guidance_scale).cpu(), asked)


@torch.no_grad()
def pairs(
    unet: UNet2DConditionModel,  # a flow model
    text: Tensor,  # n l d, encoded captions
    empty: Tensor,  # 1 l d, the encoded empty prompt
    seed: int,
) -> tuple[Tensor, Tensor]:  # n c h w each, on the CPU: noise, and where the flow model takes it
    """Start from noise, and follow the guided velocity."""
    size, device = unet.config.sample_size, unet.device
    noise = torch.randn(len(text), unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
    ends = []
    for some, words in zip(noise.split(CHUNK), text.split(CHUNK), strict=True):
        words = words.to(device)
        v_empty = velocity(unet, empty.to(device).expand_as(words))
        ends.append(euler(guided(v_empty, velocity(unet, words), GUIDANCE), some.to(device), STEPS)[-1].cpu())
    return noise, torch.cat(ends)


def made_once(
    file: Path,
    make: Callable[[], tuple[Tensor, Tensor]],
    **origin: str,  # what the result depends on
) -> tuple[Tensor, Tensor]:
    """The result of `make`, kept in a file for a run that is resumed; made anew if the file has another origin."""
    if not file.exists() or origin_of(file) != origin:
        file.parent.mkdir(parents=True, exist_ok=True)
        with saving.whole_file(file) as new:
            save_file(dict(zip(("noise", "ends"), make(), strict=True)), new, origin)
    found = load_file(file)
    return found["noise"], found["ends"]


def origin_of(file: Path) -> dict[str, str]:
    """What the file says its content depends on."""
    with safe_open(file, "pt") as kept:
        return kept.metadata() or {}
