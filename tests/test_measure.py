"""What the judge saw, counted."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from fastcore.script import CliError

from sdlearn import judging, parts, scenes
from sdlearn.clip import retrieval, tokenize
from sdlearn.judging import Judge
from sdlearn.parts import load_judge
from sdlearn.tools import hub, measure


def test_only_what_the_caption_names_is_judged():
    assert judging.named("an astronaut riding a horse") == {
        "subject": "astronaut",
        "action": "riding",
        "mount": "horse",
    }
    assert judging.named("a cat beside a red turtle in the snow") == {
        "subject": "cat",
        "action": "standing next to",
        "colour": "red",
        "mount": "turtle",
        "place": "in the snow",
    }


def test_shares_count_only_what_was_asked():
    pictures, _, attributes = scenes.sample(2, seed=1)
    wanted = [{"mount": attributes[0]["mount"]}, {"subject": "nobody"}]
    rates = judging.rates(load_judge(), scenes.to_tensor(pictures), wanted)
    assert rates == {"mount": 1.0, "subject": 0.0, "all": 0.5}


def test_without_a_judge_clip_is_asked_once(tmp_path):
    """ "found" is what `retrieval` says of the same pictures."""
    clip, model = parts.load_clip(), parts.load("mini", "cpu")
    pictures, captions, _ = scenes.sample(12, seed=5)
    source = SimpleNamespace(training=(pictures, captions), held_out=(pictures[:1], captions[:1]))
    found = measure.own_report(model, parts.MINI, source, n=99, seed=0, steps=1)
    assert {*found} == {"real, seen", "generated, seen"}
    right = retrieval(clip, scenes.to_tensor(pictures), tokenize(model.tokenizer, captions))
    assert found["real, seen"]["found"] == pytest.approx(100 * right) and right > 0


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_the_figures(tmp_path, capsys):
    file = tmp_path / "figures.json"
    measure.main(n=8, steps=2, json=file)
    out = capsys.readouterr().out
    figures = json.loads(file.read_text())
    kinds = {"real, seen", "through the VAE, validation", "generated, seen", "generated, validation", "clip"}
    assert kinds <= set(figures)
    assert "generated, validation" in out
    assert "CLIP finds the caption, seen" in out


@pytest.mark.slow
def test_the_command_measures_the_u_net_of_one_step(tmp_path):
    """One step with guidance of the noise predictor gives no picture."""
    few, many = tmp_path / "few.json", tmp_path / "many.json"
    measure.main(n=16, fast=1, json=few)
    measure.main(n=16, steps=1, json=many)
    few, many = (json.loads(file.read_text()) for file in (few, many))
    assert few["generated, seen"]["all"] > 0.75 and many["generated, seen"]["all"] < 0.25
    assert few["real, seen"] == many["real, seen"]


def test_a_model_without_a_u_net_of_few_steps_says_how_to_make_one(copy):
    shutil.rmtree(copy / "fast")
    with pytest.raises(CliError, match="sdlearn-train fast"):
        measure.main(model=str(copy), n=2, fast=1)


def test_every_judge_reads_the_same_pictures():
    shown, sees = ([], []), load_judge()
    judges = [lambda pictures, seen=seen: seen.append(pictures) or sees(pictures) for seen in shown]
    one, other = measure.report(parts.load("mini", "cpu"), judges, n=4, seed=0, steps=2)
    assert one == other and one["real, seen"]["all"] == 1
    assert len(one) == len(shown[0]) == 7 and all(map(torch.equal, *shown))


def test_each_judge_gives_its_own_figures():
    found = measure.report(parts.load("mini", "cpu"), [load_judge(), Judge()], n=4, seed=0, steps=1)
    assert found[0]["real, seen"]["all"] == 1 and found[1]["real, seen"]["all"] < 1


def test_a_model_of_large_pictures_is_refused_before_it_paints():
    unet = SimpleNamespace(config=SimpleNamespace(sample_size=64))
    vae = SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512)))
    with pytest.raises(ValueError, match="pictures are 512 pixels wide: the judge knows only scenes of the course"):
        measure.report(parts.Parts(None, None, vae, unet, None), [], n=4, seed=0)


def test_the_famous_prompt_is_asked_for_in_every_style_colour_and_place():
    captions = measure.famous()
    assert len(captions) == len({*captions}) == 3 * 5 * 5
    assert "a photograph of an astronaut riding a red horse on the moon" in captions
    assert all(len(judging.named(caption)) == 6 for caption in captions)


def test_of_equal_captions_the_first_counts():
    assert measure.first_of_each(["b", "a", "b", "c", "a"]) == [0, 1, 3]


def test_a_model_is_looked_for_once(monkeypatch):
    found = []
    monkeypatch.setattr(hub, "find", lambda name, *_: found.append(name) or parts.MINI)
    monkeypatch.setattr(measure, "report", lambda *_, **__: [{}])
    monkeypatch.setattr(measure, "clip_retrieval", lambda *_: {})
    measure.main(model="somebody/mini")
    assert found == ["somebody/mini"]


def test_a_missing_judge_is_refused(tmp_path):
    with pytest.raises(CliError, match="make it again with"):
        measure.main(n=8, steps=1, judge=tmp_path)


def test_nonsense_is_refused():
    with pytest.raises(CliError, match="--n and --steps must be 1 or more"):
        measure.main(n=0)
    with pytest.raises(CliError, match="--fast is a number of steps; got -1"):
        measure.main(fast=-1)


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(CliError, match='no model "nobody"'):
        measure.main(model="nobody")


def test_a_folder_for_the_figures_that_is_not_there_is_named_before_anything_is_painted(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "report", None)  # it does not come so far
    with pytest.raises(CliError, match="cannot write .*: there is no folder .*nowhere"):
        measure.main(json=tmp_path / "nowhere" / "figures.json")
