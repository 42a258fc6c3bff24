"""The checks of lesson 2."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from sdlearn import parts, scenes
from sdlearn.notebook.checks import Hints, compare, exercise
from sdlearn.vae import decode, encode, new_vae, psnr


@exercise("2.1")
def check_reconstruct(
    my_reconstruct: Callable,  # vae, pictures -> pictures
) -> Hints:
    """There and back, on a small VAE with random weights."""
    torch.manual_seed(20)
    vae = new_vae().eval().requires_grad_(False)
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(20)) * 2 - 1
    posterior = vae.encode(pictures).latent_dist
    torch.manual_seed(21)  # so that a sample of the latents can be told from a mistake
    got = my_reconstruct(vae=vae, pictures=pictures)
    if isinstance(getattr(got, "sample", None), Tensor):
        yield "that is an object around the pictures: take its `.sample`"
    if isinstance(got, Tensor) and got.shape == posterior.mean.shape:
        yield "these are the latents: decode them, `vae.decode(latents).sample`"
    divided, scaled = decode(vae, posterior.mean), vae.decode(encode(vae, pictures)).sample
    torch.manual_seed(21)
    wrong = {
        "a random sample of the latents was decoded: take the `.mean`": vae.decode(posterior.sample()).sample,
        "these are the pictures that went in: encode them, then decode the latents": pictures,
        "`decode` of sdlearn.vae undoes a scale factor that the mean does not have: use `vae.decode`": divided,
        "the latents were multiplied by the scale factor (so does `encode` of sdlearn.vae): use `vae.encode`": scaled,
    }
    yield compare(got, vae.decode(posterior.mean).sample, wrong, atol=1e-4)


@exercise("2.2")
def check_psnr(
    my_psnr: Callable,  # x, y -> b, decibels
) -> Hints:
    """Decibels for each picture."""
    generator = torch.Generator().manual_seed(22)
    x = torch.rand(3, 3, 6, 4, generator=generator) * 2 - 1
    strength = torch.tensor([0.05, 0.2, 0.8])[:, None, None, None]  # pictures of different quality
    y = x + strength * torch.randn(x.shape, generator=generator)
    got = my_psnr(x=x, y=y)
    if isinstance(got, Tensor) and got.shape == ():
        yield "one number for all: flatten each picture, and take the mean over dimension 1 only"
    mse = (x - y).square().flatten(1).mean(1)
    wrong = {
        "the range is 2, not 1: from -1 to 1": 10 * (1 / mse).log10(),
        "the range is to be squared: 4, not 2": 10 * (2 / mse).log10(),
        "use the logarithm to base 10: `torch.log10`": 10 * (4 / mse).log(),
        "upside down: a better picture must have more decibels": 10 * (mse / 4).log10(),
        "10 log10, not 20: the error is squared already": 20 * (4 / mse).log10(),
        "multiply the logarithm by 10: decibels, not bels": (4 / mse).log10(),
        "no root: it is the mean of the squares": 10 * (4 / mse.sqrt()).log10(),
        "square the differences: these are absolute ones": 10 * (4 / (x - y).abs().flatten(1).mean(1)).log10(),
        "the mean of the squares, not their sum": 10 * (4 / (x - y).square().flatten(1).sum(1)).log10(),
    }
    yield compare(got, 10 * (4 / mse).log10(), wrong, atol=1e-3)


@exercise("2.3")
def check_posterior(
    my_sample_posterior: Callable,  # moments, eps -> latents
) -> Hints:
    """From the eight channels of an encoder to a latent."""
    generator = torch.Generator().manual_seed(21)
    moments, eps = torch.randn(2, 8, 3, 5, generator=generator), torch.randn(2, 4, 3, 5, generator=generator)
    mu, log_var = moments.chunk(2, dim=1)
    got = my_sample_posterior(moments=moments, eps=eps)
    if isinstance(got, Tensor) and got.shape == moments.shape:
        yield "8 channels came back: split them, the first four are mu"
    if isinstance(got, Tensor) and torch.equal(got.isnan(), log_var < 0):
        yield "a logarithm may be negative, and has no root then: first the exponential, then the root"
    wrong = {
        "that is mu alone: add sigma times eps": mu,
        "the second half is a logarithm: take its exponential": mu + log_var * eps,
        "exp(log_var) is the variance, and sigma is its root": mu + log_var.exp() * eps,
        "sigma is exp(log_var / 2), not exp(log_var) / 2": mu + log_var.exp() / 2 * eps,
        "the means come first, the logarithms second: yours are swapped": log_var + (mu / 2).exp() * eps,
        "the means are channels 0 to 3, the logarithms 4 to 7: yours are every second one": moments[:, ::2]
        + (moments[:, 1::2] / 2).exp() * eps,
        "only the noise is multiplied by sigma, and mu is added": (mu + eps) * (log_var / 2).exp(),
        "add the noise to mu: yours is sigma eps alone": (log_var / 2).exp() * eps,
        "the noise is missing: multiply sigma by eps": mu + (log_var / 2).exp(),
    }
    hint = compare(got, mu + (log_var / 2).exp() * eps, wrong)
    again = my_sample_posterior(moments=moments, eps=eps) if hint and isinstance(got, Tensor) else None
    if again is not None and not torch.allclose(got, again, equal_nan=True):
        yield "two calls with the same eps differ: use the eps that you are given, and draw none"
    yield hint


@exercise("2.4", latents="your function changes the latents: work on `latents.clone()`, anew for each channel")
def check_damage(
    my_damage: Callable,  # vae, latents -> c
) -> Hints:
    """What each channel of the latents is worth to the pictures, on a small VAE with random weights."""
    torch.manual_seed(23)
    vae = new_vae().eval().requires_grad_(False)
    latents = torch.randn(3, 4, 2, 4, generator=torch.Generator().manual_seed(23))
    gone = [latents * (torch.arange(4) != c)[:, None, None] for c in range(4)]  # without channel c
    so_far = [latents * (torch.arange(4) > c)[:, None, None] for c in range(4)]
    alone = [latents * (torch.arange(4) == c)[:, None, None] for c in range(4)]
    whole = decode(vae, latents)

    def damage(variants, of=lambda x: (x - whole).square().mean()):
        return lambda: torch.stack([of(decode(vae, x)) for x in variants])

    got = my_damage(vae=vae, latents=latents)
    if isinstance(got, Tensor) and got.shape == (3,):
        yield "one number for each picture: channels are dimension 1, latents[:, c]"
    factor = vae.config.scaling_factor
    unscaled = decode(vae, factor * latents)
    wrong = {
        "each channel is to be zeroed alone: begin again from a clone of the whole latents": damage(so_far),
        "you kept one channel and zeroed the others: do it the other way round": damage(alone),
        "compare the pictures, not the latents: decode both": torch.stack(
            [(latents - x).square().mean() for x in gone]
        ),
        "the latents are scaled: `decode(vae, latents)` of sdlearn.vae undoes that": damage(
            [factor * x for x in gone], lambda x: (x - unscaled).square().mean()
        ),
        "square the differences: these are absolute ones": damage(gone, lambda x: (x - whole).abs().mean()),
        "the mean of the squares, not their sum": damage(gone, lambda x: (x - whole).square().sum()),
        "no root: it is the mean of the squares": damage(gone, lambda x: (x - whole).square().mean().sqrt()),
    }
    want = damage(gone)()
    yield compare(got, want, wrong, atol=1e-4 * want.min().item())


def arc(
    a: Tensor,  # b c h w
    b: Tensor,  # b c h w
    w: float,  # how much of the way
    dims: tuple[int, ...] = (1, 2, 3),  # what counts as one arrow
    angle_of: Callable[[Tensor], Tensor] = torch.acos,  # from the cosine
) -> Tensor:  # b c h w
    """Slerp, or what comes of it with the wrong vectors or angles."""
    angle = angle_of((a * b).sum(dims, True) / (a.square().sum(dims, True) * b.square().sum(dims, True)).sqrt())
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


@exercise("2.5")
def check_slerp(
    my_slerp: Callable,  # a, b, w -> latents
) -> Hints:
    """Along the arc between two latents, and straight on where there is none."""
    generator, w = torch.Generator().manual_seed(24), 0.3
    a, b = torch.randn(2, 3, 4, 2, 8, generator=generator)
    b = b * torch.tensor([0.5, 1, 2])[:, None, None, None]  # arrows need not be equally long
    got = my_slerp(a=a, b=b, w=w)
    if isinstance(got, Tensor) and not (got.abs() < 1000).all():  # divided by the sine of 0 or of pi
        yield "nan or huge: a cosine lies between -1 and 1, so divide a . b by both lengths before `acos`"
    if isinstance(got, Tensor) and got.shape == (3, 64):
        yield "the latents came back flat: give them the shape of `a`"
    length = [x.flatten(1).norm(dim=1)[:, None, None, None] for x in (a, b)]
    cosine = F.cosine_similarity(a.flatten(1), b.flatten(1))[:, None, None, None]
    dot = (a * b).sum((1, 2, 3), True)
    undivided = arc(a, b, w, angle_of=lambda _: dot.clamp(-1, 1).acos())
    wrong = {
        "that is the straight line: find the angle, and take the weights from its sines": a.lerp(b, w),
        "a . b alone is no cosine: divide by both lengths": torch.where(dot.abs() < 1, undivided, a.lerp(b, w)),
        "the wrong way round: w = 0 must give a, and w = 1 must give b": arc(b, a, w),
        "one angle for the whole batch: each picture is an arrow of its own": arc(a, b, w, (0, 1, 2, 3)),
        "an angle for every position: a latent is one arrow, so flatten it first": arc(a, b, w, (1,)),
        "that is the cosine: the angle is its `acos`": arc(a, b, w, angle_of=lambda cos: cos),
        "divide by sin(angle): w = 0 must give a, as long as it was": arc(a, b, w) * cosine.acos().sin(),
        "keep the lengths: only the angle is found with arrows of length 1": arc(a / length[0], b / length[1], w),
    }
    yield compare(got, arc(a, b, w), wrong, atol=1e-4)
    a[1], b[1] = 0.5, 1.0  # the second pair points the same way
    got, straight = my_slerp(a=a, b=b, w=w), a.lerp(b, w)
    if isinstance(got, Tensor) and got.isnan().any():
        yield "nan where two latents point the same way: sin(angle) is 0 there, so take the straight line"
    alone = "one picture of the batch has no arc, and the others went straight with it: use `torch.where`"
    want = torch.where(torch.tensor([0, 1, 0])[:, None, None, None] > 0, straight, arc(a, b, w))
    yield compare(got, want, {alone: straight}, atol=1e-4)
    a = torch.randn(64, 4, 2, 8, generator=generator)
    got = my_slerp(a=a, b=1.5 * a, w=w)  # however a cosine is added up, some of 64 are rounded to above 1
    if isinstance(got, Tensor) and got.isnan().any():
        yield "nan where rounding has pushed a cosine above 1: clamp it to -1 .. 1 before `acos`"
    yield compare(got, a.lerp(1.5 * a, w), atol=1e-4)


@exercise("2.6")
def check_coarse(
    my_coarse_psnr: Callable,  # vae, pictures, levels -> decibels for each
) -> Hints:
    """What is left of two small pictures when their latents are rounded, with a copy of the shipped VAE."""
    vae = parts.load_part(AutoencoderKL, parts.MINI, "vae").requires_grad_(False)
    vae.register_to_config(scaling_factor=2 * vae.config.scaling_factor)  # so that some lie outside -4 .. 4
    pictures = F.avg_pool2d(scenes.to_tensor(scenes.sample(2, seed=25)[0]), 2)  # 2 3 32 32
    z, levels = encode(vae, pictures), [3, 4, 9]
    factor, whole = vae.config.scaling_factor, decode(vae, z)

    def coarse(k, z=z, steps=None, inside=lambda z: z.clamp(-4, 4), near=torch.round, start=-4):
        step = 8 / (steps or k - 1)
        return near((inside(z) - start) / step) * step + start

    def measured(change, goal=pictures, unfold=decode, quality=psnr):
        return lambda: torch.tensor([quality(goal, unfold(vae, change(k))) for k in levels])

    got = my_coarse_psnr(vae=vae, pictures=pictures, levels=levels)
    if isinstance(got, Tensor) and got.shape == ():
        yield "one number for all: every k of `levels` has its own"
    wrong = {
        "k levels have k - 1 steps between them: 8 / (k - 1)": measured(lambda k: coarse(k, steps=k)),
        "from -4 to 4, k levels have k - 1 steps between them: 8 / (k - 1)": measured(
            lambda k: coarse(k, steps=k, start=0)
        ),
        "k levels have k - 1 steps between them: 8 / (k - 1), and what lies outside goes to the end": measured(
            lambda k: coarse(k, steps=k, start=0, inside=lambda z: z)
        ),
        "the levels begin at -4: where k is even, none of them is 0": measured(lambda k: coarse(k, start=0)),
        "what lies outside -4 .. 4 must go to the nearest end: clamp": measured(
            lambda k: coarse(k, inside=lambda z: z)
        ),
        "that rounds down: `torch.round` goes to the nearest level": measured(lambda k: coarse(k, near=torch.floor)),
        "those are the numbers of the levels: times the step, minus 4": measured(
            lambda k: (coarse(k) + 4) * (k - 1) / 8
        ),
        "round the scaled latents: `encode` and `decode` of sdlearn.vae": measured(
            lambda k: coarse(k, z / factor), unfold=lambda vae, z: vae.decode(z).sample
        ),
        "these are the whole latents: decode the rounded ones": measured(lambda k: z),
        "compare with the pictures that went in, not with what the whole latents give": measured(coarse, whole),
        "that is the mean square error: `psnr` makes decibels of it": measured(coarse, quality=F.mse_loss),
    }
    yield compare(got, measured(coarse)(), wrong, atol=1e-3)
