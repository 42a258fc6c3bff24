"""Our loop against `StableDiffusionPipeline`: the same weights and settings, in turn, in one run (`make bench`)."""

import subprocess
import sys
import time

import torch
import true_size
from diffusers import StableDiffusionPipeline

from benchmarks.measured import in_turn, matrix_rate, table
from sdlearn import parts
from sdlearn.measuring import operations
from sdlearn.sampling import text_to_image

PROMPT = "a photograph of a cat riding a red bicycle in the desert"
COLD = {  # from a cold process to a picture; and the imports that any such process needs
    "imports alone": "import torch; from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel; "
    "from transformers import CLIPTextModel, CLIPTokenizer",
    "sdlearn-draw": f"from sdlearn.tools.draw import draw; draw({PROMPT!r})",
    "StableDiffusionPipeline": "from diffusers import StableDiffusionPipeline; from sdlearn.parts import MINI; "
    f"StableDiffusionPipeline.from_pretrained(MINI, safety_checker=None)({PROMPT!r}, guidance_scale=4.0, "
    "num_inference_steps=30)",
}


def pipeline_of(model: parts.Parts) -> StableDiffusionPipeline:
    """The library's loop over the same parts."""
    own = parts.make_scheduler("ddim", model.scheduler.config)
    pipeline = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, own, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def both(model: parts.Parts, pipeline, prompts: list[str], steps: int, guidance: float, size: int) -> dict:
    """The two runs to be compared."""
    options = {"guidance_scale": guidance, "height": size, "width": size}
    return {
        "ours": lambda: text_to_image(model, prompts, steps=steps, **options),
        "pipeline": lambda: pipeline(
            prompts, num_inference_steps=steps, generator=torch.Generator().manual_seed(0), output_type="pt", **options
        ),
    }


def small(n: int = 20) -> None:
    """The small model on the CPU: 30 steps, guidance 4."""
    model = parts.load("mini", "cpu")
    seconds = in_turn(both(model, pipeline_of(model), [PROMPT], 30, 4.0, 64), n)
    ratio = seconds["ours"] / seconds["pipeline"]
    print(f"\n## The small model on the CPU, {n} pictures each\n")
    print(table([[name, f"{s:.3f}", f"{30 / s:.1f}"] for name, s in seconds.items()], ["loop", "s", "steps a second"]))
    print(f"\nours / pipeline: {ratio:.3f}")


def cold(n: int = 3) -> None:
    """From a cold process: mostly imports."""
    times = {name: [] for name in COLD}
    for _ in range(n):
        for name, program in COLD.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
            times[name].append(time.perf_counter() - begin)
    best = {name: sorted(values)[n // 2] for name, values in times.items()}
    rows = [[name, f"{s:.1f}", f"{s / best['imports alone']:.2f}"] for name, s in best.items()]
    print(f"\n## From a cold process, median of {n}\n\n{table(rows, ['process', 's', 'against the imports'])}")


def large() -> None:
    """v1-4's shape with random weights: on a GPU in half precision, on a CPU two steps at 256 x 256."""
    device = parts.best_device()
    gpu = device.type == "cuda"
    dtype, size, steps, batches = (torch.float16, 512, 50, (1, 8)) if gpu else (torch.float32, 256, 2, (1,))
    models = [make().to(device, dtype).eval() for make in (true_size.text_encoder, true_size.vae, true_size.unet)]
    model = parts.Parts(true_size.tokenizer(), *models, parts.stable_diffusion_scheduler())
    pipeline, rate, rows = pipeline_of(model), matrix_rate(device, dtype, 8192 if gpu else 2048), []
    for batch in batches:
        runs = both(model, pipeline, [true_size.PROMPT] * batch, steps, 7.5, size)
        seconds = in_turn(runs, 3 if gpu else 1, device)
        if gpu:
            model.unet.to(memory_format=torch.channels_last)
            seconds["ours, channels_last"] = in_turn({"": runs["ours"]}, 3, device)[""]
            model.unet.compile(mode="max-autotune")
            seconds["ours, compiled"] = in_turn({"": runs["ours"]}, 3, device)[""]
            model.unet._compiled_call_impl = None  # the pipeline of the next batch comes as it is
            model.unet.to(memory_format=torch.contiguous_format)
        work = operations(runs["ours"])
        for name, s in seconds.items():
            share = f"{100 * work / s / rate:.0f} %"
            rows.append([name, batch, f"{steps / s:.2f}", f"{s / seconds['pipeline']:.3f}", share])
    heads = ["loop", "batch", "steps a second", "against the pipeline", "of the matrix rate"]
    print(f"\n## v1-4's shape, {size} x {size}, {steps} steps, {str(dtype)[6:]}, {device.type}\n")
    print(table(rows, heads))
    if gpu:
        print(f"\npeak memory: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    print(f"threads: {torch.get_num_threads()}; model: {parts.MINI.name}")
    small()
    cold()
    large()
