"""Pictures for the lessons: every pixel where it belongs, nothing blurred."""

import io
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from sdlearn import scenes
from sdlearn.notebook import show


def pixels(figure):
    """What a figure looks like on a page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=show.DPI)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("zoom", [1, 2, 3])
def test_a_sheet_shows_every_pixel_as_a_square_of_its_own(zoom):
    pictures = scenes.sample(3, seed=0)[0]
    page = pixels(show.sheet(pictures, columns=3, zoom=zoom))
    for i, picture in enumerate(pictures):
        large = np.kron(picture, np.ones((zoom, zoom, 1), np.uint8))
        x = i * (64 * zoom + 6)
        part = page[4:, x : x + 64 * zoom][: 64 * zoom]
        assert (part == large).mean() > 0.99


def test_tensors_and_pictures_look_the_same():
    pictures = scenes.sample(2, seed=0)[0]
    assert (pixels(show.sheet(pictures)) == pixels(show.sheet(scenes.to_tensor(pictures)))).all()


def test_long_titles_are_wrapped_between_words():
    titles = {"a cat riding a red horse": "a cat\nriding a\nred horse", "unbelievable, no": "unbelievable,\nno"}
    sheet = show.sheet(np.zeros((2, 70, 70, 3), np.uint8), list(titles), zoom=1)  # room for ten letters
    assert [axes.get_title() for axes in sheet.axes] == list(titles.values())


def test_what_somebody_typed_is_no_formula():
    """A dollar sign or a backslash in a prompt would else be taken for TeX, and stop the drawing."""
    odd = ["a cat for $5 and $x^{", r"\frac{a \cat"]
    for figure in (show.sheet(np.zeros((2, 64, 64, 3), np.uint8), odd), show.matrix(torch.eye(2), odd, odd, odd[0])):
        pixels(figure)


def test_an_overlay_is_bright_where_the_word_was_looked_at():
    white = np.full((64, 64, 3), 255, np.uint8)
    maps = torch.zeros(1, 8, 8)
    maps[0, :, 4:] = 1
    page = pixels(show.overlay(white, maps, ["right"], zoom=1))
    row = page[-32]
    assert row[10].max() < 80
    assert row[50].min() > 250


@pytest.mark.parametrize("band", [None, (0.1, 0.2)])
def test_a_curve_has_as_many_points_as_steps(band):
    figure = show.curve([1 / (i + 1) for i in range(100)], band)
    assert len(figure.axes[0].lines[0].get_xdata()) == 100


def test_the_thick_line_lies_on_a_straight_loss():
    _, thick = show.curve(list(range(40))).axes[0].lines
    np.testing.assert_allclose(thick.get_xdata(), thick.get_ydata())


def test_the_colours_of_a_matrix_keep_to_a_scale():
    of_its_own, given = (show.matrix(torch.eye(2), "ab", "cd", scale=scale).axes[0] for scale in (None, (-1, 2)))
    assert of_its_own.images[0].get_clim() == (0, 1) and given.images[0].get_clim() == (-1, 2)


def test_matrix_writes_its_numbers():
    figure = show.matrix(torch.eye(2), ["a", "b"], ["c", "d"])
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["0.00", "0.00", "1.00", "1.00"]


def test_the_bar_names_no_time(capsys):
    assert list(show.progress(range(3))) == [0, 1, 2]
    out = capsys.readouterr()
    assert "3/3" in out.out
    assert ":" not in out.out
    assert out.err == ""


def test_a_widget_that_cannot_say_itself_how_it_is_shown_is_shown_all_the_same(monkeypatch):
    """Those of ipywidgets 7, which Colab has, know no more than their `model_id`."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    show.display_small(show.sheet(scenes.sample(1, seed=0)[0]), widget=SimpleNamespace(model_id="7"))
    show.display_small(show.sheet(scenes.sample(1, seed=0)[0]))
    live, still = bundles
    assert live.pop("application/vnd.jupyter.widget-view+json")["model_id"] == "7"
    assert live.keys() == still.keys() == {"image/png", "text/plain"}


@pytest.mark.skipif(not hasattr(ipywidgets.Widget, "_repr_mimebundle_"), reason="ipywidgets 7 cannot say it")
def test_a_page_is_told_of_a_widget_what_ipywidgets_itself_would_tell_it():
    slider = ipywidgets.IntSlider()
    assert show.view(slider).items() <= slider._repr_mimebundle_().items()
