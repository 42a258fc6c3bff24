"""Lesson 5: guidance and the loop, from a prompt to a picture, with any of Stable Diffusion's schedulers."""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from sdlearn.shapes import check_prompts, check_settings, check_shape


def encode_prompts(
    tokenizer,
    text_encoder,
    prompts: list[str],  # cut off at the model's token limit
) -> Tensor:  # b l d, one vector per token
    """Turn prompts into the sequences that the U-Net attends to; the empty prompt is treated like any other."""
    form = dict(padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    return text_encoder(tokenizer(prompts, **form).input_ids.to(text_encoder.device)).last_hidden_state


def prepare_scheduler(
    scheduler,  # any of diffusers'; it is not changed
    steps: int,
    generator: torch.Generator,  # for schedulers that add noise of their own, such as DDPM
):  # a new one of the same kind, with its timesteps set
    """Make the scheduler for one run. Raises ValueError for more steps than it can take."""
    scheduler, most = type(scheduler).from_config(scheduler.config), scheduler.config.num_train_timesteps
    scheduler.set_timesteps(min(steps, most))
    if steps > most or scheduler.timesteps.max() >= most:  # a step further than the U-Net knows
        raise ValueError(f"{steps} steps are more than {type(scheduler).__name__} can take: stay below {most}")
    if "generator" in inspect.signature(scheduler.step).parameters:
        scheduler.step = partial(scheduler.step, generator=generator)
    return scheduler


def initial_latents(
    unet,
    scheduler,  # with its timesteps set: its first noise level is read here
    b: int,  # pictures
    generator: torch.Generator,  # on the CPU, so that a seed gives the same noise everywhere
    height: int,  # of the latents
    width: int,  # of the latents
) -> Tensor:  # b c h w, pure noise
    """Noise in the shape of the latents, scaled to the scheduler's first noise level."""
    shape = b, unet.config.in_channels, height, width
    noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return noise.to(unet.device, unet.dtype) * scheduler.init_noise_sigma


def guide(
    eps_empty: Tensor,  # b c h w, noise predicted for the empty (or the negative) prompt
    eps_text: Tensor,  # b c h w, noise predicted for the prompt
    guidance_scale: float,  # 0: the prompt is ignored; 1: as trained; above 1: exaggerated
) -> Tensor:  # b c h w
    """Classifier-free guidance: eps_empty + s (eps_text - eps_empty) (arXiv 2207.12598, eq. 6, with s = w + 1)."""
    check_shape(eps_text, "eps_text", *eps_empty.shape)
    return eps_empty + guidance_scale * (eps_text - eps_empty)


def ddim_step(
    x_t: Tensor,  # b c h w, latents at this step
    eps: Tensor,  # b c h w, the noise in them, as predicted
    a: Tensor,  # alpha_bar at this step, one number
    a_next: Tensor,  # alpha_bar at the next step, one number
) -> Tensor:  # b c h w, latents at the next step
    """Estimate x0, then put the same noise back, less of it (DDIM, arXiv 2010.02502, eq. 12 without fresh noise)."""
    check_shape(eps, "eps", *x_t.shape)
    x0 = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
    return a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps


def denoise(
    unet,
    scheduler,  # with its timesteps set; if it adds noise of its own, from `prepare_scheduler`
    latents: Tensor,  # b c h w, noise to start from
    empty: Tensor,  # b l d, the empty or the negative prompts, encoded
    text: Tensor,  # b l d, the prompts, encoded
    guidance_scale: float,
    progress: Callable[[Iterable], Iterable] = iter,  # wraps the steps, to show progress
    watch: Callable[[Tensor, Tensor], None] = lambda t, latents: None,  # called after each step
) -> Tensor:  # b c h w, clean latents
    """From noise to clean latents, one scheduler step at a time (for DDIM: arXiv 2010.02502, eq. 12)."""
    check_shape(empty, "empty", *text.shape)
    context = torch.cat([empty, text])  # 2b l d: unconditional first
    for t in progress(scheduler.timesteps):
        both = scheduler.scale_model_input(torch.cat([latents, latents]), t)  # 2b c h w: one pass for both
        eps_empty, eps_text = unet(both, t, encoder_hidden_states=context).sample.chunk(2)
        eps = guide(eps_empty, eps_text, guidance_scale)
        latents = scheduler.step(eps, t, latents).prev_sample
        watch(t, latents)
    return latents


@torch.no_grad()
def decode_latents(
    vae,
    latents: Tensor,  # b c h w, clean
) -> Tensor:  # b 3 8h 8w, pictures, -1 .. 1
    """Latents to pictures; if the decoder overflows in half precision, a float32 copy decodes again, with a warning."""
    latents = latents / vae.config.scaling_factor
    pictures = vae.decode(latents.to(vae.dtype)).sample
    if vae.dtype != torch.float32 and pictures.isnan().any():
        warnings.warn("the VAE overflowed in half precision: it decodes again in float32", stacklevel=3)
        pictures = copy.deepcopy(vae).float().decode(latents.float()).sample
    return pictures.float().clamp(-1, 1)


def native_size(
    model,  # from `parts.load`
) -> tuple[int, int]:  # pixels a side of the pictures that it was trained for; pixels a side of one latent
    """Stable Diffusion v1-4: 512 and 8. Each level of the VAE but the first halves the picture."""
    factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
    return factor * model.unet.config.sample_size, factor


@torch.no_grad()
def text_to_image(
    model,  # tokenizer, text encoder, VAE, U-Net, scheduler: `parts.load()`
    prompts: str | list[str],  # one picture for each
    negative: str = "",  # what to steer away from
    steps: int = 30,
    guidance_scale: float = 4.0,
    seed: int = 0,
    height: int | None = None,  # pixels, divisible by 8 in v1-4 and ours; None: what the model was trained for
    width: int | None = None,  # as height
    **hooks,  # progress and watch, as for `denoise`
) -> Tensor:  # b c h w, pictures, -1 .. 1
    """The whole of Stable Diffusion: encode the prompts, start from noise, denoise, decode.

    Above guidance 1, the picture is that of `StableDiffusionPipeline`. At 1 and below, the pipeline leaves out the
    empty prompt and draws as at 1; here, 0 ignores the prompt. Raises ValueError for settings that cannot work.
    """
    tokenizer, text_encoder, vae, unet, scheduler = model
    prompts = [prompts] if isinstance(prompts, str) else prompts
    side, factor = native_size(model)
    height, width = (side if x is None else x for x in (height, width))
    check_prompts(prompts, negative)
    check_settings(steps, guidance_scale, seed, height, width, factor)
    generator = torch.Generator().manual_seed(seed)
    text, empty = (encode_prompts(tokenizer, text_encoder, x) for x in (prompts, [negative] * len(prompts)))
    scheduler = prepare_scheduler(scheduler, steps, generator)
    latents = initial_latents(unet, scheduler, len(prompts), generator, height // factor, width // factor)
    pictures = decode_latents(vae, denoise(unet, scheduler, latents, empty, text, guidance_scale, **hooks))
    if pictures.isnan().any():
        raise ValueError("the picture is not a number (NaN): the model's weights or settings are damaged")
    return pictures
