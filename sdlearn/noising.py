"""Lesson 3: the noise schedule and the forward process.

The letters are the paper's (DDPM, arXiv 2006.11239): x0 a clean latent, x_t the same at step t,
eps the noise, beta_t the variance added at step t, alpha_bar_t the fraction of the signal's variance that is left.
"""

import torch
from torch import Tensor

from sdlearn.shapes import check_shape, check_steps


def scaled_linear_betas(
    steps: int = 1000,
    first: float = 0.00085,  # the variance that step 0 adds
    last: float = 0.012,  # and the last step
) -> Tensor:  # steps, rising
    """Stable Diffusion's schedule: the square roots of the betas rise linearly."""
    return torch.linspace(first**0.5, last**0.5, steps) ** 2


def linear_betas(
    steps: int = 1000,
    first: float = 0.0001,  # the variance that step 0 adds
    last: float = 0.02,  # and the last step
) -> Tensor:  # steps, rising
    """DDPM's schedule: the betas themselves rise linearly (DDPM section 4)."""
    return torch.linspace(first, last, steps)


def alpha_bar(
    betas: Tensor,  # steps
) -> Tensor:  # steps, falling from about 1 to about 0
    """alpha_bar_t = product over s <= t of (1 - beta_s) (DDPM eq. 4)."""
    return torch.cumprod(1 - betas, 0)


class Schedule:
    """A noise schedule: how much of x0 and how much noise is in x_t, at each step.

    The two factors are the square roots of alpha_bar_t and 1 - alpha_bar_t. A schedule with other factors,
    such as the straight path of flow matching, overrides `factors`.
    """

    def __init__(
        self,
        betas: Tensor,  # steps
    ):
        self.betas, self.alpha_bar = betas, alpha_bar(betas)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def alpha_bar_at(
        self,
        t: Tensor,  # b, integer steps, 0 .. len(self) - 1
        x: Tensor,  # b c h w, what alpha_bar is looked up for
    ) -> Tensor:  # b 1 1 1, alpha_bar of each picture's own step
        """Look up alpha_bar for each picture.

        Raises ValueError if `t` is not one number per picture: (b, 1) would broadcast
        without complaint and mix pictures with one another's noise.
        """
        check_steps(t, len(x), len(self))
        return self.alpha_bar.to(x.device)[t][:, None, None, None]

    def factors(
        self,
        t: Tensor,  # b, integer steps, 0 .. len(self) - 1
        x: Tensor,  # b c h w, what they are looked up for
    ) -> tuple[Tensor, Tensor]:  # b 1 1 1 each, in the precision of x: of x0 and of the noise
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t)."""
        a = self.alpha_bar_at(t, x)
        return a.sqrt().to(x.dtype), (1 - a).sqrt().to(x.dtype)


STABLE_DIFFUSION = Schedule(scaled_linear_betas())  # the default of all functions below


def one_step(
    x: Tensor,  # b c h w, at step t - 1
    beta: float | Tensor,  # variance of the noise that step t adds
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
) -> Tensor:  # b c h w, at step t
    """One small step into the noise: x_t = sqrt(1 - beta_t) x_(t-1) + sqrt(beta_t) eps (DDPM eq. 2)."""
    check_shape(eps, "eps", *x.shape)
    beta = torch.as_tensor(beta)
    return (1 - beta).sqrt() * x + beta.sqrt() * eps


def q_sample(
    x0: Tensor,  # b c h w, clean latents
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
    schedule: Schedule = STABLE_DIFFUSION,
) -> Tensor:  # b c h w, latents at step t
    """Jump straight to step t: x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps (DDPM eq. 4)."""
    check_shape(eps, "eps", *x0.shape)
    signal, noise = schedule.factors(t, eps)
    return signal * x0 + noise * eps


def predict_x0(
    x_t: Tensor,  # b c h w, latents at step t
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, the noise in x_t, known or predicted
    schedule: Schedule = STABLE_DIFFUSION,
) -> Tensor:  # b c h w, estimate of the clean latents
    """Solve q_sample for x0: (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) (DDPM eq. 15)."""
    check_shape(eps, "eps", *x_t.shape)
    signal, noise = schedule.factors(t, x_t)
    return (x_t - noise * eps) / signal


def snr(
    t: Tensor,  # any shape, integer steps, 0 .. 999
    schedule: Schedule = STABLE_DIFFUSION,
) -> Tensor:  # as t, above 0
    """Signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t) (arXiv 2107.00630, section 3.1)."""
    check_steps(t.flatten(), t.numel(), len(schedule))
    a = schedule.alpha_bar.to(t.device)[t]
    return a / (1 - a)


def score(
    t: Tensor,  # b, integer steps, 0 .. 999
    eps: Tensor,  # b c h w, the noise in x_t
    schedule: Schedule = STABLE_DIFFUSION,
) -> Tensor:  # b c h w
    """The gradient of log q(x_t | x0), the noise up to a factor: -eps / sqrt(1 - alpha_bar_t) (arXiv 2011.13456)."""
    _, noise = schedule.factors(t, eps)
    return -eps / noise
