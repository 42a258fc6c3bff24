"""Lesson 5: guidance and the loop, from a prompt to a picture, with any of Stable Diffusion's schedulers."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def encode_prompts(
    tokenizer,
    text_encoder,
    prompts: list[str],  # cut off at the model's token limit
) -> Tensor:  # b l d, one vector per token
    """Turn prompts into the sequences that the U-Net looks at; the empty prompt is treated like any other."""
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return text_encoder(tokens.input_ids.to(text_encoder.device)).last_hidden_state


def initial_latents(
    unet,
    scheduler,  # with its timesteps set: its first noise level is read here
    b: int,  # pictures
    generator: torch.Generator,  # on the CPU, so that a seed gives the same noise everywhere
    height: int,  # pixels, divisible by 8
    width: int,  # pixels, divisible by 8
) -> Tensor:  # b c height/8 width/8, pure noise
    """Noise in the shape of the latents, as strong as the scheduler's first noise level."""
    noise = torch.randn(b, unet.config.in_channels, height // 8, width // 8, generator=generator)
    return noise.to(unet.device, unet.dtype) * scheduler.init_noise_sigma


def guide(
    eps_empty: Tensor,  # b c h w, noise predicted for the empty (or the negative) prompt
    eps_text: Tensor,  # b c h w, noise predicted for the prompt
    guidance_scale: float,  # 0: the prompt is ignored; 1: as trained; above 1: exaggerated
) -> Tensor:  # b c h w
    """Classifier-free guidance: eps_empty + s (eps_text - eps_empty) (arXiv 2207.12598, eq. 6, with s = w + 1)."""
    return eps_empty + guidance_scale * (eps_text - eps_empty)


def denoise(
    unet,
    scheduler,  # with its timesteps set
    latents: Tensor,  # b c h w, noise to start from
    empty: Tensor,  # b l d, the empty or the negative prompts, encoded
    text: Tensor,  # b l d, the prompts, encoded
    guidance_scale: float,
    generator: torch.Generator | None = None,  # for schedulers that add noise of their own, such as DDPM
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the steps, to show progress
    watch: Callable[[Tensor, Tensor], None] | None = None,  # called with t and the latents after each step
) -> Tensor:  # b c h w, clean latents
    """From noise to clean latents, one scheduler step at a time (for DDIM: arXiv 2010.02502, eq. 12)."""
    context = torch.cat([empty, text])  # 2b l d: unconditional first
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if takes_generator else {}
    for t in progress(scheduler.timesteps):
        both = scheduler.scale_model_input(torch.cat([latents, latents]), t)  # 2b c h w: one pass for both
        eps_empty, eps_text = unet(both, t, encoder_hidden_states=context).sample.chunk(2)
        eps = guide(eps_empty, eps_text, guidance_scale)
        latents = scheduler.step(eps, t, latents, **extra).prev_sample
        if watch:
            watch(t, latents)
    return latents


@torch.no_grad()
def decode_latents(
    vae,
    latents: Tensor,  # b c h w, clean
) -> Tensor:  # b 3 8h 8w, pictures, -1 .. 1
    """Latents to pictures; if the decoder overflows in half precision, it runs again in float32, with a warning."""
    latents, dtype = latents / vae.config.scaling_factor, vae.dtype
    pictures = vae.decode(latents.to(dtype)).sample
    if dtype != torch.float32 and pictures.isnan().any():
        warnings.warn("the VAE overflowed in half precision: it decodes again in float32", stacklevel=3)
        pictures = vae.float().decode(latents.float()).sample
        vae.to(dtype)
    return pictures.float().clamp(-1, 1)


@torch.no_grad()
def text_to_image(
    parts,  # tokenizer, text encoder, VAE, U-Net, scheduler: `parts.load()`
    prompts: str | list[str],  # one picture for each
    negative: str = "",  # what to steer away from
    steps: int = 30,
    guidance_scale: float = 4.0,
    seed: int = 0,
    height: int | None = None,  # pixels, divisible by 8; None: the size that the model was trained for
    width: int | None = None,  # as height
    progress: Callable[[Iterable], Iterable] = iter,  # as in `denoise`
    watch: Callable[[Tensor, Tensor], None] | None = None,  # as in `denoise`
) -> Tensor:  # b c h w, pictures, -1 .. 1
    """The whole way, as in `StableDiffusionPipeline`: the same seed and settings give the same picture in both.

    Raises ValueError for steps below 1, for a size that is not divisible by 8, for a guidance scale that is
    not a finite number, and for a seed that does not fit in 64 bits.
    """
    tokenizer, text_encoder, vae, unet, scheduler = parts
    prompts = [prompts] if isinstance(prompts, str) else prompts
    height, width = (8 * unet.config.sample_size if side is None else side for side in (height, width))
    if steps < 1:
        raise ValueError(f"steps must be 1 or more; got {steps}")
    if height % 8 or width % 8 or min(height, width) < 8:
        raise ValueError(f"height and width must be divisible by 8; got {height} x {width}")
    if not math.isfinite(guidance_scale):
        raise ValueError(f"guidance must be a number; got {guidance_scale}")
    if abs(seed) >= 2**63:
        raise ValueError(f"seed must be below {2**63}; got {seed}")
    text = encode_prompts(tokenizer, text_encoder, prompts)
    empty = encode_prompts(tokenizer, text_encoder, [negative] * len(prompts))
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    latents = initial_latents(unet, scheduler, len(prompts), generator, height, width)
    latents = denoise(unet, scheduler, latents, empty, text, guidance_scale, generator, progress, watch)
    return decode_latents(vae, latents)
