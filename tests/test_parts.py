"""The shipped directory: opened by diffusers, opened by us, and one clear line when a file is not what it should be."""

import json
import os
import shutil
import stat

import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdlearn import parts
from sdlearn.sampling import text_to_image

PROMPT = "a painting of a bear riding a red turtle"


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped model that a test may damage: every file a link, to be replaced, not written to."""
    return shutil.copytree(parts.MINI, tmp_path / "copy", copy_function=os.link)


def damage(file, content: bytes):
    file.unlink()
    file.write_bytes(content)


def test_diffusers_opens_the_shipped_directory_and_paints_our_picture():
    pipeline = StableDiffusionPipeline.from_pretrained(parts.MINI, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    theirs = pipeline(PROMPT, num_inference_steps=4, guidance_scale=4.0, generator=generator, output_type="pt").images
    ours = text_to_image(parts.load("mini", "cpu"), PROMPT, steps=4, guidance_scale=4.0, seed=5)
    torch.testing.assert_close(ours / 2 + 0.5, theirs, atol=1e-4, rtol=0)


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
    parts.save_model(unet, tmp_path / "unet")
    again = parts.load_part(type(unet), tmp_path, "unet")
    for name, x in unet.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], x.half().float(), rtol=0, atol=0)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o644 for file in (tmp_path / "unet").iterdir())


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "part"
    with parts.whole(folder) as new:
        (new / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), parts.whole(folder) as new:
        (new / "a").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "vae", "unet", "scheduler"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(FileNotFoundError, match=rf"{part}.* is missing: train it with .sdlearn-train all"):
        parts.load(copy)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_a_truncated_file_is_named(copy, part):
    file = copy / part / parts.WEIGHTS[part]
    damage(file, file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{part}.*safetensors is damaged"):
        parts.load(copy)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_weights_of_another_model_are_named(copy, part):
    damage(copy / part / parts.WEIGHTS[part], (copy / "vae" / parts.WEIGHTS["vae"]).read_bytes())
    with pytest.raises(ValueError, match=rf"{part}.*another model's"):
        parts.load(copy)


def test_a_config_that_is_no_json_is_named(copy):
    damage(copy / "unet" / "config.json", b"{")
    with pytest.raises(ValueError, match="unet"):
        parts.load(copy)


def test_the_shipped_model_is_got_back_from_git():
    assert "git checkout -- sdlearn/mini" in parts.remedy(parts.MINI)


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/directory"])
def test_an_unknown_model_says_what_a_model_is(name):
    with pytest.raises(FileNotFoundError, match='give "mini", a directory, or a hub name'):
        parts.load(name)


def test_a_hub_name_without_a_network_says_at_once_what_to_do(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(parts.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    parts.hub_answers.cache_clear()
    with pytest.raises(FileNotFoundError, match='cannot get tokenizer.*the network.*"mini" needs no network'):
        parts.load(parts.V1_4)
    assert "Retrying" not in capfd.readouterr().err
    parts.hub_answers.cache_clear()


def test_an_unknown_scheduler_says_which_there_are():
    with pytest.raises(ValueError, match='unknown scheduler "magic": choose one of ddim, ddpm'):
        parts.make_scheduler("magic", {})


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_every_scheduler_keeps_the_noise_schedule(name):
    own = parts.load_scheduler(parts.MINI)
    other = parts.make_scheduler(name, own.config)
    torch.testing.assert_close(other.betas, own.betas)


def test_the_towers_of_clip_are_joined_again():
    clip = parts.load_clip()
    text_encoder = parts.load("mini", "cpu").text_encoder
    torch.testing.assert_close(clip.text_model.state_dict(), text_encoder.state_dict())


def test_the_index_names_classes_that_exist():
    index = json.loads((parts.MINI / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert {name for name in index if not name.startswith("_")} >= {
        "vae",
        "unet",
        "text_encoder",
        "tokenizer",
        "scheduler",
    }
