"""Checks of arguments, where broadcasting or another dtype would hide a mistake."""

import math
from numbers import Integral
from textwrap import shorten

import torch
from torch import Tensor


def check_shape(
    x: Tensor,
    name: str,  # of the argument
    *shape: int | str,  # a number, or a letter if any size will do
    why: str = "",  # added to the wanted shape
) -> None:
    """Raise ValueError, with the wanted shape and the given one, if the two differ."""
    got = tuple(x.shape) if isinstance(x, Tensor) else ()
    right = [isinstance(want, str) or want == size for want, size in zip(shape, got, strict=False)]
    if len(got) != len(shape) or not all(right):
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} must have shape ({wanted}){why}; got {kind(x)}")


def check_pictures(
    pictures: Tensor,  # b c h w
    factor: int,  # what both sides must be divisible by
) -> None:
    """Raise ValueError unless these are pictures as floats, with sides that `factor` divides."""
    check_shape(pictures, "pictures", "b", 3, "h", "w")
    if not pictures.is_floating_point():
        raise ValueError(f"pictures must be floats, as `scenes.to_tensor` makes them; got {kind(pictures)}")
    if any(side % factor for side in pictures.shape[2:]):
        raise ValueError(f"the sides of pictures must be divisible by {factor}; got {kind(pictures)}")


def check_steps(
    t: Tensor,
    b: int,  # pictures
    steps: int,  # of the noise schedule
) -> None:
    """Raise ValueError if `t` is not one step per picture: (b, 1) would mix pictures with one another's noise."""
    check_shape(t, "t", b, why=", one step per picture")
    if t.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"t must hold integers; got {kind(t)}")
    if b and not 0 <= t.min() <= t.max() < steps:
        raise ValueError(f"t must lie between 0 and {steps - 1}; got {int(t.min())} .. {int(t.max())}")


def kind(x) -> str:
    """Describe an argument: the shape and dtype of a tensor, or the type of anything else."""
    if not isinstance(x, Tensor):
        return type(x).__name__
    shape, dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
    return str(shape) if dtype in ("float32", "int64") else f"{shape} {dtype}"


def check_prompts(
    prompts: list[str],
    negative: str,
) -> None:
    """Raise ValueError for prompts that are not strings of valid text, and for more than one negative prompt."""
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"prompts must be one text or a list of texts; got {[kind(prompt) for prompt in prompts]}")
    if not isinstance(negative, str):
        raise ValueError(f"negative must be one text, for all pictures; got {kind(negative)}")
    for text in (*prompts, negative):
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python keeps bytes that are no UTF-8
            raise ValueError(f"the prompt {shorten(ascii(text), 60)} is not valid text: write it in UTF-8")


def check_settings(
    steps: int,  # of the loop
    guidance_scale: float,
    seed: int,
    height: int,  # pixels
    width: int,  # pixels
    factor: int,  # what both must be divisible by
) -> None:
    """Raise ValueError for a setting that cannot work."""
    if height % factor or width % factor or min(height, width) < factor:
        raise ValueError(f"height and width must be divisible by {factor}; got {height} x {width}")
    if not isinstance(steps, Integral):
        raise ValueError(f"steps must be a whole number; got {steps!r}")
    if steps < 1:
        raise ValueError(f"steps must be 1 or more; got {steps}")
    if isinstance(guidance_scale, str) or not math.isfinite(guidance_scale):
        raise ValueError(f"guidance must be a number; got {guidance_scale!r}")
    if not 0 <= seed < 2**32:  # torch's generator takes no more
        raise ValueError(f"seed must be from 0 to {2**32 - 1}; got {seed}")
