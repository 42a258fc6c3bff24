"""Does the picture show what the prompt said? A judge reads pictures; `sdlearn-measure` counts.

The judge is a small classifier with one answer for each attribute of a scene. It has met blur and
noise in training, since the VAE blurs, and held-out pairs too: it must read them, not be surprised.
"""

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdlearn import scenes
from sdlearn.parts import MINI
from sdlearn.scenes import WORDINGS, WORDS


class Judge(nn.Module):
    """A convolutional network from a picture to one score for each value of each attribute."""

    def __init__(self):
        super().__init__()
        widths = (3, 24, 48, 96, 128)  # channels at 64, 32, 16, 8 and 4 pixels a side
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.SiLU()
                )
                for a, b in zip(widths, widths[1:], strict=False)
            ),
            nn.Flatten(),
        )
        self.scores = nn.Linear(128 * 4 * 4, sum(map(len, WORDS.values())))

    def forward(
        self,
        pictures: Tensor,  # b c h w, -1 .. 1, 64 x 64
    ) -> dict[str, Tensor]:  # attribute -> b values
        scores = self.scores(self.layers(pictures)).split([len(values) for values in WORDS.values()], 1)
        return dict(zip(WORDS, scores, strict=True))


def judge_loss(
    judge: Judge,
    pictures: Tensor,  # b c h w, -1 .. 1
    answers: Tensor,  # b attributes, the number of the right value
) -> Tensor:  # scalar
    """Cross entropy, summed over the attributes."""
    scores = judge(pictures)
    return sum(F.cross_entropy(scores[name], answers[:, i]) for i, name in enumerate(WORDS))


def spoil(
    pictures: Tensor,  # b c h w, -1 .. 1
    generator: torch.Generator,
) -> Tensor:  # b c h w
    """Blur or coarsen half of the pictures, and shake all: what a decoder may do must not confuse the judge."""
    b = len(pictures)
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
    which = torch.randint(4, (b, 1, 1, 1), generator=generator)
    spoilt = torch.where(which == 0, soft, torch.where(which == 1, coarse, pictures))
    noise = torch.randn(pictures.shape, generator=generator) * 0.12 * torch.rand(b, 1, 1, 1, generator=generator)
    light = 0.1 * torch.randn(b, 3, 1, 1, generator=generator)
    return (spoilt + noise + light * 0.5).clamp(-1, 1)


def answers(
    attributes: list[dict[str, str]],  # one scene each
) -> Tensor:  # b attributes, the number of each value in WORDS
    """Attributes as numbers."""
    return torch.tensor([[WORDS[name].index(scene[name]) for name in WORDS] for scene in attributes])


@torch.no_grad()
def read(
    judge: Judge,
    pictures: Tensor,  # b c h w, -1 .. 1
) -> list[dict[str, str]]:  # what the judge sees in each
    """Name the value of every attribute of every picture."""
    best = {name: score.argmax(1).tolist() for name, score in judge(pictures).items()}
    return [{name: WORDS[name][best[name][i]] for name in WORDS} for i in range(len(pictures))]


def named(
    caption: str,
) -> dict[str, str]:  # attribute -> value, only what the caption says
    """What a caption names, in the words of `WORDS`."""
    found = {}
    for name, values in WORDS.items():
        for value in values:
            wordings = WORDINGS.get(value, (value,))
            if any(re.search(rf"\b{re.escape(words)}\b", caption) for words in wordings):
                found[name] = value
    return found


def load_judge(folder: str | Path = MINI) -> Judge:
    """The judge that is shipped with the course."""
    from safetensors.torch import load_file

    judge = Judge()
    judge.load_state_dict({k: x.float() for k, x in load_file(Path(folder) / "judge" / "model.safetensors").items()})
    return judge.eval().requires_grad_(False)
