"""Lesson 8: how good a model's pictures are, and how certain we can be.

`points` are pictures as a network sees them, one row of features for each: from CLIP, or from any other network.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sdlearn.shapes import check_shape


def interval(
    rate: float | Tensor,  # any shape, 0 .. 1: fractions of `n` pictures
    n: int,
    z: float = 1.96,  # standard deviations: 1.96 for 95 times in 100
) -> Tensor:  # ... 2, the lower and the upper end, 0 .. 1
    """Where the true rate lies: Wilson's interval, valid near 0 and 1 too.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) (Wilson 1927, JASA 22).
    """
    p = torch.as_tensor(rate, dtype=torch.float64)
    middle = p + z**2 / (2 * n)
    reach = z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
    return torch.stack([middle - reach, middle + reach], -1) / (1 + z**2 / n)


def difference(
    one: float,  # 0 .. 1, a fraction of `n` pictures
    other: float,  # 0 .. 1, a fraction of `n` other pictures
    n: int,
) -> Tensor:  # 2, the lower and the upper end of other - one, -1 .. 1
    """How far apart two true rates are, from the interval of each (Newcombe 1998, Stat. Med. 17, method 10)."""
    gap, (low, high), (low_other, high_other) = other - one, interval(one, n), interval(other, n)
    below = ((other - low_other) ** 2 + (high - one) ** 2).sqrt()
    above = ((high_other - other) ** 2 + (one - low) ** 2).sqrt()
    return torch.stack([gap - below, gap + above])


def sample_size(
    one: float,  # 0 .. 1, a true rate
    other: float,  # 0 .. 1, another
) -> int:  # pictures of each model
    """How many pictures reveal the difference 4 times in 5, rounded up.

    (1.96 + 0.84)^2 (p (1 - p) + q (1 - q)) / (p - q)^2, where p is `one` and q is `other`.
    Raises ValueError for equal rates, between which there is no difference.
    """
    if one == other:
        raise ValueError(f"no number of pictures shows a difference between equal rates; got {one} and {other}")
    return math.ceil((1.96 + 0.84) ** 2 * (one * (1 - one) + other * (1 - other)) / (one - other) ** 2)


def frechet_distance(
    one: Tensor,  # b d, points
    other: Tensor,  # c d, points
) -> Tensor:  # scalar, 0 if means and covariances are equal
    """FID: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), between two Gaussians (arXiv 1706.08500, eq. 6)."""
    check_shape(other, "other", "c", one.shape[-1])
    one, other = one.double(), other.double()
    c1, c2 = torch.cov(one.T), torch.cov(other.T)
    roots = torch.linalg.eigvals(c1 @ c2).sqrt().real  # their sum is the trace of the root
    return (one.mean(0) - other.mean(0)).square().sum() + c1.trace() + c2.trace() - 2 * roots.sum()


def kernel_distance(
    one: Tensor,  # b d, points
    other: Tensor,  # c d, points
) -> Tensor:  # scalar, on average 0 if both come from one distribution, so sometimes below 0
    """KID: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), k = (x y / d + 1)^3 (arXiv 1801.01401, section 4).

    Within a set, each point is compared with all *others*: with itself included, the mean would be too large.
    """
    check_shape(other, "other", "c", one.shape[-1])
    (b, d), c = one.shape, len(other)
    within_one, within_other, between = ((x @ y.T / d + 1) ** 3 for x, y in ((one, one), (other, other), (one, other)))
    alike = (within_one.sum() - within_one.trace()) / (b * (b - 1))
    return alike + (within_other.sum() - within_other.trace()) / (c * (c - 1)) - 2 * between.mean()


def clip_score(
    text: Tensor,  # b d, captions as points
    pictures: Tensor,  # b d, pictures as points: picture i belongs to text i
) -> Tensor:  # b, 0 .. 100
    """100 max(cosine, 0) of caption and picture (arXiv 2104.08718, eq. 1, there with 2.5 in place of 100)."""
    check_shape(pictures, "pictures", *text.shape)
    return 100 * F.cosine_similarity(text, pictures, dim=-1).clamp(min=0)


def inside(
    points: Tensor,  # b d
    known: Tensor,  # n d
    k: int = 3,  # neighbours, 1 .. n - 1
) -> Tensor:  # b, True where a point lies inside
    """Whether each point is as near to some known one as that one's k-th neighbour is (arXiv 1904.06991, eq. 1).

    Precision is the fraction of generated points inside the real ones, recall that of real points inside the generated.
    Raises ValueError if a known point has fewer than k neighbours.
    """
    check_shape(known, "known", "n", points.shape[-1])
    if not 1 <= k < len(known):
        raise ValueError(f"k must lie between 1 and {len(known) - 1}, with {len(known)} known points; got {k}")
    reach = distances(known, known).kthvalue(k + 1).values  # n; the nearest of all is the point itself
    return (distances(points, known) <= reach).any(1)


def distances(
    points: Tensor,  # b d
    known: Tensor,  # n d
) -> Tensor:  # b n
    """Euclidean distances, exact: a matrix product would be quicker, but inaccurate for near points."""
    return torch.cdist(points, known, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(
    points: Tensor,  # b d
    known: Tensor,  # n d
) -> tuple[Tensor, Tensor]:  # b each: the distance to the nearest known point, and which one it is
    """The nearest neighbour of each point."""
    check_shape(known, "known", "n", points.shape[-1])
    return distances(points, known).min(1)


def variety(
    points: Tensor,  # b d, not 0
) -> Tensor:  # scalar, 0: all the same, 1: unrelated
    """Mean distance, 1 - cosine, between two different points."""
    points, b = F.normalize(points, dim=-1), len(points)
    return 1 - ((points @ points.T).sum() - b) / (b * (b - 1))


def operations(
    run: Callable[[], object],  # what to count: called once; on the `meta` device it costs nothing
) -> int:
    """Multiplications and additions in matrix products and convolutions, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
