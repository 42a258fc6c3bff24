"""What a GPU would be the first to find: a tensor left behind on the CPU, a model that does not come home.

The device only pretends (other_device.py). It would stay for the tests that come after, so test_other_device.py gives
this file a process of its own.
"""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from other_device import NAME, here
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from sdlearn import judging, parts, recipes, scenes
from sdlearn.clip import embed_pictures, new_clip, new_tokenizer, retrieval, tokenize
from sdlearn.noising import predict_x0, q_sample, snr
from sdlearn.notebook import playground, show
from sdlearn.sampling import text_to_image
from sdlearn.tools import draw, sources, train
from sdlearn.tools.runs import fit
from sdlearn.unet import AttentionMaps, new_unet, time_embedding
from sdlearn.vae import decode, encode, new_vae

PROMPTS = ["a cat riding a red horse", ""]
LESSON = Path(__file__).parent.parent / "notebooks" / "05_sampling.ipynb"


@pytest.fixture(scope="module")
def ours():
    return parts.load("mini", "cpu")


@pytest.fixture(scope="module")
def theirs():
    return parts.load("mini", NAME)


@pytest.fixture(scope="module")
def half():
    return parts.load("mini", NAME, torch.float16)


@pytest.fixture
def best(monkeypatch):
    """It is the best device that this computer has."""
    monkeypatch.setattr(parts, "best_device", lambda: torch.device(NAME))
    monkeypatch.setattr(PartialState, "default_device", torch.device(NAME))
    monkeypatch.setattr(sources, "TRAINING", 256)
    save = torch.save  # a true device's tensors can be saved as they are
    monkeypatch.setattr(torch, "save", lambda state, file: save(tree_map(here, state), file))
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_device_computes_as_the_cpu_does_and_refuses_its_tensors():
    x = torch.randn(3, 4, requires_grad=True)
    y = x.detach().to(NAME).requires_grad_()
    for z in (x, y):
        (z.T[1:, ::2] @ z[::2]).square().sum().backward()
    assert_close(y.grad.cpu(), x.grad)
    with pytest.raises(RuntimeError, match="device"):
        x + y
    with pytest.raises(RuntimeError, match=f"all tensors on {NAME}"):
        torch.cat([x, y])
    with pytest.raises(TypeError, match="no float64"):
        y.to(torch.float64)


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_every_scheduler_paints_the_same_picture(ours, theirs, name):
    scheduler = parts.make_scheduler(name, ours.scheduler.config)
    one, other = (text_to_image(model._replace(scheduler=scheduler), PROMPTS, steps=4) for model in (ours, theirs))
    assert other.device.type == NAME
    assert_close(other.cpu(), one, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_half_precision_paints_nearly_the_same_picture(ours, half, name):
    scheduler = parts.make_scheduler(name, ours.scheduler.config)
    settings = {"steps": 2, "guidance_scale": 1.5}  # so few steps at guidance 4 make a little rounding large
    one, other = (text_to_image(model._replace(scheduler=scheduler), "a cat", **settings) for model in (ours, half))
    assert (other.cpu() - one).abs().mean() < 0.01


@pytest.mark.parametrize("name", parts.SCHEDULERS)
def test_another_default_device_draws_the_same_picture(theirs, name):
    model = theirs._replace(scheduler=parts.make_scheduler(name, theirs.scheduler.config))
    wanted = text_to_image(model, PROMPTS, steps=3)
    with torch.device(NAME):
        drawn = text_to_image(model, PROMPTS, steps=3)
    assert_close(drawn.cpu(), wanted.cpu())


def test_the_commands_picture_and_film(best, tmp_path):
    draw.main(PROMPTS[0], n=2, steps=2, out=tmp_path / "a.png", film=tmp_path / "a.gif")
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.gif"}


def test_the_playground_draws(theirs, monkeypatch):
    monkeypatch.setattr(show, "display_small", lambda *_, **__: None)
    few = playground.Settings(prompt=PROMPTS[0], steps=3)
    assert playground.Playground(theirs, parts.load_clip(), few).make(few).frames.shape == (3, 64, 64, 3)


def code_under(heading):
    """The code cells of lesson 5 under one of its headings; None: before the first."""
    under = None
    for cell in json.loads(LESSON.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if source.startswith("## "):
            under = source.splitlines()[0]
        if cell["cell_type"] == "code" and under == heading:
            yield source


def test_the_last_section_of_lesson_5(best):
    names = {}
    for source in [*code_under(None), *code_under("## The real one")]:
        adapted = source.replace("= 100,", "= 4,").replace('"mps" if mps else "cpu"', f'"{NAME}"')
        exec(adapted, names)  # four steps instead of a hundred, on this device
    assert names["steps"] == 4
    assert names["device"].type == names["latents"].device.type == NAME
    assert names["decoded"].shape == (1, 3, 64, 64)


# ---------------------------------------------------------------- looking inside


def test_pictures_become_the_same_latents_and_points(ours, theirs):
    drawn, captions, _ = scenes.sample(4, seed=1)
    pictures, tokens = scenes.to_tensor(drawn), tokenize(parts.load_tokenizer(), captions)
    one, other = (encode(model.vae, pictures) for model in (ours, theirs))
    assert_close(other.cpu(), one, atol=1e-4, rtol=0)
    assert_close(decode(theirs.vae, other).cpu(), decode(ours.vae, one), atol=1e-4, rtol=0)
    clip = parts.load_clip()
    near, found = embed_pictures(clip, pictures), retrieval(clip, pictures, tokens)
    clip.to(NAME)
    assert_close(embed_pictures(clip, pictures).cpu(), near, atol=1e-5, rtol=0)
    assert retrieval(clip, pictures, tokens) == found


def test_noise_is_added_and_taken_away_as_on_the_cpu():
    x0, eps, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    x_t = q_sample(x0, t, eps)
    x0_there, eps_there, t_there, x_t_there = (x.to(NAME) for x in (x0, eps, t, x_t))
    assert_close(q_sample(x0_there, t_there, eps_there).cpu(), x_t)
    assert_close(predict_x0(x_t_there, t_there, eps_there).cpu(), predict_x0(x_t, t, eps))
    assert_close(snr(t_there).cpu(), snr(t))
    assert_close(time_embedding(t_there, 128).cpu(), time_embedding(t, 128), atol=1e-5, rtol=0)


def test_attention_maps_are_the_same(ours, theirs):
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 24, 128)
    found = []
    for model, device in ((ours, "cpu"), (theirs, NAME)):
        with AttentionMaps(model.unet) as maps:
            model.unet(x.to(device), 500, encoder_hidden_states=text.to(device))
        found.append(maps)
    for name in found[0]:
        assert_close(found[1][name][0].cpu(), found[0][name][0], atol=1e-4, rtol=0)


# ---------------------------------------------------------------- training


def unet_run(unet, **options):
    g = torch.Generator().manual_seed(0)
    latents, text = torch.randn(64, 4, 8, 8, generator=g), torch.randn(64, 24, 128, generator=g)
    return recipes.train_unet(unet, latents, text, text[:1], steps=4, batch=4, fit=fit, **options)


def vae_run(vae, **options):
    return recipes.train_vae(vae, scenes.sample(64, seed=1)[0], steps=4, batch=4, fit=fit, **options)


def clip_run(clip, **options):
    pictures, captions, _ = scenes.sample(64, seed=1)
    tokens = tokenize(new_tokenizer(captions), captions)
    return recipes.train_clip(clip, tokens, pictures, steps=4, batch=8, fit=fit, **options)


def judge_run(judge, **options):
    pictures, _, attributes = scenes.sample(64, seed=1)
    return recipes.train_judge(judge, pictures, judging.answers(attributes), steps=4, batch=4, fit=fit, **options)


RUNS = {
    "clip": (lambda: new_clip(new_tokenizer(scenes.sample(64, seed=1)[1])), clip_run),
    "vae": (new_vae, vae_run),
    "unet": (new_unet, unet_run),
    "judge": (judging.Judge, judge_run),
}


def trained(part, **options):  # the losses, and the model
    new, run = RUNS[part]
    torch.manual_seed(0)
    model = new()
    return run(model, progress=options.pop("progress", lambda steps, losses: steps), **options), model


@pytest.mark.parametrize("part", RUNS)
def test_every_part_learns_as_on_the_cpu_and_comes_home(part, request):
    before, _ = trained(part)
    request.getfixturevalue("best")
    losses, model = trained(part)
    assert losses == pytest.approx(before, rel=1e-3)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("part", RUNS)
def test_training_says_that_the_default_device_was_changed(part):
    with torch.device(NAME), pytest.raises(ValueError, match=f"torch's default device is {NAME}, but batches are"):
        trained(part)


def test_a_run_that_was_stopped_goes_on_there(best, tmp_path):
    whole, _ = trained("unet")
    options = {"checkpoint": tmp_path / "unet.pt", "every": 2}
    trained("unet", progress=lambda steps, losses: islice(steps, 2), **options)
    losses, _ = trained("unet", **options)
    assert losses == pytest.approx(whole, rel=1e-5)


def test_all_parts_from_one_command_make_a_pipeline(best, tmp_path):
    train.main("all", out=tmp_path / "mine", steps=2, batch=4, precision="bf16")  # the other runs: full
    assert text_to_image(parts.load(tmp_path / "mine"), PROMPTS, steps=2).shape == (2, 3, 64, 64)
