"""Lesson 1: the training loop. CLIP, the VAE, the U-Net and the judge are all trained by it."""

import math
from collections.abc import Callable, Iterable

import torch
from diffusers.training_utils import EMAModel


def learning_rate(
    step: int,  # 0 .. steps - 1
    steps: int,
    warmup: int,  # steps
) -> float:  # 0 .. 1, as a fraction of the highest rate
    """Rise in a straight line, then fall along a cosine towards 0 (arXiv 1608.03983, eq. 5, without restarts)."""
    return min(1, (step + 1) / (warmup + 1)) * (1 + math.cos(math.pi * step / steps)) / 2


def fit(
    model: torch.nn.Module,  # trained in place, on the device where it is
    loss: Callable[..., torch.Tensor],  # loss(model, *batch) -> scalar
    examples: Callable[[torch.Generator], tuple[torch.Tensor, ...]],  # draws one batch, noise included
    steps: int,  # how many batches
    lr: float,  # the highest learning rate
    seed: int = 0,  # the same seed gives the same batches
    warmup: int = 50,  # steps until the learning rate is at its highest
    betas: tuple[float, float] = (0.9, 0.999),  # AdamW's
    weight_decay: float = 0.0,  # AdamW's
    average: bool = False,  # end with the moving average of the weights (EMA)
    progress: Callable[..., Iterable] = lambda steps, losses: steps,  # wraps the steps, to show progress
    begin: Callable[..., list[float]] = lambda optimizer, ema: [],  # the losses so far, if a run is resumed
    after: Callable[[list[float]], None] = lambda losses: None,  # called after each step, to save or to watch
) -> list[float]:  # the loss at each step
    """Train with AdamW (arXiv 1711.05101). Raises ValueError for a loss or gradient that is not finite."""
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas, weight_decay=weight_decay, fused=True)
    ema = EMAModel(model.parameters(), decay=0.999) if average else None
    losses = begin(optimizer, ema)
    model.train()
    try:
        for step in progress(range(len(losses), steps), losses):
            optimizer.param_groups[0]["lr"] = lr * learning_rate(step, steps, warmup)
            batch = examples(torch.manual_seed(seed * 1_000_003 + step))  # a resumed run draws what it would have drawn
            value = loss(model, *batch)
            value.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            losses.append(value.item())
            if not math.isfinite(losses[-1] + norm):
                why = f"loss {losses[-1]:.3g}, gradient {norm:.3g} at step {step}"
                raise ValueError(f"{why}: try a learning rate below {lr}")
            optimizer.step()
            optimizer.zero_grad()
            if ema:
                ema.step(model.parameters())
            after(losses)
        if ema:
            ema.copy_to(model.parameters())
    finally:
        model.eval()
    return losses
