"""What moves in the lessons, moved from here."""

import numpy as np
import pytest

from sdlearn import scenes
from sdlearn.notebook import show, widgets

PICTURES = scenes.sample(20, seed=0)[0]


@pytest.fixture
def shown(monkeypatch):
    """The figures for a static page, and the widget."""
    things = []
    monkeypatch.setattr(show, "display_small", lambda *figures, widget: things.extend([*figures, widget]))
    return things


def one(i):
    return show.sheet(PICTURES[[i]])


def size(file):
    """Width and height of a PNG file."""
    return tuple(np.frombuffer(bytes(file)[16:24], ">u4").tolist())


def parts(box):
    """Controls, the line under them, the screen."""
    *knobs, note, row = box.children  # in a row of its own the picture keeps its size
    return knobs, note, row.children[0]


def test_moving_a_control_draws_what_it_says(shown):
    widgets.move(one, i=(0, 19))
    still, box = shown
    (knob,), note, screen = parts(box)
    for i in (3, 7):
        knob.value = i
        assert screen.value == show.rendered(one(i))
    assert len(still.axes) == 1 and note.value == ""


def test_a_setting_seen_before_is_not_drawn_again(shown):
    drawn = []

    def frame(i, dark):
        drawn.append((i, dark))
        return one(i)

    widgets.move(frame, i=(0, 19), dark=False)
    (slider, switch), _, screen = parts(shown[-1])
    first = slider.value
    for i, dark in ((4, False), (4, True), (4, False), (4, True)):
        slider.value, switch.value = i, dark
    slider.value, switch.value = first, False
    assert drawn.count((4, False)) == drawn.count((4, True)) == drawn.count((first, False)) == 1
    slider.value = 4
    assert screen.value == show.rendered(one(4))


def test_what_takes_time_is_announced(shown):
    widgets.move(one, i=(0, 19))
    (knob,), note, _ = parts(shown[-1])
    said, first = [], knob.value
    note.observe(lambda change: said.append(change["new"]), "value")
    knob.value = 3
    assert said == ["drawing ...", ""]
    knob.value = first
    assert said == ["drawing ...", ""], "what comes from memory takes no time"


def test_what_was_drawn_ahead_is_not_drawn_when_the_slider_comes_there(shown):
    drawn = []

    def frame(i):
        drawn.append(i)
        return one(i)

    widgets.move(frame, ahead=True, i=(0, 6, 2))
    before = list(drawn)
    (knob,), _, screen = parts(shown[-1])
    knob.value = 6
    assert {*before} == {0, 2, 4, 6} and drawn == before and screen.value == show.rendered(one(6))


def test_several_figures_stand_side_by_side(shown):
    widgets.move(lambda i: [one(i), one(i + 1)], i=(0, 10))
    assert parts(shown[-1])[2].value == show.rendered(one(5), one(6)) and len(shown) == 3
    width, height = size(show.rendered(one(0)))
    assert size(show.rendered(one(0), one(1), one(2))) == (3 * width, height)


def test_a_static_page_keeps_a_picture_and_a_line(shown, capsys):
    widgets.move(lambda i, go_on: one(i), show.sheet(PICTURES[:5]), i=(0, 10), go_on=True)
    assert len(shown[0].axes) == 5
    assert capsys.readouterr().out == "Live, you can move: i, go on\n"


def test_picture_and_widget_are_one_output(monkeypatch):
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    widgets.move(one, i=(0, 10))
    [bundle] = bundles
    assert bundle.keys() == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert bundle["text/plain"].startswith("<Figure")


def test_what_does_not_work_is_said_and_the_picture_stays(shown):
    def frame(text):
        if "<" in text:
            raise ValueError(f"cannot draw {text}")
        return one(len(text) % 20)

    widgets.move(frame, text="a cat")
    (line,), note, screen = parts(shown[-1])
    before = screen.value
    line.value = "<b>"
    assert note.value == "cannot draw <b>" and screen.value == before
    line.value = "horse " * 1000
    assert note.value == ""


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), KeyError("7"), RuntimeError()], ids=repr)
def test_any_error_ends_the_drawing(shown, error):
    def frame(i):
        if i == 3:
            raise error
        return one(i)

    widgets.move(frame, i=(0, 19))
    (knob,), note, screen = parts(shown[-1])
    before = screen.value
    knob.value = 3
    assert note.value.startswith(type(error).__name__) and screen.value == before
    knob.value = 4
    assert note.value == "" and screen.value == show.rendered(one(4))


def test_a_control_that_is_none_is_refused():
    with pytest.raises(ValueError, match="i must be as for ipywidgets.interact"):
        widgets.move(one, i=object())


def test_a_film_leaves_a_strip_and_a_slider(shown):
    widgets.film(PICTURES, columns=5)
    strip, box = shown
    (slider,), _, screen = parts(box)
    assert len(strip.axes) == 5
    assert (slider.value, slider.max) == (0, 19)
    first = screen.value
    slider.value = 7
    assert screen.value != first and bytes(screen.value).startswith(b"\x89PNG")


def test_every_frame_of_a_film_has_one_size(shown):
    widgets.film(PICTURES, [f"step {i}" for i in range(20)])
    (slider,), _, screen = parts(shown[-1])
    sizes = set()
    for i in range(20):
        slider.value = i
        sizes.add(size(screen.value))
    assert len(sizes) == 1
