"""The five parts of a Stable Diffusion: loaded from a directory, checked, and put on a device."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig
from transformers.utils import logging as transformers_logging

from sdlearn.judging import Judge
from sdlearn.parts import schema
from sdlearn.parts.files import MINI, WEIGHTS, check, config, guarded, settings, tensors, weights

LETTERS = 514  # tokens in the smallest vocabulary there is: 256 bytes, each also as the end of a word, and two marks
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

    Raises FileNotFoundError if a part is missing, ValueError if a file is damaged or belongs to another model,
    MemoryError if the device has no room for it.
    """
    root, device = directory(root), torch.device(device or best_device())
    if not root.is_dir():
        raise FileNotFoundError(f'no model "{root}": give "mini" or a directory')
    if dtype != torch.float32 and device.type == "cpu":
        raise ValueError("half precision is for GPUs: on a CPU, omit dtype")
    check(root, dtype)
    parts = Parts(
        tokenizer=load_tokenizer(root),
        scheduler=load_scheduler(root),
        text_encoder=load_part(CLIPTextModel, root, "text_encoder", dtype),
        vae=load_part(AutoencoderKL, root, "vae", dtype),
        unet=load_part(UNet2DConditionModel, root, "unet", dtype),
    )
    for part in WEIGHTS:
        with guarded(root, part):  # a GPU's memory may be full
            getattr(parts, part).to(device).requires_grad_(False)
    return parts


def directory(
    root: str | Path,
) -> Path:
    """Where a model lies: "mini" is the shipped one; as a Path it may be a directory of that name, if there is one."""
    return MINI if root == "mini" or root == Path("mini") and not root.is_dir() else Path(root)


def best_device() -> torch.device:
    """A CUDA GPU if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


# ---------------------------------------------------------------- one part


def load_part(
    kind: Any,  # class of the part
    root: Path,
    subfolder: str,  # where the part lies in it, one of WEIGHTS
    dtype: torch.dtype = torch.float32,
):  # an instance of `kind`
    """Load one part with its library's own `from_pretrained`, safetensors only."""
    variant, file, _ = weights(root, subfolder, dtype)
    options = {"subfolder": subfolder, "local_files_only": True, "dtype": dtype, "variant": variant}
    options |= {"use_safetensors": True, "output_loading_info": True}
    with guarded(root, f"{subfolder}/{file}"), quiet():
        model, info = kind.from_pretrained(root, **options)
        if info["missing_keys"] or info["mismatched_keys"]:
            raise ValueError("its tensors are not those that config.json describes")
        check_numbers(model.state_dict())
    return model.eval()


def check_numbers(
    found: dict[str, Tensor],  # name -> weight
) -> None:
    """Raise ValueError if a weight is infinite or not a number."""
    if not all(x.isfinite().all() for x in found.values()):
        raise ValueError("weights that are not numbers (NaN)")


@contextmanager
def quiet() -> Generator[None]:
    """No progress bars, which every lesson would store in its output, and no warnings where we raise an error."""
    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    bars = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
        for library in bars:
            library.enable_progress_bar()


def load_tokenizer(
    root: str | Path = MINI,  # "mini", or a directory with a tokenizer and a text encoder
) -> CLIPTokenizer:
    """Load only the tokenizer of a model, and check it: without its vocabulary file it would load, but be empty."""
    root = directory(root)
    text = settings(root, "text_encoder")
    with guarded(root, "tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(root, subfolder="tokenizer", local_files_only=True)
        words, length = 1 + max(tokenizer.get_vocab().values()), tokenizer.model_max_length
        most, longest = text["vocab_size"], text["max_position_embeddings"]
        if not (LETTERS <= words <= most and 2 < length <= longest):  # the text encoder may have more
            raise ValueError(f"{words} tokens, {length} at a time; the text encoder has {most} and {longest}")
    return tokenizer


def load_scheduler(
    root: str | Path = MINI,  # "mini", or a directory with a scheduler
) -> diffusers.SchedulerMixin:
    """The scheduler that the model was saved with; model_index.json names its class, as for diffusers."""
    root = directory(root)
    index = root / "model_index.json"
    with guarded(root, "scheduler/scheduler_config.json"):
        own = config(root / "scheduler" / "scheduler_config.json")
        name = (config(index) if index.is_file() else {}).get("scheduler", [None, own["_class_name"]])[1]
        scheduler = schema.scheduler_class(name, own).from_config(own)
        schema.check_schedule(scheduler)
    return scheduler


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
    root: str | Path = MINI,  # "mini", or a directory made by `sdlearn-train`
) -> CLIPModel:  # both encoders, ready to use
    """Load the text encoder of a model, rejoined with its last layers and the image encoder."""
    root = directory(root)
    text_encoder = load_part(CLIPTextModel, root, "text_encoder")
    with guarded(root, "clip/config.json"):
        own = config(root / "clip" / "config.json")
        halves = (own["text_config"], CLIPTextConfig), (own["vision_config"], CLIPVisionConfig)
        for one, kind in ((own, CLIPConfig), *halves):
            schema.check_settings(one, kind().to_dict())
        own = CLIPConfig(**own)
    both = part_of_ours(root, "clip") | {f"text_model.{name}": x for name, x in text_encoder.state_dict().items()}
    with guarded(root, "clip"):
        with torch.device("meta"):  # it takes no memory, and shows whether the weights fit
            CLIPModel(own).load_state_dict(both, assign=True)
        clip = CLIPModel(own)
        clip.load_state_dict(both)
    return clip.eval().requires_grad_(False)


def load_judge(
    root: str | Path = MINI,  # "mini", or a directory with a trained judge
) -> Judge:
    """Load a judge, by default the one shipped with the course; it judges every model, whoever trained it."""
    root = directory(root)
    judge, numbers = Judge(), part_of_ours(root, "judge")
    with guarded(root, "judge"):
        judge.load_state_dict(numbers)
    return judge.eval().requires_grad_(False)


def load_fast(
    root: str | Path = MINI,  # "mini", or a directory made by `sdlearn-train fast`
) -> UNet2DConditionModel:  # it predicts velocities; ready to use
    """Load the U-Net that draws in one or two steps (lesson 9): 8 bits a weight, times a scale per output channel."""
    root = directory(root)
    settings(root, "unet")  # are they sane?
    stored = part_of_ours(root, "fast")
    scales = {name.removesuffix(".scale"): stored.pop(name) for name in [*stored] if name.endswith(".scale")}
    with guarded(root, "fast"):
        unet: Any = UNet2DConditionModel.from_config(config(root / "unet" / "config.json"))
        unet.load_state_dict({name: x.float() * scales.get(name, 1) for name, x in stored.items()})
    return unet.eval().requires_grad_(False)


def part_of_ours(
    root: Path,
    part: str,  # "clip", "judge" or "fast", which no pipeline has
) -> dict[str, Tensor]:  # name -> weight
    """Read the weights of a part whose class is the course's own."""
    file = root / part / "model.safetensors"
    with guarded(root, f"{part}/{file.name}"):
        tensors(file)  # is its header sane?
        check_numbers(found := load_file(file))
    return found
