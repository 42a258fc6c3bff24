"""Does a picture show what its prompt said? A judge, a small classifier, reads pictures, and we count.

The judge is trained on blurred and noisy pictures too, since the VAE blurs, and on held-out pairs too, since it
must read them as reliably as the others.
"""

import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn.scenes import SIZE, WORDINGS, WORDS
from sdlearn.shapes import check_pictures


class Judge(nn.Module):
    """A convolutional network from a picture to one score for each value of each attribute."""

    def __init__(
        self,
        size: int = SIZE,  # pixels a side of the pictures, divisible by 16
    ):
        super().__init__()
        widths = (3, 24, 48, 64, 96)  # channels at 64, 32, 16, 8 and 4 pixels a side
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.SiLU()
                )
                for a, b in pairwise(widths)
            ),
            nn.Flatten(),
        )
        self.scores = nn.Linear(widths[-1] * (size // 16) ** 2, sum(map(len, WORDS.values())))

    def forward(
        self,
        pictures: Tensor,  # b c h w, -1 .. 1
    ) -> dict[str, Tensor]:  # attribute -> b values
        return by_attribute(self.scores(self.layers(pictures)))


def by_attribute(
    scores: Tensor,  # b values, those of all attributes side by side
) -> dict[str, Tensor]:  # attribute -> b values
    """Split the output of a judge's last layer by attribute."""
    return dict(zip(WORDS, scores.split([len(values) for values in WORDS.values()], 1), strict=True))


def judge_loss(
    judge: Judge,
    pictures: Tensor,  # b c h w, -1 .. 1
    answers: Tensor,  # b attributes, the index of the right value
) -> Tensor:  # scalar
    """Cross entropy, summed over the attributes."""
    scores = judge(pictures)
    return torch.stack([F.cross_entropy(scores[name], answers[:, i]) for i, name in enumerate(WORDS)]).sum()


def degrade(
    pictures: Tensor,  # b c h w, -1 .. 1
    generator: torch.Generator,
) -> Tensor:  # b c h w
    """Blur or coarsen half the pictures; add noise and a tint to all: a decoder's flaws must not confuse the judge."""
    b = len(pictures)
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
    which = torch.randint(4, (b, 1, 1, 1), generator=generator)
    degraded = torch.where(which == 0, soft, torch.where(which == 1, coarse, pictures))
    noise = torch.randn(pictures.shape, generator=generator) * 0.12 * torch.rand(b, 1, 1, 1, generator=generator)
    light = 0.05 * torch.randn(b, 3, 1, 1, generator=generator)
    return (degraded + noise + light).clamp(-1, 1)


def answers(
    attributes: list[dict[str, str]],  # one scene each
) -> Tensor:  # b attributes, the index of each value in WORDS
    """Turn attributes into numbers."""
    return torch.tensor([[WORDS[name].index(scene[name]) for name in WORDS] for scene in attributes])


@torch.no_grad()
def read(
    judge: nn.Module,
    pictures: Tensor,  # b c h w, -1 .. 1
) -> list[dict[str, str]]:  # what the judge sees in each
    """Name the value of every attribute of every picture."""
    check_pictures(pictures, 1)
    best = {name: score.argmax(1).tolist() for name, score in judge(pictures).items()}
    return [{name: WORDS[name][best[name][i]] for name in WORDS} for i in range(len(pictures))]


def named(
    caption: str,
) -> dict[str, str]:  # attribute -> value, only what the caption says
    """What a caption names, in the words of `WORDS`."""
    return {
        name: value
        for name, values in WORDS.items()
        for value in values
        if any(re.search(rf"\b{re.escape(words)}\b", caption) for words in WORDINGS.get(value, (value,)))
    }


def rates(
    judge: nn.Module,  # a Judge, or another with the same answers
    pictures: Tensor,  # b c h w, -1 .. 1
    wanted: list[dict[str, str]],  # what each should show: from `named`, or a scene's attributes
) -> dict[str, float]:  # attribute -> fraction that show it, of those that should; "all": with nothing wrong
    """How often the judge sees what was wanted."""
    seen = read(judge, pictures)
    hits = {
        name: [got[name] == want[name] for got, want in zip(seen, wanted, strict=True) if name in want]
        for name in WORDS
    }
    hits["all"] = [want.items() <= got.items() for got, want in zip(seen, wanted, strict=True)]
    return {name: sum(right) / len(right) for name, right in hits.items() if right}
