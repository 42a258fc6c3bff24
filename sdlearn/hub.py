"""Where a model lies: with the course, in a directory, or on the hub, from which it is fetched once."""

import json
from contextlib import suppress
from pathlib import Path

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import get_session
from safetensors import SafetensorError

MINI = Path(__file__).parent / "mini"  # the shipped model
V1_4 = "CompVis/stable-diffusion-v1-4"
RELATIVES = (  # on the hub: the next version, in case V1_4 cannot be had; then two distilled, smaller ones
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "nota-ai/bk-sdm-small",
    "nota-ai/bk-sdm-tiny",
)
WEIGHTS = {  # the files without which there is no picture
    "text_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
}


def find(
    name: str | Path,  # as for `parts.load`
    dtype: torch.dtype = torch.float32,  # which precision to fetch from the hub
) -> Path:  # a directory with all parts of a Stable Diffusion
    """Find where a model is, and fetch it from the hub if it is not here yet; it must be complete."""
    folder = MINI if str(name) == "mini" else Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or str(name).count("/") != 1:
            raise FileNotFoundError(f'no model "{name}": give "mini", a directory, or a hub name such as "{V1_4}"')
        folder = download(str(name), dtype)
    for file in ("model_index.json", "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing: {remedy(folder, file)}")
    index = folder / "model_index.json"
    kind = guarded(folder, index.name, lambda: json.loads(index.read_text())["_class_name"])
    if kind != "StableDiffusionPipeline":
        raise ValueError(f'"{name}" is a {kind}: the course draws with Stable Diffusion 1, as "{V1_4}" is')
    for part in WEIGHTS:
        weights_file(folder, part)
    return folder


def weights_file(
    root: Path,
    part: str,  # one of WEIGHTS
    dtype: torch.dtype = torch.float32,  # which to take if a model has its weights in both precisions
) -> Path:
    """The safetensors file of a part."""
    files = [root / part / file_name(part, precision) for precision in (dtype, torch.float32, torch.float16)]
    for file in files:
        if file.is_file():
            return file
    if [*(root / part).glob("*.bin")]:
        raise ValueError(f"{root / part} has its weights only as a pickle, which may run any code: get safetensors")
    raise FileNotFoundError(f"{files[0]} is missing: {remedy(root, part)}")


def file_name(
    part: str,  # one of WEIGHTS
    dtype: torch.dtype,
) -> str:
    """The name of a part's weights file in this precision."""
    name = WEIGHTS[part]
    return name.replace(".safetensors", ".fp16.safetensors") if dtype == torch.float16 else name


def remedy(
    root: Path,  # of the model
    subfolder: str,  # where in it something is missing or damaged
) -> str:
    """How to get a part back: `sdlearn-train` makes what is missing, and leaves the rest alone."""
    if root == MINI:
        return "get it back with `git checkout -- sdlearn/mini`"
    if "snapshots" in root.parts:  # the hub's cache, which keeps a damaged file for good
        return f"remove {root.parents[1]}, then give the hub name once more where there is a network"
    part = subfolder.partition("/")[0]
    if part in ("scheduler", "model_index.json"):  # the same for every model of the course
        return f"copy {root / subfolder} from {MINI / subfolder}"
    made_with = "clip" if part in ("tokenizer", "text_encoder") else part
    again = f"`sdlearn-train {'judge' if part == 'judge' else 'all'} --out {root} --resume`"
    return f"remove {root / made_with} if it is there and make it again with {again}, or copy the directory again"


def download(
    name: str,  # on the hub
    dtype: torch.dtype,
) -> Path:  # in the hub's cache
    """Fetch what the five parts need and no more; without a network, use what was fetched before."""
    wanted = ["model_index.json", "tokenizer/*", "scheduler/*", *(f"{part}/config.json" for part in WEIGHTS)]
    wanted += [f"{part}/{file_name(part, dtype)}" for part in WEIGHTS]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not hub_answers()))
    except GatedRepoError as error:
        raise FileNotFoundError(
            f'"{name}" wants its licence accepted: do that on its page, then log in with `hf auth login`'
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f'the hub has no "{name}": check the name; there is {", ".join([V1_4, *RELATIVES])}'
        ) from error
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f'cannot get "{name}": check the name and the network, or download the model once where there is one '
            'and give its directory; "mini" needs no network'
        ) from error


def hub_answers() -> bool:
    """Whether the hub answers within five seconds: its own library tries for minutes before it gives up."""
    with suppress(Exception):  # whatever the current network library raises: then only what is cached counts
        return bool(get_session().head(constants.ENDPOINT, timeout=5))
    return False


def guarded(root: Path, subfolder: str, open_it):
    """Run a library's loader; if it fails, say in one line what went wrong."""
    try:
        return open_it()
    except (SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        file, reason = root / subfolder / WEIGHTS.get(subfolder, ""), [*str(error).splitlines(), "empty"][0][:120]
        raise ValueError(f"{file} is damaged or another model's ({reason}): {remedy(root, subfolder)}") from error
