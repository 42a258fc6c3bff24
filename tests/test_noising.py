"""Lesson 3: the forward process agrees with the library, with itself, and with closed forms."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr
from torch.testing import assert_close

from sdlearn import noising
from sdlearn.noising import STABLE_DIFFUSION, alpha_bar, one_step, predict_x0, q_sample, score, snr
from sdlearn.notebook.checks import noising as checks

SD = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)


def draw(n=6, seed=0):
    """Clean latents, one step for each (the ends among them), and noise."""
    g = torch.Generator().manual_seed(seed)
    t = torch.cat([torch.tensor([0, 999]), torch.randint(1000, (n - 2,), generator=g)])
    return torch.randn(n, 4, 8, 8, generator=g), t, torch.randn(n, 4, 8, 8, generator=g)


# ---------------------------------------------------------------- schedules


def test_schedules_equal_the_library():
    assert_close(noising.scaled_linear_betas(), DDPMScheduler(**SD).betas)
    assert_close(noising.linear_betas(), DDPMScheduler().betas)
    assert_close(STABLE_DIFFUSION.alpha_bar, DDPMScheduler(**SD).alphas_cumprod)
    assert_close(alpha_bar(noising.linear_betas()), DDPMScheduler().alphas_cumprod)


@pytest.mark.parametrize("betas", [noising.scaled_linear_betas, noising.linear_betas])
def test_schedules_rise_between_their_ends(betas):
    b = betas(100, 0.001, 0.02)
    assert b.shape == (100,) and (b.diff() > 0).all()
    assert_close(b[[0, -1]], torch.tensor([0.001, 0.02]))


@pytest.mark.parametrize("betas", [noising.scaled_linear_betas(), noising.linear_betas()])
def test_alpha_bar_falls_from_about_1_to_about_0(betas):
    a = alpha_bar(betas)
    assert_close(a[0], 1 - betas[0])
    assert (a.diff() < 0).all() and 0 < a[-1] < 0.005


def test_snr_equals_the_library_and_falls():
    t = torch.arange(1000)
    assert_close(snr(t), compute_snr(DDPMScheduler(**SD), t))
    assert (snr(t).diff() < 0).all() and snr(t)[0] > 1000 and snr(t)[-1] < 0.01


# ---------------------------------------------------------------- the forward process


def test_q_sample_equals_add_noise():
    x0, t, eps = draw()
    assert_close(q_sample(x0, t, eps), DDPMScheduler(**SD).add_noise(x0, eps, t))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_latents_keep_their_precision_and_the_factors_are_rounded_last(dtype):
    x0, t, eps = draw()
    x, e = x0.to(dtype), eps.to(dtype)
    assert_close(q_sample(x, t, e), q_sample(x0, t, eps).to(dtype), rtol=0.05, atol=0.05)
    assert_close(score(t, e), score(t, eps).to(dtype), rtol=0.05, atol=0.05)
    assert predict_x0(x, t, e).dtype == dtype
    a = STABLE_DIFFUSION.alpha_bar[t][:, None, None, None]
    for factor, exact in zip(STABLE_DIFFUSION.factors(t, x), (a.sqrt(), (1 - a).sqrt()), strict=True):
        assert torch.equal(factor, exact.to(dtype))


def test_whole_numbers_are_noised_too():
    x0, t, eps = draw()
    assert torch.equal(q_sample(x0.round().long(), t, eps), q_sample(x0.round(), t, eps))


def test_q_sample_has_both_limits():
    x0, _, eps = draw()
    at_first, at_last = (q_sample(x0, torch.full((6,), t), eps) for t in (0, 999))
    assert (at_first - x0).std() < 0.05 and (at_last - eps).std() < 0.1


def test_each_picture_gets_its_own_step():
    x0, t, eps = draw()
    alone = torch.cat([q_sample(x0[i : i + 1], t[i : i + 1], eps[i : i + 1]) for i in range(6)])
    assert_close(q_sample(x0, t, eps), alone)


def test_signal_is_what_all_small_steps_leave():
    """With no noise drawn, a thousand steps shrink x0 to sqrt(alpha_bar) x0: the closed form, exactly."""
    x0, _, _ = draw()
    x = x0
    for step, beta in enumerate(noising.scaled_linear_betas()):
        x = one_step(x, beta, torch.zeros_like(x0))
        if step in (0, 1, 500, 999):
            assert_close(x, q_sample(x0, torch.full((6,), step), torch.zeros_like(x0)))


def test_variance_of_all_small_steps_is_the_closed_form():
    """v_t = (1 - beta_t) v_(t-1) + beta_t adds up to 1 - alpha_bar_t."""
    variance, seen = torch.zeros(()), []
    for beta in noising.scaled_linear_betas():
        variance = one_step(torch.ones(()), beta, torch.zeros(())) ** 2 * variance + beta
        seen.append(variance)
    assert_close(torch.stack(seen), 1 - STABLE_DIFFUSION.alpha_bar, rtol=1e-4, atol=1e-5)


def test_a_walk_of_small_steps_has_the_same_distribution_as_the_jump():
    g = torch.Generator().manual_seed(1)
    x = torch.full((64, 4, 8, 8), 2.0)
    for beta in noising.scaled_linear_betas()[:300]:
        x = one_step(x, beta, torch.randn(x.shape, generator=g))
    a = STABLE_DIFFUSION.alpha_bar[299]
    assert_close(x.mean(), 2 * a.sqrt(), rtol=0, atol=0.03)
    assert_close(x.std(), (1 - a).sqrt(), rtol=0.03, atol=0)


def test_variance_is_kept_when_latents_have_variance_1():
    x0, _, eps = (torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (1, 2, 3))
    for t in (0, 300, 999):
        assert_close(q_sample(x0, torch.full((64,), t), eps).std(), torch.tensor(1.0), rtol=0.03, atol=0)


# ---------------------------------------------------------------- and back


def test_predict_x0_undoes_q_sample():
    x0, t, eps = draw()
    assert_close(predict_x0(q_sample(x0, t, eps), t, eps), x0, rtol=1e-4, atol=1e-4)


def test_predict_x0_equals_the_library():
    x0, t, eps = draw()
    scheduler = DDPMScheduler(**SD)
    want = [scheduler.step(eps[i], t[i], x0[i]).pred_original_sample for i in range(6)]
    assert_close(predict_x0(x0, t, eps), torch.stack(want), rtol=1e-4, atol=1e-4)


def test_estimate_then_noise_again_is_a_ddim_step():
    """q_sample(predict_x0(x, t), t - k) with one and the same noise is DDIM without chance."""
    x, _, eps = draw(2)
    scheduler = DDIMScheduler(**SD, set_alpha_to_one=False, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    want = scheduler.step(eps, 600, x).prev_sample
    t = torch.tensor([600, 600])
    assert_close(q_sample(predict_x0(x, t, eps), t - 100, eps), want, rtol=1e-4, atol=1e-5)


def test_sampling_with_the_exact_noise_returns_the_data():
    """For data N(m, s^2) the best prediction is known: the loop of the lesson must bring back m and s."""
    m, s, last = 1.5, 0.4, STABLE_DIFFUSION.alpha_bar[-1]
    x = torch.randn(512, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    x = last.sqrt() * m + (last * s**2 + 1 - last).sqrt() * x  # not quite pure noise: the schedule leaves a trace
    steps = torch.linspace(999, 0, 200).round().long()
    for t, lower in zip(steps, steps[1:], strict=False):
        a = STABLE_DIFFUSION.alpha_bar[t]
        eps = (1 - a).sqrt() * (x - a.sqrt() * m) / (a * s**2 + 1 - a)
        x = q_sample(predict_x0(x, t.expand(512), eps), lower.expand(512), eps)
    assert_close(x.mean(), torch.tensor(m), rtol=0, atol=0.06)
    assert_close(x.std(), torch.tensor(s), rtol=0, atol=0.04)


def test_score_is_the_gradient_of_the_log_density():
    x0, t, eps = draw()
    x_t = q_sample(x0, t, eps).requires_grad_()
    a = STABLE_DIFFUSION.alpha_bar_at(t, x0)
    log_density = -((x_t - a.sqrt() * x0) ** 2 / (2 * (1 - a))).sum()
    assert_close(score(t, eps), torch.autograd.grad(log_density, x_t)[0], rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("t", [torch.zeros(6, 1).long(), torch.tensor(3), torch.zeros(5).long()])
def test_steps_must_be_one_per_picture(t):
    x0, _, eps = draw()
    for use in (lambda: q_sample(x0, t, eps), lambda: predict_x0(x0, t, eps), lambda: score(t, eps)):
        with pytest.raises(ValueError, match=r"t must have shape \(6,\), one step per picture; got"):
            use()


def test_arguments_stay_as_they_are():
    x0, t, eps = draw()
    before = x0.clone(), t.clone(), eps.clone()
    predict_x0(q_sample(x0, t, eps), t, eps), score(t, eps), one_step(x0, 0.1, eps)
    assert all(torch.equal(x, y) for x, y in zip(before, (x0, t, eps), strict=True))


# ---------------------------------------------------------------- checks


def said(capsys, check, answer):
    assert check(answer) is None
    return capsys.readouterr().out


def stub(*_):
    raise NotImplementedError


def jump_by_steps(x0, t, eps):
    """The two factors by bookkeeping, one small step after another."""
    signal, variance = torch.ones(len(t)), torch.zeros(len(t))
    for step, beta in enumerate(STABLE_DIFFUSION.betas):
        here = step <= t
        signal = torch.where(here, (1 - beta).sqrt() * signal, signal)
        variance = torch.where(here, (1 - beta) * variance + beta, variance)
    return signal[:, None, None, None] * x0 + variance.sqrt()[:, None, None, None] * eps


def jump(x0, eps, signal, noise):
    """Both factors as they are given, with axes for one picture each."""
    return signal[:, None, None, None] * x0 + noise[:, None, None, None] * eps


def noise_of(x_t, t, x0):
    a = STABLE_DIFFUSION.alpha_bar_at(t, x0)
    return (x_t - a.sqrt() * x0) / (1 - a).sqrt()


def step_at(betas, ratio):
    a = alpha_bar(betas)
    return int((a / (1 - a) > ratio).sum())


def zero_end(betas):
    return rescale_zero_terminal_snr(betas)


def zero_end_by_shares(betas):
    """The same, with other roundings: how far down each root is, of the whole way."""
    root = alpha_bar(betas).sqrt()
    share = (root[0] - root) / (root[0] - root[-1])
    return checks.betas_of((root[0] - share * root[0]) ** 2)


def upside_down(betas):
    """The ratios of neighbours in alpha_bar, each turned round."""
    a = (1 - betas).cumprod(0)
    return 1 - torch.cat([a[:1], a[:-1] / a[1:]])


def velocity(x0, t, eps):
    a = STABLE_DIFFUSION.alpha_bar_at(t, x0)
    return a.sqrt() * eps - (1 - a).sqrt() * x0


def x0_from_velocity(x_t, t, v):
    a = STABLE_DIFFUSION.alpha_bar_at(t, x_t)
    return a.sqrt() * x_t - (1 - a).sqrt() * v


def check_target(answer):
    checks.check_velocity(answer, x0_from_velocity)


def check_back(answer):
    checks.check_velocity(velocity, answer)


def log_fit(x_t, t, data):
    """b n: log q(x_t | each clean point), without what is the same for all."""
    a = STABLE_DIFFUSION.alpha_bar_at(t, x_t)
    return -(x_t[:, None] - a[:, None].sqrt() * data).square().sum((2, 3, 4)) / (2 * (1 - a[:, :, 0, 0]))


def eps_from(weights, x_t, t, data):
    mean = torch.einsum("bn,nchw->bchw", weights, data)
    return (x_t - STABLE_DIFFUSION.alpha_bar_at(t, x_t).sqrt() * mean) / (
        1 - STABLE_DIFFUSION.alpha_bar_at(t, x_t)
    ).sqrt()


def best_eps(x_t, t, data):
    return eps_from(log_fit(x_t, t, data).softmax(1), x_t, t, data)


def apart(x_t, t, data):
    """Each coordinate with weights of its own."""
    a = STABLE_DIFFUSION.alpha_bar_at(t, x_t)[:, None]
    weights = (-(x_t[:, None] - a.sqrt() * data).square() / (2 * (1 - a))).softmax(1)
    return (x_t - STABLE_DIFFUSION.alpha_bar_at(t, x_t).sqrt() * (weights * data).sum(1)) / (
        1 - STABLE_DIFFUSION.alpha_bar_at(t, x_t)
    ).sqrt()


@pytest.mark.parametrize(
    "check, answer, number",
    [
        (checks.check_q_sample, q_sample, "3.1"),
        (checks.check_q_sample, jump_by_steps, "3.1"),
        (checks.check_step_at, step_at, "3.2"),
        (checks.check_step_at, lambda b, r: torch.tensor(step_at(b, r)), "3.2"),
        (checks.check_noise_of, noise_of, "3.3"),
        (check_target, velocity, "3.4"),
        (check_target, lambda x0, t, eps: DDPMScheduler(**SD).get_velocity(x0, eps, t), "3.4"),
        (checks.check_zero_end, zero_end, "3.5"),
        (checks.check_zero_end, zero_end_by_shares, "3.5"),
        (checks.check_best_eps, best_eps, "3.6"),
    ],
)
def test_checks_accept_the_solution_and_wait_for_one(capsys, check, answer, number):
    assert said(capsys, check, answer) == f"{number} ok\n"
    assert said(capsys, check, stub) == f"{number} not tried yet\n"


def first(curve, ratio):
    return int((curve <= ratio).int().argmax())


def half_zero(betas):
    """The roots, moved and stretched."""
    root = alpha_bar(betas).sqrt()
    return (root - root[-1]) * root[0] / (root[0] - root[-1])


def in_place(betas):
    betas *= 1
    betas[-1] = 1
    return betas


A, BETAS = STABLE_DIFFUSION.alpha_bar, STABLE_DIFFUSION.betas
WRONG = [
    (checks.check_q_sample, lambda x, t, e: None, "return"),
    (checks.check_q_sample, lambda x, t, e: A[t].sqrt() * x + (1 - A[t]).sqrt() * e, "along the columns"),
    (checks.check_q_sample, lambda x, t, e: A[t, None].sqrt() * x + (1 - A[t, None]).sqrt() * e, "along the rows"),
    (
        checks.check_q_sample,
        lambda x, t, e: A[t, None, None].sqrt() * x + (1 - A[t, None, None]).sqrt() * e,
        "along the channels",
    ),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, (1 - A[t]).sqrt(), A[t].sqrt()), "the wrong way round"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, A[t], 1 - A[t]), "both factors are roots"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, A[t].sqrt(), 1 - A[t]), "of the noise is a root too"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, A[t], (1 - A[t]).sqrt()), "of x0 is a root too"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, A[t] ** 0, (1 - A[t]).sqrt()), "x0 is shrunk too"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, A[t].sqrt(), A[t] ** 0), "the noise has a factor too"),
    (checks.check_q_sample, lambda x, t, e: jump(x, -e, A[t].sqrt(), (1 - A[t]).sqrt()), "not subtracted"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, A[t].sqrt(), 1 - A[t].sqrt()), "the root comes last"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, (1 - BETAS[t]).sqrt(), BETAS[t].sqrt()), "one small step"),
    (checks.check_q_sample, lambda x, t, e: jump(x, e, BETAS[t].sqrt(), (1 - BETAS[t]).sqrt()), "that is beta"),
    (checks.check_q_sample, lambda x, t, e: q_sample(x, t, e).mean(1), "wanted shape (4, 4, 4, 4)"),
    (checks.check_q_sample, lambda x, e, t: q_sample(x, t, e), "they come as (x0, t, eps)"),
    (checks.check_q_sample, lambda x, t, e: q_sample(x, t, e) if x.shape[1] == 4 else x, "but not for x0 of shape"),
    (checks.check_noise_of, lambda x, t, x0: x - x0, "shrink x0 first"),
    (
        checks.check_noise_of,
        lambda x, t, x0: (
            x - STABLE_DIFFUSION.alpha_bar_at(t, x0).sqrt() * x0 / (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0)).sqrt()
        ),
        "brackets",
    ),
    (
        checks.check_noise_of,
        lambda x, t, x0: (x - STABLE_DIFFUSION.alpha_bar_at(t, x0) * x0) / (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0)),
        "both factors are roots",
    ),
    (checks.check_noise_of, lambda x, t, x0: x - STABLE_DIFFUSION.alpha_bar_at(t, x0).sqrt() * x0, "divide"),
    (
        checks.check_noise_of,
        lambda x, t, x0: (
            (x - STABLE_DIFFUSION.alpha_bar_at(t, x0).sqrt() * x0) / (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0))
        ),
        "by the root",
    ),
    (
        checks.check_noise_of,
        lambda x, t, x0: (
            (x - STABLE_DIFFUSION.alpha_bar_at(t, x0) * x0) / (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0)).sqrt()
        ),
        "the root of alpha_bar",
    ),
    (checks.check_noise_of, lambda x, t, x0: (x - x0) / (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0)).sqrt(), "not x0"),
    (checks.check_noise_of, lambda x, t, x0: noise_of(x, t, x0)[0], "wanted shape (3, 4, 2, 2)"),
    (checks.check_noise_of, lambda x, t, x0: None, "return"),
    (checks.check_noise_of, lambda x, x0, t: noise_of(x, t, x0), "they come as (x_t, t, x0)"),  # raises, if so called
    (checks.check_noise_of, lambda x0, t, x: noise_of(x, t, x0), "they come as (x_t, t, x0)"),  # computes
    (
        checks.check_noise_of,
        lambda x, t, x0: (
            x.sub_(STABLE_DIFFUSION.alpha_bar_at(t, x0).sqrt() * x0) / (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0)).sqrt()
        ),
        "its argument",
    ),
    (checks.check_step_at, lambda b, r: None, "return"),
    (checks.check_step_at, lambda b, r: alpha_bar(b), "one number"),
    (checks.check_step_at, lambda b, r: 0.5, "whole number"),
    (checks.check_step_at, lambda b, r: step_at(b, r) + 1, "one too late"),
    (checks.check_step_at, lambda b, r: step_at(b, r) - 1, "one too early"),
    (checks.check_step_at, lambda b, r: first(alpha_bar(b), r), "alpha_bar / (1 - alpha_bar)"),
    (checks.check_step_at, lambda b, r: first((alpha_bar(b) / (1 - alpha_bar(b))).sqrt(), r), "no root"),
    (checks.check_step_at, lambda b, r: first((1 - b) / b, r), "product of all"),
    (
        checks.check_step_at,
        lambda b, r: first(STABLE_DIFFUSION.alpha_bar / (1 - STABLE_DIFFUSION.alpha_bar), r),
        "the betas that you are given",
    ),
    (checks.check_step_at, lambda b, r: len(b) - step_at(b, r), "how many come before them?"),
    (checks.check_step_at, lambda b, r: int((alpha_bar(b) / (1 - alpha_bar(b)) >= r).sum()), "`<=`, not `<`"),
    (checks.check_step_at, lambda b, r: int((alpha_bar(b) / (1 - alpha_bar(b)) >= r).int().argmax()), "ask for `<=`?"),
    (checks.check_step_at, lambda b, r: torch.tensor([step_at(b, r)]), "say `int(...)`"),
    (checks.check_step_at, lambda b, r: 17, "wanted"),
    (checks.check_step_at, lambda r, b: step_at(b, r), "they come as (betas, ratio)"),
    (checks.check_zero_end, lambda b: None, "return"),
    (checks.check_zero_end, lambda b: b * 1.0, "nothing has changed"),
    (checks.check_zero_end, lambda b: torch.cat([b[:-1], torch.ones(1)]), "only the last step has changed"),
    (checks.check_zero_end, lambda b: upside_down(zero_end(b)), "divided by the last alpha_bar"),
    (checks.check_zero_end, lambda b: half_zero(b), "square it"),
    (checks.check_zero_end, lambda b: half_zero(b) ** 2, "turn it back into betas"),
    (checks.check_zero_end, lambda b: checks.betas_of(half_zero(b)), "square them"),
    (checks.check_zero_end, lambda b: checks.betas_of((half_zero(b) / half_zero(b)[0]) ** 2), "stays what it was"),
    (checks.check_zero_end, lambda b: 1 - rescale_zero_terminal_snr(b), "subtract them from 1"),
    (checks.check_zero_end, lambda b: rescale_zero_terminal_snr(b)[1:], "one beta is missing"),
    (checks.check_zero_end, in_place, "changes its argument"),
    (check_target, lambda x0, t, eps: None, "my_velocity: your function returns nothing"),
    (check_target, lambda x0, t, eps: -velocity(x0, t, eps), "the noise is positive"),
    (check_target, q_sample, "that is x_t"),
    (check_target, lambda x0, t, eps: eps - x0, "both parts have a factor"),
    (check_target, lambda x0, t, eps: velocity(eps, t, x0), "another order"),
    (
        check_target,
        lambda x0, t, eps: STABLE_DIFFUSION.alpha_bar_at(t, x0) * eps - (1 - STABLE_DIFFUSION.alpha_bar_at(t, x0)) * x0,
        "the factors are roots",
    ),
    (check_target, lambda x0, t, eps: velocity(x0, t, eps).mean(1), "wanted shape (3, 4, 2, 2)"),
    (check_target, lambda x0, eps, t: velocity(x0, t, eps), "they come as (x0, t, eps)"),
    (check_back, stub, "my_velocity is right, this one is not tried yet"),
    (check_back, predict_x0, "v is not the noise"),
    (
        check_back,
        lambda x, t, v: (
            STABLE_DIFFUSION.alpha_bar_at(t, x).sqrt() * x + (1 - STABLE_DIFFUSION.alpha_bar_at(t, x)).sqrt() * v
        ),
        "v is subtracted",
    ),
    (
        check_back,
        lambda x, t, v: (
            (1 - STABLE_DIFFUSION.alpha_bar_at(t, x)).sqrt() * x + STABLE_DIFFUSION.alpha_bar_at(t, x).sqrt() * v
        ),
        "that is the noise",
    ),
    (
        check_back,
        lambda x, t, v: x0_from_velocity(x, t, v) / STABLE_DIFFUSION.alpha_bar_at(t, x).sqrt(),
        "no division is needed",
    ),
    (check_back, lambda v, t, x: x0_from_velocity(x, t, v), "they come as (x_t, t, v)"),
    (checks.check_best_eps, lambda x, t, d: None, "return"),
    (checks.check_best_eps, lambda x, t, d: log_fit(x, t, d).softmax(1), "wanted shape (4, 2, 1, 1)"),
    (checks.check_best_eps, lambda x, t, d: predict_x0(x, t, best_eps(x, t, d)), "that is the best x0"),
    (
        checks.check_best_eps,
        lambda x, t, d: best_eps(x, t, d) * (1 - STABLE_DIFFUSION.alpha_bar_at(t, x)).sqrt(),
        "divide by sqrt",
    ),
    (checks.check_best_eps, lambda x, t, d: eps_from(log_fit(x, t, d).softmax(0), x, t, d), "softmax runs over"),
    (checks.check_best_eps, lambda x, t, d: eps_from((-log_fit(x, t, d)).softmax(1), x, t, d), "minus sign"),
    (checks.check_best_eps, lambda x, t, d: eps_from((log_fit(x, t, d) * 2).softmax(1), x, t, d), "the 2 below"),
    (checks.check_best_eps, lambda x, t, d: eps_from((log_fit(x, t, d) / 2).softmax(1), x, t, d), "no mean"),
    (checks.check_best_eps, apart, "one weight for each clean point"),
    (checks.check_best_eps, lambda x, t, d: eps_from(log_fit(x, t, d).exp(), x, t, d), "softmax, not exp"),
    (checks.check_best_eps, lambda x, t, d: eps_from(torch.full((4, 4), 0.25), x, t, d), "weigh them"),
    (checks.check_best_eps, lambda x, t, d: eps_from(naive(log_fit(x, t, d)), x, t, d), "let softmax do it"),
    (checks.check_best_eps, lambda x, d, t: best_eps(x, t, d), "they come as (x_t, t, data)"),
]


def naive(log):
    """A softmax that divides 0 by 0 where all exponents are very negative."""
    return log.exp() / log.exp().sum(1, keepdim=True)


@pytest.mark.parametrize("check, answer, hint", WRONG)
def test_checks_help(capsys, check, answer, hint):
    out = said(capsys, check, answer)
    assert hint in out and " ok" not in out and out.count("\n") == 1


@pytest.mark.parametrize(
    "check",
    [
        checks.check_q_sample,
        checks.check_noise_of,
        checks.check_zero_end,
        check_target,
        check_back,
        checks.check_best_eps,
    ],
)
def test_an_error_of_the_learner_keeps_its_traceback(check):
    with pytest.raises(ZeroDivisionError):
        check(lambda *given: 1 // 0)
    with pytest.raises(ValueError, match="t must have shape"):
        check(lambda x, *_: STABLE_DIFFUSION.alpha_bar_at(torch.zeros(1, 1), x))
    with pytest.raises(ZeroDivisionError):
        checks.check_step_at(lambda betas, ratio: 1 // 0)


def test_what_the_learner_prints_is_seen_once(capsys):
    assert said(capsys, checks.check_noise_of, lambda *given: print("looking")).count("looking") == 1


def test_velocity_is_what_the_library_predicts():
    x0, t, eps = draw()
    x_t, v, scheduler = q_sample(x0, t, eps), velocity(x0, t, eps), DDPMScheduler(**SD, prediction_type="v_prediction")
    assert_close(v, scheduler.get_velocity(x0, eps, t))
    want = [scheduler.step(v[i], t[i], x_t[i]).pred_original_sample for i in range(6)]
    assert_close(x0_from_velocity(x_t, t, v), torch.stack(want), rtol=1e-4, atol=1e-5)


def test_the_best_noise_is_the_score_of_all_clean_points_together():
    g = torch.Generator().manual_seed(2)
    data, t = torch.randn(7, 2, 1, 1, generator=g), torch.tensor([100, 500, 900])
    x_t = torch.randn(3, 2, 1, 1, generator=g).requires_grad_()
    (gradient,) = torch.autograd.grad(log_fit(x_t, t, data).logsumexp(1).sum(), x_t)
    assert_close(score(t, best_eps(x_t, t, data)), gradient, rtol=1e-4, atol=1e-4)


def test_betas_of_undoes_alpha_bar():
    betas = noising.scaled_linear_betas()
    assert_close(checks.betas_of(alpha_bar(betas)), betas, rtol=0, atol=1e-6)
