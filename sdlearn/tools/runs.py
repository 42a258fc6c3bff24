"""Training runs that can be resumed, in half precision, on a GPU, in several processes, all built on `training.fit`.

Each step seeds torch anew: its batch, its noise and what dropout drops depend on the seed and the step
alone, so a run that was killed and resumed from its last checkpoint ends with the same weights.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from sdlearn import training
from sdlearn.tools.saving import whole_file

LOOK = 500  # steps


class Objective(nn.Module):
    """A model and its loss as one module, so that accelerate sees one `forward`, however the loss is computed."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self.loss(self.model, *batch)


def progress_bar(
    steps: Iterable,
    losses: Sequence[float] = (),  # so far; it grows with every step
    **options,  # of tqdm
) -> Iterator:
    """Yield the steps, with a progress bar that also shows the loss, averaged over 50 steps."""
    bar = tqdm(steps, **options)
    for step in bar:
        yield step
        if losses:
            bar.set_postfix_str(f"loss {sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)


def fit(
    model: nn.Module,  # trained in place, on a GPU if there is one, then moved back to where it was
    loss: Callable[..., Tensor],  # loss(model, *batch) -> scalar
    examples: Callable[[torch.Generator], tuple[Tensor, ...]],  # draws one batch, with its noise
    steps: int,  # how many batches
    lr: float,  # the highest learning rate
    seed: int = 0,  # the same seed gives the same batches
    precision: str = "no",  # "bf16" computes in half the bits: for processors that are fast at it
    checkpoint: Path | None = None,  # a file to save to every `every` steps, and to resume from if it exists
    every: int = 100,  # steps between checkpoints
    look: Callable[[list[float]], None] = lambda losses: None,  # shows progress, every `LOOK` steps
    progress: Callable = progress_bar,  # wraps the steps, to show progress
    **options,  # of `training.fit`
) -> list[float]:  # the loss at each step
    """`training.fit`, resumable, on any device and in any number of processes; each takes its part of every batch.

    Raises ValueError also for a checkpoint that is damaged, or from a run with other steps, seed, learning
    rate, precision or batch size, and ConnectionError if another process of the run has died.
    """
    accelerator, home = Accelerator(cpu=shared_cpu()), next(model.parameters()).device
    settings = {"steps": steps, "seed": seed, "lr": lr, "precision": precision}
    settings |= {"batch": len(examples(torch.Generator())[0])}
    saved = Checkpoint(checkpoint, settings, model)
    objective = accelerator.prepare(Objective(model, loss))
    half = precision == "bf16"
    attention = plain_attention if half and accelerator.device.type == "cpu" else nullcontext

    def shared_loss(_, *batch: Tensor) -> Tensor:
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        with naming_a_lost_process(accelerator):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=half), attention():
                value = objective(*(x[mine].to(accelerator.device) for x in batch))
            mean = accelerator.reduce(value.detach(), "mean")
        return value + (mean - value.detach())  # all processes' loss, with this one's gradient

    looked = []

    def after(losses: list[float]) -> None:
        if not accelerator.is_main_process:
            return
        done = len(losses)
        if done % every == 0 or done == steps:
            saved.save(losses)
        if not looked or done % LOOK == 0 or done == steps:
            looked.append(done)
            with saved.averaged():
                look(losses)

    options |= {"begin": saved.resume, "after": after}
    if accelerator.is_main_process:
        options["progress"] = progress
    try:
        return training.fit(model, shared_loss, examples, steps, lr, seed, **options)
    finally:
        model.to(home)


@contextmanager
def plain_attention():
    """Two matrix products and a softmax, all in bf16: on a CPU, fused attention has a slow backward pass."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # CUDA in name only
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def shared_cpu() -> bool:
    """Whether a launcher such as `torchrun` started this process and there is no GPU: accelerate has to be told."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


@contextmanager
def naming_a_lost_process(accelerator: Accelerator):
    """Around code in which processes exchange tensors: if one has died, say so, since the others cannot go on."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).partition("\n")[0].split(". ")[0]
        raise ConnectionError(f"another process of this training has gone ({reason}): go on with --resume") from error


def best_precision() -> str:  # as `fit` takes it
    """bf16 where there are fast units for it (a recent GPU, or a CPU with AVX512-BF16), else full precision."""
    gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if gpu or torch.cpu._is_avx512_bf16_supported() else "no"


class Checkpoint:
    """The saved state of one training run; without a file it does nothing."""

    def __init__(self, file: Path | None, settings: dict, model: nn.Module):
        self.file, self.settings, self.model = file, settings, model
        self.states: dict[str, Any] = {"model": model}

    def save(self, losses: list[float]) -> None:
        """Save everything that the run needs to resume; the old file is replaced only once the new one is complete."""
        if not self.file:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {name: thing.state_dict() for name, thing in self.states.items()}
        try:
            with whole_file(self.file) as new:
                torch.save(state | {"losses": losses, "settings": self.settings}, new)
        except (RuntimeError, OSError) as error:  # most often a full disk
            raise OSError(f"cannot write {self.file} ({error}): make room, then go on with --resume") from error

    @contextmanager
    def averaged(self) -> Generator[None]:
        """The model as it would be if training ended here: with averaged weights, if there are any."""
        model, ema = self.model, self.states.get("ema")
        if ema:
            ema.store(model.parameters())
            ema.copy_to(model.parameters())
        model.eval()
        try:
            yield
        finally:
            model.train()
            if ema:
                ema.restore(model.parameters())

    def resume(self, optimizer, ema) -> list[float]:  # the losses so far
        """Restore the model, the optimizer and the average that the run last saved."""
        self.states |= {"optimizer": optimizer} | ({"ema": ema} if ema else {})
        if not self.file or not self.file.exists():
            return []
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            if state["settings"] != self.settings:
                raise ValueError(
                    f"{self.file} belongs to a run with {state['settings']}, not {self.settings}: "
                    "go on with the options of that run, or remove the file to begin anew"
                )
            for name, thing in self.states.items():
                thing.load_state_dict(state[name])
        except (RuntimeError, EOFError, UnpicklingError, LookupError, TypeError) as error:
            raise ValueError(f"{self.file} is damaged: remove it, and the part trains from its beginning") from error
        if ema:  # the others go to the GPU by themselves
            ema.to(next(self.model.parameters()).device)
        return state["losses"]
