"""Lesson 3: the noise schedule and the forward process.

The letters are the paper's (DDPM, arXiv 2006.11239): x0 a clean latent, x_t the same at step t,
eps the noise, beta_t the variance added at step t, alpha_bar_t what is left of the signal's variance.
"""

import torch
from torch import Tensor

STEPS = 1000  # Stable Diffusion's
BETAS = (0.00085, 0.012)  # first and last, Stable Diffusion's; DDPM has 0.0001 and 0.02


def scaled_linear_betas(
    steps: int = STEPS,
    first: float = BETAS[0],
    last: float = BETAS[1],
) -> Tensor:  # steps, rising
    """Stable Diffusion's schedule: the square roots of the betas rise linearly."""
    return torch.linspace(first**0.5, last**0.5, steps) ** 2


def linear_betas(
    steps: int = STEPS,
    first: float = 0.0001,
    last: float = 0.02,
) -> Tensor:  # steps, rising
    """DDPM's schedule: the betas themselves rise linearly (DDPM section 4)."""
    return torch.linspace(first, last, steps)


def alpha_bar(
    betas: Tensor,  # steps
) -> Tensor:  # steps, falling from about 1 to about 0
    """alpha_bar_t = product over s <= t of (1 - beta_s) (DDPM eq. 4)."""
    return torch.cumprod(1 - betas, 0)


ALPHA_BAR = alpha_bar(scaled_linear_betas())


def at(
    t: Tensor,  # b, integer steps, 0 .. 999
    x: Tensor,  # b c h w, what alpha_bar is looked up for
) -> Tensor:  # b 1 1 1, alpha_bar of each picture's own step
    """Look up alpha_bar for each picture.

    Raises ValueError if `t` is not one number per picture: (b, 1) would broadcast
    without complaint and mix pictures with one another's noise.
    """
    if t.shape != x.shape[:1]:
        raise ValueError(f"t must have shape ({len(x)},), one step per picture; got {tuple(t.shape)}")
    return ALPHA_BAR.to(x.device)[t][:, None, None, None]


def one_step(
    x: Tensor,  # b c h w, at step t - 1
    beta: float | Tensor,  # variance of the noise that step t adds
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
) -> Tensor:  # b c h w, at step t
    """One small step into the noise: x_t = sqrt(1 - beta_t) x_(t-1) + sqrt(beta_t) eps (DDPM eq. 2)."""
    beta = torch.as_tensor(beta)
    return (1 - beta).sqrt() * x + beta.sqrt() * eps


def q_sample(
    x0: Tensor,  # b c h w, clean latents
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
) -> Tensor:  # b c h w, latents at step t
    """Jump straight to step t: x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps (DDPM eq. 4)."""
    a = at(t, x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def predict_x0(
    x_t: Tensor,  # b c h w, latents at step t
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, the noise in x_t, known or predicted
) -> Tensor:  # b c h w, estimate of the clean latents
    """Solve q_sample for x0: (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) (DDPM eq. 15)."""
    a = at(t, x_t)
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


def snr(
    t: Tensor,  # b, integer steps, 0 .. 999
) -> Tensor:  # b, above 0
    """Signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t) (arXiv 2107.00630, section 3.1)."""
    a = ALPHA_BAR.to(t.device)[t]
    return a / (1 - a)


def score(
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, the noise in x_t
) -> Tensor:  # b c h w
    """The gradient of log q(x_t | x0), the noise up to a factor: -eps / sqrt(1 - alpha_bar_t) (arXiv 2011.13456)."""
    return -eps / (1 - at(t, eps)).sqrt()
