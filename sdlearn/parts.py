"""The five parts of a Stable Diffusion: opened from a directory, checked, and put on a device."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from sdlearn.measuring import Judge

MINI = Path(__file__).parent / "mini"  # the shipped model
WEIGHTS = {  # the files without which there is no picture
    "text_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
}
HALF = {part: file.replace(".safetensors", ".fp16.safetensors") for part, file in WEIGHTS.items()}  # as the hub has it
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


def load(
    root: str | Path = MINI,  # "mini", or a directory in the format of a StableDiffusionPipeline
    device: str | torch.device | None = None,  # None: the best there is
    dtype: torch.dtype = torch.float32,  # float16 is for GPUs
) -> Parts:  # on the device, ready to use but not to train
    """Load the five parts, each from its own subfolder. For a model that is on the hub: `tools.hub.load`.

    Raises FileNotFoundError if a part is missing, ValueError if a file is damaged or belongs to another model.
    """
    root, device = MINI if str(root) == "mini" else Path(root), torch.device(device or best_device())
    if not root.is_dir():
        raise FileNotFoundError(f'no model "{root}": give "mini" or a directory')
    if dtype != torch.float32 and device.type == "cpu":
        raise ValueError("half precision is for GPUs: on a CPU, omit dtype")
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


def best_device() -> torch.device:
    """A CUDA GPU if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


# ---------------------------------------------------------------- one part


def load_part(
    kind: Any,  # class of the part
    root: Path,
    subfolder: str,  # where the part lies in it
    dtype: torch.dtype = torch.float32,
):  # an instance of `kind`
    """Load one part with its library's own `from_pretrained`, safetensors only."""
    settings = f"{subfolder}/config.json"
    guarded(root, settings, lambda: config(root / settings))  # else the weights would be blamed
    whole, half = (root / subfolder / files[subfolder] for files in (WEIGHTS, HALF))
    variant = "fp16" if half.exists() and (dtype == torch.float16 or not whole.exists()) else None
    options = {"subfolder": subfolder, "local_files_only": True, "dtype": dtype, "variant": variant}
    options |= {"use_safetensors": True, "output_loading_info": True}
    disable_progress_bar()  # a local file needs none, and every lesson would store it in its output
    try:
        model, info = guarded(root, subfolder, lambda: kind.from_pretrained(root, **options))
    finally:
        enable_progress_bar()
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(f"{root / subfolder} holds another model's weights: {remedy(root, subfolder)}")
    if not all(x.isfinite().all() for x in model.state_dict().values()):
        raise ValueError(f"{root / subfolder} holds weights that are not numbers (NaN): {remedy(root, subfolder)}")
    return model.eval()


def config(file: Path) -> dict:
    """Settings, as they were saved."""
    return json.loads(file.read_text(encoding="utf-8"))


def load_tokenizer(
    root: Path = MINI,  # a directory with a tokenizer and a text encoder
) -> CLIPTokenizer:
    """Load only the tokenizer of a model; without its file of words it would open too, but be empty."""

    def opened(kind, part):
        return guarded(root, part, lambda: kind.from_pretrained(root, subfolder=part, local_files_only=True))

    tokenizer, text = opened(CLIPTokenizer, "tokenizer"), opened(CLIPTextConfig, "text_encoder")
    if (len(tokenizer), tokenizer.model_max_length) != (text.vocab_size, text.max_position_embeddings):
        raise ValueError(f"{root / 'tokenizer'} is damaged or another model's: {remedy(root, 'tokenizer')}")
    return tokenizer


def load_scheduler(root: Path) -> diffusers.SchedulerMixin:
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


def stable_diffusion_scheduler() -> DDIMScheduler:
    """DDIM with Stable Diffusion's own noise schedule."""
    steps = {"num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **steps)


def load_clip(
    root: str | Path = MINI,  # a directory made by `sdlearn-train`
) -> CLIPModel:  # both encoders, ready to use
    """Load the text encoder of a model, rejoined with its last layer and the image encoder."""
    root = Path(root)
    text_encoder = load_part(CLIPTextModel, root, "text_encoder")

    def join() -> CLIPModel:
        clip = CLIPModel(CLIPConfig.from_pretrained(root / "clip"))
        ours = {f"text_model.{name}": x for name, x in text_encoder.state_dict().items()}
        clip.load_state_dict(load_file(root / "clip" / "model.safetensors") | ours)
        return clip

    return guarded(root, "clip", join).eval().requires_grad_(False)


def load_judge(
    root: str | Path = MINI,  # a directory with a trained judge
) -> Judge:
    """Load a judge, by default the one shipped with the course; it judges every model, whoever trained it."""
    judge, folder = Judge(), Path(root) / "judge"
    guarded(Path(root), "judge", lambda: judge.load_state_dict(load_file(folder / "model.safetensors")))
    return judge.eval().requires_grad_(False)


# ---------------------------------------------------------------- one clear line


def remedy(
    root: Path,  # of the model
    subfolder: str,  # where in it something is missing or damaged
) -> str:
    """How to get a part back: true of this directory, and never at the cost of another part."""
    part, file = subfolder.partition("/")[0], root / subfolder / WEIGHTS.get(subfolder, "")
    if root == MINI:
        return "get it back with `git checkout -- sdlearn/mini`"
    if Path(constants.HF_HUB_CACHE).resolve() in root.resolve().parents:  # it keeps a damaged file for good
        again = "give the hub name once more where there is a network"
        return f"remove {file.resolve()} and {again}" if file.is_file() else again
    if part == "judge":  # no pipeline needs it
        return f"remove {root / part} if it is there and make it again with `sdlearn-train judge --out {root} --resume`"
    if not (root / "checkpoints").is_dir():  # which `sdlearn-train` leaves in what it made
        return "copy it again from where this directory came from"
    if part in ("scheduler", "model_index.json") and (root / "unet").exists():  # the same for every model of the course
        return f"copy {root / subfolder} from {MINI / subfolder}"
    made_with = "clip" if part in ("tokenizer", "text_encoder") else part
    go_on = f"`sdlearn-train all --out {root} --resume`"
    if not (root / made_with).exists():
        return f"its training is not finished: go on with {go_on}"
    return f"remove {root / made_with} and make it again with {go_on}"


def guarded(root: Path, subfolder: str, open_it: Callable):
    """Run a library's loader; if it fails, say in one line what went wrong."""
    try:
        return open_it()
    except (SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        if not (root / subfolder).exists():
            raise FileNotFoundError(f"{root / subfolder} is missing: {remedy(root, subfolder)}") from error
        file, reason = root / subfolder / WEIGHTS.get(subfolder, ""), [*str(error).splitlines(), "empty"][0][:120]
        raise ValueError(f"{file} is damaged or another model's ({reason}): {remedy(root, subfolder)}") from error
