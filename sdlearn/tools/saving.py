"""Save parts in the layout of a `StableDiffusionPipeline`; each folder and file completely or not at all."""

import json
import os
import stat
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
    """The U-Net's text encoder: a copy of CLIP's without the last two layers (Stable Diffusion 2: without the last).

    The last layers sum captions up and tie words together (docs/what-was-tried.md).
    """
    theirs = clip.text_model
    config = CLIPTextConfig(**theirs.config.to_dict() | {"num_hidden_layers": theirs.config.num_hidden_layers - 2})
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


def save_fast(unet: UNet2DConditionModel, folder: Path) -> None:
    """Save a few-step U-Net in 8 bits; `parts.load_fast` opens it, with the settings of the U-Net beside it."""
    with whole_folder(folder) as new:
        save_file(eight_bits(unet), new / "model.safetensors")


def eight_bits(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights, at one byte a number: whole numbers, -127 .. 127, times a scale for each output channel."""
    stored = {}
    for name, x in model.state_dict().items():
        stored[name] = x.half().contiguous()
        if x.dim() > 1:  # biases and norms are few
            scale = x.abs().amax(tuple(range(1, x.dim())), keepdim=True).clamp_min(1e-9) / 127
            stored |= {name: (x / scale).round().to(torch.int8).contiguous(), f"{name}.scale": scale}
    return stored


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
    save_json(index, folder / "model_index.json")


def save_json(content: dict, file: Path) -> None:
    """Save settings or figures as JSON, indented, so that people can read them too."""
    with whole_file(file) as new:
        new.write_text(json.dumps(content, indent=2) + "\n")


# ---------------------------------------------------------------- as a whole or not at all


@contextmanager
def whole_folder(folder: Path) -> Generator[Path]:
    """Yield a new folder to write into; it replaces the old one only when everything is written."""
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
def whole_file(file: Path) -> Generator[Path]:
    """Yield a new file to write to, beside the old one; it replaces that only when everything is written.

    A link is followed: what it points to is replaced, and the link stays. Raises OSError as `check_file` does.
    """
    check_file(file)
    target = file.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")  # a name that nobody can guess
    os.close(handle)
    new = Path(name)
    try:
        yield new
        os.umask(umask := os.umask(0))  # reads it
        new.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~umask)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def check_file(file: Path | None) -> None:
    """Raise a one-line OSError if a file could not be written: checked before the work is done, not only after."""
    if not file:
        return
    target = file.resolve()
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {file}: it is a folder; add the name of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {file}: there is no folder {file.parent}")
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {file}: it is a device or a pipe, not a file")
    if target.exists() and not target.stat().st_mode & 0o222:  # root may write to it all the same
        raise PermissionError(f"cannot write {file}: it is write-protected; give another name")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {file}: the folder {file.parent} may not be written to")
