"""What a model is trained on: the course's own scenes, or a folder of captioned pictures."""

import random
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from sdlearn import scenes
from sdlearn.parts import config
from sdlearn.tools import folder
from sdlearn.tools.saving import save_json

LEAST = 8  # pictures in a folder
TRAINING = 32_000  # training pictures; to draw them takes a minute
FILE = "data.json"  # in the directory of a model: what it is trained on

Captioned = tuple[np.ndarray, list[str]]  # pictures n h w c uint8, captions


@dataclass(frozen=True)
class Scenes:
    """The scenes that the course draws."""

    size: int = scenes.SIZE  # pixels a side

    @cached_property
    def training(self) -> Captioned:
        """What the model learns from."""
        return scenes.sample(TRAINING, seed=1, size=self.size)[:2]

    @cached_property
    def held_out(self) -> Captioned:
        """What it never sees: pairs of the validation set."""
        return scenes.sample(64, 1, scenes.VALIDATION, self.size)[:2]


@dataclass(frozen=True)
class Folder:
    """Captioned pictures of your own, each fitted into a square."""

    folder: str  # where they lie
    size: int = scenes.SIZE  # pixels a side
    pad: str | None = None  # a colour to fill the square with; None: the picture's middle is cut out
    mirror: bool = False  # whether copies may be mirrored
    unseen: tuple[str, ...] = ()  # captions that are held out, with all their pictures

    @property
    def training(self) -> Captioned:
        """All but the held-out pictures; if few, with shifted and scaled copies, up to the number of scenes."""
        return self.both[0]

    @property
    def held_out(self) -> Captioned:
        """What it never sees."""
        return self.both[1]

    @cached_property
    def both(self) -> tuple[Captioned, Captioned]:
        """What to train on, and what is held out; those that cannot be read are left out, with one warning for all.

        Raises ValueError if what is left is too little to learn from.
        """
        pairs, unseen = self.split
        times = max(1, TRAINING // max(1, sum(bool(caption) for _, caption in pairs)))
        pictures, captions, bad = self.read(pairs, times)
        others, their_captions, bad_too = self.read(unseen)
        bad, n = bad + bad_too, len(pairs) + len(unseen)
        lost = f"{len(bad)} of {n} pictures could not be read: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
        if n - len(bad) < LEAST:
            raise ValueError(f"{self.folder}: {lost}; {LEAST} are the least to learn from")
        if len({*captions}) < 2:
            raise ValueError(f"{self.folder}: two captions that are not held out are the least to learn from")
        if bad:
            warnings.warn(lost, stacklevel=2)
        return (pictures, captions), (others, their_captions)

    @cached_property
    def split(self) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
        """The pictures and captions to train on, and those that are held out; no picture is read yet."""
        both, unseen = ([], []), {*self.unseen}
        for file, caption in folder.captioned(Path(self.folder)):
            both[caption in unseen].append((file, caption))
        return both

    def read(self, pairs: list[tuple[Path, str]], times: int = 1) -> tuple[np.ndarray, list[str], list[str]]:
        """Read these pictures, as this source wants them."""
        return folder.read(pairs, Path(self.folder), self.size, self.pad, self.mirror, times)


Source = Scenes | Folder


def shown(source: Source) -> Captioned:
    """Eight held-out pictures, to show progress; training pictures, if fewer are held out.

    They are spread over the whole set, and their captions differ if there are eight different ones.
    """
    pictures, captions = source.held_out if len(source.held_out[1]) >= 8 else source.training
    first = np.sort(np.unique(captions, return_index=True)[1])  # where each different caption first occurs
    some = first if len(first) >= 8 else np.arange(len(captions))
    chosen = some[np.arange(8) * len(some) // 8]
    return pictures[chosen], [captions[i] for i in chosen]


def chosen(
    out: Path,  # of the run
    data: Path | None,  # a folder of captioned pictures; None: the scenes
    size: int | None,  # pixels a side; None: as usual
    pad: str | None,
    mirror: bool,
    held_out: str | None,  # a file with a caption in each line, or a fraction; None: a tenth
    begun: bool,  # whether the directory holds anything that is trained, or half trained
    resume: bool,
) -> Source:
    """What to train on: what the options say or, for a resumed run, what it began with.

    Raises ValueError for a folder from which nothing can be learnt, and for options of another run.
    """
    if not data and (pad or mirror or held_out):
        raise ValueError("--pad, --mirror and --held-out go with --data")
    pixels = size or scenes.SIZE
    source = of_folder(data, pixels, pad, mirror, held_out or "0.1") if data else Scenes(pixels)
    if not (out / FILE).is_file() or not (begun or resume):
        return source
    earlier = load(out)
    if not (data or size):
        return earlier
    if begun and earlier != source:
        raise ValueError(f"{out} is trained on something else (see {out / FILE}): leave --data and --size out to go on")
    return source


def of_folder(data: Path, size: int, pad: str | None, mirror: bool, held_out: str) -> Folder:
    """A folder, with some of its captions held out. Raises ValueError if there is too little to learn from."""
    data = data.expanduser().resolve()
    found = [caption for _, caption in folder.captioned(data) if caption]
    if len(found) < LEAST:
        raise ValueError(f"{data} has {len(found)} captioned pictures: {LEAST} are the least to learn from")
    try:
        ImageColor.getrgb(pad or "white")
    except ValueError:
        raise ValueError(f'--pad must be a colour, such as white or "#ffcc00"; got "{pad}"') from None
    return Folder(str(data), size, pad, mirror, held_out_captions(found, held_out))


def held_out_captions(
    found: list[str],  # the captions of a folder
    wanted: str,  # a file with a caption in each line, or a fraction such as 0.1
) -> tuple[str, ...]:
    """Which captions to hold out. Raises ValueError for unknown captions, an empty file, or fewer than two left."""
    different = sorted({*found})
    if len(different) < 2:
        raise ValueError(f'all pictures have the same caption, "{different[0]}": give them at least two different ones')
    try:
        fraction = float(wanted)
    except ValueError:
        chosen = [" ".join(line.split()) for line in folder.text_of(Path(wanted)).split("\n") if line.strip()]
        if not chosen:
            raise ValueError(f'--held-out must be a fraction, or a file of captions; "{wanted}" is neither') from None
        if missing := [caption for caption in chosen if caption not in different]:
            there = f'{len(missing)} captions are not in the folder, such as "{missing[0]}"'
            raise ValueError(f"{wanted}: {there}") from None
    else:
        if not 0 <= fraction < 1:
            raise ValueError(f"--held-out must be 0 or more and below 1; got {wanted}")
        chosen = random.Random(0).sample(different, round(fraction * len(different)))
    if len({*chosen}) > len(different) - 2:
        raise ValueError("--held-out leaves fewer than two captions to learn from")
    return tuple(chosen)


def save(source: Source, out: Path) -> None:
    """Write down what a model is trained on, beside it."""
    save_json(asdict(source), out / FILE)


def load(root: Path) -> Source:
    """What a model was trained on: the scenes, unless its folder says otherwise."""
    settings: dict[str, Any] = config(root / FILE) if (root / FILE).is_file() else {}
    if "folder" not in settings:
        return Scenes(**settings)
    settings["unseen"] = tuple(settings["unseen"])
    return Folder(**settings)
