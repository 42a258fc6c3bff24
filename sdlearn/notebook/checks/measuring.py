"""The checks of lesson 8."""

from collections.abc import Callable

import torch
from torch import Tensor

from sdlearn import measuring
from sdlearn.notebook.checks import Hints, ask, compare, exercise

Z = 1.96


@exercise("8.1")
def check_interval(
    my_interval: Callable,  # rate, n -> lower and upper ends
) -> Hints:
    """Wilson's interval."""
    p = torch.tensor([0.0, 0.3, 0.9, 1.0])
    for n in (20, 500):
        spread, shift, room = (p * (1 - p) / n).sqrt(), Z**2 / (2 * n), 1 + Z**2 / n
        reach = Z * (p * (1 - p) / n + Z**2 / (4 * n**2)).sqrt()
        want = ends(p + shift, reach) / room
        wrong = {
            "that is p -+ 1.96 standard errors, which at 0 and 1 gives no room at all": ends(p, Z * spread),
            "divide both ends by 1 + z^2 / n": want * room,
            "the middle is missing its z^2 / 2n": ends(p, reach) / room,
            "the middle moves by z^2 / 2n, not by z^2 / n": ends(p + 2 * shift, reach) / room,
            "z^2 / 2n is z^2 / (2n), and z^2 / 4n^2 is z^2 / (4n^2)": ends(
                p + Z**2 / 2 * n, Z * (p * (1 - p) / n + Z**2 / 4 * n**2).sqrt()
            )
            / room,
            "z goes before the root as well": ends(p + shift, reach / Z) / room,
            "under the root it is z^2 / 4n^2: n squared": ends(p + shift, Z * (p * (1 - p) / n + Z**2 / (4 * n)).sqrt())
            / room,
            "the root is missing": ends(p + shift, Z * (p * (1 - p) / n + Z**2 / (4 * n**2))) / room,
            "under the root z^2 / 4n^2 is missing": ends(p + shift, Z * spread) / room,
            "z is 1.96, not 1": measuring.interval(p, n, 1.0),
            "the lower end comes first": want.flip(-1),
        }
        yield ask(my_interval, lambda got, want=want, wrong=wrong: compare(got, want, wrong), rate=p, n=n)


def ends(
    middle: Tensor,  # b
    reach: Tensor,  # b
) -> Tensor:  # b 2
    """The lower and the upper end of intervals."""
    return torch.stack([middle - reach, middle + reach], -1)


@exercise("8.2")
def check_frechet(
    my_frechet: Callable,  # one, other -> distance
) -> Hints:
    """The Frechet distance of two Gaussians."""
    generator = torch.Generator().manual_seed(82)
    turn = torch.tensor([[1.0, 0.8, 0.0], [0.0, 1.0, 0.3], [0.5, 0.0, 1.0]])
    one = torch.randn(40, 3, generator=generator)
    other = torch.randn(30, 3, generator=generator) @ turn + torch.tensor([1.0, -0.5, 0.25])
    gap, c1, c2 = one.mean(0) - other.mean(0), torch.cov(one.T), torch.cov(other.T)
    traces, root = c1.trace() + c2.trace(), torch.linalg.eigvals(c1 @ c2).sqrt().real.sum()
    want = gap.square().sum() + traces - 2 * root
    b, c = len(one), len(other)
    wrong = {
        "the distance of the means is missing": traces - 2 * root,
        "that is only the distance of the means: the covariances are missing": gap.square().sum(),
        "the distance of the means is squared": gap.norm() + traces - 2 * root,
        "the mean of the squares is too little: add them up": gap.square().mean() + traces - 2 * root,
        "the root counts twice: - 2 tr(...)": want + root,
        "the root is subtracted, not added": want + 4 * root,
        "the root of a matrix is not the root of each of its numbers": want
        + 2 * root
        - 2 * (c1 @ c2).clamp(min=0).sqrt().trace(),
        "the product of two matrices is `@`, not `*`": want + 2 * root - 2 * (c1 * c2).sqrt().trace(),
        "add up the roots of the eigenvalues: these are the eigenvalues themselves": want
        + 2 * root
        - 2 * (c1 @ c2).trace(),
        "no root at the end: the square of the distance is wanted": want.sqrt(),
        "`torch.cov` divides by b - 1; yours divides by b": gap.square().sum()
        + c1.trace() * (b - 1) / b
        + c2.trace() * (c - 1) / c
        - 2 * root * ((b - 1) * (c - 1) / (b * c)) ** 0.5,
    }
    yield ask(my_frechet, lambda got: compare(got, want, wrong, atol=1e-4), one=one, other=other)
    yield ask(my_frechet, lambda got: compare(got, torch.tensor(0.0), atol=1e-3), one=one, other=one + 0.0)
    few, fewer = torch.randn(2, 4, 12, generator=generator)  # fewer points than features: by rounding, roots of < 0
    want = measuring.frechet_distance(few, fewer)
    hint = ask(my_frechet, lambda got: compare(got, want, atol=0.05), one=few, other=fewer)
    yield hint and f"with fewer points than features: {hint}"


@exercise("8.3")
def check_kernel(
    my_kernel: Callable,  # one, other -> distance
) -> Hints:
    """The kernel distance without bias."""
    one, other = 1.5 * torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(83))
    other = other[:5] + 1  # two numbers of points, so that each mean is divided by its own
    kernel = lambda x, y, d=4, power=3, more=1: (x @ y.T / d + more) ** power  # noqa: E731
    want = unbiased(one, other, kernel)
    biased = kernel(one, one).mean() + kernel(other, other).mean() - 2 * kernel(one, other).mean()
    (a, b), between = (mean_of_others(kernel(x, x)) for x in (one, other)), kernel(one, other).mean()
    wrong = {
        "each point is compared with itself, too: leave the diagonal out of the two means within": biased,
        "leave the diagonal out of the means within only, not out of the mean between": a
        + b
        - 2 * (kernel(one, other).sum() - kernel(one, other).trace()) / (7 * 5 - 5),
        "without the diagonal there are b (b - 1) pairs: divide by that, not by b b": a * 6 / 7
        + b * 4 / 5
        - 2 * between,
        "the mean between the two counts twice": a + b - between,
        "the mean between the two is subtracted": a + b + 2 * between,
        "d is the number of features, not of points": unbiased(one, other, lambda x, y: kernel(x, y, len(x))),
        "divide x y by d before 1 is added": unbiased(one, other, lambda x, y: kernel(x, y, 1)),
        "the third power, not the second": unbiased(one, other, lambda x, y: kernel(x, y, power=2)),
        "the power is missing": unbiased(one, other, lambda x, y: kernel(x, y, power=1)),
        "1 is to be added before the power is taken": unbiased(one, other, lambda x, y: kernel(x, y, more=0)),
        "no root at the end": want.abs().sqrt(),
        "the other way round: within minus between": -want,
    }
    yield ask(my_kernel, lambda got: compare(got, want, wrong, atol=1e-3), one=one, other=other)


def mean_of_others(
    kernel: Tensor,  # b b
) -> Tensor:  # scalar
    """The mean without the diagonal."""
    b = len(kernel)
    return (kernel.sum() - kernel.trace()) / (b * (b - 1))


def unbiased(one: Tensor, other: Tensor, kernel: Callable) -> Tensor:
    """The kernel distance with any kernel."""
    return mean_of_others(kernel(one, one)) + mean_of_others(kernel(other, other)) - 2 * kernel(one, other).mean()


@exercise("8.4")
def check_inside(
    my_inside: Callable,  # points, known, k -> True where inside
) -> Hints:
    """What lies inside the reach of known points."""
    generator = torch.Generator().manual_seed(84)
    known = torch.randn(30, 2, generator=generator) * torch.linspace(0.3, 3, 30)[:, None]  # dense and sparse
    points = 2 * torch.randn(60, 2, generator=generator)
    gaps, own = torch.cdist(points, known), torch.cdist(known, known)
    for k in (3, 1):
        reach = lambda far, k=k: far.sort(1).values[:, k]  # noqa: E731
        want = (gaps <= reach(own)).any(1)
        wrong = {
            "the nearest of all is the known point itself, at distance 0: take neighbour k after it": (
                gaps <= own.sort(1).values[:, k - 1]
            ).any(1),
            "one neighbour too far: at index 0 is the point itself, at index k its k-th neighbour": (
                gaps <= reach(own, k + 1)
            ).any(1),
            "each known point has a reach of its own: no mean over them": (gaps <= reach(own).mean()).any(1),
            "one known point that is near enough will do: any, not all": (gaps <= reach(own)).all(1),
            "ask only whether the nearest known point reaches that far? Any other may": torch.take_along_dim(
                gaps <= reach(own), gaps.argmin(1)[:, None], 1
            )[:, 0],
            "the reach is that of the known points among themselves, not of the points": (
                gaps <= reach(torch.cdist(points, points))[:, None]
            ).any(1),
            "that says which lie outside": ~want,
            "that says how many known points reach so far: only whether": (gaps <= reach(own)).sum(1),
        }
        wrong = {hint: answer.float() for hint, answer in wrong.items()}
        hint_for = lambda got, want=want, wrong=wrong: compare(got, want.float(), wrong)  # noqa: E731
        yield ask(my_inside, hint_for, points=points, known=known, k=k)


@exercise("8.5")
def check_paired(
    my_paired: Callable,  # one, other -> lower and upper end
) -> Hints:
    """The interval of a difference, where both models had the same prompts."""
    one = torch.tensor([1.0] * 14 + [0.0] * 6)
    other = torch.tensor([1.0] * 13 + [0.0] + [1.0] * 2 + [0.0] * 4)
    gaps, n = other - one, 20
    error = gaps.std() / n**0.5
    apart = ((one.var() + other.var()) / n).sqrt()
    want = around(gaps.mean(), Z * error)
    wrong = {
        "one is taken from other, not other from one": around(-gaps.mean(), Z * error),
        "that is for two models with prompts of their own: take the standard deviation of the gaps": around(
            gaps.mean(), Z * apart
        ),
        "that is how far one picture lies: divide the standard deviation by the root of n": around(
            gaps.mean(), Z * gaps.std()
        ),
        "divide by the root of n, not by n": around(gaps.mean(), Z * gaps.std() / n),
        "1.96 standard errors to each side, not one": around(gaps.mean(), error),
        "the standard deviation, not the variance": around(gaps.mean(), Z * gaps.var() / n**0.5),
        "the lower end comes first": want.flip(0),
        "around the mean difference, not around 0": around(torch.tensor(0.0), Z * error),
        "that is the standard deviation of one alone": around(gaps.mean(), Z * one.std() / n**0.5),
    }
    yield compare(my_paired(one=one, other=other), want, wrong, atol=6e-3)


def around(
    middle: Tensor,  # scalar
    reach: Tensor,  # scalar
) -> Tensor:  # 2
    """The ends of one interval."""
    return ends(middle[None], reach[None])[0]


@exercise("8.6")
def check_variety(
    my_variety: Callable,  # points -> mean distance
) -> Hints:
    """How different pictures are from one another."""
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(86)) + 1
    unit = points / points.norm(dim=1, keepdim=True)
    cosines, b = unit @ unit.T, 6
    want = 1 - (cosines.sum() - b) / (b * (b - 1))
    wrong = {
        "each picture is compared with itself, too: leave the diagonal out": 1 - cosines.mean(),
        "without the diagonal there are b (b - 1) pairs": 1 - (cosines.sum() - b) / b**2,
        "bring the points to length 1 first": 1 - ((points @ points.T).sum() - points.square().sum()) / (b * (b - 1)),
        "that is the mean cosine: the distance is 1 - cosine": 1 - want,
        "each pair twice, so divide by b (b - 1), not by half of it": 1 - 2 * (1 - want),
        "length 1 for each picture, not for each feature": 1
        - mean_of_others((points / points.norm(dim=0)) @ (points / points.norm(dim=0)).T),
        "1 - cosine, not the Euclidean distance": torch.cdist(unit, unit).sum() / (b * (b - 1)),
    }
    yield ask(my_variety, lambda got: compare(got, want, wrong), points=points)
