"""Lesson 7: a new word, by one vector (textual inversion), thin matrices (LoRA) or all weights (DreamBooth).

For LoRA the letters are the paper's (arXiv 2106.09685): W a frozen weight, A and B the two thin matrices beside it.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdlearn import noising, training
from sdlearn.shapes import check_shape, kind


def new_vector(
    table: Tensor,  # v d, the text encoder's vectors, one row per token
    like: Tensor,  # k, tokens of words of the same kind
    eps: Tensor,  # d, drawn by the caller from N(0, 1)
) -> Tensor:  # d, where the new word starts
    """Start near the words of its kind: mean + std eps, over their rows; with one word, on it (arXiv 2208.01618)."""
    check_shape(eps, "eps", table.shape[1])
    return table[like].mean(0) + table[like].std(0, correction=min(1, len(like) - 1)) * eps


class WithWord(nn.Module):
    """A noise predictor with the vector of a new word: `training.fit` trains whatever in it requires a gradient."""

    def __init__(self, text_encoder, unet, vector: Tensor):
        super().__init__()
        self.text_encoder, self.unet, self.vector = text_encoder, unet, nn.Parameter(vector.clone())

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:  # b c h w, b, b l -> b c h w
        """The vector stands in for the last row of the table, so the gradient reaches it and no other row."""
        rows = torch.cat([self.text_encoder.get_input_embeddings().weight[:-1], self.vector[None]])
        text = torch.func.functional_call(self.text_encoder, {"embeddings.token_embedding.weight": rows}, tokens)
        return self.unet(x_t, t, encoder_hidden_states=text.last_hidden_state).sample


def prior_loss(
    pred: Tensor,  # b c h w, predicted noise
    eps: Tensor,  # b c h w, the noise
    old: Tensor,  # b, True for pictures of what the model knew before
    weight: float = 1.0,  # of the old pictures
) -> Tensor:  # scalar
    """Mean error of the new pictures + weight times that of the old ones (DreamBooth, arXiv 2208.12242, eq. 2)."""
    check_shape(eps, "eps", *pred.shape)
    if kind(old) != f"({len(pred)},) bool":  # of whole numbers, ~ is something else
        raise ValueError(f"old must have shape ({len(pred)},) and dtype bool; got {kind(old)}")
    error = (pred - eps).square().flatten(1).mean(1)  # b
    return error[~old].mean() + (weight * error[old].mean() if old.any() else 0)


def train_word(
    student: WithWord,  # trained in place
    latents: Tensor,  # n c h w, scaled
    tokens: Tensor,  # n l, their captions
    old: Tensor,  # n, True for pictures of what the model knew before; there may be none
    lr: float,  # the highest learning rate
    steps: int = 100,
    batch: int = 6,  # new pictures, and as many old ones if there are any
    warmup: int = 10,  # steps until the learning rate is at its highest
    loss: Callable[..., Tensor] = prior_loss,  # of predicted noise, noise, which are old, and their weight
    **options,  # of `training.fit`
) -> list[float]:  # the loss at each step
    """Teach a word from a few pictures: noise them, and predict the noise. Raises ValueError if none is new."""
    if old.dtype != torch.bool or old.all():
        raise ValueError("old must have dtype bool, and be False for one picture at least")
    kinds = [which.nonzero().flatten() for which in (~old, old) if which.any()]

    def examples(g):
        i = torch.cat([kind[torch.randint(len(kind), (batch,), generator=g)] for kind in kinds])
        t, eps = torch.randint(1000, i.shape, generator=g), torch.randn(latents[i].shape, generator=g)
        return noising.q_sample(latents[i], t, eps), t, tokens[i], eps, old[i]

    def of_batch(student, x_t, t, tokens, eps, old):
        return loss(student(x_t, t, tokens), eps, old, 1.0)

    return training.fit(student, of_batch, examples, steps, lr, warmup=warmup, **options)


def lora(
    y: Tensor,  # b l o, the frozen layer's output for x
    x: Tensor,  # b l i, its input
    A: Tensor,  # r i, down to a few numbers
    B: Tensor,  # o r, and up again
    scale: float = 1.0,
) -> Tensor:  # b l o
    """W x + scale B A x (arXiv 2106.09685, eq. 3); B A, as large as W, is never computed."""
    return y + scale * (x @ A.T) @ B.T


class LoRA(nn.Module):
    """A linear layer with a LoRA beside it, A (r i) and B (o r); the layer may be a LoRA itself."""

    def __init__(self, layer: "nn.Linear | LoRA", A: Tensor, B: Tensor, scale: float):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.layer, self.A, self.B, self.scale = layer, nn.Parameter(A.clone()), nn.Parameter(B.clone()), scale

    def forward(self, x: Tensor) -> Tensor:  # b l i -> b l o
        return lora(self.layer(x), x, self.A, self.B, self.scale)

    def merged(self) -> nn.Linear:
        """One plain layer that does the same: W + scale B A."""
        linear = self.layer.merged() if isinstance(self.layer, LoRA) else copy.deepcopy(self.layer)
        linear.weight.data += self.scale * (self.B @ self.A).detach()
        return linear


def new_lora(
    unet: nn.Module,  # of diffusers; it may have LoRAs already
    rank: int = 4,
    seed: int = 0,
) -> dict[str, Tensor]:  # names as in diffusers' files -> A or B, for the four projections of each attention
    """A is random, as in peft, and B zero, so that at first nothing changes (arXiv 2106.09685, section 4.1)."""
    g, weights = torch.Generator().manual_seed(seed), {}
    for name, layer in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            i, o = layer.in_features, layer.out_features
            weights[f"{name}.lora_A.weight"] = (2 * torch.rand(rank, i, generator=g) - 1) / i**0.5
            weights[f"{name}.lora_B.weight"] = torch.zeros(o, rank)
    return weights


def put_lora(
    unet: nn.Module,  # of diffusers; it may have LoRAs already
    weights: dict[str, Tensor],  # from `new_lora`, `take_lora`, or a file
    scale: float = 1.0,
) -> nn.Module:  # a copy, in which only LoRAs can be trained
    """Put a LoRA beside each layer that it names. Raises ValueError for weights that are not a LoRA of this U-Net."""
    unet, weights = copy.deepcopy(unet).requires_grad_(False), {k.removeprefix("unet."): x for k, x in weights.items()}
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, nn.Linear | LoRA)}
    names = {name.rsplit(".lora_", 1)[0] for name in weights}
    if {*weights} != {f"{name}.lora_{x}.weight" for name in names for x in "AB"} or not names <= {*layers}:
        raise ValueError(f"wanted A and B for layers of this U-Net; got {', '.join(sorted(weights)[:2])} ...")
    for name in names:
        A, B = (weights[f"{name}.lora_{x}.weight"] for x in "AB")
        check_shape(A, f"{name}.lora_A.weight", "r", layers[name].in_features)
        check_shape(B, f"{name}.lora_B.weight", layers[name].out_features, len(A))
        unet.set_submodule(name, LoRA(layers[name], A, B, scale))
    return unet


def take_lora(
    unet: nn.Module,  # from `put_lora`
) -> dict[str, Tensor]:  # as from `new_lora`
    """The weights of a LoRA, to save them or to put them elsewhere."""
    loras = {name: layer for name, layer in unet.named_modules() if isinstance(layer, LoRA)}
    return {f"{name}.lora_{x}.weight": getattr(loras[name], x).detach().clone() for name in loras for x in "AB"}
