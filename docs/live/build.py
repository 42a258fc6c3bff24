"""Put the live page together: `python docs/live/build.py OUT`, after `npm ci --prefix docs/live --ignore-scripts`.

With your own model: `python docs/live/build.py OUT runs/mine`; to see it, `python -m http.server --directory OUT`.

    OUT/*.html, *.css, *.js     this folder's own files
    OUT/ort/                    onnxruntime-web: one module, and its WebAssembly packed with gzip
    OUT/graphs/                 what `sdlearn-export` writes
    OUT/model/                  the model's own files; of the VAE only the decoder's weights
    OUT/files.json              what the page fetches, with each file's size in bytes

Any static host serves it, if it sends .js as text/javascript, .css as text/css and .html as text/html.
"""

import gzip
import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from sdlearn import parts
from sdlearn.tools.export import export

HERE = Path(__file__).parent
ORT = HERE / "node_modules" / "onnxruntime-web" / "dist"
COPIED = ("text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json")
COPIED += ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json")
FAST = "fast/model.safetensors"  # what `sdlearn-train fast` makes, if it was made
DECODER = ("decoder.", "post_quant_conv.")  # what its weights' names begin with


def build(
    out: Path,  # folder for the page, made if need be
    model: Path = parts.MINI,  # a directory in the format of a StableDiffusionPipeline
) -> None:
    """Write the page, its library, the graphs and the model into one folder."""
    if not ORT.is_dir():
        raise FileNotFoundError("onnxruntime-web is missing: npm ci --prefix docs/live --ignore-scripts")
    for source in [path for path in HERE.iterdir() if path.suffix in (".html", ".css", ".js")]:
        place(source, out / source.name)
    place(ORT / "ort.wasm.bundle.min.mjs", out / "ort" / "ort.js")
    wasm = gzip.compress((ORT / "ort-wasm-simd-threaded.wasm").read_bytes(), mtime=0)
    (out / "ort" / "wasm.packed").write_bytes(wasm)  # not .gz: some servers would unpack it on the way
    export(model, out / "graphs")
    copy_model(model, out / "model")
    files = [path for folder in ("ort", "graphs", "model") for path in sorted((out / folder).rglob("*"))]
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in files if path.is_file()}
    (out / "files.json").write_text(json.dumps(sizes, indent=1))


def copy_model(model: Path, out: Path) -> None:
    """Copy what the page needs of a model."""
    for name in (*COPIED, "vae/config.json"):
        place(model / name, out / name)
    (out / FAST).unlink(missing_ok=True)  # an earlier build may have put another model's here
    if (model / FAST).is_file():
        place(model / FAST, out / FAST)
    weights = load_file(model / "vae" / parts.WEIGHTS["vae"])
    decoder = {name: tensor for name, tensor in weights.items() if name.startswith(DECODER)}
    save_file(decoder, out / "vae" / parts.WEIGHTS["vae"])
    (out / "vae" / parts.WEIGHTS["vae"]).chmod(0o644)


def place(source: Path, target: Path) -> None:
    """Copy a file, with the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("give the folder to put the page into, and a model of your own if you like: build.py OUT runs/mine")
    build(*map(Path, sys.argv[1:]))
