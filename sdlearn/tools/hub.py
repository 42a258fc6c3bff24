"""Find a model: in the course, in a directory, or on the hub, from which it is downloaded once."""

from contextlib import suppress
from pathlib import Path

import torch
from huggingface_hub import constants, list_repo_files, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import get_session, validate_repo_id

from sdlearn import parts
from sdlearn.parts import files
from sdlearn.parts.files import MINI, WEIGHTS
from sdlearn.parts.schema import V1_4
from sdlearn.tools import memory

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
    """Find a model, download it if need be, and load it, if it is complete and the device has room for it.

    Raises FileNotFoundError, ValueError or MemoryError; each says what to do.
    """
    device = torch.device(device or parts.best_device())
    on_hub = str(name) != "mini" and not Path(name).expanduser().is_dir()
    dtype = dtype or (torch.float16 if on_hub and device.type == "cuda" else torch.float32)
    return load_from(find(name, dtype), name, device, dtype)


def load_from(
    root: Path,  # from `find`
    name: str | Path,  # as for `find`
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,  # as for `find`
) -> parts.Parts:  # as from `load`
    """Load a model that `find` has found, if the device has room for it."""
    memory.check_model(name, root, torch.device(device), dtype, smaller=RELATIVES[-1])
    return parts.load(root, device, dtype)


def find(
    name: str | Path,  # as for `load`
    dtype: torch.dtype = torch.float32,  # which precision to fetch from the hub
) -> Path:  # a directory with all parts of a Stable Diffusion
    """Find where a model is, and download it from the hub if it is not here yet; it must be complete."""
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
    """Whether a name that is not a directory may be one on the hub, "somebody/something", rather than a path."""
    owner, slash, _ = name.partition("/")
    with suppress(HFValidationError):
        validate_repo_id(name)
        return bool(slash) and not Path(owner).exists()
    return False


# ---------------------------------------------------------------- from the hub


def download(name: str, dtype: torch.dtype) -> Path:  # in the hub's cache
    """Fetch what the five parts need and no more; without a network, use what was fetched before.

    Not `DiffusionPipeline.download`: after some network errors it does not fall back on the cache, and its last
    message does not say what to do.
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
