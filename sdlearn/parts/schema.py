"""Checks of a model's settings before anything is built: known names, values in range, parts that match.

`ValueError` here means a damaged file; `files.guarded` says which one, and what to do.
"""

import inspect
from math import inf, prod
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

V1_4 = "CompVis/stable-diffusion-v1-4"
KINDS = {"text_encoder": CLIPTextModel, "vae": AutoencoderKL, "unet": UNet2DConditionModel}
COUNTS = {  # settings that count something: from 1 to this
    "num_hidden_layers": 100, "layers_per_block": 16, "transformer_layers_per_block": 16, "norm_num_groups": 1024,
    "hidden_size": 8192, "intermediate_size": 32768, "num_attention_heads": 1024, "attention_head_dim": 1024,
    "block_out_channels": 8192, "cross_attention_dim": 8192, "vocab_size": 1_000_000, "max_position_embeddings": 8192,
    "in_channels": 1024, "out_channels": 1024, "latent_channels": 1024, "sample_size": 4096, "image_size": 4096,
    "patch_size": 4096, "num_channels": 1024, "num_train_timesteps": 100_000,
}  # fmt: skip
LONGEST = {"trained_betas": 100_000}  # entries in a list; in every other: 16, as for the levels of a network
WRITTEN = {"torch_dtype", "dropout", "use_attention_mask"}  # by earlier versions of transformers
NEEDS = (  # set in a text encoder or U-Net that wants more than tokens, latents and a step
    *("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "addition_embed_type"),
    *("encoder_hid_dim", "encoder_hid_dim_type", "use_attention_mask"),
)
PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Other(ValueError):
    """Not damaged, but not for this course; the sentence begins with the file's name."""

    def __init__(self, what: str):
        super().__init__(f'{what}: the course draws with Stable Diffusion 1, as "{V1_4}" is')


# ---------------------------------------------------------------- settings


def check_index(index: dict) -> None:
    """Raise Other unless a model_index.json lists the classes that the course loads."""
    wanted = {part: kind.__name__ for part, kind in KINDS.items()} | {"tokenizer": "CLIPTokenizer"}
    if (kind := index["_class_name"]) != "StableDiffusionPipeline":
        raise Other(f"is a {kind}")
    for part, name in wanted.items():
        if str(index[part][1]).removesuffix("Fast") != name:
            raise Other(f"has a {index[part][1]} as {part}, not a {name}")


def check_part(own: dict, kind: Any) -> dict:  # the settings, with the library's defaults for those not given
    """Check the settings of a text encoder, VAE or U-Net. Raises ValueError, or Other for one of another kind."""
    named = own.get("_class_name", kind.__name__), own.get("model_type", "clip_text_model")
    if named != (kind.__name__, "clip_text_model"):
        raise Other(f"is for {[*(own.get('architectures') or ()), *named][0]}, not for {kind.__name__}")
    if wants := [name for name in NEEDS if own.get(name)]:
        raise Other(f"sets {wants[0]}, which wants an input that the course does not give")
    if not {"hidden_size", "block_out_channels"} & own.keys():
        raise ValueError("it says nothing about sizes")
    known = kind.config_class().to_dict() if kind is CLIPTextModel else defaults(kind)
    check_settings(own, dict.fromkeys(WRITTEN) | known)
    if not 0 < (scale := (known | own).get("scaling_factor", 1)) < inf:  # NaN too
        raise ValueError(f"scaling_factor must be a number above 0; got {scale}")
    return known | own


def defaults(kind: Any) -> dict[str, Any]:
    """The settings of one of diffusers' classes."""
    return {name: found.default for name, found in inspect.signature(kind.__init__).parameters.items()}


def check_settings(
    own: dict,
    known: dict,  # setting -> its default
) -> None:
    """Raise ValueError for an unknown setting, or for a value out of its range."""
    for name, value in own.items():
        if name not in known and name[0] != "_" and value is not None:
            raise ValueError(f'there is no setting "{name}"')
        if type(known.get(name)) in (int, float) and name not in COUNTS and isinstance(value, str | list | dict):
            raise ValueError(f"{name} must be a number; got {value!r}")
        check_value(name, value)


def check_value(name: str, value: Any) -> None:
    """Raise ValueError for a count out of its range, an overlong list, or a number that is huge or NaN."""
    most, longest = COUNTS.get(name), LONGEST.get(name, 16)
    if isinstance(value, list | tuple):
        if len(value) > longest:
            raise ValueError(f"{name} has {len(value):,} entries, more than {longest:,}")
        for entry in value:
            check_value(name, entry)
    elif most and value is not None and not (type(value) is int and 1 <= value <= most):
        raise ValueError(f"{name} must be a whole number from 1 to {most:,}; got {value}")
    elif isinstance(value, int | float) and not abs(value) <= 1e6 and name != "lambda_min_clipped":  # it may be -inf
        raise ValueError(f"{name} must be a number within a million; got {value}")


def check_agreement(text: dict, vae: dict, unet: dict) -> None:
    """Raise ValueError, blaming the U-Net, unless the settings of the three parts fit together."""
    channels, width = vae["latent_channels"], unet["cross_attention_dim"]
    if type(unet["sample_size"]) is not int:
        raise ValueError(f"sample_size must be a whole number; got {unet['sample_size']}")
    if (unet["in_channels"], unet["out_channels"]) != (channels, channels):
        raise ValueError(f"{unet['in_channels']} channels in, {unet['out_channels']} out; the VAE has {channels}")
    if {*(width if isinstance(width, list | tuple) else [width])} != {text["hidden_size"]}:
        raise ValueError(f"cross_attention_dim {width}; the text encoder has hidden_size {text['hidden_size']}")


def check_size(own: dict, shapes: list[list[int]]) -> None:
    """Raise ValueError if settings, from `check_part`, describe more layers or numbers than the file of weights holds.

    Counted are the largest matrices of each layer, so there may be fewer than the network has, but never more.
    """
    if "hidden_size" in own:
        layers, width = own["num_hidden_layers"], own["hidden_size"]
        least = own["vocab_size"] * width + layers * width * (4 * width + 2 * own["intermediate_size"])
    else:
        widths, deep = own["block_out_channels"], own["layers_per_block"]
        each = 1 + 2 * (min(deep) if isinstance(deep, list | tuple) else deep)  # down: `deep` blocks; up: one more
        layers, least = each * len(widths), each * sum(9 * width**2 for width in widths)  # a convolution in each
    there = sum(prod(shape) for shape in shapes)
    if least > there or 8 * layers > len(shapes):  # two convolutions and two norms, or more, each with its bias
        raise ValueError(f"for {layers:,} layers and {least:,} numbers at least; there are {there:,}")


# ---------------------------------------------------------------- the noise schedule


def scheduler_class(name: str, own: dict) -> Any:
    """Find a scheduler's class in diffusers. Raises ValueError if it is not a scheduler, or for unknown settings.

    Settings of related schedulers may be there: diffusers keeps them for a change of scheduler.
    """
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f'"{name}" is no scheduler of diffusers')
    relatives = [*diffusers.DDIMScheduler._get_compatibles(), diffusers.LCMScheduler, diffusers.TCDScheduler]
    check_settings(own, {key: value for each in [kind, *relatives] for key, value in defaults(each).items()})
    return kind


def check_schedule(scheduler: Any) -> None:
    """Raise ValueError for impossible betas, or if a few trial steps end in NaN."""
    betas, kind = getattr(scheduler, "betas", None), scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ValueError(f'prediction_type must be one of {", ".join(PREDICTIONS)}; got "{kind}"')
    if betas is None:
        raise Other("has a noise schedule of another kind, without betas")
    if len(betas) != scheduler.config.num_train_timesteps:
        raise ValueError(f"{len(betas)} betas for {scheduler.config.num_train_timesteps} training steps")
    if not ((betas > 0) & (betas < 1))[:-1].all() or not 0 < betas[-1] <= 1:  # 1 at the end: nothing is left but noise
        raise ValueError("a beta is not between 0 and 1")
    trial = type(scheduler).from_config(scheduler.config)
    trial.set_timesteps(4)
    x = torch.ones(1, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):  # some add noise
        for t in trial.timesteps:
            x = trial.step(trial.scale_model_input(x, t) / 2, t, x).prev_sample
    if not x.isfinite().all():
        raise ValueError("its steps end in what is not a number (NaN)")
