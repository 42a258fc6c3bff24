"""Lesson 1: words to tokens, two encoders, and the contrastive loss that joins them (arXiv 2103.00020)."""

from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from sdlearn.shapes import check_pictures, check_shape

LENGTH = 24  # tokens in a prompt, start and end included; Stable Diffusion's is 77
WIDTH = 128  # numbers per token; Stable Diffusion's is 768
END = "</w>"  # marks the last piece of a word


def learn_merges(
    words: Counter,  # word -> how often it occurs
    n: int,  # at most this many merges
) -> list[tuple[str, str]]:  # which neighbours to join, in order
    """Byte pair encoding: join the most frequent pair of neighbours, over and over (arXiv 1508.07909, algorithm 1)."""
    split: dict[str, tuple[str, ...]] = {word: (*word[:-1], word[-1] + END) for word in words}
    merges = []
    while len(merges) < n and (pairs := count_pairs(split, words)):  # no pairs: every word is one piece
        merges.append(max(sorted(pairs), key=lambda pair: pairs[pair]))
        split = {word: merge(pieces, merges[-1]) for word, pieces in split.items()}
    return merges


def count_pairs(
    split: dict[str, tuple[str, ...]],  # word -> its pieces
    words: dict[str, int],  # word -> how often it occurs
) -> Counter:  # pair of neighbours -> how often it occurs
    """Count how often each two pieces are neighbours."""
    pairs = Counter()
    for word, pieces in split.items():
        for pair in pairwise(pieces):
            pairs[pair] += words[word]
    return pairs


def merge(
    pieces: tuple[str, ...],  # of one word
    pair: tuple[str, str],  # neighbours to join
) -> tuple[str, ...]:  # the same word, one piece fewer wherever the pair stood
    """Join every occurrence of a pair."""
    out = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def new_tokenizer(
    captions: list[str],  # what to learn the words from
    merges: int = 1000,  # at most
) -> CLIPTokenizer:  # every word of the captions is one token, if `merges` suffice
    """CLIP's kind of tokenizer, with a vocabulary learnt from the captions, and every byte, to read any alphabet."""
    rules = CLIPTokenizer().backend_tokenizer  # how CLIP splits a text
    text = rules.normalizer.normalize_str("\n".join(captions))  # lower case
    words = Counter(word for word, _ in rules.pre_tokenizer.pre_tokenize_str(text))  # spelt as in `byte_letters`
    letters, pairs = byte_letters(), learn_merges(words, merges)
    tokens = [*letters, *(c + END for c in letters), *(a + b for a, b in pairs), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs, model_max_length=LENGTH)


def byte_letters() -> list[str]:  # 256 characters
    """The character that stands for each byte: itself where it can be printed, else one beyond 255 (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    beyond = iter(range(256, 512))
    return [chr(b if b in printable else next(beyond)) for b in range(256)]


def new_clip(
    tokenizer: CLIPTokenizer,  # gives the size of the vocabulary and the special tokens
    dropout: float = 0.0,  # fraction of attention weights set to zero in the text encoder, in training
    size: int = 64,  # pixels a side of a picture, which is cut into 8 x 8 patches
) -> CLIPModel:  # 1.3 M parameters, with random weights
    """Two small transformers, one for captions and one for pictures, with a shared space of 64 dimensions."""
    shape = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=4)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    words = dict(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, attention_dropout=dropout)
    pixels = dict(image_size=size, patch_size=size // 8)
    text, vision = CLIPTextConfig(**shape, **special, **words), CLIPVisionConfig(**shape, **pixels)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).eval()


def tokenize(
    tokenizer: CLIPTokenizer,
    captions: list[str],
) -> Tensor:  # b l, token numbers, cut off or padded to the model's length
    """Turn captions into token numbers, all of the same length."""
    form = dict(padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    return tokenizer(captions, **form).input_ids


def embed_text(
    clip: CLIPModel,
    tokens: Tensor,  # b l, token numbers
) -> Tensor:  # b d, length 1
    """Embed captions in the shared space."""
    return F.normalize(clip.get_text_features(tokens.to(clip.device)).pooler_output, dim=-1)


def embed_pictures(
    clip: CLIPModel,
    pictures: Tensor,  # b c h w, -1 .. 1
) -> Tensor:  # b d, length 1
    """Embed pictures in the shared space."""
    check_pictures(pictures, 1)
    return F.normalize(clip.get_image_features(pictures.to(clip.device)).pooler_output, dim=-1)


def contrastive_loss(
    text: Tensor,  # b d, length 1
    pictures: Tensor,  # b d, length 1; picture i belongs to text i
    log_scale: Tensor,  # scalar, log(1 / temperature): the logarithm is learned, its exponential used
    same: Tensor | None = None,  # b b, True where two captions are equal: these are not negatives
) -> Tensor:  # scalar
    """Each caption must find its picture, and each picture its caption (arXiv 2103.00020, figure 3)."""
    check_shape(pictures, "pictures", *text.shape)
    logits = log_scale.exp() * text @ pictures.T  # b b, row: caption, column: picture
    right = torch.arange(len(text), device=text.device)
    if same is not None:
        logits = logits.masked_fill(same & (right[:, None] != right), float("-inf"))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def clip_loss(
    clip: CLIPModel,
    pictures: Tensor,  # b c h w, -1 .. 1
    tokens: Tensor,  # b l, the caption of each picture
) -> Tensor:  # scalar
    """The contrastive loss of one batch; equal captions do not count as each other's negatives."""
    same = (tokens[:, None] == tokens[None]).all(-1)
    return contrastive_loss(embed_text(clip, tokens), embed_pictures(clip, pictures), clip.logit_scale, same)


@torch.no_grad()
def retrieval(
    clip: CLIPModel,
    pictures: Tensor,  # b c h w, -1 .. 1
    tokens: Tensor,  # b l, all different: the caption of each picture
) -> float:  # 0 .. 1
    """The fraction of pictures to which their own caption is the nearest of all."""
    similarity = embed_pictures(clip, pictures) @ embed_text(clip, tokens).T  # picture, caption
    return (similarity.argmax(1).cpu() == torch.arange(len(pictures))).float().mean().item()
