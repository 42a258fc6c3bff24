"""What a model is trained on: chosen by options, written down beside it, and the same when a run goes on."""

import json

import numpy as np
import pytest
from PIL import Image

from sdlearn import scenes
from sdlearn.tools import sources
from sdlearn.tools.sources import Scenes


@pytest.fixture
def data(tmp_path):
    """Twenty pictures with ten different captions."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"file_name": f"{i}.png", "text": f"number {i % 10}"} for i in range(20)]
    for i, row in enumerate(rows):
        Image.new("RGB", (24, 24), (10 * i, 0, 0)).save(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def chosen(tmp_path, data=None, size=None, pad=None, mirror=False, held_out=None):
    return sources.chosen(tmp_path / "run", data, size, pad, mirror, held_out)


def test_without_a_word_it_is_the_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 6)
    source = chosen(tmp_path)
    pictures, captions = source.training
    assert source == Scenes(64) and np.array_equal(pictures, scenes.sample(6, seed=1)[0]) and len(captions) == 6
    assert chosen(tmp_path, size=96).training[0].shape == (6, 96, 96, 3)
    assert all(("astronaut" in x) or ("horse" not in x) for x in source.held_out[1])  # validation pairs, riding


def test_a_folder_is_split_by_its_captions(tmp_path, data, monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 100)
    source = chosen(tmp_path, data, size=32, held_out="0.3")
    (pictures, captions), (others, unseen) = source.training, source.held_out
    assert len({*unseen}) == 3 and len({*captions}) == 7 and not {*unseen} & {*captions}
    assert len(unseen) == 6 and len(captions) == 14 * (100 // 14)  # shifted and scaled copies
    assert pictures.shape[1:] == others.shape[1:] == (32, 32, 3)


def test_a_file_says_which_captions_are_held_out(tmp_path, data):
    (tmp_path / "unseen.txt").write_text("number 3\n\n number   5 \n")
    source = chosen(tmp_path, data, held_out=str(tmp_path / "unseen.txt"))
    assert {*source.held_out[1]} == {"number 3", "number 5"}


def test_nothing_need_be_held_out(tmp_path, data):
    source = chosen(tmp_path, data, held_out="0")
    assert len(source.held_out[1]) == 0 and len(sources.shown(source)[1]) == 8


def test_what_is_written_down_is_read_again(tmp_path, data):
    (tmp_path / "run").mkdir()
    for source in (Scenes(96), chosen(tmp_path, data, 32, "white", True, "0.2")):
        sources.save(source, tmp_path / "run")
        assert sources.load(tmp_path / "run") == source
    assert sources.load(tmp_path) == Scenes()


def test_a_run_goes_on_with_what_it_began_with(tmp_path, data):
    (tmp_path / "run").mkdir()
    begun = chosen(tmp_path, data, size=32)
    sources.save(begun, tmp_path / "run")
    assert chosen(tmp_path) == chosen(tmp_path, data, size=32) == begun
    with pytest.raises(ValueError, match="is trained on something else .*leave --data and --size out to go on"):
        chosen(tmp_path, data, size=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": "1"}, "--held-out must be 0 or more and below 1; got 1"),
        ({"held_out": "nan"}, "--held-out must be 0 or more and below 1; got nan"),
        ({"held_out": "-0.1"}, "--held-out must be 0 or more and below 1"),
        ({"held_out": "0.95"}, "--held-out leaves fewer than two captions to learn from"),
        ({"held_out": "nowhere.txt"}, '--held-out must be a fraction, or a file of captions; "nowhere.txt" is neither'),
        ({"pad": "colourless"}, '--pad must be a colour, such as white or "#ffcc00"; got "colourless"'),
    ],
)
def test_options_with_which_nothing_can_be_learnt(tmp_path, data, options, message):
    with pytest.raises(ValueError, match=message):
        chosen(tmp_path, data, **options)


def test_a_caption_to_hold_out_that_is_not_there(tmp_path, data):
    (tmp_path / "unseen.txt").write_text("number 3\nnumber 11\nnumber 12\n")
    with pytest.raises(ValueError, match='2 captions are not in the folder, such as "number 11"'):
        chosen(tmp_path, data, held_out=str(tmp_path / "unseen.txt"))


def test_three_pictures_are_too_few(tmp_path, data):
    table = data / "metadata.jsonl"
    table.write_text("\n".join(table.read_text().splitlines()[:3]))
    with pytest.raises(ValueError, match="data has 3 captioned pictures: 8 are the least to learn from"):
        chosen(tmp_path, data)


def test_options_of_a_folder_without_a_folder(tmp_path):
    for options in ({"pad": "white"}, {"mirror": True}, {"held_out": "0.1"}):
        with pytest.raises(ValueError, match="--pad, --mirror and --held-out go with --data"):
            chosen(tmp_path, **options)
