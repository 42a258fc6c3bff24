"""How cost grows: operations counted, times and memory measured, and what v1-4 should have cost (`make bench`)."""

import multiprocessing
import time
from functools import partial
from pathlib import Path

import torch
import true_size
from diffusers import UNet2DConditionModel

from benchmarks.measured import Memory, in_turn, matrix_rate, table
from sdlearn import scenes
from sdlearn.clip import clip_loss, new_clip, new_tokenizer, tokenize
from sdlearn.measuring import operations
from sdlearn.notebook import show
from sdlearn.parts import stable_diffusion_scheduler
from sdlearn.sampling import denoise
from sdlearn.tools.runs import best_precision, fit
from sdlearn.tools.saving import text_encoder_of
from sdlearn.tools.train import WIDTHS, usual
from sdlearn.unet import diffusion_loss, new_unet
from sdlearn.vae import new_vae, vae_loss

PLOTS = Path("../runs/bench")
TRAINED = {64: 194_000 + 515_000 + 225_000, 32: 237_000}  # v1-4's card: steps of v1-1, v1-2, v1-4 by size of latents
PARTS = {"CLIP": "clip", "VAE": "vae", "U-Net": "unet"}  # as tables have them, as `sdlearn-train` does
BATCH, GPU_HOURS = 2048, 150_000  # of the card, on A100
A100 = 312e12  # operations a second in half precision, by its maker


def unet_inputs(batch: int, side: int, width: int, length: int, device: str = "cpu") -> dict:
    """Something to call a U-Net with."""
    sample = torch.randn(batch, 4, side, side, device=device)
    text = torch.randn(batch, length, width, device=device)
    return {"sample": sample, "timestep": torch.full((batch,), 500, device=device), "encoder_hidden_states": text}


def parts_of(size: str, device: str) -> dict:
    """Name of a part -> module, one call of it for one picture."""
    with torch.device(device):
        if size == "small":
            tokenizer = new_tokenizer(scenes.sample(200, seed=1)[1])
            text, vae, unet = text_encoder_of(new_clip(tokenizer)), new_vae(), new_unet()
            side, length, width = 8, 24, 128
        else:
            text, vae, unet = true_size.text_encoder(), true_size.vae(), true_size.unet()
            side, length, width = 64, 77, 768
        tokens, picture = torch.zeros(1, length, dtype=torch.long), torch.randn(1, 3, 8 * side, 8 * side)
        inputs = unet_inputs(1, side, width, length, device)
    return {
        "text encoder": (text, lambda: text(tokens)),
        "VAE, encoder": (vae.encoder, lambda: vae.encoder(picture)),
        "VAE, decoder": (vae.decoder, lambda: vae.decoder(inputs["sample"])),
        "U-Net, one step": (unet, lambda: unet(**inputs)),
    }


@torch.no_grad()
def counted() -> dict[str, dict[str, int]]:
    """Parameters and operations of every part, ours and v1-4's, counted without computing anything."""
    found, rows = {}, []
    for size in ("small", "v1-4"):
        found[size] = {name: operations(call) for name, (_, call) in parts_of(size, "meta").items()}
    for name in found["small"]:
        row = [name]
        for size in found:
            module = parts_of(size, "meta")[name][0]
            row += [f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M", f"{found[size][name] / 1e9:.2f}"]
        rows.append(row)
    print("\n## Parameters, and 10^9 operations for one picture\n")
    print(table(rows, ["part", "small: parameters", "operations", "v1-4: parameters", "operations"]))
    return found


@torch.no_grad()
def gpu_hours(found: dict[str, int]) -> None:
    """What v1-4's training should have taken, from the operations counted."""
    unet = true_size.unet().to("meta")
    total = 0
    for side, steps in TRAINED.items():
        step = operations(lambda side=side: unet(**unet_inputs(1, side, 768, 77, "meta")))
        encoder = found["VAE, encoder"] * (side / 64) ** 2
        total += steps * BATCH * (3 * step + encoder + found["text encoder"])
    hours = {share: total / (share * A100) / 3600 for share in (1.0, 0.4)}
    print(f"\n## v1-4's training: {total:.2e} operations, {BATCH} pictures a step\n")
    print("U-Net forward and, twice as much, backward; VAE's encoder and text encoder forward.")
    print(f"On A100s at their full half-precision rate {hours[1.0]:,.0f} GPU-hours, at 40 % of it {hours[0.4]:,.0f}.")
    print(f"Published: {GPU_HOURS:,}. If all went into these steps, {100 * hours[1.0] / GPU_HOURS:.0f} % was reached.")


def training_runs(batches: dict[str, int], precision: str, size: int = 64) -> dict:
    """Five steps of each part's training, as `sdlearn-train` does them, and one pass forwards."""
    pictures, captions, _ = scenes.sample(96, seed=1, size=size)
    tokenizer, (vae_widths, unet_widths), side = new_tokenizer(captions), WIDTHS[size], size // 8
    clip, vae, unet = (
        new_clip(tokenizer, size=size),
        new_vae(size, widths=vae_widths),
        new_unet(side, widths=unet_widths),
    )
    tokens, x = tokenize(tokenizer, captions), scenes.to_tensor(pictures)
    n = batches["U-Net"]
    inputs = list(unet_inputs(n, side, 128, 24).values())
    examples = {
        "CLIP": (clip, clip_loss, (x[: batches["CLIP"]], tokens[: batches["CLIP"]])),
        "VAE": (vae, vae_loss, (x[: batches["VAE"]], torch.randn(batches["VAE"], 4, side, side))),
        "U-Net": (unet, diffusion_loss, (inputs[0], inputs[1], torch.randn(n, 4, side, side), inputs[2])),
    }
    return {
        name: (
            lambda model=model, loss=loss, batch=batch: fit(
                model, loss, lambda _: batch, 5, lr=1e-4, precision=precision, progress=lambda steps, _: steps
            ),
            lambda model=model, loss=loss, batch=batch: loss(model, *batch),
        )
        for name, (model, loss, batch) in examples.items()
    }


def shares() -> None:
    """How much of the processor's own matrix rate training and sampling reach, each in its own kind of number."""
    batches, rows, rates = {name: usual(part, "batch") for name, part in PARTS.items()}, [], {}
    for precision in dict.fromkeys(("no", best_precision())):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        rates[dtype] = matrix_rate("cpu", dtype)
        for name, (steps, forward) in training_runs(batches, precision).items():
            work, seconds = 3 * operations(forward), in_turn({name: steps}, 3)[name] / 5
            rows.append([f"training, {name}", dtype, seconds, work / seconds / rates[dtype]])
    unet, inputs = new_unet().eval(), unet_inputs(2, 8, 128, 24)
    with torch.no_grad():
        work, seconds = operations(lambda: unet(**inputs)), in_turn({"": lambda: unet(**inputs)}, 20)[""]
    rows.append(["sampling, one step with guidance", torch.float32, seconds, work / seconds / rates[torch.float32]])
    print("\n## Of the matrix rate:", *(f"{rate / 1e9:.0f} 10^9 a second in {dtype};" for dtype, rate in rates.items()))
    cells = [[name, dtype, f"{seconds:.3f}", f"{100 * share:.0f} %"] for name, dtype, seconds, share in rows]
    print("\n" + table(cells, ["what", "numbers", "s a step", "of the rate"]))


def sizes() -> None:
    """What `sdlearn-train --size` costs: operations for all sizes, times for those that a CPU can train."""
    steps, batches = ({name: usual(part, what) for name, part in PARTS.items()} for what in ("steps", "batch"))
    rows = []
    for size, (vae_widths, unet_widths) in WIDTHS.items():
        side, runs = size // 8, training_runs(batches, best_precision(), size)
        work = sum(3 * steps[part] * operations(forward) for part, (_, forward) in runs.items())
        with torch.device("meta"):
            unet, decoder = new_unet(side, widths=unet_widths), new_vae(size, widths=vae_widths).decoder
        inputs = unet_inputs(1, side, 128, 24, "meta")
        picture = 60 * operations(partial(unet, **inputs)) + operations(partial(decoder, inputs["sample"]))
        row = [size, f"{unet.num_parameters() / 1e6:.1f} M", f"{picture / 1e9:.0f}", f"{work / 1e12:.0f}"]
        for part, (five, _) in runs.items():
            row.append(f"{in_turn({part: five}, 3)[part] / 5:.3f}" if size < 128 else "-")
        rows.append(row)
    heads = [
        "pixels",
        "U-Net",
        "10^9 operations: a picture",
        "10^12: a training",
        *(f"s a step: {part}" for part in steps),
    ]
    print("\n## By size\n\n" + table(rows, heads))


def one_case(case: dict, pipe) -> None:
    """In a process of its own, so that its peak of memory is its own: a training step and 5 sampling steps."""
    batch, side, width = case["batch"], case["side"] // 8, case["width"]
    unet = new_unet()
    if width != 128:
        config = dict(unet.config) | {"block_out_channels": (width, width + 16)}
        unet = UNet2DConditionModel.from_config(config)
    inputs = list(unet_inputs(batch, side, 128, 24).values())
    example = (inputs[0], inputs[1], torch.randn_like(inputs[0]), inputs[2])
    with Memory() as memory:
        fit(unet, diffusion_loss, lambda _: example, 1, lr=1e-4, progress=lambda steps, _: steps)
    begin = time.perf_counter()
    fit(unet, diffusion_loss, lambda _: example, 3, lr=1e-4, progress=lambda steps, _: steps)
    training = (time.perf_counter() - begin) / 3
    scheduler = stable_diffusion_scheduler()
    scheduler.set_timesteps(case["steps"])
    begin = time.perf_counter()
    with torch.no_grad():
        denoise(unet, scheduler, inputs[0], inputs[2], inputs[2], 4.0)
    pipe.send((training, time.perf_counter() - begin, memory.most / 2**20))


def growth() -> None:
    """Time and memory against batch, picture size, width and steps."""
    usual = {"batch": 16, "side": 64, "width": 128, "steps": 5}
    vary = {"batch": (4, 16, 64), "side": (64, 96, 128), "width": (64, 128, 256), "steps": (5, 10, 20)}
    spawn, rows = multiprocessing.get_context("spawn"), []
    for name, values in vary.items():
        curves = {"training step, s": [], "sampling, s": []}
        for value in values:
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=one_case, args=(usual | {name: value}, theirs))
            process.start()
            training, sampling, memory = mine.recv()
            process.join()
            rows.append([name, value, f"{training:.3f}", f"{sampling:.3f}", f"{memory:.0f}"])
            curves["training step, s"].append(training)
            curves["sampling, s"].append(sampling)
        PLOTS.mkdir(parents=True, exist_ok=True)
        show.lines(values, curves, name, "s", marker="o").savefig(PLOTS / f"{name}.png")
    print(f"\n## How cost grows; the rest as in {usual}\n")
    print(table(rows, ["what varies", "value", "training step, s", "sampling, s", "memory of training, MB"]))


if __name__ == "__main__":
    gpu_hours(counted()["v1-4"])
    shares()
    sizes()
    growth()
