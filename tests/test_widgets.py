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


def test_an_eye_s_verdicts_are_kept_in_order_and_can_be_taken_back(shown):
    widgets.by_eye(PICTURES[:3], ["a", "b", "c"], verdicts := [])
    still, box = shown
    caption, row, (yes, no, back), note = (*box.children[:2], box.children[2].children, box.children[3])
    assert len(still.axes) == 3 and back.disabled and caption.value == "a"
    yes.click(), no.click()
    assert verdicts == [True, False] and (caption.value, note.value) == ("c", "picture 3 of 3")
    assert row.children[0].value == show.png(PICTURES[2], 256)
    back.click(), yes.click(), no.click()
    assert verdicts == [True, True, False] and yes.disabled and no.disabled and not back.disabled
    assert note.value == "all judged: run the next cell"


# ---------------------------------------------------------------- squares to paint on

COLOURS = {"black": (0, 0, 0), "red": (200, 40, 40)}


def painted(shown, frame):
    """A canvas of two rows and three columns, all black: the menu, the squares in rows, the button, line and screen."""
    widgets.paint(frame, np.zeros((2, 3, 3), np.uint8), COLOURS)
    colour, rows, button, note, row = shown[-1].children
    return colour, [line.children for line in rows.children], button, note, row.children[0]


def enlarged(canvas):
    return show.sheet(canvas[None], zoom=20)


def test_what_is_painted_is_drawn_at_a_click(shown):
    got = []
    colour, squares, button, note, screen = painted(shown, lambda canvas: got.append(canvas) or enlarged(canvas))
    assert [len(line) for line in squares] == [3, 3] and got[0].sum() == 0
    colour.value = "red"
    squares[1][2].click()
    assert squares[1][2].style.button_color == "#c82828" and len(got) == 1
    button.click()
    want = np.zeros((2, 3, 3), np.uint8)
    want[1, 2] = COLOURS["red"]
    assert np.array_equal(got[1], want) and note.value == "" and screen.value == show.rendered(enlarged(want))
    assert len(shown) == 2  # the figure for a static page, and the widget


def test_what_a_frame_does_to_its_canvas_stays_there(shown):
    got = []

    def spoil(canvas):
        got.append(canvas.copy())
        canvas += 1
        return enlarged(canvas)

    _, _, button, *_ = painted(shown, spoil)
    button.click()
    assert np.array_equal(*got)


def test_an_error_while_drawing_a_painting_becomes_a_line(shown):
    def frame(canvas):
        if canvas.any():
            raise KeyError("red")
        return enlarged(canvas)

    colour, squares, button, note, screen = painted(shown, frame)
    before, colour.value = screen.value, "red"
    squares[0][0].click(), button.click()
    assert note.value == "KeyError: 'red'" and screen.value == before
