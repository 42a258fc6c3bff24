"""Parts to disk, in the layout of a `StableDiffusionPipeline`; each folder and file as a whole or not at all."""

import json
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
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
    with whole_folder(folder / "tokenizer") as new:
        tokenizer.save_pretrained(new)
    with whole_folder(folder / "text_encoder") as new:
        text_encoder.save_pretrained(new)
    with whole_folder(folder / "clip") as new:  # last: once this folder exists, `sdlearn-train` counts CLIP as done
        clip.config.save_pretrained(new)
        save_file({name: x for name, x in half(clip).items() if name not in ours}, new / "model.safetensors")


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """The U-Net's text encoder, as in Stable Diffusion 2: a copy of CLIP's without the last layer.

    The last layer sums captions up and ties words together (docs/what-was-tried.md).
    """
    theirs = clip.text_model
    config = CLIPTextConfig(**theirs.config.to_dict() | {"num_hidden_layers": theirs.config.num_hidden_layers - 1})
    ours = CLIPTextModel(config)
    ours.load_state_dict({name: theirs.state_dict()[name] for name in ours.state_dict()})
    return ours.eval()


def save_model(model: ModelMixin, folder: Path) -> None:
    """Save a diffusers model in half precision (diffusers itself opens it as float32); the model stays as it is."""
    with whole_folder(folder) as new:
        model.save_config(new)
        save_file(half(model), new / WEIGHTS["unet"], {"format": "pt"})


def save_judge(judge: torch.nn.Module, folder: Path) -> None:
    """Save the classifier of `sdlearn-measure`, in half precision."""
    with whole_folder(folder) as new:
        save_file(half(judge), new / "model.safetensors")


def half(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights, at two bytes a number."""
    return {name: x.half().contiguous() for name, x in model.state_dict().items()}


def save_index(folder: Path) -> None:
    """Save the scheduler and the list of parts, which turn a directory into a `StableDiffusionPipeline`."""
    with whole_folder(folder / "scheduler") as new:
        stable_diffusion_scheduler().save_pretrained(new)
    kinds = dict(text_encoder=CLIPTextModel, tokenizer=CLIPTokenizer, vae=AutoencoderKL, unet=UNet2DConditionModel)
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": version("diffusers")}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    for part, kind in (kinds | {"scheduler": DDIMScheduler}).items():
        index[part] = [kind.__module__.split(".")[0], kind.__name__]
    with whole_file(folder / "model_index.json") as new:
        new.write_text(json.dumps(index, indent=2) + "\n")


# ---------------------------------------------------------------- as a whole or not at all


@contextmanager
def whole_folder(folder: Path) -> Generator[Path, None, None]:
    """Write into what comes, a new folder; it takes the other's place only when all is written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True
    ) as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        new.mkdir()
        yield new
        for file in new.rglob("*"):  # safetensors writes files that only their owner can read
            file.chmod(0o755 if file.is_dir() else 0o644)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)


@contextmanager
def whole_file(file: Path) -> Generator[Path, None, None]:
    """Write to what comes, a new file; it takes the other's place only when all is written."""
    new = file.with_name(f".{file.name}.part")
    try:
        yield new
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def check_file(file: Path | None) -> None:
    """Raise OSError if a file could not be written: checked before the work is done, not after."""
    if file and file.is_dir():
        raise IsADirectoryError(f"cannot write {file}: it is a folder; add the name of a file")
    if file and not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot write {file}: there is no folder {file.parent}")
