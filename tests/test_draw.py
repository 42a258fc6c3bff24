"""`sdlearn-draw`: a prompt in, a PNG out; what is odd about the prompt is said, and a picture comes all the same."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fastcore.script import CliError
from PIL import Image

from sdlearn import parts, scenes
from sdlearn.clip import new_tokenizer
from sdlearn.tools import draw


@pytest.fixture(scope="module")
def tokenizer():
    return parts.load_tokenizer()


def test_the_command_writes_a_picture_and_prints_its_path(tmp_path, capsys):
    out = tmp_path / "cat.png"
    draw.main("a cat riding a red horse", n=2, steps=2, out=out)
    assert Image.open(out).size == (128, 64)
    assert capsys.readouterr().out == f"{out}\n"
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]


def test_the_same_seed_paints_the_same_picture_and_another_seed_another():
    one, same, other = (np.asarray(draw.draw("a cat", steps=2, seed=seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_the_empty_prompt_paints_something():
    assert draw.draw("", steps=1).size == (64, 64)


@pytest.mark.slow
def test_the_command_paints_the_empty_prompt(tmp_path):
    command = [sys.executable, "-m", "sdlearn.tools.draw", "", "--steps", "1", "--out", "anything.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "anything.png\n" and (tmp_path / "anything.png").is_file(), done.stderr


def test_every_word_of_a_caption_is_known(tokenizer):
    for caption in scenes.sample(300, seed=4)[1]:
        assert draw.advise(tokenizer, caption) == []


@pytest.mark.parametrize("word", ["unicorn", "Zebra", "straße", "b"])
def test_a_word_never_seen_is_named_with_those_that_are(tokenizer, word):
    (advice,) = draw.advise(tokenizer, f"a cat riding a {word}")
    assert advice.startswith(f"this model has never seen: {word.lower()}. It knows: photograph, painting, postcard;")
    assert "sitting on" in advice


def test_a_model_of_other_words_says_which():
    tokenizer = new_tokenizer(["a horse, drawn by noto", "a house by twemoji", "一匹马 by noto"] * 3)
    (advice,) = draw.advise(tokenizer, "a unicorn by noto")
    assert advice == "this model has never seen: unicorn. It knows: by, noto, drawn, horse, house, twemoji, 一匹马"
    assert draw.advise(tokenizer, "a horse by 一匹马") == []


def test_a_short_word_that_captions_had_is_known():
    tokenizer = new_tokenizer(["no fog", "hi", "de", "馬"] * 3)
    assert draw.advise(tokenizer, "no hi de 馬 a") == []
    (advice,) = draw.advise(tokenizer, "no f, g or hid")
    assert advice.startswith("this model has never seen: f, g, or, hid. It knows: ")


def test_a_large_vocabulary_is_not_second_guessed():
    class Large:
        model_max_length = 77

        def get_vocab(self):
            return dict.fromkeys(map(str, range(49_408)))

        def __call__(self, prompt, **_):
            return SimpleNamespace(input_ids=[0, 1, 2])

        def decode(self, tokens):
            return "".join(map(str, tokens))

    assert draw.advise(Large(), "a unicorn") == []


def test_a_prompt_over_the_limit_says_what_was_cut_off(tokenizer, capfd):
    (advice,) = draw.advise(tokenizer, "a cat riding a horse " * 5)
    assert advice.startswith('the prompt is over 22 tokens; this was cut off: "')
    assert advice.endswith('horse"')
    assert capfd.readouterr().err == ""  # and the library adds no warning of its own


def test_a_warning_does_not_keep_the_picture_from_coming():
    with pytest.warns(UserWarning, match="never seen: unicorn"):
        assert draw.draw("a cat riding a unicorn", steps=1).size == (64, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more; got 0"),
        ({"n": 0}, "n must be 1 or more; got 0"),
        ({"guidance": float("nan")}, "guidance must be a number; got nan"),
        ({"seed": 10**20}, "seed must be from 0 to 4294967295; got 100000000000000000000"),
        ({"seed": -1}, "seed must be from 0 to 4294967295; got -1"),
        ({"steps": 1000}, "1000 steps are more than DDIMScheduler can take: stay below 1000"),
        ({"steps": 1500, "scheduler": "lms"}, "1500 steps are more than LMSDiscreteScheduler can take"),
        ({"scheduler": "magic"}, 'unknown scheduler "magic": choose one of ddim'),
        ({"model": "magic"}, 'no model "magic": give "mini", a directory, or a hub name'),
    ],
)
def test_settings_that_cannot_be_met_say_what_is_allowed(settings, message, tmp_path):
    with pytest.raises(CliError, match=message):
        draw.main("a cat", out=tmp_path / "x.png", **settings)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named_before_anything_is_painted(tmp_path, monkeypatch):
    monkeypatch.setattr(draw, "text_to_image", None)  # it does not come so far
    with pytest.raises(CliError, match="cannot write .*x.png: there is no folder .*nowhere"):
        draw.main("a cat", steps=1, out=tmp_path / "nowhere" / "x.png")
    with pytest.raises(CliError, match=f"cannot write {tmp_path}: it is a folder; add the name of a file"):
        draw.main("a cat", steps=1, out=tmp_path)


def test_picture_and_film_do_not_overwrite_each_other(tmp_path):
    with pytest.raises(CliError, match="would take the film's place"):
        draw.main("a cat", steps=1, out=tmp_path / "x.gif", film=tmp_path / "x.gif")
    (tmp_path / "link.gif").symlink_to(tmp_path / "x.gif")
    for same in (tmp_path / "link.gif", tmp_path / ".." / tmp_path.name / "x.gif"):
        with pytest.raises(CliError, match="would take the film's place"):
            draw.main("a cat", steps=1, out=tmp_path / "x.gif", film=same)


def test_a_film_ends_with_the_picture_and_rests_there(tmp_path):
    out, film = tmp_path / "cat.png", tmp_path / "cat.gif"
    draw.main("a cat riding a red horse", steps=3, out=out, film=film)
    moments, durations = [], []
    with Image.open(film) as gif:
        for i in range(gif.n_frames):
            gif.seek(i)
            moments.append(np.asarray(gif.convert("RGB").resize((64, 64), Image.Resampling.NEAREST)).astype(int))
            durations.append(gif.info["duration"])
    assert len(moments) == 3 and durations == [100, 100, 2000]
    assert np.abs(moments[-1] - np.asarray(Image.open(out))).mean() < 12  # a GIF has 256 colours
    assert np.abs(moments[0] - moments[-1]).mean() > 12


def test_a_grid_shows_one_picture_for_each_value(tmp_path):
    out = tmp_path / "grid.png"
    draw.main("a cat", steps=2, grid="guidance=0,2,4,8,15", out=out)
    wide, high = Image.open(out).size
    assert wide >= 4 * 192 and high >= 2 * 192
    assert np.asarray(draw.grid_of("seed=1,2", "a cat", steps=1)).std() > 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": "colour=red,blue"}, 'a grid runs over one setting, .* got "colour=red,blue"'),
        ({"grid": "seed"}, 'got "seed"'),
        ({"grid": "steps=5,many"}, 'got "steps=5,many"'),
        ({"grid": "scheduler=ddim,magic"}, 'unknown scheduler "magic"'),
        ({"grid": "seed=1,2", "n": 2}, "leave n at 1"),
        ({"grid": "seed=1,2", "film": "x.gif"}, "choose one of them"),
    ],
)
def test_a_grid_that_makes_no_sense_says_what_would(settings, message, tmp_path):
    if "film" in settings:
        settings = settings | {"film": tmp_path / settings["film"]}
    with pytest.raises(CliError, match=message):
        draw.main("a cat", steps=1, out=tmp_path / "x.png", **settings)
    assert not list(tmp_path.iterdir())
