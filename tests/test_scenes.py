"""Lesson 0: the drawn world keeps its promises, and the first check and the look at the environment help."""

import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from sdlearn import scenes
from sdlearn.judging import named
from sdlearn.notebook.checks import scenes as checks
from sdlearn.scenes import TEST, VALIDATION, WORDINGS, WORDS

N = 600
PICTURES, CAPTIONS, ATTRIBUTES = scenes.sample(N, seed=5)
HELD_OUT = VALIDATION + TEST
HELD_PICTURES, HELD_CAPTIONS, HELD_ATTRIBUTES = scenes.sample(90, seed=5, held_out=HELD_OUT)


def pair(scene):
    return scene["subject"], scene["mount"]


# ---------------------------------------------------------------- sample


def test_sample_has_the_promised_kinds():
    assert PICTURES.shape == (N, 64, 64, 3) and PICTURES.dtype == np.uint8
    assert len(CAPTIONS) == len(ATTRIBUTES) == N
    assert all(list(scene) == list(WORDS) for scene in ATTRIBUTES)
    assert all(scene[name] in WORDS[name] for scene in ATTRIBUTES for name in WORDS)


def test_no_scene_is_a_sample_too():
    pictures, captions, attributes = scenes.sample(0, seed=0)
    assert pictures.shape == (0, 64, 64, 3) and captions == attributes == []


@pytest.mark.parametrize("held_out", [(), VALIDATION, TEST])
def test_a_longer_sample_begins_with_the_shorter(held_out):
    long, short = scenes.sample(20, 7, held_out), scenes.sample(6, 7, held_out)
    assert np.array_equal(long[0][:6], short[0])
    assert long[1][:6] == short[1] and long[2][:6] == short[2]


def test_another_seed_draws_other_scenes():
    others, captions, _ = scenes.sample(6, seed=8)
    assert captions != CAPTIONS[:6] and not np.array_equal(others, PICTURES[:6])


def test_another_process_draws_the_same_bytes():
    """Nothing depends on the order of a set, on the clock, or on a global random state."""
    code = "from sdlearn.scenes import sample; p, *rest = sample(12, 5); print(zlib.crc32(p.tobytes()), rest)"
    seen = set()
    for salt in ("1", "2"):
        run = [sys.executable, "-c", "import zlib; " + code]
        seen.add(subprocess.run(run, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True).stdout)
    assert len(seen) == 1 and seen != {b""}


def test_a_larger_picture_shows_the_same_scene():
    large, captions, attributes = scenes.sample(24, seed=5, size=96)
    assert large.shape == (24, 96, 96, 3) and captions == CAPTIONS[:24] and attributes == ATTRIBUTES[:24]
    shrunk = np.stack([Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX) for picture in large])
    apart = np.abs(shrunk - PICTURES[:24].astype(float)).mean((1, 2, 3))
    assert apart.max() < 8  # of 255; another scene is 20 or more away


def test_pictures_differ():
    assert len({picture.tobytes() for picture in PICTURES}) == N


def test_sampling_leaves_global_random_states_alone():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    scenes.sample(2, 0)
    assert torch.equal(before[0], torch.random.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])


# ---------------------------------------------------------------- held-out pairs


def test_training_scenes_hold_no_held_out_pair():
    assert not {pair(scene) for scene in ATTRIBUTES} & set(HELD_OUT)


@pytest.mark.parametrize("held_out", [VALIDATION, TEST])
def test_held_out_scenes_hold_nothing_else_and_all_ride(held_out):
    _, _, attributes = scenes.sample(60, 5, held_out)
    assert {pair(scene) for scene in attributes} == set(held_out)
    assert {scene["action"] for scene in attributes} == {"riding"}


def test_validation_and_test_share_no_pair_and_nobody_is_in_more_than_two():
    assert len(VALIDATION) == len(TEST) == 4 and len(set(HELD_OUT)) == 8
    for name in ("subject", "mount"):
        counts = Counter(dict(zip(("subject", "mount"), both, strict=True))[name] for both in HELD_OUT)
        assert max(counts.values()) <= 2 and set(counts) <= set(WORDS[name])


def test_every_other_pair_occurs_in_training():
    every = {(subject, mount) for subject in WORDS["subject"] for mount in WORDS["mount"]}
    assert {pair(scene) for scene in ATTRIBUTES} == every - set(HELD_OUT)


def test_the_famous_pair_is_held_out():
    assert VALIDATION[0] == ("astronaut", "horse")


# ---------------------------------------------------------------- captions


@pytest.mark.parametrize("value", [value for values in WORDS.values() for value in values])
def test_captions_say_every_value_word_for_word(value):
    assert any(f" {value} " in f" {caption} " for caption in CAPTIONS)


@pytest.mark.parametrize("action", WORDS["action"])
def test_an_action_is_put_in_all_its_wordings(action):
    put = [caption for caption, scene in zip(CAPTIONS, ATTRIBUTES, strict=True) if scene["action"] == action]
    assert action in WORDINGS[action]
    assert all(any(wording in caption for wording in WORDINGS[action]) for caption in put)
    assert all(any(wording in caption for caption in put) for wording in WORDINGS[action])


def test_captions_say_nothing_that_is_not_in_the_scene():
    for caption, scene in zip(CAPTIONS + HELD_CAPTIONS, ATTRIBUTES + HELD_ATTRIBUTES, strict=True):
        found = named(caption)
        assert found.items() <= scene.items()
        assert {"subject", "action", "mount"} <= found.keys()


def test_style_colour_and_place_are_sometimes_left_unsaid():
    for name in scenes.UNSAID:
        said = [name in named(caption) for caption in CAPTIONS]
        assert 0.5 < sum(said) / N < 0.9


def test_the_full_sentence():
    scene = dict(zip(WORDS, ("photograph", "astronaut", "riding", "red", "elephant", "on the moon"), strict=True))
    assert scenes.caption(scene) == "a photograph of an astronaut riding a red elephant on the moon"


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", WORDS)
def test_each_value_of_an_attribute_looks_different(name):
    """With all else equal, position and shade too, every value gives a picture of its own."""
    base = {other: values[0] for other, values in WORDS.items()} | {"mount": "dragon"}
    drawn = {scenes.draw(base | {name: value}, random.Random(3)).tobytes() for value in WORDS[name]}
    assert len(drawn) == len(WORDS[name])


def test_one_scene_is_never_drawn_twice_the_same_way():
    drawn = {scenes.draw(ATTRIBUTES[0], random.Random(seed)).tobytes() for seed in range(20)}
    assert len(drawn) == 20


def test_to_tensor_fills_the_range_and_puts_channels_first():
    pictures = np.zeros((2, 4, 6, 3), np.uint8)
    pictures[1, ..., 2] = 255
    images = scenes.to_tensor(pictures)
    assert images.shape == (2, 3, 4, 6) and images.dtype == torch.float32
    assert (images[0] == -1).all() and (images[1, 2] == 1).all() and (images[1, :2] == -1).all()


def test_to_pictures_undoes_to_tensor_for_every_byte():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(scenes.to_pictures(scenes.to_tensor(every)), every)
    assert np.array_equal(scenes.to_pictures(scenes.to_tensor(PICTURES[:4])), PICTURES[:4])


def test_to_pictures_clamps():
    assert scenes.to_pictures(torch.tensor([-7.0, 0.0, 7.0]).reshape(1, 3, 1, 1)).ravel().tolist() == [0, 128, 255]


# ---------------------------------------------------------------- check 0.1


def said(capsys, check, answer):
    assert check(answer) is None
    return capsys.readouterr().out


def halved_in_place(images):
    return images.div_(2).add_(0.5)


@pytest.mark.parametrize("answer", [lambda x: x / 2 + 0.5, lambda x: (x + 1) / 2, lambda x: (x / 2 + 0.5).clamp(0, 1)])
def test_check_unit_range_accepts(capsys, answer):
    assert said(capsys, checks.check_unit_range, answer) == "0.1 ok\n"


@pytest.mark.parametrize(
    "answer, hint",
    [
        (lambda x: x, "nothing has changed"),
        (lambda x: None, "return"),
        (lambda x: x / 2, "move them up"),
        (lambda x: x + 1, "halve it"),
        (lambda x: x / (2 + 0.5), "order"),
        (lambda x: x + 1 / 2, "halve as well"),
        (lambda x: (x / 2 + 0.5) * 255, "leave the 255 out"),
        (lambda x: (x + 0.5) / 2, "halve first"),
        (lambda x: x.clamp(0, 1), "cut off"),
        (lambda x: (x - x.min()) / (x.max() - x.min()), "a dark one must stay dark"),
        (lambda x: x[0] / 2 + 0.5, "wanted shape (1, 3, 2, 4)"),
        (lambda x: (x / 2 + 0.5).tolist(), "tensor"),
        (lambda x: x.sigmoid(), "wrong numbers"),
        (halved_in_place, "changes its argument"),
    ],
)
def test_check_unit_range_helps(capsys, answer, hint):
    out = said(capsys, checks.check_unit_range, answer)
    assert out.startswith("0.1 ") and hint in out and out.count("\n") == 1


def test_check_unit_range_waits(capsys):
    def stub(images):
        raise NotImplementedError

    assert said(capsys, checks.check_unit_range, stub) == "0.1 not tried yet\n"


# ---------------------------------------------------------------- the look at the environment


def test_environment_here_is_ready(capsys):
    checks.check_environment()
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "All is ready." and all(line.startswith("OK ") for line in out[:-1])
    assert not any("playwright" in line for line in out)  # an extra, which no lesson needs
    assert any("torch" in line for line in out) and any("device" in line for line in out)
    assert not any("/" in line for line in out)


def test_environment_says_what_is_old_missing_or_broken(capsys, monkeypatch):
    versions = {"torch": "2.1.0"}

    def version(name):
        if name == "scipy":
            raise checks.PackageNotFoundError(name)
        return versions.get(name, "999")

    def import_module(name):
        if name == "nbval":
            raise ImportError("a file is gone")

    def load_clip():
        raise FileNotFoundError("vae is missing: get it back")

    monkeypatch.setattr(checks, "version", version)
    monkeypatch.setattr(checks, "import_module", import_module)
    monkeypatch.setattr(checks.parts, "load", lambda *_: None)
    monkeypatch.setattr(checks.parts, "load_clip", load_clip)
    monkeypatch.setattr(checks.platform, "python_version", lambda: "3.9.1")
    checks.check_environment()
    to_do = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("OK ")]
    assert to_do[0].startswith("TO DO  Python 3.9.1")
    assert any(line.startswith("TO DO  nbval: cannot be imported (a file is gone)") for line in to_do)
    assert any(line.startswith("TO DO  scipy: not installed; run `pip install") for line in to_do)
    assert any(line.startswith('TO DO  torch 2.1.0: too old; run `pip install "torch>=') for line in to_do)
    assert any(line == "TO DO  the shipped model: vae is missing: get it back" for line in to_do)
    assert to_do[-1].startswith("5 to do")
