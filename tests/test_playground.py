"""The playground without a browser: its knobs are turned from here."""

import time

import numpy as np
import pytest

from sdlearn import parts
from sdlearn.notebook import playground, show
from sdlearn.sampling import text_to_image
from sdlearn.scenes import to_pictures

FEW = playground.Settings(prompt="a cat riding a red turtle", steps=3)


@pytest.fixture(scope="module")
def model():
    return parts.load("mini", "cpu")


@pytest.fixture
def room(model, monkeypatch):
    monkeypatch.setattr(show, "display_small", lambda *_, **__: None)
    room = playground.Playground(model, parts.load_clip(), FEW)
    room._ipython_display_()
    return room


def test_the_film_ends_with_the_picture_of_the_loop(room, model):
    picture = to_pictures(text_to_image(model, FEW.prompt, steps=3))[0]
    film = room.make(FEW)
    assert film.frames.shape == (3, 64, 64, 3)
    assert np.abs(film.frames[-1].astype(int) - picture).max() <= 1
    assert -1 <= film.match <= 1
    assert room.now.value == show.png(film.frames[-1], playground.SIDE)


def test_drawing_moves_the_picture_to_the_left_and_shows_the_new_one(room):
    before = room.now.value
    room.knobs["seed"].value = 9
    room.draw().join()
    assert room.before.value == before != room.now.value
    assert room.bar.value == 1 and "by CLIP" in room.note.value


def test_the_same_settings_come_from_memory(room, monkeypatch):
    monkeypatch.setattr(playground, "text_to_image", None)
    room.draw().join()
    assert room.bar.value == 1


def test_scrubbing_shows_each_moment(room):
    shown = []
    for step in range(3):
        room.scrub.value = step
        shown.append(room.now.value)
    assert len({*shown}) == 3


def test_the_last_of_many_clicks_wins(room):
    threads = []
    for seed in (1, 2, 3):
        room.knobs["seed"].value = seed
        threads.append(room.draw())
    for thread in threads:
        thread.join()
    assert room.now.value == show.png(room.films[FEW._replace(seed=3)].frames[-1], playground.SIDE)


def test_stop_is_heard_and_nothing_is_half_shown(room):
    before = room.now.value
    room.knobs["steps"].value, room.knobs["seed"].value = 100, 5
    thread = room.draw()
    while room.bar.value < 0.05:
        time.sleep(0.01)
    room.halt.click()
    thread.join()
    assert room.now.value == before
    assert FEW._replace(steps=100, seed=5) not in room.films


@pytest.mark.parametrize("prompt", ["", "<b>bold</b> unicorn", "\N{GRINNING FACE}", "horse " * 1000])
def test_odd_prompts_get_a_picture_and_at_most_a_line(room, prompt):
    before = room.now.value
    room.knobs["prompt"].value = prompt
    room.draw().join()
    assert room.now.value != before and room.bar.value == 1
    assert len(room.note.value) < 400 and "\n" not in room.note.value


def test_two_playgrounds_draw_at_once_on_one_model_what_each_was_asked_for(model):
    asked = [FEW._replace(seed=4, scheduler="lms"), FEW._replace(negative="a horse", guidance=9.0, scheduler="unipc")]
    both = [playground.Playground(model, None, settings) for settings in asked]
    for thread in [one.draw() for one in both]:
        thread.join()
    for one, (prompt, negative, seed, guidance, steps, scheduler) in zip(both, asked, strict=True):
        alone = model._replace(scheduler=parts.make_scheduler(scheduler, model.scheduler.config))
        picture = to_pictures(text_to_image(alone, prompt, negative, steps, guidance, seed))[0]
        assert hasattr(one, "film"), one.note.value
        assert np.abs(one.film.frames[-1].astype(int) - picture).max() <= 1
        assert "by CLIP" not in one.note.value
