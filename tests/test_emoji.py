"""The script that makes a folder of emoji, and the benchmark that measures a model trained on it."""

import json
import sys
import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import emoji

from sdlearn.tools.folder import captioned

SCRIPT = Path(__file__).parents[1] / "docs" / "emoji.py"
PACKS = ("fluent-emoji-flat", "noto", "twemoji", "openmoji")


@pytest.fixture
def script(monkeypatch):
    """`docs/emoji.py`, with a renderer that hands back what it was to draw."""
    drawn = SimpleNamespace(svg_to_bytes=lambda svg_string, width, height: f"{width} {height} {svg_string}".encode())
    monkeypatch.setitem(sys.modules, "resvg_py", drawn)
    spec = spec_from_file_location("emoji_script", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pack(archive, files):
    with tarfile.open(archive, "w:gz") as packed:
        for name, content in files.items():
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            packed.addfile(entry, BytesIO(data))


@pytest.fixture
def archives(tmp_path):
    """Four sets of a horse, a flag and a hand's finger; only three of them have a moon."""
    for name in PACKS:
        names = {"1f434": "horse", "1f3f3": "flag", "1f3fb": "light", "1f319": "moon"}
        if name == "noto":
            del names["1f319"]
        icons = {x: {"body": f"<{x} {name}/>"} for x in names.values()}
        drawn = {"icons.json": {"icons": icons, "width": 32, "height": 36}, "chars.json": names}
        pack(tmp_path / f"iconify-json-{name}-1.tgz", drawn)
    listed = [
        {"hexcode": "1F434", "label": "horse face", "group": 3},
        {"hexcode": "1F3F3-FE0F", "label": "white flag", "group": 9},
        {"hexcode": "1F3FB", "label": "light skin tone"},
        {"hexcode": "1F319", "label": "crescent moon", "group": 5},
    ]
    pack(tmp_path / "emojibase-data-1.tgz", {"en/data.json": listed})
    return tmp_path


def test_the_folder_has_what_all_four_designers_drew_without_flags_and_parts(script, archives):
    script.main(archives=archives, out=archives / "set", size=48)
    found = captioned(archives / "set")
    designers = ("fluent", "noto", "twemoji", "openmoji")
    assert [caption for _, caption in found] == [f"horse face, drawn by {designer}" for designer in designers]
    for (file, _), name in zip(found, PACKS, strict=True):
        width, height, svg = file.read_text().split(" ", 2)
        assert (width, height) == ("48", "48")
        assert 'viewBox="0 0 32 36"' in svg
        assert f"<horse {name}/>" in svg


def test_a_folder_that_is_there_is_left_alone(script, archives):
    (archives / "set").mkdir()
    with pytest.raises(FileExistsError):
        script.main(archives=archives, out=archives / "set")


def test_a_caption_names_a_thing_and_its_designer():
    assert emoji.halves("horse, drawn by noto") == ("horse", "noto")
    assert emoji.halves("a hand, drawn by a child, drawn by noto") == ("a hand, drawn by a child", "noto")


def test_the_rank_counts_those_before_the_right_one():
    cosines = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1], [0.7, 0.7, 0.7]])
    assert emoji.rank(cosines, torch.tensor([2, 0, 1])).tolist() == [1, 0, 0]


def test_the_questions_tell_the_designers_from_the_things():
    """Three things by two designers, of one grey each; the classifier sees the designer, "CLIP" the thing."""
    greys = torch.tensor([[0, 10], [100, 110], [200, 210]], dtype=torch.uint8)
    drawings = greys[..., None, None, None].expand(-1, -1, 3, 4, 4)

    def designer_of(shown):  # odd tens belong to the second
        return torch.eye(2)[((shown.mean((1, 2, 3)) + 1) * 12.75).round().long() % 2]

    def thing_of(shown, designer):
        assert designer.tolist() == [0, 1, 1]
        return torch.eye(3)[((shown.mean((1, 2, 3)) + 1) * 127.5 / 100).round().long()]

    thing, designer = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])
    right = drawings[thing, designer] / 127.5 - 1
    assert emoji.questions(designer_of, thing_of, right, thing, designer, drawings) == [100, 100, 100, 100]
    others = drawings[thing, 1 - designer] / 127.5 - 1
    assert emoji.questions(designer_of, thing_of, others, thing, designer, drawings) == [0, 100, 100, 0]
    exchanged = drawings[thing.flip(0), designer] / 127.5 - 1
    found = emoji.questions(designer_of, thing_of, exchanged, thing, designer, drawings)
    assert found[1:] == pytest.approx([100 / 3, 100, 100 / 3])


def test_the_classifier_learns_to_tell_two_colours_apart():
    g = torch.Generator().manual_seed(0)
    right = torch.randint(2, (64,), generator=g)
    pictures = torch.randint(100, (64, 16, 16, 3), generator=g, dtype=torch.uint8)
    pictures[..., 0] += (100 * right[:, None, None]).to(torch.uint8)
    net = emoji.classifier(pictures.numpy(), right, classes=2, steps=20, batch=16)
    shown = pictures.permute(0, 3, 1, 2) / 127.5 - 1
    assert (net(shown).logits.argmax(1) == right).float().mean() > 0.9
