"""Does it fit into memory? Checked before work begins: otherwise the process, or a notebook's kernel, would die."""

from math import prod
from pathlib import Path

import psutil
import torch

from sdlearn import parts
from sdlearn.parts import files
from sdlearn.parts.files import WEIGHTS
from sdlearn.sampling import native_size

MAPS = 6  # full-size maps of the decoder's next-to-last width that decoding one picture needs
LIMITS = {  # below /sys/fs/cgroup: where a container's limit stands, and how much of it is in use (cgroup v2, v1)
    "memory.max": "memory.current",
    "memory/memory.limit_in_bytes": "memory/memory.usage_in_bytes",
}
EXAMPLE = {"clip": 4e6, "vae": 16e6, "unet": 7e6, "judge": 2e6}  # bytes for each of a batch, at 64 pixels; measured
EXAMPLE |= dict.fromkeys(("flow", "fast"), EXAMPLE["unet"])


def free_memory(
    device: torch.device,
    groups: Path = Path("/sys/fs/cgroup"),  # where the system lists the limits of a container
) -> float:  # bytes
    """Free memory: the GPU's on CUDA, else the computer's, or less if this runs in a container with a limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *limits(groups)])


def limits(groups: Path) -> list[float]:  # bytes, one for each limit that there is
    """What a container's limits still allow; cached files do not count, since they can be dropped."""
    left = []
    for limit, used in LIMITS.items():
        if (groups / limit).is_file() and (most := (groups / limit).read_text().strip()).isdigit():
            counted = dict(line.split() for line in (groups / limit).with_name("memory.stat").read_text().splitlines())
            cached = int(counted.get("inactive_file", 0))
            left.append(int(most) - int((groups / used).read_text()) + cached)
    return left


def largest_map(widths: list[int], side: int) -> int:  # numbers
    """The decoder's next-to-last width at full size, where decoding needs most."""
    return widths[min(1, len(widths) - 1)] * side**2


def memory_needed(root: Path, dtype: torch.dtype) -> int:  # about how many bytes
    """The weights of a model, and what decoding one picture needs."""
    shapes = [shape for part in WEIGHTS for shape in files.weights(root, part, dtype)[-1]]
    widths, side = files.settings(root, "vae")["block_out_channels"], files.settings(root, "unet")["sample_size"]
    decoding = MAPS * largest_map(widths, side * 2 ** (len(widths) - 1))
    return dtype.itemsize * (sum(map(prod, shapes)) + decoding)


def check_model(
    name: str | Path,  # as it was asked for
    root: Path,
    device: torch.device,
    dtype: torch.dtype,
    smaller: str,  # a model to take instead
) -> None:
    """Raise MemoryError if a model will not fit."""
    need, there = memory_needed(root, dtype), free_memory(device)
    if need > there:
        spread = ", or let the library spread it: StableDiffusionPipeline with `enable_model_cpu_offload()`"
        raise MemoryError(
            f"{name} needs about {need / 1e9:.2f} GB on {device} in {str(dtype)[6:]}, and {there / 1e9:.2f} GB "
            f'are free: close other programs, or take a smaller relative such as "{smaller}", or "mini"'
            + (spread if device.type == "cuda" else "")
        )


def check_pictures(model: parts.Parts, n: int) -> None:
    """Raise MemoryError if so many pictures at once will not fit."""
    side, _ = native_size(model)
    need = n * MAPS * model.vae.dtype.itemsize * largest_map(model.vae.config.block_out_channels, side)
    if need > (there := free_memory(model.vae.device)):
        there_is = f"about {need / 1e9:.3g} GB, {there / 1e9:.3g} are free"
        raise MemoryError(f"{n} pictures at once need {there_is}: draw fewer at a time")


def check_batch(
    part: str,  # that is to be trained
    batch: int,
    size: int,  # pixels a side
    device: torch.device,
) -> None:
    """Raise MemoryError if a batch will not fit."""
    need = batch * EXAMPLE[part] * (size / 64) ** 2
    if need > (there := free_memory(device)):
        there_is = f"about {need / 1e9:.3g} GB, {there / 1e9:.3g} are free"
        raise MemoryError(f"--batch {batch} needs {there_is}: take a smaller one")
