"""A folder of captioned pictures: the layouts that people have, every kind of picture, and one line for each fault."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from sdlearn.tools import folder


def picture(file, size=(20, 20), colour=(200, 30, 30), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(file)


def captions_of(tmp_path):
    return [(file.relative_to(tmp_path).as_posix(), caption) for file, caption in folder.captioned(tmp_path)]


def read(tmp_path, names, size=16, **how):
    pictures, captions, bad = folder.read([(tmp_path / name, f"of {name}") for name in names], tmp_path, size, **how)
    assert not bad
    return pictures, captions


def unread(tmp_path, names):
    """What could not be read, and the captions of what could."""
    _, captions, bad = folder.read([(tmp_path / name, f"of {name}") for name in names], tmp_path, 16)
    return bad, captions


# ---------------------------------------------------------------- captions


def test_a_table_of_json_lines(tmp_path):
    rows = [{"file_name": "b.png", "text": " a  horse\n"}, {"file_name": "in/a.png", "text": "a cat", "more": 3}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert captions_of(tmp_path) == [("b.png", "a horse"), ("in/a.png", "a cat")]


def test_a_table_of_comma_separated_values(tmp_path):
    (tmp_path / "metadata.csv").write_text('\ufefffile_name,text\na.png,"a horse, drawn"\n', encoding="utf-8")
    assert captions_of(tmp_path) == [("a.png", "a horse, drawn")]


def test_a_caption_may_hold_any_kind_of_line_break(tmp_path):
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"a horse\non the\u2028moon"\nb.png,a cat\n')
    assert captions_of(tmp_path) == [("a.png", "a horse on the moon"), ("b.png", "a cat")]
    (tmp_path / "metadata.csv").unlink()
    rows = [{"file_name": "a.png", "text": "a horse\u2028on\u0085the moon"}, {"file_name": "b.png", "text": "a cat"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_bytes(text.encode())
    assert captions_of(tmp_path) == [("a.png", "a horse on the moon"), ("b.png", "a cat")]


def test_a_text_file_beside_each_picture(tmp_path):
    for name in ("a.png", "in/b.JPG"):
        picture(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("a horse\n")
    (tmp_path / "lost.txt").write_text("a cat")
    assert captions_of(tmp_path) == [("a.png", "a horse"), ("in/b.JPG", "a horse"), ("lost.txt", "")]
    assert unread(tmp_path, ["a.png", "lost.txt"]) == (["lost.txt (not there)"], ["of a.png"])


def test_a_text_file_is_found_in_upper_or_lower_case_and_serves_every_picture_of_its_name(tmp_path):
    for name in ("Horse.PNG", "cat.png", "cat.jpg", "Cat.png", "bare.png"):
        picture(tmp_path / name)
    for name, text in {"horse.txt": "a horse", "cat.TXT": "a cat", "Cat.txt": "a big cat"}.items():
        (tmp_path / name).write_text(text)
    wanted = {"Horse.PNG": "a horse", "cat.png": "a cat", "cat.jpg": "a cat", "Cat.png": "a big cat", "bare.png": ""}
    assert dict(captions_of(tmp_path)) == wanted


def test_a_text_file_that_is_a_link_out_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("a secret")
    for name in ("a", "b", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "a.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "b.txt").write_text("a cat")
    (tmp_path / "in" / "c.txt").symlink_to(tmp_path / "in" / "c.txt")  # to itself
    assert captions_of(tmp_path / "in") == [("a.png", ""), ("b.png", "a cat"), ("c.png", "")]


def test_a_licence_beside_a_table_is_no_caption(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "LICENSE.txt").write_text("free")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a horse"}')
    assert captions_of(tmp_path) == [("a.png", "a horse")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no captions: give it metadata.jsonl, metadata.csv or a .txt file beside each picture"),
        ({"a.txt": "a horse"}, "has no captions"),
        ({"metadata.jsonl": ""}, "has no captions"),
        ({"metadata.jsonl": '{"file_name": "a.png", "text": "x"}\n{"file'}, "jsonl: entry 2 has no file_name and text"),
        ({"metadata.jsonl": '{"file_name": "a.png"}'}, "jsonl: entry 1 has no file_name and text"),
        ({"metadata.jsonl": '{"file_name": 3, "text": "x"}'}, "jsonl: entry 1 has no file_name and text"),
        ({"metadata.csv": "picture,caption\na.png,a horse"}, "csv: entry 1 has no file_name and text"),
        (
            {"metadata.csv": "file_name,text\na.png,x", "metadata.jsonl": '{"file_name": "a.png", "text": "x"}'},
            r"captions twice, in metadata.jsonl and in metadata.csv: keep one of them",
        ),
        ({"metadata.csv": b"file_name,text\na.png,\xff\xfe"}, "metadata.csv is not UTF-8: save it as UTF-8"),
    ],
)
def test_captions_that_are_not_there_or_not_readable(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        folder.captioned(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no folder .*nowhere"):
        folder.captioned(tmp_path / "nowhere")


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1", "P", "I;16"])
@pytest.mark.parametrize("size", [(20, 20), (60, 20), (7, 200), (1, 1)])
def test_every_picture_becomes_a_square_in_colour(tmp_path, mode, size):
    picture(tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png"), size, (255, 255, 255), mode)
    pictures, _ = read(tmp_path, [file.name for file in tmp_path.iterdir()])
    assert pictures.shape == (1, 16, 16, 3) and pictures.dtype == np.uint8
    assert pictures.min() > 240 or mode == "I;16"  # Pillow's own conversion to it does not scale


@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint16), ("a.tif", np.uint16), ("a.pgm", np.int32)])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, name, dtype):
    grey = np.arange(256).reshape(16, 16)
    Image.fromarray((grey * 257).astype(dtype)).save(tmp_path / name)
    (seen,), _ = read(tmp_path, [name])
    assert (seen == grey[..., None]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_thirty_two_bits_have_no_known_range(tmp_path, dtype):
    Image.fromarray(np.full((20, 20), 70_000, dtype)).save(tmp_path / "a.tif")
    bad, _ = unread(tmp_path, ["a.tif"])
    assert bad == ["a.tif (32 bits for each pixel: save it with 8 or 16)"]


def test_a_large_picture_within_the_limit_is_read_in_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # above this Pillow warns, above twice this it refuses
    picture(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, ["a.png"])


def test_the_middle_is_cut_out_or_the_sides_are_filled(tmp_path):
    wide = Image.new("RGB", (30, 10), "blue")
    wide.paste("red", (10, 0, 20, 10))
    wide.save(tmp_path / "a.png")
    (cut,), _ = read(tmp_path, ["a.png"])
    assert (cut[:, 2:-2] == (255, 0, 0)).all()
    (whole,), _ = read(tmp_path, ["a.png"], pad="yellow")
    assert (whole[0] == (255, 255, 0)).all() and (whole[-1] == (255, 255, 0)).all()
    assert (whole[8, 0] == (0, 0, 255)).all() and (whole[8, 8] == (255, 0, 0)).all()


def test_behind_what_is_transparent_lies_white_or_the_colour_of_the_padding(tmp_path):
    Image.new("RGBA", (20, 20), (200, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read(tmp_path, ["a.png"])[0] == 255).all()
    assert (read(tmp_path, ["a.png"], pad="#102030")[0] == (16, 32, 48)).all()


def test_a_picture_that_was_turned_by_its_camera_stands_upright(tmp_path):
    image = Image.new("RGB", (20, 20), "red")
    image.paste("blue", (0, 0, 20, 10))
    turned = image.getexif()
    turned[274] = 3  # upside down
    image.save(tmp_path / "a.jpg", exif=turned, quality=95)
    (seen,), _ = read(tmp_path, ["a.jpg"])
    assert seen[2, 8, 0] > 200 and seen[13, 8, 2] > 200


def test_of_an_animation_the_first_picture(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (seen,), _ = read(tmp_path, ["a.gif"])
    assert (seen == (255, 0, 0)).all()


def test_few_pictures_are_shifted_and_scaled(tmp_path):
    dot = Image.new("RGB", (60, 60), "white")
    dot.paste("black", (20, 20, 40, 40))
    dot.save(tmp_path / "a.png")
    pictures, captions = read(tmp_path, ["a.png"], size=30, times=50)
    assert len(pictures) == len(captions) == 50 and len({x.tobytes() for x in pictures}) > 40
    dark = (pictures < 128).all(-1)
    areas, places = dark.sum((1, 2)), np.array([np.argwhere(x).mean(0) for x in dark])
    assert areas[0] == 100 and 70 < areas.min() < 95 and 105 < areas.max() < 135
    assert 1.5 < np.abs(places - 14.5).max() < 3.5  # pixels of 30
    again, _ = read(tmp_path, ["a.png"], size=30, times=50)
    assert np.array_equal(pictures, again)


def test_mirrored_only_where_asked(tmp_path):
    image = Image.new("RGB", (40, 40), "white")
    image.paste("black", (0, 0, 10, 40))
    image.save(tmp_path / "a.png")

    def sides(mirror):
        pictures, _ = read(tmp_path, ["a.png"], times=30, mirror=mirror)
        return {bool(x[8, 1, 0] < x[8, 14, 0]) for x in pictures}

    assert sides(False) == {True} and sides(True) == {True, False}


# ---------------------------------------------------------------- what cannot be read


def test_whatever_cannot_be_read_is_left_out(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture")
    picture(tmp_path / "whole.png", (50, 50))
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    turned, odd = b"\1\x12\0\3\0\0\0\1\0\6\0\0", b"\1\x18\0\5\0\0\0\1\0\0\0\x26"  # odd: a fraction for a whole number
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + turned + odd + b"\0\0\0\0\0\0\0H\0\0\0\1"  # Pillow raises struct.error
    Image.new("RGB", (20, 20)).save(tmp_path / "exif.jpg", exif=exif)
    long = ["x" * 300, "x" * 300 + "/a.png"]
    bad, captions = unread(tmp_path, ["good.png", "text.png", "half.png", "exif.jpg", *long, "nul\0.png"])
    assert captions == ["of good.png"]
    assert bad == [
        *(f"{name} (not a picture, or damaged)" for name in ("text.png", "half.png", "exif.jpg")),
        f"{long[0]} (not there)",
        "a.png (not a picture, or damaged)",
        "nul\0.png (embedded null byte)",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../other/a.png", "outside the folder"),
        ("link.png", "outside the folder"),
        ("A.PNG", "not there, but a.png is"),
        ("huge.png", "too many"),
        ("folder.png", "not there"),
        ("caption.TXT", "not there"),
        ("loop.png", "not there"),
    ],
)
def test_the_reason(tmp_path, name, reason):
    inside = tmp_path / "inside"
    picture(tmp_path / "other" / "a.png")
    picture(inside / "a.png")
    (inside / "link.png").symlink_to(tmp_path / "other" / "a.png")
    (inside / "folder.png").mkdir()
    (inside / "caption.TXT").touch()
    (inside / "loop.png").symlink_to(inside / "loop.png")
    if name == "huge.png":
        Image.new("1", (20_000, 20_000)).save(inside / name)
    (bad,), captions = unread(inside, [name])
    assert reason in bad and not captions


def test_a_picture_without_a_caption(tmp_path):
    picture(tmp_path / "a.png")
    assert folder.read([(tmp_path / "a.png", "")], tmp_path, 16)[2] == ["a.png (no caption in the folder)"]
