"""The shipped directory: opened by diffusers, opened by us, and one clear line when a file is not what it should be."""

import json
import shutil
import stat
from importlib import import_module
from pathlib import Path

import pytest
import torch
from damage import change_weights, damage, resave
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from sdlearn import parts
from sdlearn.parts import files
from sdlearn.sampling import text_to_image
from sdlearn.tools import hub, memory, saving

PROMPT = "a painting of a bear riding a red turtle"


def test_diffusers_opens_the_shipped_directory_and_paints_our_picture():
    pipeline = StableDiffusionPipeline.from_pretrained(parts.MINI, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    theirs = pipeline(PROMPT, num_inference_steps=4, guidance_scale=4.0, generator=generator, output_type="pt").images
    ours = text_to_image(parts.load("mini", "cpu"), PROMPT, steps=4, guidance_scale=4.0, seed=5)
    torch.testing.assert_close(ours / 2 + 0.5, theirs, atol=1e-4, rtol=0)


FORMS = [{"variant": "fp16"}, {"variant": "bf16"}, {"variant": "non_ema"}, {"max_shard_size": "2MB"}]
FORMS += [{"variant": "fp16", "max_shard_size": "2MB"}]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_weights_are_opened_in_whichever_form_they_are_there(copy, form, capfd):
    for part in parts.WEIGHTS:
        resave(copy, part, **form)
    capfd.readouterr()
    own, again = parts.load("mini", "cpu"), hub.load(copy, "cpu")
    for one, other in zip(own[1:4], again[1:4], strict=True):
        torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)
    if "max_shard_size" in form:
        assert len([*copy.rglob("*-of-*.safetensors")]) > 3
    assert memory.memory_needed(copy, torch.float32) == memory.memory_needed(parts.MINI, torch.float32)
    assert capfd.readouterr().err == ""  # no bar


def test_the_library_opens_what_we_open(copy):
    resave(copy, "unet", max_shard_size="9MB")
    own, theirs = parts.load(copy, "cpu"), StableDiffusionPipeline.from_pretrained(copy, safety_checker=None)
    torch.testing.assert_close(own.unet.state_dict(), theirs.unet.state_dict(), rtol=0, atol=0)


def test_of_several_variants_the_one_for_the_precision_is_taken():
    stem = "diffusion_pytorch_model"
    names = [f"{stem}{variant}.safetensors" for variant in (".bf16", ".fp16", "", ".non_ema")]
    for dtype, taken in ((torch.float16, ".fp16"), (torch.float32, "")):
        assert files.choose(names, "unet", dtype) == (taken[1:] or None, [f"{stem}{taken}.safetensors"])
    assert files.choose(names[::3], "unet", torch.float32)[0] == "bf16"
    assert files.choose(["pytorch_lora_weights.safetensors", "config.json"], "unet", torch.float32) == (None, [])


def test_a_vocabulary_may_be_padded_but_not_cut(copy):
    config = parts.load("mini", "cpu").text_encoder.config
    size = config.vocab_size
    for more, opens in ((3, True), (-1, False)):
        longer = CLIPTextModel(type(config)(**config.to_dict() | {"vocab_size": size + more}))
        shutil.rmtree(copy / "text_encoder")
        longer.save_pretrained(copy / "text_encoder")
        if opens:
            assert text_to_image(parts.load(copy, "cpu"), PROMPT, steps=1).shape == (1, 3, 64, 64)
            continue
        said = rf"/tokenizer is damaged .*\({size} tokens, 24 .* has {size - 1} and 24\)"
        with pytest.raises(ValueError, match=said):
            parts.load(copy)


def test_the_sizes_of_the_parts_agree():
    tokenizer, text_encoder, vae, unet, _ = parts.load("mini", "cpu")
    text = text_encoder.config
    assert tokenizer.model_max_length == text.max_position_embeddings
    assert len(tokenizer) == text.vocab_size
    assert text.hidden_size == unet.config.cross_attention_dim
    assert unet.config.in_channels == unet.config.out_channels == vae.config.latent_channels
    assert text.eos_token_id == tokenizer.eos_token_id != 2


def test_what_is_saved_and_loaded_again_is_the_same(tmp_path):
    unet = parts.load("mini", "cpu").unet
    saving.save_model(unet, tmp_path / "unet")
    again = parts.load_part(type(unet), tmp_path, "unet")
    for name, x in unet.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], x.half().float(), rtol=0, atol=0)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o644 for file in (tmp_path / "unet").iterdir())


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_a_truncated_file_is_named(copy, part):
    file = copy / part / parts.WEIGHTS[part]
    damage(file, file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"^\S*/{part}/\S*safetensors is damaged"):
        parts.load(copy)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_weights_that_are_not_numbers_are_named(copy, part):
    file = copy / part / parts.WEIGHTS[part]
    change_weights(file, lambda tensors: next(iter(tensors.values())).view(-1)[0].fill_(float("nan")))
    with pytest.raises(ValueError, match=rf"/{part}/\S+ is damaged .*weights that are not numbers \(NaN\)\): copy it"):
        parts.load(copy)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_weights_of_another_model_are_named(copy, part):
    damage(copy / part / parts.WEIGHTS[part], (copy / "vae" / parts.WEIGHTS["vae"]).read_bytes())
    with pytest.raises(ValueError, match=rf"{part}.*another model's"):
        parts.load(copy)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_a_config_that_is_no_json_is_named(copy, part):
    damage(copy / part / "config.json", b"{")
    with pytest.raises(ValueError, match=rf"^\S*/{part}/config.json is damaged"):
        parts.load(copy)


@pytest.mark.parametrize(
    "part", ["scheduler/scheduler_config.json", *(f"{part}/config.json" for part in parts.WEIGHTS)]
)
@pytest.mark.parametrize("content", [b"{}", b"[]"])
def test_settings_that_say_nothing_are_named(copy, part, content):
    damage(copy / part, content)
    with pytest.raises(ValueError, match=rf"^\S*/{part.partition('/')[0]}\S* is damaged or another"):
        parts.load(copy)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_without_words_or_without_a_length_is_named(copy, file):
    damage(copy / "tokenizer" / file, b"{}")
    with pytest.raises(ValueError, match=r"^\S*/tokenizer is damaged or another"):
        parts.load(copy)


def test_a_tokenizer_whose_words_are_missing_is_named(copy):
    (copy / "tokenizer" / "tokenizer.json").unlink()
    for load in (parts.load, parts.load_tokenizer):
        with pytest.raises(ValueError, match=r"^\S*/tokenizer is damaged or another"):
            load(copy)


def test_an_unknown_scheduler_says_which_there_are():
    with pytest.raises(ValueError, match='unknown scheduler "magic": choose one of ddim, ddpm'):
        parts.make_scheduler("magic", {})


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_every_scheduler_keeps_the_noise_schedule(name):
    own = parts.load_scheduler(parts.MINI)
    other = parts.make_scheduler(name, own.config)
    torch.testing.assert_close(other.betas, own.betas)


LOADERS = [parts.load_tokenizer, parts.load_scheduler, parts.load_clip, parts.load_judge, parts.load_fast]


@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)
@pytest.mark.parametrize("name", ["mini", Path("mini")], ids=repr)
def test_every_part_of_the_shipped_model_is_found_by_its_name(load, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, named = load(), load(name)
    assert type(named) is type(own)
    if isinstance(own, torch.nn.Module):
        torch.testing.assert_close(named.state_dict(), own.state_dict(), rtol=0, atol=0)


def test_a_directory_of_that_name_is_meant_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    assert parts.directory("mini") == parts.MINI and parts.directory(Path("mini")) == Path("mini")
    for load in (parts.load, *LOADERS):
        with pytest.raises((FileNotFoundError, ValueError), match="^mini/"):
            load(Path("mini"))


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_afterwards_what_they_were(shown):
    libraries = (diffusers_logging, transformers_logging)
    for library in libraries:
        (library.enable_progress_bar if shown else library.disable_progress_bar)()
    try:
        with parts.quiet():
            assert not any(library.is_progress_bar_enabled() for library in libraries)
        assert all(library.is_progress_bar_enabled() == shown for library in libraries)
    finally:
        for library in libraries:
            library.enable_progress_bar()


def test_a_clip_that_lacks_a_tensor_is_not_taken_for_a_whole_one(copy):
    change_weights(copy / "clip" / "model.safetensors", lambda tensors: tensors.pop("visual_projection.weight"))
    with pytest.raises(ValueError, match=r"^\S*/clip is damaged or another"):
        parts.load_clip(copy)


def test_a_clip_is_saved_in_two_halves_and_loaded_whole(tmp_path):
    clip = parts.load_clip()
    saving.save_clip(clip, parts.load_tokenizer(), tmp_path)
    again = parts.load_clip(tmp_path).state_dict()
    assert len(again) == len(clip.state_dict())
    for name, x in clip.state_dict().items():
        torch.testing.assert_close(again[name], x, rtol=0, atol=0)
    in_both = load_file(tmp_path / "clip" / "model.safetensors").keys() & {
        f"text_model.{name}" for name in load_file(tmp_path / "text_encoder" / "model.safetensors")
    }
    assert not in_both


def test_a_clip_that_was_not_saved_to_its_end_is_no_clip(tmp_path, monkeypatch):
    clip = parts.load_clip()
    monkeypatch.setattr(CLIPTextModel, "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saving.save_clip(clip, parts.load_tokenizer(), tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["tokenizer"]


def test_the_index_names_classes_that_exist():
    index = json.loads((parts.MINI / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index.keys() >= {"vae", "unet", "text_encoder", "tokenizer", "scheduler"}
    for library, kind in (value for value in index.values() if isinstance(value, list) and value[0]):
        assert hasattr(import_module(library), kind)


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="half precision is for GPUs: on a CPU, omit dtype"):
        parts.load("mini", "cpu", torch.float16)


def test_a_model_too_large_for_the_memory_is_not_begun(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 30e6)
    monkeypatch.setattr(parts, "load_part", None)  # it does not come so far
    with pytest.raises(
        MemoryError, match=r"needs about 0.04 GB on cpu in float32, and 0.03 GB are free: .*bk-sdm-tiny"
    ):
        hub.load("mini", "cpu")


def test_on_a_gpu_that_is_too_small_the_library_can_spread_the_parts(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10e6)
    with pytest.raises(MemoryError, match=r"on cuda in float16, .*enable_model_cpu_offload\(\)"):
        memory.check_model("mini", parts.MINI, torch.device("cuda"), torch.float16, smaller="mini")


def test_the_memory_needed_counts_every_weight():
    numbers = sum(x.numel() for model in parts.load("mini", "cpu")[1:4] for x in model.state_dict().values())
    whole, half = (memory.memory_needed(parts.MINI, dtype) for dtype in (torch.float32, torch.float16))
    assert whole == 2 * half and whole > 4 * numbers
    assert whole - 4 * numbers == 4 * 6 * 32 * 64 * 64  # six maps of the decoder, 32 channels at 64 x 64
