"""Where a model lies: with the course, in a directory, or on the hub, from which it is fetched once."""

from contextlib import suppress
from math import prod
from pathlib import Path

import psutil
import torch
from huggingface_hub import constants, list_repo_files, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import get_session, validate_repo_id

from sdlearn import parts
from sdlearn.parts import files
from sdlearn.parts.files import MINI, WEIGHTS
from sdlearn.parts.schema import V1_4

RELATIVES = (  # on the hub: the next version, in case V1_4 cannot be had; then two distilled, smaller ones
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "nota-ai/bk-sdm-small",
    "nota-ai/bk-sdm-tiny",
)


def load(
    name: str | Path,  # "mini", a directory, or a name on the hub such as V1_4
    device: str | torch.device | None = None,  # None: the best there is
    dtype: torch.dtype | None = None,  # None: float16 for a model from the hub on CUDA, else float32
) -> parts.Parts:  # on the device, ready to use but not to train
    """Find a model, fetch it if it is not here yet, and load it, if it is complete and the device is large enough.

    Raises FileNotFoundError, ValueError or MemoryError; each says what to do.
    """
    device = torch.device(device or parts.best_device())
    on_hub = str(name) != "mini" and not Path(name).expanduser().is_dir()
    dtype = dtype or (torch.float16 if on_hub and device.type == "cuda" else torch.float32)
    root = find(name, dtype)
    check_memory(name, root, device, dtype)
    return parts.load(root, device, dtype)


def find(
    name: str | Path,  # as for `load`
    dtype: torch.dtype = torch.float32,  # which precision to fetch from the hub
) -> Path:  # a directory with all parts of a Stable Diffusion
    """Find where a model is, and fetch it from the hub if it is not here yet; it must be complete."""
    folder = MINI if str(name) == "mini" else Path(name).expanduser()
    if folder.is_file():
        raise ValueError(
            f'"{name}" is a single file: make a directory of it, with diffusers: '
            f"StableDiffusionPipeline.from_single_file({str(folder)!r}).save_pretrained(DIRECTORY)"
        )
    if not folder.is_dir():
        if folder.parts[:1] == ("runs",):
            raise FileNotFoundError(f'no model in "{name}" yet: `sdlearn-train all --out {name}` trains one')
        if not is_hub_name(str(name)):
            raise FileNotFoundError(f'no model "{name}": give "mini", a directory, or a hub name such as "{V1_4}"')
        folder = download(str(name), dtype)
    files.check(folder, dtype)
    return folder


def is_hub_name(name: str) -> bool:
    """Whether a name that is no directory can be one on the hub, "somebody/something", and is not meant as a path."""
    owner, slash, _ = name.partition("/")
    with suppress(HFValidationError):
        validate_repo_id(name)
        return bool(slash) and not Path(owner).exists()
    return False


# ---------------------------------------------------------------- does it fit


def memory_needed(root: Path, dtype: torch.dtype) -> int:  # about how many bytes
    """The weights, plus six full-size maps of the decoder's next-to-last width, where decoding needs most."""
    shapes = [shape for part in WEIGHTS for shape in files.weights(root, part, dtype)[-1]]
    widths, side = (files.settings(root, "vae")["block_out_channels"], files.settings(root, "unet")["sample_size"])
    largest = widths[min(1, len(widths) - 1)] * (side * 2 ** (len(widths) - 1)) ** 2
    return dtype.itemsize * (sum(map(prod, shapes)) + 6 * largest)


def free_memory(device: torch.device) -> int:  # bytes
    """Free memory: the GPU's on CUDA, else the computer's."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def check_memory(name: str | Path, root: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Raise MemoryError before loading if the model will not fit: otherwise the notebook's kernel would die."""
    need, there = memory_needed(root, dtype), free_memory(device)
    if need > there:
        spread = ", or let the library spread it: StableDiffusionPipeline with `enable_model_cpu_offload()`"
        raise MemoryError(
            f"{name} needs about {need / 1e9:.2f} GB on {device} in {str(dtype)[6:]}, and {there / 1e9:.2f} GB "
            f'are free: close other programs, or take a smaller relative such as "{RELATIVES[-1]}", or "mini"'
            + (spread if device.type == "cuda" else "")
        )


# ---------------------------------------------------------------- from the hub


def download(name: str, dtype: torch.dtype) -> Path:  # in the hub's cache
    """Fetch what the five parts need and no more; without a network, use what was fetched before.

    Not `DiffusionPipeline.download`: for some errors of the network it does not turn to what is cached, and its
    last message does not say what to do.
    """
    try:
        if not hub_answers():
            return Path(snapshot_download(name, local_files_only=True))
        wanted, lacking = choose_files(list_repo_files(name), dtype)
        if not lacking:
            return Path(snapshot_download(name, allow_patterns=wanted))
        why, cause = f"has no {lacking[0]}: take another, such as {V1_4}", None
    except GatedRepoError as error:
        why, cause = "wants its licence accepted: do that on its page, then log in with `hf auth login`", error
    except RepositoryNotFoundError as error:
        why, cause = f"is not on the hub: check the name; there is {', '.join([V1_4, *RELATIVES])}", error
    except Exception as error:  # whatever the current network library raises
        more = 'or download the model once where there is one and give its directory; "mini" needs no network'
        why, cause = f"cannot be fetched: check the name and the network, {more}", error
    raise FileNotFoundError(f'"{name}" {why}') from cause


def choose_files(
    names: list[str],  # of all files of a model on the hub
    dtype: torch.dtype,
) -> tuple[list[str], list[str]]:  # what to fetch; what should be there and is not
    """Choose the files that the five parts need: of the weights one variant, as `files.weights` will take it."""
    needed = ["model_index.json", *(f"{part}/config.json" for part in WEIGHTS)]
    lacking = [name for name in [*needed, "scheduler/scheduler_config.json"] if name not in names]
    for part in WEIGHTS:
        there = [name[len(part) + 1 :] for name in names if name.startswith(f"{part}/")]
        _, chosen = files.choose(there, part, dtype)
        needed += [f"{part}/{file}" for file in chosen]
        lacking += [] if chosen else [f"weights of {part} as safetensors"]
    return [*needed, "tokenizer/*", "scheduler/*"], lacking


def hub_answers() -> bool:
    """Whether the hub answers within five seconds: its own library tries for minutes before it gives up."""
    with suppress(Exception):  # whatever the current network library raises: then only what is cached counts
        return bool(get_session().head(constants.ENDPOINT, timeout=5))
    return False
