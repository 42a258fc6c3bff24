"""Make a folder of captioned pictures that nobody drew for this course: emoji, each by four designers.

    npm pack @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 \
        @iconify-json/openmoji@1.2.29 emojibase-data@17.0.0
    pip install resvg_py
    python docs/emoji.py ARCHIVES FOLDER

The licences are MIT (Fluent Emoji), Apache-2.0 (Noto), CC-BY-4.0 (Twemoji) and CC-BY-SA-4.0 (OpenMoji).
"""

import json
import tarfile
from pathlib import Path

from fastcore.script import call_parse
from resvg_py import svg_to_bytes
from tqdm import tqdm

DESIGNERS = {"fluent": "fluent-emoji-flat", "noto": "noto", "twemoji": "twemoji", "openmoji": "openmoji"}
FLAGS = 9  # a group of emoji, and those without a group are parts of others


def unpacked(archive: Path, file: str) -> dict:
    """One JSON file of an archive."""
    with tarfile.open(archive) as packed:
        return json.load(packed.extractfile(f"package/{file}"))


def drawings(archive: Path) -> dict[str, str]:  # code points, "1f434" -> SVG
    """Every emoji of one designer."""
    icons, names = unpacked(archive, "icons.json"), unpacked(archive, "chars.json")
    width, height = icons["width"], icons["height"]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    bodies = {name: icon["body"] for name, icon in icons["icons"].items()}
    return {code: f"{head}{bodies[name]}</svg>" for code, name in names.items() if name in bodies}


@call_parse
def main(
    archives: Path,  # the folder with the five downloaded archives
    out: Path,  # the folder to make
    size: int = 128,  # pixels a side
):
    """Draw every emoji that all four designers have drawn, flags and skin tones left out."""
    found = {designer: drawings(next(archives.glob(f"*{pack}-*.tgz"))) for designer, pack in DESIGNERS.items()}
    listed = unpacked(next(archives.glob("*emojibase-data-*.tgz")), "en/data.json")
    out.mkdir(parents=True)
    with (out / "metadata.jsonl").open("w", encoding="utf-8") as table:
        for emoji in tqdm(listed):
            code = emoji["hexcode"].lower().replace("-fe0f", "")
            if emoji.get("group") in (None, FLAGS) or not all(code in drawn for drawn in found.values()):
                continue
            for designer, drawn in found.items():
                name, text = f"{code}-{designer}.png", f"{emoji['label']}, drawn by {designer}"
                (out / name).write_bytes(bytes(svg_to_bytes(svg_string=drawn[code], width=size, height=size)))
                table.write(json.dumps({"file_name": name, "text": text}) + "\n")
