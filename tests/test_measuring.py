"""Intervals, distances between sets of points, operations: against the libraries, closed forms and loops."""

import math

import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import binom, binomtest
from torch import nn
from torch.testing import assert_close
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from sdlearn.measuring import (
    clip_score,
    difference,
    frechet_distance,
    inside,
    interval,
    kernel_distance,
    nearest,
    operations,
    sample_size,
    variety,
)
from sdlearn.notebook.checks.measuring import (
    check_frechet,
    check_inside,
    check_interval,
    check_kernel,
    check_paired,
    check_variety,
)


def cloud(n, seed=0, d=6, mean=0.0):
    """Points with correlated features."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, d, generator=generator) @ mix + mean


class Features(nn.Module):
    """What stands in the place of torchmetrics' own network: the points are features already."""

    num_features = 6

    def forward(self, x):
        return x


# ---------------------------------------------------------------- rates


@pytest.mark.parametrize("n", [1, 7, 100, 512])
def test_the_interval_is_scipys(n):
    for hits in {0, 1, n // 3, n - 1, n}:
        want = binomtest(hits, n).proportion_ci(method="wilson")
        assert_close(interval(hits / n, n), torch.tensor([want.low, want.high]), atol=1e-5, rtol=0, check_dtype=False)


def test_many_rates_at_once_have_the_intervals_of_each():
    rates = torch.tensor([[0.0, 0.2], [0.5, 1.0]])
    assert_close(interval(rates, 30)[1, 0], interval(0.5, 30))
    assert interval(rates, 30).shape == (2, 2, 2)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [20, 200])
def test_the_interval_holds_the_true_rate_95_times_in_100(p, n):
    hits = torch.arange(n + 1)
    low, high = interval(hits / n, n).unbind(-1)
    chance = torch.from_numpy(binom.pmf(hits.numpy(), n, p))
    assert 0.9 < chance[(low <= p) & (p <= high)].sum() < 0.99


def test_of_two_equal_rates_the_difference_lies_around_zero_and_shrinks_with_more_pictures():
    wide, narrow = difference(0.8, 0.8, 50), difference(0.8, 0.8, 5000)
    assert wide[0] < narrow[0] < 0 < narrow[1] < wide[1]
    assert_close(wide[0], -wide[1])


def test_the_difference_turns_round_with_its_rates():
    assert_close(difference(0.7, 0.9, 40), -difference(0.9, 0.7, 40).flip(0))


def test_the_difference_is_newcombes():
    """By hand from the intervals of 56 of 70 and 48 of 80, his first example, brought to one n."""
    low, high = difference(0.6, 0.8, 70)
    (l1, u1), (l2, u2) = ([float(x) for x in interval(share, 70)] for share in (0.6, 0.8))
    assert float(low) == pytest.approx(0.2 - math.hypot(0.8 - l2, u1 - 0.6))
    assert float(high) == pytest.approx(0.2 + math.hypot(u2 - 0.8, 0.6 - l1))


def test_with_as_many_pictures_as_needed_the_difference_is_seen_4_times_in_5():
    p, q = 0.6, 0.85
    n = sample_size(p, q)
    one, other = (binom.pmf(range(n + 1), n, rate) for rate in (p, q))
    seen = sum(
        one[i] * other[j]
        for i in range(n + 1)
        for j in range(n + 1)
        if one[i] * other[j] > 1e-6 and difference(i / n, j / n, n)[0] > 0
    )
    assert 0.75 < seen < 0.85


def test_a_fraction_of_a_picture_counts_as_one_more():
    assert sample_size(0.9, 0.98) == 135  # of 134.26
    assert sample_size(0.9, 0.92) == 3207  # of 3206.56


def test_half_the_difference_needs_four_times_as_many_pictures():
    assert sample_size(0.5, 0.52) == pytest.approx(4 * sample_size(0.5, 0.54), rel=0.02)


def test_equal_rates_have_no_difference_to_reveal():
    with pytest.raises(ValueError, match=r"between equal rates; got 0.5 and 0.5"):
        sample_size(0.5, 0.5)


# ---------------------------------------------------------------- two sets of points


def test_the_frechet_distance_is_torchmetrics():
    one, other = cloud(50), cloud(40, 1, mean=0.5)
    metric = FrechetInceptionDistance(Features())
    metric.update(one, real=True), metric.update(other, real=False)
    assert_close(frechet_distance(one, other), metric.compute(), check_dtype=False, rtol=1e-4, atol=1e-4)


def test_the_frechet_distance_has_the_root_of_a_matrix_in_it():
    one, other = cloud(50).double(), cloud(40, 1, mean=0.5).double()
    c1, c2 = torch.cov(one.T), torch.cov(other.T)
    root = torch.from_numpy(sqrtm((c1 @ c2).numpy()).real)
    want = (one.mean(0) - other.mean(0)).square().sum() + (c1 + c2 - 2 * root).trace()
    assert_close(frechet_distance(one, other), want)


def test_scaled_and_moved_points_have_a_known_frechet_distance():
    """C2 = 9 C1, so the root of C1 C2 is 3 C1, and tr(C1 + 9 C1 - 6 C1) = 4 tr C1; then the means."""
    one = cloud(30)
    want = 4 * torch.cov(one.T).trace() + (2 + 2 * one.mean(0)).square().sum()
    assert float(frechet_distance(one, 3 * one + 2)) == pytest.approx(float(want), rel=1e-4)


def test_the_frechet_distance_to_itself_is_nothing_even_of_fewer_points_than_features():
    few = cloud(4)
    assert float(frechet_distance(few, few)) == pytest.approx(0, abs=1e-5)


def test_the_frechet_distance_falls_with_more_points_though_nothing_else_changes_and_kid_does_not():
    kid, fid = ([f(cloud(n, s), cloud(n, s + 50)) for s in range(20)] for n, f in ((20, kernel_distance),) * 2)
    fid = [torch.stack([frechet_distance(cloud(n, s), cloud(n, s + 50)) for s in range(20)]).mean() for n in (10, 40)]
    kid = torch.stack(kid)
    assert fid[0] > 2 * fid[1] > 0
    assert abs(kid.mean()) < 3 * kid.std() / 20**0.5


def test_the_kernel_distance_is_torchmetrics():
    one, other = cloud(40), cloud(40, 1, mean=0.5)
    metric = KernelInceptionDistance(Features(), subsets=1, subset_size=40)
    metric.update(one, real=True), metric.update(other, real=False)
    assert_close(kernel_distance(one, other), metric.compute()[0], rtol=1e-3, atol=1e-3)


def test_the_kernel_distance_is_what_loops_find():
    one, other = cloud(5), cloud(4, 1)
    k = lambda x, y: (float(x @ y) / 6 + 1) ** 3  # noqa: E731
    alike = [
        sum(k(x, y) for i, x in enumerate(set_) for j, y in enumerate(set_) if i != j) / (len(set_) * (len(set_) - 1))
        for set_ in (one, other)
    ]
    between = sum(k(x, y) for x in one for y in other) / 20
    assert float(kernel_distance(one, other)) == pytest.approx(sum(alike) - 2 * between, rel=1e-3)


def test_a_clip_score_is_100_for_the_same_direction_and_never_below_0():
    text = torch.eye(3)
    pictures = torch.stack([2 * text[0], -text[1], text[2] + text[0]])
    assert_close(clip_score(text, pictures), torch.tensor([100, 0, 100 / 2**0.5]))


def test_inside_is_what_loops_find():
    points, known, k = cloud(30, 1), cloud(20), 3
    want = []
    for x in points:
        reaches = [sorted((known[i] - y).norm() for y in known)[k] for i in range(20)]
        want.append(any((x - known[i]).norm() <= reaches[i] for i in range(20)))
    assert inside(points, known, k).tolist() == want


@pytest.mark.parametrize("k", [0, 5, 6])
def test_more_neighbours_than_there_are_are_refused(k):
    with pytest.raises(ValueError, match=rf"k must lie between 1 and 4, with 5 known points; got {k}"):
        inside(cloud(8), cloud(5), k)
    assert inside(cloud(8), cloud(5), 4).shape == (8,)


def test_a_model_that_paints_one_of_two_kinds_has_precision_and_half_the_recall():
    real = torch.cat([cloud(100, 1), cloud(100, 2, mean=60)])
    generated = cloud(200, 3)
    assert inside(generated, real).float().mean() > 0.85
    assert 0.4 < inside(real, generated).float().mean() <= 0.5


def test_known_points_are_inside_and_far_ones_are_not():
    known = cloud(20)
    assert inside(known, known).all()
    assert not inside(known + 1000, known).any()


def test_the_nearest_is_what_loops_find_and_a_copy_has_no_distance():
    known = cloud(20)
    points = torch.cat([known[7:8], cloud(5, 1)])
    gap, which = nearest(points, known)
    assert (float(gap[0]), int(which[0])) == (0, 7)
    assert_close(gap, torch.stack([(x - known).norm(dim=1).min() for x in points]))
    assert_close(gap, (points - known[which]).norm(dim=1))


def test_variety_is_nothing_for_twins_and_one_for_right_angles():
    assert float(variety(torch.eye(5)[:1].expand(4, -1))) == pytest.approx(0)
    assert float(variety(3 * torch.eye(5))) == pytest.approx(1)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, inside, nearest])
def test_points_with_other_features_are_refused(measure):
    with pytest.raises(ValueError, match=r"must have shape \(\w, 6\); got \(5, 4\)"):
        measure(cloud(5), cloud(5, d=4))


def test_captions_without_pictures_are_refused():
    with pytest.raises(ValueError, match=r"pictures must have shape \(3, 6\); got \(1, 6\)"):
        clip_score(cloud(3), cloud(1))


def test_operations_of_layers_are_known():
    with torch.device("meta"):
        x, picture = torch.empty(5, 7), torch.empty(2, 3, 8, 8)
        linear, conv = nn.Linear(7, 11), nn.Conv2d(3, 4, 3, padding=1)
    assert operations(lambda: linear(x)) == 2 * 5 * 7 * 11
    assert operations(lambda: conv(picture)) == 2 * 2 * (3 * 3 * 3) * 4 * 8 * 8


# ---------------------------------------------------------------- the checks of the exercises


def said(capsys, check, function):
    """What a check prints about an answer."""
    assert check(function) is None
    return capsys.readouterr().out.strip()


def wilson(
    shift=lambda z, n: z**2 / (2 * n),
    inner=lambda p, z, n: z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt(),
    room=lambda z, n: 1 + z**2 / n,
    z=1.96,
    sign=1,
    dim=-1,
):
    """The solution, or one with a mistake in it."""

    def answer(p, n):
        middle, reach = p + shift(z, n), sign * inner(p, z, n)
        return torch.stack([middle - reach, middle + reach], dim) / room(z, n)

    return answer


INTERVALS = {
    "8.1 ok": wilson(),
    "1 ok": interval,
    "no room at all": wilson(lambda z, n: 0, lambda p, z, n: z * (p * (1 - p) / n).sqrt(), lambda z, n: 1),
    "divide both ends": wilson(room=lambda z, n: 1),
    "missing its z^2 / 2n": wilson(shift=lambda z, n: 0),
    "not by z^2 / n": wilson(shift=lambda z, n: z**2 / n),
    "z goes before the root": wilson(inner=lambda p, z, n: (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()),
    "n squared": wilson(inner=lambda p, z, n: z * (p * (1 - p) / n + z**2 / (4 * n)).sqrt()),
    "the root is missing": wilson(inner=lambda p, z, n: z * (p * (1 - p) / n + z**2 / (4 * n**2))),
    "z^2 / 4n^2 is missing": wilson(inner=lambda p, z, n: z * (p * (1 - p) / n).sqrt()),
    "is z^2 / (2n)": wilson(lambda z, n: z**2 / 2 * n, lambda p, z, n: z * (p * (1 - p) / n + z**2 / 4 * n**2).sqrt()),
    "1.96, not 1": wilson(z=1),
    "lower end comes first": wilson(sign=-1),
    "wanted shape (4, 2)": wilson(dim=0),
}


@pytest.mark.parametrize("word", INTERVALS)
def test_check_interval(capsys, word):
    assert word in said(capsys, check_interval, INTERVALS[word])


def frechet(
    gap=lambda x, y: (x - y).square().sum(),
    root=lambda a, b: torch.linalg.eigvals(a @ b).sqrt().real.sum(),
    factor=-2,
    end=lambda x: x,
    correction=1,
):
    """The solution, or one with a mistake in it."""

    def answer(one, other):
        a, b = (torch.cov(x.T, correction=correction) for x in (one, other))
        return end(gap(one.mean(0), other.mean(0)) + a.trace() + b.trace() + factor * root(a, b))

    return answer


FRECHETS = {
    "8.2 ok": frechet(),
    "2 ok": frechet_distance,
    "means is missing": frechet(gap=lambda x, y: 0),
    "only the distance of the means": lambda one, other: (one.mean(0) - other.mean(0)).square().sum(),
    "means is squared": frechet(gap=lambda x, y: (x - y).norm()),
    "add them up": frechet(gap=lambda x, y: (x - y).square().mean()),
    "counts twice": frechet(factor=-1),
    "the root is subtracted": frechet(factor=2),
    "each of its numbers": frechet(root=lambda a, b: (a @ b).clamp(min=0).sqrt().trace()),
    "not `*`": frechet(root=lambda a, b: (a * b).sqrt().trace()),
    "add up the roots": frechet(root=lambda a, b: torch.linalg.eigvals(a @ b).real.sum()),
    "no root at the end": frechet(end=torch.sqrt),
    "divides by b - 1": frechet(correction=0),
    "fewer points than features: there are NaNs": frechet(
        root=lambda a, b: torch.linalg.eigvals(a @ b).real.sqrt().sum()
    ),
    "take `.real`": frechet(root=lambda a, b: torch.linalg.eigvals(a @ b).sqrt().sum()),
}


@pytest.mark.parametrize("word", FRECHETS)
def test_check_frechet(capsys, word):
    assert word in said(capsys, check_frechet, FRECHETS[word])


def kernel(k=lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3, mean=None, factor=-2, end=lambda x: x):
    """The solution, or one with a mistake in it."""
    mean = mean or (lambda x: (x.sum() - x.trace()) / (len(x) * (len(x) - 1)))
    return lambda one, other: end(mean(k(one, one)) + mean(k(other, other)) + factor * k(one, other).mean())


def off_diagonal(one, other):
    """How far the mean between two sets moves if its diagonal is left out."""
    between = (one @ other.T / one.shape[1] + 1) ** 3
    return between.mean() - (between.sum() - between.trace()) / (between.numel() - min(between.shape))


KERNELS = {
    "8.3 ok": kernel(),
    "3 ok": kernel_distance,
    "with itself": kernel(mean=torch.mean),
    "not out of the mean between": lambda one, other: kernel()(one, other) + 2 * off_diagonal(one, other),
    "b (b - 1) pairs": kernel(mean=lambda x: (x.sum() - x.trace()) / len(x) ** 2),
    "counts twice": kernel(factor=-1),
    "is subtracted": kernel(factor=2),
    "divide x y by d": kernel(lambda x, y: (x @ y.T + 1) ** 3),
    "not of points": kernel(lambda x, y: (x @ y.T / len(x) + 1) ** 3),
    "not the second": kernel(lambda x, y: (x @ y.T / 4 + 1) ** 2),
    "the power is missing": kernel(lambda x, y: x @ y.T / 4 + 1),
    "before the power": kernel(lambda x, y: (x @ y.T / 4) ** 3),
    "no root at the end": kernel(end=lambda x: x.abs().sqrt()),
    "other way round": kernel(end=lambda x: -x),
}


@pytest.mark.parametrize("word", KERNELS)
def test_check_kernel(capsys, word):
    assert word in said(capsys, check_kernel, KERNELS[word])


def reaching(
    which=lambda k: k,
    of=lambda points, known: torch.cdist(known, known),
    near=lambda far, reach: far <= reach,
    end=lambda x: x.any(1),
):
    """The solution, or one with a mistake in it."""
    return lambda points, known, k: end(near(torch.cdist(points, known), of(points, known).sort(1).values[:, which(k)]))


def only_the_nearest(points, known, k):
    far, reach = torch.cdist(points, known), torch.cdist(known, known).sort(1).values[:, k]
    return far.min(1).values <= reach[far.argmin(1)]


def own_reach(points, known, k):
    return (torch.cdist(points, known) <= torch.cdist(points, points).sort(1).values[:, k][:, None]).any(1)


INSIDES = {
    "8.4 ok": reaching(),
    "4 ok": inside,
    "at distance 0": reaching(which=lambda k: k - 1),
    "one neighbour too far": reaching(which=lambda k: k + 1),
    "a reach of its own": reaching(near=lambda far, reach: far <= reach.mean()),
    "any, not all": reaching(end=lambda x: x.all(1)),
    "Any other may": only_the_nearest,
    "among themselves": own_reach,
    "which lie outside": reaching(end=lambda x: ~x.any(1)),
    "only whether": reaching(end=lambda x: x.sum(1)),
    "wanted shape (60,)": reaching(end=lambda x: x.any(0)),
}


@pytest.mark.parametrize("word", INSIDES)
def test_check_inside(capsys, word):
    assert word in said(capsys, check_inside, INSIDES[word])


def paired(middle=lambda gap: gap.mean(), error=lambda gap: gap.std() / len(gap) ** 0.5, z=1.96):
    """The solution, or one with a mistake in it."""

    def answer(one, other):
        gap = other - one
        return torch.stack([middle(gap) - z * error(gap), middle(gap) + z * error(gap)])

    return answer


def apart(one, other):
    error = ((one.var() + other.var()) / len(one)).sqrt()
    return torch.stack([(other - one).mean() - 1.96 * error, (other - one).mean() + 1.96 * error])


PAIRS = {
    "8.5 ok": paired(),
    "5 ok": paired(error=lambda gap: gap.std(correction=0) / len(gap) ** 0.5),
    "taken from other": lambda one, other: paired()(other, one),
    "prompts of their own": apart,
    "one picture lies": paired(error=lambda gap: gap.std()),
    "not by n": paired(error=lambda gap: gap.std() / len(gap)),
    "not one": paired(z=1),
    "not the variance": paired(error=lambda gap: gap.var() / len(gap) ** 0.5),
    "comes first": paired(z=-1.96),
    "not around 0": paired(middle=lambda gap: 0 * gap.mean()),
}


@pytest.mark.parametrize("word", PAIRS)
def test_check_paired(capsys, word):
    assert word in said(capsys, check_paired, PAIRS[word])


def unit(points, dim=1):
    return points / points.norm(dim=dim, keepdim=True)


def apart_from_others(x, b=6):
    return (x.sum() - x.trace()) / (b * (b - 1))


VARIETIES = {
    "8.6 ok": variety,
    "6 ok": lambda points: 1 - apart_from_others(unit(points) @ unit(points).T),
    "with itself": lambda points: 1 - (unit(points) @ unit(points).T).mean(),
    "there are b (b - 1) pairs": lambda points: 1 - apart_from_others(unit(points) @ unit(points).T) * 5 / 6,
    "to length 1 first": lambda points: 1 - apart_from_others(points @ points.T),
    "1 - cosine": lambda points: apart_from_others(unit(points) @ unit(points).T),
    "half of it": lambda points: 1 - 2 * apart_from_others(unit(points) @ unit(points).T),
    "not for each feature": lambda points: 1 - apart_from_others(unit(points, 0) @ unit(points, 0).T),
    "not the Euclidean": lambda points: apart_from_others(torch.cdist(unit(points), unit(points))),
}


@pytest.mark.parametrize("word", VARIETIES)
def test_check_variety(capsys, word):
    assert word in said(capsys, check_variety, VARIETIES[word])
