"""Variety, novelty, likeness: what they must say where the answer is known."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from benchmarks import survey
from fastcore.script import CliError
from torch.nn.functional import normalize

from sdlearn import judging, parts, scenes
from sdlearn.tools import sources


@pytest.mark.parametrize("name", ["cost", "emoji", "judges", "loop", "measured", "page", "survey", "widgets"])
def test_every_benchmark_can_be_imported(name):
    import_module(f"benchmarks.{name}")


def cloud(n, mean=0.0, seed=0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1, 2, 0.5, 1, 1, 3]) + mean


def test_variety_is_nothing_for_twins_and_one_for_right_angles():
    assert survey.variety(torch.eye(5)[:1].expand(4, -1)) == pytest.approx(0)
    assert survey.variety(torch.eye(5)) == pytest.approx(1)


def test_what_is_known_has_no_distance():
    points = normalize(cloud(40))
    assert survey.to_nearest(points[:10], points) == pytest.approx(0, abs=1e-6)
    assert survey.to_nearest(points[:10], points[10:]) > 0.001


def test_the_kernel_distance_of_single_points_is_known():
    """(cos + 1)^3 is 8 within a heap of twins, 1 between heaps at right angles, 0 between opposite ones."""
    heap = torch.eye(6)[:1].expand(20, -1)
    assert survey.kernel_distance(heap, heap) == pytest.approx((0, 0), abs=1e-5)
    assert survey.kernel_distance(heap, torch.eye(6)[1:2].expand(20, -1)) == pytest.approx((8 + 8 - 2 * 1, 0), abs=1e-5)
    assert survey.kernel_distance(heap, -heap) == pytest.approx((8 + 8 - 2 * 0, 0), abs=1e-5)


@pytest.mark.parametrize("n", [60, 600])
def test_the_kernel_distance_is_nothing_but_chance_within_one_distribution_and_more_to_another(n):
    one, same, other = (normalize(cloud(n, mean, seed)) for mean, seed in ((0, 0), (0, 1), (0.8, 2)))
    distance, chance = survey.kernel_distance(one, same)
    assert abs(distance) < 2 * chance
    assert survey.kernel_distance(one, other)[0] > 3 * chance


def test_the_kernel_distance_leaves_chance_to_others_and_is_the_same_again():
    a, b = normalize(cloud(50)), normalize(cloud(50, seed=1))
    torch.manual_seed(5)
    first, after = survey.kernel_distance(a, b), torch.rand(1)
    torch.manual_seed(6)
    assert survey.kernel_distance(a, b) == first
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)


def test_real_scenes_of_one_prompt_show_it_and_differ():
    pictures = survey.scenes_of(survey.PROMPTS[0], 16, seed=3)
    wanted = [judging.named(survey.PROMPTS[0])] * 16
    assert judging.rates(parts.load_judge(), pictures, wanted)["all"] > 0.9
    assert len({x.numpy().tobytes() for x in pictures}) == 16


@pytest.mark.parametrize("prompt", survey.PROMPTS)
def test_the_prompts_name_every_attribute(prompt):
    assert set(judging.named(prompt)) == set(scenes.WORDS)


@pytest.mark.slow
def test_the_command_prints_and_writes_every_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "TRAINING", 64)
    monkeypatch.setattr(survey, "PROMPTS", survey.PROMPTS[:1])
    monkeypatch.setattr(survey, "ALIKE", 4)
    monkeypatch.setattr(survey, "GUIDANCE", (0.0, 4.0))
    monkeypatch.setattr(survey, "STEPS", (2,))
    survey.main(n=2, json=tmp_path / "figures.json")
    figures, out = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    assert set(figures["kernel distance to real"]) == {"real", "through the VAE", "generated"}
    settings = {"guidance 0", "guidance 4", "2 steps", "15 of DPM-Solver++"}
    rows = {f"{setting}, {kind}" for setting in settings for kind in ("seen", "validation")}
    assert rows <= set(figures) and all({*scenes.WORDS, "all", "low", "high"} >= set(figures[row]) for row in rows)
    assert all(name in out for name in figures)


def test_the_closest_pairs_are_found_and_shown_over_one_another():
    pictures = scenes.sample(40, seed=3)[0]
    generated = scenes.to_tensor(pictures[[7, 30]])  # two that were learned by heart
    pairs = survey.closest(survey.flat(pictures[[7, 30]]), survey.flat(pictures), 2)
    assert {(one, other) for _, one, other in pairs} == {(0, 7), (1, 30)}
    shown, labels = survey.tail(parts.load_clip(), generated, pictures, k=2)
    assert labels == ["pixels 0.000"] * 2 + ["training"] * 2 + ["CLIP 0.000"] * 2 + ["training"] * 2
    assert shown[0] == shown[2] and shown[5] == shown[7]
    one, other = survey.flat(np.zeros((1, 8, 8, 3), np.uint8)), survey.flat(np.full((1, 8, 8, 3), 51, np.uint8))
    assert survey.closest(one, other, 1)[0][0] == pytest.approx(0.2)


def test_nonsense_is_refused():
    with pytest.raises(CliError, match="--n must be 2 or more; got 1"):
        survey.main(n=1)
    with pytest.raises(CliError, match='no model "nobody"'):
        survey.main(model="nobody")
