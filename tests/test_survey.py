"""Variety, novelty, likeness: what they must say where the answer is known."""

import json

import pytest
import torch
from fastcore.script import CliError
from torch.nn.functional import normalize

from sdlearn import measure, scenes, survey, train


def cloud(n, mean=0.0, seed=0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1, 2, 0.5, 1, 1, 3]) + mean


def test_variety_is_nothing_for_twins_and_one_for_right_angles():
    assert survey.variety(torch.eye(5)[:1].expand(4, -1)) == pytest.approx(0)
    assert survey.variety(torch.eye(5)) == pytest.approx(1)


def test_what_is_known_has_no_distance():
    points = normalize(cloud(40))
    assert survey.to_nearest(points[:10], points) == pytest.approx(0, abs=1e-6)
    assert survey.to_nearest(points[:10], points[10:]) > 0.001


def test_the_frechet_distance_of_normal_distributions_in_one_dimension():
    """|m1 - m2|^2 + (s1 - s2)^2, and covariances that do not commute add no imaginary part."""
    one = torch.tensor([[-1.0], [1.0]]) * 2**-0.5  # mean 0, deviation 1
    assert survey.frechet(one, 3 * one + 5) == pytest.approx(25 + 4, rel=1e-6)


def test_the_frechet_distance_is_nothing_to_itself_and_knows_no_order():
    a, b = cloud(500), cloud(500, mean=0.5, seed=1) @ torch.linalg.qr(cloud(6, seed=2))[0]
    assert survey.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert survey.frechet(a, b) == pytest.approx(survey.frechet(b, a), rel=1e-6) != pytest.approx(0, abs=0.5)


def test_real_scenes_of_one_prompt_show_it_and_differ():
    pictures = survey.scenes_of(survey.PROMPTS[0], 16, seed=3)
    wanted = [measure.named(survey.PROMPTS[0])] * 16
    assert measure.shares(measure.load_judge(), pictures, wanted)["all"] > 0.9
    assert len({x.numpy().tobytes() for x in pictures}) == 16


@pytest.mark.parametrize("prompt", survey.PROMPTS)
def test_the_prompts_name_every_attribute(prompt):
    assert set(measure.named(prompt)) == set(scenes.WORDS)


def test_the_command_prints_and_writes_every_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "SCENES", 64)
    train.training_scenes.cache_clear()
    monkeypatch.setattr(survey, "PROMPTS", survey.PROMPTS[:1])
    monkeypatch.setattr(survey, "GUIDANCE", (0.0, 4.0))
    monkeypatch.setattr(survey, "STEPS", (2,))
    survey.main(n=2, json=tmp_path / "figures.json")
    train.training_scenes.cache_clear()
    figures, out = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    assert set(figures["Frechet distance to real"]) == {"real", "through the VAE", "painted"}
    assert {"guidance 0", "guidance 4", "2 steps", "15 steps of DPM-Solver++"} <= set(figures)
    assert all(name in out for name in figures)


def test_nonsense_is_refused():
    with pytest.raises(CliError, match="--n must be 2 or more; got 1"):
        survey.main(n=1)
    with pytest.raises(CliError, match='no model "nobody"'):
        survey.main(model="nobody")
