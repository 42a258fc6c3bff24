"""The five parts of a Stable Diffusion, ours or the hub's: load, save, device."""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

MINI = Path(__file__).parent / "mini"  # the shipped model
V1_4 = "CompVis/stable-diffusion-v1-4"
WEIGHTS = {  # the files without which there is no picture
    "text_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
}
SCHEDULERS = {  # name on the command line -> class in diffusers, further settings
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
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
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(
    name: str | Path = "mini",  # "mini", a directory, or a name on the hub such as V1_4
    device: str | torch.device | None = None,  # None: the best there is
) -> Parts:  # in float32 on the device, ready to use, not to train
    """Load the five parts, each from its own subfolder.

    Raises FileNotFoundError where a part is missing, ValueError where a file is damaged or is
    another model's; both say which and what to do.
    """
    root = find(name)
    parts = Parts(
        load_tokenizer(root),
        load_part(CLIPTextModel, root, "text_encoder"),
        load_part(AutoencoderKL, root, "vae"),
        load_part(UNet2DConditionModel, root, "unet"),
        load_scheduler(root),
    )
    device = device or best_device()
    for model in parts[1:4]:
        model.to(device).requires_grad_(False)
    return parts


def find(name: str | Path) -> str | Path:  # a directory that has all parts, or the name of a model on the hub
    """Look where a model lies; a directory must be complete."""
    folder = MINI if str(name) == "mini" else Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or str(name).count("/") != 1:
            raise FileNotFoundError(f'no model "{name}": give "mini", a directory, or a hub name such as "{V1_4}"')
        return str(name)
    for part, file in {**WEIGHTS, "tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}.items():
        if not (folder / part / file).is_file():
            raise FileNotFoundError(f"{folder / part / file} is missing: {remedy(folder)}")
    return folder


def remedy(folder: Path) -> str:
    """How to get a damaged model back."""
    if folder == MINI:
        return "get it back with `git checkout -- sdlearn/mini`"
    return f"train it with `sdlearn-train all --out {folder}`, or copy the directory again"


def load_part(
    kind: type,  # class of the part
    root: str | Path,  # as from `find`
    subfolder: str,  # where the part lies in it
):  # an instance of `kind`
    """Load one part with its library's own `from_pretrained`, safetensors only."""
    options = {"subfolder": subfolder, "local_files_only": isinstance(root, Path) or not hub_answers()}
    if kind is CLIPTokenizer:
        tokenizer = guarded(root, subfolder, lambda: kind.from_pretrained(root, **options))
        if len(tokenizer) < 256:  # where its files are missing, the library makes one that knows no letter
            raise FileNotFoundError(cannot_get(root, subfolder))
        return tokenizer
    options |= {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
    if isinstance(root, Path):
        disable_progress_bar()  # a file that is here needs none, and every lesson would keep it in its output
    try:
        model, info = guarded(root, subfolder, lambda: kind.from_pretrained(root, **options))
    finally:
        enable_progress_bar()
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(f"{Path(root) / subfolder} holds another model's weights: {remedy(Path(root))}")
    return model.eval()


def guarded(root, subfolder, open_it):
    """Run a library's loader, and say in one line what went wrong."""
    try:
        return open_it()
    except (SafetensorError, json.JSONDecodeError, RuntimeError, ValueError, KeyError, OSError) as error:
        if isinstance(root, Path):
            file, reason = root / subfolder / WEIGHTS.get(subfolder, ""), [*str(error).splitlines(), "empty"][0][:120]
            raise ValueError(f"{file} is damaged or another model's ({reason}): {remedy(root)}") from error
        raise FileNotFoundError(cannot_get(root, subfolder)) from error


def cannot_get(root: str | Path, subfolder: str) -> str:
    """What to do where a part does not come."""
    return (
        f'cannot get {subfolder} of "{root}": check the name and the network, or download the model once where '
        'there is one and give its directory; "mini" needs no network'
    )


@cache
def hub_answers() -> bool:
    """Ask the hub once, for five seconds at most: its own library asks for minutes before it gives up."""
    with suppress(Exception):  # whatever the network library of the day raises: then only what is cached counts
        return bool(get_session().head(constants.ENDPOINT, timeout=5))
    return False


def load_tokenizer(root: str | Path = MINI) -> CLIPTokenizer:
    """Only the tokenizer of a model."""
    return load_part(CLIPTokenizer, find(root), "tokenizer")


def load_scheduler(root: str | Path):
    """The scheduler that the model was saved with."""
    config = guarded(root, "scheduler", lambda: DDIMScheduler.load_config(root, subfolder="scheduler"))
    return getattr(diffusers, config["_class_name"]).from_config(config)


def make_scheduler(
    name: str,  # one of SCHEDULERS
    config: dict,  # of the scheduler that the model came with: `scheduler.config`
) -> diffusers.SchedulerMixin:
    """Another scheduler over the same noise schedule."""
    if name not in SCHEDULERS:
        raise ValueError(f'unknown scheduler "{name}": choose one of {", ".join(SCHEDULERS)}')
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(config, **settings)


def load_clip(
    folder: str | Path = MINI,  # a directory made by `sdlearn-train`
) -> CLIPModel:  # both towers, ready to use
    """The text encoder of a model, joined again with the vision tower that it was trained against."""
    folder = Path(folder)
    text_encoder = load_part(CLIPTextModel, folder, "text_encoder")
    clip = CLIPModel(CLIPConfig.from_pretrained(folder / "clip"))
    clip.text_model = text_encoder
    rest = guarded(folder, "clip", lambda: load_file(folder / "clip" / "model.safetensors"))
    clip.load_state_dict({name: x.float() for name, x in rest.items()}, strict=False)
    return clip.eval().requires_grad_(False)


def save_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Text encoder and tokenizer as parts of the pipeline; the vision tower and the projections beside them."""
    rest = {k: x.half().contiguous() for k, x in clip.state_dict().items() if not k.startswith("text_model.")}
    with whole(folder / "tokenizer") as new:
        tokenizer.save_pretrained(new)
    with whole(folder / "clip") as new:
        clip.config.save_pretrained(new)
        save_file(rest, new / "model.safetensors")
    with whole(folder / "text_encoder") as new:
        clip.text_model.save_pretrained(new)


def save_model(model: torch.nn.Module, folder: Path) -> None:
    """Save a model of diffusers in half precision (opened as float32 by diffusers itself); the model stays as it is."""
    with whole(folder) as new:
        half = {name: x.half().contiguous() for name, x in model.state_dict().items()}
        model.save_config(new)
        save_file(half, new / WEIGHTS["unet"], {"format": "pt"})


def save_judge(judge: torch.nn.Module, folder: Path) -> None:
    """The classifier of `sdlearn-measure`, in half precision."""
    with whole(folder) as new:
        save_file({name: x.half().contiguous() for name, x in judge.state_dict().items()}, new / "model.safetensors")


def save_index(folder: Path) -> None:
    """The scheduler and the list of parts, which make a directory a `StableDiffusionPipeline`."""
    with whole(folder / "scheduler") as new:
        stable_diffusion_scheduler().save_pretrained(new)
    kinds = {"text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer, "vae": AutoencoderKL}
    kinds |= {"unet": UNet2DConditionModel, "scheduler": DDIMScheduler}
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": version("diffusers")}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    index |= {part: [kind.__module__.split(".")[0], kind.__name__] for part, kind in kinds.items()}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def stable_diffusion_scheduler() -> DDIMScheduler:
    """DDIM over Stable Diffusion's own noise schedule."""
    steps = {"num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **steps)


class whole:
    """`with whole(folder) as new:` write into `new`; it takes the folder's place only when all is written."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> Path:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.new = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f".{self.folder.name}-"))
        return self.new

    def __exit__(self, kind, *_):
        if kind:
            shutil.rmtree(self.new)
            return
        self.new.chmod(0o755)
        for file in self.new.rglob("*"):  # safetensors writes files that only their owner can read
            file.chmod(0o644)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self.new, self.folder)
