"""Training progress in one picture, to keep open while it runs: the loss, and what the model draws so far."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from sdlearn.scenes import to_pictures
from sdlearn.tools.saving import whole_file

COST = {"clip": 0.116, "vae": 0.143, "unet": 0.181, "judge": 0.05}  # seconds a step; only their ratios count
COST |= dict.fromkeys(("flow", "fast"), COST["unet"])


class Board:
    """`progress.png` of a training run, drawn anew each time that `show` is called."""

    def __init__(
        self,
        file: Path,
        steps: dict[str, int],  # part -> how many it takes, for each part that is to be trained
    ):
        self.file, self.steps = file, dict(steps)

    def begin(self, part: str) -> None:
        """Start on another part."""
        self.part, self.base = part, None

    def show(
        self,
        losses: list[float],  # of this part, so far
        pictures: Tensor | None = None,  # b c h w, -1 .. 1: what the model makes so far
        captions: Sequence[str] = (),  # of the pictures
    ) -> None:
        """Draw the loss, the pictures, and the time left."""
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        halves: Any = figure.subfigures(1, 2, width_ratios=(5, 8))
        left, right = halves
        curve = left.subplots()
        every = max(1, len(losses) // 400)
        smooth = np.convolve(losses, np.ones(every) / every, "valid")[::every]
        curve.plot(np.arange(len(smooth)) * every, smooth, color="tab:blue", linewidth=1)
        scale = "log" if smooth.max() > 0 else "linear"
        curve.set(xlabel="step", ylabel="loss", yscale=scale, title=self.title(len(losses)))
        if pictures is not None:
            self.draw(right, to_pictures(pictures), captions)
        with whole_file(self.file) as new, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # such as a Chinese caption's
            figure.savefig(new, format="png", dpi=100)

    def draw(self, figure: SubFigure, pictures: np.ndarray, captions: Sequence[str]) -> None:
        """Put in the pictures: eight with their captions, or four above what the VAE makes of them."""
        places = figure.subplots(2, len(pictures) // 2).ravel()
        for place, picture in zip(places, pictures, strict=True):
            place.imshow(picture)
            place.set_axis_off()
        for place, caption in zip(places, captions, strict=False):  # where there are any
            place.set_title(fill(caption, 28), fontsize=8, parse_math=False)  # a dollar sign is one

    def title(self, done: int) -> str:
        """The part, the step, and about how many minutes are left for all parts."""
        now, steps = time.monotonic(), self.steps[self.part]
        name = f"{self.part}: step {done:,} of {steps:,}"
        if self.base is None:
            self.base = now, done
            return name
        began, first = self.base
        each = (now - began) / max(1, done - first)  # seconds
        parts = [*self.steps]
        later = sum(self.steps[part] * COST[part] for part in parts[parts.index(self.part) + 1 :]) / COST[self.part]
        return f"{name}, about {each * (steps - done + later) / 60:.0f} min left in all"
