"""Lesson 4: the noise predictor, its loss, and a look at its attention."""

import math
from threading import get_ident

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from sdlearn.shapes import check_shape


def new_unet(
    size: int = 8,  # height and width of the latents
    latent_channels: int = 4,
    text_width: int = 128,  # numbers per token
    widths: tuple[int, ...] = (128, 144),  # channels at full size and at half of it
) -> UNet2DConditionModel:  # 7.7 M parameters, with random weights
    """A small `UNet2DConditionModel` with attention in every block."""
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        cross_attention_dim=text_width,
        attention_head_dim=4,  # the number of heads, despite its name, which diffusers keeps for old files
    )


def time_embedding(
    t: Tensor,  # b, steps
    width: int,  # even
) -> Tensor:  # b d, cosines first, then sines
    """Encode a number as waves: cos(t w_i), sin(t w_i), w_i = 10000^(-i / (d/2)) (arXiv 1706.03762, section 3.5)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def attention(
    q: Tensor,  # b l d, queries: what each position looks for
    k: Tensor,  # b m d, keys: what each word can be found by
    v: Tensor,  # b m d, values: what each word passes on
    heads: int = 1,  # d is split evenly among them
) -> tuple[Tensor, Tensor]:  # b l d, what each position gathered; b heads l m, the weights
    """softmax(q k^T / sqrt(d)) v, in each head separately (arXiv 1706.03762, eq. 1)."""
    check_shape(k, "k", len(q), "m", q.shape[-1])
    check_shape(v, "v", *k.shape)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # b heads l d/heads
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2), weights


def drop_captions(
    text: Tensor,  # b l d, encoded captions
    empty: Tensor,  # 1 l d, the encoded empty prompt
    drop: Tensor,  # b, True where the caption is dropped
) -> Tensor:  # b l d
    """Replace some captions with the empty prompt, so that it comes to mean "any picture" (arXiv 2207.12598)."""
    check_shape(empty, "empty", 1, *text.shape[1:])
    check_shape(drop, "drop", len(text))
    return torch.where(drop[:, None, None], empty, text)


def diffusion_loss(
    unet: UNet2DConditionModel,
    x_t: Tensor,  # b c h w, noisy latents
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, the noise in x_t: what the U-Net has to predict
    text: Tensor,  # b l d, encoded captions
) -> Tensor:  # scalar
    """Mean squared error of the prediction: |eps - eps_theta(x_t, t, text)|^2 (DDPM eq. 14)."""
    check_shape(eps, "eps", *x_t.shape)
    return F.mse_loss(unet(x_t, t, encoder_hidden_states=text).sample, eps)


class AttentionMaps:
    """While in use (`with AttentionMaps(unet) as maps:`), keeps the weights of every cross-attention of a U-Net.

    The fused attention of diffusers returns no weights, so each `attn2` is computed by `attention` instead.
    """

    def __init__(self, unet: UNet2DConditionModel):
        self.unet, self.before, self.maps = unet, unet.attn_processors, {}
        self.thread = get_ident()  # a widget may draw with the same U-Net in another thread

    def __enter__(self) -> dict[str, list[Tensor]]:  # layer -> one tensor per call, b heads positions words
        here = {}
        for name, processor in self.before.items():
            here[name] = self._recorder(name.removesuffix(".processor")) if "attn2" in name else processor
        self.unet.set_attn_processor(here)
        return self.maps

    def __exit__(self, *_):
        self.unet.set_attn_processor(self.before)

    def _recorder(self, name):
        def process(attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
            q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
            out, weights = attention(q, k, v, attn.heads)
            if get_ident() == self.thread:
                self.maps.setdefault(name, []).append(weights)
            return attn.to_out[1](attn.to_out[0](out))

        return process
