"""One training loop for every part, and the command `sdlearn-train`.

Nothing is drawn from a global random state: what step i trains on depends on the seed and on i
alone, so a run that was killed and goes on from its last checkpoint ends with the same weights.
"""

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPModel

from sdlearn import scenes
from sdlearn.clip import clip_loss, new_clip, new_tokenizer, tokenize
from sdlearn.noising import q_sample
from sdlearn.unet import diffusion_loss, drop_captions, new_unet
from sdlearn.vae import encode, new_vae, scale_factor, vae_loss


def fit(
    model: nn.Module,  # trained in place
    loss: Callable[..., Tensor],  # loss(model, *example) -> scalar
    examples: Callable[[torch.Generator], tuple[Tensor, ...]],  # draws one batch, with its noise
    steps: int,  # how many batches
    lr: float,  # highest learning rate: warms up, then falls by a cosine
    seed: int = 0,  # the same seed gives the same batches
    warmup: int = 50,  # steps
    betas: tuple[float, float] = (0.9, 0.999),  # AdamW's
    weight_decay: float = 0.0,  # AdamW's
    average: bool = False,  # end with the moving average of the weights (EMA)
    checkpoint: Path | None = None,  # a file to save to every `every` steps, and to go on from where it exists
    every: int = 100,  # steps between checkpoints
    progress: Callable[[Iterable], Iterable] = tqdm,  # wraps the steps, to show how far it is
) -> list[float]:  # the loss at each step
    """Train a model with AdamW (arXiv 1711.05101), gradients cut to norm 1, a rate that falls by a cosine.

    Raises ValueError at a loss that is not a number; the last checkpoint stays as it was.
    """
    accelerator = Accelerator()
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas, weight_decay=weight_decay)
    net, optimizer = accelerator.prepare(model, optimizer)
    ema = EMAModel(model.parameters(), decay=0.999) if average else None
    losses = load_checkpoint(checkpoint, model, optimizer, ema) if checkpoint and checkpoint.exists() else []
    net.train()
    bar = progress(range(len(losses), steps))
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / (warmup + 1)) * (1 + math.cos(math.pi * step / steps)) / 2
        batch = examples(torch.Generator().manual_seed(seed * 1_000_003 + step))
        value = loss(net, *(x.to(accelerator.device) for x in batch))
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]} at step {step}: try a learning rate below {lr}")
        accelerator.backward(value)
        accelerator.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if ema:
            ema.step(model.parameters())
        if hasattr(bar, "set_postfix_str"):
            bar.set_postfix_str(f"loss {sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
        if checkpoint and ((step + 1) % every == 0 or step + 1 == steps):
            save_checkpoint(checkpoint, model, optimizer, ema, losses)
    if ema:
        ema.copy_to(model.parameters())
    model.eval()
    return losses


def save_checkpoint(path: Path, model: nn.Module, optimizer, ema: EMAModel | None, losses: list[float]) -> None:
    """Everything that a run needs to go on; the old file is replaced only when the new one is whole."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    if ema:
        state["ema"] = ema.state_dict()
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_checkpoint(path: Path, model: nn.Module, optimizer, ema: EMAModel | None) -> list[float]:  # losses so far
    """Put a run back to where it was when it last saved."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if ema:
        ema.load_state_dict(state["ema"])
    return state["losses"]


# ---------------------------------------------------------------- what each part is trained on, and how

SCENES = 32_000  # training pictures, drawn once from seed 1; about a minute


def training_scenes(n: int = SCENES):  # pictures n h w c uint8, captions
    """The pictures that every part is trained on."""
    pictures, captions, _ = scenes.sample(n, seed=1)
    return pictures, captions


def picks(generator: torch.Generator, n: int, batch: int) -> Tensor:
    """Which examples the next batch holds."""
    return torch.randint(n, (batch,), generator=generator)


def train_clip(
    clip: CLIPModel, tokens: Tensor, pictures: np.ndarray, steps: int = 1500, batch: int = 96, **options
) -> list[float]:
    """Contrastive training on captions (as tokens) and pictures."""

    def examples(g):
        i = picks(g, len(pictures), batch)
        return scenes.to_tensor(pictures[i.numpy()]), tokens[i]

    return fit(clip, clip_loss, examples, steps, lr=1e-3, weight_decay=0.01, **options)


def train_vae(vae: AutoencoderKL, pictures: np.ndarray, steps: int = 5000, batch: int = 16, **options) -> list[float]:
    """Training the autoencoder; at the end it gets the scale factor of its own latents."""

    def examples(g):
        i = picks(g, len(pictures), batch)
        return scenes.to_tensor(pictures[i.numpy()]), torch.randn(batch, 4, 8, 8, generator=g)

    losses = fit(vae, vae_loss, examples, steps, lr=2e-3, betas=(0.9, 0.99), **options)
    vae.register_to_config(scaling_factor=1.0)
    some = scenes.to_tensor(pictures[:1024])
    vae.register_to_config(scaling_factor=scale_factor(encode(vae, some)))
    return losses


def train_unet(
    unet: UNet2DConditionModel,
    latents: Tensor,  # n c h w, scaled
    text: Tensor,  # n l d, encoded captions
    empty: Tensor,  # 1 l d, the encoded empty prompt
    steps: int = 3000,
    batch: int = 64,
    drop: float = 0.1,  # how often a caption is dropped
    **options,
) -> list[float]:
    """Training the noise predictor on latents that were encoded once, and on encoded captions."""

    def examples(g):
        i, t = picks(g, len(latents), batch), torch.randint(1000, (batch,), generator=g)
        eps = torch.randn(latents[i].shape, generator=g)
        dropped = drop_captions(text[i], empty, torch.rand(batch, generator=g) < drop)
        return q_sample(latents[i], t, eps), t, eps, dropped

    return fit(unet, diffusion_loss, examples, steps, lr=1e-3, warmup=100, average=True, **options)
