"""Lesson 2: the autoencoder, from pictures to latents and back.

The letters are the paper's (Kingma and Welling, arXiv 1312.6114): x a picture, z a latent,
mu and sigma the mean and standard deviation of the normal distribution that the encoder predicts for z, eps the noise.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdlearn.shapes import check_pictures, check_shape


def new_vae(
    size: int = 64,  # pixels a side, divisible by 8
    latent_channels: int = 4,
    widths: tuple[int, ...] = (16, 32, 80, 112),  # channels at full size, at a half, a quarter and an eighth of it
) -> AutoencoderKL:  # 2.4 M parameters, with random weights
    """A small `AutoencoderKL`: 3 x 64 x 64 to 4 x 8 x 8, the same factor of 48 as Stable Diffusion."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=size,
    )


def reparameterise(
    mu: Tensor,  # b c h w, means
    sigma: Tensor,  # b c h w, standard deviations
    eps: Tensor,  # b c h w, drawn by the caller from N(0, 1)
) -> Tensor:  # b c h w, a sample through which gradients flow
    """z = mu + sigma eps (arXiv 1312.6114, section 2.4)."""
    check_shape(sigma, "sigma", *mu.shape)
    check_shape(eps, "eps", *mu.shape)
    return mu + sigma * eps


def kl_divergence(
    mu: Tensor,  # b c h w, means
    sigma: Tensor,  # b c h w, standard deviations, above 0
) -> Tensor:  # b, in nats, summed over a latent
    """KL(N(mu, sigma^2) || N(0, 1)) = 1/2 sum(mu^2 + sigma^2 - 1 - log sigma^2) (arXiv 1312.6114, appendix B)."""
    check_shape(sigma, "sigma", *mu.shape)
    return 0.5 * (mu**2 + sigma**2 - 1 - (sigma**2).log()).flatten(1).sum(1)


def vae_loss(
    vae: AutoencoderKL,
    x: Tensor,  # b c h w, pictures, -1 .. 1
    eps: Tensor,  # b c h w, noise in the shape of the latents, drawn by the caller
) -> Tensor:  # scalar
    """How far the reconstruction is from the picture, and a little KL: 0.5 L1 + 2 MSE + 1e-6 KL.

    L1 keeps edges, MSE keeps colours. Stable Diffusion's KL has the weight 1e-6 too (arXiv 2112.10752,
    appendix G), but is added to a sum over the picture, ours to a mean, so ours is stronger.
    """
    posterior = vae.encode(x).latent_dist
    z = reparameterise(posterior.mean, posterior.std, eps)
    error = vae.decode(z).sample - x
    kl = kl_divergence(posterior.mean, posterior.std).mean()
    return 0.5 * error.abs().mean() + 2 * error.square().mean() + 1e-6 * kl


@torch.no_grad()
def encode(
    vae: AutoencoderKL,
    pictures: Tensor,  # b c h w, -1 .. 1
    batch: int = 64,  # pictures at a time, to save memory
) -> Tensor:  # b c h/8 w/8, scaled latents: standard deviation about 1
    """Pictures to latents: the encoder's mean, times the scale factor."""
    check_pictures(pictures, 2 ** (len(vae.config.block_out_channels) - 1))
    means = [vae.encode(x).latent_dist.mean for x in pictures.to(vae.device, vae.dtype).split(batch)]
    return torch.cat(means) * vae.config.scaling_factor


@torch.no_grad()
def decode(
    vae: AutoencoderKL,
    latents: Tensor,  # b c h w, scaled
    batch: int = 64,  # latents at a time, to save memory
) -> Tensor:  # b c 8h 8w, about -1 .. 1
    """Latents to pictures: undo the scale factor, then decode."""
    check_shape(latents, "latents", "b", vae.config.latent_channels, "h", "w")
    latents = (latents / vae.config.scaling_factor).to(vae.device, vae.dtype)
    return torch.cat([vae.decode(z).sample for z in latents.split(batch)])


def scale_factor(
    means: Tensor,  # b c h w, the encoder's means, not scaled
) -> float:  # what brings the latents' standard deviation to 1
    """1 / standard deviation of the latents: where Stable Diffusion's 0.18215 comes from (arXiv 2112.10752, app. G)."""
    return float(1 / means.std())


def psnr(
    x: Tensor,  # b c h w, -1 .. 1
    y: Tensor,  # b c h w, -1 .. 1
) -> float:  # decibels: half the mean square error gives 3 more, half the error 6
    """Peak signal-to-noise ratio, 10 log10(range^2 / MSE), averaged over the pictures.

    torchmetrics has it too, but takes seconds to import, and gives infinity for equal pictures.
    """
    check_shape(y, "y", *x.shape)
    mse = (x - y).square().flatten(1).mean(1).clamp(min=1e-10)
    return float((10 * torch.log10(4 / mse)).mean())  # the range is 2, from -1 to 1
