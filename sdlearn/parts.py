"""The five parts of a Stable Diffusion, ours or the hub's: checked, opened, and put on a device."""

import json
from math import prod
from pathlib import Path
from typing import NamedTuple

import diffusers
import psutil
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from sdlearn.hub import MINI, RELATIVES, WEIGHTS, find, guarded, remedy, weights_file

SCHEDULERS = {  # name on the command line -> class in diffusers, further settings
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "timestep_spacing": "linspace"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


class Parts(NamedTuple):
    """What a text-to-image latent diffusion model is made of."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: diffusers.SchedulerMixin


def best_device() -> torch.device:
    """A CUDA GPU if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(
    name: str | Path = "mini",  # "mini", a directory, or a name on the hub such as V1_4
    device: str | torch.device | None = None,  # None: the best there is
    dtype: torch.dtype | None = None,  # None: float16 for a model from the hub on CUDA, else float32
) -> Parts:  # on the device, ready to use but not to train
    """Load the five parts, each from its own subfolder.

    Raises FileNotFoundError if a part is missing, ValueError if a file is damaged or belongs to another
    model, MemoryError if the device is too small; each says what to do. Nothing is left half loaded.
    """
    device = torch.device(device or best_device())
    on_hub = str(name) != "mini" and not Path(name).is_dir()
    dtype = dtype or (torch.float16 if on_hub and device.type == "cuda" else torch.float32)
    if dtype != torch.float32 and device.type == "cpu":
        raise ValueError("half precision is for GPUs: on a CPU leave dtype away")
    root = find(name, dtype)
    check_memory(name, root, device, dtype)
    parts = Parts(
        text_encoder=load_part(CLIPTextModel, root, "text_encoder", dtype),
        tokenizer=load_tokenizer(root),
        vae=load_part(AutoencoderKL, root, "vae", dtype),
        unet=load_part(UNet2DConditionModel, root, "unet", dtype),
        scheduler=load_scheduler(root),
    )
    for model in parts[1:4]:
        model.to(device).requires_grad_(False)
    return parts


# ---------------------------------------------------------------- does it fit


def memory_needed(
    root: Path,  # as from `find`
    dtype: torch.dtype,
) -> int:  # about how many bytes
    """The weights, plus six full-size maps of the decoder's next-to-last width, where decoding needs most."""
    numbers = sum(guarded(root, part, lambda part=part: count(weights_file(root, part, dtype))) for part in WEIGHTS)
    width = guarded(root, "vae/config.json", lambda: config(root, "vae")["block_out_channels"][1])
    side = guarded(root, "unet/config.json", lambda: 8 * config(root, "unet")["sample_size"])
    return dtype.itemsize * (numbers + 6 * width * side**2)


def config(root: Path, part: str) -> dict:
    """The settings of a part, as they were saved."""
    return json.loads((root / part / "config.json").read_text())


def count(file: Path) -> int:
    """How many numbers a safetensors file holds; only its header is read."""
    with safe_open(file, "pt") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


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


# ---------------------------------------------------------------- loading


def load_part(
    kind: type,  # class of the part
    root: Path,  # as from `find`
    subfolder: str,  # where the part lies in it
    dtype: torch.dtype = torch.float32,
):  # an instance of `kind`
    """Load one part with its library's own `from_pretrained`, safetensors only."""
    guarded(root, f"{subfolder}/config.json", lambda: config(root, subfolder))  # else the weights would be blamed
    variant = "fp16" if ".fp16" in weights_file(root, subfolder, dtype).suffixes else None
    options = {"subfolder": subfolder, "local_files_only": True, "dtype": dtype, "variant": variant}
    options |= {"use_safetensors": True, "output_loading_info": True}
    disable_progress_bar()  # a local file needs none, and every lesson would store it in its output
    try:
        model, info = guarded(root, subfolder, lambda: kind.from_pretrained(root, **options))
    finally:
        enable_progress_bar()
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(f"{root / subfolder} holds another model's weights: {remedy(root, subfolder)}")
    return model.eval()


def load_tokenizer(
    root: Path = MINI,  # a directory with a tokenizer and a text encoder
) -> CLIPTokenizer:
    """Load only the tokenizer of a model; without its file of words it would open too, but be empty."""

    def sizes() -> tuple[int, int]:
        text = CLIPTextConfig.from_pretrained(root, subfolder="text_encoder", local_files_only=True)
        return text.vocab_size, text.max_position_embeddings

    options = {"subfolder": "tokenizer", "local_files_only": True}
    tokenizer = guarded(root, "tokenizer", lambda: CLIPTokenizer.from_pretrained(root, **options))
    if (len(tokenizer), tokenizer.model_max_length) != guarded(root, "text_encoder", sizes):
        raise ValueError(f"{root / 'tokenizer'} is damaged or another model's: {remedy(root, 'tokenizer')}")
    return tokenizer


def load_scheduler(root: Path):
    """The scheduler that the model was saved with."""

    def open_it():
        config = DDIMScheduler.load_config(root, subfolder="scheduler")
        return getattr(diffusers, config["_class_name"]).from_config(config)

    return guarded(root, "scheduler", open_it)


def make_scheduler(
    name: str,  # one of SCHEDULERS
    config: dict,  # of the scheduler that the model came with: `scheduler.config`
) -> diffusers.SchedulerMixin:
    """Another scheduler with the same noise schedule."""
    if name not in SCHEDULERS:
        raise ValueError(f'unknown scheduler "{name}": choose one of {", ".join(SCHEDULERS)}')
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(config, **settings)


def load_clip(
    folder: str | Path = MINI,  # a directory made by `sdlearn-train`
) -> CLIPModel:  # both towers, ready to use
    """Load the text encoder of a model, rejoined with its last layer and the vision tower."""
    folder = Path(folder)
    text_encoder = load_part(CLIPTextModel, folder, "text_encoder")

    def join() -> CLIPModel:
        clip = CLIPModel(CLIPConfig.from_pretrained(folder / "clip"))
        ours = {f"text_model.{name}": x for name, x in text_encoder.state_dict().items()}
        clip.load_state_dict(load_file(folder / "clip" / "model.safetensors") | ours)
        return clip

    return guarded(folder, "clip", join).eval().requires_grad_(False)


def stable_diffusion_scheduler() -> DDIMScheduler:
    """DDIM with Stable Diffusion's own noise schedule."""
    steps = {"num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **steps)
