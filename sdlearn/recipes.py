"""What each part is trained on, and how: from the parts of lessons 1 to 4 and of lesson 9 to `training.fit`.

Each recipe takes the `fit` that is to run it: `training.fit`, or `tools.runs.fit` for a run that can be resumed.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from sdlearn import judging, scenes, training
from sdlearn.clip import clip_loss
from sdlearn.noising import STABLE_DIFFUSION, Schedule, q_sample
from sdlearn.sampling import encode_prompts
from sdlearn.since_2022 import flow_loss, on_line
from sdlearn.unet import diffusion_loss, drop_captions
from sdlearn.vae import encode, scale_factor, vae_loss

CHUNK = 256  # pictures or captions that are encoded at once


def picks(
    generator: torch.Generator,
    n: int,
    batch: int,
) -> Tensor:  # batch, numbers below n
    """Which examples the next batch holds. Raises ValueError if torch's default device is not the CPU."""
    if (device := torch.get_default_device().type) != "cpu":
        raise ValueError(f'torch\'s default device is {device}, but batches are drawn on the CPU: set it back to "cpu"')
    return torch.randint(n, (batch,), generator=generator)


def train_clip(
    clip: CLIPModel,  # trained in place
    tokens: Tensor,  # n l, the captions
    pictures: np.ndarray,  # n h w c uint8
    steps: int = 4000,
    batch: int = 96,
    fit: Callable = training.fit,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Contrastive training on captions and pictures, half of each batch hard to tell apart.

    That half holds captions that share the most words with one of them: to tell these apart, CLIP must
    read every word; among captions drawn at random, style and place are nearly always enough.
    """
    tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]  # attention looks back only: what follows all ends is unused
    size = len(tokens), int(tokens.max()) + 1
    words = torch.zeros(size).scatter_(1, tokens, 1)  # n v, 1 where a caption has the word

    def examples(g):
        i = picks(g, len(pictures), 8 * batch)
        alike = (words[i] @ words[i[0]]).topk(batch - batch // 2).indices
        i = torch.cat([i[alike], i[len(i) - batch // 2 :]])
        return scenes.to_tensor(pictures[i.numpy()]), tokens[i]

    return fit(clip, clip_loss, examples, steps, lr=1e-3, weight_decay=0.01, **options)


def train_vae(
    vae: AutoencoderKL,  # trained in place; at the end it has the scale factor of its own latents
    pictures: np.ndarray,  # n h w c uint8, of the size that the VAE was made for
    steps: int = 4500,
    batch: int = 16,
    fit: Callable = training.fit,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train the autoencoder to reconstruct its input."""
    size = vae.config.sample_size
    if pictures.shape[1:] != (size, size, 3):
        raise ValueError(f"pictures must be (n, {size}, {size}, 3); got {pictures.shape}")
    latent = encode(vae, scenes.to_tensor(pictures[:1])).shape[1:]  # c h w

    def examples(g):
        i = picks(g, len(pictures), batch)
        return scenes.to_tensor(pictures[i.numpy()]), torch.randn(batch, *latent, generator=g)

    losses = fit(vae, vae_loss, examples, steps, lr=2e-3, betas=(0.9, 0.99), **options)
    vae.register_to_config(scaling_factor=1.0)
    some = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))[:1024]
    vae.register_to_config(scaling_factor=scale_factor(encode(vae, scenes.to_tensor(pictures[some.numpy()]))))
    return losses


@torch.no_grad()
def encoded_captions(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    captions: list[str],  # n
) -> Tensor:  # n l d, on the CPU
    """Encode captions, some at a time."""
    chunks = [captions[i : i + CHUNK] for i in range(0, len(captions), CHUNK)]
    return torch.cat([encode_prompts(tokenizer, text_encoder, chunk).cpu() for chunk in chunks])


@torch.no_grad()
def encoded(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    pictures: np.ndarray,  # n h w c uint8
    captions: list[str],  # n
) -> tuple[Tensor, Tensor, Tensor]:  # n c h w latents, n l d captions, 1 l d the empty prompt; on the CPU
    """Encode all training pictures and their captions once, since they do not change while the U-Net is trained."""
    chunks = [pictures[i : i + CHUNK] for i in range(0, len(pictures), CHUNK)]
    latents = torch.cat([encode(vae, scenes.to_tensor(chunk)).cpu() for chunk in chunks])
    text, empty = (encoded_captions(tokenizer, text_encoder, said) for said in (captions, [""]))
    return latents, text, empty


def train_unet(
    unet: UNet2DConditionModel,  # trained in place
    latents: Tensor,  # n c h w, scaled: encoded once, before training
    text: Tensor,  # n l d, the encoded captions
    empty: Tensor,  # 1 l d, the encoded empty prompt
    steps: int = 7000,
    batch: int = 32,
    drop: float = 0.1,  # how often a caption is dropped
    schedule: Schedule = STABLE_DIFFUSION,
    fit: Callable = training.fit,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train the noise predictor: noisy latents, their step and their caption in, the noise out."""

    def examples(g):
        i, t = picks(g, len(latents), batch), torch.randint(len(schedule), (batch,), generator=g)
        eps = torch.randn(latents[i].shape, generator=g)
        shown = drop_captions(text[i], empty, torch.rand(batch, generator=g) < drop)
        return q_sample(latents[i], t, eps, schedule), t, eps, shown

    return fit(unet, diffusion_loss, examples, steps, lr=1e-3, warmup=100, average=True, **options)


def uniform_times(
    n: int,
    generator: torch.Generator,
) -> Tensor:  # n, 0 .. 1, each as likely as any other
    """Times for the training of a flow model."""
    return torch.rand(n, generator=generator)


def train_flow(
    unet: UNet2DConditionModel,  # trained in place; it may be a noise predictor
    latents: Tensor,  # n c h w, scaled: encoded once, before training
    text: Tensor,  # n l d, the encoded captions
    empty: Tensor,  # 1 l d, the encoded empty prompt
    steps: int = 3000,
    batch: int = 32,
    drop: float = 0.1,  # how often a caption is dropped
    times: Callable[[int, torch.Generator], Tensor] = uniform_times,  # draws the times of a batch
    fit: Callable = training.fit,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train a flow model: latents on the straight line, their time and their caption in, the velocity out."""

    def examples(g):
        i, t = picks(g, len(latents), batch), times(batch, g)
        eps = torch.randn(latents[i].shape, generator=g)
        shown = drop_captions(text[i], empty, torch.rand(batch, generator=g) < drop)
        return on_line(latents[i], t, eps), t, eps - latents[i], shown

    return fit(unet, flow_loss, examples, steps, lr=1e-3, warmup=20, average=True, **options)


def train_fast(
    unet: UNet2DConditionModel,  # trained in place; a flow model
    noise: Tensor,  # n c h w
    ends: Tensor,  # n c h w, the clean latents that a flow model made of each noise
    text: Tensor,  # n l d, the encoded captions of these
    steps: int = 4000,
    batch: int = 32,
    first: float = 0.5,  # the fraction of examples at t = 1, where a single step is taken
    fit: Callable = training.fit,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Reflow: train on straight lines between each noise and its own end (arXiv 2209.03003, algorithm 1)."""

    def examples(g):
        i, t = picks(g, len(noise), batch), uniform_times(batch, g)
        t[torch.rand(batch, generator=g) < first] = 1.0
        return on_line(ends[i], t, noise[i]), t, noise[i] - ends[i], text[i]

    return fit(unet, flow_loss, examples, steps, lr=1e-3, warmup=20, average=True, **options)


def train_judge(
    judge: nn.Module,  # trained in place
    pictures: np.ndarray,  # n h w c uint8
    attributes: Tensor,  # n attributes, from `judging.answers`
    steps: int = 2500,
    batch: int = 64,
    fit: Callable = training.fit,
    **options,  # of `fit`
) -> list[float]:  # the loss at each step
    """Train the judge of `sdlearn-measure` on real scenes, sharp and degraded."""

    def examples(g):
        i = picks(g, len(pictures), batch)
        return judging.degrade(scenes.to_tensor(pictures[i.numpy()]), g), attributes[i]

    return fit(judge, judging.judge_loss, examples, steps, lr=2e-3, average=True, **options)
