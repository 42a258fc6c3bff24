"""Stable Diffusion v1-4 from its published sizes, with random weights: nothing is downloaded."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdlearn import clip

PROMPT = "a photograph of an astronaut riding a horse"
PUBLISHED = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}  # parameters


def text_encoder():
    size = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    special = dict(bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
    return CLIPTextModel(CLIPTextConfig(max_position_embeddings=77, projection_dim=768, **size, **special))


def vae():
    widths = (128, 256, 512, 512)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(
        block_out_channels=widths, layers_per_block=2, sample_size=512, scaling_factor=0.18215, **blocks
    )


def unet():
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)  # the rest by default


def tokenizer():
    """As many tokens as CLIP's has, with our words and fillers in the place of its merges."""
    pairs, letters = clip.learn_merges(clip.Counter(PROMPT.split()), 100), clip.byte_letters()
    known = [*letters, *(letter + clip.END for letter in letters), *("".join(pair) for pair in pairs)]
    fillers = [f"filler {i}" for i in range(49406 - len(known))]
    tokens = [*known, *fillers, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs, model_max_length=77)
