"""What is not a model of the course, or is damaged: one line that says why, before anything is built."""

import json
import math
import os
import re
import stat
from functools import wraps

import diffusers
import pytest
import torch
from damage import change, change_weights, damage
from diffusers.schedulers import KarrasDiffusionSchedulers

from sdlearn import parts
from sdlearn.parts import files, schema
from sdlearn.tools import hub

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


class Built(BaseException):
    """A network was built."""


@pytest.fixture
def unbuilt(monkeypatch):
    """Fail if a network is built: what is refused is refused before."""

    def without(init):
        @wraps(init)
        def build(*_, **__):
            raise Built

        return build

    for kind in schema.KINDS.values():
        monkeypatch.setattr(kind, "__init__", without(kind.__init__))


def refusal(root, load=parts.load):
    """What is said, in one line, of a directory that cannot be loaded."""
    with pytest.raises((ValueError, OSError, MemoryError)) as said:
        load(root)
    assert "\n" not in str(said.value) and type(said.value) in (ValueError, FileNotFoundError, MemoryError)
    return str(said.value)


# ---------------------------------------------------------------- other than what the course draws with


@pytest.mark.parametrize(
    "file", ["unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json", "vae/config.json"]
)
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(copy, unbuilt, file):
    damage(copy / file, POINTER)
    assert refusal(copy) == f"{copy / file} is a pointer of git-lfs, not the file: run `git lfs pull` in {copy}"


@pytest.mark.parametrize("file", ["adapter_config.json", "pytorch_lora_weights.safetensors"])
def test_an_adapter_is_no_model(copy, unbuilt, file):
    weights = copy / "unet" / parts.WEIGHTS["unet"]
    weights.rename(weights.with_name(file))
    assert f"{copy / 'unet'} holds an adapter (LoRA), which is no model by itself" in refusal(copy, hub.load)


@pytest.mark.parametrize(
    ("part", "kind"), [("unet", "SD3Transformer2DModel"), ("text_encoder", "T5EncoderModel"), ("vae", None)]
)
def test_another_class_than_we_load_is_named(copy, unbuilt, part, kind):
    change(copy / "model_index.json", **{part: ["somewhere", kind]})
    for load in (parts.load, hub.load):
        assert f"model_index.json has a {kind} as {part}, not a {schema.KINDS[part].__name__}: " in refusal(copy, load)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("unet", {"_class_name": "SD3Transformer2DModel"}),
        ("vae", {"_class_name": "AutoencoderTiny"}),
        ("text_encoder", {"model_type": "t5", "architectures": ["T5EncoderModel"]}),
        ("text_encoder", {"model_type": "clip", "architectures": None}),
    ],
    ids=str,
)
def test_settings_of_another_class_are_named(copy, unbuilt, part, settings):
    change(copy / part / "config.json", **settings)
    assert re.search(rf"{part}/config.json is for \w+, not for {schema.KINDS[part].__name__}: the c", refusal(copy))


@pytest.mark.parametrize("setting", schema.NEEDS)
def test_what_wants_an_input_that_we_do_not_give_is_refused(copy, unbuilt, setting):
    part = "text_encoder" if setting == "use_attention_mask" else "unet"
    change(copy / part / "config.json", **{setting: 64})
    assert f"{part}/config.json sets {setting}, which wants an input that the course does not give" in refusal(copy)


def test_no_attention_mask_is_no_obstacle(copy):
    written = {"use_attention_mask": False, "torch_dtype": "float32", "dropout": 0.0, "_name_or_path": "openai/clip"}
    change(copy / "text_encoder" / "config.json", **written)
    assert isinstance(parts.load(copy, "cpu"), parts.Parts)


PUBLISHED = {  # the settings of v1-4 in the versions of the libraries that wrote them
    "text_encoder": {
        **{"_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "dropout": 0.0},
        **{"attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "quick_gelu"},
        **{"hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072},
        **{"layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model"},
        **{"num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "torch_dtype": "float32"},
        **{"transformers_version": "4.21.0.dev0", "vocab_size": 49408},
    },
    "vae": {
        **{"_class_name": "AutoencoderKL", "_diffusers_version": "0.2.2", "act_fn": "silu", "sample_size": 512},
        **{"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4},
        **{"in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "out_channels": 3},
        **{"up_block_types": ["UpDecoderBlock2D"] * 4},
    },
    "unet": {
        **{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.2.2", "act_fn": "silu", "freq_shift": 0},
        **{"attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False},
        **{"cross_attention_dim": 768, "downsample_padding": 1, "flip_sin_to_cos": True, "in_channels": 4},
        **{"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "layers_per_block": 2},
        **{"mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4},
        **{"sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3},
    },
}
SCHEDULER = {
    **{"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0", "beta_end": 0.012, "beta_start": 0.00085},
    **{"beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False},
    **{"skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False},
}


def test_the_published_settings_of_v1_4_are_known(copy):
    own = [schema.check_part(PUBLISHED[part], kind) for part, kind in schema.KINDS.items()]
    schema.check_agreement(*own)
    assert own[1]["scaling_factor"] == 0.18215
    damage(copy / "scheduler" / "scheduler_config.json", json.dumps(SCHEDULER).encode())
    change(copy / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    assert type(parts.load_scheduler(copy)) is diffusers.PNDMScheduler


def test_the_tensors_of_v1_4_had_other_names(copy):
    """Attention in the VAE, and everything in the text encoder, which brought a table of positions along."""
    names = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def rename(tensors, new):
        found = {new(name): x for name, x in tensors.items()}
        tensors.clear()
        tensors.update(found)

    def attention(name):
        return next((name.replace(now, then) for now, then in names.items() if now in name), name)

    def prefix(tensors):
        rename(tensors, lambda name: "text_model." + name.removeprefix("text_model."))
        tensors["text_model.embeddings.position_ids"] = torch.arange(24)[None]

    change_weights(copy / "vae" / parts.WEIGHTS["vae"], lambda tensors: rename(tensors, attention))
    change_weights(copy / "text_encoder" / parts.WEIGHTS["text_encoder"], prefix)
    for one, other in zip(parts.load("mini", "cpu")[1:4], parts.load(copy, "cpu")[1:4], strict=True):
        torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("part", "settings", "said"),
    [
        ("vae", {"latent_channels": 16}, "4 channels in, 4 out; the VAE has 16"),
        ("unet", {"in_channels": 9}, "9 channels in, 4 out; the VAE has 4"),
        ("unet", {"cross_attention_dim": 768}, "cross_attention_dim 768; the text encoder has hidden_size 128"),
        ("unet", {"cross_attention_dim": [128, 64]}, "cross_attention_dim [128, 64]; the text encoder has"),
        ("text_encoder", {"hidden_size": 256}, "cross_attention_dim 128; the text encoder has hidden_size 256"),
        ("unet", {"sample_size": [8, 8]}, "sample_size must be a whole number; got [8, 8]"),
        ("unet", {"sample_size": None}, "sample_size must be a whole number; got None"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_together_are_named(copy, unbuilt, part, settings, said):
    change(copy / part / "config.json", **settings)
    assert f"unet/config.json is damaged or another model's ({said}" in refusal(copy)


# ---------------------------------------------------------------- settings out of any range


@pytest.mark.parametrize(
    ("part", "settings", "said"),
    [
        ("text_encoder", {"num_hidden_layers": 10**5}, "num_hidden_layers must be a whole number from 1 to 100"),
        ("text_encoder", {"num_hidden_layers": "2"}, "num_hidden_layers must be"),
        ("unet", {"layers_per_block": 10**5}, "layers_per_block must be"),
        ("unet", {"layers_per_block": [1, 0]}, "layers_per_block must be"),
        ("unet", {"transformer_layers_per_block": [[1], 10**5]}, "transformer_layers_per_block must be"),
        ("vae", {"block_out_channels": [16] * 10**5}, "block_out_channels has 100,000 entries, more than 16"),
        ("vae", {"down_block_types": ["DownEncoderBlock2D"] * 17}, "down_block_types has 17 entries, more than 16"),
        ("vae", {"norm_num_groups": True}, "norm_num_groups must be"),
        ("unet", {"norm_eps": math.nan}, "norm_eps must be a number within a million; got nan"),
        ("unet", {"freq_shift": 10**400}, "freq_shift must be"),
        ("unet", {"freq_shift": "0"}, "freq_shift must be a number; got '0'"),
        ("unet", {"mid_block_scale_factor": [1]}, "mid_block_scale_factor must be a number; got [1]"),
        ("unet", {"magic": 1}, 'there is no setting "magic"'),
        ("vae", {"quantization_config": {"load_in_4bit": True}}, 'there is no setting "quantization_config"'),
        ("text_encoder", {"magic": 1}, 'there is no setting "magic"'),
        *(("vae", {"scaling_factor": x}, "scaling_factor must be a number ") for x in (0, -1, math.nan)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_are_checked_before_anything_is_built(copy, unbuilt, part, settings, said):
    change(copy / part / "config.json", **settings)
    assert f"{part}/config.json is damaged or another model's ({said}" in refusal(copy)


@pytest.mark.parametrize("scale", [math.inf, "1", None], ids=str)
def test_a_scale_factor_is_a_number(copy, unbuilt, scale):
    change(copy / "vae" / "config.json", scaling_factor=scale)
    assert "vae/config.json is damaged" in refusal(copy)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("text_encoder", {"num_hidden_layers": 100}),
        ("text_encoder", {"vocab_size": 10**6}),
        ("vae", {"block_out_channels": [8192] * 4}),
        ("unet", {"block_out_channels": [8192, 8192], "layers_per_block": 16}),
        ("unet", {"block_out_channels": [16] * 16, "layers_per_block": 16}),
    ],
    ids=str,
)
def test_more_numbers_than_the_file_holds_are_not_built(copy, unbuilt, part, settings):
    said = rf"/{part}/\S+safetensors is damaged .*\(for [\d,]+ layers and [\d,]+ numbers at least; there are"
    change(copy / part / "config.json", **settings)
    if part == "unet":  # for the others, the U-Net would be blamed first, for not fitting to them
        assert re.search(said, refusal(copy))
    assert re.search(said, refusal(copy, lambda root: parts.load_part(schema.KINDS[part], root, part)))


def test_what_is_counted_is_never_more_than_there_is():
    for part, kind in schema.KINDS.items():
        own, (_, _, shapes) = files.settings(parts.MINI, part), files.weights(parts.MINI, part)
        schema.check_size(own, shapes)
        with pytest.raises(ValueError, match="layers"):  # nor is it so little that a tenth would do
            schema.check_size(own, shapes[: len(shapes) // 10])
        assert sum(map(math.prod, shapes)) == sum(
            x.numel() for x in parts.load_part(kind, parts.MINI, part).state_dict().values()
        )


def test_a_header_of_a_million_tensors_is_not_read(copy, unbuilt, monkeypatch):
    entry = b'{"dtype":"F32","shape":[],"data_offsets":[0,0]}'
    header = b"{" + b",".join(b'"%d":' % i + entry for i in range(10**6)) + b"}"
    damage(copy / "text_encoder" / parts.WEIGHTS["text_encoder"], len(header).to_bytes(8, "little") + header)
    monkeypatch.setattr(files, "safe_open", None)
    assert "is damaged or another model's (its header is longer than 1,000,000 bytes)" in refusal(copy)


@pytest.mark.parametrize("half", ["text_config", "vision_config"])
def test_the_settings_of_clip_are_checked_too(copy, half):
    own = json.loads((copy / "clip" / "config.json").read_text())
    for settings in ({"num_hidden_layers": 10**5}, {"magic": 1}, {"hidden_size": 8192}):
        change(copy / "clip" / "config.json", **{half: own[half] | settings})
        assert re.search(r"/clip(/config.json)? is damaged or another model's \(.+\)", refusal(copy, parts.load_clip))


@pytest.mark.parametrize(("part", "load"), [("clip", parts.load_clip), ("judge", parts.load_judge)])
def test_a_clip_or_a_judge_that_is_not_a_number_is_named(copy, part, load):
    file = copy / part / "model.safetensors"
    change_weights(file, lambda tensors: next(iter(tensors.values())).view(-1)[0].fill_(math.inf))
    assert f"{file} is damaged or another model's (weights that are not numbers (NaN))" in refusal(copy, load)
    file.unlink()
    assert f"{file} is missing" in refusal(copy, load)


# ---------------------------------------------------------------- the scheduler


@pytest.mark.parametrize("name", [kind.name for kind in KarrasDiffusionSchedulers] + ["LCMScheduler", "TCDScheduler"])
def test_every_scheduler_that_the_library_saves_is_opened(tmp_path, name):
    kind = getattr(diffusers, name)
    if not issubclass(kind, diffusers.SchedulerMixin) or name == "EDMEulerScheduler":
        pytest.skip("wants a library that is not here, or has no betas")
    kind.from_config(parts.load_scheduler().config).save_pretrained(tmp_path / "scheduler")
    before = torch.get_rng_state()
    assert type(parts.load_scheduler(tmp_path)) is kind
    assert torch.equal(torch.get_rng_state(), before)


def test_the_class_of_the_scheduler_is_the_one_in_the_list_of_parts(copy):
    change(copy / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(copy, safety_checker=None)
    assert type(parts.load_scheduler(copy)) is type(pipeline.scheduler) is diffusers.PNDMScheduler
    (copy / "model_index.json").unlink()
    assert type(parts.load_scheduler(copy)) is diffusers.DDIMScheduler


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "logging", "no_such", "", None, 7, "SchedulerMixin"])
@pytest.mark.parametrize("where", ["model_index.json", "scheduler/scheduler_config.json"])
def test_a_class_that_is_no_scheduler_is_refused(copy, name, where):
    change(copy / "model_index.json", scheduler=["diffusers", name])
    if where != "model_index.json":
        (copy / "model_index.json").unlink()
        change(copy / where, _class_name=name)
    assert "scheduler/scheduler_config.json is damaged" in refusal(copy, parts.load_scheduler)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta_start": math.nan}, "beta_start must be a number"),
        ({"beta_start": 0.0, "beta_end": 0.0}, "a beta is not between 0 and 1"),
        ({"beta_schedule": "linear", "beta_start": -0.1}, "a beta is not between"),
        ({"beta_start": -0.1}, ""),  # its root is no number
        ({"beta_end": 2.0}, "a beta is not between"),
        ({"trained_betas": [0.1] * 10}, "10 betas for 1000 training steps"),
        ({"trained_betas": [0.1] * 999 + [math.inf]}, "trained_betas must be"),
        ({"trained_betas": [0.1] * 500 + [1.0] * 500}, "a beta is not between"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps must be a whole number"),
        ({"num_train_timesteps": 0}, "num_train_timesteps must be a whole number"),
        ({"prediction_type": "flow_prediction"}, "prediction_type must be one of epsilon, v_prediction, sample; got"),
        ({"rescale_betas_zero_snr": True}, "its steps end in what is not a number"),  # wants v_prediction
        ({"timestep_spacing": "magic"}, "magic is not supported"),
        ({"magic": 1}, 'there is no setting "magic"'),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_noise_schedule_that_is_none_is_named(copy, settings, said):
    change(copy / "scheduler" / "scheduler_config.json", **{"timestep_spacing": "trailing"} | settings)
    assert f"scheduler/scheduler_config.json is damaged or another model's ({said}" in refusal(copy)


def test_what_the_scheduler_does_not_do_itself_is_named(copy):
    change(copy / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    change(copy / "scheduler" / "scheduler_config.json", prediction_type="sample", skip_prk_steps=True)
    assert "prediction_type given as sample must be one of" in refusal(copy)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_the_other_kinds_of_prediction_are_opened(copy, kind):
    change(copy / "scheduler" / "scheduler_config.json", prediction_type=kind)
    assert parts.load_scheduler(copy).config.prediction_type == kind


def test_a_schedule_that_ends_in_pure_noise_is_opened(copy):
    settings = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    change(copy / "scheduler" / "scheduler_config.json", **settings)
    assert parts.load_scheduler(copy).alphas_cumprod[-1] == 0


# ---------------------------------------------------------------- the guard


ERRORS = [ImportError("no such"), TypeError("x"), AssertionError(), NotImplementedError("x"), IndexError("7")]
ERRORS += [Exception("two\nlines"), Exception("\n \n"), RecursionError(), StopIteration(), UnicodeError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet", "tokenizer"])
def test_whatever_a_loader_raises_ends_in_one_line_that_names_the_part(copy, monkeypatch, part, error):
    def load(*_, **__):
        raise error

    kind = schema.KINDS.get(part, parts.CLIPTokenizer)
    monkeypatch.setattr(kind, "from_pretrained", load)
    assert re.match(rf"\S*/{part}\S* is damaged or another model's \(.+\): copy it again from", refusal(copy))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA"), OSError("Cannot allocate memory")])
def test_a_full_memory_is_not_taken_for_a_damaged_file(copy, monkeypatch, error):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(schema.KINDS["vae"], "from_pretrained", load)
    assert re.match(r"\S*/vae/\S+ does not fit into memory: close other programs, or take a smaller", refusal(copy))


def test_a_full_memory_of_the_device_names_the_part(copy, monkeypatch):
    def to(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(schema.KINDS["unet"], "to", to)
    assert refusal(copy).startswith(f"{copy / 'unet'} does not fit into memory")


def test_ctrl_c_passes(copy):
    with pytest.raises(KeyboardInterrupt), files.guarded(copy, "unet"):
        raise KeyboardInterrupt


def test_a_file_that_may_not_be_read_is_not_called_damaged(copy):
    with pytest.raises(PermissionError, match="unet may not be read by you"), files.guarded(copy, "unet"):
        raise PermissionError("denied")


@pytest.mark.skipif(os.name != "posix", reason="file modes are Unix's")
def test_a_folder_in_the_place_of_a_file_is_named(copy):
    (copy / "unet" / "config.json").unlink()
    (copy / "unet" / "config.json").mkdir()
    assert "unet/config.json is damaged or another model's ([Errno 21] Is a directory" in refusal(copy)
    assert stat.S_ISDIR((copy / "unet" / "config.json").stat().st_mode)
