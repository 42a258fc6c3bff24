"""What a model is trained on: chosen by options, written down beside it, and the same when a run goes on."""

import json

import numpy as np
import pytest
from PIL import Image

from sdlearn import scenes
from sdlearn.tools import sources
from sdlearn.tools.sources import Scenes


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 100)


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


def chosen(tmp_path, data=None, size=None, pad=None, mirror=False, held_out=None, begun=False, resume=False):
    return sources.chosen(tmp_path / "run", data, size, pad, mirror, held_out, begun, resume)


def damage(data, n):
    for i in range(n):
        (data / f"{i}.png").write_text("no picture")


def test_without_a_word_it_is_the_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "TRAINING", 6)
    source = chosen(tmp_path)
    pictures, captions = source.training
    assert source == Scenes(64) and np.array_equal(pictures, scenes.sample(6, seed=1)[0]) and len(captions) == 6
    assert chosen(tmp_path, size=96).training[0].shape == (6, 96, 96, 3)
    assert all(("astronaut" in x) or ("horse" not in x) for x in source.held_out[1])  # validation pairs, riding


def test_a_folder_is_split_by_its_captions(tmp_path, data):
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


def reds(pictures):
    return [int(red) for red in pictures[:, 32, 32, 0]]


def test_eight_different_pictures_are_shown_spread_over_the_whole_set(tmp_path, data):
    pictures, captions = sources.shown(chosen(tmp_path, data, held_out="0"))
    assert captions == [f"number {i}" for i in (0, 1, 2, 3, 5, 6, 7, 8)]  # of ten, each with four copies
    assert reds(pictures) == [10 * i for i in (0, 1, 2, 3, 5, 6, 7, 8)]
    rows = [{"file_name": f"{i}.png", "text": f"number {i}"} for i in range(20)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "unseen.txt").write_text("\n".join(f"number {i}" for i in range(2, 18)))
    source = chosen(tmp_path, data, held_out=str(tmp_path / "unseen.txt"))
    assert sources.shown(source)[1] == [f"number {i}" for i in range(2, 18, 2)]  # every other one that is held out


def test_fewer_than_eight_captions_are_shown_with_different_pictures(tmp_path, data):
    rows = [{"file_name": f"{i}.png", "text": f"number {i % 2}"} for i in range(20)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pictures, captions = sources.shown(chosen(tmp_path, data, held_out="0"))
    assert {*captions} == {"number 0", "number 1"} and len({*reds(pictures)}) == 8


def test_what_cannot_be_read_is_counted_once_in_one_line(tmp_path, data):
    damage(data, 5)
    source = chosen(tmp_path, data, held_out="0.5")
    with pytest.warns(UserWarning) as notes:
        (_, seen), (_, unseen) = source.training, source.held_out
    assert len({*seen} | {*unseen}) == 10 and len(unseen) < 10
    assert len(notes) == 1
    assert str(notes[0].message).startswith("5 of 20 pictures could not be read: ")
    assert str(notes[0].message).endswith(".png (not a picture, or damaged), ...")


@pytest.mark.parametrize("broken", [20, 13])
def test_too_few_pictures_that_can_be_read(tmp_path, data, broken):
    damage(data, broken)
    with pytest.raises(ValueError, match=f"data: {broken} of 20 pictures could not be read: .*; 8 are the least"):
        assert chosen(tmp_path, data).training


def test_two_captions_must_be_left_to_learn_from(tmp_path, data):
    damage(data, 9)
    (data / "9.png").unlink()
    (tmp_path / "unseen.txt").write_text("\n".join(f"number {i}" for i in range(8)))
    damage(data, 10)  # of the captions 8 and 9 one picture each is left
    (data / "19.png").unlink()
    with pytest.raises(ValueError, match="data: two captions that are not held out are the least to learn from"):
        assert chosen(tmp_path, data, held_out=str(tmp_path / "unseen.txt")).training


def test_pictures_without_a_caption_leave_the_number_of_copies_as_it_is(tmp_path, data):
    rows = [{"file_name": f"{i}.png", "text": f"number {i}" if i % 2 else ""} for i in range(20)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="10 of 20 pictures could not be read: 0.png .no caption in the folder., "):
        assert len(chosen(tmp_path, data, held_out="0").training[1]) == 100


def test_one_caption_for_all_pictures_is_too_little(tmp_path, data):
    rows = [{"file_name": f"{i}.png", "text": "a horse"} for i in range(20)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match='all pictures have the same caption, "a horse": give them at least two'):
        chosen(tmp_path, data)


def test_what_is_written_down_is_read_again(tmp_path, data):
    (tmp_path / "run").mkdir()
    for source in (Scenes(96), chosen(tmp_path, data, 32, "white", True, "0.2")):
        sources.save(source, tmp_path / "run")
        assert sources.load(tmp_path / "run") == source
    assert sources.load(tmp_path) == Scenes()


def test_a_run_goes_on_with_what_it_began_with(tmp_path, data):
    (tmp_path / "run").mkdir()
    earlier = chosen(tmp_path, data, size=32)
    sources.save(earlier, tmp_path / "run")
    assert chosen(tmp_path, begun=True) == chosen(tmp_path, data, size=32, begun=True) == earlier
    with pytest.raises(ValueError, match="is trained on something else .*leave --data and --size out to go on"):
        chosen(tmp_path, data, size=64, begun=True)


def test_where_nothing_has_begun_the_options_count_if_there_are_any(tmp_path, data):
    (tmp_path / "run").mkdir()
    earlier = chosen(tmp_path, data, size=32)
    sources.save(earlier, tmp_path / "run")
    assert chosen(tmp_path, data, size=96) == chosen(tmp_path, data, size=96, resume=True) != earlier
    assert chosen(tmp_path) == Scenes()
    assert chosen(tmp_path, resume=True) == earlier  # killed before its first checkpoint


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
