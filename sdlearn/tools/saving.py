"""Parts to disk: each folder is written as a whole or not at all, in the layout of a `StableDiffusionPipeline`."""

import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ModelMixin, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdlearn.parts import WEIGHTS, stable_diffusion_scheduler


def save_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save text encoder and tokenizer as parts of the pipeline, and beside them what only CLIP itself needs."""
    text_encoder = text_encoder_of(clip)
    ours = {f"text_model.{name}" for name in text_encoder.state_dict()}
    with whole(folder / "tokenizer") as new:
        tokenizer.save_pretrained(new)
    with whole(folder / "text_encoder") as new:
        text_encoder.save_pretrained(new)
    with whole(folder / "clip") as new:  # last: once this folder exists, `sdlearn-train` counts CLIP as done
        clip.config.save_pretrained(new)
        save_file({name: x for name, x in half(clip).items() if name not in ours}, new / "model.safetensors")


def text_encoder_of(
    clip: CLIPModel,
) -> CLIPTextModel:  # a copy of its text encoder, without the last layer
    """The U-Net's text encoder, as in Stable Diffusion 2: the last layer sums captions up and ties words together."""
    whole = clip.text_model
    config = CLIPTextConfig(**whole.config.to_dict() | {"num_hidden_layers": whole.config.num_hidden_layers - 1})
    short = CLIPTextModel(config)
    short.load_state_dict({name: whole.state_dict()[name] for name in short.state_dict()})
    return short.eval()


def save_model(model: ModelMixin, folder: Path) -> None:
    """Save a diffusers model in half precision (diffusers itself opens it as float32); the model stays as it is."""
    with whole(folder) as new:
        model.save_config(new)
        save_file(half(model), new / WEIGHTS["unet"], {"format": "pt"})


def save_judge(judge: torch.nn.Module, folder: Path) -> None:
    """Save the classifier of `sdlearn-measure`, in half precision."""
    with whole(folder) as new:
        save_file(half(judge), new / "model.safetensors")


def half(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights, at two bytes a number."""
    return {name: x.half().contiguous() for name, x in model.state_dict().items()}


def save_index(folder: Path) -> None:
    """Save the scheduler and the list of parts, which turn a directory into a `StableDiffusionPipeline`."""
    with whole(folder / "scheduler") as new:
        stable_diffusion_scheduler().save_pretrained(new)
    kinds: dict[str, type] = {"text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer, "vae": AutoencoderKL}
    kinds |= {"unet": UNet2DConditionModel, "scheduler": DDIMScheduler}
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": version("diffusers")}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    index |= {part: [kind.__module__.split(".")[0], kind.__name__] for part, kind in kinds.items()}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


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
            file.chmod(0o755 if file.is_dir() else 0o644)
        old = self.new.with_suffix(".old")
        if self.folder.exists():
            os.replace(self.folder, old)
        os.replace(self.new, self.folder)
        shutil.rmtree(old, ignore_errors=True)


def check_folder(file: Path | None) -> None:
    """Raise OSError if a file could not be written: checked before the work is done, not after."""
    if file and file.is_dir():
        raise IsADirectoryError(f"cannot write {file}: it is a folder; add the name of a file")
    if file and not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot write {file}: there is no folder {file.parent}")
