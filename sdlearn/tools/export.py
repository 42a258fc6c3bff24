"""`sdlearn-export`: a model's networks as ONNX graphs, which run without Python, as on the course's web page.

A graph says which operation follows which, and on which weights. It holds no weights itself: `graphs.json` lists
them in the order in which whoever runs the graph packs them, as float32, from the model's own `.safetensors` files.
So one set of graphs serves every model of the same shape.
"""

import json
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fastcore.script import call_parse
from torch import Tensor, nn

from sdlearn import parts
from sdlearn.scenes import WORDINGS, WORDS
from sdlearn.tools import hub
from sdlearn.tools.guard import one_line
from sdlearn.tools.saving import whole_file

PACKED = "weights"  # what a graph calls the block in which its weights lie, one after the other
MOST = 63  # pictures at a time: from 64 on, diffusers' upsampling takes another path
FREE = (  # settings that may differ from model to model: the graphs do not depend on them
    *("scaling_factor", "force_upcast", "latents_mean", "latents_std", "shift_factor", "dropout"),
    *("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout", "projection_dim"),
    *("initializer_factor", "initializer_range", "architectures", "model_type", "dtype", "transformers_version"),
)


class Network(nn.Module):
    """One network of a model, called as its graph will be."""

    def __init__(self, model):
        super().__init__()
        self.model = model


class TextEncoder(Network):
    """The text encoder without its table of tokens: rows are looked up outside, so any vocabulary will do."""

    def forward(
        self,
        words: Tensor,  # b l d, the table's row for each token
    ) -> Tensor:  # b l d, the prompts, encoded
        """Add the positions, then attend; no word attends to a later one."""
        placed = words + self.model.embeddings.position_embedding.weight
        seen = self.model.encoder(inputs_embeds=placed, attention_mask=None, is_causal=True).last_hidden_state
        return self.model.final_layer_norm(seen)


class Recorder:
    """`unet.attention` in a layer of the U-Net, without its check of shapes, which would fix the batch when traced."""

    def __init__(self, maps: list[Tensor]):  # the weights are added: b heads positions words
        self.maps = maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))  # b heads l d/heads
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        self.maps.append(weights)
        return attn.to_out[1](attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2)))


class NoisePredictor(Network):
    """The U-Net, which also returns its attention to each word."""

    def forward(
        self,
        latents: Tensor,  # b c h w, noisy
        t: Tensor,  # 1, the step
        context: Tensor,  # b l d, encoded prompts
    ) -> tuple[Tensor, Tensor]:  # b c h w, the noise; b l h w, the attention to each word
        """Predict the noise, and average cross-attention over the heads and layers that are as fine as the latents."""
        before, maps = self.model.attn_processors, []
        self.model.set_attn_processor({n: Recorder(maps) if "attn2" in n else one for n, one in before.items()})
        eps = self.model(latents, t, encoder_hidden_states=context).sample
        self.model.set_attn_processor(before)
        h, w = latents.shape[2:]
        fine = [weights.mean(1) for weights in maps if weights.shape[2] == h * w]  # b positions l
        return eps, torch.stack(fine).mean(0).transpose(1, 2).unflatten(2, (h, w))


class Decoder(Network):
    """The VAE's decoder. The scale factor is a setting of the model's, so it is undone outside."""

    def forward(
        self,
        latents: Tensor,  # b c h w, divided by the scale factor
    ) -> Tensor:  # b 3 8h 8w, about -1 .. 1
        """Latents to pictures."""
        return self.model.decode(latents).sample


class Plan(NamedTuple):
    """How one network becomes a graph."""

    network: nn.Module
    inputs: dict[str, Tensor]  # name -> an example
    outputs: tuple[str, ...]
    fixed: tuple[str, ...] = ()  # inputs whose first axis is not the batch


def plans(
    model: parts.Parts,
) -> dict[str, Plan]:  # folder of the part -> plan
    """The three networks of a model, with two examples of what they take; the graphs take any number."""
    text, unet = model.text_encoder.config, model.unet.config
    context = torch.zeros(2, text.max_position_embeddings, text.hidden_size)
    latents = torch.zeros(2, unet.in_channels, unet.sample_size, unet.sample_size)
    noisy = {"latents": latents, "t": torch.zeros(1), "context": context}
    return {
        "text_encoder": Plan(TextEncoder(model.text_encoder), {"words": context}, ("context",)),
        "unet": Plan(NoisePredictor(model.unet), noisy, ("eps", "looked"), fixed=("t",)),
        "vae": Plan(Decoder(model.vae), {"latents": latents}, ("pictures",)),
    }


def graph_of(
    plan: Plan,
) -> tuple[Any, list[tuple[str, list[int]]]]:  # an `onnx.ModelProto`; name and shape of each weight, in their order
    """Trace a network, and simplify the graph with its weights left out."""
    import onnx_ir
    from onnxscript import optimizer

    batch = torch.export.Dim("b", max=MOST)
    axes = {name: None if name in plan.fixed else {0: batch} for name in plan.inputs}
    names: dict[str, Any] = {"input_names": [*plan.inputs], "output_names": plan.outputs}
    with torch.no_grad(), silence():
        traced = torch.export.export(plan.network.eval(), (), plan.inputs, dynamic_shapes=axes)
        program: Any = torch.onnx.export(traced, optimize=False, verbose=False, **names)
        model = program.model
        with as_inputs(model.graph) as weights:  # so that the optimizer computes nothing from them in advance
            optimizer.optimize(model)
    leave_out(weights)
    forget_sources(model)
    return onnx_ir.to_proto(model), [(weight.name, [*weight.shape]) for weight in weights]


@contextmanager
def as_inputs(graph) -> Generator[list]:
    """While in use, the weights of a graph are inputs."""
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    graph.inputs.extend(weights)
    yield weights
    for weight in weights:
        graph.inputs.remove(weight)
        weight.name = weight.name.removeprefix("model.")  # the name that it has in the model's own file
        graph.initializers[weight.name] = weight


def leave_out(weights: Sequence[Any]) -> None:
    """Replace each weight by its place in the packed block."""
    import onnx_ir

    sizes = [weight.const_value.size * 4 for weight in weights]  # four bytes a number
    for weight, size, end in zip(weights, sizes, accumulate(sizes), strict=True):
        weight.const_value = onnx_ir.ExternalTensor(
            PACKED, end - size, size, onnx_ir.DataType.FLOAT, shape=weight.shape, name=weight.name
        )


def forget_sources(model) -> None:
    """Drop what the exporter notes about the lines of Python that each operation came from: nine tenths of a graph."""
    model.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()


@contextmanager
def silence() -> Generator[None]:
    """Suppress the exporter's messages about itself, such as deprecation warnings."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def export(
    root: Path,  # a directory in the format of a StableDiffusionPipeline
    out: Path,  # folder for the graphs, made if need be
) -> list[Path]:  # the files, `graphs.json` last
    """Write the three graphs of a model, and `graphs.json`: their weights' order, their settings, the course's words.

    Raises FileNotFoundError or ValueError if the model is incomplete, damaged, or does not predict the noise.
    """
    model = parts.load(root, device="cpu")
    if (predicts := model.scheduler.config.prediction_type) != "epsilon":
        raise ValueError(f'{root} predicts "{predicts}": only a model that predicts the noise ("epsilon") is exported')
    out.mkdir(parents=True, exist_ok=True)
    files, listed = [], {}
    for part, plan in plans(model).items():
        graph, weights = graph_of(plan)
        files.append(out / f"{part}.onnx")
        with whole_file(files[-1]) as new:
            new.write_bytes(graph.SerializeToString(deterministic=True))
        listed[part] = {"weights": weights, "config": shape_of(root / part / "config.json")}
    listed["words"] = WORDS | {"action": sum(WORDINGS.values(), ())}
    with whole_file(out / "graphs.json") as new:
        new.write_text(json.dumps(listed, separators=(",", ":")))
    return [*files, out / "graphs.json"]


def shape_of(file: Path) -> dict[str, Any]:
    """The settings of a network that its graph depends on."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in settings.items() if name not in FREE and name[0] != "_"}


def check_installed() -> None:
    """Raise ValueError if the exporter's libraries are missing: the lessons do without them."""
    if missing := [name for name in ("onnx", "onnxscript") if not find_spec(name)]:
        install = "python -m pip install -c constraints.txt -e .[site]"
        raise ValueError(f"{' and '.join(missing)} must be installed first, in the clone of the course: {install}")


@call_parse
def main(
    model: str = "mini",  # mini, or a directory made by sdlearn-train
    out: Path = Path("graphs"),  # folder for the graphs
):
    """Write a model's networks as ONNX graphs without weights, and print their paths."""
    with one_line():
        check_installed()
        print(*export(hub.find(model), out), sep="\n")
