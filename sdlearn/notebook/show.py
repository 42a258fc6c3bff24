"""Pictures and plots for the lessons: every function returns what a notebook displays as the last line of a cell."""

import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from sdlearn.scenes import to_pictures
from sdlearn.tools.runs import progress_bar

DPI = 100
INK, ACCENT, QUIET = "#22223b", "#c8553d", "#9a8c98"


def progress(steps: Iterable, losses: Sequence[float] = ()) -> Iterator:
    """A progress bar for notebooks: on stdout and without a clock, so that stored outputs stay the same."""
    form = "{percentage:3.0f}% |{bar:40}| {n_fmt}/{total_fmt}{postfix}"
    return progress_bar(steps, losses, file=sys.stdout, mininterval=0.5, bar_format=form)


def as_array(images: Tensor | np.ndarray) -> np.ndarray:  # b h w c uint8
    """Turn tensors from -1 to 1 into pictures; leave pictures as they are."""
    return to_pictures(images) if isinstance(images, Tensor) else np.asarray(images)


def sheet(
    images: Tensor | np.ndarray,  # b c h w, -1 .. 1, or b h w c uint8
    titles: Sequence[str] | None = None,  # one for each picture; long ones are wrapped
    columns: int = 8,
    zoom: int = 2,  # screen pixels per pixel: whole numbers keep it sharp
) -> Figure:
    """Show pictures in rows, pixel for pixel."""
    images = as_array(images)
    columns = min(columns, len(images))
    size, rows = images.shape[1] * zoom, -(-len(images) // columns)
    titles = [fill(str(title), size // 7, break_long_words=False) for title in titles or [""] * len(images)]
    above = 14 * max(title.count("\n") + 1 for title in titles) + 4 if any(titles) else 4
    width, height = columns * (size + 6), rows * (size + above)
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = i % columns * (size + 6), height - (i // columns + 1) * (size + above)
        axes = figure.add_axes((x / width, y / height, size / width, size / height))
        axes.imshow(image, interpolation="nearest", cmap="gray")
        axes.set_title(title, fontsize=8, pad=3, color=INK, parse_math=False)
        axes.axis("off")
    return finish(figure)


def strip(
    frames: np.ndarray,  # b h w c uint8, the moments of a film
    titles: Sequence[str],  # one for each
    columns: int = 8,
    zoom: int = 2,
) -> Figure:
    """At most `columns` frames of a film, the first and the last among them."""
    some = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
    return sheet(frames[some], [titles[i] for i in some], columns, zoom)


def curve(
    losses: Sequence[float],  # one per step
    band: tuple[float, float] | None = None,  # where the last 50 should lie
    smooth: int = 25,  # steps averaged for the thick line
) -> Figure:
    """A loss over the steps of a training run: thin for each step, thick averaged, with the band of a healthy run."""
    figure, axes = plt.subplots(figsize=(6, 2.6), dpi=DPI)
    axes.plot(losses, color=QUIET, lw=0.6)
    smooth = max(1, min(smooth, len(losses) // 4))
    mean = np.convolve(losses, np.ones(smooth) / smooth, "valid")
    axes.plot(np.arange(len(mean)) + (smooth - 1) / 2, mean, color=ACCENT, lw=2)
    if band:
        axes.axhspan(*band, color="#81b29a", alpha=0.35, label="a healthy run ends here")
        axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="step", ylabel="loss")
    return finish(figure)


def lines(
    x: Sequence[float] | Tensor,  # shared by all lines
    ys: dict[str, Sequence[float] | Tensor],  # label -> values
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,  # logarithmic vertical axis
    marker: str = "",  # as in matplotlib, for measured points
) -> Figure:
    """Several curves over one axis."""
    figure, axes = plt.subplots(figsize=(6, 2.8), dpi=DPI)
    for label, y in ys.items():
        axes.plot(x, y, label=label, marker=marker)
    axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    if len(ys) > 2:  # too many to find a free corner for
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    elif len(ys) > 1:
        axes.legend(frameon=False, fontsize=8)
    return finish(figure)


def matrix(
    values: Tensor | np.ndarray,  # rows columns
    rows: Sequence[str],  # a name for each row
    columns: Any,  # names, or pictures as in `sheet`
    title: str = "",
    scale: tuple[float, float] | None = None,  # the darkest and the brightest value; None: taken from these values
) -> Figure:
    """A table of numbers as colours, for similarities and attention."""
    values = np.asarray(values)
    low, high = scale or (values.min(), values.max())
    legible = values.size <= 100  # else the cells are too small for a number
    width, height = (0.55, 0.42) if legible else (0.32, 0.3)  # of a cell, in inches
    figure, axes = plt.subplots(figsize=(3.2 + width * len(values[0]), 1.2 + height * len(values)), dpi=DPI)
    axes.imshow(values, cmap="magma", aspect="auto", vmin=low, vmax=high)
    axes.set_yticks(range(len(rows)), rows, fontsize=8, parse_math=False)
    if isinstance(columns[0], str):
        axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45, ha="right", parse_math=False)
    else:
        axes.set_xticks([])
        for i, image in enumerate(as_array(columns)):
            inset = axes.inset_axes((i - 0.45, -1.6, 0.9, 0.95), transform=axes.transData)
            inset.imshow(image, interpolation="nearest")
            inset.axis("off")
    for (i, j), value in np.ndenumerate(values) if legible else ():
        dark = value <= (low + high) / 2  # if all are equal, all count as dark
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_title(title, parse_math=False, fontsize=9, pad=44 if not isinstance(columns[0], str) else 6)
    return finish(figure)


def overlay(
    image: Tensor | np.ndarray,  # c h w, -1 .. 1, or h w c uint8
    maps: Tensor | np.ndarray,  # n h w, one for each word, any size that divides the picture's
    titles: Sequence[str],  # the words
    zoom: int = 2,
) -> Figure:
    """A picture with a heat map laid over it, once for each word: bright where the word was attended to."""
    image = as_array(image[None])[0]
    heat = np.asarray(maps, dtype=float)
    heat = heat / heat.max(axis=(1, 2), keepdims=True)
    factor = image.shape[0] // heat.shape[1]
    heat = np.kron(heat, np.ones((1, factor, factor)))[..., None]  # n h w 1
    return sheet((image * (0.25 + 0.75 * heat)).astype(np.uint8), titles, zoom=zoom)


def png(
    picture: np.ndarray,  # h w c uint8
    side: int,  # screen pixels, at least
) -> bytes:
    """A picture as a file, enlarged without blur."""
    file, (h, w), zoom = BytesIO(), picture.shape[:2], max(1, side // len(picture))
    Image.fromarray(picture).resize((zoom * w, zoom * h), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def rendered(*figures: Figure) -> bytes:
    """Figures side by side, as a PNG file."""
    files = [BytesIO() for _ in figures]
    for figure, file in zip(figures, files, strict=True):
        figure.savefig(file, format="png", bbox_inches="tight")
    if len(files) == 1:
        return files[0].getvalue()
    images, out = [Image.open(file) for file in files], BytesIO()
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    x = 0
    for image in images:
        row.paste(image, (x, (row.height - image.height) // 2))
        x += image.width
    row.save(out, "png")
    return out.getvalue()


def finish(figure: Figure) -> Figure:
    """Make a notebook show a figure once, not twice, and as a small file."""
    plt.close(figure)
    vars(figure)["_ipython_display_"] = partial(display_small, figure)  # IPython asks for this before anything else
    return figure


def display_small(
    *figures: Figure,  # side by side
    widget=None,  # shown instead where a kernel runs it; the figures are for a static page
) -> None:
    """Display figures in 256 colours: a third of the size, so that a notebook of pictures stays under a megabyte."""
    from IPython.display import display

    full, small = Image.open(BytesIO(rendered(*figures))), BytesIO()
    full.convert("RGB").quantize(256, kmeans=1).save(small, "png", optimize=True)
    still = {"image/png": b64encode(small.getvalue()).decode(), "text/plain": repr(figures[0])}
    display((view(widget) if widget else {}) | still, raw=True)


def view(widget) -> dict[str, dict]:
    """The data that make a page show a widget; ipywidgets 7, which Colab has, does not provide them, as 8 does."""
    version = {"version_major": 2, "version_minor": 0}  # of the protocol, not of ipywidgets
    return {"application/vnd.jupyter.widget-view+json": {**version, "model_id": widget.model_id}}
