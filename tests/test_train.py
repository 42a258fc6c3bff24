"""`sdlearn-train`: a pipeline from one command, and what cannot be trained said in one line. And the recipes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from fastcore.script import CliError
from PIL import Image
from torch.testing import assert_close

from sdlearn import judging, parts, recipes, sampling, scenes
from sdlearn.clip import clip_loss, new_clip, new_tokenizer, tokenize
from sdlearn.noising import Schedule, linear_betas
from sdlearn.tools import draw, export, fast, measure, memory, sources, train
from sdlearn.tools.saving import text_encoder_of
from sdlearn.unet import new_unet
from sdlearn.vae import encode, new_vae


def test_pictures_of_another_size_or_type_are_refused():
    with pytest.raises(ValueError, match=r"pictures must be \(n, 64, 64, 3\); got \(4, 32, 32, 3\)"):
        recipes.train_vae(new_vae(), np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"pictures must be \(b, h, w, 3\) uint8; got .* float64"):
        recipes.train_vae(new_vae(), np.zeros((4, 64, 64, 3)), steps=1)


@pytest.mark.slow
def test_another_size_and_more_channels_are_a_setting():
    """Pictures of 96 pixels, latents of 16 channels: nowhere is 64, 8 or 4 taken for granted."""
    pictures, captions, _ = scenes.sample(8, seed=0, size=96)
    tokenizer = new_tokenizer(captions)
    clip, vae = new_clip(tokenizer, size=96), new_vae(96, latent_channels=16)
    assert len(recipes.train_clip(clip, tokenize(tokenizer, captions), pictures, steps=2, batch=4)) == 2
    assert len(recipes.train_vae(vae, pictures, steps=2, batch=4)) == 2
    latents = encode(vae, scenes.to_tensor(pictures))
    assert latents.shape == (8, 16, 12, 12)
    unet, text = new_unet(12, latent_channels=16), torch.randn(8, 24, 128)
    assert len(recipes.train_unet(unet, latents, text, text[:1], steps=2, batch=4)) == 2
    model = parts.Parts(tokenizer, text_encoder_of(clip), vae, unet, parts.stable_diffusion_scheduler())
    assert sampling.text_to_image(model, ["a cat", "a bear"], steps=2).shape == (2, 3, 96, 96)
    judge = judging.Judge(96)
    assert len(recipes.train_judge(judge, pictures, torch.zeros(8, 6, dtype=torch.long), steps=2, batch=4)) == 2


def test_clip_is_not_trained_on_what_follows_the_ends_of_all_captions():
    pictures, captions, _ = scenes.sample(8, seed=0)
    tokenizer = new_tokenizer(captions)
    clip, tokens = new_clip(tokenizer), tokenize(tokenizer, captions)
    batches = []

    def fit(clip, loss, examples, *_, **__):
        batches.append(examples(torch.manual_seed(0)))

    recipes.train_clip(clip, tokens, pictures, batch=4, fit=fit)
    x, short = batches[0]
    whole = torch.nn.functional.pad(short, (0, tokens.shape[1] - short.shape[1]), value=tokenizer.pad_token_id)
    assert short.shape[1] == max(map(len, tokenizer(captions).input_ids)) < tokens.shape[1]
    assert_close(clip_loss(clip, x, short), clip_loss(clip, x, whole))


def test_the_scale_factor_is_of_pictures_from_the_whole_set(monkeypatch):
    """Pictures that grow lighter from the first to the last."""
    pictures = np.tile(np.arange(2048)[:, None, None, None] // 8, (1, 16, 16, 3)).astype(np.uint8)
    vae, seen = new_vae(16, widths=(8, 8, 8, 8)), []
    monkeypatch.setattr(recipes, "encode", lambda vae, x: seen.append(x) or encode(vae, x))
    torch.manual_seed(5)
    recipes.train_vae(vae, pictures, fit=lambda *_, **__: [])
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))  # none was drawn
    assert len(seen[-1]) == 1024 and abs(seen[-1].mean()) < 0.1  # of the first 1024: -0.5


def test_captions_are_encoded_some_at_a_time(monkeypatch):
    model, captions = parts.load("mini", "cpu"), scenes.sample(5, seed=0)[1]
    monkeypatch.setattr(recipes, "CHUNK", 2)
    got = recipes.encoded_captions(model.tokenizer, model.text_encoder, captions)
    assert_close(got, sampling.encode_prompts(model.tokenizer, model.text_encoder, captions), atol=1e-5, rtol=1e-5)


def test_another_noise_schedule_is_an_argument():
    """The straight path of flow matching, in place of Stable Diffusion's schedule."""

    class Straight(Schedule):
        def factors(self, t, x):
            t = (t[:, None, None, None] + 1) / len(self)
            return 1 - t, t

    seen, schedule = [], Straight(linear_betas(10))
    latents, text = torch.ones(4, 4, 8, 8), torch.randn(4, 3, 128)

    def fit(unet, loss, examples, steps, **options):
        seen.append(examples(torch.Generator().manual_seed(0)))

    recipes.train_unet(None, latents, text, text[:1], batch=64, schedule=schedule, fit=fit)
    [(x_t, t, eps, _)] = seen
    assert set(t.tolist()) == set(range(10))
    assert_close(x_t, latents[:1] + (t[:, None, None, None] + 1) / 10 * (eps - 1))


def test_the_command_takes_the_size_of_a_batch(tmp_path, small_world, monkeypatch):
    sizes = []
    monkeypatch.setattr(recipes, "vae_loss", lambda vae, x, eps: sizes.append(len(x)) or vae(x).sample.mean())
    train.main("vae", out=tmp_path, steps=2, batch=5)
    assert sizes == [5, 5]


@pytest.mark.parametrize(("part", "steps", "batch"), [("clip", 4000, 96), ("unet", 7000, 32), ("judge", 2500, 64)])
def test_a_recipe_has_its_usual_numbers(part, steps, batch):
    assert (train.usual(part, "steps"), train.usual(part, "batch")) == (steps, batch)


@pytest.mark.parametrize("what", ["clip", "all", "fast"])
def test_a_batch_that_was_not_asked_for_must_fit_too(tmp_path, monkeypatch, what):
    monkeypatch.setattr(memory, "free_memory", lambda device: 15 * memory.EXAMPLE["unet"])
    batch = 32 if what == "fast" else 96
    with pytest.raises(CliError, match=f"--batch {batch} needs about .* are free: take a smaller one"):
        train.main(what, out=tmp_path, steps=1)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_world(monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 512)


@pytest.mark.slow
def test_all_parts_from_one_command_make_a_pipeline(tmp_path, small_world, capsys):
    out = tmp_path / "mine"
    train.main("all", out=out, steps=2)
    picture = sampling.text_to_image(parts.load(out, "cpu"), "a cat riding a horse", steps=2)
    assert picture.shape == (1, 3, 64, 64)
    assert not list((out / "checkpoints").iterdir())
    with pytest.raises(CliError, match="already holds clip and vae and unet: add --resume to go on"):
        train.main("all", out=out, steps=2)
    train.main("all", out=out, steps=2, resume=True)
    assert "unet is trained already" in capsys.readouterr().out


def test_the_noise_predictor_needs_the_other_parts_first(tmp_path):
    with pytest.raises(CliError, match="text_encoder is missing: train clip and vae first"):
        train.main("unet", out=tmp_path, steps=1)


def test_a_file_is_no_place_for_a_model(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CliError, match="file is not a folder: give another --out"):
        train.main(out=tmp_path / "file")


def test_the_text_encoder_of_another_model_is_not_overwritten(copy):
    shutil.rmtree(copy / "clip")  # as in any model from the hub
    with pytest.raises(CliError, match="already holds clip: add --resume to go on, or give another --out"):
        train.main("clip", out=copy, steps=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"what": "gan"}, 'cannot train "gan": choose one of clip, vae, unet, all, judge, fast'),
        ({"steps": 0}, "--steps must be from 1 to 1,000,000; got 0"),
        ({"steps": 10**30}, "--steps must be from 1 to 1,000,000; got 1000000000000000000000000000000"),
        ({"size": 65}, "--size must be one of 64, 96, 128; got 65"),
        ({"batch": 10**9}, r"--batch 1000000000 needs about 4e\+06 GB, .* are free: take a smaller one"),
        ({"batch": 1}, "--batch must be 2 or more; got 1"),
        ({"what": ""}, 'cannot train "": choose one of'),
        ({"seed": -1}, "--seed must be from 0 to 4293; got -1"),
        ({"seed": 10**20}, "--seed must be from 0 to 4293; got 100000000000000000000"),
        ({"what": "judge", "data": Path("data")}, "a judge learns scenes of 64 pixels: leave --data and --size out"),
        ({"what": "judge", "size": 96}, "a judge learns scenes of 64 pixels: leave --data and --size out"),
        ({"precision": "fp8"}, '--precision must be no or bf16; got "fp8"'),
    ],
)
def test_the_command_says_what_is_allowed(arguments, message, tmp_path):
    with pytest.raises(CliError, match=message):
        train.main(out=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_empty_word_trains_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sdlearn.tools.train", ""], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert (done.stdout + done.stderr).strip() == 'cannot train "": choose one of clip, vae, unet, all, judge, fast'


def test_two_trainings_in_one_directory_are_one_too_many(tmp_path, small_world):
    out = tmp_path / "mine"
    first = subprocess.Popen(
        [sys.executable, "-c", f"import test_train; test_train.hold({str(out)!r})"],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == "holding\n"
    with pytest.raises(CliError, match=f"process {first.pid} is training in .*mine: wait for it, or give another"):
        train.main("vae", out=out, steps=1)
    assert not (out / "vae").exists()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    half_written = [".vae-a1b2c3d4", ".text_encoder-a1b2c3d4", "checkpoints/.a1b2c3d4.part"]
    of_the_user = [".vae-notes", ".my-config-a1b2c3d4", ".vae-a1b2c3d4.txt", "checkpoints/best.part", "clip-a1b2c3d4"]
    for name in half_written + of_the_user:
        (out / name).mkdir(parents=True)
    assert {path.relative_to(out).as_posix() for path in train.leftovers(out)} == {*half_written}
    train.main("vae", out=out, steps=1)  # the lock went with its process; what was half written is gone
    assert not any((out / name).exists() for name in half_written + [".training.pid"])
    assert all((out / name).exists() for name in of_the_user + ["vae"])


def test_a_training_that_has_not_yet_said_which_it_is_holds_its_directory_too(tmp_path):
    with train.held(tmp_path, PartialState(cpu=True)):
        (tmp_path / ".training.pid").unlink()
        with pytest.raises(CliError, match="another process is training in .*: wait for it, or give another --out"):
            train.main("vae", out=tmp_path, steps=1)


def test_the_lock_is_one_file_for_all_trainings(tmp_path):
    """If the first removed it, the second would hold a file without a name, and the third could begin beside it."""
    numbers = []
    for _ in range(2):
        with train.held(tmp_path, PartialState(cpu=True)):
            numbers.append((tmp_path / ".training.lock").stat().st_ino)
        assert (tmp_path / ".training.lock").stat().st_ino == numbers[0]
    assert numbers[0] == numbers[1]


def hold(out):
    with train.held(Path(out), PartialState(cpu=True)):
        print("holding", flush=True)
        time.sleep(600)


def pictures_of_ones_own(folder):
    """Forty pictures with ten captions, half of them long."""
    folder.mkdir()
    pictures, _, _ = scenes.sample(40, seed=0)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"thing {i % 10} " + "and so on " * (10 if i % 2 else 0))
    return folder


@pytest.mark.slow
def test_a_folder_of_ones_own_makes_a_pipeline_too(tmp_path, monkeypatch, capsys):
    """Pictures of 96 pixels, captions of their own: trained, drawn with, measured by their own CLIP, and exported."""
    monkeypatch.setattr(sources, "TRAINING", 64)
    folder, out = pictures_of_ones_own(tmp_path / "data"), tmp_path / "mine"
    train.main("all", out=out, steps=2, batch=4, data=folder, size=96, held_out="0.3")
    assert re.search(r"note: \d+ of \d+ captions are over 22 tokens: the rest is cut off", capsys.readouterr().err)
    model = parts.load(out, "cpu")
    assert sampling.text_to_image(model, "thing 3", steps=2).shape == (1, 3, 96, 96)
    assert Image.open(out / "progress.png").size == (1300, 440)
    measure.main(model=str(out), n=8, steps=1, json=tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"real, seen", "generated, seen", "real, held out", "generated, held out"}
    assert figures["real, held out"]["captions"] == 3 and figures["real, seen"]["psnr"] > 5
    with pytest.raises(CliError, match="--test is for models of the course's scenes"):
        measure.main(model=str(out), n=8, steps=1, test=True)
    train.main("all", out=out, steps=2, batch=4, resume=True)  # it goes on with the folder that it began with
    assert "unet is trained already" in capsys.readouterr().out
    draw.main("thing 3", steps=2, model=str(out), out=tmp_path / "thing.png")
    assert Image.open(tmp_path / "thing.png").size[1] >= 96
    pytest.importorskip("onnxscript", reason="the graphs are not tried: install sdlearn[site]")
    graphs = export.export(out, tmp_path / "graphs")
    assert json.loads(graphs[-1].read_text())["unet"]["config"]["sample_size"] == 12


@pytest.mark.slow
def test_the_largest_size_trains_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 16)
    train.main("all", out=tmp_path / "mine", steps=1, batch=2, size=128)
    model = parts.load(tmp_path / "mine", "cpu")
    assert tuple(model.unet.config.block_out_channels) == train.WIDTHS[128][1]
    assert sampling.text_to_image(model, "a cat", steps=1).shape == (1, 3, 128, 128)


def test_the_judge_does_not_say_what_a_model_is_trained_on(tmp_path, small_world):
    train.main("judge", out=tmp_path, steps=1, batch=2)
    assert (tmp_path / "judge").is_dir() and not (tmp_path / sources.FILE).exists()


def test_a_folder_that_cannot_be_read_does_not_block_its_directory(tmp_path, small_world):
    folder, out = pictures_of_ones_own(tmp_path / "data"), tmp_path / "mine"
    whole = {file: file.read_bytes() for file in folder.glob("*.png")}
    for file in whole:
        file.write_text("no picture")
    for part in ("clip", "vae"):
        with pytest.raises(CliError, match="data: 40 of 40 pictures could not be read: .*; 8 are the least to learn"):
            train.main(part, out=out, steps=1, batch=2, data=folder)
    for file, content in whole.items():
        file.write_bytes(content)
    train.main("vae", out=out, steps=1, batch=2, data=folder, held_out="0.5")  # other options than before
    assert (out / "vae").is_dir() and len(sources.load(out).unseen) == 5


def test_captions_without_spaces_get_a_note(tmp_path, monkeypatch, capsys):
    captions = ["\N{CJK UNIFIED IDEOGRAPH-99AC}\N{CJK UNIFIED IDEOGRAPH-8ECA}"] * 3 + ["a horse"]
    monkeypatch.setattr(sources.Scenes, "training", (scenes.sample(4, seed=0)[0], captions))
    monkeypatch.setattr(sources, "TRAINING", 4)
    train.main("clip", out=tmp_path / "few", steps=1, batch=2)
    assert "note: most captions have no spaces: to the model each is one word" in capsys.readouterr().err
    monkeypatch.setattr(sources.Scenes, "training", (scenes.sample(4, seed=0)[0], captions[2:] + captions[3:] * 2))
    train.main("clip", out=tmp_path / "none", steps=1, batch=2)
    assert "no spaces" not in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["", "seed", "flow"])
def test_pairs_of_another_seed_or_flow_model_are_made_anew(tmp_path, changed):
    file, origin, calls = tmp_path / "pairs.safetensors", {"seed": "0", "flow": "abc"}, []

    def make():
        calls.append(1)
        return torch.full((2, 2), float(len(calls))), torch.zeros(2)

    fast.made_once(file, make, **origin)
    noise, _ = fast.made_once(file, make, **(origin | ({changed: "1"} if changed else {})))
    assert len(calls) == (2 if changed else 1) and noise[0, 0] == len(calls)
