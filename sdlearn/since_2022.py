"""Lesson 9: what came after 2022: straight paths, few steps, and a transformer in place of the U-Net.

x0 is a clean latent, eps noise from N(0, 1), t the time, 0 at x0 and 1 at eps, v = eps - x0 the line's velocity.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from torch import Tensor, nn

from sdlearn.sampling import guide
from sdlearn.shapes import check_shape
from sdlearn.unet import attention

LEVELS = 1000  # at time t a network is given 1000 t, as by diffusers' own flow schedulers
Velocity = Callable[[Tensor, Tensor], Tensor]  # x_t b c h w, t b -> v b c h w


def on_line(
    x0: Tensor,  # b c h w, clean latents
    t: Tensor,  # b, times, 0 .. 1
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
) -> Tensor:  # b c h w, the latents at time t
    """The straight line from picture to noise: x_t = (1 - t) x0 + t eps (arXiv 2403.03206, eq. 13)."""
    check_shape(eps, "eps", *x0.shape)
    check_shape(t, "t", len(x0), why=", one time per picture")
    t = t[:, None, None, None]  # b 1 1 1
    return (1 - t) * x0 + t * eps


def end_of_line(
    x_t: Tensor,  # b c h w, latents at time t
    t: Tensor,  # b, times, 0 .. 1
    v: Tensor,  # b c h w, the velocity there, known or predicted
) -> Tensor:  # b c h w, estimate of the clean latents
    """Follow the velocity back to time 0 in one step: x0 = x_t - t v."""
    check_shape(v, "v", *x_t.shape)
    check_shape(t, "t", len(x_t), why=", one time per picture")
    return x_t - t[:, None, None, None] * v


def logit_normal_times(
    n: int,
    generator: torch.Generator,
) -> Tensor:  # n, 0 .. 1, most of them near 1/2
    """Times for training, logit-normal: the sigmoid of a number from N(0, 1) (arXiv 2403.03206, eq. 19)."""
    return torch.randn(n, generator=generator).sigmoid()


def flow_loss(
    net: nn.Module,  # a U-Net, or another that is called like one
    x_t: Tensor,  # b c h w, latents at time t
    t: Tensor,  # b, times, 0 .. 1
    v: Tensor,  # b c h w, eps - x0: what the network has to predict
    text: Tensor,  # b l d, encoded captions
) -> Tensor:  # scalar
    """Mean squared error of the predicted velocity: |v - v_theta(x_t, t, text)|^2 (arXiv 2210.02747, eq. 23)."""
    check_shape(v, "v", *x_t.shape)
    return F.mse_loss(velocity(net, text)(x_t, t), v)


def velocity(
    net: nn.Module,  # a U-Net, or another that is called like one
    text: Tensor,  # b l d, encoded captions
) -> Velocity:
    """The velocity that a network predicts for these captions."""
    return lambda x_t, t: net(x_t, LEVELS * t, encoder_hidden_states=text).sample


def guided(
    v_empty: Velocity,  # for the empty prompts
    v_text: Velocity,  # for the prompts
    guidance_scale: float,
) -> Velocity:
    """Classifier-free guidance, as for noise: v_empty + s (v_text - v_empty)."""
    return lambda x_t, t: guide(v_empty(x_t, t), v_text(x_t, t), guidance_scale)


@torch.no_grad()
def euler(
    v: Velocity,
    noise: Tensor,  # b c h w, where the paths begin
    steps: int,
) -> Tensor:  # steps + 1, b c h w: the latents at each time; the last are clean
    """Follow a velocity from t = 1 to t = 0 in equal steps: x + (t_next - t) v(x, t)."""
    path = [noise]
    for t, t_next in pairwise(torch.linspace(1, 0, steps + 1, device=noise.device)):
        path.append(path[-1] + (t_next - t) * v(path[-1], t.expand(len(noise))))
    return torch.stack(path)


def bend(
    path: Tensor,  # moments b c h w, from `euler`
) -> Tensor:  # scalar, 1 or more
    """Tortuosity: the length of all paths over that of the straight lines between their ends; 1 if all are straight."""
    walked = path.diff(dim=0).flatten(2).norm(dim=-1)  # moments - 1, b
    return walked.sum() / (path[-1] - path[0]).flatten(1).norm(dim=-1).sum()


def flow_scheduler() -> DPMSolverMultistepScheduler:  # it takes the steps of `euler`
    """DPM-Solver++ of first order on straight lines: with it a flow model is a `StableDiffusionPipeline`."""
    flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True, steps_offset=1)  # the pipeline wants 1
    return DPMSolverMultistepScheduler(**flow, solver_order=1)


# ---------------------------------------------------------------- transformers


def modulate(
    x: Tensor,  # b l d
    shift: Tensor,  # b d
    scale: Tensor,  # b d
) -> Tensor:  # b l d
    """LayerNorm, then scale and shift that depend on the condition: norm(x) (1 + scale) + shift (arXiv 2212.09748)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def dit_block(
    block: BasicTransformerBlock,  # with `norm_type="ada_norm_zero"`, for its layers
    x: Tensor,  # b l d, the positions of a latent in a row
    c: Tensor,  # b d, the condition: time and class, embedded
) -> Tensor:  # b l d
    """A transformer block with adaLN-zero: x + gate * layer(modulate(x)), twice (arXiv 2212.09748, figure 3)."""
    shift, scale, gate, shift_ff, scale_ff, gate_ff = block.norm1.linear(F.silu(c)).chunk(6, -1)  # b d each
    attn, h = block.attn1, modulate(x, shift, scale)
    mixed, _ = attention(attn.to_q(h), attn.to_k(h), attn.to_v(h), attn.heads)
    x = x + gate[:, None] * attn.to_out[0](mixed)
    return x + gate_ff[:, None] * block.ff(modulate(x, shift_ff, scale_ff))


def joint_block(
    block: JointTransformerBlock,  # for its layers
    image: Tensor,  # b l d, the positions of a latent in a row
    text: Tensor,  # b m d, the tokens of a prompt
    c: Tensor,  # b d, the condition: time and the whole prompt, embedded
) -> tuple[Tensor, Tensor]:  # b l d, b m d
    """Picture and text, each with its own weights, in one attention (MMDiT, arXiv 2403.03206, figure 2b)."""
    a, n = block.attn, image.shape[1]
    ours, theirs = (norm.linear(F.silu(c)).chunk(6, -1) for norm in (block.norm1, block.norm1_context))
    h, w = modulate(image, *ours[:2]), modulate(text, *theirs[:2])
    layers = (a.to_q, a.add_q_proj), (a.to_k, a.add_k_proj), (a.to_v, a.add_v_proj)
    mixed, _ = attention(*(torch.cat([of_h(h), of_w(w)], 1) for of_h, of_w in layers), a.heads)  # b l+m d
    image = image + ours[2][:, None] * a.to_out[0](mixed[:, :n])
    text = text + theirs[2][:, None] * a.to_add_out(mixed[:, n:])
    image = image + ours[5][:, None] * block.ff(modulate(image, *ours[3:5]))
    return image, text + theirs[5][:, None] * block.ff_context(modulate(text, *theirs[3:5]))
