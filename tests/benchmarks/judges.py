"""Two judges that were trained apart read the same pictures: do they agree? (`python -m benchmarks.judges`, in tests.)

The other judge shares nothing with the shipped one: a ResNet of the library's, which averages over the picture
where ours looks at every place of it, trained on other scenes, blurred in another way.
"""

import numpy as np
import torch
import torch.nn.functional as F
from fastcore.script import call_parse
from torch import Tensor, nn
from tqdm import tqdm
from transformers import ResNetConfig, ResNetForImageClassification

from sdlearn import judging, parts, scenes
from sdlearn.recipes import picks
from sdlearn.scenes import TEST, VALIDATION, WORDS
from sdlearn.tools import measure
from sdlearn.tools.runs import best_precision, fit

SEED = 77  # of its scenes, weights and batches


def resnet(classes: int) -> ResNetForImageClassification:
    """A small ResNet with random weights."""
    layers = {"embedding_size": 32, "hidden_sizes": [64, 128, 192], "depths": [2, 2, 2], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**layers, num_labels=classes))


class OtherJudge(nn.Module):
    """As `judging.Judge`, from a picture to one score for each value of each attribute."""

    def __init__(self):
        super().__init__()
        self.resnet = resnet(sum(map(len, WORDS.values())))

    def forward(
        self,
        pictures: Tensor,  # b c h w, -1 .. 1
    ) -> dict[str, Tensor]:  # attribute -> b values
        return judging.by_attribute(self.resnet(pictures).logits)


def blurred(
    pictures: Tensor,  # b c h w, -1 .. 1
    sigma: float,  # pixels
) -> Tensor:  # b c h w
    """A Gaussian blur, down the picture and then across it."""
    bell = torch.exp(-torch.arange(-4, 5).square() / (2 * sigma**2 + 1e-6))
    bell = (bell / bell.sum()).expand(3, 1, 1, 9)
    for kernel, margin in ((bell, (4, 4, 0, 0)), (bell.transpose(2, 3), (0, 0, 4, 4))):
        pictures = F.conv2d(F.pad(pictures, margin, mode="replicate"), kernel, groups=3)
    return pictures


def trained(steps: int = 2500, batch: int = 64) -> OtherJudge:
    """The other judge, from its first weights on."""
    sets = [scenes.sample(n, SEED, pairs) for n, pairs in ((24_000, ()), (3_000, VALIDATION + TEST))]
    pictures = np.concatenate([found[0] for found in sets])
    right = judging.answers(sets[0][2] + sets[1][2])
    torch.manual_seed(SEED)
    judge = OtherJudge()

    def examples(g):
        i = picks(g, len(pictures), batch)
        shown = blurred(scenes.to_tensor(pictures[i.numpy()]), 1.2 * torch.rand(1, generator=g).item())
        return shown + 0.05 * torch.randn(shown.shape, generator=g), right[i]

    fit(judge, judging.judge_loss, examples, steps, lr=2e-3, seed=SEED, precision=best_precision())
    return judge.requires_grad_(False)


@call_parse(pos=["model"])
def main(
    model: str = "mini",  # "mini", or a directory made by sdlearn-train
    n: int = 512,  # pictures of each kind
    test: bool = False,  # also the test pairs, as for `sdlearn-measure`
):
    """How often either judge sees what was asked for: in real scenes, in these through the VAE, in generated ones."""
    judges = {"the shipped judge": parts.load_judge(), "the other judge": trained()}
    pairs = measure.PAIRS | ({"test": TEST} if test else {})
    found = measure.report(parts.load(model, "cpu"), [*judges.values()], n, 0, pairs, tqdm)
    for name, figures in zip(judges, found, strict=True):
        print(name, measure.table(figures), sep="\n")
