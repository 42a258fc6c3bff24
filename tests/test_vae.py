"""Lesson 2's room: its formulas against the library and torch, its losses, a tiny batch learnt by heart, its checks."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sdlearn import scenes, vae
from sdlearn.notebook.checks import vae as checks
from sdlearn.recipes import train_vae
from sdlearn.training import fit


@pytest.fixture(scope="module")
def net():  # random weights, half-size pictures are enough for its properties
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return vae.new_vae().eval().requires_grad_(False)


def pictures(n: int, side: int = 32):  # b c h w
    return F.avg_pool2d(scenes.to_tensor(scenes.sample(n, seed=7)[0]), 64 // side)


def drawn(*shape, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- shapes


def test_the_latent_has_48_times_fewer_numbers(net):
    x = pictures(1, 64)
    z = vae.encode(net, x)
    assert x.shape == (1, 3, 64, 64) and z.shape == (1, 4, 8, 8)
    assert x.numel() == 48 * z.numel()
    assert vae.decode(net, z).shape == x.shape


def test_less_than_three_million_parameters(net):
    assert 1.2e6 < sum(p.numel() for p in net.parameters()) < 3e6


@pytest.mark.parametrize("height, width", [(16, 16), (24, 40)])
def test_any_size_divisible_by_8(net, height, width):
    z = vae.encode(net, torch.zeros(2, 3, height, width))
    assert z.shape == (2, 4, height // 8, width // 8)
    assert vae.decode(net, z).shape == (2, 3, height, width)


# ---------------------------------------------------------------- reparameterisation


def test_reparameterise_draws_what_the_library_draws(net):
    posterior = net.encode(pictures(2)).latent_dist
    eps = drawn(*posterior.mean.shape, seed=5)
    theirs = posterior.sample(torch.Generator().manual_seed(5))
    assert_close(vae.reparameterise(posterior.mean, posterior.std, eps), theirs)


def test_reparameterise_without_deviation_is_the_mean():
    mu, eps = drawn(2, 4, 3, 3), drawn(2, 4, 3, 3, seed=1)
    assert_close(vae.reparameterise(mu, torch.zeros_like(mu), eps), mu)


def test_gradients_go_through_mu_and_sigma_and_through_torch_normal_they_do_not():
    mu, sigma, eps = drawn(2, 4, 3, 3).requires_grad_(), torch.ones(2, 4, 3, 3, requires_grad=True), drawn(2, 4, 3, 3)
    vae.reparameterise(mu, sigma, eps).sum().backward()
    assert_close(mu.grad, torch.ones_like(mu))
    assert_close(sigma.grad, eps)
    mu.grad = None
    torch.normal(mu, sigma, generator=torch.Generator().manual_seed(0)).sum().backward()
    assert mu.grad.abs().max() == 0  # what the lesson shows


@pytest.mark.parametrize("wrong", [(2, 1, 3, 3), (1, 4, 3, 3), (4, 3, 3)])
def test_reparameterise_refuses_shapes_that_would_broadcast(wrong):
    mu = torch.zeros(2, 4, 3, 3)
    with pytest.raises(ValueError, match=r"(sigma|eps) must have shape \(2, 4, 3, 3\); got \("):
        vae.reparameterise(mu, mu, torch.zeros(wrong))
    with pytest.raises(ValueError, match=r"sigma must have shape \(2, 4, 3, 3\)"):
        vae.reparameterise(mu, torch.zeros(wrong), mu)


# ---------------------------------------------------------------- KL


def test_kl_is_zero_only_for_the_standard_normal():
    zero, one = torch.zeros(3, 4, 2, 2), torch.ones(3, 4, 2, 2)
    assert_close(vae.kl_divergence(zero, one), torch.zeros(3))
    for mu, sigma in ((zero + 0.1, one), (zero, one * 0.9), (zero, one * 1.1)):
        assert vae.kl_divergence(mu, sigma).min() > 0


def test_kl_equals_torch_and_the_library(net):
    posterior = net.encode(pictures(3)).latent_dist
    ours = vae.kl_divergence(posterior.mean, posterior.std)
    normal = torch.distributions.Normal
    from_torch = torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), normal(0.0, 1.0))
    assert ours.shape == (3,)
    assert_close(ours, from_torch.sum((1, 2, 3)), rtol=1e-4, atol=1e-4)
    assert_close(ours, posterior.kl(), rtol=1e-4, atol=1e-4)


def test_kl_is_the_mean_of_log_q_minus_log_p():
    mu, sigma = torch.tensor([[1.5, -0.5]]), torch.tensor([[0.3, 2.0]])
    z = mu + sigma * drawn(200_000, 2)
    q, p = torch.distributions.Normal(mu, sigma), torch.distributions.Normal(0.0, 1.0)
    drawn_kl = (q.log_prob(z) - p.log_prob(z)).sum(1).mean()
    assert_close(vae.kl_divergence(mu, sigma)[0], drawn_kl, rtol=0.02, atol=0)


# ---------------------------------------------------------------- the loss


def test_loss_equals_its_three_terms(net):
    x, eps = pictures(3), drawn(3, 4, 4, 4)
    posterior = net.encode(x).latent_dist
    y = net.decode(posterior.mean + posterior.std * eps).sample
    want = 0.5 * F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 1e-6 * posterior.kl().mean()
    assert_close(vae.vae_loss(net, x, eps), want)


def test_loss_reaches_every_weight():
    net = vae.new_vae()
    vae.vae_loss(net, pictures(2, 16), drawn(2, 4, 2, 2)).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in net.parameters())


def test_loss_refuses_noise_of_another_shape(net):
    with pytest.raises(ValueError, match="(sigma|eps) must have shape"):
        vae.vae_loss(net, pictures(2), drawn(1, 4, 4, 4))


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = vae.new_vae()
    x = pictures(4, 16)
    before = vae.psnr(x, vae.decode(net, vae.encode(net, x)))

    def examples(generator):
        return x, torch.randn(4, 4, 2, 2, generator=generator)

    losses = fit(net, vae.vae_loss, examples, steps=120, lr=3e-3, warmup=5)
    assert losses[-1] < losses[0] / 3
    assert vae.psnr(x, vae.decode(net.to(x.device), vae.encode(net, x))) > before + 6


# ---------------------------------------------------------------- to latents and back


def test_encode_is_the_mean_times_the_factor(net):
    x = pictures(5)
    z = vae.encode(net, x)
    assert_close(z, net.encode(x).latent_dist.mean * net.config.scaling_factor)
    assert not z.requires_grad


def test_decode_undoes_the_factor(net):
    x = pictures(3)
    assert_close(vae.decode(net, vae.encode(net, x)), net(x, sample_posterior=False).sample, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_batches_of_any_size_give_the_same(net, batch):
    x = pictures(5)
    z = vae.encode(net, x, batch)
    assert_close(z, vae.encode(net, x), atol=1e-5, rtol=1e-4)
    assert_close(vae.decode(net, z, batch), vae.decode(net, z), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_pictures_and_latents_follow_the_precision_of_the_vae(net, dtype):
    other, x = copy.deepcopy(net).to(dtype), pictures(2)
    z = vae.encode(other, x)
    y = vae.decode(other, vae.encode(net, x))
    assert z.dtype == y.dtype == dtype
    close = dict(atol=0.1, rtol=0.1) if dtype == torch.bfloat16 else dict(atol=1e-4, rtol=1e-4)
    assert_close(z.float(), vae.encode(net, x), **close)
    assert_close(y.float(), vae.decode(net, vae.encode(net, x)), **close)


def test_arguments_stay_as_they_are(net):
    x = pictures(2)
    z = vae.encode(net, x)
    kept_x, kept_z = x.clone(), z.clone()
    vae.decode(net, z), vae.encode(net, x)
    assert torch.equal(x, kept_x) and torch.equal(z, kept_z)


# ---------------------------------------------------------------- the scale factor


def test_scale_factor_of_stable_diffusion():
    assert vae.scale_factor(5.49 * drawn(64, 4, 16, 16)) == pytest.approx(0.18215, rel=0.01)


def test_scaled_latents_have_deviation_one():
    means = 3 * drawn(8, 4, 8, 8) + 0.7
    assert (means * vae.scale_factor(means)).std().item() == pytest.approx(1, abs=1e-5)


def test_training_ends_with_the_vaes_own_factor():
    net = vae.new_vae()
    some = scenes.sample(8, seed=7)[0]
    train_vae(net, some, steps=1, batch=2)
    assert net.config.scaling_factor != 0.18215
    assert vae.encode(net, scenes.to_tensor(some)).std().item() == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------- PSNR


def test_psnr_of_a_known_error():
    x = torch.zeros(2, 3, 4, 4)
    assert vae.psnr(x, x + 0.02) == pytest.approx(40, abs=1e-3)  # (2 / 0.02)^2 = 10^4


def test_half_the_error_is_six_decibels():
    x, error = torch.zeros(2, 3, 8, 8), 0.1 * drawn(2, 3, 8, 8)
    assert vae.psnr(x, x + error / 2) - vae.psnr(x, x + error) == pytest.approx(20 * math.log10(2), abs=1e-3)


def test_psnr_is_the_mean_over_pictures_and_finite_for_equal_ones():
    x, y = drawn(2, 3, 4, 4).clamp(-1, 1), drawn(2, 3, 4, 4, seed=1).clamp(-1, 1)
    assert vae.psnr(x, y) == pytest.approx((vae.psnr(x[:1], y[:1]) + vae.psnr(x[1:], y[1:])) / 2, abs=1e-4)
    assert vae.psnr(x, y) == pytest.approx(vae.psnr(y, x), abs=1e-4)
    assert 90 < vae.psnr(x, x) < float("inf")


# ---------------------------------------------------------------- the checks


def not_tried(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    "name, number",
    [
        ("reconstruct", "2.1"),
        ("psnr", "2.2"),
        ("posterior", "2.3"),
        ("damage", "2.4"),
        ("slerp", "2.5"),
        ("coarse", "2.6"),
    ],
)
def test_a_stub_is_not_tried_yet_and_a_crash_keeps_its_traceback(name, number, capsys):
    check = getattr(checks, f"check_{name}")
    assert check(not_tried) is None
    assert capsys.readouterr().out == f"{number} not tried yet\n"
    check(lambda *_: None)
    assert "return" in capsys.readouterr().out
    with pytest.raises(ZeroDivisionError):
        check(lambda *_: 1 / 0)


def says(check, function, capsys) -> str:
    check(function)
    return capsys.readouterr().out.strip()


RECONSTRUCT = {
    "a sample": (lambda n, x: n.decode(n.encode(x).latent_dist.sample()).sample, "a random sample"),
    "the model itself, sampling": (lambda n, x: n(x, sample_posterior=True).sample, "a random sample"),
    "latents": (lambda n, x: n.encode(x).latent_dist.mean, "these are the latents"),
    "scaled latents": (lambda n, x: vae.encode(n, x), "these are the latents"),
    "an object": (lambda n, x: n.decode(n.encode(x).latent_dist.mean), "take its `.sample`"),
    "a distribution": (lambda n, x: n.encode(x).latent_dist, "wanted a tensor"),
    "unchanged": (lambda n, x: x, "went in"),
    "divided by the factor": (lambda n, x: vae.decode(n, n.encode(x).latent_dist.mean), "use `vae.decode`"),
    "times the factor": (lambda n, x: n.decode(vae.encode(n, x)).sample, "use `vae.encode`"),
    "one picture": (lambda n, x: n(x[:1]).sample, "wanted shape"),
    "anything": (lambda n, x: x * 17, "wrong numbers"),
}


@pytest.mark.parametrize("mistake", RECONSTRUCT)
def test_check_reconstruct_helps(mistake, capsys):
    function, hint = RECONSTRUCT[mistake]
    assert hint in says(checks.check_reconstruct, function, capsys)


def test_check_reconstruct_accepts(capsys):
    solution = lambda n, x: n.decode(n.encode(x).latent_dist.mean).sample  # noqa: E731
    assert says(checks.check_reconstruct, solution, capsys) == "2.1 ok"
    assert says(checks.check_reconstruct, lambda n, x: vae.decode(n, vae.encode(n, x)), capsys) == "2.1 ok"
    assert says(checks.check_reconstruct, lambda n, x: n(x, sample_posterior=False).sample, capsys) == "2.1 ok"


def split(moments):
    return moments.chunk(2, dim=1)


def changes_its_argument(moments, eps):
    eps *= (moments[:, 4:] / 2).exp()
    return moments[:, :4] + eps


POSTERIOR = {
    "no noise": (lambda m, e: split(m)[0], "mu alone"),
    "logarithm as deviation": (lambda m, e: split(m)[0] + split(m)[1] * e, "is a logarithm"),
    "variance as deviation": (lambda m, e: split(m)[0] + split(m)[1].exp() * e, "its root"),
    "half outside": (lambda m, e: split(m)[0] + split(m)[1].exp() / 2 * e, "exp(log_var / 2)"),
    "halves swapped": (lambda m, e: split(m)[1] + (split(m)[0] / 2).exp() * e, "swapped"),
    "even and odd": (lambda m, e: m[:, ::2] + (m[:, 1::2] / 2).exp() * e, "channels 0 to 3"),
    "root of a logarithm": (lambda m, e: split(m)[0] + split(m)[1].sqrt() * e, "has no root then"),
    "nothing but NaNs": (lambda m, e: e / 0 * 0, "there are NaNs"),
    "all times sigma": (lambda m, e: (split(m)[0] + e) * (split(m)[1] / 2).exp(), "only the noise"),
    "no mean": (lambda m, e: (split(m)[1] / 2).exp() * e, "add the noise to mu"),
    "no eps": (lambda m, e: split(m)[0] + (split(m)[1] / 2).exp(), "multiply sigma by eps"),
    "noise of its own": (lambda m, e: split(m)[0] + (split(m)[1] / 2).exp() * torch.randn_like(e), "draw none"),
    "eight channels": (lambda m, e: m, "8 channels"),
    "in place": (changes_its_argument, "changes its arguments"),
    "anything": (lambda m, e: e * 17, "wrong numbers"),
}


@pytest.mark.parametrize("mistake", POSTERIOR)
def test_check_posterior_helps(mistake, capsys):
    function, hint = POSTERIOR[mistake]
    assert hint in says(checks.check_posterior, function, capsys)


def test_check_posterior_accepts(capsys):
    def solution(moments, eps):
        mu, log_var = moments.chunk(2, dim=1)
        return vae.reparameterise(mu, (log_var / 2).exp(), eps)

    assert says(checks.check_posterior, solution, capsys) == "2.3 ok"
    other = lambda m, e: m[:, :4] + m[:, 4:].exp().sqrt() * e  # noqa: E731
    assert says(checks.check_posterior, other, capsys) == "2.3 ok"


def mse(x, y):
    return (x - y).square().flatten(1).mean(1)


PSNR = {
    "range 1": (lambda x, y: 10 * torch.log10(1 / mse(x, y)), "range is 2"),
    "range not squared": (lambda x, y: 10 * torch.log10(2 / mse(x, y)), "squared: 4"),
    "natural logarithm": (lambda x, y: 10 * torch.log(4 / mse(x, y)), "base 10"),
    "upside down": (lambda x, y: 10 * torch.log10(mse(x, y) / 4), "upside down"),
    "20 log10": (lambda x, y: 20 * torch.log10(4 / mse(x, y)), "not 20"),
    "bels": (lambda x, y: torch.log10(4 / mse(x, y)), "not bels"),
    "root": (lambda x, y: 10 * torch.log10(4 / mse(x, y).sqrt()), "no root"),
    "absolute": (lambda x, y: 10 * torch.log10(4 / (x - y).abs().flatten(1).mean(1)), "square the differences"),
    "sum": (lambda x, y: 10 * torch.log10(4 / (x - y).square().flatten(1).sum(1)), "not their sum"),
    "one for all": (lambda x, y: 10 * torch.log10(4 / (x - y).square().mean()), "one number for all"),
    "a float": (lambda x, y: vae.psnr(x, y), "got float"),
    "one per pixel": (lambda x, y: 10 * torch.log10(4 / (x - y).square()), "wanted shape (3,)"),
}


@pytest.mark.parametrize("mistake", PSNR)
def test_check_psnr_helps(mistake, capsys):
    function, hint = PSNR[mistake]
    assert hint in says(checks.check_psnr, function, capsys)


def test_check_psnr_accepts(capsys):
    def solution(x, y):
        return torch.tensor([vae.psnr(a[None], b[None]) for a, b in zip(x, y, strict=True)])

    assert says(checks.check_psnr, solution, capsys) == "2.2 ok"


def damage(net, latents, without=None, difference=None, decode=vae.decode):
    without = without or (lambda z, c: z * (torch.arange(4) != c)[:, None, None])
    difference = difference or (lambda a, b: (a - b).square().mean())
    whole = decode(net, latents)
    return torch.stack([difference(decode(net, without(latents, c)), whole) for c in range(4)])


def zero_in_place(z, c):
    z[:, c] = 0
    return z


def bare(net, z):
    return net.decode(z).sample


DAMAGE = {
    "in place": (lambda n, z: damage(n, z, zero_in_place), "changes the latents"),
    "more and more": (lambda n, z: damage(n, z.clone(), zero_in_place), "zeroed alone"),
    "the others": (lambda n, z: damage(n, z, lambda z, c: z * (torch.arange(4) == c)[:, None, None]), "kept one"),
    "latents compared": (lambda n, z: damage(n, z, decode=lambda n, z: z), "decode both"),
    "scale forgotten": (lambda n, z: damage(n, z, decode=bare), "are scaled"),
    "absolute": (lambda n, z: damage(n, z, difference=lambda a, b: (a - b).abs().mean()), "square the"),
    "sum": (lambda n, z: damage(n, z, difference=lambda a, b: (a - b).square().sum()), "not their sum"),
    "root": (lambda n, z: damage(n, z, difference=lambda a, b: (a - b).square().mean().sqrt()), "no root"),
    "pictures zeroed": (lambda n, z: damage(n, z)[:3], "dimension 1"),
    "one number": (lambda n, z: damage(n, z).mean(), "wanted shape (4,)"),
    "decibels": (lambda n, z: damage(n, z).log10(), "wrong numbers"),
    "nothing": (lambda n, z: torch.zeros(4), "wrong numbers"),
}


@pytest.mark.parametrize("mistake", DAMAGE)
def test_check_damage_helps(mistake, capsys):
    function, hint = DAMAGE[mistake]
    assert hint in says(checks.check_damage, function, capsys)


def test_check_damage_accepts(capsys):
    assert says(checks.check_damage, damage, capsys) == "2.4 ok"


def angle_between(a, b):  # b 1 1 1
    return F.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1).acos()[:, None, None, None]


def on_the_arc(a, b, w, angle=None):
    angle = angle_between(a, b) if angle is None else angle
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def my_slerp(a, b, w):
    return torch.where(angle_between(a, b) > 1e-3, on_the_arc(a, b, w), a.lerp(b, w))


def all_or_none(a, b, w):
    got = on_the_arc(a, b, w)
    return a.lerp(b, w) if got.isnan().any() else got


def unit(x):
    return F.normalize(x.flatten(1)).view_as(x)


def with_angle(angle):
    """Straight on where there is hardly an angle, or nan: then the arc."""
    return lambda a, b, w: torch.where(angle(a, b) < 1e-3, a.lerp(b, w), on_the_arc(a, b, w, angle(a, b)))


def undivided(a, b):
    return (a * b).sum((1, 2, 3), True).clamp(-1, 1).acos()


def unclamped(a, b):
    return F.cosine_similarity(a.flatten(1), b.flatten(1)).acos()[:, None, None, None]


def unclamped_by_norms(a, b):
    a, b = a.flatten(1), b.flatten(1)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).acos()[:, None, None, None]


SLERP = {
    "straight": (lambda a, b, w: a.lerp(b, w), "straight line"),
    "other way round": (lambda a, b, w: my_slerp(b, a, w), "w = 0 must give a"),
    "one angle": (lambda a, b, w: on_the_arc(a, b, w, angle_between(a[None], b[None])[0]), "whole batch"),
    "an angle for each place": (
        lambda a, b, w: on_the_arc(a, b, w, F.cosine_similarity(a, b).acos()[:, None]),
        "every position",
    ),
    "cosine as angle": (lambda a, b, w: on_the_arc(a, b, w, angle_between(a, b).cos()), "`acos`"),
    "no lengths": (lambda a, b, w: on_the_arc(a, b, w, (a * b).sum((1, 2, 3), True).acos()), "divide a . b"),
    "no lengths, clamped": (with_angle(undivided), "by both lengths"),
    "no lengths, and straight where the sine is 0": (
        lambda a, b, w: torch.where(
            undivided(a, b).sin().abs() < 1e-3, a.lerp(b, w), on_the_arc(a, b, w, undivided(a, b))
        ),
        "by both lengths",
    ),
    "no clamp": (with_angle(unclamped), "clamp it"),
    "no clamp, by the norms": (with_angle(unclamped_by_norms), "clamp it"),
    "length 1": (lambda a, b, w: on_the_arc(unit(a), unit(b), w), "keep the lengths"),
    "not divided": (lambda a, b, w: on_the_arc(a, b, w) * angle_between(a, b).sin(), "divide by sin(angle)"),
    "nan": (on_the_arc, "point the same way"),
    "all or none": (all_or_none, "torch.where"),
    "flat": (lambda a, b, w: my_slerp(a, b, w).flatten(1), "came back flat"),
    "in place": (lambda a, b, w: a.lerp_(b, w), "changes its arguments"),
}


@pytest.mark.parametrize("mistake", SLERP)
def test_check_slerp_helps(mistake, capsys):
    function, hint = SLERP[mistake]
    assert hint in says(checks.check_slerp, function, capsys)


def test_check_slerp_accepts(capsys):
    assert says(checks.check_slerp, my_slerp, capsys) == "2.5 ok"
    no_clamp = lambda a, b, w: torch.where(  # noqa: E731
        unclamped(a, b) > 1e-3, on_the_arc(a, b, w), a.lerp(b, w)
    )  # nan > 1e-3 is False, so it goes straight where it should
    assert says(checks.check_slerp, no_clamp, capsys) == "2.5 ok"

    def one_by_one(a, b, w):  # with the usual threshold
        close = F.cosine_similarity(a.flatten(1), b.flatten(1)) > 0.9995
        each = [x.lerp(y, w) if c else my_slerp(x[None], y[None], w)[0] for x, y, c in zip(a, b, close, strict=True)]
        return torch.stack(each)

    assert says(checks.check_slerp, one_by_one, capsys) == "2.5 ok"


def rounded(z, k, steps=0, low=-4, high=4, near=torch.round):
    step = 8 / (steps or k - 1)
    return near((z.clamp(low, high) + 4) / step) * step - 4


def coarse(net, x, levels, change=rounded, fold=vae.encode, unfold=vae.decode, quality=vae.psnr, goal=None):
    z = fold(net, x)
    goal = x if goal is None else goal(net, z)
    return torch.tensor([quality(goal, unfold(net, change(z, k))) for k in levels])


def bare_mean(net, x):
    return net.encode(x).latent_dist.mean


def pops(net, x, levels):
    got = coarse(net, x, levels)
    levels.pop()
    return got


COARSE = {
    "k steps": (lambda n, x, ks: coarse(n, x, ks, lambda z, k: rounded(z, k, steps=k)), "8 / (k - 1)"),
    "k steps from 0": (
        lambda n, x, ks: coarse(n, x, ks, lambda z, k: (z.clamp(-4, 4) / (8 / k)).round() * 8 / k),
        "8 / (k - 1)",
    ),
    "k steps from 0, no clamp": (
        lambda n, x, ks: coarse(n, x, ks, lambda z, k: (z / (8 / k)).round() * 8 / k),
        "8 / (k - 1)",
    ),
    "from the middle": (
        lambda n, x, ks: coarse(n, x, ks, lambda z, k: (z.clamp(-4, 4) * (k - 1) / 8).round() * 8 / (k - 1)),
        "the levels begin at -4",
    ),
    "no clamp": (lambda n, x, ks: coarse(n, x, ks, lambda z, k: rounded(z, k, low=-99, high=99)), "clamp"),
    "down": (lambda n, x, ks: coarse(n, x, ks, lambda z, k: rounded(z, k, near=torch.floor)), "rounds down"),
    "numbers of levels": (
        lambda n, x, ks: coarse(n, x, ks, lambda z, k: ((z.clamp(-4, 4) + 4) * (k - 1) / 8).round()),
        "minus 4",
    ),
    "not scaled": (lambda n, x, ks: coarse(n, x, ks, fold=bare_mean, unfold=bare), "scaled latents"),
    "not rounded": (lambda n, x, ks: coarse(n, x, ks, lambda z, k: z), "decode the rounded ones"),
    "against the decoded": (lambda n, x, ks: coarse(n, x, ks, goal=vae.decode), "that went in"),
    "error": (lambda n, x, ks: coarse(n, x, ks, quality=F.mse_loss), "makes decibels"),
    "a list": (lambda n, x, ks: coarse(n, x, ks).tolist(), "torch.tensor"),
    "one number": (lambda n, x, ks: coarse(n, x, ks).mean(), "its own"),
    "levels changed": (pops, "changes its arguments"),
    "pictures": (lambda n, x, ks: coarse(n, x, ks)[:2], "wanted shape (3,)"),
    "upside down": (lambda n, x, ks: -coarse(n, x, ks), "wrong numbers"),
}


@pytest.mark.parametrize("mistake", COARSE)
def test_check_coarse_helps(mistake, capsys):
    function, hint = COARSE[mistake]
    assert hint in says(checks.check_coarse, function, capsys)


def test_check_coarse_accepts(capsys):
    assert says(checks.check_coarse, coarse, capsys) == "2.6 ok"
