"""A folder of captioned pictures of your own, read into arrays of square pictures."""

import csv
import io
import json
import os
import random
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
LARGEST = 100_000_000  # pixels of a picture; more is a mistake or an attack


# ---------------------------------------------------------------- the three ways to write captions


def from_jsonl(folder: Path) -> list[tuple[Path, str]]:  # picture, caption
    """`metadata.jsonl`, as in the hub's "imagefolder": {"file_name": "a.png", "text": "a horse"} in each line."""
    lines = text_of(folder / "metadata.jsonl").split("\n")  # not `splitlines`: a caption may hold U+2028
    return pairs_of(folder, "metadata.jsonl", [json_or_nothing(line) for line in lines if line.strip()])


def from_csv(folder: Path) -> list[tuple[Path, str]]:  # picture, caption
    """`metadata.csv`, with the same two columns."""
    text = io.StringIO(text_of(folder / "metadata.csv"), newline="")  # a caption in quotes may go over several lines
    return pairs_of(folder, "metadata.csv", list(csv.DictReader(text)))


def from_text_files(folder: Path) -> list[tuple[Path, str]]:  # picture, caption
    """`a.txt` beside `a.png`; upper or lower case makes no difference. A link out of the folder is not read."""
    files = sorted(folder.rglob("*"))
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    texts = {(file.parent, file.stem): file for file in files if file.suffix.lower() == ".txt"}
    alike = {(parent, stem.lower()): file for (parent, stem), file in texts.items()}
    beside = [texts.get((x.parent, x.stem)) or alike.get((x.parent, x.stem.lower())) for x in pictures]
    if not any(beside):
        return []  # they are something else, such as a licence
    captions = [text_of(text) if text and is_inside(text, folder) else "" for text in beside]
    lonely = sorted({*texts.values()} - {*beside})
    return [*zip(pictures, captions, strict=True), *((text, "") for text in lonely)]


WAYS = {"metadata.jsonl": from_jsonl, "metadata.csv": from_csv, "a .txt file beside each picture": from_text_files}


def text_of(file: Path) -> str:
    """Read a text file; empty if there is none. Raises ValueError if it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig") if file.is_file() else ""
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8: save it as UTF-8") from None


def is_inside(file: Path, folder: Path) -> bool:
    """Whether a file lies in the folder, and not only a link to it."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(file)).parents


def json_or_nothing(line: str) -> dict:
    """Parse one line of `metadata.jsonl`; empty if it is not a JSON object."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def pairs_of(folder: Path, table: str, rows: list[dict]) -> list[tuple[Path, str]]:
    """The rows of a table as pictures and captions. Raises ValueError for the first row without one of the two."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("file_name"), str) or not isinstance(row.get("text"), str):
            raise ValueError(f"{folder / table}: entry {number} has no file_name and text")
    return [(folder / row["file_name"], row["text"]) for row in rows]


def captioned(
    folder: Path,
) -> list[tuple[Path, str]]:  # picture, caption
    """Find the captions of a folder. Raises ValueError if it has none, or has them in two ways."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    found = {way: pairs for way, read in WAYS.items() if (pairs := read(folder))}
    if not found:
        raise ValueError(f"{folder} has no captions: give it metadata.jsonl, metadata.csv or {list(WAYS)[-1]}")
    if len(found) > 1:
        raise ValueError(f"{folder} has its captions twice, in {' and in '.join(found)}: keep one of them")
    [pairs] = found.values()
    return [(file, " ".join(caption.split())) for file, caption in pairs]


# ---------------------------------------------------------------- pictures


def check(
    file: Path,
    caption: str,
    folder: Path,  # which the file must not leave, not even by a link
) -> None:
    """Raise ValueError, with the reason, for a picture that is not to be opened."""
    if not is_inside(file, folder):
        raise ValueError("outside the folder")
    if not os.path.isfile(file) or file.suffix.lower() == ".txt":  # False also for a name that is too long
        near = [x.name for x in file.parent.glob("*") if x.name != file.name and x.name.lower() == file.name.lower()]
        raise ValueError(f"not there, but {near[0]} is" if near else "not there")
    if not caption:
        raise ValueError("no caption in the folder")


def opened(file: Path) -> Image.Image:  # RGBA, upright; of an animation the first picture
    """Open one picture. Raises ValueError for too many pixels, and whatever Pillow raises for a damaged file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow remarks on pictures that it opens all the same
        try:
            with Image.open(file) as image:
                if image.width * image.height > LARGEST:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                return eight_bits(ImageOps.exif_transpose(image)).convert("RGBA")
        except Image.DecompressionBombError:
            raise ValueError("too many pixels") from None


def eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey values, which Pillow would clip. Raises ValueError for 32 bits: their range is unknown."""
    if image.mode[0] not in "IF":  # I: whole numbers of 32 bits, or I;16: of 16; F: fractions of 32
        return image
    grey = np.asarray(image)
    if image.mode == "F" or not 0 <= grey.min() <= grey.max() < 2**16:
        raise ValueError("32 bits for each pixel: save it with 8 or 16")
    return Image.fromarray((grey // 256).astype(np.uint8))


def fitted(
    image: Image.Image,  # RGBA
    size: int,  # pixels a side
    pad: str | None,  # a colour to fill the square with; None: the middle is cut out
) -> Image.Image:  # RGB, square; behind what is transparent: `pad`, else white
    """Make a picture square."""
    behind = Image.new("RGBA", image.size, pad or "white")
    flat = Image.alpha_composite(behind, image).convert("RGB")
    return ImageOps.pad(flat, (size, size), color=pad) if pad else ImageOps.fit(flat, (size, size))


def moved(
    square: Image.Image,  # RGB, twice as large as wanted
    mirror: bool,
    rng: random.Random,
) -> Image.Image:
    """The same picture, shifted and scaled by up to a tenth, and perhaps mirrored."""
    size, margin = square.width // 2, square.width // 5
    wide = Image.fromarray(np.pad(np.array(square), ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    half = size * rng.uniform(0.9, 1.1)
    x, y = (margin + size * (1 + rng.uniform(-0.15, 0.15)) for _ in "xy")
    copy = wide.resize((size, size), box=(x - half, y - half, x + half, y + half))
    return ImageOps.mirror(copy) if mirror and rng.random() < 0.5 else copy


def read(
    pairs: list[tuple[Path, str]],  # picture, caption
    folder: Path,
    size: int,  # pixels a side
    pad: str | None = None,  # as for `fitted`
    mirror: bool = False,
    times: int = 1,  # versions of each picture: as it is, then shifted and scaled
) -> tuple[np.ndarray, list[str], list[str]]:  # n h w c uint8, captions, what could not be read and why
    """Read pictures; those that cannot be read are left out."""
    rng, pictures, captions, bad = random.Random(0), [], [], []
    for file, caption in pairs:
        try:
            check(file, caption, folder)
            image = opened(file)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can raise anything
            bad.append(f"{file.name} ({error if isinstance(error, ValueError) else 'not a picture, or damaged'})")
            continue
        pictures.append(np.array(fitted(image, size, pad)))
        if times > 1:
            large = fitted(image, 2 * size, pad)
            pictures += [np.array(moved(large, mirror, rng)) for _ in range(times - 1)]
        captions += [caption] * times
    return np.stack(pictures) if pictures else np.empty((0, size, size, 3), np.uint8), captions, bad
