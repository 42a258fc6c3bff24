"""How far a training is, as one picture."""

import warnings

import numpy as np
import torch
from PIL import Image

from sdlearn.tools import board
from sdlearn.tools.board import Board


def seen(file):
    return np.array(Image.open(file).convert("RGB"))


def test_the_picture_is_drawn_anew_with_what_the_model_makes(tmp_path):
    file = tmp_path / "progress.png"
    shown = Board(file, {"vae": 100, "unet": 50})
    shown.begin("vae")
    shown.show([3.0])
    before = seen(file)
    shown.show([3.0, 2.0, 1.0], torch.zeros(16, 3, 8, 8))
    after = seen(file)
    right = slice(before.shape[1] // 2, None)
    assert (before[:, right] == 255).all() and (after[:, right] != 255).any()
    shown.show([3.0, 2.0], torch.ones(8, 3, 8, 8), ["a cat"] * 8)
    assert not [x for x in tmp_path.iterdir() if x != file]


def test_any_caption_and_a_loss_of_zero_are_drawn_without_a_word(tmp_path):
    shown = Board(tmp_path / "progress.png", {"unet": 50})
    shown.begin("unet")
    odd = ["\N{CJK UNIFIED IDEOGRAPH-99AC}\N{CJK UNIFIED IDEOGRAPH-8ECA}", r"for $\odd and $5"]  # no formula
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown.show([0.0, 0.0], torch.zeros(8, 3, 8, 8), odd * 4)
    assert (tmp_path / "progress.png").is_file()


def test_it_says_how_long_all_parts_will_still_take(monkeypatch):
    clock = iter([100.0, 160.0, 200.0, 260.0])
    monkeypatch.setattr(board.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(board, "COST", {"vae": 1.0, "unet": 2.0})
    shown = Board(None, {"vae": 100, "unet": 50})
    shown.begin("vae")
    assert shown.title(41) == "vae: step 41 of 100"  # resumed at 40: no speed is known yet
    assert shown.title(51) == "vae: step 51 of 100, about 15 min left in all"  # 6 s a step: 49, then 50 at 12 s
    shown.begin("unet")
    assert shown.title(1) == "unet: step 1 of 50"
    assert shown.title(41) == "unet: step 41 of 50, about 0 min left in all"
