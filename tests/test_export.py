"""The graphs compute what the networks compute, hold no weights, and fit every model of the same shape."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from fastcore.script import CliError
from live_site import other_model

from sdlearn import parts
from sdlearn.clip import tokenize
from sdlearn.tools import export
from sdlearn.unet import AttentionMaps

for library in ("onnx", "onnxscript"):
    pytest.importorskip(library, reason="the graphs are not tried: install sdlearn[site]")
FILES = ["text_encoder.onnx", "unet.onnx", "vae.onnx", "graphs.json"]
TABLE = "embeddings.token_embedding.weight"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """What the command said, and where."""
    out = tmp_path_factory.mktemp("course") / "graphs"
    command = [sys.executable, "-m", "sdlearn.tools.export", "--out", out]
    return subprocess.run(command, capture_output=True, text=True), out


@pytest.fixture(scope="module")
def graphs(command):
    return command[1]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return other_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def listed(graphs):
    return json.loads((graphs / "graphs.json").read_text())


def state(model, part):
    return getattr(model, part).state_dict()


def session(graphs, folder, model, part):
    """A graph in onnxruntime, its weights packed in a file in the order that `graphs.json` tells."""
    runtime = pytest.importorskip("onnxruntime", reason="the graphs are not run: install sdlearn[site]")
    weights = [state(model, part)[name] for name, _ in listed(graphs)[part]["weights"]]
    shutil.copy(graphs / f"{part}.onnx", folder)
    (folder / export.PACKED).write_bytes(b"".join(x.float().numpy().tobytes() for x in weights))
    return runtime.InferenceSession(folder / f"{part}.onnx")


def run(session, **inputs):
    return [torch.from_numpy(x) for x in session.run(None, {name: x.numpy() for name, x in inputs.items()})]


@pytest.fixture(scope="module", params=["the shipped model", "another"])
def model(request, other):
    return parts.load(parts.MINI if request.param == "the shipped model" else other, device="cpu")


pytestmark = pytest.mark.slow
close = {"atol": 5e-5, "rtol": 1e-4}


@pytest.mark.parametrize("b", [1, 3])
def test_the_text_graph_encodes_prompts(graphs, model, tmp_path, b):
    tokens = tokenize(model.tokenizer, ["a cat riding a red horse", "", "z\N{GRINNING FACE}"][:b])
    rows = state(model, "text_encoder")[TABLE][tokens]
    (got,) = run(session(graphs, tmp_path, model, "text_encoder"), words=rows)
    torch.testing.assert_close(got, model.text_encoder(tokens).last_hidden_state, **close)


@pytest.mark.parametrize("b", [1, 2])
def test_the_unets_graph_predicts_the_noise_and_tells_where_it_looked(graphs, model, tmp_path, b):
    shape = model.text_encoder.config
    latents, context = torch.randn(b, 4, 8, 8), torch.randn(b, shape.max_position_embeddings, shape.hidden_size)
    eps, looked = run(
        session(graphs, tmp_path, model, "unet"), latents=latents, t=torch.tensor([321.0]), context=context
    )
    with AttentionMaps(model.unet) as maps, torch.no_grad():
        want = model.unet(latents, 321, encoder_hidden_states=context).sample
    fine = [weights for (weights,) in maps.values() if weights.shape[2] == 64]  # b heads positions words
    mean = torch.stack([weights.mean(1) for weights in fine]).mean(0)
    torch.testing.assert_close(eps, want, **close)
    torch.testing.assert_close(looked.flatten(2).transpose(1, 2), mean, **close)
    torch.testing.assert_close(
        looked.sum(1), torch.ones(b, 8, 8)
    )  # each place shares its attention out among the words


@pytest.mark.parametrize("b", [1, 2])
def test_the_decoders_graph_paints(graphs, model, tmp_path, b):
    latents = torch.randn(b, 4, 8, 8)
    (got,) = run(session(graphs, tmp_path, model, "vae"), latents=latents)
    with torch.no_grad():
        torch.testing.assert_close(got, model.vae.decode(latents).sample, **close)


def test_graphs_hold_no_weights_and_are_the_same_for_every_model_of_a_shape(graphs, other, tmp_path):
    files = export.export(other, tmp_path / "made" / "here")
    assert [file.name for file in files] == FILES
    assert sum(file.stat().st_size for file in files) < 400_000
    for file in files:
        assert file.read_bytes() == (graphs / file.name).read_bytes()


def test_every_weight_is_listed_once_with_its_shape_but_for_the_table_of_tokens_and_the_encoder(graphs):
    model = parts.load(device="cpu")
    for part in ("text_encoder", "unet", "vae"):
        weights = dict(map(lambda pair: (pair[0], tuple(pair[1])), listed(graphs)[part]["weights"]))
        all_of_it = {name: tuple(x.shape) for name, x in state(model, part).items()}
        unused = {
            name for name in all_of_it if name == TABLE or part == "vae" and name.startswith(("encoder.", "quant"))
        }
        assert weights == {name: shape for name, shape in all_of_it.items() if name not in unused}
        assert len(weights) == len(listed(graphs)[part]["weights"])


def test_graphs_do_not_name_where_they_were_made(graphs):
    for file in graphs.iterdir():
        assert b"sdlearn" not in file.read_bytes() and b"site-packages" not in file.read_bytes()


def scheduler_that_predicts(folder, what):
    file = folder / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text()) | {"prediction_type": what}
    file.unlink()
    file.write_text(json.dumps(settings))


def test_a_model_that_predicts_something_else_is_refused(copy, tmp_path):
    scheduler_that_predicts(copy, "v_prediction")
    with pytest.raises(CliError, match='predicts "v_prediction": only a model that predicts the noise'):
        export.main(str(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_told_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(CliError, match="no model"):
        export.main("runs/none", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(CliError, match="file"):
        export.main("mini", tmp_path / "file")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(CliError, match=r"onnx and onnxscript must be installed first.*\[site\]"):
        export.main("mini", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_prints_its_files_and_nothing_else(command):
    done, out = command
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == [str(out / name) for name in FILES]
