"""The checks of lesson 7."""

from collections.abc import Callable

import torch
from torch import Tensor

from sdlearn.notebook.checks import NOTHING, Hints, ask, compare, exercise, kind, plain


@exercise("7.1")
def check_new_vector(
    my_new_vector: Callable,  # table, like, eps -> vector
) -> Hints:
    """Where a new word starts."""
    g = torch.Generator().manual_seed(71)
    table, eps, like = torch.randn(20, 5, generator=g), torch.randn(5, generator=g), torch.tensor([3, 7, 8, 15, 2])
    rows = table[like]  # as many as there are numbers in a row: an axis that is mistaken raises nothing
    mean, spread = rows.mean(0), rows.std(0)
    want, also = mean + spread * eps, mean + rows.std(0, correction=0) * eps  # both are right
    wrong = {
        "this is the mean alone: add eps, times the standard deviation": mean,
        "the mean is missing: eps only says which way to go from there": spread * eps,
        "eps is too large: multiply it by the standard deviation of the rows": mean + eps,
        "mean and standard deviation over the rows `like`, not over the whole table": table.mean(0)
        + table.std(0) * eps,
        "the standard deviation too is that of the rows `like`": mean + table.std(0) * eps,
        "the mean too is that of the rows `like`": table.mean(0) + spread * eps,
        "mean and standard deviation over the rows: axis 0": rows.mean(1) + rows.std(1) * eps,
        "one standard deviation for each of the d numbers: axis 0": mean + rows.std() * eps,
        "one mean and one standard deviation for each of the d numbers: axis 0": rows.mean() + rows.std() * eps,
        "that is the variance: take its root": mean + spread**2 * eps,
        "eps is added, not subtracted": mean - spread * eps,
        "that starts on one of the words: start at their mean": rows[0] + spread * eps,
    }
    hint_for = lambda got: compare(got, want, wrong) and compare(got, also, wrong)  # noqa: E731
    yield ask(my_new_vector, hint_for, table=table, like=like, eps=eps)


@exercise("7.2")
def check_lora(
    my_lora: Callable,  # y, x, A, B, scale -> y
) -> Hints:
    """A layer with a LoRA beside it."""
    g = torch.Generator().manual_seed(72)
    for r, i, o in ((4, 4, 4), (2, 6, 5)):  # square first: a transpose that is missing raises nothing
        x, y = torch.randn(2, 3, i, generator=g), torch.randn(2, 3, o, generator=g)
        A, B = torch.randn(r, i, generator=g), torch.randn(o, r, generator=g)
        beside = (x @ A.T) @ B.T
        wrong: dict[str, Tensor | Callable[[], Tensor]] = {
            "this is the LoRA alone: add what the layer makes of x": 0.5 * beside,
            "`scale` is not used": y + beside,
            "`scale` belongs to the LoRA only": 0.5 * (y + beside),
            "this is the layer alone: nothing was added": y,
            "the LoRA is added, not subtracted": y - 0.5 * beside,
            "`scale` counts once": y + 0.25 * beside,
        }
        if r == i:
            wrong |= {
                "first A, then B": y + 0.5 * (x @ B.T) @ A.T,
                "both matrices are turned: x @ A.T, as in torch's linear layer": y + 0.5 * (x @ A) @ B,
                "A is turned: x @ A.T, as in torch's linear layer": y + 0.5 * (x @ A) @ B.T,
                "B is turned: ... @ B.T, as in torch's linear layer": y + 0.5 * (x @ A.T) @ B,
                "B is missing": y + 0.5 * x @ A.T,
                "the LoRA's input is x, not y": y + 0.5 * (y @ A.T) @ B.T,
            }
        yield compare(my_lora(y=y, x=x, A=A, B=B, scale=0.5), y + 0.5 * beside, wrong)


@exercise("7.3")
def check_prior_loss(
    my_prior_loss: Callable,  # pred, eps, old, weight -> loss
) -> Hints:
    """The loss with prior preservation."""
    pred, eps = torch.randn(2, 5, 4, 2, 2, generator=torch.Generator().manual_seed(73))
    pred = pred * torch.arange(1, 6)[:, None, None, None]
    old, gap = torch.tensor([False, True, False, False, True]), pred - eps
    error = gap.square().flatten(1).mean(1)
    new, before = error[~old].mean(), error[old].mean()
    wrong = {
        "`weight` is not used": new + before,
        "this is one mean over all pictures: take one of the new and one of the old": error.mean(),
        "`weight` belongs to the old pictures, those where `old` is True": 0.5 * new + before,
        "the old pictures are missing": new,
        "the new pictures are missing": 0.5 * before,
        "the old pictures are added, not subtracted": new - 0.5 * before,
        "means, not sums": error[~old].sum() + 0.5 * error[old].sum(),
        "two means, each over its own pictures: you divide by all": (error * torch.where(old, 0.5, 1.0)).mean(),
        "no division by 1 + weight": (new + 0.5 * before) / 1.5,
        "the error is squared": gap.abs()[~old].mean() + 0.5 * gap.abs()[old].mean(),
    }
    yield compare(my_prior_loss(pred=pred, eps=eps, old=old, weight=0.5), new + 0.5 * before, wrong)
    got = my_prior_loss(pred=pred, eps=eps, old=torch.zeros(5, dtype=torch.bool), weight=0.5)
    if isinstance(got, Tensor) and got.isnan().any():
        yield "where a batch has no old pictures, a mean over them is NaN: ask `old.any()` first"
    yield compare(got, error.mean())


@exercise("7.4")
def check_join(
    my_join: Callable,  # A1, B1, scale1, A2, B2, scale2 -> A, B
) -> Hints:
    """Two LoRAs in one."""
    g = torch.Generator().manual_seed(74)
    A1, A2 = torch.randn(2, 5, generator=g), torch.randn(3, 5, generator=g)
    B1, B2 = torch.randn(4, 2, generator=g), torch.randn(4, 3, generator=g)
    got = my_join(A1=A1, B1=B1, scale1=0.5, A2=A2, B2=B2, scale2=2.0)
    if got is None:
        yield NOTHING
    if not isinstance(got, tuple | list) or len(got) != 2 or not all(isinstance(x, Tensor) for x in got):
        yield f"wanted two tensors: `return A, B`; got {kind(got)}"
    A, B = map(plain, got)
    for name, matrix, shape in (("A", A, (5, 5)), ("B", B, (4, 5))):
        if matrix.shape != shape:
            yield f"{name} must have shape {shape}: the ranks add up, 2 + 3; got {tuple(matrix.shape)}"
    one, two = B1 @ A1, B2 @ A2
    wrong = {
        "the scales are missing: put each into its A or its B": one + two,
        "scale1 is missing": one + 2 * two,
        "scale2 is missing": 0.5 * one + two,
        "each scale counts twice: put it into A or into B, not into both": 0.25 * one + 4 * two,
        "the scales have changed places": 2 * one + 0.5 * two,
        "A and B put the two in different orders": torch.cat([B2, B1], 1) @ torch.cat([A1, A2]),
    }
    yield compare(B @ A, 0.5 * one + 2 * two, wrong)


@exercise("7.5")
def check_ratio(
    my_ratio: Callable,  # drawn, training, k -> ratios
) -> Hints:
    """A copy is much nearer to one picture than to the others (after arXiv 2301.13188)."""
    g = torch.Generator().manual_seed(75)
    training = torch.randn(4, 3, 4, 4, generator=g)
    drawn = training[[2, 0, 1, 3]] + torch.tensor([0.1, 0.5, 1, 2])[:, None, None, None] * torch.randn(
        4, 3, 4, 4, generator=g
    )
    far = torch.cdist(drawn.flatten(1), training.flatten(1))  # b n
    near = far.sort(1).values
    mean = near[:, :3].mean(1)
    wrong = {
        "this is the distance to the nearest: divide it by the mean of the k nearest": near[:, 0],
        "the mean over the k nearest, not over all training pictures": near[:, 0] / near.mean(1),
        "the mean of the k nearest, not the distance to the k-th": near[:, 0] / near[:, 2],
        "the ratio is upside down": mean / near[:, 0],
        "the nearest counts among the k nearest": near[:, 0] / near[:, 1:4].mean(1),
        "distances, not their squares": near[:, 0] ** 2 / (near[:, :3] ** 2).mean(1),
        "sort along axis 1: for each drawn picture its distances to all training pictures": far.sort(0).values[0]
        / far.sort(0).values[:3].mean(0),
        "the mean, not the sum": near[:, 0] / near[:, :3].sum(1),
    }
    given = dict(drawn=drawn, training=training, k=3)
    yield ask(my_ratio, lambda got: compare(got, near[:, 0] / mean, wrong, atol=1e-4), **given)


@exercise("7.6")
def check_duplicates(
    my_duplicates: Callable,  # pictures, limit -> True for those that are to go
) -> Hints:
    """Which pictures repeat an earlier one."""
    g = torch.Generator().manual_seed(76)
    several = torch.randn(4, 3, 4, 4, generator=g)[[0, 1, 0, 2, 1, 0, 3]]
    pictures = several + 0.05 * torch.randn(several.shape, generator=g)
    rms = (pictures[:, None] - pictures).square().mean((2, 3, 4)).sqrt()  # n n
    near = rms < 0.1
    want = near.tril(-1).any(1)
    wrong = {
        "each picture is near to itself: compare it with the earlier ones only": torch.ones(7),
        "the first of several equal ones stays: compare each with the earlier ones only": (near.sum(1) > 1),
        "that keeps the last of several equal ones, not the first": near.triu(1).any(1),
        "True is for those that are to go": ~want,
        "all are False: is the limit compared with a sum, not with a root of a mean square?": torch.zeros(7),
    }
    got = my_duplicates(pictures=pictures, limit=0.1)
    yield compare(got, want.float(), {hint: answer.float() for hint, answer in wrong.items()})
