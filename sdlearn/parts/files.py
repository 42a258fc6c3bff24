"""Opening a model's files: which of them hold the weights, and one clear line if one is not what it should be."""

import json
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants
from safetensors import safe_open

from sdlearn.parts import schema

MINI = Path(__file__).parent.parent / "mini"  # the shipped model
WEIGHTS = {  # the files without which there is no picture
    "text_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
}
POINTER = b"version https://git-lfs"  # what such a file begins with
HEADER = 1_000_000  # bytes; 686 tensors, as many as in v1-4's U-Net, take 80,000


def check(
    root: Path,
    dtype: torch.dtype = torch.float32,  # which variant of the weights to look at, where there are several
) -> None:
    """Raise a one-line error unless a directory has the parts that the course loads, with weights, and matching."""
    with guarded(root, "model_index.json"):
        schema.check_index(config(root / "model_index.json"))
    own = [settings(root, part) for part in WEIGHTS]
    with guarded(root, "unet/config.json"):
        schema.check_agreement(*own)
    for part in WEIGHTS:
        weights(root, part, dtype)


def config(file: Path) -> dict:
    """Settings, as they were saved."""
    return json.loads(file.read_text(encoding="utf-8"))


def settings(
    root: Path,
    part: str,  # one of WEIGHTS
) -> dict:  # with the library's defaults for those that are not given
    """Read a part's settings. Raises ValueError for one that is unknown or out of its range."""
    with guarded(root, f"{part}/config.json"):
        return schema.check_part(config(root / part / "config.json"), schema.KINDS[part])


def weights(
    root: Path,
    part: str,  # one of WEIGHTS
    dtype: torch.dtype = torch.float32,  # which variant to take, where there are several
) -> tuple[str | None, str, list[list[int]]]:  # the variant, a file for messages to name, the shapes of the tensors
    """Find a part's weights as its library does, and check that there are enough for its settings, by headers alone."""
    own, shapes = settings(root, part), {}
    with guarded(root, part):
        names = [path.name for path in (root / part).iterdir()]
        variant, files = choose(names, part, dtype)
        if "adapter_config.json" in names or not files and [name for name in names if "lora" in name]:
            raise schema.Other("holds an adapter (LoRA), which is no model by itself")
        if not files and [name for name in names if name.endswith(".bin")]:
            raise schema.Other("has its weights only as a pickle, which may run any code: get safetensors")
    for index in [name for name in files if name.endswith(".json")]:
        with guarded(root, f"{part}/{index}"):
            files = sorted({*config(root / part / index)["weight_map"].values()})
    for file in files or [WEIGHTS[part]]:
        with guarded(root, f"{part}/{file}"):
            shapes |= tensors(root / part / file)
    with guarded(root, f"{part}/{file}"):
        schema.check_size(own, [*shapes.values()])
    return variant, file, [*shapes.values()]


def choose(
    names: Iterable[str],  # of the files in a part's folder
    part: str,  # one of WEIGHTS
    dtype: torch.dtype,
) -> tuple[str | None, list[str]]:  # the library's word for these weights, such as "fp16"; the files, or none
    """Choose among weights in several variants, each of them whole or in shards with an index."""
    stem, variants = WEIGHTS[part].removesuffix(".safetensors"), {}
    for name in sorted(names):
        if found := re.fullmatch(rf"{stem}(\.\w+)?(-\d+-of-\d+)?\.safetensors(\.index(\.\w+)?\.json)?", name):
            variants.setdefault((found[1] or found[4] or "")[1:], []).append(name)
    best = min(variants, key=lambda name: (name != "fp16" or dtype != torch.float16, name != "", name), default="")
    return best or None, variants.get(best, [])


def tensors(file: Path) -> dict[str, list[int]]:  # name -> shape
    """Read what a safetensors file holds, from its header only, and only if that has a plausible length."""
    with file.open("rb") as opened:
        if int.from_bytes(opened.read(8), "little") > HEADER:
            raise ValueError(f"its header is longer than {HEADER:,} bytes")
    with safe_open(file, "pt") as found:
        return {name: found.get_slice(name).get_shape() for name in found.keys()}  # noqa: SIM118


def is_pointer(file: Path) -> bool:
    """Whether git-lfs never fetched this file: a pointer stands in its place."""
    with file.open("rb") as opened:
        return opened.read(len(POINTER)) == POINTER


# ---------------------------------------------------------------- one clear line


def remedy(
    root: Path,  # of the model
    subfolder: str,  # where in it something is missing or damaged
) -> str:
    """How to get a part back in this directory, without losing another."""
    part, file = subfolder.partition("/")[0], root / subfolder
    if root == MINI:
        return "get it back with `git checkout -- sdlearn/mini`"
    if Path(constants.HF_HUB_CACHE).resolve() in root.resolve().parents:  # it keeps a damaged file for good
        again = "give the hub name once more where there is a network"
        return f"remove {file.resolve()} and {again}" if file.is_file() else again
    if part in ("judge", "fast"):  # no pipeline needs it
        again = f"`sdlearn-train {part} --out {root} --resume`"
        return f"remove {root / part} if it is there and make it again with {again}"
    if not (root / "checkpoints").is_dir():  # which `sdlearn-train` leaves in what it made
        return "copy it again from where this directory came from"
    if part in ("scheduler", "model_index.json") and (root / "unet").exists():  # the same for every model of the course
        return f"copy {root / subfolder} from {MINI / subfolder}"
    made_with = "clip" if part in ("tokenizer", "text_encoder") else part
    go_on = f"`sdlearn-train all --out {root} --resume`"
    if not (root / made_with).exists():
        return f"its training is not finished: go on with {go_on}"
    return f"remove {root / made_with} and make it again with {go_on}"


@contextmanager
def guarded(
    root: Path,  # of the model
    what: str,  # the file or folder in it that is being opened
) -> Generator[None]:
    """Around everything that opens a part: whatever a library raises becomes a one-line error of ours."""
    try:
        yield
    except Exception as error:
        raise explained(root, what, error) from error


def explained(root: Path, what: str, error: Exception) -> Exception:
    """The error to raise instead: which file, what is wrong with it, and what to do."""
    file, reason = root / what, " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, schema.Other):
        return ValueError(f"{file} {reason}")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in reason:
        return MemoryError(f"{file} does not fit into memory: close other programs, or take a smaller model")
    if not file.exists():
        return FileNotFoundError(f"{file} is missing: {remedy(root, what)}")
    if isinstance(error, PermissionError):
        return PermissionError(f"{file} may not be read by you: change its permissions")
    for each in file.glob("*") if file.is_dir() else [file]:
        if each.is_file() and is_pointer(each):
            return ValueError(f"{each} is a pointer of git-lfs, not the file: run `git lfs pull` in {root}")
    return ValueError(f"{file} is damaged or another model's ({reason[:120]}): {remedy(root, what)}")
