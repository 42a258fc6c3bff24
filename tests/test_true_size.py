"""Stable Diffusion v1-4 in its true size, random weights: our loading and loop, and what the lessons build by hand.

The weights are made once, saved in the hub's layout, and opened by our code and by the library's.
"""

import ast
import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import true_size
from diffusers import StableDiffusionPipeline
from torch.testing import assert_close
from true_size import PROMPT, PUBLISHED

from sdlearn import clip, parts
from sdlearn.sampling import text_to_image
from sdlearn.tools import memory, saving
from sdlearn.unet import AttentionMaps, attention, time_embedding

pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SETTINGS = {"height": 64, "width": 64, "guidance_scale": 7.5}  # weights of true size, small pictures: quicker


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The whole model in a directory, as the hub has it, in float32."""
    folder = tmp_path_factory.mktemp("v1-4")
    torch.manual_seed(0)
    true_size.tokenizer().save_pretrained(folder / "tokenizer")
    for part, new in (("text_encoder", true_size.text_encoder), ("vae", true_size.vae), ("unet", true_size.unet)):
        new().save_pretrained(folder / part)
    saving.save_index(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return parts.load(folder, "cpu")


@pytest.fixture(scope="module")
def pipeline(model):
    """The library's own loop over the same parts."""
    pipeline = StableDiffusionPipeline(
        *(model.vae, model.text_encoder, model.tokenizer, model.unet, model.scheduler),
        *(None, None),
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline, prompts, seed=32, steps=2, **settings):
    generator = torch.Generator().manual_seed(seed)
    options = SETTINGS | settings
    return pipeline(prompts, num_inference_steps=steps, generator=generator, output_type="pt", **options).images


def ours(model, prompts, seed=32, steps=2, **settings):
    return text_to_image(model, prompts, steps=steps, seed=seed, **SETTINGS | settings) / 2 + 0.5


# ---------------------------------------------------------------- the same model, the same pictures


@pytest.mark.parametrize("part", PUBLISHED)
def test_the_parts_have_the_published_number_of_parameters(model, part):
    assert sum(x.numel() for x in getattr(model, part).parameters()) == PUBLISHED[part]


def test_the_memory_needed_is_that_of_the_published_numbers(folder):
    assert 1 < memory.memory_needed(folder, torch.float16) / (2 * sum(PUBLISHED.values())) < 1.5


def test_the_library_opens_what_we_open_and_paints_our_picture(folder, model):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert_close(ours(model, PROMPT), theirs(pipeline, PROMPT), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["lms", "pndm", "euler", "dpm++"])
def test_our_loop_paints_the_pipelines_picture_with(model, pipeline, name):
    scheduler = parts.make_scheduler(name, model.scheduler.config)
    pipeline.scheduler = parts.make_scheduler(name, model.scheduler.config)
    assert_close(ours(model._replace(scheduler=scheduler), PROMPT), theirs(pipeline, PROMPT), atol=1e-4, rtol=0)


def test_several_pictures_and_a_negative_prompt(model, pipeline):
    pipeline.scheduler = parts.make_scheduler("ddim", model.scheduler.config)
    want = theirs(pipeline, PROMPT, negative_prompt="a horse", num_images_per_prompt=2, height=64, width=128)
    got = ours(model, [PROMPT] * 2, negative="a horse", height=64, width=128)
    assert_close(got, want, atol=1e-4, rtol=0)
    assert (got[0] - got[1]).abs().max() > 0.01


# ---------------------------------------------------------------- what the lessons build by hand is what it runs


@cache
def by_hand(lesson, *names):
    """Functions as a lesson defines them."""
    cells = json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = {"torch": torch, "F": F, "math": math, "time_embedding": time_embedding}
    for source in sources:
        if any(f"def {name}(" in source for name in names):
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef) and node.name in names:
                    exec(compile(ast.Module([node], []), lesson, "exec"), found)
    return [found[name] for name in names]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_lesson_1_a_layer_of_clip(model):
    (my_attention,) = by_hand("01_clip", "my_attention")
    tokens = model.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    states = model.text_encoder(tokens, output_hidden_states=True).hidden_states
    x, layer = states[0], model.text_encoder.encoder.layers[0]
    x = x + my_attention(layer.layer_norm1(x), layer.self_attn, heads=12)[0]
    x = x + layer.mlp(layer.layer_norm2(x))
    assert x.shape == (1, 77, 768)
    assert_close(x, states[1], atol=1e-5, rtol=1e-5)


def test_lesson_1_the_contrastive_loss_of_clip():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    text, pictures = F.normalize(noise(8, 768)), F.normalize(noise(8, 768, seed=1))
    log_scale = torch.tensor(math.log(100))  # v1-4's CLIP ended there
    want = image_text_contrastive_loss(log_scale.exp() * text @ pictures.T)
    assert_close(clip.contrastive_loss(text, pictures, log_scale), want, atol=1e-5, rtol=1e-5)


def test_lesson_2_a_resnet_block_of_the_vae(model):
    (my_resnet_block,) = by_hand("02_vae", "my_resnet_block")
    block, x = model.vae.encoder.mid_block.resnets[0], noise(1, 512, 32, 32)
    assert_close(my_resnet_block(block, x), block(x, None), atol=1e-5, rtol=1e-5)


def test_lesson_4_the_time_embedding(model):
    t = torch.tensor([0, 1, 500, 999])
    assert_close(time_embedding(t, 320), model.unet.time_proj(t), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("block", ["the same width", "another width"])
def test_lesson_4_a_resnet_block_of_the_unet(model, block):
    (my_resnet_block,) = by_hand("04_unet", "my_resnet_block")
    resnet, width = {
        "the same width": (model.unet.down_blocks[0].resnets[0], 320),
        "another width": (model.unet.up_blocks[3].resnets[0], 960),  # 640 from below and a skip of 320
    }[block]
    x, temb = noise(2, width, 16, 16), model.unet.time_embedding(time_embedding(torch.tensor([10, 900]), 320))
    assert_close(my_resnet_block(resnet, x, temb), resnet(x, temb), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_lesson_4_cross_attention_of_the_unet(model):
    (my_cross_attention,) = by_hand("solutions/04_unet", "my_cross_attention")
    layer = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    places, words = noise(2, 256, 320), noise(2, 77, 768, seed=1)
    assert_close(my_cross_attention(layer, places, words), layer(places, words), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_lesson_4_an_attention_block_of_the_unet(model):
    _, my_attention_block = by_hand("solutions/04_unet", "my_cross_attention", "my_attention_block")
    block, x, words = model.unet.down_blocks[0].attentions[0], noise(2, 320, 16, 16), noise(2, 77, 768, seed=1)
    theirs = block(x, encoder_hidden_states=words).sample
    assert_close(my_attention_block(block, x, words), theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_lesson_4_self_attention_of_the_unet(model):
    layer, x = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1, noise(2, 256, 320)
    mine = layer.to_out[0](attention(layer.to_q(x), layer.to_k(x), layer.to_v(x), layer.heads)[0])
    assert_close(mine, layer(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_lesson_4_the_attention_maps_change_nothing(model):
    inputs = noise(1, 4, 8, 8), torch.tensor([500])
    words = noise(1, 77, 768)
    plain = model.unet(*inputs, encoder_hidden_states=words).sample
    with AttentionMaps(model.unet) as maps:
        watched = model.unet(*inputs, encoder_hidden_states=words).sample
    assert_close(watched, plain, atol=1e-5, rtol=1e-5)
    assert len(maps) == 16 and all(torch.allclose(w[0].sum(-1), torch.ones(())) for w in maps.values())
