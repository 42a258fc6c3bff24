"""Lesson 6: editing pictures with frozen weights.

A path is a list of noise levels; a predictor gives the noise in latents at a level.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.noising import STABLE_DIFFUSION, q_sample
from sdlearn.sampling import ddim_step, guide
from sdlearn.shapes import check_shape
from sdlearn.unet import attention

Predictor = Callable[[Tensor, int], Tensor]  # latents b c h w, their level -> noise b c h w
ALPHA_BAR = STABLE_DIFFUSION.alpha_bar


def levels(
    steps: int = 20,  # of DDIM, at strength 1: 1 to 999
    strength: float = 1.0,  # the fraction of the steps to take: above 0, up to 1
) -> list[int]:  # falling; the last is 0, clean
    """DDIM's levels with Stable Diffusion's spacing, the last few below strength 1; raises ValueError for others."""
    keep = int(steps * strength)
    if not 1 <= keep <= steps < 1000:
        raise ValueError(f"steps must lie below 1000, and strength leave 1 to {steps} of them; got {steps}, {strength}")
    return [i * (1000 // steps) + 1 for i in reversed(range(keep))] + [0]


def predictor(
    unet,
    text: Tensor,  # b l d, encoded prompts
) -> Predictor:
    """The U-Net with its prompts filled in."""
    return lambda x_t, t: unet(x_t, t, encoder_hidden_states=text).sample


def guided(
    weak: Predictor,  # for the empty or the negative prompt, or of a worse model
    strong: Predictor,
    guidance_scale: float,
) -> Predictor:
    """Guidance: from the weak prediction towards the strong one, and beyond."""
    return lambda x_t, t: guide(weak(x_t, t), strong(x_t, t), guidance_scale)


def all_of(
    eps_empty: Tensor,  # b c h w, noise predicted for the empty prompt
    eps_parts: list[Tensor],  # b c h w each, predicted for the prompts
    guidance_scale: float,
) -> Tensor:  # b c h w
    """Guidance towards several prompts at once: eps_empty + s sum_i (eps_i - eps_empty) (arXiv 2206.01714)."""
    check_shape(torch.stack(eps_parts), "eps_parts", "n", *eps_empty.shape)
    return eps_empty + guidance_scale * sum(eps - eps_empty for eps in eps_parts)


def follow(
    predict: Predictor,
    latents: Tensor,  # b c h w, at the first level of the path
    path: list[int],  # falling: from noise to a picture; rising: from a picture to noise
    after: Callable[[Tensor, int], Tensor] = lambda latents, t: latents,  # changes what arrives at a level
) -> Tensor:  # b c h w, at the last level
    """Take DDIM's step from each level to the next (arXiv 2010.02502, eq. 12 without fresh noise)."""
    for t, t_next in pairwise(path):
        latents = after(ddim_step(latents, predict(latents, t), ALPHA_BAR[t], ALPHA_BAR[t_next]), t_next)
    return latents


def image_to_image(
    predict: Predictor,
    x0: Tensor,  # b c h w, the picture's latents
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
    path: list[int],  # from `levels`: its first level says how much noise is added
) -> Tensor:  # b c h w, clean latents
    """Start from a noisy picture instead of noise alone (SDEdit, arXiv 2108.01073)."""
    t = torch.full((len(x0),), path[0], device=x0.device)
    return follow(predict, q_sample(x0, t, eps), path)


def keep_outside(
    latents: Tensor,  # b c h w, at level t
    t: int,  # a level; 0, the end of a path, is clean
    x0: Tensor,  # b c h w, the picture's latents
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
    mask: Tensor,  # b 1 h w: 1 where the picture is drawn anew, 0 where it stays
) -> Tensor:  # b c h w, at level t
    """Outside the mask, put back the picture with level t's noise (arXiv 2201.09865, eq. 8)."""
    check_shape(mask, "mask", len(x0), 1, *x0.shape[2:])
    picture = q_sample(x0, torch.full((len(x0),), t, device=x0.device), eps) if t else x0
    return mask * latents + (1 - mask) * picture


def follow_the_first(
    attn,  # one of the U-Net's attention layers
    hidden_states: Tensor,  # b l d, the positions
    encoder_hidden_states: Tensor | None = None,  # b m d, the words; None: self-attention
    **_,  # what else diffusers passes
) -> Tensor:  # b l d
    """Attention in which the second half of a batch uses the weights of the first half, with its own values."""
    words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    q, k = (x.chunk(2)[0].repeat(2, 1, 1) for x in (attn.to_q(hidden_states), attn.to_k(words)))
    return attn.to_out[1](attn.to_out[0](attention(q, k, attn.to_v(words), attn.heads)[0]))


@contextmanager
def injected(
    unet,
    *kinds: str,  # "attn1": self-attention; "attn2": cross-attention
) -> Generator[None]:
    """While in use, the second half of a batch attends as the first half does (prompt to prompt, arXiv 2208.01626)."""
    if not {*kinds} <= {"attn1", "attn2"}:
        raise ValueError(f'kinds must be "attn1", "attn2" or both; got {kinds}')
    before = unet.attn_processors
    unet.set_attn_processor({n: follow_the_first if n.split(".")[-2] in kinds else p for n, p in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def edges(
    pictures: Tensor,  # b 3 h w, -1 .. 1
) -> Tensor:  # b 1 h w, 0 or 1
    """Where brightness changes by more than a sixth of its range within 3 x 3 pixels."""
    grey = pictures.mean(1, keepdim=True)
    return (F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1) > 1 / 3).float()


def new_adapter(
    channels: int,  # of the output of the U-Net's `conv_in`
) -> nn.Sequential:  # edges b 1 8h 8w -> b channels h w, all zero before training
    """Fold 8 x 8 pixels into channels, then three convolutions, the last one zero (as ControlNet, arXiv 2302.05543)."""
    convs = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((64, 96, 96, channels))]
    for weights in convs[-1].parameters():
        nn.init.zeros_(weights)
    return nn.Sequential(nn.PixelUnshuffle(8), convs[0], nn.SiLU(), convs[1], nn.SiLU(), convs[2])


@contextmanager
def steered(
    unet,
    push: Tensor,  # b c h w, the output of an adapter
) -> Generator[None]:
    """While in use, `push` is added to the output of the U-Net's first convolution."""
    with unet.conv_in.register_forward_hook(lambda module, given, out: out + push):  # removed at the end
        yield
