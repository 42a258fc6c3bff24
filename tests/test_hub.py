"""Where a model lies, and one line that says what to do where it does not."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from damage import resave
from diffusers import UNet2DConditionModel
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from sdlearn import parts
from sdlearn.parts import files
from sdlearn.tools import hub


@pytest.fixture
def trained(copy):
    """A copy that `sdlearn-train` made: it leaves the folder of its checkpoints."""
    (copy / "checkpoints").mkdir()
    return copy


PARTS = ["tokenizer", "text_encoder", "vae", "unet", "scheduler"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_of_somebodys_model_is_named_and_nothing_is_trained_over_it(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(FileNotFoundError, match=rf"/{part}\S* is missing: copy it again from where") as error:
        hub.load(copy)
    assert "sdlearn-train" not in str(error.value) and "remove" not in str(error.value)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_of_a_model_of_ones_own_is_trained_again(trained, part):
    shutil.rmtree(trained / part)
    how = {"vae": "its training is not finished: go on with", "unet": "its training is not finished: go on with"}
    how |= {"scheduler": "copy .*/scheduler"}
    how = how.get(part, "remove .*/clip and make it again with `sdlearn-train all --out .* --resume`")
    with pytest.raises(FileNotFoundError, match=rf"{part}.* is missing: {how}"):
        hub.load(trained)


def test_a_training_that_is_not_finished_is_told_to_go_on(trained):
    for part in ("unet", "scheduler"):
        shutil.rmtree(trained / part)
    (trained / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match="index.json is missing: its training is not finished: go on with `sd"):
        hub.load(trained)


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_list_of_parts_that_says_nothing_is_named(trained, content):
    (trained / "model_index.json").unlink()
    (trained / "model_index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model_index.json is damaged .*: copy \S*/model_index.json from"):
        hub.load(trained)


def test_a_folder_named_like_the_hubs_cache_is_not_taken_for_it(tmp_path, copy):
    mine = tmp_path / "runs" / "snapshots" / "step-1000"
    shutil.copytree(copy, mine, symlinks=True)
    (mine / "vae" / parts.WEIGHTS["vae"]).unlink()
    with pytest.raises(FileNotFoundError, match="vae.* is missing: copy it again from where this directory came from"):
        hub.load(mine)


@pytest.mark.parametrize("made", [True, False], ids=["runs is there", "no runs yet"])
def test_a_path_is_not_taken_for_a_name_on_the_hub(cache, monkeypatch, tmp_path, made):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "download", None)  # it does not come so far
    (tmp_path / "models").mkdir()
    (tmp_path / "runs").mkdir() if made else None
    with pytest.raises(
        FileNotFoundError, match='no model in "runs/mine" yet: `sdlearn-train all --out runs/mine` trains'
    ):
        hub.load("runs/mine")
    for name in ("models/mine", "./models/mine", "../models", "a/b/c", "~/mine"):
        with pytest.raises(FileNotFoundError, match='give "mini", a directory, or a hub name'):
            hub.load(name)


def test_a_tilde_is_ones_home(monkeypatch, copy):
    monkeypatch.setenv("HOME", str(copy.parent))
    assert hub.find("~/copy") == copy


def test_a_single_file_is_told_how_to_become_a_directory(tmp_path):
    file = tmp_path / "v1-4.safetensors"
    file.touch()
    with pytest.raises(ValueError, match=r"is a single file: .*from_single_file\(.*\).save_pretrained\(DIRECTORY\)"):
        hub.load(file)


@pytest.mark.parametrize("part", ["judge", "fast"])
def test_what_no_pipeline_needs_is_made_again_by_its_own_training(tmp_path, part):
    assert f"make it again with `sdlearn-train {part} --out" in files.remedy(tmp_path, part)


def test_the_shipped_model_is_got_back_from_git():
    assert "git checkout -- sdlearn/mini" in files.remedy(parts.MINI, "vae")


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/directory"])
def test_an_unknown_model_says_what_a_model_is(name):
    with pytest.raises(FileNotFoundError, match='give "mini", a directory, or a hub name'):
        hub.load(name)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the hub's, and no network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def put_into(cache, name, copy, half=False):
    """Lay a model into the cache in the hub's own way."""
    snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / ("0" * 40)
    shutil.copytree(copy, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    for part, file in parts.WEIGHTS.items() if half else ():
        weights = snapshot / part / file
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    return snapshot


def test_without_a_network_and_a_cache_it_says_at_once_what_to_do(cache, capfd):
    with pytest.raises(FileNotFoundError, match='cannot be fetched: .*the network.*"mini" needs no network'):
        hub.load(hub.V1_4)
    assert "Retrying" not in capfd.readouterr().err


@pytest.mark.parametrize("half", [False, True], ids=["float32", "fp16 variant"])
def test_without_a_network_what_was_fetched_before_is_found(cache, copy, half):
    snapshot = put_into(cache, "somebody/model", copy, half)
    assert hub.find("somebody/model") == snapshot
    found, own = hub.load("somebody/model", "cpu"), parts.load("mini", "cpu")
    torch.testing.assert_close(found.unet.state_dict(), own.unet.state_dict(), rtol=0, atol=0)
    assert found.unet.dtype == torch.float32


@pytest.fixture
def on_the_hub(cache, monkeypatch, copy):
    """A hub that has one model, as in a directory; what is fetched from it is noted, and lies in another."""

    def listing(_):
        return [path.relative_to(copy).as_posix() for path in sorted(copy.rglob("*")) if path.is_file()]

    def fetch(name, allow_patterns):
        asked.extend(allow_patterns)
        for file in filter_repo_objects(listing(name), allow_patterns=allow_patterns):
            (cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(copy / file, cache / file)
        return cache

    asked = []
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    monkeypatch.setattr(hub, "list_repo_files", listing)
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    return asked


def test_what_is_fetched_is_only_what_is_needed(on_the_hub, copy):
    for part, file in parts.WEIGHTS.items():
        for variant in ("fp16", "non_ema"):
            (copy / part / file.replace(".", f".{variant}.")).symlink_to(parts.MINI / part / file)
    hub.find("somebody/model", torch.float16)
    assert [file for file in on_the_hub if "*" in file] == ["tokenizer/*", "scheduler/*"]
    assert [file for file in on_the_hub if file.endswith(".safetensors")] == [
        *("text_encoder/model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"),
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("form", [{"variant": "fp16"}, {"max_shard_size": "4MB"}], ids=str)
def test_a_model_that_is_there_in_one_form_only_is_fetched_in_it(on_the_hub, copy, form, dtype):
    resave(copy, "unet", **form)
    found = hub.find("somebody/model", dtype)
    own, again = (parts.load_part(UNet2DConditionModel, root, "unet") for root in (parts.MINI, found))
    torch.testing.assert_close(again.state_dict(), own.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda unet: [file.unlink() for file in unet.glob("*.safetensors")], "no weights of unet as safetensors"),
        (lambda unet: [file.rename(file.with_suffix(".bin")) for file in unet.glob("*.s*")], "no weights of unet as"),
        (lambda unet: (unet.parent / "model_index.json").unlink(), "no model_index.json"),
    ],
    ids=["no weights", "pickles", "adapter"],
)
def test_what_the_hub_has_not_is_not_fetched_again_and_again(on_the_hub, copy, damage, said):
    damage(copy / "unet")
    with pytest.raises(FileNotFoundError, match=f'"somebody/model" has {said}.*: take another, such as CompVis'):
        hub.find("somebody/model")
    assert on_the_hub == []  # no gigabyte was asked for


def refused(kind):
    def listing(*_, **__):
        raise kind("401", response=SimpleNamespace(headers={}, request=None))

    return listing


@pytest.mark.parametrize(
    "kind, said",
    [
        (GatedRepoError, "wants its licence accepted: .* `hf auth login`"),
        (RepositoryNotFoundError, '"somebody/nothing" is not on the hub: check the name; .*bk-sdm-tiny'),
    ],
)
def test_a_hub_that_refuses(cache, monkeypatch, kind, said):
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    monkeypatch.setattr(hub, "list_repo_files", refused(kind))
    with pytest.raises(FileNotFoundError, match=said):
        hub.load("somebody/nothing")


@pytest.mark.parametrize("kind", ["StableDiffusionXLPipeline", "FluxPipeline"])
def test_a_model_of_another_kind_is_named(copy, kind):
    file = copy / "model_index.json"
    index = json.loads(file.read_text())
    file.unlink()
    file.write_text(json.dumps(index | {"_class_name": kind}))
    with pytest.raises(ValueError, match=f"is a {kind}: the course draws with Stable Diffusion 1"):
        hub.load(copy)


def test_pickles_are_not_opened(copy):
    (copy / "unet" / parts.WEIGHTS["unet"]).rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="unet has its weights only as a pickle.*: get safetensors"):
        hub.load(copy)


def test_a_file_missing_in_the_cache_says_how_to_fetch_it_again(cache, copy):
    snapshot = put_into(cache, "somebody/model", copy)
    (snapshot / "vae" / parts.WEIGHTS["vae"]).unlink()
    with pytest.raises(
        FileNotFoundError, match="vae.* is missing: give the hub name once more where there is a network"
    ):
        hub.load("somebody/model")


def test_of_a_damaged_file_in_the_cache_no_more_than_that_file_is_to_be_removed(cache, copy):
    snapshot = put_into(cache, "somebody/model", copy)
    weights = snapshot / "vae" / parts.WEIGHTS["vae"]
    blob = snapshot.parent.parent / "blobs" / "1234"
    blob.parent.mkdir()
    blob.write_bytes(weights.read_bytes()[:-100])
    weights.unlink()
    weights.symlink_to(blob)
    with pytest.raises(ValueError, match=f"vae.* is damaged .*: remove {blob} and give the hub name once more"):
        hub.load("somebody/model")
