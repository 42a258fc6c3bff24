"""The judge, which reads pictures."""

import pytest
import torch

from sdlearn import scenes
from sdlearn.judging import Judge, answers, degrade, judge_loss, rates
from sdlearn.parts import load_judge
from sdlearn.scenes import TEST, VALIDATION, WORDS
from sdlearn.training import fit


@pytest.fixture(scope="module")
def judge():
    return load_judge()


@pytest.mark.parametrize("held_out", [(), VALIDATION, TEST])
def test_the_judge_reads_real_scenes_in_all_attributes(judge, held_out):
    pictures, _, attributes = scenes.sample(512, seed=777, held_out=held_out)
    found = rates(judge, scenes.to_tensor(pictures), attributes)
    assert found["all"] >= 0.99
    assert set(found) == {*WORDS, "all"}


def test_the_judge_sees_what_is_wrong(judge):
    pictures, _, attributes = scenes.sample(64, seed=778)
    other = [scene | {"colour": WORDS["colour"][WORDS["colour"].index(scene["colour"]) - 1]} for scene in attributes]
    found = rates(judge, scenes.to_tensor(pictures), other)
    assert found["colour"] < 0.05
    assert found["all"] < 0.05
    assert found["mount"] > 0.95


def test_degraded_pictures_keep_shape_and_range_and_follow_the_generator():
    pictures = scenes.to_tensor(scenes.sample(8, seed=0)[0])
    one, same = (degrade(pictures, torch.Generator().manual_seed(1)) for _ in range(2))
    assert one.shape == pictures.shape
    assert one.abs().max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, pictures)


def test_the_judge_learns_a_tiny_batch_by_heart():
    torch.manual_seed(0)
    judge = Judge()
    pictures, _, attributes = scenes.sample(8, seed=0)
    x, y = scenes.to_tensor(pictures), answers(attributes)
    fit(judge, judge_loss, lambda generator: (x, y), steps=60, lr=2e-3, warmup=5)
    assert rates(judge, x, attributes)["all"] == 1


def test_a_truncated_judge_is_named(copy):
    file = copy / "judge" / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"^\S*/judge/model.safetensors is damaged"):
        load_judge(copy)


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="judge.* is missing: .*make it again with `sdlearn-train judge --out"):
        load_judge(tmp_path)
