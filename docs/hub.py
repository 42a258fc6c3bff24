"""Copy what a `StableDiffusionPipeline` needs into `runs/hub`, with the model's card, whose links now lead back here.

`make hub` calls this. Then run `hf upload OWNER/sdlearn-mini runs/hub`.
"""

import re
import shutil
import tomllib
from pathlib import Path
from urllib.parse import urljoin

ROOT = Path(__file__).parent.parent
MINI = Path("sdlearn") / "mini"
PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
LINK = re.compile(r"(!?)(\[[^]]*\]\()(\.[^)]*)")  # "!" of a picture, its text, and a path that begins with a dot


def fill(
    hub: Path,  # the folder to make
    address: str,  # the repository's
) -> None:
    """Write the model's parts, its index and its card into a folder."""

    def absolute(link: re.Match) -> str:
        kind = "raw" if link[1] else "blob"
        return link[1] + link[2] + urljoin(f"{address}/{kind}/main/{MINI.as_posix()}/", link[3])

    for part in PARTS:
        shutil.copytree(ROOT / MINI / part, hub / part, dirs_exist_ok=True)
    shutil.copy(ROOT / MINI / "model_index.json", hub)
    card = (ROOT / MINI / "README.md").read_text(encoding="utf-8")
    (hub / "README.md").write_text(LINK.sub(absolute, card), encoding="utf-8")


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    fill(ROOT / "runs" / "hub", project["urls"]["Repository"])
    print("The model is in runs/hub. To upload it: hf upload OWNER/sdlearn-mini runs/hub")
